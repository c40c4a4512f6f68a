"""Engines side by side: how fast each is, and how far apart their answers are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import Manifest, find_bundle, read_manifest, require_network, verify_files
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import GRAPH_FORMATS
from toolkit.engines import ENGINES, FLOAT_ENGINES, available_engines, open_engine
from toolkit.engines.runtimes import KerasEngine, SavedModelEngine
from toolkit.engines.timing import latency, recommend
from toolkit.errors import UserError
from toolkit.inference.predictor import Predictor
from toolkit.network import load_network

BATCH_SIZES = (1, 16)


def benchmark_bundle(bundle: str | Path, *, batch_sizes: Sequence[int] = BATCH_SIZES) -> dict[str, Any]:
    """Time every installed engine at every batch size on random pictures of the network's size.

    An ensemble is timed on the crops it averages, cutting them included.

    Returns:
        ``{"bundle", "held_out", "rows", "recommended", "verdict"}``. ``held_out`` is what the export measured, with
        top-1 and top-5 as fractions, or ``None``. A row is ``{"engine", "batch", "p50_ms", "p95_ms",
        "images_per_s", "bytes", "top1_delta"}``; ``top1_delta`` is the change of top-1 against float measured at
        export, a fraction, 0 for float engines and ``None`` where it was not measured.
    """
    version_dir = find_bundle(bundle)
    manifest = read_manifest(version_dir)
    verify_files(version_dir, manifest)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for name in available_engines(version_dir):
        engine = _Cutting(version_dir) if manifest.members else open_engine(name, version_dir, manifest.preprocessing)
        for batch in batch_sizes:
            pixels = rng.integers(0, 256, (batch, *manifest.preprocessing.size, 3), np.uint8)
            median, p95 = latency(engine, pixels)
            rows.append(
                {
                    "engine": name,
                    "batch": batch,
                    "p50_ms": round(median, 3),
                    "p95_ms": round(p95, 3),
                    "images_per_s": round(1e3 * batch / median, 1),
                    "bytes": _size_of(version_dir, ENGINES[name].file),
                    "top1_delta": _top1_delta(name, manifest.metrics),
                }
            )
    medians = {row["engine"]: row["p50_ms"] for row in rows if row["batch"] == batch_sizes[0]}
    recommended = recommend({name: p50 for name, p50 in medians.items() if _trusted(name, manifest)} or medians)
    held_out = {key: manifest.metrics[key] for key in ("top1", "top5", "n") if key in manifest.metrics}
    return {
        "bundle": str(version_dir),
        "held_out": held_out or None,
        "rows": rows,
        "recommended": recommended,
        "verdict": _verdict(rows, recommended),
    }


def verify_bundle(bundle: str | Path, images: Sequence[str | Path]) -> dict[str, Any]:
    """Give the same picture files to every installed engine and to the SavedModel's byte signature.

    The reference is the network in ``model.keras``, on pixels decoded on the host; that of an ensemble, which has no
    such file, the average of its members on crops that are cut on the host.

    Returns:
        ``{"bundle", "rows"}``; a row is ``{"path", "engine", "label", "probability", "difference"}`` with the
        largest difference in probability from the reference over all classes.

    Raises:
        UserError: not a bundle, or a picture that an engine or the byte signature cannot read.
    """
    version_dir = find_bundle(bundle)
    manifest = read_manifest(version_dir)
    verify_files(version_dir, manifest)
    if manifest.members:
        answers = {"savedmodel": Predictor.load(version_dir).probabilities(images)}
    else:
        answers = _engine_answers(version_dir, manifest, images)
    reference = next(iter(answers.values()))
    served = SavedModelEngine(version_dir, manifest.preprocessing)
    answers["savedmodel image_bytes"] = np.concatenate([_served(served, Path(image)) for image in images])
    rows = [
        {
            "path": str(path),
            "engine": name,
            "label": manifest.labels[int(answer[i].argmax())],
            "probability": float(answer[i].max()),
            "difference": float(np.abs(answer[i] - reference[i]).max()),
        }
        for i, path in enumerate(images)
        for name, answer in answers.items()
    ]
    return {"bundle": str(version_dir), "rows": rows}


class _Cutting:
    """An ensemble as an engine to time: from a decoded picture to the average."""

    def __init__(self, version_dir: Path) -> None:
        self._predictor = Predictor.load(version_dir)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        return self._predictor.probabilities(list(pixels))


def _served(engine: SavedModelEngine, image: Path) -> np.ndarray:
    """Ask the byte signature about one picture, so that one it cannot read is named."""
    import tensorflow as tf

    try:
        return engine.from_bytes([image.read_bytes()])
    except tf.errors.InvalidArgumentError:
        raise UserError(
            f"{image}: the engines' decoder reads it and the served graph's does not, which takes "
            f"{', '.join(GRAPH_FORMATS)} and no damage; save the picture again, as one of these"
        ) from None


def _engine_answers(version_dir: Path, manifest: Manifest, images: Sequence[str | Path]) -> dict[str, np.ndarray]:
    """Every engine's probabilities by its name, those of the Keras network first."""
    preprocessing = manifest.preprocessing
    pixels = load_pixels(images, preprocessing)
    model = load_network(require_network(version_dir, manifest))
    answers = {"keras": KerasEngine(model, preprocessing).probabilities(pixels)}
    for name in available_engines(version_dir):
        answers[name] = open_engine(name, version_dir, preprocessing).probabilities(pixels)
    return answers


def _size_of(version_dir: Path, file: str) -> int:
    if file:
        return (version_dir / file).stat().st_size
    parts = [version_dir / "saved_model.pb", *(version_dir / "variables").iterdir()]
    return sum(part.stat().st_size for part in parts)


def _top1_delta(engine: str, metrics: dict[str, float]) -> float | None:
    if engine in FLOAT_ENGINES:
        return 0.0
    if "top1" not in metrics or f"top1_{engine}" not in metrics:
        return None
    return round(metrics[f"top1_{engine}"] - metrics["top1"], 6)


def _trusted(engine: str, manifest: Manifest) -> bool:
    """Tell whether the export compared this engine's answers and had nothing against them."""
    measured = engine in FLOAT_ENGINES or f"top1_{engine}" in manifest.metrics
    return measured and not any(objection.startswith(f"{engine} ") for objection in manifest.forced)


def _verdict(rows: list[dict[str, Any]], recommended: str) -> str:
    first = {r["engine"]: r for r in rows if r["batch"] == rows[0]["batch"]}
    best, base = first[recommended], first.get("savedmodel", rows[0])
    ratio = base["p50_ms"] / best["p50_ms"]
    delta = best["top1_delta"]
    cost = "an accuracy change that was not measured" if delta is None else f"{100 * delta:+.1f} points of top-1"
    return f"{recommended}: {ratio:.1f}× as fast as {base['engine']} at batch {best['batch']} here, for {cost}"
