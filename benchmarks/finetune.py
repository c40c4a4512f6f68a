"""From photographs to a trained classifier, three ways, on two cores.

    python benchmarks/finetune.py --out benchmarks/results/finetune-resnet50.json

- *tutorial*: ``image_dataset_from_directory``, a frozen base inside the model, ``fit``;
- *careful*: the same base, ``predict`` once, then ``fit`` a dense layer on what it answered;
- *toolkit*: ``toolkit.transfer.finetune``, from a cold cache, then once more (*repeat*).

All three use the same network, weights, pictures and division, and train the head by Adam for the same number of
epochs. Each runs in a process of its own. Seconds are of the wall, from the process's start to the trained head; CPU
seconds beside them tell how busy a shared machine was with other things. The tutorial's epochs are all alike, so
``--tutorial-epochs 2`` runs two and counts the second one for those left out; the figures say so.

Photographs are taken from ``--photos`` (class folders, or train/ and val/ with class folders in them); where there are
too few, cut and mirrored copies make up the number. By default they are cut from scikit-learn's two photographs.
Weights are random unless ``--weights`` names some: that changes no timing, but leaves accuracy without meaning.
"""

import time

STARTED = time.time()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import resource  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

NUM_CORES = 2
BATCH_SIZE = 32
LEARNING_RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", help="a registered network with a dense classifier")
    parser.add_argument("--weights", help="a tag or a file; random weights by default")
    parser.add_argument("--photos", type=Path, help="a folder of photographs by class")
    parser.add_argument("--count", type=int, default=1000, help="photographs, of which a fifth are for validation")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tutorial-epochs", type=int, help="how many of them the tutorial's loop really runs")
    parser.add_argument("--sides", nargs="+", default=["toolkit", "repeat", "careful", "tutorial"])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        return run_side(arguments)
    with tempfile.TemporaryDirectory() as directory:
        report = measure(arguments, Path(directory))
    print(json.dumps(report, indent=1))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    return None


def measure(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    import importlib.metadata

    counts = write_photos(arguments.photos, directory / "photos", arguments.count)
    sides = {side: start_side(side, directory) for side in arguments.sides}
    ratios = {
        f"{other} / toolkit, {what}": round(sides[other][what] / sides["toolkit"][what], 2)
        for other in ("tutorial", "careful")
        for what in ("wall_s", "wall_without_imports_s", "cpu_s")
        if other in sides and "toolkit" in sides
    }
    packages = ("keras", "tensorflow", "openvino", "numpy", "pillow")
    return {
        "command": "python " + " ".join(sys.argv),
        "machine": {"processor": processor(), "cores": NUM_CORES},
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "network": arguments.model,
        "weights": arguments.weights or "random",
        "photographs": counts,
        "epochs": arguments.epochs,
        "sides": sides,
        "ratios": ratios,
    }


def start_side(side: str, directory: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--root", str(directory)]
    print(f"{side} …", file=sys.stderr, flush=True)
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    return json.loads(result.stdout.splitlines()[-1])


def run_side(arguments: argparse.Namespace) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:NUM_CORES])
    sides = {"tutorial": run_tutorial, "careful": run_careful, "toolkit": run_toolkit, "repeat": run_toolkit}
    figures = sides[arguments.side](arguments)
    wall = figures.pop("wall_s", time.time() - STARTED)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    per_unit = 1 if sys.platform == "darwin" else 1024
    figures |= {
        "wall_s": round(wall, 2),
        "wall_without_imports_s": round(wall - figures["imports_s"], 2),
        "cpu_s": round(figures.pop("cpu_s", usage.ru_utime + usage.ru_stime), 2),
        "peak_bytes": usage.ru_maxrss * per_unit,
    }
    print(json.dumps(figures))


def run_toolkit(arguments: argparse.Namespace) -> dict[str, Any]:
    import keras

    from toolkit.data import scan_folder, split_folder
    from toolkit.transfer import FinetuneOptions, HeadOptions, finetune

    imported = time.time()
    split = split_folder(scan_folder(arguments.root / "photos"))
    model, preprocessing = network(arguments)
    assert isinstance(model, keras.Model)
    head = HeadOptions("adam", epochs=arguments.epochs, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE)
    result = finetune(
        model,
        split,
        preprocessing,
        cache_dir=arguments.root / "cache",
        options=FinetuneOptions(unfreeze="none", head=head),
    )
    seconds = result.seconds
    trained = time.time()
    return {
        "imports_s": round(imported - STARTED, 2),
        "from_imports_to_head_s": round(trained - imported - seconds["head"], 2),
        "steps_s": {name: round(value, 2) for name, value in seconds.items()},
        "engine": result.engine,
        "num_computed": result.num_computed,
        "val_accuracy": round(result.val_accuracy, 4),
    }


def run_careful(arguments: argparse.Namespace) -> dict[str, Any]:
    import keras
    import numpy as np
    import tensorflow as tf

    imported = time.time()
    train, val = datasets(arguments, shuffle=False)
    base = frozen_base(arguments)
    features = {name: base.predict(data, verbose=0) for name, data in (("train", train), ("val", val))}
    labels = {
        name: np.asarray([train.class_names.index(Path(path).parent.name) for path in data.file_paths])
        for name, data in (("train", train), ("val", val))
    }
    extracted = time.time()
    head = keras.Sequential([keras.Input(features["train"].shape[1:]), keras.layers.Dense(len(train.class_names))])
    compile_head(head)
    assert tf.executing_eagerly()
    history = head.fit(
        features["train"],
        labels["train"],
        batch_size=BATCH_SIZE,
        epochs=arguments.epochs,
        validation_data=(features["val"], labels["val"]),
        verbose=0,
    )
    return {
        "imports_s": round(imported - STARTED, 2),
        "steps_s": {"features": round(extracted - imported, 2), "head": round(time.time() - extracted, 2)},
        "val_accuracy": round(max(history.history["val_accuracy"]), 4),
    }


def run_tutorial(arguments: argparse.Namespace) -> dict[str, Any]:
    import keras

    imported = time.time()
    train, val = datasets(arguments, shuffle=True)
    base = frozen_base(arguments)
    inputs = keras.Input(base.input_shape[1:])
    model = keras.Model(inputs, keras.layers.Dense(len(train.class_names))(base(inputs, training=False)))
    compile_head(model)
    ends: list[tuple[float, float]] = []
    tell = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append((time.time(), cpu_seconds())))
    num_run = min(arguments.tutorial_epochs or arguments.epochs, arguments.epochs)
    history = model.fit(train, validation_data=val, epochs=num_run, callbacks=[tell], verbose=0)
    figures = {
        "imports_s": round(imported - STARTED, 2),
        "epochs_run": num_run,
        "val_accuracy": round(max(history.history["val_accuracy"]), 4),
    }
    num_left = arguments.epochs - num_run
    if num_left:
        epoch_wall, epoch_cpu = (ends[-1][i] - ends[-2][i] for i in range(2))
        figures["wall_s"] = time.time() - STARTED + num_left * epoch_wall
        figures["cpu_s"] = cpu_seconds() + num_left * epoch_cpu
    return figures


def network(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """With a classifier for two classes, and what its pictures need."""
    import keras

    from toolkit import create_model, model_info
    from toolkit.factory import preprocessing_of

    keras.utils.set_random_seed(0)
    num_classes = len(os.listdir(arguments.root / "photos" / "train"))
    model = create_model(arguments.model, num_classes=num_classes, weights=arguments.weights)
    preprocessing = preprocessing_of(model) if arguments.weights else model_info(arguments.model).preprocessing
    return model, preprocessing


def frozen_base(arguments: argparse.Namespace) -> Any:
    """Pixels in 0…255 to features, with the normalisation inside, as the tutorials have it."""
    import keras

    from toolkit.engines.convert import feature_tensor

    model, preprocessing = network(arguments)
    base = keras.Model(model.input, feature_tensor(model))
    base.trainable = False
    factor, offset = preprocessing.affine()
    inputs = keras.Input(model.input_shape[1:])
    x = keras.layers.Rescaling(list(factor), list(offset))(
        inputs[..., ::-1] if preprocessing.channel_order == "bgr" else inputs
    )
    return keras.Model(inputs, base(x, training=False))


def datasets(arguments: argparse.Namespace, *, shuffle: bool) -> tuple[Any, Any]:
    import keras

    from toolkit import model_info

    size = model_info(arguments.model).input_shape[:2]
    return tuple(
        keras.utils.image_dataset_from_directory(
            arguments.root / "photos" / name,
            image_size=size,
            batch_size=BATCH_SIZE,
            shuffle=shuffle and name == "train",
            seed=0,
            crop_to_aspect_ratio=True,
            verbose=False,
        )
        for name in ("train", "val")
    )


def compile_head(model: Any) -> None:
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss, metrics=["accuracy"])


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def write_photos(source: Path | None, target: Path, count: int) -> dict[str, int]:
    """``count`` JPEG photographs below ``target``, four fifths in train/ unless they come divided."""
    import numpy as np
    from PIL import Image

    originals = read_originals(source)
    total = sum(len(photos) for photos in originals.values())
    rng = np.random.default_rng(0)
    counts = {"train": 0, "val": 0}
    for (split, name), photos in sorted(originals.items()):
        directory = target / split / name
        directory.mkdir(parents=True)
        wanted = round(count * len(photos) / total)
        for index in range(wanted):
            photo = photos[index % len(photos)].convert("RGB")
            if index >= len(photos) or source is None:
                photo = varied(photo, rng)
            photo.save(directory / f"{index:05d}.jpg", quality=90)
        counts[split] += wanted
    assert Image is not None
    return counts


def read_originals(source: Path | None) -> dict[tuple[str, str], list[Any]]:
    from PIL import Image

    from toolkit.data import scan_folder, split_folder

    if source is None:
        from sklearn.datasets import load_sample_images

        photos = [Image.fromarray(image) for image in load_sample_images().images]
        return {
            (split, name): [photo] * share
            for split, share in (("train", 4), ("val", 1))
            for name, photo in zip(("china", "flower"), photos, strict=True)
        }
    folder = scan_folder(source)
    split = split_folder(folder, fractions=(0.8, 0.2, 0.0))
    originals: dict[tuple[str, str], list[Any]] = {}
    for name, subset in (("train", split.train), ("val", split.val)):
        for path, label in zip(subset.paths, subset.labels, strict=True):
            originals.setdefault((name, folder.class_names[label]), []).append(Image.open(path))
    return originals


def varied(photo: Any, rng: Any) -> Any:
    """Another photograph of the same thing: cut by up to a fifth, half of them mirrored, 500 pixels wide."""
    from PIL import Image, ImageOps

    width, height = photo.size
    share = rng.uniform(0.8, 1.0)
    left, top = rng.uniform(0, 1 - share, 2) * (width, height)
    cut = photo.crop((int(left), int(top), int(left + share * width), int(top + share * height)))
    cut = cut.resize((500, round(500 * height / width)), Image.Resampling.BICUBIC)
    return ImageOps.mirror(cut) if rng.random() < 0.5 else cut


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith("flags")).split()
        extensions = [flag for flag in ("avx2", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8") if flag in flags]
        return next(line.split(":")[1].strip() for line in lines if "model name" in line) + f" ({' '.join(extensions)})"
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
