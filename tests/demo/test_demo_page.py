"""The page without a browser: its functions, its programming interface, and what it refuses."""

import http.client
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import toolkit
from toolkit.bundle import EXAMPLES, MANIFEST, Example
from toolkit.demo import build_demo, markup, server
from toolkit.demo.classifier import Answer, Classifier
from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.inference.predictor import Prediction

ROOT = Path(toolkit.__file__).parents[1]


def test_an_upload_is_answered_with_bars_and_the_time(page, sent, seven):
    picture, card = page.look(sent(seven), "digits/1", "litert")
    assert picture["__type__"] == "update"  # left as it is
    assert 'data-state="answer"' in card
    assert card.count("<li>") == 5
    assert re.search(r"<b>[\d.,]+ ms</b> to decode and classify, digits/1 on litert\b", card)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "Not a picture in a supported format (JPEG, PNG, BMP, GIF, WEBP, TIFF, AVIF, HEIF)."),
        ("truncated", "Damaged or truncated picture"),
        ("huge", "More than 178,000,000 pixels, which is refused"),
    ],
)
def test_a_bad_file_is_explained_and_makes_room(page, sent, bad_files, kind, message):
    picture, card = page.look(sent(bad_files[kind]), "digits/1", "litert")
    assert picture is None
    assert message in card
    assert f"{bad_files[kind].name} cannot be read as a picture" in card
    assert str(bad_files[kind].parent) not in card
    assert "Traceback" not in card


@pytest.mark.parametrize("name", ["digits/1", "no such bundle"])
def test_a_script_that_names_a_file_of_the_server_is_not_given_it(page, name, bundles):
    from gradio import EventData

    for path in (bundles / "digits/1" / MANIFEST, "/etc/hostname", None, ["/etc/hostname"], "\0"):
        shown, card, _ = page.take(name, "litert", EventData(None, {"path": path, "name": "a", "count": 1}))
        assert shown is None
        assert 'data-state="problem"' in card
    assert page.take(name, "litert", EventData(None, None))[0] is None


@pytest.mark.parametrize("index", [0, 99, "x", None])
def test_an_example_is_answered_and_one_that_is_gone_explained(page, index):
    from gradio import EventData

    picture, card, _ = page.show_example("digits/1", "litert", EventData(None, {"index": index}))
    assert ('data-state="answer"' in card and Path(picture).is_file()) == (index == 0)
    assert ("This example is gone" in card) == (index != 0)


def test_a_file_swept_away_is_explained(page, upload_folder):
    _, card = page.look({"path": str(upload_folder / "gone.png")}, "digits/1", "litert")
    assert "No longer on the server" in card


def test_an_unforeseen_failure_is_logged_and_not_shown(page, sent, seven, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(page._classifier, "classify", fail)
    with caplog.at_level(logging.ERROR):
        _, card = page.look(sent(seven), "digits/1", "litert")
    assert "Something went wrong" in card
    assert "secret detail" not in card
    assert "secret detail" in caplog.text


def test_opening_lists_bundles_engines_examples_and_accuracy(page, bundles):
    bundle, engine, examples, about, canvas, card = page.open()
    assert bundle.value == "digits/2"
    assert [value for _, value in bundle.choices] == ["digits/2", "digits/1"]
    assert engine.value == "auto"
    assert engine.choices[0][0].startswith("auto (")
    assert examples.count("<button") == 3
    assert [f">{label}</span>" in examples for label in "0123"] == [True, True, True, False]
    assert 'data-ground="#000000" data-ink="#ffffff"' in canvas  # as its training pictures are
    assert "data-draw" in card
    metrics = Classifier(bundles).manifest("digits/2").metrics
    assert f"<b>{100 * metrics['top1']:.1f} %</b> on {metrics['n']:.0f} held-out pictures" in about


def test_accuracy_by_cross_validation_is_not_called_held_out(bundles):
    manifest = Classifier(bundles).manifest("digits/2")
    judged = replace(manifest, metrics={"top1": 0.94, "top5": 1.0, "n": 50, "standard_error": 0.0394})
    assert "<b>94.0 %</b> ± 3.9 on 50 out-of-fold pictures" in markup.about(judged, "litert")


def test_a_damaged_bundle_does_not_keep_the_page_from_opening(bundles, tmp_path):
    from toolkit.demo.tabs.classify import Classify

    version = Path(shutil.copytree(bundles / "digits" / "2", tmp_path / "a" / "1"))
    (version / MANIFEST).write_text("{")
    shutil.copytree(bundles / "digits" / "1", tmp_path / "b" / "1")
    build_demo(tmp_path)
    bundle, _, examples, about, *_ = Classify(Classifier(tmp_path)).open()
    assert [value for _, value in bundle.choices] == ["a/1", "b/1"]
    assert examples == ""
    assert "damaged manifest" in about


def test_choosing_a_network_keeps_the_engine_it_has(page):
    assert page.choose_bundle("digits/1", "litert-int8")[1].value == "litert-int8"
    assert page.choose_bundle("digits/2", "litert-int8")[1].value == "auto"
    assert page.choose_bundle("digits/2", "savedmodel")[1].value == "savedmodel"


@pytest.mark.parametrize(
    ("truth", "rejected", "told"),
    [
        (None, False, ""),
        ("seven", False, "right"),
        ("one", False, "the network is wrong here"),
        ("seven", True, "too unsure to say so"),
        ("one", True, "wrong, and too unsure to say it"),
    ],
)
def test_the_true_label_of_an_example_stands_with_the_answer(truth, rejected, told):
    predictions = (Prediction("seven", 0.6), Prediction("one", 0.4))
    card = markup.answer_card(Answer("a/1", "litert", 1.0, predictions, "unsure" if rejected else "", truth))
    found = re.findall(r"true label: <b[^>]*>(.*?)</b> – (.*?)</p>", card)
    assert found == ([(truth, told)] if truth else [])


def test_what_the_decoder_sees_otherwise_than_browsers_is_shown_as_it_sees_it(page, sent, tmp_path, seven):
    frames = [Image.open(seven).convert("P"), Image.new("P", (8, 8))]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    path, card = page.look(sent(tmp_path / "moving.gif"), "digits/1", "litert")
    with Image.open(path) as preview:
        assert (preview.format, preview.size, getattr(preview, "n_frames", 1)) == ("WEBP", (8, 8), 1)
    assert '<span class="tk-label">7</span>' in card
    # Asked again, by another engine say, the file itself is answered and not its preview.
    again = page.look_again({"path": path, "orig_name": "moving.gif.preview.webp"}, "digits/1", "litert")
    assert re.findall(r"[\d.]+ %", again) == re.findall(r"[\d.]+ %", card)


def test_an_engine_measured_by_itself_shows_its_own_accuracy(page, bundles):
    metrics = Classifier(bundles).manifest("digits/1").metrics
    assert f"<b>{100 * metrics['top1_litert-int8']:.1f} %</b>" in page.choose_engine("digits/1", "litert-int8")


def test_labels_from_outside_stay_text(bundles):
    hostile = "<img src=x onerror=alert(1)>${1+1}{{x}}"
    card = markup.answer_card(Answer("a/1", "litert", 1.0, (Prediction(hostile, 0.5),), true_label=hostile), hostile)
    (strip,) = [markup.examples_strip([Example(next((bundles / "digits/1" / EXAMPLES).iterdir()), hostile)])]
    for text in (card, strip):
        assert "<img src=x" not in text
        assert "${" not in text
        assert "{{" not in text


def test_api_answers_like_the_predictor(client, bundles, seven):
    from gradio_client import handle_file

    answer = client.predict(handle_file(seven), "digits/1", "litert", api_name="/predict")
    expected = Predictor.load(bundles / "digits" / "1", "litert").predict(seven)[0]
    assert (answer["bundle"], answer["engine"]) == ("digits/1", "litert")
    assert [p["label"] for p in answer["predictions"]] == [p.label for p in expected]
    np.testing.assert_allclose(
        [p["probability"] for p in answer["predictions"]], [p.probability for p in expected], rtol=0, atol=1e-6
    )


def test_a_photograph_is_turned_upright_exactly_once(client, bundles, tmp_path, seven):
    from gradio_client import handle_file

    upright = Image.open(seven).convert("RGB").resize((64, 64), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "rotated.jpg"
    upright.rotate(90, expand=True).save(path, quality=95, exif=exif)
    answer = client.predict(handle_file(path), "digits", "litert", api_name="/predict")
    expected = Predictor.load(bundles / "digits", "litert").predict(path)[0]
    assert answer["predictions"][0]["label"] == "7"
    assert answer["predictions"][0]["probability"] == pytest.approx(expected[0].probability, abs=1e-6)


@pytest.mark.parametrize("kind", ["text", "truncated", "huge"])
def test_api_explains_a_bad_file(client, bad_files, kind):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=rf"{bad_files[kind].name}: (not a picture|damaged|more than)"):
        client.predict(handle_file(bad_files[kind]), "digits/1", "litert", api_name="/predict")


def test_api_names_the_bundles_it_has(client, seven):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match="unknown bundle 'digitz/1'; did you mean 'digits/"):
        client.predict(handle_file(seven), "digitz/1", "auto", api_name="/predict")


def test_api_docs_show_the_actions_and_nothing_else(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    named = {name: [p["parameter_name"] for p in told["parameters"]] for name, told in endpoints.items()}
    assert named == {
        "/predict": ["picture", "bundle", "engine"],
        "/predict_several": ["pictures", "bundle", "engine", "crops", "reject_below"],
        "/networks": [],
        "/compare": ["picture", "bundles", "engines"],
        "/heat_map": ["picture", "bundle", "label", "method", "stage"],
        "/arithmetic": ["picture", "bundle"],
        "/teach": ["pictures", "network"],
    }
    assert all(told["description"] for told in endpoints.values())


def test_api_over_plain_http(served, seven):
    answer = _ask(served, {"path": _upload(served, seven.read_bytes()), "meta": {"_type": "gradio.FileData"}})
    assert "event: complete" in answer
    assert json.loads(answer.split("data: ", 1)[1])[0]["predictions"][0]["label"] == "7"


@pytest.mark.parametrize(
    "picture",
    [
        {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}},
        {"path": "/etc/hostname"},
        {"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}},
        {"url": "data:image/png;base64,AAAA", "meta": {"_type": "gradio.FileData"}},
        "/etc/hostname",
        None,
    ],
    ids=["server-file", "no-meta", "address", "data-url", "string", "nothing"],
)
def test_only_uploads_are_read(served, picture):
    answer = _ask(served, picture)
    assert "event: error" in answer
    assert "Traceback" not in answer
    assert re.search("not uploaded|not an upload|no file was given|not its web address|null", answer), answer


def test_no_input_fetches_a_web_address(served):
    address = {"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}}
    for place in range(3):
        data: list[object] = [None, "digits/1", "litert"]
        data[place] = address
        assert "not its web address" in _ask(served, *data)


def test_fifty_visitors_at_once_are_all_answered(served, digits):
    pictures = [path for label in "0123456789" for path in sorted((digits / label).glob("*.png"))[:5]]
    answers: dict[int, str] = {}

    def visit(number: int) -> None:
        path = _upload(served, pictures[number].read_bytes())
        answers[number] = _ask(served, {"path": path, "meta": {"_type": "gradio.FileData"}})

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(50))
    assert [number for number, answer in answers.items() if "event: complete" not in answer] == []


def test_bundle_files_are_not_served(served, bundles):
    with pytest.raises(urllib.error.HTTPError) as info:
        urllib.request.urlopen(f"{served}gradio_api/file={bundles}/digits/1/assets/labels.txt")
    assert info.value.code == 403


def test_a_picture_is_refused_beyond_another_size_than_an_archive(served, page, upload_folder):
    path = upload_folder / "large.png"
    with path.open("wb") as file:
        file.truncate(21_000_000)
    _, card = page.look({"path": str(path)}, "digits/1", "litert")
    assert "21.0 MB, and at most 20 MB are taken of one." in card
    with urllib.request.urlopen(f"{served}config") as answer:
        assert json.load(answer)["max_file_size"] == 200_000_000


def test_a_large_upload_is_refused_by_the_length_that_it_announces(served):
    address = urlsplit(served)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": "202000000"}
    connection.request("POST", "/gradio_api/upload", headers=headers)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (413, b"at most 200 MB are taken at once")
    connection.close()


def test_the_doors_are_shut(served, bundles):
    with urllib.request.urlopen(f"{served}config") as answer:
        config = json.load(answer)
    assert config["analytics_enabled"] is False
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    demo = build_demo(bundles)
    assert demo._queue.max_size == 64
    assert demo.delete_cache == (600, 3600)
    limits = {f.concurrency_limit for f in demo.fns.values() if f.concurrency_id == "predict"}
    assert limits == {2}
    options = server.launch_options()
    assert options["share"] is options["show_error"] is options["mcp_server"] is False
    assert options["allowed_paths"] == []


def test_without_gradio_the_extra_is_named(bundles, monkeypatch):
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=re.escape("pip install 'toolkit[demo]'")):
        build_demo(bundles)


@pytest.mark.parametrize("what", ["import toolkit.demo", "import runpy; runpy.run_path('apps/gradio_demo/app.py')"])
def test_importing_is_cheap_and_has_no_effect(what):
    code = f"{what}\nimport os, sys\nprint(*sys.modules)\nassert 'GRADIO_ANALYTICS_ENABLED' not in os.environ"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRADIO")} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()).isdisjoint({"gradio", "tensorflow", "keras", "numpy", "PIL"})


def test_the_space_asks_for_what_the_package_asks_for():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {*project["dependencies"], *extras["demo"], *extras["openvino"]}
    assert set((ROOT / "apps/gradio_demo/requirements.txt").read_text().split()) <= known
    front_matter = (ROOT / "apps/gradio_demo/README.md").read_text().split("---")[1]
    assert "sdk: gradio" in front_matter
    assert "app_file: app.py" in front_matter


def _upload(served: str, data: bytes) -> str:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + data + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with urllib.request.urlopen(urllib.request.Request(f"{served}gradio_api/upload", body, headers)) as answer:
        return json.load(answer)[0]


def _ask(served: str, picture: object, bundle: object = "digits/1", engine: object = "litert") -> str:
    url = f"{served}gradio_api/call/predict"
    body = json.dumps({"data": [picture, bundle, engine]}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}/{event}") as answer:
        return answer.read().decode()
