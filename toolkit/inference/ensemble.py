"""Several bundles asked together."""

from collections.abc import Sequence
from pathlib import Path

from toolkit.bundle import find_bundle, read_manifest, require_same_labels
from toolkit.ensemble.ensemble import Panel
from toolkit.inference.predictor import PictureClassifier, Predictor


def load_classifier(
    bundles: Sequence[str | Path], engine: str = "auto", *, crops: int = 1, scales: Sequence[int] = ()
) -> PictureClassifier:
    """One bundle, or several whose networks' probabilities are averaged, each network counting alike.

    Args:
        bundles: as ``Predictor.load`` takes them; their labels must be equal and in the same order.
        engine: for each of them, as in ``Predictor.load``.
        crops: views of a picture that each is shown.
        scales: at each of these shorter sides.

    Returns:
        A ``Predictor`` for one bundle. Several have no reject threshold: none was fitted for their average.

    Raises:
        UserError: as ``Predictor.load``, or labels differ.
    """
    if len(bundles) == 1:
        return Predictor.load(bundles[0], engine, crops=crops, scales=scales)
    version_dirs = [find_bundle(bundle) for bundle in bundles]
    require_same_labels(version_dirs, [read_manifest(version_dir) for version_dir in version_dirs])
    loaded = [Predictor.load(version_dir, engine, crops=crops, scales=scales) for version_dir in version_dirs]
    engines = dict.fromkeys(predictor.engine_name for predictor in loaded)
    return PictureClassifier(
        loaded[0].labels, " + ".join(engines), Panel.of([predictor.panel for predictor in loaded]), None
    )
