"""Writing an ensemble: what its manifest says, and what is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import toolkit.ensemble.export
from toolkit import Predictor
from toolkit.bundle import read_manifest, verify_files, write_manifest
from toolkit.data.feed.split import Subset
from toolkit.ensemble.export import HeldOut, _measured, export_ensemble
from toolkit.errors import UserError
from toolkit.export import ParityError
from toolkit.metrics import reject_threshold


def part(subset: Subset, step: int) -> Subset:
    return Subset(subset.paths[::step], subset.labels[::step])


def test_manifest_says_what_is_in_it_and_how_good_it_is(ensemble, bundle, other, digits_split):
    manifest, parts = read_manifest(ensemble), [read_manifest(bundle), read_manifest(other)]
    verify_files(ensemble, manifest)
    assert [member.name for member in manifest.members] == ["digits/1", "mlp/1"]
    assert [member.weights_digest for member in manifest.members] == [part.weights_digest for part in parts]
    assert [member.preprocessing for member in manifest.members] == [part.preprocessing for part in parts]
    assert (manifest.name, manifest.model, manifest.crops) == ("both", "lenet5 + mlp, 10 views", 10)
    assert manifest.num_params == sum(part.num_params for part in parts)
    assert manifest.parity["savedmodel"] < 1e-4
    assert manifest.forced == ()
    assert len(list((ensemble / "assets.extra/examples").iterdir())) == 2
    predictor, test, val = Predictor.load(ensemble), part(digits_split.test, 6), part(digits_split.val, 6)
    right = predictor.probabilities(test.paths).argmax(axis=1) == test.labels
    assert (manifest.metrics["top1"], manifest.metrics["n"]) == (pytest.approx(right.mean()), len(test))
    assert (manifest.rejection.answered[0], manifest.rejection.right[0]) == (len(test), right.sum())
    threshold = reject_threshold(predictor.probabilities(val.paths), np.asarray(val.labels))
    assert manifest.reject_below == predictor.reject_below == pytest.approx(threshold, abs=1e-4)


def test_pictures_that_taught_the_members_measure_nothing(digits_split):
    assert _measured(None, tuple("0123456789"), HeldOut(part(digits_split.test, 6), taught=True)) == {}


def test_members_that_do_not_fit_are_refused_and_nothing_is_left(bundle, bundle_copy, other, tmp_path):
    same = shutil.copytree(bundle, tmp_path / "same" / "1")
    write_manifest(bundle_copy, replace(read_manifest(bundle_copy), labels=tuple("1023456789")))
    with pytest.raises(UserError, match=r"cannot be averaged with .*: it has the same labels in another order"):
        export_ensemble([bundle, bundle_copy], tmp_path / "out" / "both")
    with pytest.raises(UserError, match=r"has the same network as .*/digits/1 \(equal weights\)"):
        export_ensemble([bundle, same], tmp_path / "out" / "both")
    with pytest.raises(
        UserError, match="scale 30 is smaller than the 32 × 32 pixels the network sees; give 32 or more"
    ):
        export_ensemble([bundle, other], tmp_path / "out" / "both", scales=(30,))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_graph_that_cuts_other_crops_is_not_published(bundle, tmp_path, monkeypatch):
    plain = toolkit.ensemble.export.Ensemble.decode_all

    def shifted(self, sources):
        return tuple(np.roll(crops, 1, axis=3) for crops in plain(self, sources))

    monkeypatch.setattr(toolkit.ensemble.export.Ensemble, "decode_all", shifted)
    with pytest.raises(
        ParityError, match="not written, its engines disagree: savedmodel cuts other crops than the host"
    ):
        export_ensemble([bundle], tmp_path / "out")
    assert not (tmp_path / "out").exists()
