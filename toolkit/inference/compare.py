"""Engines side by side: how fast each is, and how far apart their answers are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import (
    GRAPH,
    Manifest,
    find_bundle,
    held_bundles,
    read_examples,
    read_manifest,
    require_network,
    verify_files,
)
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import GRAPH_FORMATS
from toolkit.engines import ENGINES, FLOAT_ENGINES, Engine, available_engines, open_engine
from toolkit.engines.runtimes import Answers, KerasEngine, SavedModelEngine
from toolkit.engines.timing import BUSY, Latency, latencies, processor_share, recommend
from toolkit.errors import UserError
from toolkit.inference.choice import is_trusted, remember_times
from toolkit.inference.predictor import Predictor
from toolkit.network import load_network
from toolkit.progress import step, track

BATCH_SIZES = (1, 16)

_QUANTIZED_MARGIN = 1.5  # kernels of another processor round otherwise than those of the export


def benchmark_bundle(bundle: str | Path, *, batch_sizes: Sequence[int] = BATCH_SIZES) -> dict[str, Any]:
    """Time every installed engine at every batch size on random pictures of the network's size.

    Engines take turns, so that whatever else the machine does meets all of them. The times for one picture are
    remembered, and ``auto`` goes by them from then on. An ensemble is timed on the crops it averages, cutting them
    included.

    Returns:
        ``{"bundle", "held_out", "rows", "processor_share", "recommended", "verdict"}``. ``held_out`` is what the export
        measured, with top-1 and top-5 as fractions and the ``subset`` that they hold for, or ``None``.
        ``processor_share`` is the part, 0…1, of the processors' time that this process could have meanwhile; where it
        is small the verdict says so. A row is ``{"engine", "batch", "p50_ms", "p95_ms", "images_per_s", "bytes",
        "top1_delta"}``; ``top1_delta`` is the change of top-1 against float measured at export, a fraction, 0 for float
        engines and ``None`` where it was not measured.
    """
    version_dir = find_bundle(bundle, shipped=True)
    manifest = read_manifest(version_dir)
    verify_files(version_dir, manifest)
    engines: dict[str, Engine] = {}
    for name in track(available_engines(version_dir), "loading engines"):
        cutting = manifest.members
        engines[name] = _Cutting(version_dir) if cutting else open_engine(name, version_dir, manifest.preprocessing)
    rng = np.random.default_rng(0)
    times: dict[tuple[str, int], Latency] = {}
    shares = [processor_share()]
    for batch in track(batch_sizes, "timing engines"):
        pixels = rng.integers(0, 256, (batch, *manifest.preprocessing.size, 3), np.uint8)
        times |= {(name, batch): found for name, found in latencies(engines, pixels).items()}
        shares.append(processor_share())
    rows = [_row(version_dir, manifest, name, batch, times[name, batch]) for name in engines for batch in batch_sizes]
    medians = {name: times[name, batch_sizes[0]].median for name in engines}
    if 1 in batch_sizes:
        remember_times(manifest, {name: times[name, 1].median for name in engines})
    recommended = recommend({name: p50 for name, p50 in medians.items() if is_trusted(name, manifest)} or medians)
    share = float(np.mean(shares))
    held_out: dict[str, Any] | None = None
    if "top1" in manifest.metrics:
        shown = ("top1", "top5", "n", "standard_error")
        held_out = {key: manifest.metrics[key] for key in shown if key in manifest.metrics}
        held_out |= {"subset": manifest.subset, "num_classes": len(manifest.labels)}
    return {
        "bundle": str(version_dir),
        "held_out": held_out,
        "rows": rows,
        "processor_share": round(share, 3),
        "recommended": recommended,
        "verdict": _verdict(rows, recommended, share),
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
    version_dir = find_bundle(bundle, shipped=True)
    manifest = read_manifest(version_dir)
    pixels = load_pixels(images, manifest.preprocessing)  # before minutes of loading networks
    verify_files(version_dir, manifest)
    if manifest.members:
        answers = {"savedmodel": Predictor.load(version_dir).probabilities(images)}
    else:
        answers = _engine_answers(version_dir, manifest, pixels)
    reference = next(iter(answers.values()))
    served = SavedModelEngine(version_dir, manifest.preprocessing)
    found = [_served(served, Path(image)) for image in track(images, "asking the served graph")]
    answers["savedmodel image_bytes"] = np.concatenate(found)
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


def verify_version(bundle: str | Path) -> dict[str, Any]:
    """Compare a version's files with their checksums, and the answers of its engines with those of its network.

    Engines answer the bundle's own example pictures, or noise where it has none. Those that run in float32 must agree
    with the network as they had to at export. Those of quantized files must come as near as they came then, on the
    examples, which were among the pictures of that comparison; on noise they need only answer with numbers. An ensemble
    has no network of its own: its files are compared with their checksums, and opened.

    Args:
        bundle: ``…/NAME/VERSION``, or ``…/NAME`` for its highest version; or a folder of bundles, of which every
            version is verified.

    Returns:
        ``{"bundle", "files", "pictures", "rows", "objections"}``: how many files and pictures were compared; a row
        ``{"bundle", "engine", "difference", "allowed"}`` for each version and installed engine, the largest difference
        in probability, and the one allowed, None where any is; in words, what is wrong.

    Raises:
        UserError: not a bundle, or its manifest is damaged.
    """
    held = held_bundles(bundle)
    if not held:
        return _verified(find_bundle(bundle, shipped=True))
    report: dict[str, Any] = {"bundle": str(bundle), "files": 0, "pictures": 0, "rows": [], "objections": []}
    for version_dir in [version_dir for versions in held.values() for version_dir in versions.values()]:
        try:
            own = _verified(version_dir)
        except UserError as error:
            own = {"objections": [str(error)]}
        for key, value in own.items():
            if key != "bundle":
                report[key] += value
    return report


def _verified(version_dir: Path) -> dict[str, Any]:
    from toolkit.export.parity import FLOAT_TOLERANCE, noise  # which brings all that writes bundles

    manifest = read_manifest(version_dir)
    report: dict[str, Any] = {"bundle": str(version_dir), "files": 0, "pictures": 0, "rows": [], "objections": []}
    for name in track(tuple(manifest.files), "comparing files with their checksums"):
        try:
            verify_files(version_dir, replace(manifest, files={name: manifest.files[name]}))
            report["files"] += 1
        except UserError as error:
            report["objections"].append(str(error))
    if report["objections"]:  # what is damaged is not opened
        return report
    if manifest.members:
        with step("opening the ensemble"):
            Predictor.load(version_dir)
        return report
    examples = [example.path for example in read_examples(version_dir)]
    pixels = load_pixels(examples, manifest.preprocessing) if examples else noise(manifest.preprocessing)
    reference, *others = _engine_answers(version_dir, manifest, pixels).items()
    report["pictures"] = len(pixels)
    for name, probabilities in others:
        difference = float(np.abs(probabilities - reference[1]).max())
        allowed = FLOAT_TOLERANCE if name in FLOAT_ENGINES else None
        if allowed is None and examples and name in manifest.parity:
            allowed = _QUANTIZED_MARGIN * manifest.parity[name] + FLOAT_TOLERANCE
        report["rows"].append(
            {"bundle": str(version_dir), "engine": name, "difference": difference, "allowed": allowed}
        )
        if not difference <= (np.inf if allowed is None else allowed):  # as of NaN
            limit = "" if allowed is None else f", more than {allowed:.2g}"
            report["objections"].append(f"{version_dir}: {name} differs from Keras by {difference:.2g}{limit}")
    return report


class _Cutting(Engine):
    """An ensemble as an engine to time: from a decoded picture to the average."""

    def __init__(self, version_dir: Path) -> None:
        self._predictor = Predictor.load(version_dir)

    def answers(self, pixels: np.ndarray) -> Answers:
        return Answers(self._predictor.probabilities(list(pixels)))


def _served(engine: SavedModelEngine, image: Path) -> np.ndarray:
    """Ask the byte signature about one picture, so that one it cannot read is named."""
    import tensorflow as tf

    try:
        return engine.from_bytes([image.read_bytes()]).probabilities
    except tf.errors.InvalidArgumentError:
        raise UserError(
            f"{image}: the engines' decoder reads it and the served graph's does not, which takes "
            f"{', '.join(GRAPH_FORMATS)} and no damage; save the picture again, as one of these"
        ) from None


def _engine_answers(version_dir: Path, manifest: Manifest, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Every engine's probabilities by its name, those of the Keras network first."""
    preprocessing = manifest.preprocessing
    with step("asking the Keras network"):
        model = load_network(require_network(version_dir, manifest))
        answers = {"keras": KerasEngine(model, preprocessing).probabilities(pixels)}
    for name in track(available_engines(version_dir), "asking engines"):
        answers[name] = open_engine(name, version_dir, preprocessing).probabilities(pixels)
    return answers


def engine_bytes(version_dir: Path, engine: str) -> int:
    """Measure the files of a bundle that an engine reads, in bytes."""
    file = ENGINES[engine].file
    if file:
        return (version_dir / file).stat().st_size
    parts = [version_dir / GRAPH, *(version_dir / "variables").iterdir()]
    return sum(part.stat().st_size for part in parts)


def _top1_delta(engine: str, metrics: dict[str, float]) -> float | None:
    if engine in FLOAT_ENGINES:
        return 0.0
    if "top1" not in metrics or f"top1_{engine}" not in metrics:
        return None
    return round(metrics[f"top1_{engine}"] - metrics["top1"], 6)


def _row(version_dir: Path, manifest: Manifest, engine: str, batch: int, found: Latency) -> dict[str, Any]:
    return {
        "engine": engine,
        "batch": batch,
        "p50_ms": round(found.median, 3),
        "p95_ms": round(found.p95, 3),
        "images_per_s": round(1e3 * batch / found.median, 1),
        "bytes": engine_bytes(version_dir, engine),
        "top1_delta": _top1_delta(engine, manifest.metrics),
    }


def _verdict(rows: list[dict[str, Any]], recommended: str, share: float) -> str:
    first = {r["engine"]: r for r in rows if r["batch"] == rows[0]["batch"]}
    best, base = first[recommended], first.get("savedmodel", rows[0])
    ratio = base["p50_ms"] / best["p50_ms"]
    delta = best["top1_delta"]
    cost = "an accuracy change that was not measured" if delta is None else f"{100 * delta:+.1f} points of top-1"
    verdict = f"{recommended}: {ratio:.1f}× as fast as {base['engine']} at batch {best['batch']} here, for {cost}"
    if share < BUSY:
        verdict += (
            f"; a busy machine: only {100 * share:.0f} % of its processors' time was free, so measure again later"
        )
    return verdict
