"""The SavedModel part of a bundle: three signatures, labels as an asset, warm-up requests."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from PIL import Image

from toolkit.bundle import LABELS, WARMUP
from toolkit.data.pixels import graph
from toolkit.files import plain_path
from toolkit.lazy import keras
from toolkit.network import answers_novelty, feature_tensor, in_half
from toolkit.spec import Preprocessing

#: Labels in an answer at most.
TOP_K = 5


def write_saved_model(
    model: "keras.Model",
    directory: Path,
    *,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    half: bool = False,
) -> None:
    """Write ``model`` as a SavedModel that decodes, preprocesses, and answers with labels.

    - ``serving_default``: ``image_bytes`` (string, [N]: JPEG, PNG, BMP, WebP, GIF's first frame) →
      ``probabilities`` [N, C], ``top_labels`` [N, k], ``top_scores`` [N, k], and of a network that answers it
      ``novelty`` [N], above 1 for a picture of none of the classes.
    - ``pixels``: ``pixels`` (uint8, [N, height, width, 3], already of the network's size) → the same.
    - ``features``: ``image_bytes`` → ``features`` [N, D], the pooled embedding.

    TIFF, AVIF and HEIC, which the host decodes, are an error in it that names the formats it reads.

    The model is in float32, and the directory holds no SavedModel yet. With ``half``, weights that half precision holds
    exactly are stored in it; it computes in float32 all the same.
    """
    weights = [variable.value for variable in model.variables]
    if half:
        weights = [tf.Variable(in_half(value.numpy()), trainable=False) for value in weights]
    pixels_spec = tf.TensorSpec([None, *preprocessing.size, 3], tf.uint8)
    # Functions of their own, so that each is traced and written once for all signatures that call it.
    network = runner(model, preprocessing, weights if half else None)
    run = tf.function(network, input_signature=[pixels_spec], autograph=False)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def decode(image_bytes):
        return tf.map_fn(
            lambda data: graph.decode_pixels(data, preprocessing),
            image_bytes,
            fn_output_signature=tf.TensorSpec(pixels_spec.shape[1:], tf.uint8),
        )

    def classify(pixels):
        answers = run(pixels)
        found = {"probabilities": tf.nn.softmax(answers["logits"])}
        return found | ({"novelty": answers["novelty"][:, 0]} if "novelty" in answers else {})

    answers = Answers(
        from_bytes=lambda image_bytes: classify(decode(image_bytes)),
        from_pixels=classify,
        features=lambda image_bytes: run(decode(image_bytes))["features"],
    )
    module = tf.Module()
    module.tracked_variables = weights
    save_signatures(module, directory, answers, labels=labels, size=preprocessing.size)


def runner(
    model: "keras.Model", preprocessing: Preprocessing, weights: Sequence[tf.Variable] | None = None
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Make the function from uint8 pixels [N, height, width, 3] to ``logits`` [N, C] and ``features`` [N, D].

    And to ``novelty`` [N, 1] where the network answers it. ``weights``, of any precision, stand for the network's own.
    """
    classifier = keras.Model(model.input, model.outputs[0])
    outputs = {"logits": model.outputs[0], "features": feature_tensor(classifier)}
    if answers_novelty(model):
        outputs["novelty"] = model.outputs[1]
    with_features = keras.Model(model.input, outputs)
    if weights is None:
        return lambda pixels: with_features(graph.normalize(pixels, preprocessing), training=False)
    stored = {id(own): weight for own, weight in zip(model.variables, weights, strict=True)}

    def run(pixels):
        trainable, others = (
            [tf.cast(stored[id(own)], own.dtype) for own in part]
            for part in (with_features.trainable_variables, with_features.non_trainable_variables)
        )
        inputs = graph.normalize(pixels, preprocessing)
        return with_features.stateless_call(trainable, others, inputs, training=False)[0]

    return run


@dataclass(frozen=True)
class Answers:
    """Functions behind the signatures of a bundle.

    Attributes:
        from_bytes: encoded pictures, string [N], to ``probabilities`` [N, C] and perhaps ``novelty`` [N].
        from_pixels: uint8 [N, height, width, 3] to the same.
        features: encoded pictures to features [N, D].
    """

    from_bytes: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    from_pixels: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    features: Callable[[tf.Tensor], tf.Tensor]


def save_signatures(
    module: tf.Module, directory: Path, answers: Answers, *, labels: tuple[str, ...], size: tuple[int, int]
) -> None:
    """Save ``module``, which holds every variable, with the three signatures that each bundle has.

    Args:
        module: gets the labels' file as an asset.
        directory: must not hold a SavedModel yet.
        answers: what the signatures compute.
        labels: class names in output order.
        size: height and width of ready pixels.
    """
    num_top = min(TOP_K, len(labels))
    label_names = tf.constant(labels)

    def ranked(found):
        scores, indices = tf.math.top_k(found["probabilities"], num_top)
        return found | {"top_labels": tf.gather(label_names, indices), "top_scores": scores}

    bytes_spec = tf.TensorSpec([None], tf.string, name="image_bytes")
    pixels_spec = tf.TensorSpec([None, *size, 3], tf.uint8, name="pixels")
    directory.mkdir(parents=True, exist_ok=True)
    signatures = {
        "serving_default": tf.function(
            lambda image_bytes: ranked(answers.from_bytes(image_bytes)), input_signature=[bytes_spec], autograph=False
        ),
        "pixels": tf.function(
            lambda pixels: ranked(answers.from_pixels(pixels)), input_signature=[pixels_spec], autograph=False
        ),
        "features": tf.function(
            lambda image_bytes: {"features": answers.features(image_bytes)},
            input_signature=[bytes_spec],
            autograph=False,
        ),
    }
    with plain_path(directory) as place:
        labels_file = place / Path(LABELS).name  # saving copies it to where assets are
        labels_file.write_text("\n".join(labels) + "\n", encoding="utf-8")
        module.labels = tf.saved_model.Asset(str(labels_file))
        tf.saved_model.save(module, str(place), signatures=signatures)
        labels_file.unlink()


def write_warmup(directory: Path, preprocessing: Preprocessing) -> None:
    """Write one request per signature, which TensorFlow Serving replays before it calls a version available.

    See https://www.tensorflow.org/tfx/serving/saved_model_warmup for the file's form.
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    buffer = io.BytesIO()
    Image.new("RGB", preprocessing.size[::-1], (127, 127, 127)).save(buffer, "JPEG")
    image_bytes = tf.make_tensor_proto([buffer.getvalue()])
    inputs = {
        "serving_default": {"image_bytes": image_bytes},
        # One number that stands for all, where an array would hold each: 150 kB at 224 pixels a side.
        "pixels": {"pixels": tf.make_tensor_proto(127, tf.uint8, (1, *preprocessing.size, 3))},
        "features": {"image_bytes": image_bytes},
    }
    path = directory / WARMUP
    path.parent.mkdir(parents=True, exist_ok=True)
    with plain_path(path.parent) as place, tf.io.TFRecordWriter(str(place / path.name)) as writer:
        for signature, tensors in inputs.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature
            for name, value in tensors.items():
                request.inputs[name].CopyFrom(value)
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
