"""The engine that answers: the one asked for, or the fastest by what was measured on this machine.

Nothing depends on the remembered times: where they cannot be kept, a bundle's own or a short timing decide each time.
"""

import functools
import hashlib
import importlib.metadata
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from toolkit.bundle import Manifest, read_manifest, verify_files
from toolkit.engines import ENGINES, FLOAT_ENGINES, Engine, available_engines, open_engine
from toolkit.engines.timing import CLEARLY, latencies
from toolkit.errors import UserError, unknown_name
from toolkit.files import write_file
from toolkit.machine import cache_dir, processor
from toolkit.spec import Preprocessing

log = logging.getLogger("toolkit")

#: Names for an engine that is chosen for the machine.
CHOICES = ("auto", "auto-bf16", "recommended")

_BFLOAT16_ENGINES = tuple(name for name, row in ENGINES.items() if row.bfloat16)
_TIMED = (*FLOAT_ENGINES, *_BFLOAT16_ENGINES)

#: Seconds for which each engine is timed where nothing is known; of a slow network one call is.
_SECONDS = 0.25


def resolve_engine(engine: str, version_dir: Path, manifest: Manifest) -> str:
    """Name the engine that one of ``CHOICES`` means on this machine; any other name is returned as it is.

    ``auto`` is the fastest of the installed engines that run the network in float32 and that the export had nothing
    against: by the times remembered on this machine, else by those in the manifest if they are of such a processor,
    else by a timing of about a second, which is remembered. An engine that brings TensorFlow, which takes seconds
    to import, has to be clearly faster than one that does not. Where none of them is installed, as in an image without
    TensorFlow for a bundle without a float LiteRT file, it is the bundle's recommended one, if the export compared it.

    ``auto-bf16`` allows bfloat16 as well: where the processor computes in it, the export found every probability within
    ``toolkit.export.parity.BFLOAT16_TOLERANCE`` of the network's, and it is clearly faster here.
    """
    if engine not in CHOICES:
        return engine
    available = available_engines(version_dir)
    if engine == "recommended" and manifest.recommended_engine in available:
        return manifest.recommended_engine
    floats = [name for name in FLOAT_ENGINES if name in available]
    quantized = manifest.recommended_engine
    if not floats and quantized in available and is_trusted(quantized, manifest):
        log.info("%s: no engine that computes it in float32 is installed; %s answers", version_dir, quantized)
        return quantized
    candidates = [name for name in floats if is_trusted(name, manifest)] or floats
    if engine == "auto-bf16":
        candidates += _bfloat16_engines(version_dir, manifest, available)
    light = [name for name in candidates if _is_light(name)]
    if len(light) < 2:
        return (light or candidates or ["savedmodel"])[0]
    for known in (_remembered(manifest), _of_this_processor(manifest)):
        if all(name in known for name in light):
            return _fastest({name: known[name] for name in candidates if name in known})
    medians = _timed(version_dir, manifest.weights_digest, manifest.preprocessing, tuple(light))
    if len(medians) < len(light):
        return light[0]  # which says, when it is loaded, what is wrong with the file
    remember_times(manifest, medians)
    return _fastest(medians)


def answered_by(manifest: Manifest, engine: str) -> Manifest:
    """Leave out of a manifest what an engine's file does not answer: novelty, in int8 files of older versions.

    >>> from toolkit.bundle import find_bundle
    >>> answered_by(read_manifest(find_bundle("lenet5-mnist", shipped=True)), "litert").novelty is None
    True
    """
    if manifest.novelty is None or engine not in ENGINES:  # what is chosen by ``auto`` answers all
        return manifest
    answering = {ENGINES[name].file for name in manifest.novelty.parity if name in ENGINES}
    return replace(manifest, novelty=None) if ENGINES[engine].file not in answering else manifest


def _bfloat16_engines(version_dir: Path, manifest: Manifest, available: Sequence[str]) -> list[str]:
    """List those that may answer here, or say why there is none."""
    having = [name for name in _BFLOAT16_ENGINES if name in available]
    trusted = [name for name in having if is_trusted(name, manifest)]
    if not trusted:
        reason = "this processor does not compute in it, or OpenVINO is not installed"
        if having:
            reason = "the export did not measure its answers, or not find them near enough"
        log.info("%s: float32 answers, not bfloat16: %s", version_dir, reason)
    return trusted


def require_engine(name: str) -> None:
    """Refuse what no bundle can be opened with.

    Raises:
        UserError: suggests the nearest name.
    """
    if name not in (known := [*CHOICES, *ENGINES]):
        raise UserError(unknown_name("engine", name, known))


def is_trusted(engine: str, manifest: Manifest) -> bool:
    """Tell whether the export compared this engine's answers and had nothing against them."""
    measured = engine in FLOAT_ENGINES or f"top1_{engine}" in manifest.metrics
    return measured and not any(objection.startswith(f"{engine} ") for objection in manifest.forced)


def remember_times(manifest: Manifest, medians: Mapping[str, float]) -> None:
    """Keep the milliseconds that a network's engines took on this machine for ``auto``, if the cache can be written."""
    identity = _identity(manifest)
    path = _memory(identity)
    document = identity | {"p50_ms": {name: round(medians[name], 3) for name in _TIMED if name in medians}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(document, indent=1) + "\n")
    except (OSError, UserError) as error:
        log.debug("times are not remembered: %s", error)


def _remembered(manifest: Manifest) -> dict[str, float]:
    try:
        found = json.loads(_memory(_identity(manifest)).read_bytes())["p50_ms"]
        times = {name: float(found[name]) for name in _TIMED if name in found}
    except (OSError, ValueError, TypeError, KeyError):  # none, or damaged
        return {}
    return times if all(math.isfinite(time) for time in times.values()) else {}


def _of_this_processor(manifest: Manifest) -> Mapping[str, float]:
    timings = manifest.timings
    return timings.p50_ms if timings is not None and timings.processor == processor() else {}


def _identity(manifest: Manifest) -> dict[str, str | list[int] | dict[str, str]]:
    """Everything that times depend on."""
    return {
        "processor": processor(),
        "engines": {name: _version(ENGINES[name].module) for name in FLOAT_ENGINES},
        "weights": manifest.weights_digest,
        "size": list(manifest.preprocessing.size),
    }


def _memory(identity: Mapping[str, object]) -> Path:
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "times" / f"{digest[:32]}.json"


@functools.cache
def _version(module: str) -> str:
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return ""


def _is_light(engine: str) -> bool:
    return ENGINES[engine].module != "tensorflow"


def _fastest(medians: Mapping[str, float]) -> str:
    """Choose by milliseconds; what needs TensorFlow, or answers a little differently, has to be clearly faster."""
    best = min(medians, key=medians.__getitem__)
    plain = {name: median for name, median in medians.items() if _is_light(name) and name in FLOAT_ENGINES}
    usual = min(plain, key=plain.__getitem__)
    return best if medians[best] < CLEARLY * plain[usual] else usual


@functools.lru_cache(maxsize=64)  # for where it cannot be remembered on disk
def _timed(
    version_dir: Path, weights_digest: str, preprocessing: Preprocessing, names: Sequence[str]
) -> dict[str, float]:
    """Milliseconds of the engines for one picture; of none where one of them cannot be opened."""
    engines: dict[str, Engine] = {}
    try:
        verify_files(version_dir, read_manifest(version_dir), tuple(ENGINES[name].file for name in names))
        for name in names:
            engines[name] = open_engine(name, version_dir, preprocessing)
        pixels = np.random.default_rng(0).integers(0, 256, (1, *preprocessing.size, 3), np.uint8)
        found = latencies(engines, pixels, max_seconds=_SECONDS, min_rounds=1)
    except UserError:
        return {}
    return {name: latency.median for name, latency in found.items()}
