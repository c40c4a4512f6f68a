"""A network that is built when it is needed: where its features are all cached, only once the head has been fitted."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.lazy import keras
from toolkit.spec import Preprocessing
from toolkit.transfer.cache import FeatureContext, Store, close_store, file_digests, open_store
from toolkit.transfer.features import pooled_context
from toolkit.transfer.freeze import stages_of


@dataclass(frozen=True)
class Outline:
    """What fine-tuning must know of a network before it computes with it.

    Attributes:
        name: of the network.
        stages: input to output.
        is_dense: whether it ends in a dense classifier on pooled features.
        context: of these features as float16, where it was remembered: they can be found without the network.
    """

    name: str
    stages: tuple[str, ...]
    is_dense: bool = True
    context: FeatureContext | None = None


class Network:
    """A flat classifier with pretrained weights, and what its pictures need.

    Args:
        build: makes both.
        num_classes: of the classifier.
        weights: the file that the weights come from. With it, an outline of the network is remembered beside its
            features, so that a repetition starts without the network.
        description: what beside the file's content decides what ``build`` makes, but for the number of classes.
    """

    def __init__(
        self,
        build: Callable[[], tuple[Any, Preprocessing]],
        *,
        num_classes: int,
        weights: Path | None = None,
        description: str = "",
    ) -> None:
        self.num_classes = num_classes
        self._build = build
        self._built: tuple[Any, Preprocessing] | None = None
        self._weights = weights
        self._description = description

    @property
    def model(self) -> Any:
        """The network; built at the first call."""
        return self._parts()[0]

    @property
    def preprocessing(self) -> Preprocessing:
        """What turns a picture into its input; builds the network too."""
        return self._parts()[1]

    def outline(self, cache_dir: str | Path) -> Outline:
        """What is remembered of the network, or else what it shows."""
        if self._weights is not None and self._built is None:
            with _store(cache_dir) as store:
                outline = _recall(store, self._key(store))
            if outline is not None:
                return outline
        return Outline(self.model.name, stages_of(self.model), isinstance(self.model.layers[-1], keras.layers.Dense))

    def remember(self, cache_dir: str | Path, context: FeatureContext) -> None:
        """Keep the outline of a network whose pooled features are cached."""
        if self._weights is None:
            return
        context = replace(context, dtype="float16")
        document = {"name": self.model.name, "stages": stages_of(self.model), "context": context.as_document()}
        with _store(cache_dir) as store:
            key = self._key(store)  # before the transaction: it has one of its own
            with store.begin(write=True) as transaction:
                transaction.put(key, json.dumps(document).encode(), db=store.networks)

    def bears_out(self, outline: Outline) -> bool:
        """Whether what was remembered is so: the code that builds networks changes, too."""
        if outline.context is None:
            return True
        return (stages_of(self.model), pooled_context(self.model, self.preprocessing)) == (
            outline.stages,
            outline.context,
        )

    def _parts(self) -> tuple[Any, Preprocessing]:
        if self._built is None:
            self._built = self._build()
        return self._built

    def _key(self, store: Store) -> bytes:
        assert self._weights is not None
        content = file_digests([self._weights], store)[0]
        return hashlib.sha256(f"{self._description} ".encode() + content).digest()


@contextmanager
def _store(cache_dir: str | Path) -> Iterator[Store]:
    store = open_store(cache_dir)
    try:
        yield store
    finally:
        close_store(store)


def _recall(store: Store, key: bytes) -> Outline | None:
    with store.begin() as transaction:
        row = transaction.get(key, db=store.networks)
    if row is None:
        return None
    document = json.loads(bytes(row))
    context = document["context"]
    shape, preprocessing = tuple(context["shape"]), Preprocessing.from_dict(context["preprocessing"])
    return Outline(
        document["name"],
        tuple(document["stages"]),
        context=FeatureContext(**context | {"shape": shape, "preprocessing": preprocessing}),
    )
