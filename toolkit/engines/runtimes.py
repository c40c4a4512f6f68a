"""One small class per runtime. Nothing here imports a framework until an engine is opened."""

import importlib.util
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from toolkit.bundle import FLOAT_LITERT, INT8_LITERT, litert_file
from toolkit.data.pixels.decode import normalize
from toolkit.errors import UserError, first_line, unknown_name
from toolkit.files import plain_path
from toolkit.lazy import import_openvino, keras
from toolkit.machine import computes_bfloat16, num_threads, processor, return_memory, sums_bytes_exactly
from toolkit.metrics import softmax
from toolkit.network import answers_novelty, probabilities_of
from toolkit.spec import Preprocessing


class Answers(NamedTuple):
    """A network's answers for a batch.

    Attributes:
        probabilities: float32 (batch, classes).
        novelty: float32 (batch,), above 1 for pictures unlike those of the classes; None where the network has none.
    """

    probabilities: np.ndarray
    novelty: np.ndarray | None = None


class Engine(ABC):
    """A loaded network. Safe to call from several threads; calls may run one after another.

    Attributes:
        can_be_shared: its class can be opened ``shared``, to answer several threads at once; see ``open_engine``.
    """

    can_be_shared = False

    @abstractmethod
    def answers(self, pixels: np.ndarray) -> Answers:
        """Answer uint8 RGB (batch, height, width, 3)."""

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 RGB (batch, height, width, 3) to float32 probabilities (batch, classes)."""
        return self.answers(pixels).probabilities


class KerasEngine(Engine):
    """The Keras network itself, compiled where the backend can: the reference the others are held against."""

    def __init__(self, model: "keras.Model", preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        self._probabilities = probabilities_of(model)
        self._has_novelty = answers_novelty(model)
        self._call = lambda inputs: model(inputs, training=False)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
            self._call = tf.function(self._call, input_signature=[spec])

    def answers(self, pixels: np.ndarray) -> Answers:
        given, *others = self._outputs(pixels)
        return Answers(self._probabilities(given), *(other[:, 0] for other in others))

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Compute what a network that answers logits gives before softmax, float32 (n, classes)."""
        return self._outputs(pixels)[0]

    def _outputs(self, pixels: np.ndarray) -> list[np.ndarray]:
        answers = self._call(normalize(pixels, self._preprocessing))
        return [keras.ops.convert_to_numpy(answer) for answer in (answers if self._has_novelty else [answers])]


class SavedModelEngine(Engine):
    """TensorFlow, through the bundle's own signatures.

    Attributes:
        loaded: the SavedModel; its functions live only as long as it does.
    """

    def __init__(self, version_dir: Path, preprocessing: Preprocessing) -> None:
        import tensorflow as tf

        with plain_path(version_dir) as path:
            self.loaded = tf.saved_model.load(str(path))
        self._constant = tf.constant

    def answers(self, pixels: np.ndarray) -> Answers:
        return _of_signature(self.loaded.signatures["pixels"](pixels=self._constant(pixels)))

    def from_bytes(self, pictures: Sequence[bytes]) -> Answers:
        """Answer encoded pictures, decoded in the graph, as for whoever serves the bundle."""
        return _of_signature(self._of_bytes("serving_default", pictures))

    def features(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Compute the pooled embeddings of encoded pictures: float32 (n, width)."""
        return self._of_bytes("features", pictures)["features"].numpy()

    def _of_bytes(self, signature: str, pictures: Sequence[bytes]) -> Any:
        # Typed, since no pictures at all would make a constant of floats.
        return self.loaded.signatures[signature](image_bytes=self._constant(pictures, "string"))


def _of_signature(outputs: Any) -> Answers:
    novelty = outputs.get("novelty")
    return Answers(outputs["probabilities"].numpy(), None if novelty is None else novelty.numpy())


class LiteRTEngine(Engine):
    """LiteRT on the CPU with XNNPACK."""

    def __init__(self, file: Path, preprocessing: Preprocessing) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._preprocessing = preprocessing
        self._interpreter = Interpreter(model_path=str(file), num_threads=num_threads())
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]
        self._shape: tuple[int, ...] = ()
        self._lock = threading.Lock()

    def answers(self, pixels: np.ndarray) -> Answers:
        inputs = normalize(pixels, self._preprocessing)
        with self._lock:
            if inputs.shape != self._shape:
                self._shape = ()  # what it is in between, should there be no memory for the new one
                self._interpreter.resize_tensor_input(self._input, inputs.shape)
                self._interpreter.allocate_tensors()
                self._shape = inputs.shape
            self._interpreter.set_tensor(self._input, inputs)
            self._interpreter.invoke()
            return _of_outputs([self._interpreter.get_tensor(output) for output in self._outputs])


def _of_outputs(outputs: Sequence[np.ndarray]) -> Answers:
    """Take a LiteRT file's outputs apart: logits and, where it has them, novelty."""
    logits, *others = outputs
    return Answers(softmax(logits), *(other[:, 0] for other in others[:1]))


class OpenVINOEngine(Engine):
    """OpenVINO on the CPU, reading the LiteRT file. Float networks run in float32, so that answers agree.

    Without byte dot products, OpenVINO's int8 kernels add pairs of products in 16 bits, which saturate: a trained
    ResNet-20 then answers one picture in twelve otherwise than LiteRT does with the same file. There the int8 file is
    computed in float.
    """

    can_be_shared = True
    _precision = "f32"

    def __init__(self, file: Path, preprocessing: Preprocessing, *, shared: bool = False) -> None:
        openvino = import_openvino()

        self._preprocessing = preprocessing
        hint = "THROUGHPUT" if shared else "LATENCY"
        options = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": self._precision}
        if not sums_bytes_exactly():
            options["LP_TRANSFORMS_MODE"] = "NO"  # compute int8 layers in float, between the same roundings
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(file), "CPU", options)
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
            self._idle.put(compiled.create_infer_request())
        return_memory(file.stat().st_size)  # all weights twice, which reading the file took

    def answers(self, pixels: np.ndarray) -> Answers:
        inputs = normalize(pixels, self._preprocessing)
        request = self._idle.get()
        try:
            # Copied, for the next call writes into the same memory.
            return _of_outputs([np.array(output) for output in request.infer(inputs).values()])
        finally:
            self._idle.put(request)


class BFloat16Engine(OpenVINOEngine):
    """OpenVINO computing a float file in bfloat16, whose eight bits cost probabilities some thousandths."""

    _precision = "bf16"


class Runtime(NamedTuple):
    """A row of ``ENGINES``: a class, and what it needs.

    Attributes:
        engine_class: called with the file and a ``Preprocessing``.
        file: in the bundle; ``""`` for the bundle itself.
        module: what must be installed.
        extra: of this package, that installs it; ``""`` where ``module`` is installed by itself.
        float_rank: place among the engines that compute in float32 where nothing was timed; None for another one.
        bfloat16: it computes in bfloat16, and only where the processor does.
    """

    engine_class: type
    file: str
    module: str
    extra: str = ""
    float_rank: int | None = None
    bfloat16: bool = False

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    @property
    def runs_here(self) -> bool:
        """Installed, and a kind of arithmetic that this machine's processor has."""
        return self.is_installed and (computes_bfloat16() or not self.bfloat16)


#: By the engine's name. Everything else that knows engines asks this table.
ENGINES: dict[str, Runtime] = {
    "savedmodel": Runtime(SavedModelEngine, "", "tensorflow", float_rank=3),
    "litert": Runtime(LiteRTEngine, FLOAT_LITERT, "ai_edge_litert", float_rank=2),
    "litert-int8": Runtime(LiteRTEngine, INT8_LITERT, "ai_edge_litert"),
    "litert-int16x8": Runtime(LiteRTEngine, litert_file("int16x8"), "ai_edge_litert"),
    "litert-dynamic": Runtime(LiteRTEngine, litert_file("dynamic"), "ai_edge_litert"),
    "litert-float16": Runtime(LiteRTEngine, litert_file("float16"), "ai_edge_litert"),
    "openvino": Runtime(OpenVINOEngine, FLOAT_LITERT, "openvino", "openvino", float_rank=1),
    "openvino-bf16": Runtime(BFloat16Engine, FLOAT_LITERT, "openvino", "openvino", bfloat16=True),
    "openvino-int8": Runtime(OpenVINOEngine, INT8_LITERT, "openvino", "openvino"),
}

_RANKS = {row.float_rank: name for name, row in ENGINES.items() if row.float_rank}
#: Engines that run the network in float32, in the order in which they are taken where nothing was timed; their
#: answers agree within 1e-4.
FLOAT_ENGINES = tuple(_RANKS[rank] for rank in sorted(_RANKS))


def available_engines(version_dir: Path) -> list[str]:
    """List the engines that run on this machine and that this bundle has a file for."""
    return [name for name, row in ENGINES.items() if (version_dir / row.file).exists() and row.runs_here]


def open_engine(name: str, version_dir: Path, preprocessing: Preprocessing, *, shared: bool = False) -> Engine:
    """Load a bundle's network into the runtime ``name``.

    Args:
        name: one of ``ENGINES``.
        version_dir: the bundle.
        preprocessing: the bundle's.
        shared: several threads will call it all the time: it answers more in all, each call taking longer. OpenVINO
            then gives each call a processor of its own, which costs less than several for one after the other.

    Raises:
        UserError: no such engine, its runtime is not installed, the processor lacks its arithmetic, the bundle lacks
            its file, or the file is damaged.
    """
    if name not in ENGINES:
        raise UserError(unknown_name("engine", name, list(ENGINES)))
    row = ENGINES[name]
    if not row.is_installed:
        package = f"toolkit[{row.extra}]" if row.extra else row.module
        raise UserError(f"engine {name!r} needs {row.module}, which is not installed: pip install '{package}'")
    if not row.runs_here:
        raise UserError(
            f"engine {name!r} needs a processor that computes in bfloat16 (amx_bf16 or avx512_bf16 in /proc/cpuinfo), "
            f"and this one does not: {processor()}; take 'openvino' or 'openvino-int8'"
        )
    if not (version_dir / row.file).exists():
        raise UserError(f"{version_dir}: has no {row.file}, which engine {name!r} runs")
    try:
        with plain_path(version_dir) as place:
            can_share = issubclass(row.engine_class, Engine) and row.engine_class.can_be_shared
            options = {"shared": True} if shared and can_share else {}
            return row.engine_class(place / row.file, preprocessing, **options)
    except Exception as error:  # every runtime has exceptions of its own for a damaged file
        reason = first_line(error)
        raise UserError(f"{version_dir / row.file}: engine {name!r} cannot load it ({reason})") from error
