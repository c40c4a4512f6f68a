"""One function per command: call, then print. Imports stand inside, so that each command pays for its own only."""

import os
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit.cli.output import print_json, print_table, progress_bar
from toolkit.spec import UserError


def models(arguments: Namespace) -> None:
    from toolkit.registry import list_models, model_info

    if arguments.name:
        return _layer_table(arguments)
    if arguments.draw:
        raise UserError("--draw draws one network: give its name, as in `toolkit models resnet50 --draw resnet50.svg`")
    infos = [model_info(name) for name in list_models()]
    rows: list[dict[str, Any]] = [
        {
            "name": info.name,
            "title": info.title,
            "year": info.year,
            "input_shape": list(info.input_shape),
            "num_params": info.num_params,
            "macs": info.macs,
            "stages": list(info.stages),
            "weights": sorted(info.weights),
            "deviations": list(info.deviations),
            "paper": info.paper,
        }
        for info in infos
    ]
    if arguments.json:
        return print_json(rows)
    table = [
        [r["name"], r["title"], str(r["year"]), "×".join(map(str, r["input_shape"])), r["num_params"], r["macs"]]
        for r in rows
    ]
    return print_table(table, ["name", "network", "year", "input", "parameters", "multiply-adds"])


def _layer_table(arguments: Namespace) -> None:
    from toolkit.arithmetic import format_table, layer_table, summary
    from toolkit.draw import check_path, draw_model
    from toolkit.factory import create_model
    from toolkit.registry import model_info

    info = model_info(arguments.name)
    if arguments.draw:
        check_path(arguments.draw)
    model = create_model(info.name)
    rows = layer_table(model)
    if arguments.draw:
        draw_model(model, arguments.draw, title=info.title)
    if arguments.json:
        return print_json([asdict(row) for row in rows])
    print(f"{info.title}: {info.paper}\n")
    print(format_table(rows))
    print(f"\n{summary(rows)}\n")
    for deviation in info.deviations:
        print(f"Differs from the paper: {deviation}")
    if arguments.draw:
        print(f"Drawn to {arguments.draw}")
    return None


def samples(arguments: Namespace) -> None:
    from toolkit.data.samples import write_samples

    count = write_samples(arguments.name, arguments.directory)
    if arguments.json:
        return print_json({"path": str(arguments.directory), "n": count})
    return print(f"{count:,} pictures written to {arguments.directory}")


def check(arguments: Namespace) -> None:
    from toolkit.data import scan_folder
    from toolkit.data.doctor import examine_folder

    report = examine_folder(scan_folder(arguments.data, progress=progress_bar("reading")))
    if arguments.json:
        return print_json(report)
    print(f"{report['root']}: {report['n']:,} readable pictures in {len(report['classes'])} classes")
    print_table(list(report["classes"].items()), ["class", "pictures"])
    for problem in report["corrupt"]:
        print(f"unreadable: {problem['path']}: {problem['reason']}")
    for group in report["duplicates"]:
        print(f"identical: {', '.join(group)}")
    for warning in report["warnings"] or ["nothing found to complain about"]:
        print(f"- {warning}")
    return None


def train(arguments: Namespace) -> None:
    from toolkit.workflows import ExportOptions, train_folder

    export = arguments.export and ExportOptions(arguments.export, arguments.examples, arguments.force)
    result = train_folder(
        arguments.data,
        arguments.model,
        out=arguments.out,
        recipe_name=arguments.recipe,
        overrides=arguments.set,
        smoke_run=arguments.smoke,
        resume=arguments.resume,
        skip_bad=arguments.skip_bad,
        export=export,
        scan_progress=progress_bar("reading"),
        epoch_report=_print_epoch,
    )
    if arguments.json:
        return print_json(result)
    _print_metrics(result["metrics"])
    print(result["run"])
    if export:
        print(result["bundle"])
    return None


def finetune(arguments: Namespace) -> None:
    from toolkit.workflows import ExportOptions, finetune_folder

    result = finetune_folder(
        arguments.data,
        arguments.model,
        weights=arguments.weights,
        export=ExportOptions(arguments.out, arguments.examples, arguments.force),
        cache_dir=arguments.cache or _cache_dir() / "features",
        unfreeze_from=arguments.unfreeze,
        epochs=arguments.epochs,
        epoch_report=_print_epoch,
        skip_bad=arguments.skip_bad,
        scan_progress=progress_bar("reading"),
        extract_progress=progress_bar("features"),
    )
    if arguments.json:
        return print_json(result)
    _print_metrics(result["metrics"])
    return print(result["bundle"])


def evaluate(arguments: Namespace) -> None:
    from toolkit.inference import Predictor, evaluate_bundle

    predictor = Predictor.load(arguments.bundle, arguments.engine)
    report = evaluate_bundle(
        predictor, arguments.data, skip_bad=arguments.skip_bad, progress=progress_bar("evaluating")
    )
    if arguments.json:
        return print_json(report)
    _print_metrics(report | {"subset": f"{arguments.data}, {report['engine']}"})
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
    from toolkit.workflows import compress_bundle

    result = compress_bundle(
        arguments.bundle,
        arguments.method,
        data=arguments.data,
        skip_bad=arguments.skip_bad,
        force=arguments.force,
        scan_progress=progress_bar("reading"),
    )
    if arguments.json:
        return print_json(result)
    size = result["bytes"]
    print(
        f"{result['method']}: {size:,} bytes, {size / result['float_bytes']:.2f}× the float file; "
        f"top-1 {100 * result['top1']:.1f} % against {100 * result['float_top1']:.1f} %"
    )
    return print(result["bundle"])


def benchmark(arguments: Namespace) -> None:
    from toolkit.inference import benchmark_bundle

    report = benchmark_bundle(arguments.bundle)
    if arguments.json:
        return print_json(report)
    columns = ["engine", "batch", "p50_ms", "p95_ms", "images_per_s", "bytes", "top1_delta"]
    if report["held_out"]:
        _print_metrics(report["held_out"] | {"subset": "held-out"})
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


def _print_epoch(row: dict[str, Any]) -> None:
    print(
        f"epoch {row['epoch']:>3}/{row['epochs']}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
        f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}",
        file=sys.stderr,
    )


def _print_metrics(metrics: dict[str, Any]) -> None:
    print(
        f"{metrics['subset']} accuracy: top-1 {100 * metrics['top1']:.2f} %, top-5 {100 * metrics['top5']:.2f} % "
        f"({metrics['n']:,} pictures)"
    )


def _cache_dir() -> Path:
    import platformdirs

    return Path(os.environ.get("TOOLKIT_CACHE") or platformdirs.user_cache_dir("toolkit"))
