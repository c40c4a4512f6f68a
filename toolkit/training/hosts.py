"""Several hosts that train together, one process each, and the one line a host says when another is lost.

When a connection breaks, JAX ends the process from C++, at once and without a word for the user, or raises, or both.
So the command runs in a child process, and its parent says in one line how that ended.
"""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.machine import end_with_parent

if TYPE_CHECKING:
    from toolkit.training.run_dir import Position

log = logging.getLogger(__name__)

_PARENT = "TOOLKIT_PARENT_PIPE"
_LOST = 3
_CONNECTION = re.compile(r"gloo|nccl|coordination|connection|unavailable|deadline.?exceeded|socket", re.IGNORECASE)
# Without Python's clean-up, in which JAX would wait minutes for the hosts that are gone.
_CHILD = f"""
import os, sys
from toolkit.training.hosts import HostLostError, follow_parent
from toolkit.cli import main
follow_parent()
try:
    status = main()
except HostLostError:
    status = {_LOST}
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
"""


class HostLostError(Exception):
    """Another host died or is out of reach."""


@dataclass(frozen=True)
class Hosts:
    """One of several processes, each on a host of its own, that train together.

    Attributes:
        coordinator: ``HOST:PORT`` of the first, as the others reach it.
        num_hosts: how many there are.
        host_id: which one this is, from 0.
    """

    coordinator: str
    num_hosts: int
    host_id: int

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"--coordinator {self.coordinator!r}: expected HOST:PORT of the host with --host-id 0")
        if not 0 <= self.host_id < self.num_hosts:
            raise UserError(
                f"--host-id {self.host_id} with --num-hosts {self.num_hosts}: ids run from 0 to {self.num_hosts - 1}"
            )


def is_supervised() -> bool:
    """Return whether this process is the child that does the work."""
    return _PARENT in os.environ


def supervise(hosts: Hosts, arguments: Sequence[str]) -> int:
    """Run this program again with the same command-line ``arguments``, as a child process under JAX.

    Returns:
        The exit status; where it is neither success nor bad input, one line on stderr has said why.

    Raises:
        UserError: ``KERAS_BACKEND`` asks for another backend.
    """
    backend = os.environ.get("KERAS_BACKEND", "jax")
    if backend != "jax":
        raise UserError(f"several hosts train together on JAX only: unset KERAS_BACKEND={backend}")
    readable, writable = os.pipe()
    environment = {**os.environ, "KERAS_BACKEND": "jax", _PARENT: str(readable)}
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, *arguments],
        env=environment,
        pass_fds=[readable],
        stdout=sys.stdout,
        stderr=sys.stderr,
    )
    os.close(readable)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        status = child.wait()
    except KeyboardInterrupt:
        status = child.wait()
    finally:
        os.close(writable)
    if status in (0, 2, 130, -signal.SIGTERM):
        return status if status >= 0 else 128 - status
    print(
        f"toolkit: error: host {hosts.host_id} of {hosts.num_hosts} stopped, because another host died or is out of "
        "reach; once all are back, repeat the command on every host with --resume",
        file=sys.stderr,
    )
    return 1


def follow_parent() -> None:
    """End this process when its parent is gone, even if that was killed."""
    end_with_parent(int(os.environ[_PARENT]), status=_LOST)


@contextmanager
def loss_of_hosts(hosts: Hosts | None) -> Iterator[None]:
    """Turn what the connection between hosts raises into ``HostLostError``; without ``hosts``, nothing."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if hosts and _CONNECTION.search(str(error)):
            raise HostLostError(str(error)) from error
        raise


def connect(hosts: Hosts) -> None:
    """Meet the other hosts; before anything else touches a device.

    Raises:
        UserError: the backend is not JAX.
    """
    if keras.backend.backend() != "jax":
        raise UserError(f"several hosts train together on JAX only, and KERAS_BACKEND is {keras.backend.backend()}")
    log.info("host %d of %d, meeting at %s", hosts.host_id, hosts.num_hosts, hosts.coordinator)
    keras.distribution.initialize(hosts.coordinator, hosts.num_hosts, hosts.host_id)


def disconnect() -> None:
    """Wait until the other hosts have come as far, and part."""
    import jax

    jax.distributed.shutdown()


def require_same_position(position: "Position") -> None:
    """Raise unless all hosts found the same checkpoint: they do where ``--out`` is one directory for all of them."""
    from jax.experimental import multihost_utils

    try:
        multihost_utils.assert_equal([position.epoch, position.step])
    except AssertionError:
        raise UserError(
            f"this host found a checkpoint of epoch {position.epoch}, step {position.step}, and another host a "
            "different one: --out must be the same shared directory on all hosts"
        ) from None
