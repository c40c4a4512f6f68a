"""``toolkit push`` and ``toolkit pull``: bundles to the Hugging Face hub and from there."""

from argparse import Namespace

from toolkit.cli.options import given
from toolkit.cli.output import print_json


def push(arguments: Namespace) -> None:
    from toolkit.api.bundles.hub import push as call

    result = call(**given(arguments, call))
    return print_json(result) if arguments.json else print(f"{result['address']}: pushed, see {result['url']}")


def pull(arguments: Namespace) -> None:
    from toolkit.api.bundles.hub import pull as call

    result = call(**given(arguments, call))
    return print_json(result) if arguments.json else print(result["bundle"])
