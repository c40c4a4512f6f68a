"""Exporting several bundles as one from the command line."""

import json
from argparse import Namespace

import toolkit.ensemble.export
from toolkit.cli.commands import bundles as commands


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
