"""Methods of compression, and their settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.compress import METHODS, Clustering, Pruning, Retraining
from toolkit.errors import UserError

#: Methods by name: after training, then those that train on. ``+`` joins what follows on each other.
COMPRESSION_METHODS = (
    *METHODS,
    *("qat", "prune", "cluster", "prune+cluster"),
    *("prune+int8", "cluster+int8", "prune+qat", "cluster+qat", "prune+cluster+qat"),
)


@dataclass(frozen=True)
class CompressionOptions:
    """Settings of the methods that have any, and of the report.

    Attributes:
        epochs: how long to train on, each time.
        learning_rate: at its start. Ten times the default undoes what a network learned elsewhere where pictures are
            few: a GoogLeNet of 244 pictures lost six points by pruning with it, and four without.
        sparsity: share of zeros.
        pattern: where zeros may be: ``"any"``, ``"2:4"`` or ``"block"``.
        num_clusters: different values per kernel.
        keep_float: names of layers that int8 leaves in float.
        keep_worst: how many of the layers that int8 hurts most it leaves in float besides.
        page: where to write the report as HTML.
    """

    epochs: int = 3
    learning_rate: float = 1e-5
    sparsity: float = 0.5
    pattern: Any = "any"
    num_clusters: int = 16
    keep_float: tuple[str, ...] = ()
    keep_worst: int = 0
    page: str | Path | None = None

    def __post_init__(self) -> None:
        # Making them refuses what they cannot do: now, and not after the pictures were read.
        _ = (self.retraining, self.pruning, self.clustering)
        if self.epochs < 1:
            raise UserError(f"epochs must be at least 1, got {self.epochs}")
        if self.keep_worst < 0:
            raise UserError(f"keep_worst is a number of layers, got {self.keep_worst}")

    @property
    def retraining(self) -> Retraining:
        return Retraining(self.epochs, self.learning_rate)

    @property
    def pruning(self) -> Pruning:
        return Pruning(self.sparsity, self.pattern)

    @property
    def clustering(self) -> Clustering:
        return Clustering(self.num_clusters)
