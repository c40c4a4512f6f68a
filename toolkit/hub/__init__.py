"""Bundles on the Hugging Face hub: pushed with a model card, pulled whole or not at all."""

from toolkit.hub.address import HubAddress, is_address, parse_address
from toolkit.hub.pull import fetch_bundle, pull_bundle
from toolkit.hub.push import PushOptions, push_bundle

__all__ = [
    "HubAddress",
    "PushOptions",
    "fetch_bundle",
    "is_address",
    "parse_address",
    "pull_bundle",
    "push_bundle",
]
