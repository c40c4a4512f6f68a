"""Exporting several bundles as one from the command line."""

import json
import shutil
from argparse import Namespace

import pytest

import toolkit.ensemble.export
from toolkit.bundle import picture_digests, read_manifest, write_manifest, write_pictures
from toolkit.cli.commands import bundles as commands
from toolkit.workflows.ensemble import ensemble_bundles
from toolkit.workflows.steps import ExportOptions


@pytest.mark.parametrize(
    ("taught", "chose", "judging", "validation", "subset"),
    [
        (30, 4, range(34, 40), range(30, 34), "unseen"),
        (30, 0, range(30, 40), range(30, 40), "unseen"),
        (30, 10, range(30, 40), range(30, 40), "val"),
        (40, 0, range(40), None, None),
    ],
)
def test_what_taught_a_member_does_not_measure_the_ensemble(
    bundle, bundle_copy, few, tmp_path, monkeypatch, taught, chose, judging, validation, subset
):
    """Of members that were taught half of it each."""
    paths = sorted(few.rglob("*.png"))
    digests = picture_digests(paths)
    members = [bundle_copy, shutil.copytree(bundle, tmp_path / "other" / "1")]
    for number, member in enumerate(members):
        own = {"train": digests[number:taught:2], "val": digests[taught : taught + chose]}
        write_pictures(member, own)
        write_manifest(member, read_manifest(member))
    asked = {}
    monkeypatch.setattr(toolkit.ensemble.export, "same_network", lambda *_: "")
    monkeypatch.setattr(toolkit.ensemble.export, "export_ensemble", lambda *_, **given: asked.update(given) or bundle)
    result = ensemble_bundles(members, export=ExportOptions(tmp_path / "both"), data=few)
    held_out = asked["held_out"]
    assert list(held_out.evaluation.paths) == [str(paths[index]) for index in judging]
    found = None if held_out.validation is None else list(held_out.validation.paths)
    assert found == (None if validation is None else [str(paths[index]) for index in validation])
    assert (held_out.taught, result["metrics"].get("subset")) == (subset is None, subset)


def test_command_measures_on_held_out_pictures_and_fits_the_threshold_on_validation(
    bundle, digits, digits_split, tmp_path, monkeypatch, capsys
):
    asked = {}

    def export(bundles, directory, **options):
        asked.update(options, bundles=bundles, directory=directory)
        return bundle  # any finished bundle

    monkeypatch.setattr(toolkit.ensemble.export, "export_ensemble", export)
    options = {"crops": 10, "scales": [32, 40], "examples": 1, "force": False, "skip_bad": False}
    as_json, as_text = options | {"json": True}, options | {"json": False}
    commands.ensemble(Namespace(bundles=[bundle], out=tmp_path / "both", data=digits, **as_json))
    assert (asked["bundles"], asked["directory"]) == ([bundle], tmp_path / "both")
    assert (asked["crops"], asked["scales"], asked["held_out"].num_examples) == (10, [32, 40], 1)
    assert sorted(asked["held_out"].evaluation.paths) == sorted(digits_split.test.paths)
    assert sorted(asked["held_out"].validation.paths) == sorted(digits_split.val.paths)
    report = json.loads(capsys.readouterr().out)
    assert type(report["metrics"]["n"]) is int
    assert (report["bundle"], report["metrics"]["subset"], report["scales"]) == (str(bundle), "test", [32, 40])
    commands.ensemble(Namespace(bundles=[bundle], out=tmp_path / "both", data=digits, **as_text))
    accuracy, path = capsys.readouterr().out.splitlines()
    assert accuracy.startswith(f"test accuracy: top-1 {100 * report['metrics']['top1']:.2f} %, top-5 ")
    assert path == str(bundle)
    commands.ensemble(Namespace(bundles=[bundle], out=tmp_path / "both", data=None, **as_json))
    assert asked["held_out"] is None
