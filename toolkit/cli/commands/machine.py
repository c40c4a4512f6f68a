"""Commands on this machine: what is installed, and completion in its shell."""

from argparse import Namespace

from toolkit.cli.options import given
from toolkit.cli.output import print_json, print_table


def doctor(arguments: Namespace) -> None:
    from toolkit.api.doctor import doctor as call

    report = call(**given(arguments, call))
    if arguments.json:
        print_json(report)
    else:
        print(f"{report._title()}\n{report['processor']['name']}\n")
        features = [
            (row["name"], "yes" if row["here"] else "no", row["use"]) for row in report["processor"]["features"]
        ]
        print_table(features, ["processor", "here", "used for"])
        print()
        engines = [(row["engine"], "yes" if row["answers"] else "no", row["reason"]) for row in report["engines"]]
        print_table(engines, ["engine", "answers", ""])
        print()
        packages = [
            (
                row["name"],
                row["version"] or "missing",
                row["extra"] or "–",
                "" if row["fits"] else f"wants {row['wanted']}",
            )
            for row in report["packages"]
        ]
        print_table(packages, ["package", "version", "extra", ""])
        print(f"\naccelerators: {', '.join(report['accelerators']) or 'none'}")
        for place in report["places"]:
            state = f"{place['free_bytes'] / 1e9:,.1f} GB free" if place["writable"] else "CANNOT BE WRITTEN"
            print(f"{place['variable']}: {place['path']}, {state}")
        for row in report["missing"]:
            kind = "MISSING" if row["needed"] else "not here"
            print(f"\n{kind}: {row['what']}, for {row['reason']}\n  {row['command']}")
    if not report.healthy:
        raise SystemExit(1)


def completion(arguments: Namespace) -> None:
    import shtab

    from toolkit.cli.parser import build_parser

    print(shtab.complete(build_parser(), arguments.shell))
