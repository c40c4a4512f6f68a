"""The real application on a loopback port, and a server that says what a test told it to."""

import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import uvicorn

from toolkit.serving import create_app


@pytest.fixture(scope="module")
def server(bundle):
    """Address of a server of the digits' bundle."""
    running = uvicorn.Server(uvicorn.Config(create_app(bundle.parent.parent), port=0, log_level="error"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join()


class Scripted(ThreadingHTTPServer):
    """Gives replies (status, document, headers) one after the other, the last one for ever; a status of 0 hangs up.

    Attributes:
        asked: (path, headers, document) of each request.
        ports: of the clients' ends of the connections that requests came by.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies, self.asked, self.ports = deque(), [], []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def will(self, *replies):
        self.replies.extend((*reply, {})[:3] for reply in replies)

    def handle_error(self, *request): ...


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._reply()

    def do_POST(self):
        self._reply()

    def _reply(self):
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.asked.append((self.path, dict(self.headers), json.loads(body) if body else None))
        server.ports.append(self.client_address[1])
        status, document, headers = server.replies.popleft() if len(server.replies) > 1 else server.replies[0]
        if not status:
            self.close_connection = True
            return
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *message): ...


@pytest.fixture
def scripted():
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
