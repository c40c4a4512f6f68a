"""Disk space that visitors share: told where it is full, and made by removing what is in nobody's use."""

import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from toolkit.demo import Access, launch, uploads
from toolkit.demo.quota import Quota
from toolkit.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of uploads of its own."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    return tmp_path / "uploads"


@pytest.fixture
def upload(folder):
    """Lay an upload down as Gradio does, as old as is said."""

    def make(name: str, seconds: float = 0.0) -> Path:
        path = folder / name / "a.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (time.time() - seconds,) * 2)
        return path

    return make


@pytest.fixture
def ask(monkeypatch):
    """Ask for an upload as the page of a session does, now or so many seconds ago."""

    def ask(path: Path, session: str, seconds: float = 0.0) -> None:
        request = uploads.LocalContext.request
        before, asked = request.set(SimpleNamespace(session_hash=session)), time.monotonic() - seconds
        try:
            with monkeypatch.context() as patch:
                patch.setattr(uploads, "time", SimpleNamespace(monotonic=lambda: asked))
                uploads.upload_path({"path": str(path)})
        finally:
            request.reset(before)

    return ask


def test_uploads_and_what_is_taught_are_counted_together(upload, tmp_path):
    quota = Quota(3000)
    (tmp_path / "taught").mkdir()
    quota.include(tmp_path / "taught")
    upload("one")
    quota.require(2000)
    (tmp_path / "taught" / "model.keras").write_bytes(bytes(1500))
    quota = Quota(3000)
    quota.include(tmp_path / "taught")
    with pytest.raises(UserError, match=r"^this server's room for visitors' files, 0 MB, is full; try again in a few"):
        quota.require(1000)


def test_what_is_on_its_way_is_counted(folder):
    quota = Quota(3000)
    with quota.taking(2000), pytest.raises(UserError, match="is full"):
        quota.require(2000)
    quota.require(2000)


def test_uploads_of_closed_pages_go_first_and_the_oldest_of_them(upload, ask):
    sessions = {"old": "closed", "new": "closed", "kept": "open"}
    paths = {name: upload(name, seconds) for name, seconds in (("kept", 900), ("old", 90), ("new", 9))}
    fresh = upload("fresh", 5)
    for name, session in sessions.items():
        ask(paths[name], session)
    uploads.release("closed")
    assert uploads.dispensable() == [paths["old"], paths["new"]]
    Quota(4000).require(1000)
    assert not paths["old"].exists()
    assert paths["new"].exists()
    Quota(3000).require(1000)
    assert not paths["new"].exists()
    with pytest.raises(UserError, match="is full"):
        Quota(2000).require(1000)
    assert paths["kept"].exists()
    assert fresh.exists()


def test_what_no_page_asked_for_or_an_open_one_long_ago_makes_room_too(upload, ask):
    stray, idle, kept = upload("stray", 61), upload("idle", 900), upload("kept", 900)
    ask(idle, "open", 601)
    ask(kept, "open", 599)
    upload(f"{uploads.DOWNLOADS}x", 900)  # goes with its visit
    assert uploads.dispensable() == [stray, idle]


def test_a_full_server_says_so_before_a_file_is_sent(bundles, folder, free_port):
    demo = launch(bundles, port=free_port, access=Access(teach=False, quota=10_000), block=False)
    try:
        body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%b\r\n--x--\r\n'
        headers = {"Content-Type": "Multipart/Form-Data; boundary=x"}

        def send(size: int) -> int:
            asked = urllib.request.Request(f"{demo.local_url}gradio_api/upload", body % bytes(size), headers)
            with urllib.request.urlopen(asked) as answer:
                return answer.status

        assert send(5000) == 200
        with pytest.raises(urllib.error.HTTPError) as refused:
            send(6000)
        assert (refused.value.code, b"room for visitors' files" in refused.value.read()) == (507, True)
        with urllib.request.urlopen(f"{demo.local_url}config") as answer:
            config = answer.read().decode()
        assert '"Networks"' in config
        assert '"Teach"' not in config  # and teaching can be left out
        with urllib.request.urlopen(f"{demo.local_url}gradio_api/info") as answer:
            assert "/teach" not in answer.read().decode()
    finally:
        demo.close(verbose=False)
