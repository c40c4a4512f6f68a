"""The claims of the papers and of the lecture notes, tried out: named experiments, each a list of training runs.

    python benchmarks/papers.py degradation --data cifar10 --runs runs --out benchmarks/results/degradation.json

Every run is a `toolkit train` of its own, for each of `--seeds`. The file is written anew after each. A command given
again goes on where it was killed: a run that is done is not done again, one that is begun is resumed. `--pictures`,
`--test-pictures` and `--epochs` change what an experiment's table says; 0 pictures are all there are.

A run's curves are those of `metrics.jsonl`: errors of the training pictures as they pass, augmented, and of validation
pictures. Its training error is the finished network's on up to 10,000 training pictures that are not augmented, its
test error the one on all test pictures, which are seen once. Gradient norms are those that training notes after each
epoch, on 32 training pictures; here are those of the first and the last epoch, by layer with a kernel.
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command import given_command
from experiments import EXPERIMENTS, Experiment, Run

from toolkit.cli.arguments import positive
from toolkit.cli.output import print_table
from toolkit.data import scan_folder, split_folder
from toolkit.machine import installed_versions, instruction_sets, processor

_JUDGED = 10_000  # training pictures that the finished network is shown


@dataclass(frozen=True)
class Work:
    """An experiment under way: what was asked for, its table of pictures, and the process that judges its networks."""

    experiment: Experiment
    arguments: argparse.Namespace
    table: Path
    judge: ProcessPoolExecutor

    @property
    def epochs(self) -> int:
        return self.arguments.epochs or self.experiment.epochs

    def place(self, run: Run, seed: int) -> Path:
        return self.table.parent / f"{run.name}-seed-{seed}-epochs-{self.epochs}"

    def judged(self, places: list[Path], subset: str, crops: int = 1) -> float:
        """Give the error, in percent, of one network or of several together."""
        return self.judge.submit(_judge, places, self.table, subset, crops).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--data", required=True, type=Path, help="anything that `toolkit train` reads")
    parser.add_argument("--runs", required=True, type=Path, help="a folder for the runs, to go on after a kill")
    parser.add_argument("--out", required=True, type=Path, help="write the figures as JSON")
    parser.add_argument("--epochs", type=positive, help="of every run, instead of the experiment's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--at-once", type=positive, default=1, help="runs beside each other, for a GPU that one leaves idle"
    )
    parser.add_argument("--only", nargs="+", metavar="RUN", help="train these runs; of the others what is done counts")
    parser.add_argument("--pictures", type=int, help="training pictures, instead of the experiment's")
    parser.add_argument("--test-pictures", type=int, help="likewise")
    arguments = parser.parse_args()
    experiment = EXPERIMENTS[arguments.experiment]
    unknown = set(arguments.only or ()) - {run.name for run in experiment.runs}
    if unknown:
        parser.error(f"--only {min(unknown)}: expected some of {', '.join(run.name for run in experiment.runs)}")

    folder = arguments.runs / arguments.experiment
    folder.mkdir(parents=True, exist_ok=True)
    note_command(folder / "commands.txt")
    table = pictures_table(arguments.data, folder, _limits(experiment, arguments))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # runs beside each other share a GPU's memory
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as judge:
        work = Work(experiment, arguments, table, judge)
        wanted = [run for run in experiment.runs if arguments.only is None or run.name in arguments.only]
        with ThreadPoolExecutor(arguments.at_once) as pool:
            performed = [pool.submit(perform, run, seed, work) for seed in arguments.seeds for run in wanted]
            for done in as_completed(performed):
                done.result()
                write(report(work), arguments.out)
        figures = report(work) | {"together": averaged(work)}
    write(figures, arguments.out)
    columns = ["name", "seed", "epochs", "train_error", "test_error", "cpu_seconds"]
    print_table([[run[column] for column in columns] for run in figures["runs"]], columns)
    if figures["together"]:
        print_table([[row["name"], row["test_error"]] for row in figures["together"]], ["name", "test_error"])


def _limits(experiment: Experiment, arguments: argparse.Namespace) -> dict[str, int]:
    """Pictures of each subset; 0 for all."""
    train = experiment.pictures if arguments.pictures is None else arguments.pictures
    test = experiment.test_pictures if arguments.test_pictures is None else arguments.test_pictures
    return {"train": train, "val": max(100, train // 5) if train else 0, "test": test}


def pictures_table(data: Path, folder: Path, limits: dict[str, int]) -> Path:
    """Write an experiment's pictures as a table that `toolkit train` reads, once, drawn evenly from all classes."""
    table = folder / ("pictures-" + "-".join(str(limits[name] or "all") for name in ("train", "test")) + ".csv")
    if table.exists():
        return table
    found = scan_folder(data)
    # 1,500 of CIFAR's 50,000 training pictures are for validation.
    split = split_folder(found, fractions=(0.97, 0.03, 0.0) if found.splits else None)
    rows = []
    for name, limit in limits.items():
        subset = getattr(split, name)
        kept = _drawn(subset.labels, limit)
        rows += [(str(Path(subset.paths[i]).absolute()), found.class_names[subset.labels[i]], name) for i in kept]
    staging = table.with_suffix(".partial")
    with staging.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    os.replace(staging, table)
    return table


def _drawn(labels: tuple[int, ...], limit: int) -> list[int]:
    """Draw so many at random, one class after the other, as long as there are any."""
    if not 0 < limit < len(labels):
        return list(range(len(labels)))
    order = list(range(len(labels)))
    random.Random(0).shuffle(order)
    turn: dict[int, int] = {}
    turns = []
    for index in order:
        turns.append((turn.setdefault(labels[index], 0), index))
        turn[labels[index]] += 1
    return sorted(index for _, index in sorted(turns)[:limit])


def note_command(file: Path) -> None:
    """Add the command to those that the folder's runs are of; a record is of all of them."""
    noted = file.read_text().splitlines() if file.exists() else []
    file.write_text("\n".join(dict.fromkeys([*noted, given_command()])) + "\n")


def perform(run: Run, seed: int, work: Work) -> None:
    """Train, judge and note a run, unless that is done; one that was begun goes on."""
    place = work.place(run, seed)
    noted = place.with_suffix(".json")
    if noted.exists():
        return
    settings = (*work.experiment.settings, *run.settings, f"run.epochs={work.epochs}", f"run.seed={seed}")
    options = [part for setting in settings for part in ("--set", setting)]
    command = ["train", str(work.table), "--model", run.model, *options]
    resumed = (place / "metrics.jsonl").exists()
    print(f"{'resuming' if resumed else 'training'} {place.name}", file=sys.stderr, flush=True)
    start = time.perf_counter()
    words = [sys.executable, "-m", "toolkit", *command, "--out", str(place), "--resume", "--json"]
    training = subprocess.Popen(words, stdout=subprocess.PIPE)
    answer = training.stdout.read()
    _, status, used = os.wait4(training.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), words)
    metrics = json.loads(answer)["metrics"]
    record = {
        "name": run.name,
        "model": run.model,
        "seed": seed,
        "command": shlex.join(["toolkit", "train", work.arguments.data.name, *command[2:]]),
        **_curves(place),
        "train_error": work.judged([place], "train"),
        "test_error": _percent(metrics["top1"]),
        # Of a resumed run they are those since it went on.
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "resumed": resumed,
    }
    write(record, noted)


def _percent(accuracy: float) -> float:
    return round(100 * (1 - accuracy), 2)


def _curves(place: Path) -> dict[str, Any]:
    """Read what a run noted of its epochs."""
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    curves: dict[str, list[float]] = {
        name: [float(f"{row[name]:.4g}") for row in rows] for name in ("loss", "val_loss", "lr")
    }
    curves |= {
        name: [_percent(row[key]) for row in rows]
        for name, key in (("error", "accuracy"), ("val_error", "val_accuracy"))
    }
    return {"epochs": len(rows), "curves": curves} | _gradient_norms(place / "gradient_norms.jsonl")


def _gradient_norms(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    rows = [json.loads(line)["norms"] for line in file.read_text().splitlines()]
    layers = [name for name in rows[0] if not re.search(r"_bn\d*$", name)]
    norms = {
        f"{which}_epoch": [float(f"{row[layer]:.3g}") for layer in layers]
        for which, row in (("first", rows[0]), ("last", rows[-1]))
    }
    return {"gradient_norms": {"layers": layers} | norms}


def _judge(places: list[Path], table: Path, subset: str, crops: int) -> float:
    import numpy as np

    from toolkit.engines.runtimes import KerasEngine
    from toolkit.ensemble import Ensemble, Member
    from toolkit.ensemble.crops import plan_crops
    from toolkit.network import as_float32, load_network
    from toolkit.spec import Preprocessing

    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == subset]
    rows = random.Random(1).sample(rows, min(len(rows), _JUDGED))
    members = []
    for place in places:
        noted = json.loads((place / "model.json").read_text())
        preprocessing = Preprocessing.from_dict(noted["preprocessing"])
        engine = KerasEngine(as_float32(load_network(place / "model.keras")), preprocessing)
        members.append(Member(engine, preprocessing, plan_crops(preprocessing, crops)))
    together = Ensemble(members)
    names, right = noted["class_names"], 0
    for start in range(0, len(rows), 128):
        some = rows[start : start + 128]
        answers = together.probabilities(together.decode_all([row["path"] for row in some])).argmax(axis=1)
        right += int(np.sum(answers == [names.index(row["label"]) for row in some]))
    return _percent(right / len(rows))


def averaged(work: Work) -> list[dict[str, Any]]:
    """Judge what several networks, or several crops, say together, where the networks are there."""
    rows = []
    for together in work.experiment.together:
        run = next(run for run in work.experiment.runs if run.name == together.of)
        seeds = work.arguments.seeds if together.every_seed else work.arguments.seeds[:1]
        places = [work.place(run, seed) for seed in seeds]
        if all(place.with_suffix(".json").exists() for place in places) and len(places) * together.crops > 1:
            error = work.judged(places, "test", together.crops)
            row = {"name": together.name, "of": together.of, "seeds": seeds, "crops": together.crops}
            rows.append(row | {"test_error": error})
    return rows


def report(work: Work) -> dict[str, Any]:
    """Gather the runs that are done."""
    experiment, arguments = work.experiment, work.arguments
    places = [work.place(run, seed) for run in experiment.runs for seed in arguments.seeds]
    noted = [place.with_suffix(".json") for place in places]
    with work.table.open(newline="", encoding="utf-8") as file:
        subsets = [row["split"] for row in csv.DictReader(file)]
    return {
        "command": (work.table.parent / "commands.txt").read_text().rstrip().replace("\n", " && "),
        "date": time.strftime("%Y-%m-%d"),
        "data": arguments.data.name,
        "pictures": {name: subsets.count(name) for name in ("train", "val", "test")},
        "machine": {"processor": processor(), "instruction_sets": instruction_sets(), **_gpu()},
        "load_at_end": [round(value, 1) for value in os.getloadavg()],
        "versions": installed_versions("toolkit", "keras", _backend(), "numpy"),
        "planned": [run.name for run in experiment.runs] + [row.name for row in experiment.together],
        "runs": [json.loads(file.read_text()) for file in noted if file.exists()],
        "together": [],
    }


def _backend() -> str:
    return os.environ.get("KERAS_BACKEND", "tensorflow")


def _gpu() -> dict[str, str]:
    if _backend() != "jax":
        return {}
    import jax

    return {} if jax.default_backend() == "cpu" else {"gpu": str(jax.devices()[0].device_kind)}


def write(document: dict[str, Any], file: Path) -> None:
    """Write JSON with a line for each list of figures, in one step."""
    text = re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s*\n\s*", " ", found[0]), json.dumps(document, indent=1))
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_suffix(".partial")
    staging.write_text(text.replace("[ ", "[").replace(" ]", "]") + "\n")
    os.replace(staging, file)


if __name__ == "__main__":
    main()
