"""What fine-tuning's features and head are worth, over many divisions of a small folder of photographs.

    python benchmarks/accuracy.py --model googlenet --weights FILE.caffemodel --photos hymenoptera --out …

One division of a few hundred photographs tells nothing about half a point of accuracy. Every photograph goes through
the frozen network twice, by the way of `benchmarks/finetune.py`'s *careful* user (``image_dataset_from_directory``,
Keras' ``predict``, float32) and by the *toolkit*'s (its own decoding, the feature cache, float16). Then, division by
division, both kinds of features train three heads: the careful user's ``Dense`` layer by Adam for 20 epochs, the
toolkit's by Adam for as many, and the toolkit's default. Half of the photographs train, an eighth validates, the rest
tests.

"difference" is a row's accuracy less the careful user's, in points, over the same divisions; its standard error is over
photographs, of which each is a test picture in every third division or so.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from finetune import BATCH_SIZE, LEARNING_RATE, compile_head, dataset, frozen_base, labels_of, network, processor

from toolkit.cli.output import print_table
from toolkit.data import scan_folder, split_folder
from toolkit.transfer import HeadOptions
from toolkit.transfer.features import extract_features
from toolkit.transfer.head import fit_head

SHARES = (0.5, 0.125, 0.375)
CAREFUL = ("careful", "careful")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="googlenet", help="a registered network with a dense classifier")
    parser.add_argument("--weights", required=True, help="a tag or a file")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photographs by class")
    parser.add_argument("--divisions", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    rows = measure(arguments)
    columns = ["features", "head", "accuracy", "difference", "standard_error"]
    print_table([[row[column] for column in columns] for row in rows], columns)
    if arguments.out:
        report = {
            "command": "python " + " ".join(sys.argv),
            "processor": processor(),
            "versions": {name: version(name) for name in ("keras", "tensorflow", "openvino", "numpy", "pillow")},
            "divisions": arguments.divisions,
            "epochs": arguments.epochs,
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as directory:
        arguments.root = Path(directory)
        folder = replace(scan_folder(link_photos(arguments.photos, arguments.root)), splits=())
        features, labels, places = features_of(arguments)
    answers: dict[tuple[str, str], np.ndarray] = {}
    for seed in range(arguments.divisions):
        split = split_folder(folder, fractions=SHARES, seed=seed)
        train, val, test = (
            [places[Path(path).name] for path in part.paths] for part in (split.train, split.val, split.test)
        )
        for source, own in features.items():
            for name, logits in heads(own, labels, train, val, arguments.epochs).items():
                rights = answers.setdefault((source, name), np.full((arguments.divisions, len(labels)), np.nan))
                rights[seed, test] = logits(own[test]).argmax(axis=1) == labels[test]
        print(f"division {seed + 1} of {arguments.divisions}", file=sys.stderr)
    by_photograph = {key: np.nanmean(rights, axis=0) for key, rights in answers.items()}
    return [
        {"features": source, "head": name} | compared(own, by_photograph[CAREFUL])
        for (source, name), own in by_photograph.items()
    ]


def compared(rights: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """In per cent and points; photographs that were never tested are left out."""
    tested = ~np.isnan(rights)
    differences = (rights - others)[tested]
    return {
        "accuracy": round(100 * float(rights[tested].mean()), 2),
        "difference": round(100 * float(differences.mean()), 2),
        "standard_error": round(100 * float(differences.std() / len(differences) ** 0.5), 2),
    }


def link_photos(photos: Path, root: Path) -> Path:
    """Every readable photograph once, below the classes alone, where ``finetune.py`` looks for those to train on."""
    folder = scan_folder(photos)
    target = root / "photos" / "train"
    for index, (path, label) in enumerate(zip(folder.paths, folder.labels, strict=True)):
        link = target / folder.class_names[label] / f"{index:05d}{Path(path).suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((folder.root / path).resolve())
    return target


def features_of(arguments: argparse.Namespace) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, int]]:
    """Both kinds, (photographs, features); labels; and which row a file's name belongs to."""
    data = dataset(arguments, "train")
    model, preprocessing = network(arguments)
    features = {
        "careful": frozen_base(arguments).predict(data, verbose=0),
        "toolkit": extract_features(model, data.file_paths, preprocessing, cache_dir=arguments.root / "cache").plain,
    }
    return features, labels_of(data), {Path(path).name: place for place, path in enumerate(data.file_paths)}


def heads(features: np.ndarray, labels: np.ndarray, train: list[int], val: list[int], epochs: int) -> dict[str, Any]:
    """Trained heads, each from features to logits."""
    keras.utils.set_random_seed(0)
    careful = keras.Sequential([keras.Input(features.shape[1:]), keras.layers.Dense(int(labels.max()) + 1)])
    compile_head(careful)
    careful.fit(features[train].astype(np.float32), labels[train], batch_size=BATCH_SIZE, epochs=epochs, verbose=0)
    adam = HeadOptions("adam", epochs=epochs, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE)
    data = features[train], labels[train], features[val], labels[val]
    num_classes = int(labels.max()) + 1
    return {
        "careful": lambda own: careful.predict(own.astype(np.float32), verbose=0),
        "toolkit, Adam": fit_head(*data, num_classes=num_classes, options=adam).logits,
        "toolkit": fit_head(*data, num_classes=num_classes).logits,
    }


if __name__ == "__main__":
    main()
