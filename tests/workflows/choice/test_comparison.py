"""The best network of several, chosen on a sample of the pictures."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from toolkit import create_model
from toolkit.cli import main
from toolkit.errors import UserError
from toolkit.factory import save_weights
from toolkit.workflows.choice import comparison
from toolkit.workflows.choice.comparison import (
    ComparedNetwork,
    Limits,
    _choose,
    _sample,
    comparison_lines,
    fit_best,
)
from toolkit.workflows.finetune import FolderOptions
from toolkit.workflows.steps import ExportOptions


def compared(*rows):
    return [ComparedNetwork(name, "imagenet", mb, ms, accuracy, 0.02) for name, accuracy, ms, mb in rows]


def name_of_chosen(*rows):
    (name,) = [own.name for own in _choose(compared(*rows)) if own.chosen]
    return name


def test_cheapest_within_one_standard_error_of_the_best_is_chosen():
    assert name_of_chosen(("large", 0.90, 50.0, 100.0), ("small", 0.89, 5.0, 10.0), ("tiny", 0.80, 1.0, 1.0)) == "small"
    assert name_of_chosen(("large", 0.90, 50.0, 100.0), ("small", 0.87, 5.0, 10.0)) == "large"
    assert name_of_chosen(("one", 0.9, 5.0, 20.0), ("other", 0.9, 5.0, 10.0)) == "other"


def test_what_cannot_be_chosen_is_said():
    out = ComparedNetwork("large", "imagenet", 100.0, excluded="over 50 MB")
    with pytest.raises(UserError, match=r"no network can be chosen \(large: over 50 MB\); raise the limits"):
        _choose([out])
    found = _choose([out, *compared(("small", 0.5, 5.0, 10.0))])
    lines = comparison_lines(found)
    assert [line.split()[0] for line in lines] == ["network", "small", "large"]
    assert lines[1].endswith("50.0 ± 2.0 %           5.0    10.0  chosen")
    assert lines[2].endswith("over 50 MB")
    with pytest.raises(UserError, match="too few pictures"):
        _choose([ComparedNetwork("only", "imagenet", 1.0, 1.0)])


def test_sample_has_some_of_every_class_in_proportion():
    labels = np.repeat([0, 1, 2], [3000, 600, 3])
    counts = np.bincount(labels[_sample(labels)])
    assert counts.tolist() == [250, 50, 3]
    assert len(_sample(np.arange(20))) == 20


@pytest.fixture(scope="module")
def home(few, tmp_path_factory):
    """Files of three small networks, the last of them damaged."""
    home = tmp_path_factory.mktemp("networks")
    for name in ("lenet5", "resnet20"):
        save_weights(create_model(name), home / f"{name}.safetensors")
    (home / "resnet32.safetensors").write_bytes(b"nothing")
    return home


def finetuned(few, home, limits):
    export = ExportOptions(home / "saved_models" / "best", formats=("savedmodel",))
    options = FolderOptions(cache_dir=home / "cache")
    return fit_best(few, (), weights=home, limits=limits, export=export, options=options).deliver(export)


def test_best_of_a_folder_of_weights_becomes_a_bundle(few, home, caplog, monkeypatch):
    view = "toolkit.workflows.finetune.whole_view"
    monkeypatch.setattr(view, lambda preprocessing: replace(preprocessing, crop_fraction=0.9))
    with caplog.at_level(logging.INFO, "toolkit"):
        result = finetuned(few, home, Limits())
    networks = {own["name"]: own for own in result["networks"]}
    assert set(networks) == {"lenet5", "resnet20"}
    assert [own["chosen"] for own in networks.values()].count(True) == 1
    assert all(own["milliseconds"] > 0 and own["accuracy"] > 0.5 for own in networks.values())
    assert 0.1 < networks["lenet5"]["megabytes"] < 0.3
    assert 0.9 < networks["resnet20"]["megabytes"] < 1.2
    assert result["bundle"].endswith("best/1")
    assert result["finetuning"]["num_computed"] == 0  # compared as they are fine-tuned: all features are at hand
    assert "left out resnet32" in caplog.text
    assert "accuracy, out of fold" in caplog.text


def test_limits_rule_networks_out(few, home, capfd):
    place = ["--out", str(home / "saved_models" / "small"), "--formats", "savedmodel", "--cache", str(home / "cache")]
    limit = ["--model", "auto", "--weights", str(home), "--max-mb", "0.5", "--json"]
    assert main(["finetune", str(few), *limit, *place]) == 0
    networks = {own["name"]: own for own in json.loads(capfd.readouterr().out)["networks"]}
    assert networks["lenet5"]["chosen"]
    assert (networks["resnet20"]["excluded"], networks["resnet20"]["accuracy"]) == ("over 0.5 MB", None)
    with pytest.raises(UserError, match="lenet5: over 1e-06 ms; resnet20: over 1e-06 ms"):
        finetuned(few, home, Limits(milliseconds=1e-6))


def test_report_without_a_place_is_refused_before_networks_are_compared(few, home, monkeypatch):
    monkeypatch.setattr(comparison, "compare_networks", None)
    options = FolderOptions(cache_dir=home / "cache", report=home / "gone" / "page.html")
    with pytest.raises(UserError, match="no such folder"):
        fit_best(few, (), weights=home, limits=Limits(), export=ExportOptions(home / "m" / "x"), options=options)


@pytest.mark.parametrize("limits", [{"milliseconds": 0.0}, {"megabytes": -1.0}, {"megabytes": float("nan")}])
def test_impossible_limits_are_refused(limits):
    with pytest.raises(UserError, match=r"--max-m. must be more than 0"):
        Limits(**limits)
