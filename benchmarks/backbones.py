"""Are networks of our own worth fine-tuning where no weights can be downloaded?

    python benchmarks/backbones.py --data $TOOLKIT_DATA --out benchmarks/results/backbones.json

Test accuracy in per cent of `toolkit finetune` from the networks that come along, on sets that
`benchmarks/results/accuracy.json` has figures of: "resnet18", `resnet18-thin`, to which "standard_error" belongs, and
"resnet20", `resnet20-cifar10`; beside GoogLeNet with ImageNet's weights in that file ("googlenet"), and beside
ResNet-20 trained on the set alone ("fresh"). One run each. "out_of_fold" is the accuracy of cross-validation over all
of the set's pictures, which is surer, as there are more of them. "seconds" are the processor's: of features and
classifier, or of the whole training. `resnet18-thin` saw the training pictures of "clothing" and "grocery" without
their labels.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import features_of, percent, write_report

import toolkit
from toolkit.catalogue import model_info
from toolkit.cli.output import print_table
from toolkit.data import scan_folder, teaching_split
from toolkit.metrics import softmax
from toolkit.transfer.heads.selection import SelectionOptions, select_head
from toolkit.workflows.finetune import fitting_network

#: The bundles that come with the project, by the network that takes their weights.
OWN = {"resnet18": "resnet18-thin", "resnet20": "resnet20-cifar10"}
SETS = ("clothing", "grocery", "hymenoptera", "sign_digits")
IMAGENET = Path(__file__).parent / "results" / "accuracy.json"
FRESH = {"run.epochs": 30, "run.batch_size": 32, "optimizer.lr": 0.05, "optimizer.schedule": "cosine"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TOOLKIT_DATA")
    parser.add_argument("--data", type=Path, default=data, required=not data, help="by default $TOOLKIT_DATA")
    parser.add_argument("--cache", type=Path, help="of features, to go on from; by default a new one")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    imagenet = {row["set"]: row["toolkit"] for row in json.loads(IMAGENET.read_text())["rows"]}
    with tempfile.TemporaryDirectory() as directory:
        arguments.cache = arguments.cache or Path(directory) / "cache"
        found = {folder.name: folder for folder in sorted(arguments.data.iterdir()) if folder.name in SETS}
        rows = []
        for name, folder in found.items():
            row: dict[str, Any] = {"set": name}
            for network, weights in OWN.items():
                for key, value in finetuned(arguments, folder, network, weights).items():
                    row.setdefault(key, value)  # the first one's standard error
                row[f"{network}_out_of_fold"] = out_of_fold(arguments, folder, network, weights)
            rows.append(row | {"googlenet": imagenet[name], **fresh(folder)})
            print(rows[-1], flush=True)
    print_table([list(row.values()) for row in rows], list(rows[0]))
    write_report(arguments.out, {"fresh": FRESH, "rows": rows})


def finetuned(arguments: Any, folder: Path, network: str, weights: str) -> dict[str, Any]:
    start = time.process_time()
    scanned = scan_folder(folder)
    split, lots = teaching_split(scanned, keep_val="test" not in scanned.splits)
    model, preprocessing = fitting_network(model_info(network), scanned, weights)
    train, test = features_of(arguments, model, preprocessing, split)
    labels, test_labels = np.asarray(split.train.labels), np.asarray(split.held_out[1].labels)
    options = SelectionOptions(lots=lots.lot_of)
    chosen = select_head(train, labels, num_classes=len(scanned.class_names), options=options)
    answers = softmax(chosen.head.logits(chosen.features.join(test)))
    accuracy = float(np.mean(answers.argmax(axis=1) == test_labels))
    return {
        "classes": len(scanned.class_names),
        "train": len(labels),
        "test": len(test_labels),
        network: percent(accuracy),
        "standard_error": percent((accuracy * (1 - accuracy) / len(test_labels)) ** 0.5),
        f"{network}_seconds": round(time.process_time() - start, 1),
    }


def out_of_fold(arguments: Any, folder: Path, network: str, weights: str) -> float:
    scanned = scan_folder(folder)
    with tempfile.TemporaryDirectory() as place:
        table = Path(place) / "all.csv"
        rows = (
            [folder.absolute() / path, scanned.class_names[label]]
            for path, label in zip(scanned.paths, scanned.labels, strict=True)
        )
        with table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "label"), *rows])
        found = toolkit.finetune(table, model=network, weights=weights, unfreeze="none", cache=arguments.cache)
    return percent(found["accuracy"])


def fresh(folder: Path) -> dict[str, Any]:
    start = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        metrics = toolkit.train(folder, model="resnet20", out=Path(place) / "run", set=FRESH)["metrics"]
    return {"fresh": percent(metrics["top1"]), "fresh_seconds": round(time.process_time() - start, 1)}


if __name__ == "__main__":
    main()
