"""From pictures to a calibrated classifier: what trains, what stays, and that the parts make one network."""

import logging
import sys
import time

import keras
import numpy as np
import pytest
from networks import small_residual
from PIL import Image

from toolkit import create_model, model_info
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Split, Subset
from toolkit.data.pixels.decode import normalize
from toolkit.errors import UserError
from toolkit.metrics import reject_threshold, softmax
from toolkit.transfer import (
    AugmentedViews,
    Extraction,
    FinetuneOptions,
    HeadOptions,
    UnfrozenOptions,
    finetune,
)
from toolkit.transfer.heads.selection import SelectionOptions, select_head
from toolkit.transfer.stages import pooled_cuts, with_novelty

PREPROCESSING = model_info("resnet20").preprocessing


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """Three classes of noisy stripes: lying, standing, none."""
    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    wave = 60 * np.sin(np.arange(32))
    patterns = [wave[:, None] + np.zeros((1, 32)), wave[None] + np.zeros((32, 1)), np.zeros((32, 32))]
    paths, labels = [], []
    for index in range(90):
        pixels = 128 + patterns[index % 3][..., None] + rng.normal(0, 25, (32, 32, 3))
        paths.append(str(root / f"{index}.png"))
        labels.append(index % 3)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(paths[-1])
    return Split(
        Subset(tuple(paths[:60]), tuple(labels[:60])), Subset(tuple(paths[60:]), tuple(labels[60:])), Subset((), ())
    )


@pytest.fixture
def model():
    return small_residual()


@pytest.fixture
def run(stripes, tmp_path):
    def run(model, **options):
        options.setdefault("unfreeze", "none")
        return finetune(model, stripes, PREPROCESSING, cache_dir=tmp_path / "cache", options=FinetuneOptions(**options))

    return run


def logits_of(model, subset, preprocessing=PREPROCESSING):
    inputs = normalize(load_pixels(subset.paths, preprocessing), preprocessing)
    return keras.ops.convert_to_numpy(model(inputs, training=False))


def novelty_of(model, subset):
    """Of each picture, by a network whose second answer it is."""
    return logits_of(keras.Model(model.input, model.outputs[1]), subset).ravel()


def values(model):
    return {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.variables}


def moved(model, before):
    return {name.split("_")[0] for name, value in values(model).items() if not np.array_equal(value, before[name])}


@pytest.mark.parametrize(
    "head",
    [HeadOptions(), HeadOptions("ridge"), HeadOptions(hidden=(16, 8), strengths=(1.0,), epochs=40, learning_rate=0.01)],
)
def test_stitched_network_is_head_of_features_in_one_flat_graph(run, model, stripes, head):
    result = run(model, head=head, extraction=Extraction(dtype="float32", engine="keras"))
    flat = result.model
    assert not any(isinstance(layer, keras.Model) for layer in flat.layers)
    assert len({layer.name for layer in flat.layers}) == len(flat.layers)
    assert [layer.units for layer in flat.layers if isinstance(layer, keras.layers.Dense)] == [*head.hidden, 3]
    cuts = {cut.name: cut for cut in pooled_cuts(model)}
    chosen = result.selection.features
    taps = {name: keras.Model(model.input, cuts[name].pooled()) for name in chosen.cuts}
    features = {name: logits_of(tap, stripes.val) for name, tap in taps.items()}
    logits = logits_of(flat, stripes.val)
    expected = result.head.logits(chosen.join(features))
    np.testing.assert_allclose(logits, expected, atol=1e-5 * max(1, np.abs(logits).max()))
    accuracy = np.mean(logits.argmax(axis=1) == np.asarray(stripes.val.labels))
    assert abs(accuracy - result.accuracy) < 0.2
    assert accuracy > 0.8


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_classifier_with_hidden_layers_is_replaced_whole(run, model, hidden):
    deep = run(model, head=HeadOptions(hidden=(16, 8), strengths=(1.0,), epochs=2)).model
    again = run(deep, head=HeadOptions(hidden=hidden, strengths=(1.0,), epochs=2))
    assert again.num_computed == 0  # the pooled features before all hidden layers
    assert [layer.units for layer in again.model.layers if isinstance(layer, keras.layers.Dense)] == [*hidden, 3]
    assert again.model.layers[-1].name == "head_logits"


def test_network_saved_with_hidden_layers_is_a_backbone_for_others(tmp_path):
    keras.utils.set_random_seed(0)
    model = create_model("lenet5", num_classes=3)
    features = model.layers[-1].input
    x = keras.layers.Dense(5, activation="relu", name="head_hidden1")(features)
    deep = keras.Model(model.input, keras.layers.Dense(3, name="head_logits")(x), name="lenet5")
    deep.save(tmp_path / "deep.keras")
    for num_classes in (3, 4):
        again = create_model("lenet5", num_classes=num_classes, weights=tmp_path / "deep.keras")
        assert again.layers[-1].kernel.shape == (84, num_classes)
        for layer in again.layers[:-1]:
            for ours, theirs in zip(layer.get_weights(), deep.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match="the model lacks layer 'head_hidden1'"):
        create_model("lenet5", weights=tmp_path / "deep.keras")


def test_only_the_classifier_moves_and_a_repeat_computes_nothing(run, model):
    before = values(model)
    first = run(model)
    assert (first.num_computed, first.engine != "") == (60, True)
    assert moved(first.model, before) == {"head"}
    assert {layer.name for layer in first.model.layers if layer.trainable_weights} == {"head_logits"}
    again = run(model)
    assert (again.num_computed, again.engine) == (0, "")
    for ours, theirs in zip(first.head.layers[0], again.head.layers[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_probabilities_are_calibrated_in_the_weights_and_the_threshold_fits_them(run, model, stripes):
    result = run(model)
    judged = result.judged
    assert (judged.name, len(judged.subset)) == ("out-of-fold", 60)
    right = judged.probabilities.argmax(axis=1) == np.asarray(judged.subset.labels)
    assert right.mean() == result.accuracy
    assert np.mean(judged.probabilities.max(axis=1)[right] >= result.reject_below) >= 0.95
    probabilities = softmax(logits_of(result.model, stripes.val))
    labels = np.asarray(stripes.val.labels)
    assert abs(probabilities.max(axis=1).mean() - np.mean(probabilities.argmax(axis=1) == labels)) < 0.12
    document = result.as_document()
    assert document["temperature"] == result.temperature > 0
    assert document["selection"]["out_of_fold_accuracy"] == result.accuracy
    assert document["steps"] == [
        {
            "name": f"classifier on {result.selection.chosen}",
            "accuracy": result.accuracy,
            "subset": "out-of-fold",
            "kept": True,
        }
    ]


def test_every_training_picture_teaches_and_judges(run, model, stripes):
    result = run(model)
    assert result.split == stripes
    assert set(result.judged.subset.paths) == set(stripes.train.paths)
    assert result.judged.report(("a", "b", "c"))["n"] == 60


def test_views_are_tried_beside_the_plain_pictures(run, model):
    result = run(model, views=AugmentedViews(3))
    assert result.num_computed == 3 * 60
    assert {", 3 views" in trial.name for trial in result.selection.trials} == {False, True}


def test_one_picture_a_class_gives_a_classifier(stripes, model, tmp_path):
    labels = stripes.train.labels
    few = [labels.index(label) for label in range(3)]
    paths = tuple(stripes.train.paths[i] for i in few)
    split = Split(Subset(paths, (0, 1, 2)), Subset((), ()), Subset((), ()))
    result = finetune(model, split, PREPROCESSING, cache_dir=tmp_path / "cache")
    assert (result.accuracy, result.judged.report(("a", "b", "c"))) == (None, {})
    assert logits_of(result.model, split.train).argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("gradual", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_unfrozen_stages_train_on_cached_maps_and_only_they(run, model, stripes, gradual, told, caplog):
    caplog.set_level(logging.INFO, "toolkit")
    before = values(model)
    unfrozen = UnfrozenOptions(epochs=2, learning_rate=3e-3, gradual=gradual)
    result = run(model, unfreeze="stage2", unfrozen=unfrozen, head=HeadOptions(strengths=(1e-4,)))
    assert moved(result.model, before) <= {"stage2", "stage3", "head"}
    batch_norms = [name for name in before if "_bn" in name]
    for name in batch_norms:
        np.testing.assert_array_equal(values(result.model)[name], before[name])
    step = result.steps[-1]
    assert (step.name, step.subset) == ("training from stage2 on", "val")
    assert step.kept != result.steps[0].kept
    if step.kept:
        assert result.judged.name == "val"
        accuracy = np.mean(logits_of(result.model, stripes.val).argmax(axis=1) == np.asarray(stripes.val.labels))
        assert accuracy == pytest.approx(step.accuracy, abs=0.04)
    steps = [(done, total) for label, done, total in told if label == "training from stage2 on"]
    assert steps == [(done, len(steps)) for done in range(1, len(steps) + 1)]
    told_accuracy = next(message for message in caplog.messages if message.startswith("out-of-fold accuracy: "))
    assert "where every class counts alike" not in told_accuracy  # they have as many pictures each
    said = [message for message in caplog.messages if message.startswith("validation accuracy: ")]
    assert said[0].startswith(f"validation accuracy: {100 * step.accuracy:.2f} %, log loss ")
    assert ", of 30 pictures after training from stage2 on; the classifier alone has " in said[0]


@pytest.fixture
def unsplit(stripes):
    """The stripes, a few of them mislabelled, so that there is something to gain."""
    labels = list(stripes.train.labels)
    for index in range(0, 60, 7):
        labels[index] = (labels[index] + 1) % 3
    return Split(Subset(stripes.train.paths, tuple(labels)), Subset((), ()), Subset((), ()))


@pytest.fixture
def verdict(monkeypatch):
    """Whatever training brings, it is better, or it is not."""

    def verdict(is_better):
        monkeypatch.setattr("toolkit.transfer.unfrozen.contest._is_better", lambda *answers: is_better)

    return verdict


def test_without_validation_a_fold_judges_and_then_teaches_too(model, unsplit, tmp_path, verdict, caplog):
    caplog.set_level(logging.INFO, "toolkit")
    verdict(True)
    options = FinetuneOptions("stage3", unfrozen=UnfrozenOptions(epochs=1, learning_rate=1e-3))
    result = finetune(model, unsplit, PREPROCESSING, cache_dir=tmp_path / "cache", options=options)
    step = result.steps[-1]
    assert (step.subset, step.kept) == ("held-out fold", True)
    assert result.accuracy == step.accuracy
    assert result.again
    assert result.split == unsplit
    assert result.judged.name == "out-of-fold"
    assert "trained again on all 60 pictures" in caplog.messages
    assert result.judged.report(("a", "b", "c"))["n"] == 12
    assert result.judged.standard_error > 0.05


def test_stages_that_validation_judged_get_a_novelty_of_their_own(run, model, stripes, verdict, monkeypatch):
    verdict(True)
    how = {"unfreeze": "stage3", "unfrozen": UnfrozenOptions(epochs=1, learning_rate=3e-2)}
    result = run(model, **how)
    assert result.steps[-1].kept
    assert (result.novelty.num_judged, result.novelty.refused) == (30, 0)
    answered = with_novelty(result.model, result.novelty)
    # So few pictures get the largest of their distances for a threshold: those of validation, by the trained network,
    # whose features may have been computed in bfloat16.
    assert novelty_of(answered, stripes.val).max() == pytest.approx(1, abs=0.03)
    before = run(small_residual()).novelty
    assert np.abs(result.novelty.kernel - before.kernel).max() > 0.05 * np.abs(before.kernel).max()
    # Every sixth picture is of one class: where a part of the pictures lacks a class, all give the means.
    monkeypatch.setattr(sys.modules["toolkit.transfer.finetune"], "_NUM_MEANS", 10)  # a function has its name
    again = run(small_residual(), **how).novelty
    np.testing.assert_allclose(again.kernel, result.novelty.kernel, rtol=1e-3, atol=1e-3)


def test_stages_trained_on_all_pictures_have_no_novelty_but_a_reject_threshold(model, unsplit, tmp_path, verdict):
    verdict(True)
    options = FinetuneOptions("stage3", unfrozen=UnfrozenOptions(epochs=1, learning_rate=1e-9))
    result = finetune(model, unsplit, PREPROCESSING, cache_dir=tmp_path / "cache", options=options)
    assert (result.again, result.novelty) == (True, None)
    labels = np.asarray(result.judged.subset.labels)
    assert result.reject_below == pytest.approx(reject_threshold(result.judged.probabilities, labels), abs=1e-4)
    assert result.reject_below > 1 / 3


def test_training_starts_from_a_classifier_of_the_last_features_alone(model, unsplit, tmp_path, verdict):
    verdict(True)
    options = FinetuneOptions("stage3", unfrozen=UnfrozenOptions(epochs=1, learning_rate=1e-9))
    result = finetune(model, unsplit, PREPROCESSING, cache_dir=tmp_path / "cache", options=options)
    assert result.again  # a training that changes nothing leaves the start, but for the temperature
    last = pooled_cuts(small_residual())[-1].name
    start = select_head({last: result.features}, unsplit.train.labels, num_classes=3, options=SelectionOptions())
    ours, theirs = (
        logits_of(result.model, unsplit.train),
        start.head.logits(start.features.join({last: result.features})),
    )
    np.testing.assert_allclose(ours * result.temperature, theirs, atol=0.02 * np.abs(theirs).max())


def test_budget_says_what_it_will_try(model, unsplit, tmp_path, verdict, caplog, monkeypatch):
    # Without a budget, so many pictures would train the last stage alone. (A function has the module's name.)
    monkeypatch.setattr(sys.modules["toolkit.transfer.freeze"], "LAST_STAGE_FROM", 10)
    caplog.set_level(logging.INFO, "toolkit")
    verdict(True)
    options = FinetuneOptions(unfrozen=UnfrozenOptions(epochs=3), deadline=time.monotonic() + 300)
    result = finetune(model, unsplit, PREPROCESSING, cache_dir=tmp_path / "cache", options=options)
    said = [message for message in caplog.messages if "will train" in message]
    assert len(said) == 1
    assert said[0].startswith("the stages from stem on will train (3 epochs of 48 pictures, ")
    assert "judged by 12 others, and if that is better as many on all 60; " in said[0]
    assert result.steps[-1].name == "training from stem on"


def test_budget_that_is_too_short_leaves_the_classifier(model, unsplit, tmp_path, caplog):
    caplog.set_level(logging.INFO, "toolkit")
    options = FinetuneOptions(deadline=time.monotonic())
    result = finetune(model, unsplit, PREPROCESSING, cache_dir=tmp_path / "cache", options=options)
    assert (result.again, len(result.steps)) == (False, 1)
    assert "only the classifier will train (no time is left)" in caplog.messages


def test_budget_is_not_spent_where_nothing_can_be_gained(model, stripes, tmp_path, caplog):
    caplog.set_level(logging.INFO, "toolkit")
    options = FinetuneOptions(deadline=time.monotonic() + 300)
    split = Split(stripes.train, Subset((), ()), Subset((), ()))
    result = finetune(model, split, PREPROCESSING, cache_dir=tmp_path / "cache", options=options)
    wrong = round(60 * (1 - result.accuracy))
    assert wrong < 5
    assert f"only the classifier will train (out of fold {wrong} of 60 pictures are wrong, " in caplog.text
    assert len(result.steps) == 1
    with pytest.raises(UserError, match="unfreezing none trains none"):
        FinetuneOptions("none", deadline=1.0)


def test_interrupting_the_training_keeps_the_classifier(run, model, stripes, tmp_path, caplog):
    def interrupt(row):
        raise KeyboardInterrupt

    reference = run(small_residual())
    options = FinetuneOptions("stage2", unfrozen=UnfrozenOptions(epochs=2))
    cache = tmp_path / "cache"
    result = finetune(model, stripes, PREPROCESSING, cache_dir=cache, options=options, on_epoch=interrupt)
    assert "interrupted: the best classifier so far is kept" in caplog.text
    np.testing.assert_allclose(logits_of(result.model, stripes.val), logits_of(reference.model, stripes.val), atol=1e-4)


def test_interrupting_the_repetition_keeps_what_was_better(model, unsplit, tmp_path, verdict):
    verdict(True)
    seen = []

    def interrupt(row):
        seen.append(row["epoch"])
        if len(seen) == 2:
            raise KeyboardInterrupt

    options = FinetuneOptions("stage3", unfrozen=UnfrozenOptions(epochs=1))
    cache = tmp_path / "cache"
    result = finetune(model, unsplit, PREPROCESSING, cache_dir=cache, options=options, on_epoch=interrupt)
    assert (result.steps[-1].kept, result.again, len(seen)) == (True, False, 2)
    assert not set(result.split.train.paths) & set(result.split.val.paths)
    assert (len(result.split.train), len(result.split.val), result.novelty.num_judged) == (48, 12, 12)
    judged = result.judged
    np.testing.assert_allclose(logits_of(result.model, judged.subset), judged.logits, atol=0.05)


def test_training_that_makes_it_worse_is_undone_and_said(run, model, stripes):
    reference = run(model)
    before = logits_of(reference.model, stripes.val)
    result = run(model, unfreeze="stage3", unfrozen=UnfrozenOptions(epochs=1, learning_rate=30.0))
    assert (result.accuracy, result.steps[-1].kept) == (reference.accuracy, False)
    assert result.steps[0].kept
    np.testing.assert_allclose(logits_of(result.model, stripes.val), before, atol=1e-4)


def test_network_that_averages_class_maps_trains_its_last_convolution(stripes, tmp_path):
    keras.utils.set_random_seed(0)
    model = create_model("nin_cifar", num_classes=3)
    before = values(model)
    preprocessing = model_info("nin_cifar").preprocessing
    options = FinetuneOptions(unfrozen=UnfrozenOptions(epochs=2, learning_rate=1e-2))
    result = finetune(model, stripes, preprocessing, cache_dir=tmp_path / "cache", options=options)
    assert result.plan.unfreeze_from == "head"
    assert (result.head, result.features) == (None, None)
    assert result.accuracy == result.steps[-1].accuracy
    assert moved(result.model, before) == {"head"}
    for options, message in (
        (FinetuneOptions(head=HeadOptions(hidden=(4,))), "no classifier to put hidden layers in front of"),
        (FinetuneOptions(deadline=time.monotonic() + 300), "leave the time budget out"),
    ):
        with pytest.raises(UserError, match=message):
            finetune(model, stripes, preprocessing, cache_dir=tmp_path / "cache", options=options)
    alone = Split(stripes.train.picked(range(3)), Subset((), ()), Subset((), ()))  # one picture of each: none can judge
    options = FinetuneOptions(unfrozen=UnfrozenOptions(epochs=1))
    result = finetune(model, alone, preprocessing, cache_dir=tmp_path / "cache", options=options)
    assert (result.accuracy, len(result.judged.subset), len(result.split.train)) == (None, 0, 3)
    assert [step.kept for step in result.steps] == [True]


def test_whole_network_trains_from_the_pictures(stripes, tmp_path):
    keras.utils.set_random_seed(0)
    model = create_model("lenet5_rgb", num_classes=3)
    before = values(model)
    options = FinetuneOptions(
        unfreeze="stage1", unfrozen=UnfrozenOptions(epochs=2, learning_rate=1e-2, stage_decay=1.0)
    )
    result = finetune(
        model, stripes, model_info("lenet5_rgb").preprocessing, cache_dir=tmp_path / "cache", options=options
    )
    if result.steps[-1].kept:
        assert moved(result.model, before) == {"stage1", "stage2", "head"}
    assert result.steps[-1].name == "training from stage1 on"


def test_model_without_preprocessing_is_said(model, stripes, tmp_path):
    with pytest.raises(UserError, match="does not say how its pictures are prepared"):
        finetune(model, stripes, cache_dir=tmp_path / "cache")


def test_balanced_accuracy_is_said_of_uneven_classes(model, stripes, tmp_path, caplog):
    labels = np.asarray(stripes.train.labels)
    kept = np.flatnonzero((labels != 0) | (np.cumsum(labels == 0) <= 6))
    split = Split(stripes.train.picked(kept), Subset((), ()), Subset((), ()))
    with caplog.at_level(logging.INFO, "toolkit"):
        result = finetune(model, split, PREPROCESSING, cache_dir=tmp_path, options=FinetuneOptions(curve=True))
    balanced = f"{100 * result.selection.balanced_accuracy:.2f} % where every class counts alike"
    assert any(balanced in message for message in caplog.messages)
    assert result.as_document()["selection"]["curve"]["points"]
