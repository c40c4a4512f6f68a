"""Several pictures at once, without a browser: files, archives and their limits, thresholds, crops, the table."""

import base64
import csv
import html
import io
import re
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gradio import EventData

from toolkit.bundle import read_manifest
from toolkit.demo import batch, markup
from toolkit.demo.batch import ARCHIVE_LIMITS, MAX_PICTURES
from toolkit.demo.classifier import Answer, Classifier
from toolkit.inference import Predictor
from toolkit.inference.predictor import Prediction


@pytest.fixture(scope="module")
def several(bundles):
    from toolkit.demo.tabs.several import Several

    return Several(Classifier(bundles))


@pytest.fixture
def send(several, upload_folder):
    """Drop files, by their names and contents, and give what is shown last: items, tiles, picture, card."""

    def drop(files: dict[str, bytes], ten: bool = False, below: float | None = None):
        sent = []
        for name, data in files.items():
            path = upload_folder / name
            path.write_bytes(data)
            sent.append({"path": str(path), "name": name})
        *_, last = several.answer("digits/1", "litert", EventData(None, {"files": sent}), ten, below)
        return last[:4]

    return drop


def _table(tiles: str) -> list[dict[str, str]]:
    (data,) = re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', tiles)
    return list(csv.DictReader(io.StringIO(base64.b64decode(data).decode("utf-8-sig"))))


@pytest.fixture
def some(digits) -> dict[str, bytes]:
    return {f"{label}/{label}.png": sorted((digits / label).glob("*.png"))[3].read_bytes() for label in "0123"}


def test_a_zip_file_is_answered_picture_by_picture_with_a_table_to_take_home(page, send, bundles, some, digits, zipped):
    items, tiles, picture, card = send({"some.zip": zipped(some | {"x/broken.png": b"text", "notes.txt": b"x"})})
    assert [item.name for item in items] == [*some, "x/broken.png"]
    assert tiles.count('class="tk-tile ') == 5
    assert "Left out: notes.txt (not a picture)" in tiles
    assert 'data-state="answer"' in card
    assert "some.zip: 5 pictures, this is the answer to 0/0.png." in html.unescape(card)
    assert Path(picture).read_bytes() == some["0/0.png"]
    rows = _table(tiles)
    predictor = Predictor.load(bundles / "digits" / "1", "litert")
    for row, (name, data) in zip(rows, some.items(), strict=False):
        (expected,) = predictor.predict(data)
        assert (row["path"], row["label"], row["true_label"]) == (name, expected[0].label, name[0])
        assert float(row["probability"]) == pytest.approx(expected[0].probability, abs=1e-6)
    assert (rows[4]["label"], rows[4]["problem"][:13]) == ("", "Not a picture")
    right = sum(row["label"] == row["true_label"] for row in rows[:4])
    assert f"{right} of 4 right, by their folders" in html.unescape(tiles)


def test_a_wrong_answer_is_told_by_the_folder_and_a_refused_one_is_not_wrong():
    answer = Answer("a/1", "litert", 1.0, (Prediction("cat", 0.6), Prediction("dog", 0.4)))
    items = [batch.Item(f"{folder}/a.png", "x", answer=answer) for folder in ("cat", "dog", "other")]
    shown = html.unescape(markup.tiles(items, ("cat", "dog")))
    assert "1 of 2 right, by their folders' names" in shown
    assert re.findall(r'class="tk-not">([^<]*)<', shown) == ["folder dog"]
    refused = html.unescape(markup.tiles([item.judged(0.7) for item in items], ("cat", "dog")))
    assert "0 of 2 right, 2 refused, by their folders' names" in refused
    assert "tk-is-wrong" not in refused


def test_a_picture_of_several_is_picked_to_be_seen_large(several, send, some):
    items, *_ = send({f"{name[0]}.png": data for name, data in some.items()})
    picture, card, _ = several.pick(items, "digits/1", "litert", EventData(None, {"index": 2}))
    assert Path(picture).read_bytes() == some["2/2.png"]
    assert "2.png" in card
    for index in (9, "x", None, {}):
        assert "is gone" in several.pick(items, "digits/1", "litert", EventData(None, {"index": index}))[1]


def _bomb(zipped) -> bytes:
    buffer = io.BytesIO(zipped({}))
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("a/a.png", b"\0")
        file.filelist[0].file_size = ARCHIVE_LIMITS.size + 1  # as it announces
    return buffer.getvalue()


def _link(_) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        link = zipfile.ZipInfo("a/link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("bomb.zip", _bomb, "bomb.zip: refused, at a/a.png it swells beyond 250 MB"),
        ("up.zip", lambda pack: pack({"../../up.png": b"x"}), "names a place outside the archive"),
        ("root.zip", lambda pack: pack({"/etc/up.png": b"x"}), "names a place outside the archive"),
        ("link.zip", _link, "link.zip: no pictures in it"),
        ("many.zip", lambda pack: pack({f"{n}.png": b"" for n in range(10_000)}), "it holds more than 2,000 files"),
        (
            "some.zip",
            lambda pack: pack({f"{n}.png": b"" for n in range(201)}),
            "some.zip: 201 pictures; 200 are answered",
        ),
        ("text.zip", lambda _: b"Dear network", "text.zip: a damaged or encrypted archive"),
        ("text.tar.gz", lambda _: b"Dear network", "text.tar.gz: a damaged or encrypted archive"),
        ("empty.zip", lambda pack: pack({}), "empty.zip: no pictures in it"),
    ],
)
def test_an_archive_that_should_not_be_opened_is_one_line(
    send, zipped, upload_folder, tmp_path, monkeypatch, name, make, message
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    items, tiles, _, card = send({name: make(zipped)})
    said = html.unescape(card)
    assert message in said
    assert 'data-state="problem"' in card
    assert (items, tiles) == ((), "")
    assert not {"Traceback", str(upload_folder), str(tmp_path)} & set(said.split())
    assert str(upload_folder) not in said
    assert list(tmp_path.iterdir()) == []  # nothing of it stays


def test_a_full_disk_is_logged_and_not_shown(send, some, monkeypatch, caplog, zipped):
    def fail(*_):
        raise OSError(28, "No space left on device", "/secret/place")

    monkeypatch.setattr(batch, "unpack", fail)
    items, tiles, _, card = send({"some.zip": zipped(some)})
    assert "Something went wrong" in card
    assert "/secret" not in card
    assert "/secret/place" in caplog.text
    assert (items, tiles) == ((), "")


def test_archives_beside_each_other_are_counted_together(send, some, zipped):
    opened = []
    unpack = batch.unpack
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.demo.tabs.several.MAX_PICTURES", 6)
        patch.setattr(batch, "unpack", lambda *args: opened.append(args) or unpack(*args))
        items, _, _, card = send({f"{number}.zip": zipped(some) for number in range(5)})
    assert "more than 6 pictures came at once" in html.unescape(card)
    assert (items, len(opened)) == ((), 2)  # the others are not even opened


def test_a_script_that_sends_what_the_page_never_would_is_refused(several, bundles):
    def last(files):
        *_, found = several.answer("digits/1", "litert", EventData(None, {"files": files}))
        return found

    for files in (None, [], "x", [None, 3]):
        assert "no files were sent" in last(files)[3]
    for path in (str(bundles / "digits/1/assets.extra/manifest.json"), "/etc/hostname", None, "\0", ["/etc/hostname"]):
        items, tiles, *_ = last([{"path": path, "name": "a.png"}, {"path": path, "name": "b.zip"}])
        assert [item.answer for item in items] == [None, None]
        assert "tk-unread" in tiles
    assert f"more than {MAX_PICTURES} pictures" in last([{"path": "x", "name": "a"}] * 300)[3]


def test_another_threshold_refuses_what_is_less_sure_and_tells_its_price(several, send, some, bundles):
    items, *_ = send({f"{name[0]}.png": data for name, data in some.items()})
    event = EventData(None, {"below": 0.99})
    below, _, tiles = several.judge(items, None, "digits/1", "litert", False, event)
    sure = [item.answer.predictions[0].probability >= 0.99 for item in items]
    assert below == 0.99
    assert [row["rejected"] for row in _table(tiles)] == [str(not own).lower() for own in sure]
    below, _, tiles = several.judge(items, None, "digits/1", "litert", False, EventData(None, {"below": "x"}))
    own = read_manifest(bundles / "digits" / "1").reject_below or 0.0
    assert below is None
    rejected = [str(item.answer.predictions[0].probability < own).lower() for item in items]
    assert [row["rejected"] for row in _table(tiles)] == rejected


def test_the_slider_is_there_where_the_bundle_knows_the_price(page, bundles):
    from dataclasses import replace

    manifest = read_manifest(bundles / "digits" / "1")
    shown = markup.threshold(manifest)
    assert 'type="range"' in shown
    assert "&quot;answered&quot;: [1.0, " in shown
    assert markup.threshold(replace(manifest, rejection=None)) == ""
    assert page.limit("digits/1", "litert")[0] == shown
    assert page.limit("digits/1", "litert", True)[0] == ""  # the price was counted for one crop
    assert page.limit("no such bundle", "litert")[0] == ""


def test_ten_crops_are_the_predictors(page, send, bundles, seven):
    items, _, _, _ = send({"7.png": seven.read_bytes()}, ten=True)
    expected = Predictor.load(bundles / "digits" / "1", "litert", crops=10).probabilities(seven)[0]
    answer = items[0].answer
    assert answer.crops == 10
    assert answer.predictions[0].probability == pytest.approx(float(expected.max()), abs=1e-6)
    assert (
        "digits/1 on litert, 10 crops"
        in page.look({"path": items[0].path, "orig_name": "7.png"}, "digits/1", "litert", True)[1]
    )


def test_several_are_answered_again_by_another_network(several, send, some):
    items, *_ = send({f"{name[0]}.png": data for name, data in some.items()})
    *_, (again, tiles) = several.again(items, "digits/2", "savedmodel")
    assert {item.answer.bundle for item in again} == {"digits/2"}
    assert tiles.count('class="tk-tile ') == 4
    assert next(iter(several.again((), "digits/2", "savedmodel")))[0]["__type__"] == "update"


def test_names_from_outside_stay_text():
    hostile = "<img src=x onerror=alert(1)>${1+1}{{x}}.png"
    shown = markup.tiles([batch.Item(hostile, problem=hostile)], (hostile,), hostile)
    assert "<img src=x" not in shown
    assert "${" not in shown
    assert "{{" not in shown


def test_several_by_the_programming_interface(client, bundles, some, tmp_path, zipped):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "some.zip").write_bytes(zipped(some))
    (tmp_path / "letter.png").write_text("Dear network")
    files = [handle_file(tmp_path / name) for name in ("some.zip", "letter.png")]
    told = client.predict(files, "digits/1", "litert", 1, 0.5, api_name="/predict_several")
    names = [answer["name"] for answer in told["answers"]]
    assert names == [*some, "letter.png"]
    expected = Predictor.load(bundles / "digits" / "1", "litert").probabilities(list(some.values()))
    found = [answer["predictions"][0]["probability"] for answer in told["answers"][:4]]
    np.testing.assert_allclose(found, expected.max(axis=1), rtol=0, atol=1e-6)
    assert "Not a picture" in told["answers"][4]["problem"]
    assert told["csv"].splitlines()[0].startswith("path,label,probability,rejected,label_2")
    assert len(told["csv"].splitlines()) == 6
    for crops, below, message in (
        (7, None, "7 crops: expected one of 1, 10, 50, 144"),
        ("x", None, "'x' crops: expected one of"),
        (1, 2, "reject_below 2: expected a probability from 0 to 1"),
    ):
        with pytest.raises(AppError, match=message):
            client.predict(files[1:], "digits/1", "litert", crops, below, api_name="/predict_several")
    with pytest.raises(AppError, match="no files were sent"):
        client.predict([], "digits/1", "litert", 1, None, api_name="/predict_several")


def test_networks_by_the_programming_interface(client, bundles):
    told = client.predict(api_name="/networks")
    assert [network["bundle"] for network in told] == ["digits/2", "digits/1"]
    assert "litert-int8" in told[1]["engines"]
    assert told[0]["labels"] == list("0123456789")
