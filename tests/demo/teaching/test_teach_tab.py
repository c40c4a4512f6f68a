"""The tab without a browser: what its script asks for, what strangers may send, and its endpoint."""

import json
import re
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from gradio import EventData

from toolkit.bundle import SHIPPED, shipped_bundle
from toolkit.catalogue import model_info
from toolkit.demo import markup
from toolkit.demo.classifier import Classifier
from toolkit.demo.markup import teach as parts
from toolkit.demo.quota import Quota
from toolkit.demo.tabs.compare import Compare
from toolkit.demo.tabs.teach import Teaching
from toolkit.demo.teaching.backbones import find_starts
from toolkit.demo.teaching.lesson import Backbone
from toolkit.demo.teaching.limits import Limits
from toolkit.demo.teaching.school import School
from toolkit.errors import UserError
from toolkit.weights.download import cached_path


@pytest.fixture
def tab(bundles, quick_lessons):
    school = School(Limits(num_pictures=100))
    yield Teaching(Classifier(bundles, visitors=school.network), school, Quota(1_000_000_000))
    school.shut()


@pytest.fixture
def ask(tab):
    """Ask as the page's script does."""
    secret = tab.school.open("page")

    def ask(do, **rest):
        answer = tab.ask({"do": do, "secret": secret, **rest})
        json.dumps(answer)
        return answer

    ask.secret = secret
    return ask


def test_networks_for_photographs_come_before_those_for_small_pictures_and_grey_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    for name in SHIPPED:
        (tmp_path / name).symlink_to(shipped_bundle(name))
    starts = find_starts(Classifier(tmp_path))
    bundles = [start.name for start in starts if start.backbone.bundle]
    assert bundles == ["resnet18-thin/1", "resnet20-cifar10/1", "lenet5-mnist/1"]


def _when_over(ask):
    for _ in range(400):
        answer = ask("status")
        if answer["phase"] not in ("waiting", "working"):
            break
        time.sleep(0.05)
    return answer


def test_pictures_are_taken_taught_tried_and_taken_home(ask, sent, seven, digits_zip, upload_folder):
    opened = ask("open")
    assert [network["name"] for network in opened["networks"]] == ["digits/2", "digits/1"]
    assert "photographs are hard for it" in opened["networks"][0]["advice"]
    filled = ask("add_zip", file=sent(digits_zip))
    assert [(own["name"], len(own["pictures"])) for own in filled["collection"]["classes"]] == [
        ("3", 20),
        ("5", 20),
        ("8", 20),
    ]
    assert len(filled["collection"]["thumbnails"]) == 60
    assert not (upload_folder / "digits.zip").exists()  # nothing lies about
    extra = ask("add", files=[sent(seven) | {"label": "7"}], known=list(range(100)))["collection"]
    assert extra["classes"][3]["name"] == "7"
    assert extra["thumbnails"] == {}
    assert ask("check")["findings"][0]["sentence"].startswith("Few pictures to learn from: 7 (1)")
    ask("teach", network="digits/1")
    answer = _when_over(ask)
    assert answer["phase"] == "done"
    assert 0 < answer["share"] <= 1
    assert answer["steps"][0]["label"] == "computing features"
    assert re.search(r"<b>75 %</b>.*± 10.*of 61 pictures", answer["score"], re.DOTALL)
    assert "label in doubt" in answer["results"]
    assert '<td class="tt-miss"' in answer["results"]
    assert "results" not in ask("status", has_results=True)
    assert 'class="tk-label">7<' in ask("try", file=sent(seven))["answer"]
    bundle = Path(ask("download", what="bundle")["path"])
    assert bundle.is_relative_to(upload_folder)
    with zipfile.ZipFile(bundle) as file:
        assert "taught/1/assets.extra/manifest.json" in file.namelist()
    assert Path(ask("download", what="report")["path"]).read_text() == "<h1>A report</h1>"


def test_a_closed_page_takes_everything_with_it(tab, ask, sent, digits_zip):
    ask("add_zip", file=sent(digits_zip))
    ask("teach", network="digits")
    _when_over(ask)
    given = Path(ask("download", what="bundle")["path"])
    tab.school.close("page")
    assert not given.exists()
    assert ask("status") == {"problem": "This visit has ended and its pictures are gone; reload the page."}


def test_what_was_taught_is_offered_by_the_other_tabs_to_its_teacher_alone(tab, ask, sent, digits_zip, seven):
    secret, stranger = ask.secret, EventData(None, {"secret": tab.school.open("stranger"), "where": "classify"})
    event = EventData(None, {"secret": secret, "where": "compare"})
    ask("add_zip", file=sent(digits_zip))
    ask("teach", network="digits")
    _when_over(ask)
    own, classify, inside, compare = tab.offer("digits/1", "digits/2", ["digits/2"], event)
    [(label, name)] = own
    assert re.fullmatch(r"yours/[\w-]{20,}/1", name)
    assert label == "yours/1: 0, 1, 2 …"  # of the network that stands for a taught one here
    assert [chooser.choices[0] for chooser in (classify, inside, compare)] == 3 * [(label, name)]
    assert (classify.value, inside.value, compare.value) == ("digits/1", "digits/2", ["digits/2"])
    to_compare, *_, chosen = tab.bring("digits/1", "digits/2", ["digits/2"], event)
    assert (to_compare.selected, chosen) == ("compare", [name, "digits/2"])
    classifier = tab._classifier
    assert Compare(classifier).open([], [], own)[0].value == [name, "digits/2"]
    answer = classifier.classify(seven.read_bytes(), name, "litert")
    assert (answer.bundle, answer.predictions[0].label) == (name, "7")
    assert "classify, yours/1 on litert" in markup.answer_card(answer)
    assert name not in classifier.bundles()
    assert tab.offer("digits/1", "digits/1", [], stranger)[0]["__type__"] == "update"  # nothing
    for guessed in ("yours/x/1", "yours/1", "taught/1", name[:-1] + "2"):
        with pytest.raises(UserError, match=r"your network is gone|unknown bundle"):
            classifier.directory(guessed)
    ask("teach", network="digits")
    _when_over(ask)
    with pytest.raises(UserError, match="your network is gone: it was taught anew, or its page was closed"):
        classifier.directory(name)
    renewed = tab.offer(name, "digits/2", [name, "digits/2"], event)
    assert renewed[1].value == renewed[0][0][1] == name[:-1] + "2"
    assert renewed[3].value == [name[:-1] + "2", "digits/2"]
    tab.school.close("page")
    with pytest.raises(UserError, match="your network is gone"):
        classifier.predictor(name[:-1] + "2", "litert")


def test_a_full_server_teaches_nobody(tab, ask, sent, digits_zip):
    ask("add_zip", file=sent(digits_zip))
    tab._quota.num_bytes = 1000
    said = "This server's room for visitors' files, 0 MB, is full; try again in a few minutes."
    assert ask("teach", network="digits")["problem"] == said
    assert ask("add_zip", file=sent(digits_zip))["problem"] == said


def test_what_is_wrong_with_each_picture_is_told_and_the_others_are_taken(ask, sent, bad_files, seven):
    number = ask("open")["collection"]["classes"][0]["id"]
    files = [sent(bad_files["text"]), sent(bad_files["truncated"]), sent(seven), sent(bad_files["huge"])]
    answer = ask("add", files=[file | {"class": number} for file in files])
    assert len(answer["collection"]["classes"][0]["pictures"]) == 1
    assert [problem.split(":")[0] for problem in answer["problems"]] == ["letter.jpg", "truncated.jpg", "huge.png"]
    assert "not a picture in a supported format" in answer["problems"][0]


@pytest.mark.parametrize(
    "request_",
    [
        None,
        {},
        {"do": "__class__"},
        {"do": "add", "files": "x"},
        {"do": "add", "files": [{"path": "/etc/passwd", "class": 1}, None, 7]},
        {"do": "add_zip", "file": {"path": "/etc/passwd"}},
        {"do": "rename", "class": "1", "name": None},
        {"do": "remove", "picture": 99},
        {"do": "move", "picture": 1, "class": [1]},
        {"do": "teach", "network": "../../etc"},
        {"do": "try", "file": {"path": "\0"}},
        {"do": "download"},
        {"do": "status", "secret": "another's"},
    ],
)
def test_what_strangers_send_is_answered_in_a_sentence(tab, request_):
    secret = tab.school.open("stranger")
    answer = tab.ask({"secret": secret, **request_} if isinstance(request_, dict) else request_)
    said = " ".join([answer.get("problem", ""), *answer.get("problems", []), answer.get("answer", "")])
    assert "Something went wrong" not in said
    assert "root:" not in json.dumps(answer)


def test_names_of_any_kind_stay_text(bundles):
    name = "<b>${x}</b>"
    judged = {"classes": [name, "b"], "accuracy": 0.5, "standard_error": None, "n": 2, "matrix": [[0, 1], [0, 1]]}
    judged["mistakes"] = [{"file": "000001.png", "is": name, "called": "b", "sure": 0.9, "margin": 0.1}]
    written = parts.results(judged, lambda _: 1, lambda _: "data:,")
    assert "<b>$" not in written
    assert "&lt;b&gt;&#36;&#123;x&#125;" in written
    assert "<b>50 %</b> right" in parts.score(judged)
    assert "not measured" in parts.score(judged | {"accuracy": None})
    assert "No mistakes" in parts.results(judged | {"matrix": [[1, 0], [0, 1]], "mistakes": []}, lambda _: 1, str)


def test_networks_to_start_from_are_those_at_hand_and_the_best_comes_first(bundles, tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    classifier = Classifier(bundles)
    starts = find_starts(classifier)
    assert [start.name for start in starts] == ["digits/2", "digits/1"]
    assert parts.start_title(starts[0]) == "digits/2, for letters and drawings"
    advice = parts.advice(starts[0])
    assert "photographs are hard for it" in advice
    assert "taught to tell 10 classes apart" in advice
    colour = replace(starts[0].preprocessing, channel_order="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
    assert "little detail" in parts.advice(replace(starts[0], preprocessing=colour))
    weights = model_info("googlenet").weights["imagenet"]
    cached_path(weights).parent.mkdir(parents=True)
    cached_path(weights).touch()
    published, *others = find_starts(classifier)
    assert others == starts
    assert (published.name, published.backbone) == (
        "googlenet",
        Backbone(network="googlenet", weights=cached_path(weights)),
    )
    assert parts.start_title(published) == "googlenet, for photographs"
    assert parts.advice(published) == (
        "GoogLeNet with 6,998,552 parameters sees 224 × 224 pixels in colour, and was taught to tell 1,000 classes "
        "apart (69 % right). Good for photographs."
    )


@pytest.mark.parametrize("how", ["quick", pytest.param("real", marks=pytest.mark.slow)])
def test_a_program_sends_a_zip_and_gets_the_accuracy_and_the_bundle(how, served, digits_zip, request, upload_folder):
    from gradio_client import Client, handle_file

    request.getfixturevalue("monkeypatch").setenv("GRADIO_HEARTBEAT_INTERVAL", "0.2")  # when a program's end is noticed
    if how == "quick":
        request.getfixturevalue("quick_lessons")
    client = Client(served, verbose=False)
    taught, bundle = client.predict(handle_file(digits_zip), "digits/1", api_name="/teach")
    assert taught["classes"] == ["3", "5", "8"]
    assert taught["network"] == "digits/1"
    assert taught["accuracy"] > 0.7
    with zipfile.ZipFile(bundle) as file:
        assert "taught/1/assets.extra/manifest.json" in file.namelist()
        labels = file.read("taught/1/assets/labels.txt").decode().split()
    assert how == "quick" or labels == ["3", "5", "8"]
    described = client.view_api(return_format="dict")["named_endpoints"]["/teach"]
    assert [parameter["label"] for parameter in described["parameters"]] == ["pictures", "network"]
    client.close()
    for _ in range(400):  # of the program's bundle, nothing stays either
        if not list(upload_folder.rglob("taught.zip")):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the bundle is still among the uploads")


def test_a_program_that_sends_no_zip_is_told_in_one_line(client, bad_files):
    from gradio_client import handle_file

    with pytest.raises(Exception, match=r"letter\.jpg: not a zip file; expected one with a folder of pictures"):
        client.predict(handle_file(bad_files["text"]), "", api_name="/teach")
