"""The ASGI application: every protocol's routes over one service, and what every request passes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from toolkit.serving import protocol
from toolkit.serving.models import ModelTable
from toolkit.serving.operation.middleware import VERSION_HEADER, EveryRequest
from toolkit.serving.operation.security import ApiKeys
from toolkit.serving.options import ServerOptions
from toolkit.serving.protocol import RequestError
from toolkit.serving.protocols import open_inference, openapi, operations, pictures, tf_serving
from toolkit.serving.protocols.routing import json_response
from toolkit.serving.service import Service
from toolkit.serving.traffic import KEY_HEADER

#: The status that is counted and logged where nobody is left to be answered, as nginx writes it.
CLIENT_LEFT = 499


def build_app(table: ModelTable, options: ServerOptions | None = None, host: str = "127.0.0.1") -> Starlette:
    """Build the ASGI application over ``table``; ``host`` is where it speaks gRPC, if it should.

    Raises:
        UserError: the file of API keys holds none.
    """
    options = options or ServerOptions()
    service = Service(table, options)
    keys = ApiKeys(options.api_keys) if options.api_keys is not None else None

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(asyncio.create_task(service.keep_observing()).cancel)
            if options.grpc_port is not None:
                from toolkit.serving.grpc import grpc_server

                app.state.grpc_port = await stack.enter_async_context(grpc_server(service, keys, host))
            yield
        service.close()

    middleware = [Middleware(EveryRequest, metrics=service.metrics, keys=keys, log_requests=options.access_log)]
    if options.cors:
        let_in = Middleware(
            CORSMiddleware,
            allow_origins=options.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type", KEY_HEADER],
            expose_headers=["X-Request-ID", VERSION_HEADER],
        )
        middleware.insert(0, let_in)
    errors = (RequestError, HTTPException, ClientDisconnect)  # any other is the middleware's
    return Starlette(
        routes=[route for module in (operations, tf_serving, open_inference, pictures, openapi)
                for route in module.routes(service)],
        middleware=middleware,
        exception_handlers=dict.fromkeys(errors, _on_error),
        lifespan=lifespan,
    )  # fmt: skip


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestError):
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        if error.elsewhere:
            headers["Connection"] = "close"
        return json_response(protocol.encode_error(str(error)), error.status, headers)
    if isinstance(error, HTTPException):
        message = f"Malformed request: {request.method} {request.url.path}"
        return json_response(protocol.encode_error(message), error.status_code, error.headers)
    return Response(status_code=CLIENT_LEFT)
