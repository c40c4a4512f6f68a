"""The networks, one family per file; importing this package registers them all and imports no framework."""

from toolkit.models import lenet, resnet

__all__ = ["lenet", "resnet"]
