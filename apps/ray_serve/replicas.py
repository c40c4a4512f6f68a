"""Bundles on a Ray cluster: replicas of the application that ``toolkit serve`` runs, more of them under more load.

    serve run replicas:build directory=/models engine=recommended

Every node must reach the directory. Each replica has all bundles in memory and gathers what comes at the same time
into batches, as ``toolkit serve`` does; Ray Serve spreads the requests, holds back what no replica has room for, and
starts a replica anew that dies.
"""

from contextlib import suppress

from pydantic import BaseModel, PositiveFloat, PositiveInt
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from starlette.applications import Starlette

from toolkit.serving import ServerOptions


class Settings(BaseModel, extra="forbid"):
    """Arguments of ``serve run replicas:build``, given as ``name=value``.

    Attributes:
        directory: holds bundles, on every node.
        engine: as in ``toolkit.Predictor.load``.
        min_replicas: that always run.
        max_replicas: that are started at most, under load.
        cpus: processors that are set aside for a replica.
        busy: requests that a replica works on before another one is started; it is given at most twice as many.
        max_queue: requests that wait for a replica, at each of Ray Serve's proxies; one more is answered 429.
    """

    directory: str
    engine: str = "recommended"
    min_replicas: PositiveInt = 1
    max_replicas: PositiveInt = 4
    cpus: PositiveFloat = 1.0
    busy: PositiveInt = 16
    max_queue: PositiveInt = 64


def build(settings: Settings) -> Application:
    """Make the application for ``serve run``."""

    def replica() -> Starlette:
        return _loaded(settings)

    deployed = serve.deployment(
        name="toolkit",
        ray_actor_options={"num_cpus": settings.cpus},
        max_ongoing_requests=2 * settings.busy,
        max_queued_requests=settings.max_queue,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.min_replicas,
            max_replicas=settings.max_replicas,
            target_ongoing_requests=settings.busy,
        ),
    )
    return deployed(serve.ingress(replica)()).bind()


def _loaded(settings: Settings) -> Starlette:
    """The application, once its bundles are in memory: a replica is asked only then."""
    from toolkit.serving.app import build_app
    from toolkit.serving.models import ModelTable
    from toolkit.serving.protocol import RequestError

    table = ModelTable(settings.directory, settings.engine)
    for name in table.names():
        for version in table.wanted(name):
            with suppress(RequestError):  # the log says why, and so does the bundle's status
                table.get(name, version)
    return build_app(table, ServerOptions(max_queue=2 * settings.busy))
