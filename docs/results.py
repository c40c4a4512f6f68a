"""The page of results from ``benchmarks/results``, and its pictures; ``docs/build.py`` writes them.

No figure stands here: measured ones come from the recorded runs, the papers' from ``papers.json``. A picture's file
notes a digest of what it was drawn from, so that a test finds one that is out of date.
"""

import json
import sys
from pathlib import Path

from toolkit.catalogue import list_models, model_info

ROOT = Path(__file__).parents[1]
PICTURES = Path(__file__).parent / "pictures"
SHIPPED = ROOT / "saved_models"
sys.path += [str(Path(__file__).parent), str(ROOT / "benchmarks")]

from charts import Chart, Values, rows_chart  # noqa: E402
from claims import beside_papers, degradation, initialisers, optimizers  # noqa: E402
from measured import MEASURED  # noqa: E402
from records import Record, origin, papers, picture, read, table  # noqa: E402


def accuracy() -> tuple[list[str], list[Chart]]:
    page, charts = ["## Fine-tuning against a linear probe", ""], []
    sections: dict[str, tuple[str, dict[str, str]]] = {
        "accuracy": (
            "Test accuracy in percent of `toolkit finetune`, of a linear probe on the last features, and of the "
            "nearest neighbours, all of the same network.",
            {"nearest neighbours": "knn", "linear probe": "probe", "toolkit": "toolkit"},
        ),
        "budget": (
            "The same beside trainings of the network itself, in plain Keras: the last stage after its new classifier, "
            "as Keras' guide has it, and every layer; and beside `toolkit finetune --budget`.",
            {
                "linear probe": "probe",
                "last stage trained": "tutorial",
                "every layer trained": "full",
                "toolkit": "toolkit",
                "toolkit, given ten minutes": "budget",
            },
        ),
    }
    for name, (text, kinds) in sections.items():
        record = read(name)
        if record is None:
            continue
        header = ["set", "pictures", "test pictures", *kinds, "standard error of toolkit", "chosen"]
        keys = ["set", "train", "test", *kinds.values(), "standard_error", "chosen"]
        rows = [[row.get(key) for key in keys] for row in record["rows"]]
        page += [text, "", *origin(record), *table(header, rows)]
        series = {kind: [row.get(key) for row in record["rows"]] for kind, key in kinds.items()}
        names = [row["set"] for row in record["rows"]]
        charts.append(rows_chart(name, "Test accuracy", names, series, "test accuracy %"))
        page += picture(charts[-1])
    return page, charts


def recipes() -> tuple[list[str], list[Chart]]:
    """Runs by recipe to their end."""
    page = ["## Trained to the end by recipe", ""]
    lenet, digits = read("train-lenet5-mnist"), read("digits-result")
    rows = []
    for name, record in (("LeNet-5 on MNIST", lenet), ("LeNet-5 on the 1,797 digits of `toolkit samples`", digits)):
        if record:
            error = record.get("test_error_percent", 100 * (1 - record.get("top1", 0)))
            pictures = record.get("test_pictures", record.get("n"))
            command = f"`{record['command']}`" if "command" in record else "`make demo`"
            rows.append([name, pictures, round(float(error), 2), record.get("cpu_seconds"), record["date"], command])
    for folder in sorted(path for path in SHIPPED.glob("*/1") if path.parent.with_suffix(".toml").exists()):
        manifest = json.loads((folder / "assets.extra/manifest.json").read_text(encoding="utf-8"))
        name, metrics = folder.parent.name, manifest["metrics"]
        first = (SHIPPED / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0]
        error = round(100 * (1 - metrics["top1"]), 2)
        rows.append([f"the bundle `{name}`", metrics["n"], error, None, None, f"`{first.removeprefix('# ')}`"])
    header = ["run", "test pictures", "test error %", "processor seconds", "recorded", "command"]
    return [*page, *table(header, rows)], []


def endurance() -> tuple[list[str], list[Chart]]:
    page = [
        "## A server that endures",
        "",
        "Every answer is compared with the one that the bundle gives offline. Memory is looked at when the first",
        "tenth of the requests, the first version, or none of the nonsense has passed, then at times, and at the end.",
        "",
    ]
    words = {"requests": "requests", "swaps": "new versions under load", "fuzz": "requests of nonsense"}
    for key, text in words.items():
        record = read(f"serving-{key}")
        if record is not None:
            told = record[key]
            statuses = ", ".join(f"{count:,} of {status}" for status, count in sorted(told["statuses"].items()))
            sizes = " → ".join(f"{size:,.0f}" for size in told["megabytes"])
            row = [text, statuses, told.get("other_first_class"), told.get("longest_s"), sizes]
            header = ["endured", "answers by status", "other first class", "longest swap s", "MiB"]
            page += [*origin(record), *table(header, [row])]
    return page, []


def published() -> tuple[list[str], list[Chart]]:
    """Published sets of weights, with the commands that score each."""
    page = [
        "## Published weights on ImageNet's validation pictures",
        "",
        "A reader who has the 50,000 validation pictures scores any row with two commands. The first makes a bundle of",
        "the published file; the second wants the pictures in a folder per synset, or flat with the devkit's labels.",
        "`synset_words.txt` lists the 1,000 classes in the order of their synsets, a line `n01440764 tench, …` each;",
        "another order is refused. `benchmarks/published.py` does both and records the figures.",
        "",
        "```text",
        "toolkit import NETWORK --weights TAG --labels synset_words.txt --out saved_models/NETWORK",
        "toolkit evaluate saved_models/NETWORK ILSVRC2012_img_val --imagenet ILSVRC2012_devkit_t12",
        "```",
        "",
    ]
    record = read("published") or {"rows": []}
    rows = []
    for info in map(model_info, list_models()):
        for tag, entry in sorted(info.weights.items()):
            if tag == entry.tag and entry.num_classes == 1000:
                top1 = None if entry.top1 is None else round(100 * entry.top1, 2)
                file = entry.url.rsplit("/", 1)[-1]
                measured = next((row["top1"] for row in record["rows"] if _is_whole(row, info.name, (file, tag))), None)
                rows.append([f"`{info.name}`", f"`{tag}`", f"`{file}`", top1, measured])
    page += table(["network", "tag", "file", "published top-1 %", "measured top-1 %"], rows)
    page += ["Rows with dashes were not run.", ""]
    parts = [row for row in record["rows"] if row["n"] < _VALIDATION]
    if not parts:
        return page, []
    page += ["What was at hand instead: pictures of some of the classes, each answered out of all 1,000.", ""]
    header = ["network", "file", "pictures", "number", "classes", "top-1 %", "top-5 %"]
    keys = ("network", "weights", "pictures", "n", "classes", "top1", "top5")
    for row in parts:
        page += [*origin(row), *table(header, [[row[key] for key in keys]])]
    names = [f"{row['network']}, {row['pictures']}" for row in parts]
    series: dict[str, Values] = {
        name: [row[key] for row in parts] for name, key in (("top-1", "top1"), ("top-5", "top5"))
    }
    chart = rows_chart("published", "Accuracy of published weights", names, series, "accuracy %")
    return [*page, *picture(chart)], [chart]


_VALIDATION = 50_000  # of ImageNet's pictures


def _is_whole(row: Record, network: str, weights: tuple[str, str]) -> bool:
    return row["network"] == network and row["weights"] in weights and row["n"] == _VALIDATION


def sections() -> list[tuple[list[str], list[Chart]]]:
    lecun, he, huang = (papers()["training"][source] for source in ("lecun1998", "he2016", "huang2016"))
    return [
        degradation(),
        beside_papers(
            "cifar",
            "CIFAR-10 beside the papers",
            "Shortened schedules of the same length for all; the papers train longer, He and others for "
            f"{he['steps']:,} steps, Huang and others for {huang['epochs']} epochs. A few epochs tell which network "
            "sets out fast, not how far it comes: deep ones, stochastic depth and the small rate of NiN's recipe have "
            "hardly begun by then. Longer runs of ResNet-20 and ResNet-56 are above.",
        ),
        beside_papers(
            "mnist",
            "MNIST beside the papers",
            f"The papers train on all {lecun['pictures']:,} digits. *shifted* are LeNet-5's distortions: shifts and "
            "rotations. The ensemble averages the networks of all seeds, ten crops one network's answers to ten views.",
        ),
        recipes(),
        optimizers(),
        initialisers(),
        beside_papers(
            "regularisation",
            "Regularisation",
            "A network of dense layers with few pictures, where the training error is soon zero and the test error is "
            "not: the techniques of the notes, one at a time.",
        ),
        accuracy(),
        *(entry.section() for entry in MEASURED),
        endurance(),
        published(),
    ]


def charts() -> list[Chart]:
    """All pictures of the page."""
    return [chart for _, drawn in sections() for chart in drawn]


def page() -> str:
    """The page as Markdown."""
    head = [
        "# Results",
        "",
        "Figures of recorded runs, each with its day, processor, versions and command; the runs are in",
        "`benchmarks/results`, the programs in `benchmarks`. Training errors are the finished network's on training",
        "pictures without augmentation. Commands of single runs name the data set; those with fewer pictures than it",
        "has were given a table of some, drawn evenly from its classes. Written by `python docs/build.py`.",
        "",
    ]
    body = [line for section, _ in sections() for line in section]
    return "\n".join([*head, *body]).rstrip() + "\n"
