"""The routes for whoever operates the server: alive, ready, figures."""

from anyio import to_thread
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolkit.serving.protocols.routing import json_document
from toolkit.serving.service import Service


def routes(service: Service) -> list[Route]:
    """Make the routes."""

    async def alive(request: Request) -> Response:
        return json_document({"status": "ok"})

    async def ready(request: Request) -> Response:
        is_ready, found = await to_thread.run_sync(service.table.readiness)
        return json_document({"ready": is_ready, "models": found}, 200 if is_ready else 503)

    async def metrics(request: Request) -> Response:
        service.observe()
        page = await to_thread.run_sync(service.metrics.page)
        return Response(page, media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", alive), Route("/readyz", ready), Route("/metrics", metrics)]
