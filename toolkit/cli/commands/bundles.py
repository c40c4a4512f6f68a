"""Commands on bundles: measure, compress, export, serve, open the demo; those on versions are in ``versions``."""

from argparse import Namespace
from typing import Any

from toolkit.cli.options import given
from toolkit.cli.output import print_json, print_metrics, print_table


def evaluate(arguments: Namespace) -> None:
    from toolkit.api.bundles.runtimes import evaluate as call

    report = call(**given(arguments, call))
    if arguments.json:
        return print_json(report)
    print_metrics(report | {"subset": f"{arguments.data}, {report['engine']}"})
    print(f"measured on {report['pictures']}")
    if "rejected" in report:
        print(_rejection(report))
    if report["confusions"]:
        pairs = (f"{true} as {answer} ({count:,})" for true, answer, count in report["confusions"])
        print(f"most frequent errors: {', '.join(pairs)}")
    return print_table([[name, 100 * recall] for name, recall in report["per_class"].items()], ["class", "recall %"])


def _rejection(report: dict[str, Any]) -> str:
    below = f"below {100 * report['reject_below']:.1f} %" if "reject_below" in report else ""
    threshold = " or ".join(filter(None, ["unfamiliar" if "novelty_above" in report else "", below]))
    if report["top1_answered"] is None:
        return f"none of these ({threshold}): all of them"
    return (
        f"none of these ({threshold}): {100 * report['rejected']:.2f} %; "
        f"top-1 of the others {100 * report['top1_answered']:.2f} %"
    )


def ensemble(arguments: Namespace) -> None:
    from toolkit.api.bundles.building import ensemble as call

    result = call(**given(arguments, call))
    if arguments.json:
        return print_json(result)
    if "top1" in result["metrics"]:
        print_metrics(result["metrics"])
    return print(result["bundle"])


def compress(arguments: Namespace) -> None:
    from toolkit.api.bundles.building import compress as call

    result = call(**given(arguments, call))
    if arguments.json:
        return print_json(result)
    if "report" in result:
        _print_compression(result)
    return print(result["bundle"])


def _print_compression(result: dict[str, Any]) -> None:
    from toolkit.compress.report import timing_note

    rows = result["report"]["rows"]
    columns = ["method", "bytes", "gzip_bytes", "zeros", "top1", "top5", "agreement", "worst_change", "speedup"]
    if rows[0]["top5"] is None:
        columns.remove("top5")
    print_table([[row[column] for column in columns] for row in rows], columns)
    print(f"measured on {result['report']['pictures']}")
    if result["kept_float"]:
        print(f"in float: {', '.join(result['kept_float'])}")
    print(timing_note(result["report"]["timing"]))
    print(f"{rows[-1]['changes']}.")
    print(rows[-1]["verdict"])


def import_model(arguments: Namespace) -> None:
    from toolkit.api.bundles.building import import_model as call

    result = call(**given(arguments, call))
    return print_json(result) if arguments.json else print(result["bundle"])


def export(arguments: Namespace) -> None:
    from toolkit.api.bundles.runtimes import export as call

    result = call(**given(arguments, call))
    if arguments.json:
        return print_json(result)
    if "files" in result:
        return _print_served_elsewhere(result)
    print(f"ONNX Runtime within {result['difference']:.1e} of Keras in probability on {result['n']} pictures")
    return print(result["file"])


def _print_served_elsewhere(result: dict[str, Any]) -> None:
    rows = [[size, taken, 1000 * size / taken] for size, taken in result["milliseconds"].items()]
    print_table(rows, ["batch", "ms", "pictures/s"])
    chosen = result["batching"]
    print(f"batches of {chosen['size']}, which wait {chosen['wait_ms']:.1f} ms for one another at most")
    for file in result["files"]:
        print(f"{result['directory']}/{file}")
    return None


def benchmark(arguments: Namespace) -> None:
    from toolkit.api.bundles.runtimes import benchmark as call

    report = call(**given(arguments, call))
    if arguments.json:
        return print_json(report)
    columns = ["engine", "batch", "p50_ms", "p95_ms", "images_per_s", "bytes", "top1_delta"]
    if report["held_out"]:
        print_metrics(report["held_out"])
    print_table([[row[c] for c in columns] for row in report["rows"]], columns)
    return print(report["verdict"])


def verify(arguments: Namespace) -> None:
    from toolkit.api.bundles.runtimes import verify as call

    report = call(**given(arguments, call))
    if arguments.json:
        return print_json(report)
    columns = ["path", "engine", "label", "probability", "difference"]
    return print_table([[row[c] for c in columns] for row in report["rows"]], columns)


def serve(arguments: Namespace) -> None:
    from toolkit.api.bundles.runtimes import serve as call

    call(**given(arguments, call))


def demo(arguments: Namespace) -> None:
    from toolkit.api.bundles.runtimes import demo as call

    call(**given(arguments, call))
