"""The version that is compressed, what is asked of it, and what comes of it."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.bundle import FLOAT_LITERT, Manifest, verify_files
from toolkit.lazy import keras
from toolkit.workflows.compress.options import CompressionOptions

if TYPE_CHECKING:
    from toolkit.compress.retrain import TrainingFacts
    from toolkit.transfer.heads.novelty import Novelty


@dataclass(frozen=True)
class Source:
    """The version that is compressed."""

    path: Path
    manifest: Manifest
    model: "keras.Model"

    @functools.cached_property
    def novelty(self) -> "Novelty | None":
        """Fitted on the network's features, to be answered beside its logits."""
        from toolkit.transfer.heads.novelty import Novelty

        return Novelty.of_bundle(self.path, self.manifest)

    def answering(self, network: "keras.Model") -> "keras.Model":
        """Put the novelty on the source's network, or on what a method made of it."""
        from toolkit.transfer.stages import with_novelty

        return network if self.novelty is None else with_novelty(network, self.novelty)

    @functools.cached_property
    def float_file(self) -> bytes:
        """The network's float LiteRT file, made where the bundle has none."""
        if FLOAT_LITERT not in self.manifest.files:
            from toolkit.engines.convert import to_litert

            return to_litert(self.answering(self.model))
        verify_files(self.path, self.manifest, (FLOAT_LITERT,))
        return (self.path / FLOAT_LITERT).read_bytes()


@dataclass(frozen=True)
class Request:
    """A request, and the digest of all that its file follows from."""

    method: str
    options: CompressionOptions
    recipe: str | None
    force: bool

    @property
    def steps(self) -> list[str]:
        return self.method.split("+")


@dataclass(frozen=True)
class Compressed:
    """A network, the bundle's own where no method trained it on, and LiteRT files of it by ``litert_file``'s names.

    ``kept_float`` are the layers that stayed in float in int8; ``training`` is what quantization-aware training did.
    """

    network: "keras.Model"
    files: dict[str, bytes] = field(default_factory=dict)
    kept_float: tuple[str, ...] = ()
    training: "TrainingFacts | None" = None
