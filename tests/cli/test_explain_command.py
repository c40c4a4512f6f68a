"""``toolkit explain``: of a bundle and a picture, in words, as JSON, and as PNG."""

import json
from pathlib import Path

import pytest
from forked import run_command
from PIL import Image

import toolkit


def run(*arguments):
    result = run_command(*arguments, cwd=Path.cwd())
    return result.returncode, result.stdout, result.stderr


@pytest.fixture
def digit(digits_split):
    return digits_split.test.paths[0]


def test_words_and_a_drawing(bundle, digit, tmp_path):
    file, classes = tmp_path / "out.png", ("--class", "3", "--class", "8")
    status, out, _ = run("explain", bundle, digit, "--out", file, *classes)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("answer: ")
    assert "all of it" in lines[1]
    assert lines[2].startswith("for 3 against all others")
    assert "original network in float32" in out
    assert lines[-1] == f"drawn to {file}"
    with Image.open(file) as image:
        assert image.width > image.height > 100


def test_json(bundle, digit):
    status, out, _ = run("explain", bundle, digit, "--json", "--method", "occlusion")
    document = json.loads(out)
    assert status == 0
    assert document["heat_maps"][0]["label"] == document["predictions"][0]["label"]
    assert document["heat_maps"][0]["method"] == "occlusion"
    assert document["network"] == "original, float32"


@pytest.mark.parametrize("name", ["resnet18-thin", "resnet20-cifar10"])  # of one that is unlike, of one that is unsure
def test_none_of_these_where_the_bundle_predicts_so(name, tmp_path):
    toolkit.samples("photographs", tmp_path / "photographs")
    pictures = sorted((tmp_path / "photographs").glob("*.jpg"))
    predicted = [(row["rejected"], row.get("reason")) for row in toolkit.predict(name, pictures)]
    assert any(rejected for rejected, _ in predicted)
    for picture, (rejected, reason) in zip(pictures, predicted, strict=True):
        explained = toolkit.explain(name, picture)
        assert explained["rejected"] == rejected
        assert explained["reason"] == (("unsure" if rejected else "") if reason is None else reason)
        assert explained.words[0].startswith("answer: none of these (") == rejected
        assert ("unlike the pictures of every class" in explained.words[0]) == (reason == "unfamiliar")


@pytest.mark.parametrize("shown", ["features", "filters", "statistics"])
def test_what_is_inside(bundle, digit, tmp_path, shown):
    out = [] if shown == "statistics" else ["--out", tmp_path / "sheet.png"]
    status, text, _ = run("explain", bundle, digit, "--show", shown, *out)
    assert status == 0
    assert "stage2_conv" in text if shown == "statistics" else (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class", "11"], "unknown class '11'"),
        (["--method", "gradcam"], "did you mean 'grad-cam'"),
        (["--stage", "stage7"], "unknown stage 'stage7'; did you mean"),
        (["--out", "x.jpg"], "ends in .png"),
        (["--out", "gone/x.png"], "no such folder"),
        (["--show", "features"], "name a file by --out"),
        (["--show", "features", "--class", "3"], "--class, --against and --method are for --show map"),
        (["--show", "statistics", "--stage", "stage2"], "--stage is for --show map and features"),
        (["--show", "statistics", "--out", "x.png"], "statistics is a table"),
        (["--weights", "imagenet"], "brings its own weights"),
        (["--labels", "gone.txt"], "gone.txt: no such file"),
        (["--preprocessing", "none"], "knows its preprocessing"),
    ],
)
def test_mistakes_are_one_line(bundle, digit, arguments, message):
    status, out, err = run("explain", bundle, digit, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_what_is_no_picture_or_no_network(bundle, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for arguments, message in (
        (["explain", bundle, tmp_path / "text.png"], "not a picture in a supported format"),
        (["explain", bundle, tmp_path], "a folder"),
        (["explain", "lenet6", tmp_path / "text.png"], "no such bundle, file or network"),
        (["explain", bundle], "is of a picture"),
    ):
        status, _, err = run(*arguments)
        assert status == 2
        assert message in err.splitlines()[-1]
