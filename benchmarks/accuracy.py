"""The toolkit's classifier beside those of a few lines on the same features, over sets of photographs.

    TOOLKIT_DATA=… python benchmarks/accuracy.py --weights FILE.caffemodel --out benchmarks/results/accuracy.json

Every set is a folder below ``$TOOLKIT_DATA``: ``train`` teaches, and ``test`` (or ``val``, where there is no ``test``)
is looked at once, at the end. Of the CIFAR-10 archive the first 10, 50 and 500 pictures of each class are sets of their
own, tested on the first 100. The features are of one pass of the frozen network:

- *toolkit*: ``select_head`` on all stages of the network seeing the pictures whole, copies kept in one fold, as
  ``toolkit finetune`` does it;
- *probe*: scikit-learn's ``StandardScaler`` and ``LogisticRegression`` on the pooled last stage, pictures cropped as
  the network's authors did, all training pictures;
- *knn*: the vote of the 10 nearest, by the cosine of the same.

``--sides`` adds what trains the network itself in plain Keras, on mirrored pictures, ``--epochs`` each time:

- *tutorial*: as Keras' guide to transfer learning has it, the base frozen under a new classifier, trained by Adam, then
  the last stage too, at a hundredth of the rate;
- *full*: every layer by SGD with momentum, its rate falling along a cosine from ``--lr``.

``--budget 10m`` adds what ``toolkit finetune --budget 10m`` comes to, with the accuracy that it stated without the test
pictures ("budget_stated") and the seconds that it took by the clock: run it where nothing else runs.

"out_of_fold" is what the toolkit says of itself without the test pictures. "calibration_error" is the expected one in
points, over 15 bins, on the test pictures and out of fold: at most 5 where 500 pictures or more teach. "fewer_errors"
compares with the probe: of the mean error over all sets, and the mean over the sets of each one's share. Seconds are
the processor's, of the classifier alone, features being the same for all, or of the whole training.
"""

import argparse
import os
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from command import given, write_record
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import toolkit
from toolkit.catalogue import model_info
from toolkit.cli.output import print_table
from toolkit.data import Split, scan_folder, teaching_split
from toolkit.data.feed.arrays import BatchOptions
from toolkit.data.feed.pipeline import evaluation_batches, training_batches
from toolkit.data.feed.split import Subset
from toolkit.factory import create_model, preprocessing_of
from toolkit.machine import processor
from toolkit.metrics import calibration_error, softmax
from toolkit.spec import Preprocessing
from toolkit.transfer.features import FeatureExtractor
from toolkit.transfer.freeze import stage_of, stages_of
from toolkit.transfer.heads.selection import SelectionOptions, select_head
from toolkit.transfer.insight import knn_accuracy
from toolkit.transfer.stages import pooled_cuts
from toolkit.workflows.finetune import fitting_network

CIFAR_COUNTS = (10, 50, 500)
CIFAR_TEST = 100
BATCH = 16


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--sets", nargs="+", help="by default all that are there")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=[], help="further ones; each takes minutes")
    parser.add_argument("--budget", metavar="TIME", help="also fine-tune for so long, such as 10m")
    parser.add_argument("--epochs", type=int, default=5, help="of each further side's trainings")
    parser.add_argument("--lr", type=float, default=0.003, help="of the side full")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = dict(sets(arguments.data, Path(directory)))
        arguments.cache = arguments.cache or Path(directory) / "cache"
        rows: list[dict[str, Any]] = []
        for name in arguments.sets or sorted(found):
            rows.append(measure(arguments, name, found[name]))
            write_report(arguments.out, {"fewer_errors": fewer_errors(rows), "rows": rows})
    columns = ["set", "train", "test", "probe", "knn", "toolkit", "standard_error", "out_of_fold"]
    columns += ["calibration_error", "out_of_fold_calibration_error", "chosen", "side", "cpu_s"]
    columns += [column for side in arguments.sides for column in (side, f"{side}_cpu_s")]
    columns += ["budget", "budget_stated", "budget_s"] if arguments.budget else []
    print_table([[row[column] for column in columns] for row in rows], columns)
    print(fewer_errors(rows))


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Make a parser of the options that all measurements over sets have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="googlenet", help="a registered network")
    parser.add_argument("--weights", required=True, help="a tag or a file")
    data = os.environ.get("TOOLKIT_DATA")
    parser.add_argument("--data", type=Path, default=data, required=not data, help="by default $TOOLKIT_DATA")
    parser.add_argument("--cache", type=Path, help="of features, to go on from; by default a new one")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    return parser


def write_report(out: Path | None, figures: dict[str, Any]) -> None:
    """Write figures, and what they were measured with."""
    report = {
        **given(),
        "processor": processor(),
        "versions": {name: version(name) for name in ("scikit-learn", "keras", "openvino", "numpy")},
        **figures,
    }
    write_record(report, out)


def sets(data: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Folders with a part to train on and one to test on, by name."""
    for folder in sorted(data.iterdir()):
        if (folder / "train").is_dir() and ((folder / "test").is_dir() or (folder / "val").is_dir()):
            yield folder.name, folder
        for archive in folder.glob("cifar10*.tar*") if folder.is_dir() else ():
            unpack_cifar(archive, scratch)
            yield from ((f"cifar10_{count}", scratch / f"cifar10_{count}") for count in CIFAR_COUNTS)


def unpack_cifar(archive: Path, scratch: Path) -> None:
    """Write the first pictures of each class, as they come in the archive, below a folder for each count."""
    seen: Counter[tuple[str, str]] = Counter()
    with tarfile.open(archive) as file:
        for member in file:
            part, *names = Path(member.name).parts
            if len(names) != 2 or part not in ("train", "test") or not member.isfile():
                continue
            seen[part, names[0]] += 1
            wanted = [
                count for count in CIFAR_COUNTS if seen[part, names[0]] <= (count if part == "train" else CIFAR_TEST)
            ]
            content = file.extractfile(member) if wanted else None
            for count in wanted if content else ():
                path = scratch / f"cifar10_{count}" / part / names[0] / names[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                content.seek(0)
                path.write_bytes(content.read())


def measure(arguments: argparse.Namespace, name: str, folder: Path) -> dict[str, Any]:
    scanned = scan_folder(folder)
    split, lots = teaching_split(scanned, keep_val="test" not in scanned.splits)
    test = split.held_out[1]
    model = create_model(arguments.model, num_classes=len(scanned.class_names), weights=arguments.weights)
    published = features_of(arguments, model, preprocessing_of(model), split)
    x, unseen = (list(own.values())[-1].astype(np.float32) for own in published)
    model, preprocessing = fitting_network(model_info(arguments.model), scanned, arguments.weights)
    train_features, test_features = features_of(arguments, model, preprocessing, split)
    labels, test_labels = np.asarray(split.train.labels), np.asarray(test.labels)

    def toolkit() -> Any:
        return select_head(
            train_features, labels, num_classes=len(scanned.class_names), options=SelectionOptions(lots=lots.lot_of)
        )

    chosen, seconds = timed(toolkit)
    answers = softmax(chosen.head.logits(chosen.features.join(test_features)))
    accuracy = float(np.mean(answers.argmax(axis=1) == test_labels))
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    _, probe_seconds = timed(lambda: probe.fit(x, labels))
    print(f"{name}: {100 * accuracy:.1f} %", file=sys.stderr)
    further: dict[str, float] = {}
    for side in arguments.sides:
        model = create_model(arguments.model, num_classes=len(scanned.class_names), weights=arguments.weights)
        _, side_seconds = timed(lambda side=side, model=model: SIDES[side](model, split.train, arguments))
        named = model.predict(plain_batches(test, preprocessing_of(model)), verbose=0).argmax(axis=1)
        further |= {side: percent(np.mean(named == test_labels)), f"{side}_cpu_s": side_seconds}
        print(f"{name}: {further}", file=sys.stderr)
    if arguments.budget:
        further |= budget(arguments, folder)
        print(f"{name}: {further}", file=sys.stderr)
    return {
        "set": name,
        "train": len(labels),
        "test": len(test_labels),
        "probe": percent(probe.score(unseen, test_labels)),
        "knn": percent(knn_accuracy(x, labels, unseen, test_labels)),
        "toolkit": percent(accuracy),
        "standard_error": percent((accuracy * (1 - accuracy) / len(test_labels)) ** 0.5),
        "out_of_fold": percent(chosen.accuracy or 0.0),
        "out_of_fold_standard_error": percent(chosen.standard_error or 0.0),
        "calibration_error": percent(calibration_error(answers, test_labels)),
        "out_of_fold_calibration_error": percent(chosen.calibration_error or 0.0),
        "chosen": chosen.chosen,
        "side": preprocessing.size[0],
        "cpu_s": seconds,
        "probe_cpu_s": probe_seconds,
        **further,
    }


def budget(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        result = toolkit.finetune(
            folder,
            model=arguments.model,
            weights=arguments.weights,
            budget=arguments.budget,
            keep_val="test" not in scan_folder(folder).splits,
            out=Path(place) / "bundle",
            cache=Path(place) / "cache",
        )
        accuracy, stated = result["metrics"]["top1"], result["accuracy"]
    seconds = round(time.monotonic() - start, 1)
    return {"budget": percent(accuracy), "budget_stated": percent(stated), "budget_s": seconds}


def features_of(
    arguments: argparse.Namespace, model: Any, preprocessing: Preprocessing, split: Split
) -> list[dict[str, np.ndarray]]:
    """Features of training and of test pictures by cut, (pictures, width)."""
    with FeatureExtractor(model, preprocessing, cache_dir=arguments.cache, cuts=pooled_cuts(model)) as extractor:
        parts = [extractor.extract_cuts(own.paths) for own in (split.train, split.held_out[1])]
    return [{name: features.plain for name, features in part.items()} for part in parts]


def plain_batches(subset: Subset, preprocessing: Preprocessing) -> tf.data.Dataset:
    return evaluation_batches(subset, preprocessing, batch_size=BATCH)


def mirrored_batches(subset: Subset, preprocessing: Preprocessing) -> tf.data.Dataset:
    return training_batches(subset, preprocessing, BatchOptions(BATCH, seed=0, augment="mirror"))


def train(model: keras.Model, subset: Subset, optimizer: keras.Optimizer, epochs: int) -> None:
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = mirrored_batches(subset, preprocessing_of(model))
    model.fit(batches, epochs=epochs, steps_per_epoch=-(-len(subset) // BATCH), shuffle=False, verbose=0)


def tutorial(model: keras.Model, subset: Subset, arguments: argparse.Namespace) -> None:
    *_, last, head = stages_of(model)
    for rate, trained in ((1e-3, {head}), (1e-5, {last, head})):
        for layer in model.layers:
            layer.trainable = stage_of(layer.name) in trained
        train(model, subset, keras.optimizers.Adam(rate), arguments.epochs)


def full(model: keras.Model, subset: Subset, arguments: argparse.Namespace) -> None:
    num_steps = arguments.epochs * -(-len(subset) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(arguments.lr, num_steps)
    train(model, subset, keras.optimizers.SGD(rate, momentum=0.9), arguments.epochs)


SIDES = {"tutorial": tutorial, "full": full}


def timed(do: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = do()
    return result, round(time.process_time() - start, 2)


def percent(share: float) -> float:
    return round(100 * float(share), 2)


def fewer_errors(rows: list[dict[str, Any]]) -> dict[str, float]:
    """In per cent of the probe's."""
    probe, ours = (np.array([100 - row[side] for row in rows]) for side in ("probe", "toolkit"))
    known = probe > 0
    return {
        "of_the_mean_error": round(100 * float(1 - ours.mean() / probe.mean()), 1),
        "mean_over_sets": round(100 * float(np.mean(1 - ours[known] / probe[known])), 1),
    }


if __name__ == "__main__":
    main()
