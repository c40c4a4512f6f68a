"""Commands that train from scratch, search settings and check gradients."""

import sys
from argparse import Namespace
from typing import Any

from toolkit.cli.options import given
from toolkit.cli.output import print_epoch, print_json, print_metrics, print_table


def train(arguments: Namespace) -> None:
    from toolkit.api.training import hosts_of
    from toolkit.api.training import train as call
    from toolkit.training.hosts import is_supervised, supervise

    hosts = hosts_of(arguments.coordinator, arguments.num_hosts, arguments.host_id)
    if hosts and not is_supervised():
        raise SystemExit(supervise(hosts, sys.argv[1:]))
    result = call(**given(arguments, call), on_epoch=print_epoch)
    if arguments.json:
        return print_json(result)
    if "metrics" in result:
        print_metrics(result["metrics"])
    print(result["run"])
    if "bundle" in result:
        print(result["bundle"])
    return None


def tune(arguments: Namespace) -> None:
    from toolkit.api.training import tune as call

    result = call(**given(arguments, call), on_trial=_print_trial)
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
    from toolkit.api.training import gradcheck as call

    report = call(**given(arguments, call))
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
