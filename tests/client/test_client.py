"""Pictures given to a client come back as the bundle's own answers; whatever goes wrong is one line."""

import asyncio
import io
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from httpx_retries import retry
from PIL import Image

from toolkit import AsyncClient, Client
from toolkit.client import ServerError, exchange, patience
from toolkit.data import ImageError
from toolkit.errors import UserError
from toolkit.inference import Prediction, Predictor
from toolkit.serving import ServerOptions

ROW = {"top_labels": ["1", "7"], "top_scores": [0.75, 0.25], "probabilities": [0, 0.75, 0, 0, 0, 0, 0, 0.25, 0, 0]}
ONE = {"predictions": [ROW]}
PIXELS = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor.load(bundle)


@pytest.fixture
def client(server):
    with Client(server, "digits") as client:
        yield client


def assert_same(found, expected):
    assert [[p.label for p in row] for row in found] == [[p.label for p in row] for row in expected]
    scores = [[p.probability for p in row] for row in found], [[p.probability for p in row] for row in expected]
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_pictures_of_every_kind_are_answered_as_the_predictor_does(client, predictor, digits_split, jpegs, tmp_path):
    path = digits_split.test.paths[0]
    pixels = np.asarray(Image.open(path).convert("RGB"))
    kinds = [
        path,
        str(path),
        jpegs[0],
        bytearray(jpegs[1]),
        pixels,
        pixels[..., 0],
        Image.open(path),
        io.BytesIO(jpegs[2]),
    ]
    expected = predictor.predict([*kinds[:-1], jpegs[2]])
    assert_same(client.predict(kinds), expected)
    assert_same(client.predict(jpegs[0], top_k=2), predictor.predict(jpegs[0], top_k=2))
    assert_same(client.predict(np.stack([pixels, pixels])), expected[4:5] * 2)
    assert isinstance(client.predict(path)[0][0], Prediction)
    assert client.predict([]) == []


def test_asyncio_answers_the_same(server, predictor, jpegs):
    async def ask():
        async with AsyncClient(server, "digits", 1) as client:
            one, several = await asyncio.gather(client.predict(jpegs[0]), client.predict(jpegs, top_k=3))
            return one, several, [answer async for answer in client.iter_answers([*jpegs[:1], b"none"])]

    one, several, answers = asyncio.run(ask())
    assert_same(one, predictor.predict(jpegs[0]))
    assert_same(several, predictor.predict(jpegs, top_k=3))
    assert_same([answers[0].predictions], one)
    assert str(answers[1]).startswith("images[1]: ")


def test_pictures_that_cannot_be_read_cost_the_others_nothing(client, predictor, digits_split, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    paths = [str(path) for path in digits_split.test.paths[:70]]  # several requests
    images = [*paths[:3], str(tmp_path / "broken.png"), b"", *paths[3:], str(tmp_path / "absent.png")]
    found = list(client.iter_answers(iter(images)))
    refused = [answer for answer in found if isinstance(answer, ImageError)]
    assert [found.index(answer) for answer in refused] == [3, 4, 72]
    assert str(refused[0]).startswith(f"{tmp_path}/broken.png: ")
    assert str(refused[1]).startswith("images[4]: ")
    assert str(refused[2]) == f"{tmp_path}/absent.png: no such file"
    answered = [answer for answer in found if not isinstance(answer, ImageError)]
    assert_same([answer.predictions for answer in answered], predictor.predict(paths))
    expected = [predictor.reason(answer) for answer in predictor.answers(paths)]
    assert [answer.reason for answer in answered] == expected
    with pytest.raises(ImageError, match=r"broken\.png: "):
        client.predict(images)


def test_whoever_leaves_amid_the_answers_waits_for_none(scripted, monkeypatch):
    monkeypatch.setattr(exchange, "BATCH_SIZE", 1)
    go_on, waited, run = threading.Event(), [], Client._run

    def slow(client, asked):
        if threading.current_thread().name.startswith("ask"):
            waited.append(go_on.wait(20))
        return run(client, asked)

    def pictures():
        yield from (b"a", b"b")
        raise ZeroDivisionError

    scripted.will((200, {}), (200, ONE))
    monkeypatch.setattr(Client, "_run", slow)
    with Client(scripted.url, "digits") as client, pytest.raises(ZeroDivisionError):
        list(client.iter_answers(pictures(), top_k=1))
    assert waited == []
    go_on.set()


def test_requests_stay_within_what_the_server_takes(scripted, monkeypatch):
    assert ServerOptions().max_pictures >= exchange.BATCH_SIZE
    assert ServerOptions().max_body_bytes > exchange.BATCH_BYTES * 4 / 3
    monkeypatch.setattr(exchange, "BATCH_BYTES", 2500)
    contents = [bytes([index]) * 1000 for index in range(5)]
    batches = list(exchange.read_batches(contents))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert [picture.content for batch in batches for picture in batch] == contents
    assert [len(batch) for batch in exchange.read_batches(b"a" for _ in range(70))] == [32, 32, 6]


def test_a_server_that_is_busy_is_asked_again(scripted):
    busy = (429, {"error": "full"}, {"Retry-After": "1"})
    scripted.will(busy, (0, b""), (200, ONE))
    began = time.monotonic()
    with Client(scripted.url, "digits") as client:
        assert client.predict(b"picture", top_k=2) == [[Prediction("1", 0.75), Prediction("7", 0.25)]]
    assert len(scripted.asked) == 3
    assert 1.0 <= time.monotonic() - began < 20
    assert len({headers["X-Request-ID"] for _, headers, _ in scripted.asked}) == 1  # the same request
    assert scripted.ports[0] == scripted.ports[1]  # by the same connection


@pytest.mark.parametrize(
    ("status", "retries", "asked"),
    [(503, 1, 2), (429, 0, 1), (429, 1, 21)],  # a full one is asked again for a minute, every three seconds
)
def test_a_server_that_stays_busy_is_told(scripted, monkeypatch, status, retries, asked):
    monkeypatch.setattr(retry, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(patience.random, "uniform", lambda low, high: low)
    scripted.will((status, {"error": "full"}, {"Retry-After": "3"}))
    with (
        Client(scripted.url, "digits", retries=retries) as client,
        pytest.raises(ServerError, match=f"{status}, full; ") as told,
    ):
        client.predict(b"picture")
    assert told.value.status == status
    assert len(scripted.asked) == asked


def test_a_full_server_costs_none_of_the_retries_with_asyncio_either(scripted, monkeypatch):
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)

    monkeypatch.setattr(retry, "asyncio", SimpleNamespace(sleep=pause))
    monkeypatch.setattr(patience.random, "uniform", lambda low, high: high)
    full, failed = (429, {"error": "full"}, {"Retry-After": "2"}), (503, {"error": "loading"})
    scripted.will(full, failed, full, full, failed, (200, ONE))

    async def ask():
        async with AsyncClient(scripted.url, "digits", retries=2) as client:
            return await client.predict(b"picture", top_k=1)

    assert asyncio.run(ask()) == [[Prediction("1", 0.75)]]
    assert pauses == [3, 0.5, 3, 3, 1]  # half as long again as it said, so that those refused together return apart
    assert len({headers["X-Request-ID"] for _, headers, _ in scripted.asked}) == 1
    assert len(set(scripted.ports)) == 1


def test_connections_are_used_again_and_headers_sent(scripted):
    scripted.will((200, ONE))
    with Client(scripted.url, "a b/ü", "stable", headers={"Authorization": "Bearer x"}) as client:
        for _ in range(5):
            client.predict(PIXELS, top_k=1)
    path, headers, document = scripted.asked[0]
    assert path == "/v1/models/a%20b%2F%C3%BC/labels/stable:predict"
    assert headers["Authorization"] == "Bearer x"
    assert list(document["instances"][0]) == ["b64"]
    assert len(set(scripted.ports)) == 1


@pytest.mark.parametrize("version", [None, "stable"])
def test_answers_are_judged_by_the_thresholds_of_the_version_that_gave_them(scripted, version):
    def metadata(number, bound):
        return {"model_spec": {"version": number}, "metadata": {"rejection": {"reject_below": bound}}}

    three, four, gone = ((200, ONE, {"X-Model-Version": number}) for number in "345")
    refused, absent = (400, {"error": "Unable to decode"}), (404, {"error": "not found"})
    scripted.will((200, metadata("3", 0.8)), refused, three, four, (200, metadata("4", 0.7)), four, gone, absent)
    with Client(scripted.url, "digits", version) as client:
        found = list(client.iter_answers([b"a", b"b", b"c", b"d"], top_k=1))
    assert [answer.reason for answer in found] == ["unsure", "", "", "unsure"]  # the last came first
    gets = [path for path, _, document in scripted.asked if document is None]
    chosen = f"/labels/{version}" if version else ""
    models = "/v1/models/digits"
    assert gets == [f"{models}{chosen}/metadata", f"{models}/versions/4/metadata", f"{models}/versions/5/metadata"]


def test_a_refusal_without_a_place_is_found_by_asking_for_each_alone(scripted):
    refused = (400, {"error": "Unable to decode"})
    scripted.will((200, {"metadata": {"rejection": {"reject_below": 0.8}}}), refused, (200, ONE), refused)
    with Client(scripted.url, "digits") as client:
        found = list(client.iter_answers([b"a", b"b"], top_k=2))
    assert isinstance(found[0], ImageError)
    assert str(found[0]) == "images[0]: Unable to decode"
    assert found[1].reason == "unsure"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((404, {"error": "Servable not found for request: Latest(digits)"}), "404, Servable not found"),
        ((401, {"error": "no key"}), "401, no key; give its key by the client's headers"),
        ((500, b"<html>\nproxy</html>"), r"500, '<html>\\nproxy</html>'"),
        ((302, b""), "302, nothing"),
        ((200, b"<html>hello"), "expected JSON of a model server, got '<html>hello'"),
        ((200, b"[" * 100_000), "expected JSON of a model server"),
        ((200, {"predictions": []}), "expected 1 predictions, got"),
        ((200, {"predictions": [[0.5, 0.5]]}), "expected top_labels and top_scores for each picture, .* got list"),
        ((200, {"predictions": [{"a": 1}]}), "got a$"),
        ((200, {"predictions": [{"top_labels": [], "top_scores": []}]}), "names the best 0 of 0 classes"),
        ((200, ONE), "names the best 2 of 10 classes and no more; top_k must not be larger, got 5"),
    ],
)
def test_whatever_else_a_server_says_is_one_line_with_its_address(scripted, reply, message):
    scripted.will(reply)
    with Client(scripted.url, "digits", retries=0) as client, pytest.raises(ServerError, match=message) as told:
        client.predict(b"picture")
    assert str(told.value).startswith(f"{scripted.url}/v1/models/digits: ")
    assert "\n" not in str(told.value)


def test_nobody_there_and_nobody_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            Client(url, "digits", timeout=0.2) as client,
            pytest.raises(ServerError, match=r"no answer within 0\.2 seconds"),
        ):
            client.predict(b"picture")
    with (
        Client(url, "digits", retries=1) as client,
        pytest.raises(ServerError, match="nobody answers there after 2 att"),
    ):
        client.predict(b"picture")


@pytest.mark.parametrize("url", ["127.0.0.1:8501", "ftp://a.org", "http://", "http://a.org:port", "http://a.org/?x=1"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UserError, match=r"expected a server's address, such as http://127\.0\.0\.1:8501"):
        Client(url, "digits")


def test_other_arguments_are_checked(server, monkeypatch):
    with pytest.raises(UserError, match="expected a bundle's name, got ''"):
        Client(server, "")
    with pytest.raises(UserError, match="got -1 and 60"):
        Client(server, "digits", retries=-1)
    with Client(server, "digits") as client, pytest.raises(UserError, match="top_k must be at least 1, got 0"):
        client.predict(PIXELS, top_k=0)
    with Client(server, "digits") as client, pytest.raises(ImageError, match=r"values 0…255, got float64"):
        client.predict(PIXELS.astype(float))
    monkeypatch.setitem(sys.modules, "httpx_retries", None)
    with pytest.raises(UserError, match=r"pip install 'toolkit\[client\]'"):
        Client(server, "digits")


def test_many_threads_share_a_client(client, predictor, jpegs):
    expected = predictor.predict(jpegs)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: client.predict(jpegs), range(16)):
            assert_same(found, expected)


def test_a_client_brings_no_framework():
    code = (
        "import sys, toolkit; toolkit.Client('http://127.0.0.1:1', 'x')\n"
        "print(*{'tensorflow', 'keras', 'jax', 'openvino', 'ai_edge_litert', 'starlette'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_the_proxy_is_that_of_the_environment(monkeypatch):
    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            self.send_error(503)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
        with Client("http://models.example.internal", "digits", retries=0) as client, pytest.raises(ServerError):
            client.predict(PIXELS)
        assert asked
        assert all(path.startswith("http://models.example.internal/v1/models/digits") for path in asked)
        asked.clear()
        with Client("http://127.0.0.1:9", "digits", retries=0) as client, pytest.raises(ServerError):
            client.predict(PIXELS)
        assert not asked
        proxy.shutdown()
