"""A network whose features are all cached is not built before its head has been fitted."""

import sys

import keras
import numpy as np
import pytest
from networks import small_residual

from toolkit.data.feed.split import Split, Subset
from toolkit.errors import UserError
from toolkit.spec import Preprocessing
from toolkit.transfer import Extraction, FinetuneOptions, HeadOptions, Network, finetune, fit_head

PREPROCESSING = Preprocessing(size=(32, 32))


@pytest.fixture
def split(digits_folder):
    paths = [str(digits_folder.root / path) for path in digits_folder.paths[::45]]
    labels = [label % 3 for label in digits_folder.labels[::45]]
    return Split(*(Subset(tuple(paths[i::2]), tuple(labels[i::2])) for i in range(2)), Subset((), ()))


@pytest.fixture
def run(split, tmp_path, monkeypatch):
    """Fine-tune from a weights file; answers the result and what happened, in order."""
    module = sys.modules[finetune.__module__]  # of the package, the function hides the module

    def run(build=small_residual, *, content="weights"):
        (tmp_path / "file").write_text(content)
        events = []

        def told_build():
            events.append("built")
            return build(), PREPROCESSING

        def told_fit(*arguments, **keywords):
            events.append("fitted")
            return fit_head(*arguments, **keywords)

        monkeypatch.setattr(module, "fit_head", told_fit)
        network = Network(told_build, num_classes=3, weights=tmp_path / "file", description="small")
        options = FinetuneOptions(
            unfreeze="none", head=HeadOptions("ridge"), extraction=Extraction(dtype="float32", engine="keras")
        )
        return finetune(network, split, cache_dir=tmp_path / "cache", options=options), events

    return run


def kernel(result):
    return keras.ops.convert_to_numpy(result.model.layers[-1].kernel)


def test_repetition_fits_its_head_before_the_network_is_built(run):
    first, events = run()
    assert events == ["built", "fitted"]
    again, events = run()
    assert events == ["fitted", "built"]
    assert again.num_computed == 0
    np.testing.assert_array_equal(kernel(again), kernel(first))
    assert again.plan == first.plan
    assert again.val_accuracy == first.val_accuracy


def test_other_weights_are_another_network(run):
    run()
    assert run(content="other weights")[1] == ["built", "fitted"]


def test_network_that_is_no_longer_built_as_it_was_is_looked_at_again(run):
    run()

    def changed():
        model = small_residual()
        layer = model.get_layer("stage1_conv")
        layer.kernel.assign(2 * layer.kernel)
        return model

    result, events = run(changed)
    assert events == ["fitted", "built", "fitted"]
    assert result.num_computed == 40
    assert run(changed)[1] == ["fitted", "built"]


def test_missing_features_build_it_first(run, split, digits_folder, tmp_path):
    run()
    added = str(digits_folder.root / digits_folder.paths[7])
    network = Network(
        lambda: (small_residual(), PREPROCESSING), num_classes=3, weights=tmp_path / "file", description="small"
    )
    train = Subset((*split.train.paths, added), (*split.train.labels, 0))
    how = Extraction(dtype="float32", engine="keras")
    options = FinetuneOptions(unfreeze="none", extraction=how)
    result = finetune(network, Split(train, split.val, split.test), cache_dir=tmp_path / "cache", options=options)
    assert result.num_computed == 1


def test_model_without_preprocessing_is_said(split, tmp_path):
    with pytest.raises(UserError, match="does not say how its pictures are prepared"):
        finetune(small_residual(), split, cache_dir=tmp_path / "cache")
