"""``toolkit bundles``: versions listed, verified, labelled, pruned, and the engine that one recommends."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from toolkit.cli.commands.examples import show_examples
from toolkit.cli.output import print_json, print_table
from toolkit.errors import UserError


def manage_bundles(arguments: Namespace) -> None:
    actions = {
        "examples": show_examples,
        "list": _list,
        "promote": _promote,
        "prune": _prune,
        "recommend": _recommend,
        "rollback": _roll_back,
        "verify": _verify,
    }
    actions[arguments.action](arguments)


def _list(arguments: Namespace) -> None:
    from toolkit.inference.bundles import describe_bundles

    rows = describe_bundles(arguments.directory)
    if arguments.json:
        return print_json(rows)
    columns = ["bundle", "state", "labels", "network", "classes", "top-1 %", "pictures", "measured"]
    columns += ["MB", "written", "recommended", "engines"]
    table = [
        [
            *(row["bundle"], row["state"], " ".join(row["labels"]), row["model"], row["num_classes"]),
            *(row["top1"] and 100 * row["top1"], row["n"], row["subset"], row["bytes"] and row["bytes"] / 1e6),
            *(row["written"] and row["written"][:10], row["recommended"], " ".join(row["engines"] or ())),
        ]
        for row in rows
    ]
    print_table(table, columns)
    for row in rows:
        if row["error"]:
            print(row["error"])
    return None


def _recommend(arguments: Namespace) -> None:
    from toolkit.inference.bundles import recommend_engine

    version_dir = recommend_engine(arguments.bundle, arguments.engine, force=arguments.force)
    if arguments.json:
        return print_json({"bundle": str(version_dir), "recommended": arguments.engine})
    return print(f"{version_dir}: `--engine recommended` answers with {arguments.engine} from now on")


def _verify(arguments: Namespace) -> None:
    from toolkit.inference import verify_version

    report = verify_version(arguments.bundle)
    if arguments.json:
        print_json(report)
    else:
        rows = [[row["engine"], row["difference"], row["allowed"]] for row in report["rows"]]
        print(f"{report['bundle']}: {report['files']} files as they were written")
        if rows:
            print_table(rows, ["engine", f"difference from Keras ({report['pictures']} pictures)", "allowed"])
    if objections := report["objections"]:
        further = f" (and {len(objections) - 1} more)" if len(objections) > 1 else ""
        raise UserError(f"{objections[0]}{further}")


def _promote(arguments: Namespace) -> None:
    from toolkit.bundle import (
        CANARY,
        complete_versions,
        locate_version,
        move_label,
        read_manifest,
        read_version_labels,
        verify_files,
    )
    from toolkit.progress import step

    directory, version = locate_version(arguments.bundle)
    if version is None:
        highest = max(complete_versions(directory))
        version = highest if arguments.label == CANARY else read_version_labels(directory).get(CANARY, highest)
    version_dir = directory / str(version)
    if version_dir.is_dir():
        with step("comparing files with their checksums"):
            verify_files(version_dir, read_manifest(version_dir))
    before = move_label(directory, arguments.label, version)
    if arguments.json:
        return print_json({"bundle": str(version_dir), "label": arguments.label, "before": before})
    if before == version:
        return print(f"{version_dir}: is {arguments.label} already")
    told = f", in place of {before}" if before else ""
    return print(f"{version_dir}: {arguments.label} from now on{told}")


def _roll_back(arguments: Namespace) -> None:
    from toolkit.bundle import locate_version, move_label_back, remove_label

    directory, named = locate_version(arguments.bundle)
    if named is not None:
        raise UserError(f"{arguments.bundle}: a version; give the bundle, {directory}, or promote this version")
    label = arguments.label
    if arguments.remove:
        before = remove_label(directory, label)
        if arguments.json:
            return print_json({"bundle": None, "label": label, "before": before})
        return print(f"{_version(directory, before)}: {label} no more")
    version, before = move_label_back(directory, label)
    if arguments.json:
        return print_json({"bundle": _version(directory, version), "label": label, "before": before})
    return print(f"{_version(directory, version)}: {label} again, in place of {before}")


def _version(directory: Path, number: int) -> str:
    return str(directory / str(number))


def _prune(arguments: Namespace) -> None:
    from toolkit.bundle import locate_version, prune_versions

    directory, named = locate_version(arguments.bundle)
    if named is not None:
        raise UserError(f"{arguments.bundle}: a version; give the bundle, {directory}, whose versions are pruned")
    removed, labelled = prune_versions(directory, arguments.keep, dry_run=arguments.dry_run)
    if arguments.json:
        document: dict[str, Any] = {"removed": [str(path) for path in removed], "labelled": [str(p) for p in labelled]}
        return print_json(document)
    for path in removed:
        print(f"{path}: {'would be removed' if arguments.dry_run else 'removed'}")
    for path in labelled:
        print(f"{path}: stays, for a label's sake")
    if not removed:
        print(f"{directory}: nothing to remove")
    return None
