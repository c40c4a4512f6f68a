"""Commands on networks, their weights and bundled samples."""

from argparse import Namespace
from typing import Any

from toolkit.cli.options import given
from toolkit.cli.output import print_json, print_table


def models(arguments: Namespace) -> None:
    from toolkit.api.networks import models as call

    if arguments.name and not arguments.filters and not arguments.json:
        return _layer_table(arguments)
    rows = call(**given(arguments, call))
    if arguments.json:
        return print_json(rows)
    if arguments.filters:
        return print(f"Drawn to {arguments.filters}")
    figures = ("num_params", "macs")
    table = [
        [row["name"], row["title"], str(row["year"]), "×".join(map(str, row["input_shape"])), *map(row.get, figures)]
        for row in rows
    ]
    return print_table(table, ["name", "network", "year", "input", "parameters", "multiply-adds"])


def _layer_table(arguments: Namespace) -> None:
    from toolkit.api.networks import drawn_network
    from toolkit.arithmetic import format_table, layer_table, summary
    from toolkit.catalogue import model_info

    info = model_info(arguments.name)
    rows = layer_table(drawn_network(arguments.name, arguments.draw))
    print(f"{info.title}: {info.paper}\n")
    print(format_table(rows))
    print(f"\n{summary(rows)}\n")
    for deviation in info.deviations:
        print(f"Differs from the paper: {deviation}")
    if arguments.draw:
        print(f"Drawn to {arguments.draw}")


def weights(arguments: Namespace) -> None:
    from toolkit.api import networks as calls

    if arguments.action == "list":
        rows = calls.list_weights(arguments.model)
        return print_json(rows) if arguments.json else _print_weights(rows, arguments.model)
    if arguments.action == "download":
        path = calls.download_weights(arguments.model, arguments.tag)
        return print_json({"path": str(path)}) if arguments.json else print(path)
    if arguments.action == "verify":
        report = calls.verify_weights(arguments.model, arguments.weights)
        if arguments.json:
            return print_json(report)
        checked = report["digest"] or "no digest published"
        return print(f"{report['path']}: {report['num_tensors']:,} tensors fit {arguments.model} ({checked})")
    report = calls.convert_weights(**given(arguments, calls.convert_weights))
    return print_json(report) if arguments.json else print(report["path"])


def _print_weights(rows: list[dict[str, Any]], name: str | None) -> None:
    from toolkit.bundle import SHIPPED
    from toolkit.catalogue import model_info

    if rows:
        _print_published(rows)
    elif name:
        print(f"{name}: {model_info(name).weights_note}")
    networks = [(shipped.partition("-")[0], shipped) for shipped in SHIPPED]
    for network, shipped in networks:
        if name in (None, network):
            print(f"comes with the project: --model {network} --weights {shipped}")


def _print_published(rows: list[dict[str, Any]]) -> None:
    best = {(row["name"], row["stands_for"]) for row in rows if row["tag"] != row["stands_for"]}
    table = []
    for row in rows:
        if row["tag"] == row["stands_for"]:
            default = "default" if (row["name"], row["tag"]) in best else ""
            accuracies = _percent(row["top1"]), _percent(row["top5"])
            here = "yes" if row["cached"] else "no"
            table.append([row["name"], row["tag"], default, *accuracies, row["published_in"], row["licence"], here])
    print_table(table, ["network", "tag", "", "top-1 %", "top-5 %", "published in", "licence", "here"])


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def samples(arguments: Namespace) -> None:
    from toolkit.api.networks import samples as call

    written = call(**given(arguments, call))
    return print_json(written) if arguments.json else print(f"{written['n']:,} pictures written to {written['path']}")
