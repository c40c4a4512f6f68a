"""The server's options as one record. Standard library only, so that the command line may ask."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from toolkit.errors import UserError

#: Places in a bundle's queue: enough to keep the processors busy. More let everyone wait longer and answer no faster.
QUEUE = 32
#: Places a worker needs: with fewer, clients that reach it together by chance are refused while others have room. Of 32
#: clients that never pause, one of two workers with 16 refused nine requests of ten.
WORKER_QUEUE = 24


@dataclass(frozen=True)
class ServerOptions:
    """Limits of the server, and how it is reached.

    Attributes:
        workers: processes behind the port; each has all bundles in memory, and its share of the processors.
        max_queue: requests of one bundle that are worked on or wait, shared out equally among the workers; one more is
            answered 429. Under full load an accepted request waits for as many others: ``max_queue`` divided by the
            requests that the server answers a second. By default ``QUEUE``, but at least ``WORKER_QUEUE`` a worker.
        max_body_bytes: of a request, also once unpacked.
        max_buffered_bytes: of all requests' bodies together, in each process; what goes beyond is answered 429.
        max_pictures: in one request.
        max_pixels: of all pictures of one request together, counted before any is decoded.
        body_seconds: a body must have arrived after so long, longer only if it is large, see ``bodies``.
        keep_alive: seconds a connection stays open without a request; longer than a load balancer's own.
        grace: seconds that requests in progress get to finish at shutdown.
        api_keys: a file of hashed keys, of which a request must show one, see ``security``.
        tls_cert: a PEM file of the certificate and its chain; HTTPS alone is answered then.
        tls_key: its private key's PEM file, where it is not in the same file.
        cors: origins, such as ``https://example.org``, whose pages may call the server; ``*`` for any.
        access_log: log a line for every request.
        grpc_port: for TensorFlow Serving's gRPC beside HTTP, 0 for any free one; None where it is not spoken.
        log_format: ``json`` for one JSON object a line.
    """

    workers: int = 1
    max_queue: int | None = None
    max_body_bytes: int = 64 << 20
    max_buffered_bytes: int = 512 << 20
    max_pictures: int = 256
    max_pixels: int = 256_000_000
    body_seconds: float = 10.0
    keep_alive: int = 75
    grace: int = 30
    api_keys: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    cors: tuple[str, ...] = ()
    access_log: bool = False
    grpc_port: int | None = None
    log_format: Literal["text", "json"] = "text"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UserError: a limit below 1, a key without its certificate, or a file that is not there.
        """
        for name in ("workers", "max_queue", "max_body_bytes", "max_buffered_bytes", "max_pictures", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        for name in ("body_seconds", "keep_alive", "grace"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must be 0 seconds or more, got {getattr(self, name)}")
        if self.tls_key is not None and self.tls_cert is None:
            raise UserError(f"{self.tls_key}: a private key alone is no use; name its certificate too")
        for name in ("tls_cert", "tls_key", "api_keys"):
            file = getattr(self, name)
            if file is not None and not file.is_file():
                raise UserError(f"{file}: no such file, given as {name}")

    @property
    def places(self) -> int:
        """Number of requests of one bundle that are worked on or wait in each process: its share of ``max_queue``."""
        if self.max_queue is None:
            return max(WORKER_QUEUE, math.ceil(QUEUE / self.workers))
        return math.ceil(self.max_queue / self.workers)
