"""Two bundles of the same labels, an ensemble of them, and pictures with their answers by hand."""

import keras
import numpy as np
import pytest

from toolkit import Predictor, create_model
from toolkit.data.feed.split import Subset
from toolkit.ensemble.crops import plan_crops
from toolkit.ensemble.cut import decode_crops
from toolkit.ensemble.export import HeldOut, export_ensemble
from toolkit.export import export_bundle
from toolkit.spec import Preprocessing

MARGIN = Preprocessing(size=(24, 24), crop_fraction=0.75, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """A bundle of the same labels that differs in network, input size, colour and margin."""
    keras.utils.set_random_seed(3)
    model = create_model("mlp", num_classes=10, input_shape=(24, 24, 3))
    return export_bundle(
        model, tmp_path_factory.mktemp("other") / "mlp", labels=tuple("0123456789"), preprocessing=MARGIN
    )


def _part(subset: Subset, step: int) -> Subset:
    return Subset(subset.paths[::step], subset.labels[::step])


@pytest.fixture(scope="session")
def ensemble(tmp_path_factory, bundle, other, digits_split):
    return export_ensemble(
        [bundle, other],
        tmp_path_factory.mktemp("ensembles") / "both",
        crops=10,
        held_out=HeldOut(_part(digits_split.test, 6), _part(digits_split.val, 6), num_examples=2),
    )


@pytest.fixture(scope="session")
def expected(bundle, other, jpegs):
    """The mean by hand, from the members' own bundles and crops cut on the host."""
    members = []
    for member in (Predictor.load(bundle, "litert"), Predictor.load(other, "litert")):
        preprocessing = member.manifest.preprocessing
        plan = plan_crops(preprocessing, 10)
        members.append([member.from_pixels(decode_crops(data, preprocessing, plan)).mean(axis=0) for data in jpegs])
    return np.mean(members, axis=0)
