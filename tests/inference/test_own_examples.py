import json
import shutil
from dataclasses import replace

import pytest

from toolkit.bundle import EXAMPLE_LABELS, EXAMPLES, read_manifest, write_manifest
from toolkit.cli import commands
from toolkit.cli.parser import build_parser
from toolkit.errors import UserError
from toolkit.inference.examples import answer_examples


def test_examples_are_answered_beside_their_true_labels(bundle):
    report = answer_examples(bundle, "litert")
    assert (report["bundle"], report["engine"]) == (str(bundle), "litert")
    assert [row["true_label"] for row in report["rows"]] == ["0", "1", "2"]
    assert [row["label"] for row in report["rows"]] == ["0", "1", "2"]
    assert not any(row["rejected"] for row in report["rows"])


def test_the_command_says_which_answers_are_wrong_or_refused(bundle_copy, capsys):
    rows = json.loads((bundle_copy / EXAMPLE_LABELS).read_text())
    rows[1]["label"] = "9"
    (bundle_copy / EXAMPLE_LABELS).write_text(json.dumps(rows))
    arguments = build_parser().parse_args(["bundles", "examples", str(bundle_copy), "--engine", "litert"])
    commands.manage_bundles(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[2:5]] == ["right", "wrong", "right"]
    assert lines[-1] == "2 of 3 right"
    write_manifest(bundle_copy, replace(read_manifest(bundle_copy), reject_below=1.0))
    commands.manage_bundles(arguments)
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[2:5]] == ["refused"] * 3


def test_a_bundle_without_examples_says_how_to_get_some(bundle_copy):
    shutil.rmtree(bundle_copy / EXAMPLES)
    with pytest.raises(UserError, match=r"brings no example pictures; export it with --examples N$"):
        answer_examples(bundle_copy)
