"""The page of results from ``benchmarks/results``, and its pictures; ``docs/build.py`` writes them.

No figure stands here: measured ones come from the recorded runs, the papers' from ``papers.json``. A picture's file
notes a digest of what it was drawn from, so that a test finds one that is out of date.
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from toolkit.catalogue import list_models, model_info

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "results"
PICTURES = Path(__file__).parent / "pictures"
SHIPPED = ROOT / "saved_models"
sys.path += [str(Path(__file__).parent), str(ROOT / "benchmarks")]

from charts import Chart, Curves, Depths, Draw, Values, against_depth, panels, rows_chart  # noqa: E402
from experiments import EXPERIMENTS  # noqa: E402

_MISSING = "–"

Record = dict[str, Any]


# What every section needs


def read(name: str) -> Record | None:
    file = RECORDS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def papers() -> Record:
    """Read the figures that the papers print, which are not measured here."""
    return json.loads((RECORDS / "papers.json").read_text(encoding="utf-8"))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lay out rows as Markdown; figures are aligned to the right, and what is missing is a dash."""
    rows = [[_cell(value) for value in row] for row in rows]
    rule = ["---" if all(_is_word(row[i]) for row in rows) else "--:" for i in range(len(header))]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)] + [""]


def _cell(value: Any) -> str:
    if value is None or value == "":
        return _MISSING
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _is_word(cell: str) -> bool:
    return cell != _MISSING and not cell[:1].isdigit()


def origin(record: Record, remark: str = "") -> list[str]:
    """Say when, on what, with which versions and by which command a record was made."""
    machine = record.get("machine", {})
    place = record.get("device") or record.get("processor") or machine.get("processor") or ""
    if not place and "cores" in record:
        place = f"{record['cores']} cores"
    sets = machine.get("instruction_sets")
    place += f" ({' '.join(sets)})" if sets else ""
    versions = record.get("versions", {})
    known = [f"{package} {versions[package]}" for package in ("keras", "tensorflow", "torch") if package in versions]
    parts = [part for part in (record.get("date"), place, ", ".join(known)) if part]
    command = [f"`{record['command']}`"] if "command" in record else []
    return [" · ".join([*parts, *command]) + ("" if not remark else f"  \n{remark}"), ""]


def picture(chart: Chart) -> list[str]:
    return [f"![{chart.alt}](pictures/{chart.name}.svg)", ""]


# The papers' claims


def by_name(record: Record | None) -> dict[str, list[Record]]:
    """Runs of an experiment by name, one per seed."""
    found: dict[str, list[Record]] = {}
    for run in (record or {}).get("runs", []):
        found.setdefault(run["name"], []).append(run)
    return found


def _mean(runs: Sequence[Record], key: str) -> str | float | None:
    values = [run[key] for run in runs]
    if not values:
        return None
    if len(values) == 1:
        return float(values[0])
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def _number(runs: Sequence[Record], key: str) -> float | None:
    return round(statistics.mean(run[key] for run in runs), 3) if runs else None


def experiment(name: str, title: str, words: str) -> tuple[list[str], Record | None]:
    """Lay out an experiment's table beside the papers' errors; a run that is not done has empty cells."""
    record = read(name)
    printed, sources = papers()["errors"].get(name, {}), papers()["sources"]
    planned = EXPERIMENTS[name]
    runs = by_name(record)
    together = {row["name"]: row for row in (record or {}).get("together", [])}
    named = [run.name for run in planned.runs] + [row.name for row in planned.together]
    named += [run for run in printed if run not in named]
    rows = []
    for run in named:
        done, row = runs.get(run, []), together.get(run)
        seeds = ", ".join(str(one["seed"]) for one in done) or ", ".join(map(str, (row or {}).get("seeds", [])))
        test = _mean(done, "test_error") if done else (row or {}).get("test_error")
        paper = printed.get(run, {})
        remark = f" ({paper['note']})" if "note" in paper else ""
        told = f"{paper['error']:.2f}{remark}" if paper else None
        epochs = done[0]["epochs"] if done else None
        rows.append([f"`{run}`", epochs, seeds, _mean(done, "train_error"), test, told])
    lines_ = [f"## {title}", "", words, ""]
    if record:
        counts = record["pictures"]
        remark = (
            f"{counts['train']:,} pictures of `{record['data']}` to train on, {counts['val']:,} to validate, "
            f"{counts['test']:,} to test."
        )
        lines_ += origin(record, remark)
    else:
        command = (
            f"python benchmarks/papers.py {name} --data {planned.data} --runs runs --out benchmarks/results/{name}.json"
        )
        lines_ += [f"Not run yet: `{command}`.", ""]
    header = ["run", "epochs", "seeds", "training error %", "test error %", "paper's test error %"]
    lines_ += table(header, rows)
    if not all(run in runs or run in together for run in named):
        lines_ += ["Rows with dashes were not run.", ""]
    if printed:
        used = dict.fromkeys(paper["source"] for paper in printed.values())
        lines_ += ["Papers: " + "; ".join(sources[source] for source in used) + ".", ""]
    if runs:
        commands = [done[0]["command"] for done in runs.values()]
        lines_ += ["<details><summary>Commands</summary>", "", "```text", *commands, "```", "", "</details>", ""]
    return lines_, record


def compared(name: str, record: Record | None) -> Chart | None:
    """Draw measured errors beside the papers'."""
    if not record:
        return None
    printed = papers()["errors"].get(name, {})
    runs = by_name(record)
    measured = {run: _number(done, "test_error") for run, done in runs.items()}
    measured |= {row["name"]: row["test_error"] for row in record["together"]}
    names = list(measured)
    trained = [_number(runs.get(run, []), "train_error") for run in names]
    series: dict[str, Values] = {"test, measured here": list(measured.values()), "training, measured here": trained}
    told = [printed[run]["error"] if run in printed else None for run in names]
    if any(value is not None for value in told):
        series["test, the paper's"] = told
    return rows_chart(name, f"Errors of {name}", names, series, "error %")


def _averaged(done: Sequence[Record], key: str) -> list[float]:
    """A curve's mean over seeds."""
    return [round(statistics.mean(column), 4) for column in zip(*(run["curves"][key] for run in done), strict=False)]


def degradation() -> tuple[list[str], list[Chart]]:
    steps = papers()["training"]["he2016"]["steps"]
    words = (
        "The claim: a deeper plain network trains worse, not only tests worse, and a residual one does not. All four "
        f"networks have the same schedule; the paper prints errors of the residual ones, after {steps:,} steps."
    )
    page, record = experiment("degradation", "Degradation and its cure", words)
    runs = by_name(record)
    if not runs:
        return page, []
    kinds = {"training": "error", "validation": "val_error"}
    curves = {f"{name}, {kind}": _averaged(done, key) for name, done in runs.items() for kind, key in kinds.items()}
    shown = {f"{kind} error": {name: curves[f"{name}, {kind}"] for name in runs} for kind in kinds}
    norms = _norms(runs)
    charts = [
        Chart(
            "degradation-curves", "Training and validation error by epoch", curves, panels(shown, "error %"), (9, 3.6)
        ),
        Chart("degradation-gradients", "Gradient norms by layer", norms, _by_layer(norms), (9, 3.6)),
    ]
    depths: Depths = {
        kind: sorted(
            (int(name.removeprefix(kind)), _number(done, "train_error"), _number(done, "test_error"))
            for name, done in runs.items()
            if name.startswith(kind)
        )
        for kind in ("plain", "resnet")
    }

    charts.append(Chart("degradation-depth", "Error against depth", depths, against_depth(depths), (6, 3.4)))
    page += _seen(depths)
    return [*page, *(line for chart in charts for line in picture(chart))], charts


def _seen(depths: Depths) -> list[str]:
    """Say whether the deeper network of each kind ends with more training error than the shallower, or with less."""
    found = []
    for kind, rows in depths.items():
        if len(rows) > 1:
            (shallow, first, _), (deep, last, _) = rows[0], rows[-1]
            word = "above" if last > first else "below" if last < first else "level with"
            found.append(
                f"{kind}{deep} ends {word} {kind}{shallow} in training error, {last:.2f} against {first:.2f} %"
            )
    return [f"Seen in these runs: {'; '.join(found)}.", ""] if found else []


def _norms(runs: dict[str, list[Record]]) -> dict[str, list[list[float]]]:
    """Gradient norms by layer of the first seed's run, after the first and after the last epoch."""
    noted = {name: done[0]["gradient_norms"] for name, done in runs.items() if "gradient_norms" in done[0]}
    return {name: [norms["first_epoch"], norms["last_epoch"]] for name, norms in noted.items()}


def _by_layer(norms: dict[str, list[list[float]]]) -> Draw:
    titles = ("after the first epoch", "after the last epoch")
    shown = {title: {name: both[index] for name, both in norms.items()} for index, title in enumerate(titles)}
    return panels(shown, "gradient norm", log=True, spread=("first layer", "last"))


def beside_papers(name: str, title: str, words: str) -> tuple[list[str], list[Chart]]:
    page, record = experiment(name, title, words)
    chart = compared(name, record)
    return [*page, *(picture(chart) if chart else [])], [chart] if chart else []


def optimizers() -> tuple[list[str], list[Chart]]:
    words = (
        "One network, one order of pictures and one first state; the optimizers at constant rates, the schedules with "
        "momentum. The papers compare them by curves, so there is no figure of theirs to stand beside."
    )
    page, record = experiment("optimizers", "Optimizers and schedules", words)
    runs = by_name(record)
    if not runs:
        return page, []
    curves = {name: _averaged(done, "loss") for name, done in runs.items()}

    shown: dict[str, Curves] = {"optimizers": {}, "schedules of SGD with momentum": {}}
    for name, values in curves.items():
        title = "schedules of SGD with momentum" if name.startswith("schedule-") else "optimizers"
        shown[title][name.removeprefix("schedule-")] = values
    chart = Chart("optimizers", "Training loss by epoch", curves, panels(shown, "training loss", log=True), (9.5, 4))
    return [*page, *picture(chart)], [chart]


def initialisers() -> tuple[list[str], list[Chart]]:
    words = (
        "Gradient norms of a plain network of 20 layers, with and without batch normalisation, when its kernels are "
        "drawn with variance 2 / fan-in (He), 2 / (fan-in + fan-out) (Glorot) and 1 / fan-in (LeCun)."
    )
    page, record = experiment("initialisers", "Initialisers", words)
    runs = by_name(record)
    norms = _norms(runs)
    if not norms:
        return page, []
    page += ["Gradient norms after the first epoch, which vanish towards the first layer or do not:", ""]
    ends = [(name, first[0], first[-1], first[-1] / first[0]) for name, (first, _) in norms.items()]
    rows = [[f"`{name}`", *(f"{value:.3g}" for value in values)] for name, *values in ends]
    page += table(["run", "first layer", "last layer", "last / first"], rows)
    chart = Chart("initialisers", "Gradient norms by layer", norms, _by_layer(norms), (9.5, 3.8))
    return [*page, *picture(chart)], [chart]


# What was measured of the package itself


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


@dataclass(frozen=True)
class Measured:
    """A section whose table and picture are columns of a record's rows.

    ``columns`` are headings with keys of a row, the first of which names it: a key, or ``name`` where that is made of
    several. ``drawn`` are the headings in the picture, whose axis is ``axis``.
    """

    record: str
    title: str
    words: str
    columns: dict[str, str]
    rows: Callable[[Record], list[Record]] = itemgetter("rows")
    name: str = ""
    drawn: tuple[str, ...] = ("seconds", "processor seconds")
    axis: str = "seconds"
    log: bool = False

    def section(self) -> tuple[list[str], list[Chart]]:
        record = read(self.record)
        if record is None:
            return [f"## {self.title}", "", self.words, "", "Not run yet.", ""], []
        rows = self.rows(record)
        rows = [row | {"name": self.name.format(**row)} for row in rows] if self.name else rows
        page = [f"## {self.title}", "", self.words, "", *origin(record)]
        page += table(list(self.columns), [[row.get(key) for key in self.columns.values()] for row in rows])
        first = next(iter(self.columns.values()))
        series = {name: [row.get(self.columns[name]) for row in rows] for name in self.drawn}
        chart = rows_chart(self.record, self.title, [str(row[first]) for row in rows], series, self.axis, self.log)
        return [*page, *picture(chart)], [chart]


def _named(rows: dict[str, Record]) -> list[Record]:
    return [{"name": name, **row} for name, row in rows.items()]


def _percent(rows: list[Record], *keys: str) -> list[Record]:
    return [row | {key: round(100 * row[key], 2) for key in keys if key in row} for row in rows]


_MIB = 2**20


def _compressed(record: Record) -> list[Record]:
    rows = _percent(record["rows"], "top1", "agreement")
    return [row | {"mib": round(row["bytes"] / _MIB, 3), "n": record["n"]} for row in rows]


def _served(record: Record) -> list[Record]:
    rows = [{"name": "offline"} | record["offline"], *_named(record["closed_loop"])]
    for key, words in (("at_70_percent", "70 %"), ("at_300_percent", "300 %")):
        found = record.get(key, {})
        found = {record["best"]: found} if "per_s" in found else found  # of the best alone, in older records
        rows += [row | {"name": f"{name}, at {words}"} for name, row in found.items()]
    return rows


def _maps(record: Record) -> list[Record]:
    rows = []
    for network, halves in record["halves"].items():
        curves = record["faithfulness"][network]
        rows += [
            {"name": f"{method}, {network}"} | halves.get(method, {}) | curves.get(method, {})
            for method in halves | curves
        ]
    return _percent(rows, "peak", "mass", "deletion", "insertion")


MEASURED = (
    Measured(
        "backbones",
        "Fine-tuning the ResNet-20 that comes along",
        "Test accuracy in percent of `toolkit finetune` from `resnet20-cifar10`, beside the same network trained on "
        "those pictures alone and beside GoogLeNet with ImageNet's weights; one run each.",
        {
            "set": "set",
            "classes": "classes",
            "pictures": "train",
            "test pictures": "test",
            "resnet20-cifar10": "resnet20",
            "standard error": "standard_error",
            "ResNet-20 from nothing": "fresh",
            "GoogLeNet from ImageNet": "googlenet",
        },
        drawn=("resnet20-cifar10", "ResNet-20 from nothing", "GoogLeNet from ImageNet"),
        axis="test accuracy %",
    ),
    Measured(
        "unknown",
        "None of these",
        "Pictures of other sets told from those of the bundle's own, on average over all pairs of sets: pictures of "
        "its own refused, and strange ones taken, by the score that tells them apart.",
        {
            "score": "score",
            "own pictures refused %": "false_rejects",
            "strange pictures taken %": "false_accepts",
            "AUROC %": "auroc",
        },
        rows=lambda record: record["mean_over_sets"],
        drawn=("own pictures refused %", "strange pictures taken %"),
        axis="%",
    ),
    Measured(
        "explain",
        "Heat maps",
        "Two photographs of different classes side by side: how often the map's peak lies on the one asked about, and "
        "how much of the map does. Then areas under the curves of whole photographs' probability while their hottest "
        "pixels are deleted, where less is better, and inserted, where more is.",
        {
            "method and network": "name",
            "maps": "maps",
            "peak %": "peak",
            "mass %": "mass",
            "pictures": "pictures",
            "deletion %": "deletion",
            "insertion %": "insertion",
        },
        rows=_maps,
        drawn=("peak %", "mass %", "deletion %", "insertion %"),
        axis="%",
    ),
    Measured(
        "finetune-googlenet",
        "Time to fine-tune GoogLeNet",
        "The same photographs and network: this package, a careful program that maps the pictures once, and a tutorial "
        "that trains through the frozen network.",
        {"side": "name", "seconds": "wall_s", "processor seconds": "cpu_s", "test accuracy %": "test_accuracy"},
        rows=lambda record: _percent(_named(record["sides"]), "test_accuracy"),
        log=True,
    ),
    Measured(
        "finetune-resnet50",
        "Time to fine-tune ResNet-50",
        "The same with random weights; *repeat* is the command given again.",
        {"side": "name", "seconds": "wall_s", "processor seconds": "cpu_s", "epochs": "epochs_run"},
        rows=lambda record: _named(record["sides"]),
        log=True,
    ),
    Measured(
        "journey-googlenet",
        "Whole commands",
        "From the shell to the bundle, imports included.",
        {"command": "name", "seconds": "seconds", "processor seconds": "processor_seconds"},
        rows=lambda record: _named(record["commands"]),
    ),
    Measured(
        "engines-resnet50",
        "Engines",
        "ResNet-50's forms on the same pictures.",
        {"engine": "name", "milliseconds a batch": "median_ms", "pictures/s": "images_per_s", "times": "speedup"},
        name="{engine}, batch {batch}",
        drawn=("pictures/s",),
        axis="pictures a second",
    ),
    *(
        Measured(
            f"serving-{network.lower().replace('-', '')}",
            f"Serving {network}",
            "Clients that each ask again when they are answered, *offline* being the same pictures in one program and "
            "*base* an older state of the server; then requests sent at even intervals, at 70 % and at three times the "
            "rate that was carried.",
            {
                "server": "name",
                "requests/s": "per_s",
                "refused": "refused",
                "mean ms": "mean_ms",
                "99th percentile ms": "p99_ms",
                "processor ms a request": "server_cpu_ms",
            },
            rows=_served,
            drawn=("requests/s",),
            axis="requests a second",
        )
        for network in ("GoogLeNet", "ResNet-50")
    ),
    Measured(
        "pipeline",
        "Input pipeline",
        "Pictures a second here and through Keras' own reader of folders, in the first epoch (*once*), those after "
        "(*then*) and all together.",
        {
            "pictures and epochs": "name",
            "toolkit": "ours_images_per_s",
            "Keras": "keras_images_per_s",
            "ratio": "ratio",
        },
        name="{pictures}, {epochs}",
        drawn=("toolkit", "Keras"),
        axis="pictures a second",
        log=True,
    ),
    Measured(
        "extract",
        "Files through a network",
        "The frozen part's features, answers and an accuracy of a folder of photographs, by the clock and in floors: "
        "the processor time of decoding and of the engine by themselves, shared among the cores.",
        {
            "way": "name",
            "photographs/s": "images_per_s",
            "seconds": "seconds",
            "floor": "floor_s",
            "seconds in floors": "of_floor",
        },
        name="{way}, {engine}",
        drawn=("seconds", "floor"),
    ),
    Measured(
        "decode",
        "Decoding",
        "From a file's bytes to 224 × 224 pixels, a picture at a time in one thread; then the share of twice that a "
        "second thread gains. Keras' loader does not smooth where it scales down.",
        {
            "pictures": "pictures",
            "toolkit ms": "ours_cpu_ms",
            "Keras ms": "keras_cpu_ms",
            "Pillow ms": "pillow_cpu_ms",
            "of Keras'": "of_keras",
            "pictures/s": "images_per_s",
            "gain per thread": "gain_per_thread",
        },
        rows=lambda record: record["times"],
        drawn=("toolkit ms", "Keras ms", "Pillow ms"),
        axis="milliseconds of processor time",
    ),
    Measured(
        "training",
        "Training steps",
        "Pictures a second of a step here, in plain Keras and, where it was beside, in PyTorch; and the processor time "
        "of Keras' step over each one's.",
        {
            "network, package, precision": "name",
            "pixels": "pixels",
            "batch": "batch",
            "pictures/s": "images_per_s",
            "of Keras": "of_keras",
            "of Keras in float32": "of_keras_float32",
        },
        name="{model}, {side}, {policy}",
        drawn=("pictures/s",),
        axis="pictures a second",
        log=True,
    ),
    Measured(
        "scan",
        "Looking at a folder",
        "Every picture decoded once, then remembered.",
        {"run": "run", "seconds": "wall_s", "processor seconds": "cpu_s", "peak MB": "peak_mb"},
    ),
    Measured(
        "build-resnet152",
        "Building ResNet-152",
        "Beside `keras.applications`.",
        {"build": "build", "seconds": "wall_s", "processor seconds": "cpu_s", "of Keras'": "cpu_ratio"},
    ),
    Measured(
        "load-resnet152",
        "Loading ResNet-152's weights",
        "From a file on disk into a network that is built already.",
        {"format": "format", "bytes": "bytes", "seconds to fill": "fill_s"},
        drawn=("seconds to fill",),
    ),
    *(
        Measured(
            f"compress-{network}",
            f"Compression of {title}",
            "Each form of the network on the same held-out pictures; agreement is with the float answers.",
            {"method": "method", "MiB": "mib", "top-1 %": "top1", "agreement %": "agreement", "pictures": "n"},
            rows=_compressed,
            drawn=("top-1 %", "agreement %"),
            axis="%",
        )
        for network, title in (("lenet5", "LeNet-5"), ("resnet20", "ResNet-20"), ("googlenet", "GoogLeNet"))
    ),
    Measured(
        "compress-googlenet-divisions",
        "Compression of GoogLeNet, five divisions of the pictures",
        "Top-1 in percent of each form, where other pictures are held out each time.",
        {"division": "division", "pictures": "n", "float": "float", "int8": "int8", "int8, trained": "qat"},
        drawn=("float", "int8", "int8, trained"),
        axis="top-1 %",
    ),
    Measured(
        "gpu",
        "On a GPU",
        "Training steps of every network with JAX in bfloat16: pictures a second, and the most memory taken by then.",
        {"network": "network", "pictures/s": "images_per_s", "MiB": "mib", "loss": "loss"},
        rows=lambda record: [row | {"mib": (row.get("peak_bytes") or 0) // _MIB or None} for row in record["steps"]],
        drawn=("pictures/s",),
        axis="pictures a second",
        log=True,
    ),
    Measured(
        "peers",
        "Peers",
        "The same network, pictures and batch in other packages, random weights: a step of training and a batch "
        "answered, in processor time.",
        {"network, package, precision": "name", "answer ms": "answer_ms", "training step ms": "step_ms"},
        name="{network}, {side}, {policy}",
        drawn=("answer ms", "training step ms"),
        axis="milliseconds of processor time",
        log=True,
    ),
)


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
            f"{he['steps']:,} steps, Huang and others for {huang['epochs']} epochs.",
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
