"""The server under load and abuse, over real connections, in this process."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from toolkit.bundle import MANIFEST
from toolkit.errors import UserError
from toolkit.inference import Predictor, shelf
from toolkit.machine import num_threads
from toolkit.serving import ServerOptions, create_app, lanes, server

PREDICT = "/predict/digits"


def ask(port: int, picture: bytes, path: str = PREDICT) -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{port}{path}", content=picture, timeout=60)


def publish(models_dir: Path, version: int, name: str = "digits") -> None:
    """Publish a copy of version 1 in one step, as ``export`` does."""
    staging = models_dir / f".{name}-{version}"
    shutil.copytree(models_dir / "digits" / "1", staging)
    (models_dir / name).mkdir(exist_ok=True)
    os.rename(staging, models_dir / name / str(version))


@pytest.fixture
def slow_engine(monkeypatch):
    """Predictions wait until this is set."""
    go_on = threading.Event()
    answer_decoded = Predictor.answer_decoded
    monkeypatch.setattr(Predictor, "answer_decoded", lambda *args: go_on.wait(30) and answer_decoded(*args))
    yield go_on
    go_on.set()


def test_beyond_the_queue_requests_are_refused_and_the_others_answered(bundle, images, running, slow_engine):
    options = ServerOptions(max_queue=4)
    app = create_app(bundle.parent.parent, "litert", options)
    with running(app, options) as (_, port), ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(ask, port, images[0]) for _ in range(12)]
        while sum(each.done() for each in waiting) < 8:
            time.sleep(0.01)
        slow_engine.set()
        answers = [each.result() for each in waiting]
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 8
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert "4 requests for digits are waiting already" in refused.json()["error"]


def test_one_who_is_refused_may_come_to_another_process(bundle, images, running, slow_engine, monkeypatch):
    monkeypatch.setattr(lanes, "SENT_ELSEWHERE", 2)
    # All within a second.
    monkeypatch.setattr(lanes, "time", SimpleNamespace(perf_counter=time.perf_counter, monotonic=lambda: 7.5))
    with ThreadPoolExecutor(2) as pool, httpx.Client() as client:
        for workers, closed in ((1, [False] * 3), (2, [True, True, False])):
            options = ServerOptions(max_queue=1, workers=workers)
            with running(create_app(bundle.parent.parent, "litert", options), options) as (_, port):
                slow_engine.clear()
                waiting = pool.submit(ask, port, images[0])
                wait_until(lambda port=port: figure(port, "toolkit_queue_requests") == 1)
                url = f"http://127.0.0.1:{port}{PREDICT}"
                refused = [client.post(url, content=images[0]) for _ in range(3)]
                slow_engine.set()
                assert waiting.result().status_code == 200
            assert [answer.status_code for answer in refused] == [429] * 3
            assert ["connection" in answer.headers for answer in refused] == closed


def test_a_request_in_progress_is_answered_when_told_to_end(bundle, images, running, slow_engine):
    app = create_app(bundle.parent.parent, "litert")
    with ThreadPoolExecutor(1) as pool, running(app) as (real_server, port):
        answer = pool.submit(ask, port, images[0])
        while (
            "digits" not in httpx.get(f"http://127.0.0.1:{port}/metrics").text.partition("toolkit_queue_requests{")[2]
        ):
            time.sleep(0.01)
        real_server.should_exit = True
        while is_listening(port):
            time.sleep(0.01)
        assert not answer.done()
        slow_engine.set()
        assert answer.result().status_code == 200


def is_listening(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_versions_come_and_go_under_load_and_no_request_fails(models_dir, images, running):
    app = create_app(models_dir, "litert")
    expected = Predictor.load(models_dir / "digits" / "1", "litert").predict(images[0])[0][0]
    ended, seen, codes = threading.Event(), set(), []

    def client() -> None:
        with httpx.Client(timeout=60) as session:
            while not ended.is_set():
                answer = session.post(f"http://127.0.0.1:{port}{PREDICT}", content=images[0])
                codes.append(answer.status_code)
                if answer.status_code == 200:
                    document = answer.json()
                    seen.add(document["version"])
                    assert document["predictions"][0]["top"][0]["label"] == expected.label

    with running(app) as (_, port), ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(client) for _ in range(3)]
        for version in range(1, 7):
            if version > 1:
                publish(models_dir, version)
            if version in (3, 5):  # and at once the old one is gone
                shutil.rmtree(models_dir / "digits" / str(version - 1))
            deadline = time.monotonic() + 30
            while version not in seen:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        ended.set()
        for each in clients:
            each.result()
    assert set(codes) == {200}
    assert seen == {1, 2, 3, 4, 5, 6}


def test_a_bundle_that_loads_holds_nobody_elses_threads(models_dir, images, running, monkeypatch):
    publish(models_dir, 1, "slow")
    go_on, load_warm = threading.Event(), shelf._load_warm
    monkeypatch.setattr(
        shelf,
        "_load_warm",
        lambda path, *args, **more: (path.parent.name == "slow" and go_on.wait(60), load_warm(path, *args, **more))[1],
    )
    options = ServerOptions(max_queue=64)
    with running(create_app(models_dir, "litert", options), options) as (_, port), ThreadPoolExecutor(45) as pool:
        waiting = [pool.submit(ask, port, images[0], "/predict/slow") for _ in range(45)]
        time.sleep(0.2)
        for _ in range(5):
            assert ask(port, images[0]).status_code == 200
        assert not any(each.done() for each in waiting)
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").json()["models"]["slow"] == "loading"
        go_on.set()
        assert {each.result().status_code for each in waiting} == {200}


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_all_pixels_of_a_request_are_counted_before_any_is_decoded(bundle, images, running):
    options = ServerOptions(max_pixels=100_000_000)
    huge = png(12_000, 6_000)
    with running(create_app(bundle.parent.parent, "litert", options), options) as (_, port):
        url = f"http://127.0.0.1:{port}{PREDICT}"
        start = time.process_time()
        refused = httpx.post(url, files=[("file", ("huge.png", huge))] * 8, timeout=60)
        assert time.process_time() - start < 1  # one takes longer
        assert refused.status_code == 413
        assert "8 pictures have 576,000,000 pixels together; this server takes at most 100,000,000" in refused.text
        alone = httpx.post(url, content=png(12_000, 12_000), timeout=60)
        assert (alone.status_code, "the picture has 144,000,000 pixels" in alone.text) == (413, True)
        assert httpx.post(url, content=png(2, 20_000), timeout=60).status_code == 200


def claims(width: int, height: int) -> bytes:
    """A PNG of few bytes whose header claims this size."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in (*chunks, (b"IEND", b"")):
        png += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png + bytes(300 - len(png))


@pytest.mark.parametrize("side", [20_000, 60_000, 2**31 - 1])
def test_a_small_picture_that_claims_to_be_huge_costs_nothing(bundle, side):
    with TestClient(create_app(bundle.parent.parent, "litert")) as client:
        assert client.post(PREDICT, content=claims(32, 32)).status_code == 400  # loaded, and its modules imported
        for path in (PREDICT, "/v1/models/digits:predict"):
            picture = claims(side, side)
            body = json.dumps({"instances": [{"b64": base64.b64encode(picture).decode()}]}).encode()
            start = time.process_time()
            answer = client.post(path, content=picture if path == PREDICT else body)
            assert time.process_time() - start < 0.05
            assert answer.status_code in (400, 413)
            assert "\n" not in answer.json()["error"]


def talk(port: int, sent: bytes, *, half_close: bool = False, seconds: float = 10.0) -> bytes:
    """Send bytes and read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(seconds)
        connection.sendall(sent)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        read = b""
        while piece := connection.recv(65536):
            read += piece
        return read


def raw(picture: bytes, **headers: object) -> bytes:
    given = {"Host": "x", "Content_Length": len(picture), "Connection": "close"} | headers
    lines = [f"POST {PREDICT} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + picture


def test_odd_connections_cost_little_and_are_answered_where_anyone_listens(bundle, images, running, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    options = ServerOptions(body_seconds=0.3, keep_alive=60)
    with running(create_app(bundle.parent.parent, "litert", options), options) as (_, port):
        assert b" 200 OK" in talk(port, raw(images[0]), half_close=True)
        slow = talk(port, raw(images[0])[:-5])  # the rest never comes
        assert b" 408 " in slow
        assert b"too slowly" in slow
        assert talk(port, b"POST /predict/digits HTTP/1.1\r\nHost: x\r\nX-Slow: ") == b""  # headers that never end
        assert talk(port, b"") == b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            read = b""
            while not read.endswith(b"}"):
                read += connection.recv(65536)
            connection.sendall(b"GET /hea")  # the second request never ends
            assert connection.recv(65536) == b""
        with contextlib.suppress(ConnectionError):  # headers that are a flood
            assert talk(port, b"GET /healthz HTTP/1.1\r\nX-Long: " + b"x" * (8 << 20)).partition(b" ")[2][:3] != b"200"
        assert b" 413 " in talk(port, raw(b"x", Content_Length=10**12))
        assert b" 400 " in talk(port, b"\x16\x03\x01\x02\x00 no HTTP\r\n\r\n")
        assert b" 400 " in talk(port, raw(b"", Content_Length="-5"))
        assert ask(port, images[0]).status_code == 200


def test_whoever_sends_all_of_a_body_that_is_too_large_reads_why_and_may_go_on(bundle, running):
    options = ServerOptions(max_body_bytes=1000)
    with (
        running(create_app(bundle.parent.parent, "litert", options), options) as (_, port),
        socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
    ):
        for sent, status in (
            (raw(bytes(20 << 20), Connection="keep-alive"), 413),
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ):
            connection.sendall(sent)
            answer = HTTPResponse(connection)
            answer.begin()
            assert (answer.status, answer.read() != b"") == (status, True)
        with pytest.raises(ConnectionError):  # headers that are a flood
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (64 << 20))


def test_keep_alive_is_as_long_as_told(bundle, running):
    options = ServerOptions(keep_alive=1)
    with running(create_app(bundle.parent.parent, "litert", options), options) as (_, port):
        start = time.monotonic()
        assert b" 200 OK" in talk(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert 0.9 < time.monotonic() - start < 5


def test_odd_documents_are_refused_in_a_line(bundle, running):
    deep = b'{"instances":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    bodies = [deep, b'{"instances": [NaN]}', b'{"instances": [1e999]}', b"[]", b"null", b"\xff", b"{" * 1000]
    bodies += [json.dumps({"instances": value}).encode() for value in (None, 1, {}, [None], [[]], [{}], ["x"] * 300)]
    with running(create_app(bundle.parent.parent, "litert")) as (_, port), httpx.Client() as client:
        for body in bodies:
            for path in ("/v1/models/digits:predict", "/v2/models/digits/infer"):
                answer = client.post(f"http://127.0.0.1:{port}{path}", content=body)
                assert answer.status_code == 400, body[:50]
                assert "\n" not in answer.json()["error"]


def test_rewritten_manifest_does_not_interrupt(models_dir, images, running):
    with running(create_app(models_dir, "litert")) as (_, port):
        assert ask(port, images[0]).status_code == 200
        os.utime(models_dir / "digits" / "1" / MANIFEST, (1, 1))
        assert ask(port, images[0]).status_code == 200


def test_a_client_that_goes_away_is_no_failure(bundle, images, running, caplog):
    with running(create_app(bundle.parent.parent, "litert")) as (_, port):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(raw(images[0])[:-50])
        assert ask(port, images[0]).status_code == 200
    assert "Traceback" not in caplog.text


def figure(port: int, name: str) -> float:
    """One of the server's figures about the bundle; 0 before there is any."""
    page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    found = re.search(rf'^{name}{{model="digits"[^}}]*}} (\S+)$', page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nothing_is_computed_for_clients_that_hung_up(bundle, images, running, monkeypatch):
    go_on, answer_decoded, computed = threading.Event(), Predictor.answer_decoded, []
    monkeypatch.setattr(
        Predictor,
        "answer_decoded",
        lambda self, pictures: (computed.append(len(pictures)), go_on.wait(30), answer_decoded(self, pictures))[-1],
    )
    busy = max(2, num_threads())  # batches that are in the engine at once
    with running(create_app(bundle.parent.parent, "litert")) as (_, port), ThreadPoolExecutor(busy + 1) as pool:
        inside = []
        for number in range(1, busy + 1):
            inside.append(pool.submit(ask, port, images[0]))
            wait_until(lambda number=number: len(computed) == number)
        left = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for connection in left:
            connection.sendall(raw(images[0]))
        wait_until(lambda: figure(port, "toolkit_queue_requests") == busy + 20)
        stays = pool.submit(ask, port, images[0])
        wait_until(lambda: figure(port, "toolkit_queue_requests") == busy + 21)
        for connection in left:
            connection.close()
        wait_until(lambda: figure(port, "toolkit_abandoned_total") == 20)
        assert figure(port, "toolkit_queue_requests") == busy + 1  # their places are free again
        go_on.set()
        assert [answer.result().status_code for answer in (*inside, stays)] == [200] * (busy + 1)
    assert sum(computed) == busy + 1


def test_a_client_that_only_half_closed_its_connection_is_waited_for(bundle, images, running, slow_engine):
    with running(create_app(bundle.parent.parent, "litert")) as (_, port):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(raw(images[0]))
            connection.shutdown(socket.SHUT_WR)
            wait_until(lambda: figure(port, "toolkit_queue_requests") == 1)
            time.sleep(3 * server.LEFT_SECONDS)
            slow_engine.set()
            answer = HTTPResponse(connection)
            answer.begin()
            assert (answer.status, json.loads(answer.read())["model"]) == (200, "digits")
        assert figure(port, "toolkit_abandoned_total") == 0


def test_a_version_that_loads_holds_up_no_other_version(models_dir, images, running, monkeypatch):
    publish(models_dir, 2)
    go_on, load_warm = threading.Event(), shelf._load_warm
    monkeypatch.setattr(
        shelf,
        "_load_warm",
        lambda path, *args, **more: (path.name == "1" and go_on.wait(60), load_warm(path, *args, **more))[1],
    )
    options = ServerOptions(max_queue=64)
    with running(create_app(models_dir, "litert", options), options) as (_, port), ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(ask, port, images[0], "/predict/digits/versions/1") for _ in range(40)]
        time.sleep(0.2)
        assert ask(port, images[0]).json()["version"] == 2
        assert not any(each.done() for each in waiting)
        go_on.set()
        assert {each.result().json()["version"] for each in waiting} == {1}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_tls(bundle, running, tmp_path):
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ]
    subprocess.run(
        ["openssl", "req", "-x509", *made, "-days", "1", *named], cwd=tmp_path, check=True, capture_output=True
    )
    options = ServerOptions(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    app = create_app(bundle.parent.parent, "litert", options)
    with running(app, options) as (_, port):
        trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        assert httpx.get(f"https://127.0.0.1:{port}/healthz", verify=trusted).json() == {"status": "ok"}
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/healthz")
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(UserError, match=r"cert\.pem: TLS cannot be set up with it"):
        server.make_server(app, options)
    with pytest.raises(UserError, match="a private key alone is no use"):
        ServerOptions(tls_key=tmp_path / "key.pem")
