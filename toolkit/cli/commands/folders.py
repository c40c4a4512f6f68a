"""The command that examines a folder of pictures."""

from argparse import Namespace
from typing import Any

from toolkit.cli.options import given
from toolkit.cli.output import print_json, print_table
from toolkit.errors import one_line

_SHOWN = 10  # findings of each kind, in text


def check(arguments: Namespace) -> None:
    from toolkit.api.networks import check as call

    report = call(**given(arguments, call))
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
        print(f"list of pictures to leave out: {report['quarantine_file']}, honoured where it is DATA/quarantine.txt")
    if "augment_preview" in report:
        print(f"contact sheet: {report['augment_preview']}")
