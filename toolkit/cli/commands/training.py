"""Commands that train from scratch, search settings and check gradients."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli.output import print_epoch, print_json, print_metrics, print_table
from toolkit.errors import UserError

if TYPE_CHECKING:
    from toolkit.training.hosts import Hosts


def train(arguments: Namespace) -> None:
    from toolkit.training.hosts import is_supervised, supervise
    from toolkit.workflows import ExportOptions, TrainOptions, train_folder

    hosts = _hosts(arguments)
    if hosts and not is_supervised():
        raise SystemExit(supervise(hosts, sys.argv[1:]))
    export = arguments.export and ExportOptions(
        arguments.export, arguments.examples, arguments.force, arguments.formats
    )
    data, out = _data_and_run(arguments)
    result = train_folder(
        data,
        arguments.model,
        out=out,
        options=TrainOptions(
            recipe_name=arguments.recipe,
            overrides=tuple(arguments.set),
            weights=arguments.weights,
            smoke_run=arguments.smoke,
            resume=arguments.resume is not None,
            skip_bad=arguments.skip_bad,
            hosts=hosts,
        ),
        export=export,
        epoch_report=print_epoch,
    )
    if arguments.json:
        return print_json(result)
    if "metrics" in result:
        print_metrics(result["metrics"])
    print(result["run"])
    if "bundle" in result:
        print(result["bundle"])
    return None


def _data_and_run(arguments: Namespace) -> tuple[Path | None, Path]:
    """Tell DATA and the run's directory, which stands behind --out or --resume."""
    data, out = arguments.data, arguments.out
    named = Path(arguments.resume) if isinstance(arguments.resume, str) else None
    if named and out and not data:  # `--resume DATA --out RUN`
        data, named = named, None
    if named and out and named.absolute() != out.absolute():
        raise UserError(f"--resume {named} and --out {out} name two runs: leave --out out")
    run = out or named
    if run is None or (arguments.resume is None and not (data and arguments.model)):
        raise UserError("DATA, --model and --out are required, or --resume RUN to go on with a run")
    return data, run


def _hosts(arguments: Namespace) -> "Hosts | None":
    from toolkit.training.hosts import Hosts

    given = (arguments.coordinator, arguments.num_hosts, arguments.host_id)
    if given == (None, None, None):
        return None
    if None in given:
        raise UserError("--coordinator, --num-hosts and --host-id belong together: give all three on every host")
    return Hosts(*given)


def tune(arguments: Namespace) -> None:
    from toolkit.workflows.tune import SearchOptions, tune_folder

    result = tune_folder(
        arguments.data,
        arguments.model,
        out=arguments.out,
        options=SearchOptions(
            search=tuple(arguments.search),
            recipe_name=arguments.recipe,
            overrides=tuple(arguments.set),
            trials=arguments.trials,
            jobs=arguments.jobs,
            seed=arguments.seed,
            metric=arguments.metric,
            prune=arguments.prune,
            skip_bad=arguments.skip_bad,
        ),
        resume=arguments.resume,
        on_trial=_print_trial,
    )
    if arguments.json:
        return print_json(result)
    best, metric = result["best"], result["metric"]
    keys = list(best["settings"])
    rows = [
        [row["trial"], row["state"], row["value"], row["epochs"], *(row["settings"][key] for key in keys)]
        for row in result["trials"]
    ]
    print_table(rows, ["trial", "state", metric, "epochs", *keys])
    for row in result["trials"]:
        if row["error"]:
            print(f"trial {row['trial']} failed: {row['error']}")
    print(f"best: trial {best['trial']}, {metric} {best['value']:.4f}, its settings in {best['config']}")
    if "held_out" in best:
        print_metrics(best["held_out"])
    print(f"picture: {result['plot']}")
    return print(best["command"])


def _print_trial(row: dict[str, Any]) -> None:
    value = row["error"] if row["value"] is None else f"{row['metric']} {row['value']:.4f}"
    settings = " ".join(f"{key}={setting}" for key, setting in row["settings"].items())
    print(
        f"{row['ended']:>3}/{row['total']}  trial {row['trial']} {row['state']}: {value}  {settings}", file=sys.stderr
    )


def gradcheck(arguments: Namespace) -> None:
    from toolkit.workflows.gradcheck import check_model_gradients

    report = check_model_gradients(
        arguments.model,
        size=arguments.size,
        batch_size=arguments.batch,
        num_entries=arguments.entries,
        batch_norm=arguments.batch_norm,
        seed=arguments.seed,
    )
    if arguments.json:
        print_json(report)
    else:
        columns = ["name", "num_checked", "norm", "difference"]
        print_table([[row[c] for c in columns] for row in report["variables"][:10]], columns)
        verdict = "equal to" if report["passed"] else "DIFFERENT from"
        print(
            f"{report['model']} at {'×'.join(map(str, report['input_shape']))}, {report['batch_norm']} statistics: "
            f"gradients of {len(report['variables'])} variables are {verdict} numerical ones; "
            f"worst {report['worst']}, up to {report['tolerance']:g} is rounding"
        )
    if not report["passed"]:
        raise SystemExit(1)
