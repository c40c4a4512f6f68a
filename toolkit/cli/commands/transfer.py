"""Commands that fine-tune and look after the cache of features."""

import time
from argparse import Namespace
from typing import Any

from toolkit.cli.options import given
from toolkit.cli.output import print_epoch, print_json, print_metrics, print_table


def finetune(arguments: Namespace) -> None:
    from toolkit.api.transfer import finetune as call

    result = call(**given(arguments, call), on_epoch=print_epoch)
    if arguments.json:
        return print_json(result)
    how = result["finetuning"]
    print(how["plan"])
    for step in how["steps"]:
        reached = "unknown" if step["accuracy"] is None else f"{100 * step['accuracy']:.2f} %"
        print(f"{step['name']}: {step['subset']} accuracy {reached}" + ("" if step["kept"] else ", not kept"))
    if result["metrics"]:
        print_metrics(result["metrics"])
    return print(result["bundle"])


def cache(arguments: Namespace) -> None:
    from toolkit.api import transfer as calls

    call: Any = {"list": calls.list_cache, "verify": calls.verify_cache, "prune": calls.prune_cache}[arguments.action]
    report = call(**given(arguments, call))
    if arguments.json:
        return print_json(report)
    if arguments.action == "list":
        return _print_cache(report)
    if arguments.action == "verify":
        counts = f"{report['damaged']:,} of {report['entries']:,} entries were damaged, and are removed"
        return print(f"{report['path']}: {counts}")
    shrunk = "" if report["compacted"] else "; in use elsewhere, so it does not shrink yet"
    return print(f"{report['path']}: {report['entries']:,} entries removed, {report['bytes']:,} bytes left{shrunk}")


def _print_cache(report: dict[str, Any]) -> None:
    def row(context: dict[str, Any]) -> list[Any]:
        shape = "×".join(map(str, context["shape"]))
        last_used = time.strftime("%Y-%m-%d %H:%M", time.localtime(context["last_used"]))
        identity = [context["id"][:8], context["network"], context["cut"], shape, context["dtype"]]
        return [*identity, context["entries"], context["bytes"], last_used]

    rows = [row(context) for context in report["contexts"]]
    print_table(rows, ["id", "network", "cut", "shape", "dtype", "entries", "bytes", "last used"])
    print(f"{report['bytes']:,} bytes in {report['path']}")
