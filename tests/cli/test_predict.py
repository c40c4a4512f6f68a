"""``toolkit predict`` over many pictures, some of them bad, in every form of output."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest
from forked import run_command
from PIL import Image

from toolkit.bundle import MANIFEST
from toolkit.cli import commands
from toolkit.cli.parser import build_parser

measuring = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def album(tmp_path_factory, digits_split):
    """Twelve digits, the seventh file in order damaged, a text beside them."""
    album = tmp_path_factory.mktemp("album") / "photos"
    album.mkdir()
    for index, path in enumerate(digits_split.test.paths[::30]):
        if index != 6:
            Image.open(path).save(album / f"{index:02}.png")
    (album / "06.png").write_bytes((album / "05.png").read_bytes()[:60])
    (album / "notes.txt").write_text("no picture")
    return album


def predict(bundle, *arguments, cwd, stdin=b""):
    return run_command("predict", bundle, *arguments, "--engine", "litert", cwd=cwd, stdin=stdin)


def test_the_others_are_answered_and_the_bad_one_is_named(bundle, album):
    text = predict(bundle, "photos", cwd=album.parent)
    assert text.returncode == 1
    assert [line.partition(":")[0] for line in text.stdout.splitlines()] == [
        f"photos/{index:02}.png" for index in range(12) if index != 6
    ]
    left_out, error = text.stderr.splitlines()
    assert left_out.startswith("left out: 1 not a picture (photos/")
    assert error.startswith("toolkit: error: photos/06.png: ")

    rows = json.loads(predict(bundle, "photos", "--json", cwd=album.parent).stdout)
    assert [row["path"] for row in rows] == [f"photos/{index:02}.png" for index in range(12)]
    assert [set(row) for row in rows[5:7]] == [{"path", "predictions", "rejected"}, {"path", "error"}]
    assert error == f"toolkit: error: photos/06.png: {rows[6]['error']}"

    table = predict(bundle, "photos", "--csv", "--top-k", 3, cwd=album.parent)
    assert table.returncode == 1
    lines = list(csv.DictReader(io.StringIO(table.stdout)))
    expected = [row for row in rows if "error" not in row]
    assert list(lines[0]) == [
        *("path", "label", "probability", "rejected", "label_2", "probability_2", "label_3", "probability_3")
    ]
    for line, row in zip(lines, expected, strict=True):
        assert line["path"] == row["path"]
        assert line["rejected"] == str(row["rejected"]).lower()
        assert [line[name] for name in ("label", "label_2", "label_3")] == [p["label"] for p in row["predictions"][:3]]
        assert float(line["probability"]) == pytest.approx(row["predictions"][0]["probability"])


def test_pictures_alone_are_answered_as_they_are_in_a_folder(bundle, album):
    rows = json.loads(predict(bundle, "photos", "--json", cwd=album.parent).stdout)
    for index in (0, 11):
        alone = predict(bundle, f"photos/{index:02}.png", "--json", cwd=album.parent)
        assert alone.returncode == 0
        [row] = json.loads(alone.stdout)
        assert [p["label"] for p in row["predictions"]] == [p["label"] for p in rows[index]["predictions"]]
        for own, other in zip(row["predictions"], rows[index]["predictions"], strict=True):
            assert own["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_mixed_inputs_and_a_list_on_standard_input(bundle, album):
    given = ("photos/03.png", "photos/1*.png", "-", "gone.png")
    answer = predict(bundle, *given, "--json", cwd=album.parent, stdin=b"photos/00.png\0photos/01.png\0")
    assert answer.returncode == 1
    names = [row["path"].removeprefix("photos/") for row in json.loads(answer.stdout)]
    assert names == ["03.png", "10.png", "11.png", "00.png", "01.png", "gone.png"]
    assert answer.stderr == "toolkit: error: gone.png: no such file\n"


@pytest.mark.parametrize("form", [(), ("--json",), ("--csv",)])
def test_nothing_answered_is_one_line_and_exit_status_2(bundle, album, form):
    for given, count in ((["photos/06.png"], 0), (["photos/06.png", "photos/notes.txt"], 1)):
        answer = predict(bundle, *given, *form, cwd=album.parent)
        assert (answer.returncode, answer.stdout) == (2, "")
        [line] = answer.stderr.splitlines()
        assert line.startswith("toolkit: error: photos/06.png: ")
        assert line.endswith("(and 1 more that cannot be answered)") == bool(count)


def test_hostile_names_stay_on_one_line_and_in_valid_json(bundle, album, tmp_path):
    content = (album / "00.png").read_bytes()
    for name in (b"two\nlines.png", b"caf\xe9.png", b"\x1b[31mred.png", "犬 ü.png".encode(), b"-x.png"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(content)
    for option in ([], ["--verbose"]):
        answer = predict(bundle, ".", *option, cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
        assert [line.partition(": ")[0] for line in answer.stdout.splitlines() if line.startswith("./")] == [
            *("./\\x1b[31mred.png", "./-x.png", "./caf\\xe9.png", "./two\\nlines.png", "./犬 ü.png")
        ]
    rows = json.loads(predict(bundle, ".", "--json", cwd=tmp_path).stdout)
    assert {os.fsencode(row["path"])[2:] for row in rows} == set(os.listdir(os.fsencode(tmp_path)))
    lines = csv.reader(io.StringIO(predict(bundle, ".", "--csv", cwd=tmp_path).stdout))
    assert "./two\nlines.png" in {line[0] for line in lines}
    bad = predict(bundle, "gone\nfor ever.png", cwd=tmp_path)
    assert bad.stderr == "toolkit: error: gone\\nfor ever.png: no such file\n"


SCRIPT = """
import resource, sys
from toolkit.cli import main
try: code = main(sys.argv[1:])
except SystemExit as error: code = error.code
usage = resource.getrusage(resource.RUSAGE_SELF)
frameworks = {"tensorflow", "keras"} & set(sys.modules)
# Not ru_maxrss, which begins with what the process that started this one took.
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(code, len(sys.modules), usage.ru_utime + usage.ru_stime, int(peak) >> 10, *frameworks)
"""


def measured(*arguments, cwd, stdin=b""):
    """Exit status, imported modules, seconds of processor time, MiB at most, frameworks; and stderr."""
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, cwd=cwd, check=True)
    code, modules, seconds, mebibytes, *frameworks = done.stdout.splitlines()[-1].decode().split()
    return int(code), int(modules), float(seconds), int(mebibytes), frameworks, done.stderr.decode()


@measuring
@pytest.mark.parametrize("engine", ["auto", "litert", "litert-int8", "openvino", "openvino-int8"])
def test_one_picture_needs_no_framework_little_time_and_little_memory(bundle, album, engine):
    pytest.importorskip("openvino")
    code, modules, seconds, mebibytes, frameworks, _ = measured(
        "predict", bundle, album / "00.png", "--engine", engine, cwd=album
    )
    assert code == 0
    assert frameworks == []
    assert modules < 800  # with TensorFlow there are 4,500
    assert seconds < 1.5
    assert mebibytes < 250


@measuring
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "x.jpg"), "nowhere: no such bundle"),
        (("BUNDLE", "nowhere.jpg"), "nowhere.jpg: no such file"),
        (("BUNDLE", "https://a.org/x.jpg"), "nothing is downloaded"),
        (("BUNDLE", "00.png", "--engine", "foo"), "unknown engine 'foo'"),
        (("BUNDLE", "00.png", "--crops", "7"), "7 crops"),
        (("BUNDLE", "00.png", "--top-k", "0"), "--top-k"),
        (("BUNDLE", "00.png", "--with", "nowhere"), "nowhere: no such bundle"),
    ],
)
def test_mistakes_are_told_before_anything_heavy_is_imported(bundle, album, arguments, message):
    given = [bundle if argument == "BUNDLE" else argument for argument in arguments]
    code, modules, seconds, _, frameworks, stderr = measured("predict", *given, cwd=album)
    assert code == 2
    assert message in stderr.splitlines()[-1]
    assert frameworks == []
    assert modules < 520  # the engines alone bring more
    assert seconds < 1  # on a slow machine


@measuring
def test_memory_does_not_grow_with_the_number_of_pictures(bundle, album):
    def peak(count):
        listed = b"05.png\n" * count
        code, *_, mebibytes, _, _ = measured("predict", bundle, "-", "--engine", "litert", cwd=album, stdin=listed)
        assert code == 0
        return mebibytes

    assert peak(3000) < peak(100) + 8


def test_output_closed_early_is_no_error(bundle, album):
    command = f"{sys.executable} -m toolkit predict {bundle} --engine litert - | head -1"
    done = subprocess.run(command, input=b"05.png\n" * 2000, shell=True, cwd=album, capture_output=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == b""


def test_labels_of_any_characters_stay_on_one_line(bundle_copy, album):
    labels = ["two\nlines", "$5_to_$10", 'a,"b"', "\x1b[31m", "犬", *"56789"]
    manifest = bundle_copy / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"labels": labels}))
    text = predict(bundle_copy, "photos/00.png", "--top-k", 10, cwd=album.parent)
    [line] = text.stdout.splitlines()
    for shown in ("two\\nlines ", "$5_to_$10 ", 'a,"b" ', "\\x1b[31m ", "犬 "):
        assert shown in line
    [row] = json.loads(predict(bundle_copy, "photos/00.png", "--top-k", 10, "--json", cwd=album.parent).stdout)
    assert {prediction["label"] for prediction in row["predictions"]} == set(labels)
    table = predict(bundle_copy, "photos/00.png", "--top-k", 10, "--csv", cwd=album.parent).stdout
    [_, cells] = csv.reader(io.StringIO(table))
    assert set(labels) <= set(cells)


def test_progress_counts_pictures(bundle, album, told, capsys):
    with pytest.raises(SystemExit, match="1"):
        commands.predict(build_parser().parse_args(["predict", str(bundle), str(album), "--engine", "litert"]))
    assert [done for label, done, _ in told if label == "classifying"] == list(range(1, 13))
    assert told[-1] == ("classifying", 12, 12)
    assert len(capsys.readouterr().out.splitlines()) == 11
