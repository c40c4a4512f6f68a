"""The call that tells what is installed here, what answers, and what is missing."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.calls import call
from toolkit.api.results import Result
from toolkit.errors import first_line
from toolkit.machine import cache_dir, installed_versions, processor, processor_features
from toolkit.progress import step, track

if TYPE_CHECKING:
    import numpy as np
    from packaging.requirements import Requirement

#: Extras of this package, and what each is for.
EXTRAS = {
    "openvino": "the fastest engine for float networks on Intel and AMD processors",
    "serve": "`toolkit serve`",
    "demo": "`toolkit demo`",
    "compress": "`toolkit compress --method qat`, `prune` and `cluster`",
    "onnx": "`toolkit export --onnx`",
    "tune": "`toolkit tune`",
    "tensorboard": "TensorBoard beside a run",
    "heif": "HEIC pictures, as telephones take them",
    "jax": "training on several hosts",
    "ray": "`--cluster`",
    "gpu": "training on a GPU of NVIDIA",
}
# What a processor's features are used for, by name.
_USES = {
    "AVX2": "convolutions in float32",
    "AVX-512": "convolutions in float32, twice as wide",
    "VNNI": "int8 networks in int8, also by OpenVINO",
    "bf16": "features of `toolkit finetune`, and mixed_bfloat16 training",
    "AMX": "int8 and bfloat16 in tiles",
}
_VARIABLES = ("KERAS_BACKEND", "KERAS_HOME", "TOOLKIT_CACHE", "TOOLKIT_OFFLINE", "TMPDIR", "CUDA_VISIBLE_DEVICES")
# Largest difference in probability from Keras with which an engine answers, float and quantized.
_FLOAT, _QUANTIZED = 1e-3, 0.1


class Diagnosis(Result):
    """Findings about this machine, see ``toolkit.doctor``."""

    @property
    def healthy(self) -> bool:
        """True if all that the package cannot do without is here, and every engine installed answers."""
        return not any(row["needed"] for row in self["missing"])

    def _title(self) -> str:
        return f"toolkit {self['toolkit']}, Python {self['python']}, {self['platform']}"

    def _lines(self) -> list[str]:
        answering = [row["engine"] for row in self["engines"] if row["answers"]]
        lines = [self._title(), self["processor"]["name"], f"engines that answer: {', '.join(answering) or 'none'}"]
        return lines + [f"missing: {row['what']} ({row['reason']}): {row['command']}" for row in self["missing"]]

    def _body(self) -> str:
        from toolkit.report.page import table

        features = [[row["name"], "yes" if row["here"] else "no", row["use"]] for row in self["processor"]["features"]]
        engines = [[row["engine"], "answers" if row["answers"] else row["reason"]] for row in self["engines"]]
        packages = [[row["name"], row["version"] or "missing", row["extra"]] for row in self["packages"]]
        missing = [[row["what"], row["reason"], row["command"]] for row in self["missing"]]
        return (
            table(self["processor"]["name"], ["feature", "here", "used for"], features)
            + table("Engines", ["engine", ""], engines)
            + table("Missing", ["", "for", "brought by"], missing)
            + table("Packages", ["package", "version", "extra"], packages)
        )


@call
def doctor() -> Diagnosis:
    """Tell what is installed here, which engines answer, what the processor offers, and what is missing.

    Every engine that is installed is given a small network, and its answers are held against those of Keras.

    Returns:
        ``{"toolkit", "python", "platform", "processor", "memory_bytes", "accelerators", "packages", "engines",
        "places", "environment", "missing"}``. An engine is ``{"engine", "answers", "difference", "reason"}``, what is
        missing ``{"what", "reason", "command", "needed"}``; ``result.healthy`` is False if anything of it is needed.
    """
    from toolkit import __version__

    packages = list(_packages())
    engines, accelerators = _engines()
    features = processor_features()
    places = list(_places())
    return Diagnosis(
        {
            "toolkit": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": {
                "name": processor(),
                "features": [{"name": name, "here": here, "use": _USES[name]} for name, here in features.items()],
            },
            "memory_bytes": _memory(),
            "accelerators": accelerators,
            "packages": packages,
            "engines": engines,
            "places": places,
            "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
            "missing": [*_missing_packages(packages), *_silent(engines), *_closed(places)],
        }
    )


def _packages() -> Iterator[dict[str, Any]]:
    """List the packages that this one names, with the versions that are installed."""
    from packaging.requirements import Requirement

    try:
        named = importlib.metadata.requires("toolkit") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source, which no tool has installed
        named = []
    for requirement in map(Requirement, named):
        for extra in _extras_of(requirement):
            version = installed_versions(requirement.name).get(requirement.name)
            fits = version is not None and requirement.specifier.contains(version, prereleases=True)
            yield {
                "name": requirement.name,
                "extra": extra,
                "wanted": (f"[{','.join(requirement.extras)}]" if requirement.extras else "")
                + str(requirement.specifier),
                "version": version,
                "fits": fits and _has_extras(requirement),
            }


def _extras_of(requirement: "Requirement") -> list[str]:
    """List the extras that a requirement belongs to; ``""`` alone if it is always one, none if never here."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return [""]
    return [extra for extra in EXTRAS if requirement.marker.evaluate({"extra": extra})]


def _has_extras(requirement: "Requirement") -> bool:
    """Tell whether what the extras of a package need is installed."""
    from packaging.requirements import Requirement

    for extra in requirement.extras:
        for own in map(Requirement, importlib.metadata.requires(requirement.name) or []):
            if own.marker is not None and own.marker.evaluate({"extra": extra}) and not installed_versions(own.name):
                return False
    return True


def _missing_packages(packages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for extra in ("", *EXTRAS):
        lacking = [row for row in packages if row["extra"] == extra and not row["fits"]]
        if lacking:
            named = ", ".join(f"{row['name']}{row['wanted']}" + _found(row) for row in lacking)
            command = f"pip install 'toolkit[{extra}]'" if extra else "pip install --upgrade toolkit"
            reason = EXTRAS.get(extra, "the package itself")
            yield {"what": named, "reason": reason, "command": command, "needed": not extra}


def _found(row: dict[str, Any]) -> str:
    return f" (here: {row['version']})" if row["version"] else ""


def _engines() -> tuple[list[dict[str, Any]], list[str]]:
    """Give every engine a small network, and list the accelerators that training would use."""
    from toolkit.engines import ENGINES

    try:
        with step("starting TensorFlow"):
            import tensorflow as tf

            probe = _Probe()
            accelerators = [device.name for device in tf.config.list_physical_devices("GPU")]
    except Exception as error:  # whatever is wrong with it is what a person wants to know
        reason = f"Keras cannot compute: {first_line(error)}"
        return [{"engine": name, "answers": False, "difference": None, "reason": reason} for name in ENGINES], []
    return [probe.row(name) for name in track(list(ENGINES), "asking engines")], accelerators


class _Probe:
    """A network of a few hundred weights, and Keras' answers."""

    def __init__(self) -> None:
        import numpy as np

        from toolkit.engines.runtimes import KerasEngine
        from toolkit.lazy import keras, layers
        from toolkit.spec import Preprocessing

        inputs = keras.Input((16, 16, 3), name="input")
        maps = layers.Conv2D(8, 3, activation="relu", name="conv", kernel_initializer=_seeded(0))(inputs)
        pooled = layers.GlobalAveragePooling2D(name="pool")(maps)
        self._model = keras.Model(inputs, layers.Dense(4, name="logits", kernel_initializer=_seeded(1))(pooled))
        self._preprocessing = Preprocessing(size=(16, 16))
        self._pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
        self._expected = KerasEngine(self._model, self._preprocessing).probabilities(self._pixels)

    def row(self, name: str) -> dict[str, Any]:
        """Tell what an engine answers."""
        from toolkit.engines import ENGINES

        row: dict[str, Any] = {"engine": name, "answers": False, "difference": None, "reason": ""}
        engine = ENGINES[name]
        if not engine.is_installed:
            package = f"toolkit[{engine.extra}]" if engine.extra else engine.module
            return row | {"reason": f"not installed: pip install '{package}'"}
        try:
            difference = float(abs(self._answers(name) - self._expected).max())
        except Exception as error:  # every runtime has exceptions of its own
            return row | {"reason": first_line(error)}
        most = _FLOAT if engine.float_rank else _QUANTIZED
        if not difference <= most:  # so that NaN is refused too
            return row | {"difference": difference, "reason": f"differs from Keras by {difference:.2g} in probability"}
        return row | {"answers": True, "difference": difference}

    def _answers(self, name: str) -> "np.ndarray":
        from toolkit.data.pixels.decode import normalize
        from toolkit.engines import ENGINES, open_engine
        from toolkit.engines.convert import to_litert
        from toolkit.files import scratch_folder

        file = ENGINES[name].file
        if not file:
            import tensorflow as tf

            return tf.nn.softmax(tf.function(self._model)(normalize(self._pixels, self._preprocessing))).numpy()
        kind: Any = name.partition("-")[2] or "none"
        content = to_litert(self._model, quantization=kind, calibration=[normalize(self._pixels, self._preprocessing)])
        with scratch_folder("toolkit-doctor-") as directory:
            (directory / file).parent.mkdir(parents=True)
            (directory / file).write_bytes(content)
            return open_engine(name, directory, self._preprocessing).probabilities(self._pixels)


def _seeded(seed: int) -> Any:
    from toolkit.lazy import keras

    return keras.initializers.GlorotUniform(seed=seed)


def _silent(engines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Name the engines that are installed and do not answer."""
    for row in engines:
        if not row["answers"] and not row["reason"].startswith("not installed"):
            command = "pip install --upgrade --force-reinstall toolkit"
            yield {"what": f"engine {row['engine']}", "reason": row["reason"], "command": command, "needed": True}


def _places() -> Iterator[dict[str, Any]]:
    """List the folders that the package writes to unasked, with the room there is."""
    for variable, path in (("TOOLKIT_CACHE", cache_dir()), ("TMPDIR", Path(tempfile.gettempdir()))):
        existing = path.absolute()
        while not existing.exists():
            existing = existing.parent
        try:
            with tempfile.TemporaryDirectory(prefix=".toolkit-", dir=existing):
                is_writable = True
        except OSError:
            is_writable = False
        free = shutil.disk_usage(existing).free
        yield {"path": str(path), "variable": variable, "writable": is_writable, "free_bytes": free}


def _closed(places: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for place in places:
        if not place["writable"]:
            command = f"export {place['variable']}=FOLDER"
            what = f"a place to write: {place['path']}"
            yield {"what": what, "reason": "caches and scratch files", "command": command, "needed": True}


def _memory() -> int | None:
    if sys.platform == "win32" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
