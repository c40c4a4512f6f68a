"""Commands that fine-tune and look after the cache of features."""

import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from toolkit.cli.output import print_epoch, print_json, print_metrics, print_table

if TYPE_CHECKING:
    from toolkit.transfer import FinetuneOptions


#: Passes over the pictures by unfrozen stages, and the most of them within a time budget.
EPOCHS, MOST_EPOCHS = 5, 12


def finetune(arguments: Namespace) -> None:
    started = time.monotonic()
    from toolkit.factory import read_preprocessing
    from toolkit.machine import cache_dir
    from toolkit.workflows import ExportOptions
    from toolkit.workflows.finetune import FolderOptions

    journey = _finetune_journey(arguments)
    result = journey(
        arguments.data,
        weights=arguments.weights,
        export=ExportOptions(arguments.out, arguments.examples, arguments.force, arguments.formats),
        options=FolderOptions(
            cache_dir=arguments.cache or cache_dir() / "features",
            finetuning=_finetune_options(arguments, started),
            report=arguments.report,
            skip_bad=arguments.skip_bad,
            keep_val=arguments.keep_val,
            preprocessing=None if arguments.preprocessing is None else read_preprocessing(arguments.preprocessing),
        ),
        on_epoch=print_epoch,
    )
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


def _finetune_journey(arguments: Namespace) -> Callable[..., dict[str, Any]]:
    """Take the journey of the one network that is named, or of the best of several."""
    from toolkit.errors import UserError

    names = () if arguments.model == "auto" else tuple(arguments.model.split(","))
    if len(names) == 1:
        from toolkit.workflows.finetune import finetune_folder

        for option, value in (("--max-ms", arguments.max_ms), ("--max-mb", arguments.max_mb)):
            if value is not None:
                raise UserError(f"{option} chooses among several networks: --model auto, not {arguments.model}")
        return partial(finetune_folder, model_name=arguments.model)
    from toolkit.workflows.choice.comparison import Limits, finetune_best

    if arguments.preprocessing is not None:
        raise UserError("--preprocessing is for a network from a file; those compared bring theirs with their weights")
    return partial(finetune_best, names=names, limits=Limits(arguments.max_ms, arguments.max_mb))


def _finetune_options(arguments: Namespace, started: float) -> "FinetuneOptions":
    from toolkit.errors import UserError
    from toolkit.transfer import AugmentedViews, Extraction, FinetuneOptions, HeadOptions, UnfrozenOptions

    given = [f"--{name}" for name in ("epochs", "lr", "gradual") if getattr(arguments, name) not in (None, False)]
    if given and arguments.unfreeze == "none":
        raise UserError(f"--unfreeze none trains no stages, and {', '.join(given)} would change nothing; leave one out")
    head = HeadOptions(solver=arguments.head, hidden=tuple(arguments.hidden), balanced=arguments.balanced)
    has_budget = arguments.budget is not None
    unfrozen = UnfrozenOptions(
        epochs=arguments.epochs or (MOST_EPOCHS if has_budget else EPOCHS),
        learning_rate=UnfrozenOptions.learning_rate if arguments.lr is None else arguments.lr,
        gradual=arguments.gradual,
        balanced=arguments.balanced,
    )
    return FinetuneOptions(
        unfreeze=arguments.unfreeze,
        views=AugmentedViews(arguments.views),
        head=head,
        unfrozen=unfrozen,
        extraction=Extraction(ray=arguments.cluster),
        deadline=started + arguments.budget if has_budget else None,
    )


def cache(arguments: Namespace) -> None:
    from toolkit.machine import cache_dir
    from toolkit.transfer.cache import list_cache, prune_cache, verify_cache

    directory = arguments.cache or cache_dir() / "features"
    if arguments.action == "list":
        report = list_cache(directory)
        return print_json(report) if arguments.json else _print_cache(report)
    if arguments.action == "verify":
        report = verify_cache(directory)
        counts = f"{report['damaged']:,} of {report['entries']:,} entries were damaged, and are removed"
        summary = f"{report['path']}: {counts}"
    else:
        report = prune_cache(
            directory,
            contexts=tuple(arguments.contexts),
            unused_days=arguments.unused_days,
            everything=arguments.all,
        )
        shrunk = "" if report["compacted"] else "; in use elsewhere, so it does not shrink yet"
        summary = f"{report['path']}: {report['entries']:,} entries removed, {report['bytes']:,} bytes left{shrunk}"
    return print_json(report) if arguments.json else print(summary)


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
