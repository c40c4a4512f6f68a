"""The middleware of every request: ids, keys, figures, the log, other origins."""

import hashlib
import json
import logging
import re
import shutil

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from toolkit.errors import UserError
from toolkit.serving import ServerOptions, create_app
from toolkit.serving.operation.logs import JsonLines
from toolkit.serving.protocols import openapi


@pytest.fixture
def client_of(bundle):
    return lambda **options: TestClient(create_app(bundle.parent.parent, "litert", ServerOptions(**options)))


def test_request_ids_come_back_or_are_made(client_of):
    client = client_of()
    assert client.get("/healthz", headers={"x-request-id": "mine-7"}).headers["x-request-id"] == "mine-7"
    for odd in ("", "a b", "x" * 65, "<script>"):
        answer = client.get("/healthz", headers={"x-request-id": odd})
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])
    assert client.get("/nope").headers["x-request-id"] != client.get("/nope").headers["x-request-id"]


def test_keys(client_of, images, tmp_path):
    file = tmp_path / "keys.txt"
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in ("first", "second")]
    file.write_text(f"# keys\n\n{digests[0]}  -\n{digests[1].upper()} of the shop\n")
    client = client_of(api_keys=file)
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code in (200, 503)
    for headers in ({}, {"x-api-key": "third"}, {"authorization": "Bearer "}, {"authorization": "Basic first"}):
        for method, path in (
            ("POST", "/predict/digits"),
            ("GET", "/metrics"),
            ("GET", "/v1/models/digits"),
            ("GET", "/x"),
        ):
            refused = client.request(method, path, headers=headers, content=images[0] if method == "POST" else None)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert "an API key is needed" in refused.json()["error"]
    for headers in ({"authorization": "bearer first"}, {"x-api-key": "second"}):
        assert client.post("/predict/digits", content=images[0], headers=headers).status_code == 200
    assert "security" in client.get("/openapi.json", headers={"x-api-key": "first"}).json()


def test_files_of_keys_that_cannot_be(client_of, tmp_path):
    file = tmp_path / "keys.txt"
    with pytest.raises(UserError, match="no such file"):
        client_of(api_keys=file)
    file.write_text("\n# none\n")
    with pytest.raises(UserError, match="no key's hash in it"):
        client_of(api_keys=file)
    file.write_text("secret\n")
    with pytest.raises(UserError, match="line 1: expected a key's SHA-256") as error:
        client_of(api_keys=file)
    assert "secret" not in str(error.value)


def test_pages_of_other_origins_are_let_in_by_name_alone(client_of):
    origin = {"origin": "https://example.org"}
    assert "access-control-allow-origin" not in client_of().get("/healthz", headers=origin).headers
    client = client_of(cors=("https://example.org",))
    assert client.get("/healthz", headers=origin).headers["access-control-allow-origin"] == "https://example.org"
    other = client.get("/healthz", headers={"origin": "https://example.com"})
    assert "access-control-allow-origin" not in other.headers
    asked = origin | {"access-control-request-method": "POST", "access-control-request-headers": "X-API-Key"}
    assert client.options("/predict/digits", headers=asked).status_code == 200


def test_figures(client_of, images):
    client = client_of()
    assert client.post("/predict/digits", content=images[0]).status_code == 200
    assert client.post("/predict/digits", files=[("f", ("a", image)) for image in images]).status_code == 200
    assert client.post("/v1/models/digits:predict", content=b"{").status_code == 400
    client.post("/predict/made-up")
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }
    assert found["toolkit_requests_total", "200", "digits", "predict"] == 2
    assert found["toolkit_requests_total", "400", "digits", "v1"] == 1
    assert found["toolkit_requests_total", "", "404", "predict"] == 1
    assert found["toolkit_pictures_total", "digits"] == 5
    assert (found["toolkit_queue_requests", "digits"], found["toolkit_queue_places", "digits"]) == (0, 32)
    assert found["toolkit_version", "digits"] == found["toolkit_loaded_versions", "digits"] == 1
    for stage in ("body", "queue", "decode", "engine"):
        assert found["toolkit_stage_seconds_count", *sorted(("digits", stage))] >= 2
    assert "made-up" not in page.text


def test_figures_of_a_bundle_that_is_gone_are_zeros(tmp_path, bundle, images):
    shutil.copytree(bundle.parent, tmp_path / "digits")
    client = TestClient(create_app(tmp_path))
    assert client.post("/predict/digits", content=images[0]).status_code == 200
    assert 'toolkit_loaded_versions{model="digits"} 1.0' in client.get("/metrics").text
    shutil.rmtree(tmp_path / "digits")
    assert client.post("/predict/digits", content=images[0]).status_code == 404
    page = client.get("/metrics").text
    for name in ("loaded_versions", "queue_places", "queue_requests"):
        assert f'toolkit_{name}{{model="digits"}} 0.0' in page


def test_log_lines(client_of, images, caplog):
    client = client_of(access_log=True)
    with caplog.at_level(logging.INFO, "toolkit.serving.access"):
        client.post("/predict/digits", content=images[0], headers={"x-request-id": "mine"})
    [record] = [record for record in caplog.records if record.name == "toolkit.serving.access"]
    assert record.getMessage().startswith("POST '/predict/digits' 200 in ")
    document = json.loads(JsonLines().format(record))
    assert (document["path"], document["status"], document["level"]) == ("/predict/digits", 200, "info")


def test_a_failure_that_nobody_foresaw_is_an_answer_with_an_id(client_of, monkeypatch, caplog):
    def fail(**options):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(openapi, "describe", fail)
    answer = client_of().get("/openapi.json", headers={"x-request-id": "mine"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal error; the server's log has the details"}
    assert answer.headers["x-request-id"] == "mine"
    assert "a secret" in caplog.text


def test_ready_when_everything_is_loaded(client_of):
    client = client_of()
    first = client.get("/readyz")
    assert first.json()["models"]["digits"] in ("loading", "ready")
    while (answer := client.get("/readyz")).status_code == 503:
        assert answer.json() == {"ready": False, "models": {"digits": "loading"}}
    assert answer.json() == {"ready": True, "models": {"digits": "ready"}}


def test_the_description_and_its_page_name_every_route(client_of):
    client = client_of()
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    described = {
        re.sub("{name}", "digits", re.sub("{version}", "1", path)): list(each)
        for path, each in document["paths"].items()
    }
    for path, methods in described.items():
        for method in methods:
            answer = client.request(method, path)
            assert answer.status_code != 500, path
            assert "Malformed request: " not in answer.text, path  # what is said where there is no such route
    unsaid = {route.path for route in client.app.routes} - set(document["paths"])
    assert {path.rpartition(":")[2] for path in unsaid} == {"classify", "regress", "/openapi.json", "/docs"}
    ids = [operation["operationId"] for each in document["paths"].values() for operation in each.values()]
    assert len(ids) == len(set(ids))
    page = client.get("/docs").text
    assert all(f"<code>{path}</code>" in page for path in document["paths"])
    assert not re.search(r"(src|href)=.?https?:", page)  # needs nothing from elsewhere
