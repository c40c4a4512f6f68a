"""Train the network that comes along as a start for pictures of one's own, with JAX on a GPU: it learns what GoogLeNet
sees.

    KERAS_BACKEND=jax python benchmarks/distill.py --teacher googlenet_bvlc.caffemodel --cifar cifar10 \\
        --photographs clothing/train grocery/train --minutes 7.2 --out runs/resnet18-thin
    toolkit finetune cifar10 --config saved_models/resnet18-thin.toml

CIFAR-10's ten classes alone teach a network little that other pictures need. Here a ResNet-18 with three sixteenths
of the channels learns GoogLeNet's features, 1,024 averages that tell ImageNet's 1,000 classes apart, by a linear map
from its own 96 averages that is thrown away afterwards. The loss is the mean squared difference of features, each
scaled to unit variance, plus ``_ANSWERS`` times the Kullback-Leibler divergence of the answers that GoogLeNet's
classifier gives to both (Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015), plus
``_CLASSES`` times the cross-entropy of CIFAR-10's classes.

The teacher is asked about the very picture that the network is given, however it was cut, coloured and mixed (Beyer et
al., Knowledge distillation: a good teacher is patient and consistent, CVPR 2022), so few pictures go a long way: half
of them are CIFAR-10's, half are parts of photographs, whose labels are not used. They stay on the device and are
augmented there. The rate follows a cosine, by the clock, over ``--minutes``, which count from the program's start.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax

from toolkit.data import ImageFolder, scan_folder
from toolkit.data.feed.arrays import load_pixels
from toolkit.factory import create_model, preprocessing_of
from toolkit.factory.save import save_network
from toolkit.spec import Preprocessing
from toolkit.transfer.view import whole_view

_START = time.perf_counter()
_WIDTH = 0.1875  # 12 channels first, the most that a bundle of 3 MB holds
_SIDE = 128  # of the pictures that it is taught with
_STORED = 256  # pixels a side of the photographs on the device
_BATCH = 256
_ANSWERS, _CLASSES = 0.25, 0.3  # weights of the losses
_TEMPERATURE = 2.0
_RATE, _DECAY, _WARMUP = 4e-3, 0.05, 500
_CHUNK = 50  # steps of one call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="a file of GoogLeNet's ImageNet weights")
    parser.add_argument("--cifar", type=Path, required=True, help="anything that `toolkit train` reads")
    parser.add_argument("--photographs", type=Path, nargs="+", required=True, help="folders of them")
    parser.add_argument("--minutes", type=float, required=True, help="all that it may take")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the network")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    folder = scan_folder(arguments.cifar)
    student = distilled(arguments, *subset(folder, "train"))
    keras.config.set_dtype_policy("float32")
    model = create_model("resnet18", **_options(len(folder.class_names)))
    model.set_weights(student.get_weights())
    model.preprocessing = whole_view(preprocessing_of(model))
    save_network(model, arguments.out / "model.keras")
    (arguments.out / "labels.txt").write_text("".join(f"{name}\n" for name in folder.class_names), encoding="utf-8")
    print(f"test accuracy {100 * accuracy_of(model, *subset(folder, 'test')):.2f} %")


def subset(folder: ImageFolder, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read CIFAR-10's training or test pictures, uint8 (n, 32, 32, 3), and their classes."""
    found = [i for i, split in enumerate(folder.splits) if split == name]
    pixels = load_pixels(paths_of(folder, found), Preprocessing((32, 32)))
    return pixels, np.asarray([folder.labels[i] for i in found], np.int32)


def paths_of(folder: ImageFolder, indices: Iterable[int]) -> list[str]:
    return [str(folder.root.absolute() / folder.paths[i]) for i in indices]


def photographs(places: list[Path]) -> np.ndarray:
    """Read whole photographs, uint8 (n, 256, 256, 3)."""
    found = [scan_folder(place) for place in places]
    paths = [path for folder in found for path in paths_of(folder, range(len(folder.paths)))]
    return load_pixels(paths, Preprocessing((_STORED,) * 2, resize="stretch"))


def _options(num_classes: int) -> dict[str, Any]:
    return {"num_classes": num_classes, "input_shape": (_SIDE, _SIDE, 3), "width": _WIDTH}


def distilled(arguments: argparse.Namespace, pixels: np.ndarray, classes: np.ndarray) -> keras.Model:
    teacher = create_model("googlenet", weights=arguments.teacher, input_shape=(_SIDE, _SIDE, 3))
    kernel, bias = (jnp.asarray(part, jnp.float32) for part in teacher.get_layer("head_logits").get_weights())
    seen = keras.Model(teacher.input, keras.layers.Flatten()(teacher.get_layer("head_pool").output))
    student = create_model("resnet18", **_options(int(classes.max()) + 1))
    guided = keras.layers.Dense(kernel.shape[0], name="guided", dtype="float32")
    whole = keras.Model(student.input, [student.output, guided(student.get_layer("head_logits").input)])
    data = {
        "pixels": pixels,
        "classes": classes,
        "photographs": photographs(arguments.photographs),
        "teacher": values(seen),
    }

    def draw(key: Any, data: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        keys = jax.random.split(key, 6)
        half = _BATCH // 2
        chosen = jax.random.randint(keys[0], (half,), 0, len(data["pixels"]))
        others = jax.random.randint(keys[1], (half,), 0, len(data["photographs"]))
        small = cut(keys[2], data["pixels"][chosen], _SIDE, smallest=0.4)
        large = cut(keys[3], data["photographs"][others], _SIDE, smallest=0.08)
        x, shares = mixed(keys[4], lit(keys[5], jnp.concatenate([small, large])))
        features = answers(seen, data["teacher"], prepared(x, preprocessing_of(teacher)))
        counts = (shares == 1).at[half:].set(False)
        classes = jnp.concatenate([data["classes"][chosen], jnp.zeros(half, jnp.int32)])
        return prepared(x, preprocessing_of(student)), {"features": features, "classes": classes, "counts": counts}

    some = jax.jit(lambda key, data: draw(key, data)[1]["features"])
    features = jnp.concatenate([some(key, data) for key in jax.random.split(jax.random.key(1), 20)])
    mean, deviation = features.mean(0), features.std(0) + 1e-3

    def loss(outputs: Any, y: dict[str, Any]) -> Any:
        logits, given = (output.astype(jnp.float32) for output in outputs)
        squared = jnp.mean(jnp.square(given - (y["features"] - mean) / deviation))
        theirs, ours = (part @ kernel + bias for part in (y["features"], given * deviation + mean))
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, y["classes"])
        own = jnp.sum(entropy * y["counts"]) / jnp.maximum(jnp.sum(y["counts"]), 1)
        return squared + _ANSWERS * divergence(theirs, ours, _TEMPERATURE) + _CLASSES * own

    kernels = [len(variable.shape) > 1 for variable in whole.trainable_variables]
    adamw = [optax.clip_by_global_norm(5.0), optax.scale_by_adam(), optax.add_decayed_weights(_DECAY, kernels)]
    fit(whole, draw, loss, data, optimizer=optax.chain(*adamw), rate=_RATE, end=_START + 60 * arguments.minutes)
    return student


def cut(key: Any, pixels: Any, side: int, *, smallest: float) -> Any:
    """Cut out of each picture at least ``smallest`` of its area, bring it to ``side``, and mirror half of them."""
    n, height, width, _ = pixels.shape
    keys = jax.random.split(key, 5)
    area = jnp.exp(jax.random.uniform(keys[0], (n,), minval=math.log(smallest), maxval=0.0))
    ratio = jnp.exp(jax.random.uniform(keys[1], (n,), minval=-0.3, maxval=0.3))
    shares = jnp.minimum(1.0, jnp.stack([jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)], axis=1))
    corners = jax.random.uniform(keys[2], (n, 2)) * (1 - shares)
    scales = side / (shares * jnp.asarray([height, width]))
    moves = -corners * jnp.asarray([height, width]) * scales

    def one(picture: Any, scale: Any, move: Any) -> Any:
        return jax.image.scale_and_translate(picture, (side, side, 3), (0, 1), scale, move, "linear")

    cuts = jax.vmap(one)(pixels.astype(jnp.float32), scales, moves)
    return jnp.where(jax.random.bernoulli(keys[3], 0.5, (n, 1, 1, 1)), cuts[:, :, ::-1], cuts)


def lit(key: Any, x: Any) -> Any:
    """Change contrast, brightness and the colour of the light; pixels stay in 0 to 255."""
    contrast, light = jax.random.split(key)
    shape = (len(x), 1, 1)
    x = x * jax.random.uniform(contrast, (*shape, 1), minval=0.7, maxval=1.3)
    return jnp.clip(x + jax.random.uniform(light, (*shape, 3), minval=-20.0, maxval=20.0), 0, 255)


def mixed(key: Any, x: Any) -> tuple[Any, Any]:
    """Blend half of the pictures with others; also the share that each has of its own."""
    keys = jax.random.split(key, 3)
    shares = jax.random.uniform(keys[0], (len(x),), minval=0.5, maxval=1.0)
    shares = jnp.where(jax.random.bernoulli(keys[1], 0.5, (len(x),)), 1.0, shares)
    others = jax.random.permutation(keys[2], len(x))
    own = shares[:, None, None, None]
    return own * x + (1 - own) * x[others], shares


def prepared(x: Any, preprocessing: Preprocessing) -> Any:
    factor, offset = (jnp.asarray(part, jnp.float32) for part in preprocessing.affine())
    return (x[..., ::-1] if preprocessing.channel_order == "bgr" else x) * factor + offset


def values(model: keras.Model) -> tuple[list[Any], list[Any]]:
    """Copy a network's weights, the trainable and the others."""
    return tuple(
        [jnp.array(v.value) for v in part] for part in (model.trainable_variables, model.non_trainable_variables)
    )


def answers(model: keras.Model, weights: tuple[list[Any], list[Any]], x: Any) -> Any:
    return model.stateless_call(*weights, x, training=False)[0].astype(jnp.float32)


def divergence(theirs: Any, ours: Any, temperature: float) -> Any:
    """Kullback-Leibler divergence of our answers from theirs (Hinton, Vinyals and Dean, 2015)."""
    theirs, ours = (jax.nn.log_softmax(logits / temperature) for logits in (theirs, ours))
    return temperature**2 * jnp.mean(jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1))


def fit(
    network: keras.Model,
    draw: Callable[[Any, Any], tuple[Any, Any]],
    loss: Callable[[Any, Any], Any],
    data: dict[str, Any],
    *,
    optimizer: optax.GradientTransformation,
    rate: float,
    end: float,
) -> None:
    """Train until the clock shows ``end``, along a cosine from ``rate`` to 0.

    ``draw`` makes a batch of prepared pictures and what ``loss`` compares answers with, and ``optimizer`` the steps of
    a rate of 1.
    """

    def step(state: tuple[Any, ...], key: Any, data: Any, rate: Any) -> tuple[tuple[Any, ...], Any]:
        trainable, others, moments = state
        x, y = draw(key, data)

        def total(trainable: Any) -> tuple[Any, Any]:
            outputs, changed = network.stateless_call(trainable, others, x, training=True)
            return loss(outputs, y), changed

        (value, others), slopes = jax.value_and_grad(total, has_aux=True)(trainable)
        moves, moments = optimizer.update(slopes, moments, trainable)
        moves = jax.tree.map(lambda move: -rate * move, moves)
        return (optax.apply_updates(trainable, moves), others, moments), value

    @jax.jit
    def steps(state: Any, data: Any, keys: Any, rate: Any) -> Any:
        return jax.lax.scan(lambda state, key: step(state, key, data, rate), state, keys)

    data = jax.device_put(data)
    trainable, others = values(network)
    state = (trainable, others, optimizer.init(trainable))
    key = jax.random.key(0)
    state, _ = steps(state, data, jax.random.split(key, _CHUNK), 0.0)  # compiles; a rate of 0 changes no weight
    jax.block_until_ready(state)
    start = shown = time.perf_counter()
    done = 0
    while (now := time.perf_counter()) < end:
        current = rate * min(1, done / _WARMUP) * (1 + math.cos(math.pi * (now - start) / (end - start))) / 2
        key, own = jax.random.split(key)
        state, losses = steps(state, data, jax.random.split(own, _CHUNK), current)
        mean = float(losses.mean())
        done += _CHUNK
        if now > shown + 10:
            shown = now
            print(f"{now - _START:.0f} s: {done} steps, rate {current:.5f}, loss {mean:.4f}", flush=True)
    for part, ours in zip(state, (network.trainable_variables, network.non_trainable_variables), strict=False):
        for value, variable in zip(part, ours, strict=True):
            variable.assign(value)


def accuracy_of(model: keras.Model, pixels: np.ndarray, classes: np.ndarray) -> float:
    side = model.input_shape[1]
    weights, preprocessing = values(model), preprocessing_of(model)

    @jax.jit
    def right(x: Any, y: Any) -> Any:
        x = jax.image.resize(x.astype(jnp.float32), (len(x), side, side, 3), "linear")
        return jnp.sum(answers(model, weights, prepared(x, preprocessing)).argmax(-1) == y)

    starts = range(0, len(pixels), 500)
    return sum(int(right(pixels[s : s + 500], classes[s : s + 500])) for s in starts) / len(pixels)


if __name__ == "__main__":
    main()
