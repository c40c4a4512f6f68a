"""Requests of nonsense of every kind: each is told what is wrong with it, and none is an internal error."""

import base64
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from toolkit.serving import ServerOptions, create_app
from toolkit.serving.protocols.open_inference import HEADER_LENGTH

FEW = settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
PATHS = ("/v1/models/digits:predict", "/v2/models/digits/infer", "/predict/digits")

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)
pictures = st.one_of(st.builds(lambda data: {"b64": base64.b64encode(data).decode()}, st.binary(max_size=9)), anything)
v1 = st.fixed_dictionaries(
    {},
    optional={
        "instances": st.lists(pictures, max_size=3) | anything,
        "inputs": st.lists(pictures, max_size=3) | anything,
        "signature_name": st.sampled_from(["", "pixels", "features", "serving_default"]) | anything,
    },
)
tensors = st.fixed_dictionaries(
    {"name": st.sampled_from(["image_bytes", "pixels"]), "datatype": st.sampled_from(["BYTES", "UINT8"])},
    optional={
        "shape": st.lists(st.integers(-1, 40), max_size=4) | anything,
        "data": st.lists(scalars, max_size=4) | anything,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "x"]), scalars, max_size=2) | anything,
    },
)
v2 = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, min_size=1, max_size=2) | anything},
    optional={"outputs": st.lists(st.fixed_dictionaries({"name": scalars}), max_size=2) | anything, "id": scalars},
)


@pytest.fixture(scope="module")
def client(bundle):
    options = ServerOptions(max_body_bytes=1 << 20, max_pixels=10_000_000)
    return TestClient(create_app(bundle.parent.parent, "litert", options))


def sound(answer, *, among=(200, 400, 413, 415)) -> None:
    assert answer.status_code in among, answer.text
    if answer.status_code != 200:
        assert "\n" not in answer.json()["error"]


@FEW
@given(document=v1)
def test_any_document_for_tensorflow_serving(client, document):
    sound(client.post(PATHS[0], json=document))


@FEW
@given(document=v2, length=st.none() | st.integers(0, 400), tail=st.binary(max_size=20))
def test_any_document_for_open_inference(client, document, length, tail):
    import orjson

    try:
        body = orjson.dumps(document) + (tail if length is not None else b"")
    except (TypeError, ValueError):  # an integer beyond 64 bits, half a surrogate pair
        return
    headers = {} if length is None else {HEADER_LENGTH: str(length)}
    sound(client.post(PATHS[1], content=body, headers=headers))


@FEW
@given(
    body=st.binary(max_size=200), path=st.sampled_from(PATHS), kind=st.sampled_from(["", "gzip", "deflate", "identity"])
)
def test_any_bytes(client, body, path, kind):
    sound(client.post(path, content=body, headers={"content-encoding": kind} if kind else {}))


@FEW
@given(
    segments=st.lists(st.text("abv12./:%~\\\0é", max_size=6), max_size=5),
    method=st.sampled_from(["GET", "POST", "PUT"]),
)
def test_any_path(client, segments, method):
    from urllib.parse import quote

    for prefix in ("/v1/models/", "/v2/models/", "/predict/", "/"):
        path = prefix + "/".join(quote(segment, safe="") for segment in segments)
        sound(client.request(method, f"http://testserver{path}"), among=(200, 400, 404, 405, 415))


def test_mutated_pictures(client, images):
    rng = random.Random(7)
    for number in range(200):
        data = bytearray(images[number % len(images)])
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        sound(client.post(PATHS[2], content=bytes(data)))
