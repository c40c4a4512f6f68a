"""The SavedModel of an ensemble: from one picture's bytes to the average over members and views, in one call."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import tensorflow as tf

from toolkit.data.pixels import graph
from toolkit.ensemble.crops import Crop, geometry, plan_crops
from toolkit.ensemble.cut_graph import decode_views
from toolkit.ensemble.shown import ShownNetwork, largest_input
from toolkit.export.saved_model import Answers, save_signatures
from toolkit.lazy import keras
from toolkit.network import feature_tensor
from toolkit.spec import Preprocessing

#: Views that a network is given at once: activations of many more would not fit into a small machine's memory.
_VIEWS_AT_ONCE = 32


def write_ensemble_model(
    networks: Sequence[ShownNetwork], directory: Path, *, labels: tuple[str, ...], labels_file: Path
) -> None:
    """Write networks as one SavedModel with the signatures of any bundle.

    - ``serving_default``: each picture is decoded once, every network sees its views of it, and the probabilities are
      averaged over the views and then over the networks.
    - ``pixels``: one ready view, which all networks see: uint8 of ``largest_input``'s size, and shrunk in the graph for
      networks with a smaller input. No views are cut: what lies around the view is not there to cut from.
    - ``features``: the pooled embeddings of all networks side by side, of the view that each sees on its own.

    Beside the signatures stands ``members``, a function per network from uint8 pixels of its size to probabilities.

    Args:
        networks: with the same labels.
        directory: must not hold a SavedModel yet.
        labels: class names in output order.
        labels_file: becomes ``assets/labels.txt``.
    """
    runs = [_runner(network) for network in networks]
    module = tf.Module()
    module.members = [_probabilities(run, network.preprocessing) for run, network in zip(runs, networks, strict=True)]
    module.tracked_variables = [variable.value for network in networks for variable in network.model.variables]
    size = largest_input([network.preprocessing for network in networks]).size

    def from_pixels(pixels):
        shown = [_shrunk(pixels, network.preprocessing) for network in networks]
        return _mean([member(view) for member, view in zip(module.members, shown, strict=True)])

    def features(image_bytes):
        plain = [replace(network, crops=plan_crops(network.preprocessing)) for network in networks]
        cut, place = _cutter(plain)
        views = _map(cut, image_bytes, _specs(plain))
        return tf.concat([run(views[place[i]][:, 0])["features"] for i, run in enumerate(runs)], axis=-1)

    answers = Answers(_from_bytes(networks, module.members, len(labels)), from_pixels, features)
    save_signatures(module, directory, answers, labels=labels, size=size, labels_file=labels_file)


def _runner(network: ShownNetwork) -> Callable:
    model = network.model
    with_features = keras.Model(model.inputs, {"logits": model.outputs[0], "features": feature_tensor(model)})
    return lambda pixels: with_features(graph.normalize(pixels, network.preprocessing), training=False)


def _probabilities(run: Callable, preprocessing: Preprocessing) -> Callable:
    spec = tf.TensorSpec([None, *preprocessing.size, 3], tf.uint8, name="pixels")
    return tf.function(lambda pixels: tf.nn.softmax(run(pixels)["logits"]), input_signature=[spec])


def _shrunk(pixels: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    if tuple(pixels.shape[1:3]) == preprocessing.size:
        return pixels
    resized = tf.image.resize(pixels, preprocessing.size, method=preprocessing.interpolation, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def _from_bytes(networks: Sequence[ShownNetwork], members: Sequence[Callable], num_classes: int) -> Callable:
    cut, place = _cutter(networks)

    def of_picture(data):
        views = cut(data)
        return _mean([_over_views(member, views[place[i]]) for i, member in enumerate(members)])

    def one_view_each(image_bytes):
        views = _map(cut, image_bytes, _specs(networks))
        return _mean([member(views[place[i]][:, 0]) for i, member in enumerate(members)])

    def many_views(image_bytes):
        # A picture at a time: its views fill a batch, and those of all pictures might not fit into memory.
        return tf.map_fn(
            of_picture,
            image_bytes,
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec([num_classes], tf.float32),
        )

    return one_view_each if all(len(network.crops) == 1 for network in networks) else many_views


def _mean(answers: list[tf.Tensor]) -> tf.Tensor:
    return tf.reduce_mean(tf.stack(answers), axis=0)


def _over_views(member: Callable, views: tf.Tensor) -> tf.Tensor:
    count = views.shape[0]
    parts = [member(views[i : i + _VIEWS_AT_ONCE]) for i in range(0, count, _VIEWS_AT_ONCE)]
    return tf.reduce_mean(tf.concat(parts, axis=0), axis=0)


def _cutter(networks: Sequence[ShownNetwork]) -> tuple[Callable, list[int]]:
    """A function from a picture's bytes to its views, cut once for networks that want the same, and which are whose."""
    cuts = _cuts(networks)
    place = [cuts.index((geometry(network.preprocessing), network.crops)) for network in networks]
    return lambda data: [decode_views(data, preprocessing, crops) for preprocessing, crops in cuts], place


def _specs(networks: Sequence[ShownNetwork]) -> list[tf.TensorSpec]:
    return [tf.TensorSpec([len(crops), *cut.size, 3], tf.uint8) for cut, crops in _cuts(networks)]


def _cuts(networks: Sequence[ShownNetwork]) -> list[tuple[Preprocessing, tuple[Crop, ...]]]:
    return list(dict.fromkeys((geometry(network.preprocessing), network.crops) for network in networks))


def _map(function: Callable, image_bytes: tf.Tensor, specs: list[tf.TensorSpec]) -> list[tf.Tensor]:
    return tf.map_fn(function, image_bytes, fn_output_signature=specs)
