"""Explanations in words, and as one JSON document."""

from collections.abc import Sequence
from typing import Any

from toolkit.explain.explainer import Explanation, HeatMap
from toolkit.explain.regions import Region

#: The ways to a heat map, in a few words.
HOW = {
    "evidence": "exact: the classifier's lead, split among the cells of the maps it reads",
    "grad-cam": "Grad-CAM, an approximation",
    "hires-cam": "HiResCAM, gradients cell by cell",
    "occlusion": "what the odds lose where a window is covered",
}


def describe(explanation: Explanation, heat_maps: Sequence[HeatMap], region: Region | None, reason: str) -> list[str]:
    """Say in lines what the network answers, what it saw, and where the evidence lies.

    ``reason`` is why the answer means "none of these", see ``Predictor.reason``.
    """
    height, width = explanation.rgb.shape[:2]
    seen = explanation.seen
    share = seen.height * seen.width / (height * width)
    answer = ", ".join(f"{name} {100 * p:.1f} %" for name, p in explanation.top())
    if reason:
        answer = f"none of these ({'unlike the pictures of every class; ' if reason == 'unfamiliar' else ''}{answer})"
    lines = [f"answer: {answer}"]
    extent = "all of it" if share > 0.999 else f"{100 * share:.0f} % of it, {seen}"
    lines.append(f"seen of the picture's {width}×{height} pixels: {extent}")
    for heat in heat_maps:
        lines.append(f"{describe_heat(heat)} ({HOW[heat.method]})")
        if len(heat.by_stage) > 1:
            lead = sum(value for _, value in heat.by_stage)
            parts = ", ".join(f"{name} {value:+.2f}" for name, value in heat.by_stage)
            lines.append(f"  lead in logits {lead:+.2f}: {parts}")
        elif heat.maps:
            lines.append(f"  from the map of {', '.join(heat.maps)}")
    answer = explanation.label if reason else "the answer"
    if region is None:
        lines.append(f"no smaller part of what was seen keeps {answer}")
    else:
        kept = f"{explanation.label} {100 * region.probability:.1f} %"
        lines.append(f"enough for {answer}: {region.box}, {100 * region.share:.0f} % of what was seen ({kept})")
    lines.append(
        "explained: the original network in float32; quantized files have no gradients and answer slightly differently"
    )
    return lines


def describe_heat(heat: HeatMap) -> str:
    """Say for which class a heat map is, against which, and where in the picture that speaks."""
    against = heat.against or "all others, by their probabilities"
    return f"for {heat.label} against {against}, {_place(heat)}"


def as_document(
    explanation: Explanation, heat_maps: Sequence[HeatMap], region: Region | None, reason: str
) -> dict[str, Any]:
    """Collect the same facts for JSON; places and sizes are in pixels of the picture."""
    return {
        "predictions": [{"label": name, "probability": p} for name, p in explanation.top()],
        "rejected": bool(reason),
        "reason": reason,
        "seen": vars(explanation.seen),
        "heat_maps": [
            {
                "label": heat.label,
                "against": heat.against or None,
                "method": heat.method,
                "maps": list(heat.maps),
                "by_stage": dict(heat.by_stage),
                "peak": dict(zip(("down", "across"), heat.peak, strict=True)),
                "half_of_it": heat.half_of_it,
            }
            for heat in heat_maps
        ],
        "smallest_region": None
        if region is None
        else {"box": vars(region.box), "share": region.share, "probability": region.probability},
        "network": "original, float32",
    }


def _place(heat: HeatMap) -> str:
    if heat.values.max() <= 0:
        return "nothing speaks"
    down, across = heat.peak
    row, column = (
        ("top", "middle", "bottom")[min(int(3 * down), 2)],
        ("left", "middle", "right")[min(int(3 * across), 2)],
    )
    where = "in the middle" if row == column == "middle" else f"at the {' '.join(dict.fromkeys((row, column)))}"
    return (
        f"strongest {where} of what was seen, {100 * across:.0f} % across and {100 * down:.0f} % down; half of it lies "
        f"in {100 * heat.half_of_it:.0f} % of the area"
    )
