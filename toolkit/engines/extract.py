"""Features of a frozen network from the fastest engine of this machine, compared with Keras' before it is used."""

import importlib.util
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toolkit.data.pixels.decode import luma, normalize
from toolkit.engines.onnx_graph import features_to_onnx
from toolkit.engines.onnx_rules import UntranslatableError
from toolkit.errors import UserError, unknown_name
from toolkit.lazy import import_openvino, keras
from toolkit.machine import num_threads
from toolkit.spec import Preprocessing

log = logging.getLogger("toolkit")

Call = Callable[[np.ndarray], list[np.ndarray]]

#: How far features may stand from Keras' own, ‖ours - Keras'‖ / ‖Keras'‖ of any one picture, by precision.
#: Bfloat16 keeps eight bits; what the networks here lose by that is 0.3 to 0.8 %.
TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}

#: By choice, in this order; ``auto`` takes the first that is installed, translates the network and is right.
EXTRACTORS = ("openvino", "keras")


@dataclass(frozen=True)
class Extractor:
    """A network that answers features for pixels.

    Attributes:
        name: the engine.
        precision: ``"float32"`` or ``"bfloat16"``.
        batch_size: pictures per call.
        difference: largest distance from Keras' features on the pictures it was tried on; 0 for Keras itself.
        call: float32 features for exactly ``batch_size`` pictures, of each output of the network.
    """

    name: str
    precision: str
    batch_size: int
    difference: float
    call: Call

    def answers(self, pixels: np.ndarray) -> list[np.ndarray]:
        """uint8 RGB (n ≤ batch_size, height, width, 3) to float32 features (n, …) of each output, in one pass.

        A smaller batch is filled up, so that a picture's features do not depend on how many were left over.
        """
        missing = self.batch_size - len(pixels)
        full = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)]) if missing else pixels
        return [features[: len(pixels)] for features in self.call(full)]

    def __str__(self) -> str:
        proof = f", within {100 * self.difference:.2g} % of Keras" if self.difference else ""
        return f"{self.name} {self.precision}{proof}"


def open_extractor(
    model: "keras.Model",
    preprocessing: Preprocessing,
    trial: np.ndarray,
    *,
    engine: str = "auto",
    batch_size: int = 8,
    precision: str = "auto",
) -> Extractor:
    """Load ``model`` into the fastest engine whose features are Keras' within ``TOLERANCE``.

    On a GPU that is Keras itself. On a CPU it is OpenVINO, in bfloat16 where the processor computes in it, else in
    float32; an engine that fails or strays is logged and passed over.

    Args:
        model: from input to one cut or several, computed in float32.
        preprocessing: what the network was trained with.
        trial: uint8 RGB (n, height, width, 3), a few real pictures to compare the engines on.
        engine: ``"auto"`` or one of ``EXTRACTORS``.
        batch_size: pictures per call.
        precision: ``"auto"`` or ``"float32"``.

    Raises:
        UserError: an engine asked for by name is unknown, not installed, or not equal to Keras.
    """
    if engine not in ("auto", *EXTRACTORS):
        raise UserError(unknown_name("engine", engine, ["auto", *EXTRACTORS]))
    reference = _keras_extractor(model, preprocessing, batch_size)
    if engine == "keras" or (engine == "auto" and on_gpu()):
        return reference
    missing = [name for name in ("openvino", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        needed = f"engine 'openvino' needs {' and '.join(missing)}, not installed here: pip install 'toolkit[openvino]'"
        if engine == "openvino":
            raise UserError(needed)
        if "openvino" not in missing:
            log.warning("%s; Keras computes the features", needed)
        return reference
    trial = trial[:batch_size]
    # One at a time and compiled, which lets go of each layer's output once it was read: TensorFlow keeps for itself, to
    # the end, whatever it took for them.
    forward = _compiled(model, 1)
    inputs = normalize(trial, preprocessing)
    answers = [forward(inputs[i : i + 1]) for i in range(len(inputs))]
    expected = [np.concatenate(rows) for rows in zip(*answers, strict=True)]
    reasons: list[str] = []
    for candidate in _openvino_extractors(model, preprocessing, batch_size, precision, reasons):
        found = candidate.answers(trial)
        difference = max(relative_difference(*pair) for pair in zip(found, expected, strict=True))
        if difference <= TOLERANCE[candidate.precision]:
            return replace(candidate, difference=difference)
        reasons.append(f"{candidate.precision} features differ by {100 * difference:.2g} %")
    message = f"OpenVINO is not used for {model.name}: {'; '.join(reasons)}"
    if engine == "openvino":
        raise UserError(message)
    log.warning("%s; Keras computes the features", message)
    return reference


def default_batch_size() -> int:
    """Pictures per call that this machine's device is fast at: few fit a processor's cache, many keep a GPU busy."""
    return 32 if on_gpu() else 8


def relative_difference(features: np.ndarray, expected: np.ndarray) -> float:
    """Largest ‖features - expected‖ / ‖expected‖ over the pictures.

    >>> relative_difference(np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[3.0, 4.0], [1.0, 0.1]]))
    0.0995...
    """
    rows, references = (np.reshape(x, (len(x), -1)).astype(np.float64) for x in (features, expected))
    norms = np.linalg.norm(references, axis=1)
    distances = np.linalg.norm(rows - references, axis=1)
    return float(np.max(distances / np.maximum(norms, 1e-12)))


def on_gpu() -> bool:
    """Return True if Keras computes on a GPU here."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    return False


def _openvino_extractors(
    model: "keras.Model", preprocessing: Preprocessing, batch_size: int, precision: str, reasons: list[str]
) -> Iterator[Extractor]:
    """The network in OpenVINO's own choice of precision, then in float32 if that was another."""
    openvino = import_openvino()

    grey = preprocessing.channel_order == "grey"
    core = openvino.Core()
    # A stream per core beats one call over all cores: no thread waits for another between layers. A lone picture
    # gets all cores.
    streams = num_threads() if batch_size > 1 else 1
    options: dict[str, Any] = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": num_threads()}
    in_float32 = {"INFERENCE_PRECISION_HINT": "f32"}
    for hint in [in_float32] if precision == "float32" else [{}, in_float32]:
        try:
            graph = features_graph(model, preprocessing, batch_size=batch_size)
        except UntranslatableError as error:
            reasons.append(str(error))
            return
        compiled = core.compile_model(graph, "CPU", options | hint)
        del graph  # and the copy of all weights that it holds
        bfloat16 = compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.bf16
        name = "bfloat16" if bfloat16 else "float32"
        yield Extractor("OpenVINO", name, batch_size, 0.0, _openvino_call(compiled, grey))
        if not bfloat16:
            return


def features_graph(model: "keras.Model", preprocessing: Preprocessing, *, batch_size: int) -> Any:
    """Read the part of a network that computes features into OpenVINO, see ``features_to_onnx``; weights are shared.

    Raises:
        UntranslatableError: a layer that has no rule.
    """
    openvino = import_openvino()
    content, weights = features_to_onnx(model, preprocessing, batch_size=batch_size)
    graph = openvino.Core().read_model(content)
    for parameter in graph.get_parameters():
        if parameter.get_friendly_name() in weights:
            values = openvino.op.Constant(weights[parameter.get_friendly_name()], shared_memory=True)
            parameter.output(0).replace(values.output(0))
            graph.remove_parameter(parameter)
    graph.validate_nodes_and_infer_types()
    return graph


def _openvino_call(compiled: Any, grey: bool) -> Call:
    requests = threading.local()

    def call(pixels: np.ndarray) -> list[np.ndarray]:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        values = np.ascontiguousarray(luma(pixels) if grey else pixels)
        answers = requests.own.infer([values], share_inputs=True)
        return [np.array(answers[number]) for number in range(len(compiled.outputs))]

    return call


def _keras_extractor(model: "keras.Model", preprocessing: Preprocessing, batch_size: int) -> Extractor:
    forward = _compiled(model, batch_size)

    def call(pixels: np.ndarray) -> list[np.ndarray]:
        return forward(normalize(pixels, preprocessing))

    return Extractor("Keras", "float32", batch_size, 0.0, call)


def _compiled(model: "keras.Model", batch_size: int) -> Call:
    """Make a function of normalised inputs that threads may call, with the weights as they are now."""
    lock = threading.Lock()
    forward: Callable[[np.ndarray], Any]
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            spec = tf.TensorSpec([batch_size, *model.input_shape[1:]], tf.float32)
            forward = tf.function(lambda inputs: model(inputs, training=False), input_signature=[spec])
        case "jax":
            # Keras' own prediction gathers all variables anew for each batch, which takes longer than a GPU computes.
            import jax

            variables = [
                [variable.value for variable in part]
                for part in (model.trainable_variables, model.non_trainable_variables)
            ]
            stateless = jax.jit(lambda *given: model.stateless_call(*given, training=False)[0])
            return lambda inputs: [np.asarray(x) for x in _as_list(stateless(*variables, inputs))]
        case _:
            forward = model.predict_on_batch

    def call(inputs: np.ndarray) -> list[np.ndarray]:
        with lock:
            return [keras.ops.convert_to_numpy(x) for x in _as_list(forward(inputs))]

    return call


def _as_list(answers: Any) -> list[Any]:
    """The answers of a network of one output or several."""
    return list(answers) if isinstance(answers, list | tuple) else [answers]
