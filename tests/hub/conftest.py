"""A hub on loopback that speaks the calls which a push and a pull make."""

import base64
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_of_a_test"


@dataclass
class Repository:
    """Commits with their files, and the names that mean a commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def commit(self, files: dict[str, bytes]) -> str:
        number = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[number], self.refs["main"] = files, number
        return number

    def files(self, revision: str) -> dict[str, bytes]:
        return self.commits[self.refs.get(revision, revision)]


class LoopbackHub(ThreadingHTTPServer):
    """Holds repositories; ``broken`` says what it does wrong, by the end of a path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.broken: dict[str, int] = {}  # a status, or 0 to close the connection in the middle
        self.failing = 0  # a status that everything is answered with

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.parts()
        if self.refused():
            return
        if parts[:2] == ["api", "models"]:
            repository = self.repository("/".join(parts[2:4]))
            if repository is not None:
                names = repository.files("main") if repository.commits else {}
                self.answer({"id": "/".join(parts[2:4]), "siblings": [{"rfilename": name} for name in names]})
            return
        owner, name, _, revision, *path = parts
        repository = self.repository(f"{owner}/{name}")
        if repository is None:
            return
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            self.answer({}, 404, {"X-Error-Code": "RevisionNotFound"})
        elif (file := "/".join(path)) not in repository.commits[commit]:
            self.answer({}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        else:
            self.send_file(repository.commits[commit][file], commit)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.parts()
        if self.refused():
            return
        if parts[-1] == "validate-yaml":
            return self.answer({})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Unauthorized"}, 401)
        if parts == ["api", "repos", "create"]:
            return self.create(json.loads(body))
        if parts[-1] == "batch":
            found = json.loads(body)["objects"]
            objects = [
                one | {"actions": {"upload": {"href": f"{self.server.url}/large/{one['oid']}"}}} for one in found
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        repository = self.repository("/".join(parts[2:4]))
        assert repository is not None
        if parts[4] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "lfs" if is_large(file["path"]) else "regular"} | IGNORED
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if parts[4] == "tag":
            repository.refs[json.loads(body)["tag"]] = parts[5]
            return self.answer({})
        return self.commit("/".join(parts[2:4]), repository, body)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(content).hexdigest() == self.parts()[1]
        self.server.large[self.parts()[1]] = content
        self.answer({})

    def create(self, document: dict) -> None:
        name = f"{document['organization']}/{document['name']}"
        status = 409 if name in self.server.repositories else 200
        if status == 200:
            self.server.repositories[name] = Repository(private=document.get("visibility") == "private")
        self.answer({"url": f"{self.server.url}/{name}"}, status)

    def commit(self, name: str, repository: Repository, body: bytes) -> None:
        files = dict(repository.files("main")) if repository.commits else {".gitattributes": b""}
        for line in body.splitlines():
            kind, value = json.loads(line).values()
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(files)
        url = f"{self.server.url}/{name}/commit/{commit}"
        self.answer({"success": True, "commitUrl": url, "commitOid": commit})

    def refused(self) -> bool:
        status = self.server.failing or next(
            (status for end, status in self.server.broken.items() if status and self.path.endswith(end)), 0
        )
        if status:
            self.answer({"error": "no"}, status)
        return bool(status)

    def repository(self, name: str) -> Repository | None:
        found = self.server.repositories.get(name)
        may = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if found is None or (found.private and not may):
            self.answer({}, 404 if may else 401, {"X-Error-Code": "RepoNotFound"} if may else {})
            return None
        return found

    def send_file(self, content: bytes, commit: str) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if any(self.path.endswith(end) for end, status in self.server.broken.items() if not status):
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)

    def answer(self, document: dict, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def parts(self) -> list[str]:
        self.server.requests.append(f"{self.command} {self.path}")
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def log_message(self, *arguments) -> None:
        pass


IGNORED = {"shouldIgnore": False}


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".tflite", ".keras", ".pb", ".onnx")) or "variables" in path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub, to which ``HF_ENDPOINT`` points, without a token."""
    from huggingface_hub import constants

    for name in ("TOOLKIT_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    hasty = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.file_download.time", hasty)
    with LoopbackHub() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
        server.shutdown()


@pytest.fixture
def token(monkeypatch) -> str:
    """A token with which the hub lets in."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


@pytest.fixture
def plain_bundle(tmp_path_factory):
    """A bundle of files that nothing opens: what is pulled is compared and not run."""
    from toolkit.bundle import Manifest, write_manifest
    from toolkit.spec import Preprocessing

    version_dir = tmp_path_factory.mktemp("plain") / "digits" / "1"
    contents = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets/labels.txt": b"one\ntwo\n"}
    for name, content in (contents | {"assets.extra/model.fp32.tflite": b"float" * 1000}).items():
        (version_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (version_dir / name).write_bytes(content)
    given = {"preprocessing": Preprocessing((8, 8)), "labels": ("one", "two"), "recommended_engine": "savedmodel"}
    measured = {"metrics": {"top1": 0.9, "n": 100}, "parity": {"litert": 1e-6}, "versions": {"toolkit": "0.1.0"}}
    write_manifest(version_dir, Manifest("digits", "lenet5", 61_706, "0" * 64, **given, **measured))
    return version_dir


@pytest.fixture
def put(hub):
    """Put a bundle on the hub as ``user/digits``, tagged ``v1``, and give its repository."""

    def put(version_dir) -> Repository:
        paths = [path for path in version_dir.rglob("*") if path.is_file()]
        repository = hub.repositories["user/digits"] = Repository()
        repository.refs["v1"] = repository.commit(
            {path.relative_to(version_dir).as_posix(): path.read_bytes() for path in paths}
        )
        return repository

    return put


@pytest.fixture
def pushed(put, plain_bundle):
    """The repository ``user/digits`` with a plain bundle, tagged ``v1``."""
    return put(plain_bundle)
