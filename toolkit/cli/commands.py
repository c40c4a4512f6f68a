"""One function per command: call, then print. Imports stand inside, so that each command pays for its own only."""

import os
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli.output import print_json, print_table, progress_bar
from toolkit.spec import UserError

if TYPE_CHECKING:
    from toolkit.training.hosts import Hosts

_SHOWN = 10  # findings of each kind, in text


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


def weights(arguments: Namespace) -> None:
    from toolkit.workflows import weights as journeys

    if arguments.action == "list":
        rows = journeys.list_weights(arguments.model)
        if arguments.json:
            return print_json(rows)
        return _print_weights(rows, arguments.model)
    if arguments.action == "download":
        path = journeys.download_weights(arguments.model, arguments.tag)
        return print_json({"path": str(path)}) if arguments.json else print(path)
    if arguments.action == "verify":
        report = journeys.verify_weights(arguments.model, arguments.weights)
        if arguments.json:
            return print_json(report)
        checked = report["digest"] or "no digest published"
        return print(f"{report['path']}: {report['num_tensors']:,} tensors fit {arguments.model} ({checked})")
    report = journeys.convert_weights(arguments.source, arguments.target, arguments.model)
    return print_json(report) if arguments.json else print(report["path"])


def _print_weights(rows: list[dict[str, Any]], name: str | None) -> None:
    from toolkit.registry import model_info

    if name and not rows:
        return print(f"{name}: {model_info(name).weights_note}")
    best = {(row["name"], row["stands_for"]) for row in rows if row["tag"] != row["stands_for"]}
    table = []
    for row in rows:
        if row["tag"] == row["stands_for"]:
            default = "default" if (row["name"], row["tag"]) in best else ""
            accuracies = _percent(row["top1"]), _percent(row["top5"])
            here = "yes" if row["cached"] else "no"
            table.append([row["name"], row["tag"], default, *accuracies, row["published_in"], row["licence"], here])
    return print_table(table, ["network", "tag", "", "top-1 %", "top-5 %", "published in", "licence", "here"])


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def samples(arguments: Namespace) -> None:
    from toolkit.data.samples import write_samples

    count = write_samples(arguments.name, arguments.directory)
    if arguments.json:
        return print_json({"path": str(arguments.directory), "n": count})
    return print(f"{count:,} pictures written to {arguments.directory}")


def check(arguments: Namespace) -> None:
    from toolkit.data import scan_folder
    from toolkit.data.doctor import examine_folder
    from toolkit.data.quarantine import quarantine_file, write_quarantine
    from toolkit.registry import model_info

    preprocessing = model_info(arguments.model).preprocessing if arguments.model else None
    folder = scan_folder(arguments.data, progress=progress_bar("reading"))
    report = examine_folder(folder, input_size=preprocessing.size if preprocessing else None)
    if arguments.quarantine:
        given = arguments.quarantine
        file = quarantine_file(arguments.data) if given is True else Path(given)
        write_quarantine(file, dict(folder.quarantined + folder.problems))
        report["quarantine_file"] = str(file)
    if arguments.augment_preview:
        from toolkit.data.preview import write_preview
        from toolkit.spec import Preprocessing

        shown_as = preprocessing or Preprocessing(size=(224, 224))
        write_preview(folder, shown_as, arguments.augment_preview, augment=arguments.augment)
        report["augment_preview"] = str(arguments.augment_preview)
    return print_json(report) if arguments.json else _print_findings(report)


def _print_findings(report: dict[str, Any]) -> None:
    print(f"{report['source']}: {report['n']:,} readable pictures in {len(report['classes'])} classes\n")
    subsets = report["split"]
    header = ["class", "pictures", *subsets]
    print_table([[name, n, *(s[name] for s in subsets.values())] for name, n in report["classes"].items()], header)
    print()
    findings = [
        ("unreadable", [f"{row['path']}: {row['reason']}" for row in report["corrupt"]]),
        ("left out", [f"{row['path']}: {row['reason']}" for row in report["quarantined"]]),
        ("mistyped", [f"{row['path']}: is a {row['format']}" for row in report["mistyped"]]),
        ("leaking", [", ".join(group) for group in report["leaks"] + report["near_leaks"]]),
        ("identical", [", ".join(group) for group in report["duplicates"]]),
        ("alike", [", ".join(group) for group in report["near_duplicates"]]),
        ("odd size", [f"{row['path']}: {row['size']}, {row['reason']}" for row in report["odd_sizes"]]),
    ]
    for kind, lines in findings:
        for line in lines[:_SHOWN]:
            print(f"{kind}: {line}")
        if len(lines) > _SHOWN:
            print(f"{kind}: … and {len(lines) - _SHOWN:,} more; --json lists them all")
    for warning in report["warnings"] or ["nothing found to complain about"]:
        print(f"- {warning}")
    if "quarantine_file" in report:
        print(f"list of pictures to leave out: {report['quarantine_file']}")
    if "augment_preview" in report:
        print(f"contact sheet: {report['augment_preview']}")


def train(arguments: Namespace) -> None:
    from toolkit.training.hosts import is_supervised, supervise
    from toolkit.workflows import ExportOptions, train_folder

    hosts = _hosts(arguments)
    if hosts and not is_supervised():
        raise SystemExit(supervise(hosts, sys.argv[1:]))
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
        hosts=hosts,
        scan_progress=progress_bar("reading"),
        epoch_report=_print_epoch,
    )
    if arguments.json:
        return print_json(result)
    if "metrics" in result:
        _print_metrics(result["metrics"])
    print(result["run"])
    if "bundle" in result:
        print(result["bundle"])
    return None


def _hosts(arguments: Namespace) -> "Hosts | None":
    from toolkit.training.hosts import Hosts

    given = (arguments.coordinator, arguments.num_hosts, arguments.host_id)
    if given == (None, None, None):
        return None
    if None in given:
        raise UserError("--coordinator, --num-hosts and --host-id belong together: give all three on every host")
    return Hosts(*given)


def gradcheck(arguments: Namespace) -> None:
    from toolkit.workflows.gradcheck import check_model_gradients

    report = check_model_gradients(
        arguments.model,
        size=arguments.size,
        batch_size=arguments.batch,
        num_entries=arguments.entries,
        batch_norm=arguments.batch_norm,
        seed=arguments.seed,
        progress=progress_bar("variables"),
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


def finetune(arguments: Namespace) -> None:
    from toolkit.workflows import ExportOptions, finetune_folder

    result = finetune_folder(
        arguments.data,
        arguments.model,
        weights=arguments.weights,
        export=ExportOptions(arguments.out, arguments.examples, arguments.force),
        cache_dir=arguments.cache or _cache_dir() / "features",
        options=_finetune_options(arguments),
        report=arguments.report,
        epoch_report=_print_epoch,
        skip_bad=arguments.skip_bad,
        scan_progress=progress_bar("reading"),
        extract_progress=progress_bar("features"),
    )
    if arguments.json:
        return print_json(result)
    how = result["finetuning"]
    print(how["plan"])
    for step in how["steps"]:
        print(f"{step['name']}: {100 * step['val_accuracy']:.2f} % of val" + ("" if step["kept"] else ", not kept"))
    _print_metrics(result["metrics"])
    return print(result["bundle"])


def cache(arguments: Namespace) -> None:
    from toolkit.transfer.maintenance import list_cache, prune_cache, verify_cache

    directory = arguments.cache or _cache_dir() / "features"
    if arguments.action == "list":
        report = list_cache(directory)
        return print_json(report) if arguments.json else _print_cache(report)
    if arguments.action == "verify":
        report = verify_cache(directory, progress=progress_bar("verifying"))
        told = f"{report['path']}: {report['damaged']:,} of {report['entries']:,} entries were damaged, and are removed"
    else:
        report = prune_cache(
            directory,
            contexts=tuple(arguments.contexts),
            unused_days=arguments.unused_days,
            everything=arguments.all,
        )
        shrunk = "" if report["compacted"] else "; in use elsewhere, so it does not shrink yet"
        told = f"{report['path']}: {report['entries']:,} entries removed, {report['bytes']:,} bytes left{shrunk}"
    return print_json(report) if arguments.json else print(told)


def _print_cache(report: dict[str, Any]) -> None:
    import time

    def row(context: dict[str, Any]) -> list[Any]:
        shape = "×".join(map(str, context["shape"]))
        last_used = time.strftime("%Y-%m-%d %H:%M", time.localtime(context["last_used"]))
        identity = [context["id"][:8], context["network"], context["cut"], shape, context["dtype"]]
        return [*identity, context["entries"], context["bytes"], last_used]

    rows = [row(context) for context in report["contexts"]]
    print_table(rows, ["id", "network", "cut", "shape", "dtype", "entries", "bytes", "last used"])
    print(f"{report['bytes']:,} bytes in {report['path']}")


def _finetune_options(arguments: Namespace) -> Any:
    from toolkit.transfer import FinetuneOptions, HeadOptions, RestOptions, Views

    head = HeadOptions(solver=arguments.head, hidden=tuple(arguments.hidden), balanced=arguments.balanced)
    rest = RestOptions(
        epochs=arguments.epochs, learning_rate=arguments.lr, gradual=arguments.gradual, balanced=arguments.balanced
    )
    return FinetuneOptions(unfreeze=arguments.unfreeze, views=Views(arguments.views), head=head, rest=rest)


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


def _print_training(event: dict[str, Any]) -> None:
    if event["event"] == "epoch":
        shown = "  ".join(f"{key} {value:.4f}" for key, value in event.items() if isinstance(value, float))
        print(f"epoch {event['epoch']:>3}/{event['epochs']}  {shown}", file=sys.stderr)
    else:
        print(f"{event['stage']} …", file=sys.stderr)


def _print_metrics(metrics: dict[str, Any]) -> None:
    print(
        f"{metrics['subset']} accuracy: top-1 {100 * metrics['top1']:.2f} %, top-5 {100 * metrics['top5']:.2f} % "
        f"({metrics['n']:,} pictures)"
    )


def _cache_dir() -> Path:
    import platformdirs

    return Path(os.environ.get("TOOLKIT_CACHE") or platformdirs.user_cache_dir("toolkit"))
