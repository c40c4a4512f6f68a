"""The page's server on other people's machines: proxies, shared temporary folders, ports, a path of its own."""

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import toolkit
from toolkit.demo import Access, launch, server
from toolkit.demo.server import read_users
from toolkit.errors import UserError

ROOT = Path(toolkit.__file__).parents[1]


@pytest.mark.slow
def test_proxies_and_a_temporary_folder_of_somebody_else(bundles, tmp_path):
    """At any free port, as 0 asks for."""
    (tmp_path / "gradio").write_text("this name, which Gradio takes by default, is not ours to write below")
    closed = "127.0.0.1:9"
    theirs = {"http_proxy": f"http://{closed}", "HTTPS_PROXY": f"http://{closed}", "ALL_PROXY": f"socks5://{closed}"}
    environment = {k: v for k, v in os.environ.items() if k.lower() != "no_proxy" and not k.startswith("GRADIO")}
    environment |= theirs | {"TMPDIR": str(tmp_path), "PORT": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "toolkit", "demo", str(bundles)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        said = re.fullmatch(
            r"demo at (http://127\.0\.0\.1:[1-9]\d+/) \(Ctrl\+C stops it\)\n", process.stderr.readline()
        )
        [private] = tmp_path.glob("toolkit-demo-*")
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        with _opener.open(said[1]) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert (process.wait(20), process.stderr.read()) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["gradio"]


def test_where_uploads_cannot_lie_is_one_line(bundles, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file" / "uploads"))
    with pytest.raises(
        UserError, match=r"file/uploads: cannot keep uploads \(.*\); choose another by GRADIO_TEMP_DIR$"
    ):
        launch(bundles, port=0, block=False)


def test_port_in_use_is_one_line(served, bundles, monkeypatch):
    port = int(served.rstrip("/").rsplit(":", 1)[1])
    taken = rf"^port {port} on 127.0.0.1 is in use; .*choose another with "
    with pytest.raises(UserError, match=taken + "--port$"):
        launch(bundles, port=port, block=False)
    monkeypatch.setenv("PORT", str(port))
    with pytest.raises(UserError, match=taken + "PORT=$"):
        launch(bundles, block=False)
    monkeypatch.setenv("PORT", "http")
    with pytest.raises(UserError, match=r"^PORT must be a number .* got 'http'$"):
        launch(bundles, block=False)


@pytest.mark.parametrize(("host", "port"), [("203.0.113.1", 7999), ("127.0.0.1", 70_000)])
def test_an_impossible_address_is_one_line(bundles, host, port):
    with pytest.raises(UserError, match=r"cannot listen|port must be"):
        launch(bundles, host=host, port=port, block=False)


@pytest.mark.slow
@pytest.mark.browser
def test_below_a_path_of_a_reverse_proxy_and_behind_a_password(browser, bundles, seven, free_port, users, tmp_path):
    demo = launch(bundles, port=free_port, root_path="see/", access=Access(users), block=False)
    try:
        with _reverse_proxy("/see", demo.local_url) as (address, strays):
            page = browser.new_page()
            hosts: set[str | None] = set()
            page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
            page.goto(f"{address}/see/")
            page.get_by_label("username").fill("anna")
            page.get_by_label("password").fill("s3cret:with a colon")
            page.get_by_role("button", name="Login").click()
            page.wait_for_selector(".tk-example")
            page.set_input_files("#picture input[type=file]", str(seven))
            page.wait_for_selector(".tk-label:text-is('7')")
            page.wait_for_function("document.querySelector('#picture img')?.naturalWidth > 0")
            with zipfile.ZipFile(tmp_path / "some.zip", "w") as zipped:
                zipped.write(seven, "seven.png")
            page.set_input_files("#picture input[type=file]", str(tmp_path / "some.zip"))
            page.wait_for_selector(".tk-batch[data-state=done]")
            page.get_by_role("tab", name="Compare").click()
            page.wait_for_selector(".tk-compare[data-state=done] .tk-label:text-is('7')")
            page.wait_for_function("document.querySelector('#compared img')?.naturalWidth > 0")
            page.close()
        assert hosts <= {"127.0.0.1", None, ""}
        assert set(strays) <= {"/favicon.ico"}  # asked for by browsers, at the host's root
    finally:
        demo.close(verbose=False)


@pytest.fixture
def users(tmp_path) -> Path:
    path = tmp_path / "users.txt"
    path.write_text("# who may come in\n\nanna:s3cret:with a colon\nbert:Ünï\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def test_users_are_lines_of_a_file(users, caplog):
    assert read_users(users) == [("anna", "s3cret:with a colon"), ("bert", "Ünï")]
    assert caplog.text == ""
    users.chmod(0o644)
    read_users(users)
    assert "others on this machine can read the passwords" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"anna:x\ns3cret\n", "users.txt, line 2: expected USER:PASSWORD"),
        (b"anna:\n", "line 1: expected USER:PASSWORD"),
        (b":s3cret\n", "line 1: expected USER:PASSWORD"),
        (b"anna:s3cret\nanna:x\n", "line 2: a second password for 'anna'"),
        (b"# nobody\n", "users.txt: nobody in it"),
        (b"anna:\xff\n", "users.txt: not a text in UTF-8"),
        (None, "users.txt: cannot read the users from it"),
    ],
)
def test_a_file_of_users_that_is_none_is_one_line_that_quotes_no_password(bundles, tmp_path, content, message):
    path = tmp_path / "users.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)) as info:
        launch(bundles, access=Access(path), block=False)
    assert "s3cret" not in str(info.value)
    assert "\n" not in str(info.value)


def test_only_users_are_let_in(bundles, users, free_port, seven):
    from gradio_client import Client, handle_file

    demo = launch(bundles, port=free_port, access=Access(users), block=False)
    try:
        for path in ("config", "gradio_api/info", "gradio_api/file=/etc/hostname"):
            with pytest.raises(urllib.error.HTTPError) as info:
                _opener.open(f"{demo.local_url}{path}")
            assert info.value.code == 401
        with pytest.raises(ValueError, match="Could not login"):
            Client(demo.local_url, verbose=False, auth=("anna", "wrong"))
        client = Client(demo.local_url, verbose=False, auth=("anna", "s3cret:with a colon"))
        answer = client.predict(handle_file(seven), "digits/1", "litert", api_name="/predict")
        assert answer["predictions"][0]["label"] == "7"
    finally:
        demo.close(verbose=False)


def test_tools_for_programs_are_asked_for_and_let_nobody_around_the_password(bundles, users, monkeypatch):
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None if name == "mcp" else True)
    with pytest.raises(UserError, match=re.escape("not installed: pip install 'gradio[mcp]'")):
        launch(bundles, access=Access(mcp=True), block=False)
    with pytest.raises(UserError, match="--mcp and --auth exclude each other"):
        launch(bundles, access=Access(users, mcp=True), block=False)


def test_opening_the_page_is_a_step(bundles, told, monkeypatch, free_port):
    begun = []
    monkeypatch.setattr(type(told), "begin", lambda self, label, *_: begun.append(label) or 0)
    launch(bundles, port=free_port, block=False).close(verbose=False)
    assert "opening the page" in begun


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def _reverse_proxy(prefix: str, behind: str) -> Iterator[tuple[str, list[str]]]:
    """Pass on what is asked below ``prefix``, without it, and list what is asked elsewhere."""
    strays: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not re.match(rf"{prefix}(/|$)", self.path):
                strays.append(self.path)
                return self.send_error(404)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
            asked = urllib.request.Request(behind.rstrip("/") + self.path[len(prefix) :], body, method=self.command)
            for name in ("Content-Type", "Cookie", "Host"):
                if name in self.headers:
                    asked.add_header(name, self.headers[name])
            try:
                answer = _opener.open(asked)
            except urllib.error.HTTPError as error:
                answer = error
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
            for cookie in answer.headers.get_all("Set-Cookie") or ():
                self.send_header("Set-Cookie", cookie)
            self.end_headers()
            while piece := answer.read1(1 << 16):
                self.wfile.write(piece)

        do_POST = do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", strays
        server.shutdown()
