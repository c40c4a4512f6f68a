"""TensorFlow Serving's REST protocol, below ``/v1/models``; its JSON is ``serving.protocol``'s."""

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolkit.inference import Predictor
from toolkit.serving import protocol
from toolkit.serving.models import Question, as_question
from toolkit.serving.protocol import PredictRequest, RequestError
from toolkit.serving.protocols.routing import json_document, json_response, target
from toolkit.serving.service import Service


def routes(service: Service) -> list[Route]:
    """Make the routes."""
    table, max_pictures = service.table, service.options.max_pictures

    async def wanted(request: Request) -> tuple[str, int | None]:
        if "label" not in request.path_params:
            return target(request)
        name = request.path_params["name"]
        return name, await to_thread.run_sync(table.labelled, name, request.path_params["label"])

    async def status(request: Request) -> Response:
        if ":" in request.url.path.rpartition("/")[2]:  # as in NAME:predict, which wants a POST
            raise HTTPException(405, headers={"Allow": "POST"})
        name, version = await wanted(request)
        statuses = await to_thread.run_sync(table.statuses, name, version)
        return json_document(protocol.status_of(statuses, table.loading(name)))

    async def metadata(request: Request) -> Response:
        name, version = await wanted(request)
        number, manifest = await to_thread.run_sync(table.manifest, name, version)
        return json_document(protocol.metadata_of(name, number, manifest))

    async def predict(request: Request) -> Response:
        is_columnar = False

        def parse(body: bytes, predictor: Predictor) -> Question:
            nonlocal is_columnar
            parsed: PredictRequest = protocol.parse_predict(body, max_instances=max_pictures)
            is_columnar = parsed.columnar
            return as_question(parsed, predictor)

        reply = await service.answer(request, *await wanted(request), parse)
        return json_response(protocol.encode_answer(reply.outputs(), columnar=is_columnar))

    async def unsupported(request: Request) -> Response:
        # An unknown bundle is the error to report first.
        await to_thread.run_sync(table.statuses, *await wanted(request))
        method = request.url.path.rpartition(":")[2]
        raise RequestError(
            f"Expected {method} signature method_name to be tensorflow/serving/{method}. "
            "Was: tensorflow/serving/predict; use :predict"
        )

    made = []
    for further in ("", "/versions/{version}", "/labels/{label}"):
        model = f"/v1/models/{{name}}{further}"
        made += [
            Route(model + ":predict", predict, methods=["POST"]),
            Route(model + ":classify", unsupported, methods=["POST"]),
            Route(model + ":regress", unsupported, methods=["POST"]),
            Route(model + "/metadata", metadata),
            Route(model, status),
        ]
    return made
