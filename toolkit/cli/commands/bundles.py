"""A bundle used, measured, compressed and shown."""

import sys
from argparse import Namespace
from dataclasses import asdict
from typing import Any

from toolkit.cli.commands.shown import print_metrics
from toolkit.cli.output import print_json, print_table, progress_bar


def evaluate(arguments: Namespace) -> None:
    from toolkit.inference import Predictor, evaluate_bundle

    predictor = Predictor.load(arguments.bundle, arguments.engine)
    report = evaluate_bundle(
        predictor, arguments.data, skip_bad=arguments.skip_bad, progress=progress_bar("evaluating")
    )
    if arguments.json:
        return print_json(report)
    print_metrics(report | {"subset": f"{arguments.data}, {report['engine']}"})
    return print_table([[name, 100 * recall] for name, recall in report["per_class"].items()], ["class", "recall %"])


def predict(arguments: Namespace) -> None:
    from toolkit.inference import Predictor

    predictor = Predictor.load(arguments.bundle, arguments.engine)
    answers = predictor.predict(arguments.images, top_k=arguments.top_k)
    if arguments.json:
        documents = [
            {"path": str(path), "predictions": [asdict(prediction) for prediction in answer]}
            for path, answer in zip(arguments.images, answers, strict=True)
        ]
        return print_json(documents)
    for path, answer in zip(arguments.images, answers, strict=True):
        print(f"{path}: " + ", ".join(f"{p.label} {100 * p.probability:.1f} %" for p in answer))
    return None


def compress(arguments: Namespace) -> None:
    from toolkit.workflows.compress import CompressionOptions, compress_bundle

    result = compress_bundle(
        arguments.bundle,
        arguments.method,
        data=arguments.data,
        options=CompressionOptions(
            epochs=arguments.epochs,
            learning_rate=arguments.learning_rate,
            sparsity=arguments.sparsity,
            pattern=arguments.pattern,
            num_clusters=arguments.clusters,
            keep_float=tuple(arguments.keep_float),
            keep_worst=arguments.keep_worst,
            progress=_print_training,
        ),
        page=arguments.report,
        skip_bad=arguments.skip_bad,
        force=arguments.force,
        scan_progress=progress_bar("reading"),
    )
    if arguments.json:
        return print_json(result)
    columns = ["method", "bytes", "gzip_bytes", "top1", "top5", "agreement", "worst_change", "speedup"]
    print_table([[row[column] for column in columns] for row in result["report"]["rows"]], columns)
    if result["kept_float"]:
        print(f"in float: {', '.join(result['kept_float'])}")
    print(result["report"]["rows"][-1]["verdict"])
    return print(result["bundle"])


def _print_training(event: dict[str, Any]) -> None:
    if event["event"] == "epoch":
        shown = "  ".join(f"{key} {value:.4f}" for key, value in event.items() if isinstance(value, float))
        print(f"epoch {event['epoch']:>3}/{event['epochs']}  {shown}", file=sys.stderr)
    else:
        print(f"{event['stage']} …", file=sys.stderr)


def benchmark(arguments: Namespace) -> None:
    from toolkit.inference import benchmark_bundle

    report = benchmark_bundle(arguments.bundle)
    if arguments.json:
        return print_json(report)
    columns = ["engine", "batch", "p50_ms", "p95_ms", "images_per_s", "bytes", "top1_delta"]
    if report["held_out"]:
        print_metrics(report["held_out"] | {"subset": "held-out"})
    print_table([[row[c] for c in columns] for row in report["rows"]], columns)
    return print(report["verdict"])


def verify(arguments: Namespace) -> None:
    from toolkit.inference import verify_bundle

    report = verify_bundle(arguments.bundle, arguments.images)
    if arguments.json:
        return print_json(report)
    columns = ["path", "engine", "label", "probability", "difference"]
    return print_table([[row[c] for c in columns] for row in report["rows"]], columns)


def serve(arguments: Namespace) -> None:
    from toolkit.serving import serve as run_server

    run_server(arguments.directory, host=arguments.host, port=arguments.port, engine=arguments.engine)


def demo(arguments: Namespace) -> None:
    from toolkit.demo import launch

    launch(arguments.directory, host=arguments.host, port=arguments.port, engine=arguments.engine)
