"""Sections of experiments that check what the papers claim."""

import statistics
from collections.abc import Sequence

from charts import Chart, Curves, Depths, Draw, Values, against_depth, panels, rows_chart
from experiments import EXPERIMENTS
from records import Record, origin, papers, picture, read, table


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
        remark += f" {record['note']}" if "note" in record else ""
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
