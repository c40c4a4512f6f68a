"""From photographs to a trained classifier, three ways, on two cores.

    python benchmarks/finetune.py --out benchmarks/results/finetune-resnet50.json
    python benchmarks/finetune.py --model googlenet --weights FILE.caffemodel --photos hymenoptera --out …

- *tutorial*: ``image_dataset_from_directory``, a frozen base inside the model, ``fit``;
- *careful*: the same base, ``predict`` once, then ``fit`` a dense layer on what it answered;
- *toolkit*: ``toolkit.transfer.finetune``, from a cold cache, then once more (*repeat*).

All three use the same network, weights file and pictures. The first two train their head by Adam for the same number of
epochs and validate on a fifth; the toolkit chooses and fits its own on all of them by cross-validation, its default.
Each runs in a process of its own. Seconds are of the wall, from the process's start to the trained head; CPU
seconds beside them tell how busy a shared machine was with other things. The tutorial's epochs are all alike, so
``--tutorial-epochs 2`` runs two and counts the second one for those left out; the figures say so, and accuracies are
then those of two epochs: compare them where all ran.

Accuracy is on ``--test`` held-out photographs that no side has seen, after the clock has stopped; with it stands its
standard error, and the differences to the toolkit's in points. Peak memory is the process's, at the stopped clock. The
toolkit's sides import Keras as its commands do, without the packages that Keras only offers to work with.

Photographs are taken from ``--photos`` (class folders, or train/ and val/ with class folders in them); where there are
too few, cut and mirrored copies make up the number, of a photograph always in the same part. By default they are cut
from scikit-learn's two photographs. Weights are random unless ``--weights`` names some, and then lie in a file as any
others: that changes no timing, but leaves accuracy without meaning.
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
from collections.abc import Callable  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from command import given, write_record  # noqa: E402

NUM_CORES = 2
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
RANDOM = "random.safetensors"

#: What a side measured, and which test pictures its classifier gets right.
Side = tuple[dict[str, Any], Callable[[], Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", help="a registered network with a dense classifier")
    parser.add_argument("--weights", help="a tag or a file; random weights by default")
    parser.add_argument("--photos", type=Path, help="a folder of photographs by class")
    parser.add_argument("--count", type=int, default=1000, help="photographs, of which a fifth are for validation")
    parser.add_argument("--test", type=int, default=400, help="further photographs to measure accuracy on")
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
    write_record(report, arguments.out)
    return None


def measure(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    import importlib.metadata

    counts = write_photos(arguments.photos, directory / "photos", arguments.count, arguments.test)
    if not arguments.weights:
        write_random_weights(arguments.model, directory / RANDOM)
    sides = {side: start_side(side, directory) for side in arguments.sides}
    ratios = {
        f"{other} / toolkit, {what}": round(sides[other][what] / sides["toolkit"][what], 2)
        for other in ("tutorial", "careful")
        for what in ("wall_s", "wall_without_imports_s", "cpu_s")
        if other in sides and "toolkit" in sides
    }
    packages = ("keras", "tensorflow", "openvino", "numpy", "pillow")
    return {
        **given(),
        "machine": {"processor": processor(), "cores": NUM_CORES},
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "network": arguments.model,
        "weights": arguments.weights or "random",
        "photographs": counts,
        "epochs": arguments.epochs,
        "sides": sides,
        "ratios": ratios,
        "test_accuracy_less_toolkits_in_points": {
            side: round(100 * (figures["test_accuracy"] - sides["toolkit"]["test_accuracy"]), 2)
            for side, figures in sides.items()
            if side != "toolkit" and "toolkit" in sides
        },
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
    figures, is_right = sides[arguments.side](arguments)
    wall = figures.pop("wall_s", time.time() - STARTED)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    per_unit = 1 if sys.platform == "darwin" else 1024
    figures |= {
        "wall_s": round(wall, 2),
        "wall_without_imports_s": round(wall - figures["imports_s"], 2),
        "cpu_s": round(figures.pop("cpu_s", usage.ru_utime + usage.ru_stime), 2),
        "peak_bytes": usage.ru_maxrss * per_unit,
    }
    right = is_right()  # the clock stands still
    accuracy = float(right.mean())
    error = (accuracy * (1 - accuracy) / len(right)) ** 0.5
    print(json.dumps(figures | {"test_accuracy": round(accuracy, 4), "test_standard_error": round(error, 4)}))


def run_toolkit(arguments: argparse.Namespace) -> Side:
    from toolkit.lazy import keras, without_companions

    with without_companions():  # as the commands import it
        keras.Model  # noqa: B018  (counted as an import)
    from toolkit.data import scan_folder, teaching_split
    from toolkit.transfer import FinetuneOptions, finetune

    imported = time.time()
    split, lots = teaching_split(scan_folder(arguments.root / "photos"))
    scanned = time.time()
    model, preprocessing = network(arguments)
    built = time.time()
    result = finetune(
        model,
        split,
        preprocessing,
        cache_dir=arguments.root / "cache",
        lots=lots.lot_of,
        options=FinetuneOptions(unfreeze="none"),
    )
    figures = {
        "imports_s": round(imported - STARTED, 2),
        "from_imports_to_head_s": round(built - imported + result.seconds["features"], 2),
        "steps_s": {"scan": round(scanned - imported, 2), "network": round(built - scanned, 2)}
        | {name: round(value, 2) for name, value in result.seconds.items()},
        "engine": result.engine,
        "num_computed": result.num_computed,
        "out_of_fold_accuracy": round(result.accuracy or 0.0, 4),
    }

    def is_right() -> Any:
        import numpy as np

        from toolkit.data.feed.arrays import load_pixels
        from toolkit.engines.runtimes import KerasEngine

        engine = KerasEngine(result.model, preprocessing)
        chunks = (split.test.paths[i : i + BATCH_SIZE] for i in range(0, len(split.test), BATCH_SIZE))
        answers = [engine.probabilities(load_pixels(chunk, preprocessing)) for chunk in chunks]
        return np.concatenate(answers).argmax(axis=1) == np.asarray(split.test.labels)

    return figures, is_right


def run_careful(arguments: argparse.Namespace) -> Side:
    import keras

    imported = time.time()
    train, val = datasets(arguments, shuffle=False)
    base = frozen_base(arguments)
    features = {name: base.predict(data, verbose=0) for name, data in (("train", train), ("val", val))}
    labels = {name: labels_of(data) for name, data in (("train", train), ("val", val))}
    extracted = time.time()
    head = keras.Sequential([keras.Input(features["train"].shape[1:]), keras.layers.Dense(len(train.class_names))])
    compile_head(head)
    history = head.fit(
        features["train"],
        labels["train"],
        batch_size=BATCH_SIZE,
        epochs=arguments.epochs,
        validation_data=(features["val"], labels["val"]),
        verbose=0,
    )
    figures = {
        "imports_s": round(imported - STARTED, 2),
        "steps_s": {"features": round(extracted - imported, 2), "head": round(time.time() - extracted, 2)},
        "val_accuracy": round(history.history["val_accuracy"][-1], 4),
    }

    def is_right() -> Any:
        test = dataset(arguments, "test")
        return head.predict(base.predict(test, verbose=0), verbose=0).argmax(axis=1) == labels_of(test)

    return figures, is_right


def run_tutorial(arguments: argparse.Namespace) -> Side:
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
        "val_accuracy": round(history.history["val_accuracy"][-1], 4),
    }
    num_left = arguments.epochs - num_run
    if num_left:
        before, last = ends[-2] if num_run > 1 else (imported, 0.0), ends[-1]
        figures["wall_s"] = time.time() - STARTED + num_left * (last[0] - before[0])
        figures["cpu_s"] = cpu_seconds() + num_left * (last[1] - before[1])

    def is_right() -> Any:
        test = dataset(arguments, "test")
        return model.predict(test, verbose=0).argmax(axis=1) == labels_of(test)

    return figures, is_right


def weights_of(arguments: argparse.Namespace) -> str:
    return arguments.weights or str(arguments.root / RANDOM)


def num_classes(arguments: argparse.Namespace) -> int:
    return len(os.listdir(arguments.root / "photos" / "train"))


def write_random_weights(model: str, path: Path) -> None:
    """In a process of its own, which leaves the others' memory alone."""
    script = (
        "import sys, keras, toolkit; from toolkit.factory import save_weights; keras.utils.set_random_seed(0);"
        "save_weights(toolkit.create_model(sys.argv[1]), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", script, model, str(path)], check=True)


def network(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """With a classifier for the classes at hand, and what its pictures need."""
    import keras

    from toolkit import create_model
    from toolkit.factory import preprocessing_of

    keras.utils.set_random_seed(0)
    model = create_model(arguments.model, num_classes=num_classes(arguments), weights=weights_of(arguments))
    return model, preprocessing_of(model)


def frozen_base(arguments: argparse.Namespace) -> Any:
    """Pixels in 0…255 to features, with the normalisation inside, as the tutorials have it."""
    import keras

    from toolkit.network import feature_tensor

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
    return dataset(arguments, "train", shuffle=shuffle), dataset(arguments, "val")


def dataset(arguments: argparse.Namespace, name: str, *, shuffle: bool = False) -> Any:
    import keras

    from toolkit import model_info

    return keras.utils.image_dataset_from_directory(
        arguments.root / "photos" / name,
        image_size=model_info(arguments.model).input_shape[:2],
        batch_size=BATCH_SIZE,
        shuffle=shuffle,
        seed=0,
        crop_to_aspect_ratio=True,
        verbose=False,
    )


def labels_of(data: Any) -> Any:
    """Of a dataset that is not shuffled."""
    import numpy as np

    return np.asarray([data.class_names.index(Path(path).parent.name) for path in data.file_paths])


def compile_head(model: Any) -> None:
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss, metrics=["accuracy"])


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def write_photos(source: Path | None, target: Path, count: int, num_test: int) -> dict[str, int]:
    """JPEG photographs below ``target``: four fifths of ``count`` in train/, a fifth in val/, ``num_test`` in test/."""
    import numpy as np

    originals = read_originals(source, num_test / (count + num_test))
    wanted = {"train": round(0.8 * count), "val": count - round(0.8 * count), "test": num_test}
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(wanted, 0)
    for (part, name), photos in sorted(originals.items()):
        directory = target / part / name
        directory.mkdir(parents=True)
        total = sum(len(others) for (other, _), others in originals.items() if other == part)
        share = round(wanted[part] * len(photos) / total)
        for index in range(share):
            photo = photos[index % len(photos)].convert("RGB")
            if index >= len(photos) or source is None:
                photo = varied(photo, rng)
            photo.save(directory / f"{index:05d}.jpg", quality=90)
        counts[part] += share
    return counts


def read_originals(source: Path | None, test_share: float) -> dict[tuple[str, str], list[Any]]:
    """Photographs by part and class; a folder's own division is not kept, since it may have no test part."""
    from PIL import Image

    from toolkit.data import scan_folder, split_folder

    if source is None:
        from sklearn.datasets import load_sample_images

        photos = [Image.fromarray(image) for image in load_sample_images().images]
        return {
            (part, name): [photo]
            for part in ("train", "val", "test")
            for name, photo in zip(("china", "flower"), photos, strict=True)
        }
    folder = replace(scan_folder(source), splits=())
    rest = 1 - test_share
    split = split_folder(folder, fractions=(0.8 * rest, 0.2 * rest, test_share))
    originals: dict[tuple[str, str], list[Any]] = {}
    for name, subset in (("train", split.train), ("val", split.val), ("test", split.test)):
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
