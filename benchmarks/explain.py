"""The faithfulness of heat maps: two classes in the halves of one picture, and pixels deleted and inserted.

    python benchmarks/explain.py --photos hymenoptera/val --weights FILE.caffemodel --bundle saved_models/hymenoptera \\
        --out benchmarks/results/explain.json

*Halves*: a photograph of either class, each cropped to half of the network's input, side by side, the classes taking
turns on the left. Of each class's heat map, is the peak on its half, and what share of the mass? Only photographs whose
half, doubled to a whole, the network names right are taken: no map can find what the network does not know. The same
for a network whose weights are shuffled, each tensor within itself. *Faithfulness*: areas under the deletion and
insertion curves (Petsiuk et al., BMVC 2018) for the likeliest class of whole photographs, against a random map of 7×7
cells and a map that is hottest in the centre.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
from command import given

from toolkit.data.pixels.decode import decode_pixels
from toolkit.explain import Explainer, Explanation, HeatMap, open_explainer
from toolkit.explain.readout import read_out
from toolkit.factory import create_model, preprocessing_of
from toolkit.spec import Preprocessing

#: ImageNet's numbers of the two classes.
ANT, BEE = "310", "309"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="holds ants/ and bees/, not used in teaching")
    parser.add_argument("--weights", required=True, help="GoogLeNet's, of ImageNet")
    parser.add_argument("--bundle", required=True, help="GoogLeNet fine-tuned on ants and bees")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--pictures", type=int, default=50, help="for deletion and insertion")
    parser.add_argument("--steps", type=int, default=28, help="of deletion and insertion")
    parser.add_argument("--occluded", type=int, default=10, help="pairs that occlusion is tried on")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model = create_model("googlenet", weights=arguments.weights)
    imagenet = Explainer(model, preprocessing_of(model))
    tuned = open_explainer(arguments.bundle)
    files = [sorted((arguments.photos / name).glob("*.jpg")) for name in ("ants", "bees")]
    report: dict[str, Any] = {
        **given(),
        "versions": {name: importlib.metadata.version(name) for name in ("keras", "tensorflow", "numpy")},
        "halves": {},
        "faithfulness": {},
    }
    networks = {"imagenet": (imagenet, (ANT, BEE)), "fine-tuned": (tuned, ("ants", "bees"))}
    for name, (explainer, labels) in networks.items():
        pairs = known_pairs(explainer, files, labels, arguments.pairs)
        found = {method: halves(explainer, pairs, labels, method) for method in ("evidence", "grad-cam")}
        found["occlusion"] = halves(explainer, pairs[: arguments.occluded], labels, "occlusion")
        trained = explainer.model.get_weights()
        shuffle(explainer)
        found["evidence, weights shuffled"] = halves(explainer, pairs, labels, "evidence")
        explainer.model.set_weights(trained)
        explainer.read_out = read_out(explainer.model)
        report["halves"][name] = found
        write(report, arguments.out)
    for name, (explainer, _) in reversed(networks.items()):
        report["faithfulness"][name] = curves(explainer, files, arguments.pictures, arguments.steps)
        write(report, arguments.out)


def write(report: dict[str, Any], out: Path | None) -> None:
    text = json.dumps(report, indent=1)
    if out:
        out.write_text(text + "\n")
    else:
        print(text)


def known_pairs(
    explainer: Explainer, files: list[list[Path]], labels: tuple[str, str], count: int
) -> list[tuple[np.ndarray, bool]]:
    """Join photographs of either class that the network knows; and tell if the first class is on the left."""
    height, width = explainer.preprocessing.size
    half = Preprocessing((height, width // 2))
    known = []
    for paths, label in zip(files, labels, strict=True):
        index, pixels = explainer.index_of(label), [decode_pixels(path, half) for path in paths]
        named = [explainer.logits(np.concatenate([one, one], axis=1)[None])[0].argmax() == index for one in pixels]
        known.append([one for one, is_right in zip(pixels, named, strict=True) if is_right])
    pairs = []
    for number in range(count):
        first, second = (pictures[number * step % len(pictures)] for pictures, step in zip(known, (1, 7), strict=True))
        is_left = number % 2 == 0
        pairs.append((np.concatenate([first, second] if is_left else [second, first], axis=1), is_left))
    return pairs


def halves(
    explainer: Explainer, pairs: list[tuple[np.ndarray, bool]], labels: tuple[str, str], method: str
) -> dict[str, float]:
    peaks, masses = [], []
    for pixels, first_is_left in pairs:
        explanation = Explanation(explainer, pixels, pixels)
        for label, is_left in zip(labels, (first_is_left, not first_is_left), strict=True):
            found = explanation.heat_map(label, method=method)
            heat, middle = found.heat, pixels.shape[1] // 2
            on_left = float(heat[:, :middle].sum() / max(float(heat.sum()), 1e-9)) if heat.any() else 0.5
            peaks.append(heat.any() and (found.peak[1] < 0.5) == is_left)
            masses.append(on_left if is_left else 1 - on_left)
    return {"maps": len(peaks), "peak": round(float(np.mean(peaks)), 3), "mass": round(float(np.mean(masses)), 3)}


def curves(explainer: Explainer, files: list[list[Path]], count: int, steps: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    height, width = explainer.preprocessing.size
    down, across = np.mgrid[:height, :width]
    centre = -np.hypot(down - (height - 1) / 2, across - (width - 1) / 2).astype(np.float32)
    areas: dict[str, list[tuple[float, float]]] = {}
    for path in [*files[0][: count - count // 2], *files[1][: count // 2]]:
        explanation = explainer.explain(str(path))
        cells = np.kron(rng.random((7, 7)), np.ones((-(-height // 7), -(-width // 7))))[:height, :width]
        maps = {method: explanation.heat_map(method=method) for method in ("evidence", "grad-cam", "occlusion")}
        others = {"random": cells, "centre": centre}
        maps |= {name: HeatMap(values, explanation.label, "", name) for name, values in others.items()}
        for name, found in maps.items():
            areas.setdefault(name, []).append(explanation.faithfulness(found, steps=steps).areas)
    return {
        name: dict(zip(("deletion", "insertion"), np.mean(rows, axis=0).round(4).tolist(), strict=True))
        | {"pictures": len(rows)}
        for name, rows in areas.items()
    }


def shuffle(explainer: Explainer) -> None:
    rng = np.random.default_rng(0)
    for layer in explainer.model.layers:
        layer.set_weights([rng.permutation(weight.ravel()).reshape(weight.shape) for weight in layer.get_weights()])
    # What was read of the classifier before is the old.
    explainer.read_out = read_out(explainer.model)


if __name__ == "__main__":
    main()
