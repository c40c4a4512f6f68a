"""Downloads from a real server on loopback that misbehaves as servers and networks do."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from toolkit.errors import UserError
from toolkit.spec import Preprocessing, PretrainedWeights
from toolkit.weights import resumable
from toolkit.weights.download import cached_path, fetch_weights, verify_file

CONTENT = random.Random(0).randbytes(3_000_000)
OTHER = random.Random(1).randbytes(3_000_000)
PIECE = 100_000


@dataclass
class Answer:
    """The server's answer to one request."""

    status: int = 200
    content: bytes = CONTENT
    etag: str = '"v1"'
    ranges: bool = True
    honours_if_range: bool = True
    cut_after: int | None = None  # bytes, then the connection is closed
    gate_after: int | None = None  # bytes, then the server waits for its gate to open
    pause: float = 0.0  # seconds before each piece
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """A request that came, and the bytes of a body that went out."""

    path: str
    headers: dict[str, str]
    sent: int = 0


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = [Answer()]  # one per request, the last for all further ones
        self.requests: list[Request] = []
        self.gate = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        request = Request(self.path, dict(self.headers))
        self.server.requests.append(request)
        start = self.first_byte(answer) if answer.status == 200 else 0
        body = answer.content[start:] if answer.status == 200 else b""
        self.send_response(206 if start else answer.status)
        headers = {"Content-Length": str(len(body)), "ETag": answer.etag, **answer.headers}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(answer.content) - 1}/{len(answer.content)}"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.send_body(body, answer, request)

    def first_byte(self, answer: Answer) -> int:
        wanted = self.headers.get("Range", "")
        same = self.headers.get("If-Range") == answer.etag or not answer.honours_if_range
        return int(wanted[len("bytes=") : -1]) if wanted and answer.ranges and same else 0

    def send_body(self, body: bytes, answer: Answer, request: Request) -> None:
        while request.sent < len(body):
            if request.sent == answer.cut_after:
                self.close_connection = True
                return
            if request.sent == answer.gate_after:
                self.server.gate.wait()
            time.sleep(answer.pause)
            piece = body[request.sent : request.sent + PIECE]
            request.sent += len(piece)  # before the client can have it: tests look at once
            self.wfile.write(piece)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.gate.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def quick_and_direct(monkeypatch):
    monkeypatch.setattr(resumable, "BACKOFF", 0.01)
    for name in ("TOOLKIT_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def weights(url: str, content: bytes | None = None, digest: str = "") -> PretrainedWeights:
    digest = digest or (f"sha256:{hashlib.sha256(content).hexdigest()}" if content else "")
    return PretrainedWeights("imagenet-x", url, digest, 10, "torchvision", Preprocessing((8, 8)))


HUB = weights("hf://timm/net.tv_in1k/model.safetensors")


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*") if path.is_file()}


# --- What goes wrong on the way


def test_a_dropped_connection_is_resumed_where_it_broke_off(server, tmp_path):
    server.answers = [Answer(cut_after=1_200_000), Answer(cut_after=800_000), Answer()]
    path = fetch_weights(weights(f"{server.url}/net.pth", CONTENT), cache_dir=tmp_path)
    assert path.read_bytes() == CONTENT
    assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=1200000-", "bytes=2000000-"]
    assert sum(request.sent for request in server.requests) == len(CONTENT)
    assert names(tmp_path) == {"net.pth", "net.pth.lock"}


def test_a_server_that_cannot_continue_sends_the_whole_again(server, tmp_path):
    server.answers = [Answer(cut_after=1_200_000), Answer(ranges=False)]
    assert fetch_weights(weights(f"{server.url}/net.pth", CONTENT), cache_dir=tmp_path).read_bytes() == CONTENT
    assert [request.sent for request in server.requests] == [1_200_000, len(CONTENT)]


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_two_versions_of_a_file_are_never_glued(server, tmp_path, honours_if_range):
    newer = Answer(content=OTHER, etag='"v2"', honours_if_range=honours_if_range)
    server.answers = [Answer(cut_after=1_200_000), newer]
    # No digest: it must not need one to tell.
    assert fetch_weights(weights(f"{server.url}/net.pth"), cache_dir=tmp_path).read_bytes() == OTHER


@pytest.mark.parametrize("etag", ["", 'W/"v1"'])
def test_without_a_strong_version_nothing_is_resumed(server, tmp_path, etag):
    server.answers = [Answer(cut_after=1_200_000, etag=etag), Answer(etag=etag)]
    assert fetch_weights(weights(f"{server.url}/net.pth"), cache_dir=tmp_path).read_bytes() == CONTENT
    assert "Range" not in server.requests[1].headers


def test_a_wrong_checksum_leaves_nothing_and_shows_both(server, tmp_path):
    expected = "md5:" + "0" * 32
    with pytest.raises(UserError) as caught:
        fetch_weights(weights(f"{server.url}/net.pth", digest=expected), cache_dir=tmp_path)
    assert hashlib.md5(CONTENT).hexdigest() in str(caught.value)
    assert "0" * 32 in str(caught.value)
    assert names(tmp_path) == {"net.pth.lock"}


def test_a_missing_file_is_asked_for_once_and_can_be_put_there_by_hand(server, tmp_path):
    server.answers = [Answer(status=404)]
    row = weights(f"{server.url}/old/net-11ad3fa6.pth", digest="sha256:11ad3fa6")
    with pytest.raises(UserError) as caught:
        fetch_weights(row, cache_dir=tmp_path)
    message = str(caught.value)
    assert all(part in message for part in (row.url, "HTTP 404", "sha256 11ad3fa6…", str(cached_path(row, tmp_path))))
    assert "\n" not in message
    assert len(server.requests) == 1


def test_an_overloaded_server_is_asked_again_but_not_for_ever(server, tmp_path):
    server.answers = [Answer(status=503), Answer(status=429, headers={"Retry-After": "0"}), Answer()]
    fetch_weights(weights(f"{server.url}/net.pth", CONTENT), cache_dir=tmp_path)
    assert len(server.requests) == 3
    server.answers = [Answer(status=503)]
    with pytest.raises(UserError, match="HTTP 503 Service Unavailable, 4 times in a row; try again later; "):
        fetch_weights(weights(f"{server.url}/other.pth"), cache_dir=tmp_path)
    assert len(server.requests) == 3 + resumable.ATTEMPTS


def test_attempts_that_get_on_do_not_count(server, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "CHUNK", 300_000)
    server.answers = [*[Answer(cut_after=300_000)] * 9, Answer()]
    assert fetch_weights(weights(f"{server.url}/net.pth", CONTENT), cache_dir=tmp_path).read_bytes() == CONTENT


def test_slowness_is_waited_for_and_silence_is_not(server, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "TIMEOUT", 0.3)
    server.answers = [Answer(content=CONTENT[: 10 * PIECE], pause=0.05)]
    fetch_weights(weights(f"{server.url}/slow.pth", CONTENT[: 10 * PIECE]), cache_dir=tmp_path)
    assert len(server.requests) == 1
    server.answers = [Answer(gate_after=1_200_000), Answer()]
    assert fetch_weights(weights(f"{server.url}/net.pth", CONTENT), cache_dir=tmp_path).read_bytes() == CONTENT
    assert server.requests[2].headers["Range"] == "bytes=1200000-"


def test_a_web_page_is_no_weights(server, tmp_path):
    server.answers = [Answer(headers={"Content-Type": "text/html; charset=utf-8"})]
    with pytest.raises(UserError, match="answers with a web page"):
        fetch_weights(weights(f"{server.url}/net.pth"), cache_dir=tmp_path)
    assert names(tmp_path) == {"net.pth.lock"}


def test_redirects_are_followed_when_resuming_too(server, tmp_path):
    moved = Answer(status=302, headers={"Location": "/new/net.pth"})
    server.answers = [moved, Answer(cut_after=1_200_000), moved, Answer()]
    path = fetch_weights(weights(f"{server.url}/net.pth", CONTENT), cache_dir=tmp_path)
    assert path.read_bytes() == CONTENT
    assert [request.path for request in server.requests] == ["/net.pth", "/new/net.pth"] * 2
    assert server.requests[3].sent == len(CONTENT) - 1_200_000


def test_nobody_listening_is_an_error_that_names_the_address(tmp_path):
    with Server() as closed:
        url = f"{closed.url}/net.pth"
    with pytest.raises(UserError, match=rf"cannot download {url}: .*refused.*; {resumable.NO_CONNECTION}; "):
        fetch_weights(weights(url), cache_dir=tmp_path)


def test_the_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    fetch_weights(weights("http://weights.invalid/net.pth", CONTENT), cache_dir=tmp_path)
    assert server.requests[0].path == "http://weights.invalid/net.pth"


# --- Where it goes


def test_a_cache_that_cannot_be_written_is_one_clear_line(server, tmp_path):
    (tmp_path / "cache").write_text("a file, not a directory")
    with pytest.raises(UserError, match=r"cannot write .*cache.*TOOLKIT_CACHE") as caught:
        fetch_weights(weights(f"{server.url}/net.pth"), cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_still_serves_what_is_in_it(server, tmp_path):
    row = weights(f"{server.url}/net.pth", CONTENT)
    path = fetch_weights(row, cache_dir=tmp_path)
    path.parent.chmod(0o500)
    try:
        assert fetch_weights(row, cache_dir=tmp_path) == path
        with pytest.raises(UserError, match="cannot write"):
            fetch_weights(weights(f"{server.url}/other.pth"), cache_dir=tmp_path)
    finally:
        path.parent.chmod(0o700)


def test_a_full_disk_is_seen_before_the_first_byte(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    with pytest.raises(UserError, match="3 MB are missing and 1 MB free"):
        fetch_weights(weights(f"{server.url}/net.pth"), cache_dir=tmp_path)
    assert names(tmp_path) == {"net.pth.lock"}


def test_a_disk_that_fills_up_keeps_what_came(server, tmp_path):
    row = weights(f"{server.url}/net.pth", CONTENT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write"):
            fetch_weights(row, cache_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert fetch_weights(row, cache_dir=tmp_path).read_bytes() == CONTENT
    assert server.requests[1].sent == len(CONTENT) - 2_000_000


def test_a_file_put_there_by_hand_is_checked_and_used(server, tmp_path):
    row = weights(f"{server.url}/net.pth", CONTENT)
    place = cached_path(row, tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(OTHER)
    with pytest.raises(UserError, match=hashlib.sha256(OTHER).hexdigest()):
        fetch_weights(row, cache_dir=tmp_path)
    assert place.read_bytes() == OTHER
    place.write_bytes(CONTENT)
    assert fetch_weights(row, cache_dir=tmp_path) == place
    assert server.requests == []


@pytest.mark.parametrize("variable", ["TOOLKIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_for(server, tmp_path, monkeypatch, variable):
    here, elsewhere = weights(f"{server.url}/here.pth", CONTENT), weights(f"{server.url}/elsewhere.pth")
    fetch_weights(here, cache_dir=tmp_path)
    monkeypatch.setenv(variable, "1")
    assert fetch_weights(here, cache_dir=tmp_path).read_bytes() == CONTENT
    for row in (elsewhere, HUB):
        with pytest.raises(UserError, match="OFFLINE is set; the file may be put at"):
            fetch_weights(row, cache_dir=tmp_path)
    assert len(server.requests) == 1


def test_addresses_that_differ_have_places_that_differ(tmp_path):
    urls = [
        "https://a.org/x/net.pth",
        "https://a.org/y/net.pth",
        "https://a.org/net.pth?id=1",
        "https://a.org/net.pth?id=2",
    ]
    places = [cached_path(weights(url), tmp_path) for url in urls]
    assert len(set(places)) == 4
    assert {place.name for place in places} == {"net.pth"}
    outside = cached_path(weights("https://a.org/../../%2e%2e/..%2fetc/passwd"), tmp_path)
    assert tmp_path in outside.resolve().parents


@pytest.mark.parametrize("digest", ["sha256:", "sha256:123456", "md5:12345678", "crc:12345678", "sha1"])
def test_a_digest_that_would_prove_nothing_is_refused(tmp_path, digest):
    (tmp_path / "net.pth").write_bytes(CONTENT)
    with pytest.raises(ValueError, match="a digest is"):
        verify_file(tmp_path / "net.pth", digest)


def test_bytes_are_told_as_they_come(server, tmp_path, told):
    server.answers = [Answer(pause=0.01)]
    fetch_weights(weights(f"{server.url}/net.pth"), cache_dir=tmp_path)
    labels, done, totals = zip(*told, strict=True)
    assert "net.pth" in labels[0]
    assert list(done) == sorted(done)
    assert done[-1] == totals[-1] > 0


# --- Several processes

SCRIPT = """
import json, logging, sys
from toolkit.errors import UserError
from toolkit.spec import Preprocessing, PretrainedWeights
from toolkit.weights.download import fetch_weights
logging.basicConfig(level=logging.INFO)
url, digest, cache = sys.argv[1:]
row = PretrainedWeights("imagenet-x", url, digest, 10, "torchvision", Preprocessing((8, 8)))
try:
    print(json.dumps({"path": str(fetch_weights(row, cache_dir=cache))}))
except UserError as error:
    print(json.dumps({"error": str(error)}))
"""


def start(row: PretrainedWeights, cache: Path, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, row.url, row.digest, str(cache)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=os.environ | environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen) -> dict[str, str]:
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return json.loads(out)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_transfer_a_file_once(server, tmp_path):
    server.answers = [Answer(gate_after=1_200_000)]
    row = weights(f"{server.url}/net.pth", CONTENT)
    first = start(row, tmp_path)
    wait_for(lambda: server.requests)
    second = start(row, tmp_path)
    assert "waiting for another process" in second.stderr.readline()
    server.gate.set()
    paths = {finish(first)["path"], finish(second)["path"]}
    assert Path(paths.pop()).read_bytes() == CONTENT
    assert not paths
    assert [request.sent for request in server.requests] == [len(CONTENT)]


def test_a_killed_process_leaves_its_lock_open_and_its_bytes_of_use(server, tmp_path):
    server.answers = [Answer(gate_after=1_200_000), Answer()]
    row = weights(f"{server.url}/net.pth", CONTENT)
    place = cached_path(row, tmp_path)
    part = place.with_name(place.name + ".part")
    process = start(row, tmp_path)
    wait_for(lambda: part.exists() and part.stat().st_size >= 1_000_000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not place.exists()
    have = part.stat().st_size
    assert fetch_weights(row, cache_dir=tmp_path).read_bytes() == CONTENT
    assert server.requests[1].headers["Range"] == f"bytes={have}-"
    assert server.requests[1].sent == len(CONTENT) - have


def test_a_process_killed_before_the_rename_costs_no_second_transfer(server, tmp_path):
    row = weights(f"{server.url}/net.pth", CONTENT)
    place = cached_path(row, tmp_path)
    place.parent.mkdir(parents=True)
    resumable.download(row.url, place.with_name(place.name + ".part"))
    assert fetch_weights(row, cache_dir=tmp_path) == place
    assert place.read_bytes() == CONTENT
    assert len(server.requests) == 1


# --- The Hugging Face hub


def hub(content: bytes, named: bytes, status: int = 200) -> Answer:
    """The hub's answer: it names the contents it keeps by their sha256."""
    headers = {"X-Repo-Commit": "0" * 40, "X-Linked-Size": str(len(content))}
    if status == 404:
        headers["X-Error-Code"] = "EntryNotFound"
    return Answer(status=status, content=content, etag=f'"{hashlib.sha256(named).hexdigest()}"', headers=headers)


def from_hub(server: Server, tmp_path: Path, row: PretrainedWeights = HUB) -> dict[str, str]:
    home = {"HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": server.url, "no_proxy": "127.0.0.1"}
    return finish(start(row, tmp_path / "cache", **home))


def test_a_file_of_the_hub_lies_in_the_hubs_cache_and_is_not_asked_for_again(server, tmp_path):
    server.answers = [hub(CONTENT, CONTENT)]
    path = Path(from_hub(server, tmp_path)["path"])
    assert path.read_bytes() == CONTENT
    assert tmp_path / "hub" in path.parents
    assert "/timm/net.tv_in1k/resolve/main/model.safetensors" in [request.path for request in server.requests]
    asked = len(server.requests)
    assert from_hub(server, tmp_path) == {"path": str(path)}
    assert len(server.requests) == asked
    path.resolve().chmod(0o600)
    path.resolve().write_bytes(OTHER)
    assert hashlib.sha256(OTHER).hexdigest() in from_hub(server, tmp_path)["error"]


def test_what_the_hub_sends_is_held_against_its_own_word_and_ours(server, tmp_path):
    server.answers = [hub(OTHER, named=CONTENT)]
    error = from_hub(server, tmp_path)["error"]
    assert all(hashlib.sha256(content).hexdigest() in error for content in (CONTENT, OTHER))
    assert not {"model.safetensors", hashlib.sha256(CONTENT).hexdigest()} & names(tmp_path)
    server.answers = [hub(OTHER, named=OTHER)]
    error = from_hub(server, tmp_path, weights(HUB.url, CONTENT))["error"]
    assert all(hashlib.sha256(content).hexdigest() in error for content in (CONTENT, OTHER))


def test_a_file_the_hub_has_not_is_one_line_with_its_address(server, tmp_path):
    server.answers = [hub(b"", b"", status=404)]
    error = from_hub(server, tmp_path)["error"]
    assert f"{server.url}/timm/net.tv_in1k/resolve/main/model.safetensors" in error
    assert str(tmp_path / "cache" / "huggingface.co" / "timm" / "net.tv_in1k" / "model.safetensors") in error
    assert "404" in error
    assert "\n" not in error


def test_without_a_network_the_hub_is_not_waited_for(tmp_path):
    with Server() as closed:
        pass
    began = time.monotonic()
    assert "refused" in from_hub(closed, tmp_path)["error"]
    assert time.monotonic() - began < 10
