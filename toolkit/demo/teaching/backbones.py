"""Networks that a lesson can start from: those of bundles, and published ones whose weights are on this machine."""

from collections.abc import Iterator
from dataclasses import dataclass

from toolkit.bundle import KERAS_FILE
from toolkit.catalogue import list_models, model_info
from toolkit.demo.classifier import Classifier
from toolkit.demo.teaching.lesson import Backbone
from toolkit.spec import Preprocessing
from toolkit.weights.download import cached_path

#: A network whose input is no larger sees strokes and coarse colours, and little of a photograph.
SMALL = 64
_HEAVY = 6_000_000_000  # multiply-adds for a picture, beyond which a lesson is no matter of seconds


@dataclass(frozen=True)
class Start:
    """A network to start from, and what makes it a good or bad start.

    Attributes:
        name: as visitors choose it: a bundle's, ``NAME/VERSION``, or that of a published network.
        backbone: for a lesson.
        title: of the network, for people.
        num_params: of the network.
        macs: multiply-adds for one picture; 0 where they are not known.
        preprocessing: what it sees of a picture.
        num_classes: that it was taught before.
        top1: its accuracy on them, a fraction; None where that is not known.
    """

    name: str
    backbone: Backbone
    title: str
    num_params: int
    macs: int
    preprocessing: Preprocessing
    num_classes: int
    top1: float | None

    @property
    def kind(self) -> str:
        """The pictures that it is for: ``photographs``, ``small`` ones in colour, or ``drawings``."""
        if self.preprocessing.channel_order == "grey":
            return "drawings"
        return "small" if max(self.preprocessing.size) <= SMALL else "photographs"


def find_starts(classifier: Classifier) -> list[Start]:
    """List the networks that a lesson can start from, best first.

    Those for photographs come before those for small pictures in colour and those for drawings; of one kind, those that
    are quick, that know many classes, and that tell them apart well.
    """
    kinds = ("photographs", "small", "drawings")
    found = [*_bundles(classifier), *_published()]
    return sorted(
        found,
        key=lambda start: (
            *(kinds.index(start.kind), start.macs > _HEAVY),
            *(-start.num_classes, -max(start.preprocessing.size), -(start.top1 or 0.0)),
        ),
    )


def _bundles(classifier: Classifier) -> Iterator[Start]:
    registered = list_models()
    for bundle, manifest in classifier.manifests().items():
        directory = classifier.directory(bundle)
        if manifest.members or not (directory / KERAS_FILE).is_file():
            continue
        info = model_info(manifest.model) if manifest.model in registered else None
        yield Start(
            bundle,
            Backbone(bundle=directory),
            info.title if info else manifest.model,
            manifest.num_params,
            info.macs if info else 0,
            manifest.preprocessing,
            len(manifest.labels),
            manifest.metrics.get("top1"),
        )


def _published() -> Iterator[Start]:
    for name in list_models():
        info = model_info(name)
        here = {row.url: row for row in info.weights.values() if cached_path(row).is_file()}
        best = max(here.values(), key=lambda row: row.top1 or 0.0, default=None)
        if best is not None:
            yield Start(
                name,
                Backbone(network=name, weights=cached_path(best)),
                info.title,
                info.num_params,
                info.macs,
                best.preprocessing,
                best.num_classes,
                best.top1,
            )
