"""Refusal of an explained answer, "none of these", told from the explained network itself."""

from typing import TYPE_CHECKING

from toolkit.bundle import read_manifest
from toolkit.inference.predictor import Thresholds

if TYPE_CHECKING:
    from toolkit.explain import Explanation


def reason_of(explanation: "Explanation") -> str:
    """Say why a bundle's answer means "none of these", see ``Predictor.reason``; empty where it does not.

    Raises:
        UserError: the bundle's measure of novelty is missing or damaged.
    """
    from toolkit.transfer.heads.novelty import Novelty
    from toolkit.transfer.stages import with_novelty

    explainer, novelty = explanation.explainer, None
    if explainer.version_dir is None:
        return ""
    manifest = read_manifest(explainer.version_dir)
    if measure := Novelty.of_bundle(explainer.version_dir, manifest):
        answer = with_novelty(explainer.model, measure).outputs[1]
        novelty = float(explainer.outputs(explanation.pixels, [answer])[0].item())
    above = None if manifest.novelty is None else manifest.novelty.above
    return Thresholds(manifest.reject_below, above).reason(float(explanation.probabilities.max()), novelty)
