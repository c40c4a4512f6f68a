"""The command that examines a folder of pictures."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from toolkit.cli.output import print_json, print_table
from toolkit.errors import UserError, one_line

_SHOWN = 10  # findings of each kind, in text


def check(arguments: Namespace) -> None:
    from toolkit.catalogue import model_info
    from toolkit.data import scan_folder
    from toolkit.data.doctor import examine_folder
    from toolkit.data.scan.quarantine import quarantine_file, write_quarantine
    from toolkit.data.sources.source import as_source

    data, preview = as_source(arguments.data).path, arguments.augment_preview
    if preview and preview.absolute().resolve().is_relative_to(data.resolve()):
        raise UserError(f"{preview}: lies in the pictures' own folder, and would be taken for one; name another place")
    preprocessing = model_info(arguments.model).preprocessing if arguments.model else None
    folder = scan_folder(arguments.data)
    report = examine_folder(folder, input_size=preprocessing.size if preprocessing else None)
    if arguments.quarantine:
        if arguments.quarantine is True:
            arguments.quarantine = quarantine_file(data)
        file = Path(arguments.quarantine)
        write_quarantine(file, dict(folder.quarantined + folder.problems))
        report["quarantine_file"] = str(file)
    if preview:
        from toolkit.data.feed.preview import write_preview
        from toolkit.spec import Preprocessing

        shown_as = preprocessing or Preprocessing(size=(224, 224))
        write_preview(folder, shown_as, preview, augment=arguments.augment)
        report["augment_preview"] = str(preview)
    return print_json(report) if arguments.json else _print_findings(report)


def _print_findings(report: dict[str, Any]) -> None:
    print(f"{report['source']}: {report['n']:,} readable pictures in {len(report['classes'])} classes\n")
    subsets = report["split"]
    header = ["class", "pictures", *subsets]
    print_table(
        [[one_line(name), n, *(s[name] for s in subsets.values())] for name, n in report["classes"].items()], header
    )
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
            print(f"{kind}: {one_line(line)}")
        if len(lines) > _SHOWN:
            print(f"{kind}: … and {len(lines) - _SHOWN:,} more; --json lists them all")
    for warning in report["warnings"] or ["nothing found to complain about"]:
        print(f"- {warning}")
    if "quarantine_file" in report:
        print(f"list of pictures to leave out: {report['quarantine_file']}")
    if "augment_preview" in report:
        print(f"contact sheet: {report['augment_preview']}")
