"""``toolkit predict --server``."""

import json

import pytest

from toolkit.cli import commands
from toolkit.cli.parser import build_parser
from toolkit.errors import UserError
from toolkit.inference import Predictor


def ask(*arguments):
    commands.predict(build_parser().parse_args(["predict", *map(str, arguments)]))


def test_a_served_bundle_answers_as_the_same_bundle_here(server, bundle, digits_split, tmp_path, capsys):
    paths = digits_split.test.paths[:40]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(SystemExit) as ended:
        ask("digits/1", *paths, tmp_path / "broken.png", "--server", server, "--json", "--top-k", 2)
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    *rows, broken = json.loads(out)
    expected = Predictor.load(bundle)
    assert [row["predictions"][0]["label"] for row in rows] == [row[0].label for row in expected.predict(paths)]
    assert {len(row["predictions"]) for row in rows} == {2}
    assert [row["rejected"] for row in rows] == [expected.is_rejected(answer) for answer in expected.answers(paths)]
    assert "picture" in broken["error"]
    assert err.startswith(f"toolkit: error: {tmp_path}/broken.png: ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["saved_models/digits/1"], "expected the name of a bundle that it serves: NAME, NAME/VERSION or NAME/LABEL"),
        (["digits", "--engine", "litert"], "--engine has no effect on a server"),
        (["digits", "--crops", 5], "--crops has no effect on a server"),
        (["nope"], "404, Servable not found for request: Latest(nope)"),
    ],
)
def test_what_a_server_cannot_be_asked_is_one_line(server, given, message, digits_split, capsys):
    bundle, *options = given
    with pytest.raises(UserError) as told:
        ask(bundle, digits_split.test.paths[0], "--server", server, *options)
    assert message in str(told.value)
    assert capsys.readouterr().out == ""
