"""Requests that name no version, shared out among labels: by chance or by a key, changed without a failed request."""

import json
import re
import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.testclient import TestClient

from toolkit.bundle import INT8_LITERT, TRAFFIC, move_label, move_label_back, share_traffic
from toolkit.inference import shelf
from toolkit.serving import ServerOptions, create_app
from toolkit.serving.models import ModelTable

PREDICT = "/predict/digits"


@pytest.fixture
def shared(models_dir):
    """A bundle of versions 1 to 3, of which 1 is stable and 2, the canary, answers a quarter of the requests."""
    bundle = models_dir / "digits"
    for version in (2, 3):
        shutil.copytree(bundle / "1", bundle / str(version))
    move_label(bundle, "stable", 1)
    move_label(bundle, "canary", 2)
    share_traffic(bundle, 0.25)
    return bundle


def versions_of(client, picture, number=200, key=None) -> Counter:
    def ask(index: int) -> str:
        headers = {} if key is None else {"X-Traffic-Key": key(index)}
        answer = client.post(PREDICT, content=picture, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-model-version"] == str(answer.json()["version"])
        return answer.headers["x-model-version"]

    return Counter(map(ask, range(number)))


def states(client) -> dict[str, tuple[str, str]]:
    """Each version's state in TensorFlow Serving's protocol, and why it is not ready in the other."""
    rows = client.get("/v1/models/digits").json()["model_version_status"]
    reasons = {row["version"]: row["reason"] for row in client.post("/v2/repository/index").json()}
    return {row["version"]: (row["state"], reasons[row["version"]]) for row in rows}


def test_versions_of_all_labels_with_a_share_are_wanted(shared):
    table = ModelTable(shared.parent)
    assert table.wanted("digits") == [2, 1]
    share_traffic(shared, end=True)
    assert table.wanted("digits") == [None]


def test_the_shelf_is_told_what_to_keep_when_that_changes_and_not_with_every_request(shared, monkeypatch):
    told = []
    monkeypatch.setattr(shelf.Shelf, "keep", lambda self, name, versions: told.append((name, list(versions))))
    table = ModelTable(shared.parent)
    for _ in range(3):
        table.wanted("digits")
    move_label(shared, "canary", 3)
    for _ in range(3):
        table.wanted("digits")
    share_traffic(shared, end=True)
    for _ in range(3):
        table.wanted("digits")
    assert told == [("digits", [2, 1]), ("digits", [3, 1]), ("digits", [])]


def test_a_share_by_chance_or_by_a_key(shared, images, b64):
    with TestClient(create_app(shared.parent, "litert-int8")) as client:
        assert 20 < versions_of(client, images[3])["2"] < 80  # of 200, five standard deviations around 50
        by_key = [versions_of(client, images[3], 60, "user {}".format) for _ in range(2)]
        assert by_key[0] == by_key[1]
        assert 0 < by_key[0]["2"] < 40
        keys = [f"user {number}" for number in range(40)]
        answered = [key for key in keys if versions_of(client, images[3], 1, [key].__getitem__)["2"]]
        share_traffic(shared, 0.5)  # whoever had the canary keeps it
        for each in answered:
            assert versions_of(client, images[3], 1, [each].__getitem__) == {"2": 1}
        key = {"X-Traffic-Key": answered[0]}
        v1 = client.post("/v1/models/digits:predict", json={"instances": [b64(images[3])]}, headers=key)
        assert (v1.status_code, v1.headers["x-model-version"]) == (200, "2")
        tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [b64(images[3])["b64"]]}
        v2 = client.post("/v2/models/digits/infer", json={"inputs": [tensor]}, headers=key).json()
        assert v2["model_version"] == "2"
        # Whoever names a version or a label gets it, and the shares' versions stay in memory.
        assert client.post(PREDICT + "/versions/3", content=images[3], headers=key).json()["version"] == 3
        assert client.get("/v1/models/digits/metadata").json()["model_spec"]["version"] == "1"
        page = client.get("/metrics").text
        counts = dict(re.findall(r'toolkit_answer_seconds_count{model="digits",version="(\d)"} (\S+)', page))
        assert set(counts) == {"1", "2", "3"}
        assert 'toolkit_loaded_versions{model="digits"} 3.0' in page
        share_traffic(shared, 0)
        versions_of(client, images[3], 1)
        assert 'toolkit_version{model="digits"} 1.0' in client.get("/metrics").text  # that of stable
        assert versions_of(client, images[3], 20) == {"1": 20}
        (shared / TRAFFIC).write_text("no JSON")  # what was read before stays
        assert versions_of(client, images[3], 5) == {"1": 5}
        share_traffic(shared, end=True)
        assert versions_of(client, images[3], 5) == {"3": 5}


def test_labels_move_under_load_and_no_request_fails(shared, images, running):
    ended, codes, seen = threading.Event(), Counter(), Counter()

    def client(port: int) -> None:
        with httpx.Client(timeout=60) as session:
            while not ended.is_set():
                answer = session.post(f"http://127.0.0.1:{port}{PREDICT}", content=images[3])
                codes[answer.status_code] += 1
                seen[answer.headers.get("x-model-version")] += 1

    def wait_for(version: str, *, gone: str | None = None) -> None:
        for _ in range(600):
            before = Counter(seen)
            threading.Event().wait(0.1)
            if seen[version] > before[version] and (gone is None or seen[gone] == before[gone]):
                return
        raise AssertionError((version, gone, seen))

    with running(create_app(shared.parent, "litert-int8")) as (_, port), ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(client, port) for _ in range(3)]
        share_traffic(shared, 0.5)
        wait_for("2")
        move_label(shared, "canary", 3)
        wait_for("3", gone="2")
        move_label(shared, "stable", 3)
        wait_for("3", gone="1")
        move_label_back(shared, "stable")
        wait_for("1")
        move_label_back(shared, "canary")
        wait_for("2", gone="3")
        ended.set()
        for each in clients:
            each.result()
    assert set(codes) == {200}


def test_until_a_labels_new_version_is_loaded_the_one_before_answers(shared, images, monkeypatch):
    go_on, load_warm = threading.Event(), shelf._load_warm
    monkeypatch.setattr(
        shelf,
        "_load_warm",
        lambda path, *args, **more: (path.name == "3" and go_on.wait(60), load_warm(path, *args, **more))[1],
    )
    share_traffic(shared, 1)
    with TestClient(create_app(shared.parent, "litert-int8")) as client:
        assert versions_of(client, images[3], 2) == {"2": 2}
        move_label(shared, "canary", 3)
        assert versions_of(client, images[3], 5) == {"2": 5}
        assert client.get("/readyz").status_code == 200
        assert states(client) == {
            "1": ("AVAILABLE", ""),
            "2": ("AVAILABLE", ""),
            "3": ("LOADING", "loading"),
        }
        go_on.set()
        for _ in range(1000):
            if versions_of(client, images[3], 1)["3"]:
                break
        assert versions_of(client, images[3], 5) == {"3": 5}


def test_a_canary_that_cannot_be_loaded_costs_nobody_an_answer(shared, images):
    (shared / "2" / INT8_LITERT).write_bytes(b"damaged")
    share_traffic(shared, 1)
    with TestClient(create_app(shared.parent, "litert-int8")) as client:
        assert versions_of(client, images[3], 5) == {"1": 5}
        assert client.get("/readyz").json() == {"ready": True, "models": {"digits": "ready"}}
        shutil.rmtree(shared / "2")
        assert versions_of(client, images[3], 5) == {"1": 5}


def test_by_grpc_metadata_holds_the_key(shared, images, running):
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc as stubs

    from toolkit.serving.messages import message_type

    share_traffic(shared, 0.5)
    app = create_app(shared.parent, "litert-int8", ServerOptions(grpc_port=0))
    request = message_type("PredictRequest")()
    request.model_spec.name = "digits"
    request.inputs["image_bytes"].dtype = 7
    request.inputs["image_bytes"].tensor_shape.dim.add(size=1)
    request.inputs["image_bytes"].string_val.append(images[3])
    with running(app), grpc.insecure_channel(f"127.0.0.1:{app.state.grpc_port}") as channel:
        stub = stubs.PredictionServiceStub(channel)

        def ask() -> list[int]:
            keys = [(("x-traffic-key", str(key)),) for key in range(20)]
            return [stub.Predict(request, metadata=key).model_spec.version.value for key in keys]

        # Until both versions are loaded, the first that is answers for the other.
        assert any(set(ask()) == {1, 2} for _ in range(100))
        assert ask() == ask()


def test_the_description_names_the_key(shared):
    with TestClient(create_app(shared.parent, "litert-int8")) as client:
        document = json.loads(client.get("/openapi.json").content)
    assert "x-traffic-key" in [each["name"] for each in document["paths"]["/predict/{name}"]["post"]["parameters"]]
