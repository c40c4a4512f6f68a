"""The server's counters and times, in Prometheus' form."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

#: Where processes behind one port leave their figures for each other, see ``prometheus_client.multiprocess``.
SHARED_DIR = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """One application's figures. Labels are names of bundles that are there, never what a request made up."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "toolkit_requests", "Requests answered.", ["protocol", "model", "code"], registry=registry
        )
        self.seconds = Histogram(
            "toolkit_request_seconds", "From a request's first line to its answer.", ["protocol"],
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.stages = Histogram(
            "toolkit_stage_seconds",
            "Time of each stage: body (it arrives), queue (it waits its turn), decode (JSON and pictures), engine "
            "(with waiting for other requests' pictures).",
            ["model", "stage"], registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.answers = Histogram(
            "toolkit_answer_seconds", "From a place in the queue to the answer, by the version that answered.",
            ["model", "version"], registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.failures = Counter(
            "toolkit_failures", "Requests that a version's network failed to answer.", ["model", "version"],
            registry=registry,
        )  # fmt: skip
        self.pictures = Counter("toolkit_pictures", "Pictures answered.", ["model"], registry=registry)
        self.refused = Counter("toolkit_refused", "Requests refused with 429.", ["model"], registry=registry)
        self.abandoned = Counter(
            "toolkit_abandoned", "Requests given up because their client hung up.", ["model"], registry=registry
        )
        self.batches = Histogram(
            "toolkit_batch_pictures", "Pictures that the engine was given at once.", ["model"],
            registry=registry, buckets=(1, 2, 4, 8, 16, 32),
        )  # fmt: skip
        self.admitted = Gauge(
            "toolkit_queue_requests", "Requests that are worked on or wait.", ["model"],
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.places = Gauge(
            "toolkit_queue_places", "Requests that may be worked on or wait; one more is refused.", ["model"],
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.version = Gauge(
            "toolkit_version", "The version that answers requests that name none.", ["model"],
            registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self.loaded = Gauge(
            "toolkit_loaded_versions", "Versions in memory.", ["model"],
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip

    def page(self) -> bytes:
        """Write all figures, of all processes behind the port."""
        if not os.environ.get(SHARED_DIR):
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)
