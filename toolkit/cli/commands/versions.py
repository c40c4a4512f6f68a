"""``toolkit bundles``: versions listed, verified, labelled, pruned, and the engine that one recommends."""

from argparse import Namespace
from pathlib import Path

from toolkit.cli.commands.examples import show_examples
from toolkit.cli.options import given
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
        "share": _share,
        "verify": _verify,
    }
    actions[arguments.action](arguments)


def _list(arguments: Namespace) -> None:
    from toolkit.api.bundles.versions import list_bundles as call

    rows = call(**given(arguments, call))
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
    from toolkit.api.bundles.versions import recommend_engine as call

    result = call(**given(arguments, call))
    if arguments.json:
        return print_json(result)
    return print(f"{result['bundle']}: `--engine recommended` answers with {arguments.engine} from now on")


def _verify(arguments: Namespace) -> None:
    from toolkit.api.bundles.versions import verify_version as call

    report = call(**given(arguments, call))
    if arguments.json:
        print_json(report)
    else:
        rows = [[row["bundle"], row["engine"], row["difference"], row["allowed"]] for row in report["rows"]]
        print(f"{report['bundle']}: {report['files']} files as they were written")
        if rows:
            print_table(rows, ["bundle", "engine", f"difference from Keras ({report['pictures']} pictures)", "allowed"])
    if objections := report["objections"]:
        further = f" (and {len(objections) - 1} more)" if len(objections) > 1 else ""
        raise UserError(f"{objections[0]}{further}")


def _promote(arguments: Namespace) -> None:
    from toolkit.api.bundles.versions import promote_version as call

    result = call(**given(arguments, call))
    if arguments.json:
        return print_json(result)
    version_dir, label, before = result.values()
    if before == int(Path(version_dir).name):
        return print(f"{version_dir}: is {label} already")
    return print(f"{version_dir}: {label} from now on{f', in place of {before}' if before is not None else ''}")


def _roll_back(arguments: Namespace) -> None:
    from toolkit.api.bundles.versions import roll_back_version as call

    result = call(**given(arguments, call))
    if arguments.json:
        return print_json(result)
    version_dir, label, before = result.values()
    if version_dir is None:
        return print(f"{arguments.bundle / str(before)}: {label} no more")
    return print(f"{version_dir}: {label} again, in place of {before}")


def _share(arguments: Namespace) -> None:
    from toolkit.api.bundles.versions import share_traffic as call

    result = call(**given(arguments, call))
    if arguments.json:
        return print_json(result)
    if not result["traffic"]:
        return print(f"{result['bundle']}: the highest version answers requests that name none")
    told = [f"{each['label']} (version {each['version']}) {100 * each['share']:g} %" for each in result["traffic"]]
    return print(f"{result['bundle']}: of the requests that name no version, {', '.join(told)}")


def _prune(arguments: Namespace) -> None:
    from toolkit.api.bundles.versions import prune_bundles as call

    result = call(**given(arguments, call))
    if arguments.json:
        return print_json(result)
    for path in result["removed"]:
        print(f"{path}: {'would be removed' if arguments.dry_run else 'removed'}")
    for path in result["labelled"]:
        print(f"{path}: stays, for a label's sake")
    if not result["removed"]:
        print(f"{arguments.bundle}: nothing to remove")
    return None
