"""The SavedModel of an ensemble: from one picture's bytes to the average over members and crops, in one call."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import tensorflow as tf

from toolkit.data.pixels.graph import resize_to
from toolkit.ensemble.crops import plan_crops
from toolkit.ensemble.cut_graph import decode_crops
from toolkit.ensemble.ensemble import Ensemble
from toolkit.export.saved_model import Answers, runner, save_signatures
from toolkit.lazy import keras
from toolkit.spec import Preprocessing

#: Crops that a network is given at once: activations of many more would not fit into a small machine's memory.
_CROPS_AT_ONCE = 32


def write_ensemble_model(
    ensemble: Ensemble, models: "Sequence[keras.Model]", directory: Path, labels: tuple[str, ...]
) -> None:
    """Write networks as one SavedModel with the signatures of any bundle.

    - ``serving_default``: each picture is decoded once, every network sees its crops of it, and the probabilities are
      averaged over the crops and then over the networks.
    - ``pixels``: one ready crop, which all networks see: uint8 of the largest input's size, and shrunk in the graph for
      networks with a smaller input. Nothing is cut: what lies around the crop is not there to cut from.
    - ``features``: the pooled embeddings of all networks side by side, of the crop that each sees on its own.

    Beside the signatures stands ``members``, a function per network from uint8 pixels of its size to probabilities.
    The models are the members' networks, in their order and in float32; the directory holds no SavedModel yet.
    """
    preprocessings = [member.preprocessing for member in ensemble.members]
    runs = [runner(*pair) for pair in zip(models, preprocessings, strict=True)]
    module = tf.Module()
    module.members = [_probabilities(*pair) for pair in zip(runs, preprocessings, strict=True)]
    module.tracked_variables = [variable.value for model in models for variable in model.variables]

    def from_pixels(pixels):
        shrunk = [_shrunk(pixels, preprocessing) for preprocessing in preprocessings]
        return _mean([member(own) for member, own in zip(module.members, shrunk, strict=True)])

    def features(image_bytes):
        plain = Ensemble([replace(member, crops=plan_crops(member.preprocessing)) for member in ensemble.members])
        crops = _cut_all(plain, image_bytes)
        return tf.concat([run(own[:, 0])["features"] for run, own in zip(runs, crops, strict=True)], axis=-1)

    from_bytes = _from_bytes(ensemble, module.members, len(labels))
    answers = Answers(
        lambda image_bytes: {"probabilities": from_bytes(image_bytes)},
        lambda pixels: {"probabilities": from_pixels(pixels)},
        features,
    )
    save_signatures(module, directory, answers, labels=labels, size=ensemble.largest_input.size)


def _probabilities(run: Callable, preprocessing: Preprocessing) -> Callable:
    spec = tf.TensorSpec([None, *preprocessing.size, 3], tf.uint8, name="pixels")
    return tf.function(lambda pixels: tf.nn.softmax(run(pixels)["logits"]), input_signature=[spec])


def _shrunk(pixels: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    if tuple(pixels.shape[1:3]) == preprocessing.size:
        return pixels
    return resize_to(pixels, preprocessing.size, preprocessing)


def _from_bytes(ensemble: Ensemble, members: Sequence[Callable], num_classes: int) -> Callable:
    def of_picture(data):
        crops = ensemble.by_member(_cut(ensemble, data))
        return _mean([_over_crops(member, own) for member, own in zip(members, crops, strict=True)])

    def one_crop_each(image_bytes):
        crops = _cut_all(ensemble, image_bytes)
        return _mean([member(own[:, 0]) for member, own in zip(members, crops, strict=True)])

    def many_crops(image_bytes):
        # A picture at a time: its crops fill a batch, and those of all pictures might not fit into memory.
        return tf.map_fn(
            of_picture,
            image_bytes,
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec([num_classes], tf.float32),
        )

    return one_crop_each if all(len(crops) == 1 for _, crops in ensemble.cuts) else many_crops


def _cut(ensemble: Ensemble, data: tf.Tensor) -> list[tf.Tensor]:
    """The crops of one picture's bytes, once for each way of cutting them."""
    return [decode_crops(data, preprocessing, crops) for preprocessing, crops in ensemble.cuts]


def _cut_all(ensemble: Ensemble, image_bytes: tf.Tensor) -> list[tf.Tensor]:
    """The crops of several pictures, each member's: uint8 [N, crops, height, width, 3]."""
    specs = [tf.TensorSpec([len(crops), *cut.size, 3], tf.uint8) for cut, crops in ensemble.cuts]
    return ensemble.by_member(tf.map_fn(lambda data: _cut(ensemble, data), image_bytes, fn_output_signature=specs))


def _mean(answers: list[tf.Tensor]) -> tf.Tensor:
    return tf.reduce_mean(tf.stack(answers), axis=0)


def _over_crops(member: Callable, crops: tf.Tensor) -> tf.Tensor:
    count = crops.shape[0]
    parts = [member(crops[i : i + _CROPS_AT_ONCE]) for i in range(0, count, _CROPS_AT_ONCE)]
    return tf.reduce_mean(tf.concat(parts, axis=0), axis=0)
