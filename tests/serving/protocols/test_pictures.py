"""Pictures sent as they are: as a body, as a form, by curl."""

import shutil
import subprocess

import pytest
from starlette.testclient import TestClient

from toolkit.inference import Predictor
from toolkit.serving import ServerOptions, create_app

PREDICT = "/predict/digits"


@pytest.fixture(scope="module")
def app(bundle):
    return create_app(bundle.parent.parent, "litert", ServerOptions(max_pictures=4))


@pytest.fixture(scope="module")
def client(app):
    return TestClient(app)


@pytest.fixture(scope="module")
def best(bundle, images):
    return Predictor.load(bundle, "litert").predict(images, top_k=10)


def error(answer, status=400):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", None])
def test_a_picture_is_the_body(client, images, best, kind):
    headers = {} if kind is None else {"content-type": kind}
    document = client.post(PREDICT, content=images[1], headers=headers).json()
    assert (document["model"], document["version"]) == ("digits", 1)
    [answer] = document["predictions"]
    assert set(answer) == {"top", "none_of_these"}
    assert [each["label"] for each in answer["top"]] == [each.label for each in best[1][:5]]
    assert [each["probability"] for each in answer["top"]] == pytest.approx([each.probability for each in best[1][:5]])


def test_pictures_are_files_of_a_form(client, images, best):
    files = [("file", (f"{index} é.png", image)) for index, image in enumerate(images)]
    document = client.post(f"{PREDICT}/versions/1?top=1&probabilities=true", files=files).json()
    assert [row["name"] for row in document["predictions"]] == [f"{index} é.png" for index in range(4)]
    assert [row["top"][0]["label"] for row in document["predictions"]] == [row[0].label for row in best]
    assert [len(row["top"]) for row in document["predictions"]] == [1] * 4
    for row, expected in zip(document["predictions"], best, strict=True):
        by_label = dict(zip(document["labels"], row["probabilities"], strict=True))
        assert by_label == pytest.approx({each.label: each.probability for each in expected}, abs=1e-6)


def test_what_cannot_be_read_is_named(client, images):
    files = [("file", ("good.png", images[0])), ("file", ("bad.png", b"nothing"))]
    assert error(client.post(PREDICT, files=files)).startswith("bad.png: not a picture in a supported format")
    assert error(client.post(PREDICT, content=b"nothing")).startswith("the body: not a picture")
    assert "the body is empty" in error(client.post(PREDICT))
    assert "JSON is for /v1 and /v2" in error(client.post(PREDICT, json={}), 415)
    assert "5 instances in one request" in error(client.post(PREDICT, files=[("file", ("a", images[0]))] * 5))
    assert "'note' is no file" in error(client.post(PREDICT, data={"note": "x"}, files={"file": images[0]}))
    assert "holds no picture" in error(client.post(PREDICT, content=b"--x--\r\n", headers=form("x")))


def form(boundary: str) -> dict[str, str]:
    return {"content-type": f"multipart/form-data; boundary={boundary}"}


@pytest.mark.parametrize(
    ("boundary", "body"),
    [
        ("", b"--\r\n"),
        ("x" * 5000, b"--"),
        ("x", b"no form"),
        ("x", b"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\ncut"),
        ("x", b"--x\r\n" + b"A: b\r\n" * 1000),
        ("x", b"--x\r\nContent-Disposition: " + b"a" * 100_000),
        ("x", b"--x\r\n\r\nno headers\r\n--x--\r\n"),
    ],
)
def test_damaged_forms(client, boundary, body):
    assert "\n" not in error(client.post(PREDICT, content=body, headers=form(boundary)))


@pytest.mark.parametrize(
    "query", ["top=0", "top=1001", "top=x", "top=-1", "top=" + "9" * 5000, "probabilities=2", "x=1"]
)
def test_options_that_cannot_be(client, images, query):
    name = query.partition("=")[0]
    assert name in error(client.post(f"{PREDICT}?{query}", content=images[0]))


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(app, running, images, best, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(images[1])
    with running(app) as (_, port):
        url = f"http://127.0.0.1:{port}{PREDICT}"
        as_form = ["-F", "file=@cat.jpg"]
        as_body = ["--data-binary", "@cat.jpg", "-H", "Content-Type: image/jpeg"]
        for how in (as_form, as_body, [*as_body, "-H", "Expect: 100-continue"], ["-T", "cat.jpg", "-X", "POST"]):
            command = ["curl", "-sS", "--fail-with-body", *how, url]
            said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
            assert said.returncode == 0, said
            assert f'"label":"{best[1][0].label}"' in said.stdout
