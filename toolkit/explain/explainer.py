"""Explanations of a network's answers: where in the picture the evidence for a class lies, and which stages gave it."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from toolkit.data.pixels.decode import ImageSource, decode_pixels, normalize, read_rgb
from toolkit.errors import UserError, unknown_name
from toolkit.explain.gradients import Halves, cut_at, map_and_gradient
from toolkit.explain.maps import find_map, spreading, stage_maps
from toolkit.explain.perturbation import STEPS, Curves, faithfulness, mean_loss, occluded_logits
from toolkit.explain.readout import Tap, read_out
from toolkit.explain.regions import Box, Region, seen_box, smallest_region
from toolkit.explain.scores import contrast, log_odds
from toolkit.lazy import keras
from toolkit.metrics import softmax
from toolkit.network import as_classifier, as_float32
from toolkit.progress import step
from toolkit.spec import Preprocessing

#: ``evidence`` is exact, and for linear classifiers of maps alone; see ``HeatMap``.
METHODS = ("evidence", "grad-cam", "hires-cam", "occlusion")


def check_method(method: str, stage: str | None) -> None:
    """Refuse a method that no network has, or a stage for one that looks at none.

    Raises:
        UserError: it is so.
    """
    if method not in ("auto", *METHODS):
        raise UserError(unknown_name("method", method, ["auto", *METHODS]))
    if method == "occlusion" and stage is not None:
        raise UserError("occlusion looks at answers only, not at a stage; leave the stage out")


@dataclass(frozen=True)
class HeatMap:
    """The evidence for a class, pixel by pixel of the picture as the network saw it.

    Attributes:
        values: float32 (height, width) of the network's input. What is below zero speaks for other classes.
        label: the class.
        against: the class that it is held against; empty for all others, by their probabilities.
        method: ``evidence``: the class's lead in logits, split exactly among the cells of the maps that a linear
            classifier reads (Zhou et al., CVPR 2016), its bias spread evenly. ``grad-cam``: a map's channels, each
            weighted by its mean gradient (Selvaraju et al., ICCV 2017). ``hires-cam``: each cell by its own gradient
            (Draelos and Carin, 2020). ``occlusion``: what the class's log odds lose where a window is covered (Zeiler
            and Fergus, ECCV 2014).
        maps: names of the layers whose maps it was made of; none for occlusion.
        by_stage: what each map gives of the lead, by its layer, and the bias; for ``evidence`` alone. It adds up to the
            lead; ``values``, which shows cells of equal evidence alike wherever they lie, need not.
    """

    values: np.ndarray
    label: str
    against: str
    method: str
    maps: tuple[str, ...] = ()
    by_stage: tuple[tuple[str, float], ...] = ()

    @property
    def heat(self) -> np.ndarray:
        """The evidence that speaks for the class, scaled to 0…1: float32 (height, width)."""
        positive = np.maximum(self.values, 0)
        return positive / max(float(positive.max()), 1e-12)

    @property
    def peak(self) -> tuple[float, float]:
        """Place of the largest value, (down, across) in 0…1; the middle of them where several are as large."""
        rows, columns = np.nonzero(self.values >= self.values.max())
        return (rows.mean() + 0.5) / self.values.shape[0], (columns.mean() + 0.5) / self.values.shape[1]

    @property
    def half_of_it(self) -> float:
        """Share of the area, the hottest part of it, that holds half of what speaks for the class."""
        ordered = np.sort(self.heat, axis=None)[::-1].cumsum()
        return float((np.searchsorted(ordered, ordered[-1] / 2) + 1) / len(ordered))


class Explainer:
    """A network to be explained.

    It is the original network in Keras, in float32: quantized files have no gradients, and answer slightly differently.

    Attributes:
        model: flat, answering logits.
        preprocessing: from picture to input.
        labels: class names in output order; ``class 0`` and so on where none were given.
        maps: the last map of each resolution, by stage, input to output; see ``toolkit.explain.maps.stage_maps``.
        read_out: its classifier taken apart; None where that is not linear in maps of several cells.
        version_dir: the bundle's version that it is from, which knows when it means "none of these"; None for others.
    """

    def __init__(
        self,
        model: "keras.Model",
        preprocessing: Preprocessing,
        labels: Sequence[str] = (),
        *,
        version_dir: Path | None = None,
    ) -> None:
        """Prepare a network.

        Args:
            model: a classifier; not changed.
            preprocessing: what it was trained with.
            labels: class names; without them ``class 0`` and so on.
            version_dir: of the bundle that it is from.

        Raises:
            UserError: it is no classifier of pictures, or the names are not as many as its classes.
        """
        flat = as_float32(as_classifier(model))
        self.model = keras.Model(flat.inputs[0], flat.outputs[0], name=flat.name)  # the same layers, one tensor in
        self.preprocessing = preprocessing
        self.version_dir = version_dir
        num_classes = self.model.output_shape[-1]
        self.labels = tuple(labels) or tuple(f"class {index}" for index in range(num_classes))
        if len(self.labels) != num_classes:
            raise UserError(f"{len(self.labels):,} labels for a network of {num_classes:,} classes; give one for each")
        if self.model.input_shape[1:] != preprocessing.input_shape:
            raise UserError(
                f"{self.model.name!r} takes {self.model.input_shape[1:]} and its preprocessing gives "
                f"{preprocessing.input_shape}; give the preprocessing that it was trained with"
            )
        self.maps = stage_maps(self.model)
        self.read_out = read_out(self.model)
        self._halves: dict[str, Halves] = {}

    def explain(self, image: ImageSource) -> "Explanation":
        """Look at a picture: a path, encoded bytes, a Pillow image or a uint8 array (height, width, 3).

        Raises:
            ImageError: it cannot be read.
        """
        # Decoded twice, since the network is shown large JPEG files as they are shrunk while they are decoded.
        return Explanation(self, read_rgb(image), decode_pixels(image, self.preprocessing))

    def index_of(self, label: str) -> int:
        """Find a class by its name, or by its number.

        Raises:
            UserError: no such class.
        """
        if label in self.labels:
            return self.labels.index(label)
        if label.isdecimal() and int(label) < len(self.labels):
            return int(label)
        raise UserError(
            unknown_name("class", label, list(self.labels), listing=f"or a number below {len(self.labels):,}")
        )

    def map_layer(self, stage: str | None = None) -> "keras.Layer":
        """Find the layer that computes a stage's last map, or a map by its own name; by default the last map of all.

        Raises:
            UserError: no such stage, or a network without maps.
        """
        if stage is not None:
            return find_map(self.model, self.maps, stage)
        if not self.maps:
            raise UserError(f"{self.model.name!r} has no maps, only vectors; only occlusion can explain its answers")
        return list(self.maps.values())[-1]

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Answer uint8 (batch, height, width, 3) of the network's size by float32 (batch, classes)."""
        return keras.ops.convert_to_numpy(self.model(normalize(pixels, self.preprocessing), training=False))

    def outputs(self, pixels: np.ndarray, tensors: Sequence["keras.KerasTensor"]) -> list[np.ndarray]:
        """Compute what the network has at some of its tensors for one uint8 picture (height, width, 3)."""
        inputs = normalize(pixels[None], self.preprocessing)
        values = keras.Model(self.model.input, list(tensors))(inputs, training=False)
        several = values if isinstance(values, list | tuple) else [values]  # of a list of one, Keras answers its item
        return [keras.ops.convert_to_numpy(value)[0] for value in several]

    def halves(self, layer: "keras.Layer") -> Halves:
        """Cut the network behind a layer, once."""
        if layer.name not in self._halves:
            self._halves[layer.name] = cut_at(self.model, layer.output)
        return self._halves[layer.name]


class Explanation:
    """A network's answer to one picture, and its reasons.

    Attributes:
        explainer: the network.
        rgb: the picture, upright, uint8 (height, width, 3).
        pixels: what the network sees of it, uint8 (height, width, 3).
        seen: where in the picture that lies.
        logits: float32 (classes,).
        probabilities: float32 (classes,).
    """

    def __init__(self, explainer: Explainer, rgb: np.ndarray, pixels: np.ndarray) -> None:
        self.explainer, self.rgb, self.pixels = explainer, rgb, pixels
        self.seen = seen_box(rgb.shape[0], rgb.shape[1], explainer.preprocessing)
        taps = explainer.read_out.taps if explainer.read_out is not None else ()
        with step("answering the picture"):
            self.logits, *cells = explainer.outputs(pixels, [explainer.model.outputs[0], *(tap.tensor for tap in taps)])
        self.probabilities = softmax(self.logits)
        self._read = list(zip(taps, cells, strict=True))  # each map that the classifier reads, as it is for the picture

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.explainer.labels[int(self.logits.argmax())]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Name the likeliest classes with their probabilities."""
        best = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.explainer.labels[index], float(self.probabilities[index])) for index in best]

    def heat_map(
        self, label: str | None = None, *, method: str = "auto", stage: str | None = None, against: str | None = None
    ) -> HeatMap:
        """Find where the evidence for a class lies.

        Args:
            label: the class, by default the likeliest.
            method: one of ``METHODS``; ``auto`` is ``evidence`` where the classifier is linear in maps, else
                ``occlusion``, since gradients through hidden layers say little of the place. For another stage
                ``auto`` is ``grad-cam``.
            stage: see ``Explainer.maps``, or any layer with a map; by default all that the classifier reads, or the
                last one.
            against: hold the class against this one; by default against all others, by their probabilities.

        Raises:
            UserError: no such class, method or stage, or a method that this network has no use for.
        """
        index = self.explainer.index_of(self.label if label is None else label)
        other = None if against is None else self.explainer.index_of(against)
        if index == other:
            raise UserError(f"{against!r} cannot be held against itself; name another class")
        check_method(method, stage)
        layer = None if stage is None else self.explainer.map_layer(stage)
        read = [(tap, cells) for tap, cells in self._read if layer is None or tap.name == layer.name]
        if method == "auto":
            method = "evidence" if read else "occlusion" if layer is None else "grad-cam"
        weights = contrast(self.logits, index, other)
        maps: tuple[str, ...] = ()
        parts: tuple[tuple[str, float], ...] = ()
        if method == "occlusion":
            values = self._occlusion(index, other)
        elif method == "evidence":
            if not read:
                raise UserError(self._without_evidence(stage))
            values, parts = self._evidence(weights, read, with_bias=layer is None)
            maps = tuple(tap.name for tap, _ in read)
        else:
            layer = layer or self.explainer.map_layer()
            values, maps = self._by_gradient(weights, layer, method), (layer.name,)
        names = self.explainer.labels
        return HeatMap(values, names[index], "" if other is None else names[other], method, maps, parts)

    def smallest_region(self, heat_map: HeatMap | None = None) -> Region | None:
        """Search for the smallest part of the picture that is answered as the whole is.

        Args:
            heat_map: of the likeliest class, which tells where to look; made where it is not given.

        Returns:
            The part, in the picture's own pixels; None where no part smaller than what is seen keeps the answer.
        """
        index = int(self.logits.argmax())
        heat = (heat_map or self.heat_map()).heat
        found = smallest_region(heat, self._answer_parts, index, float(self.probabilities[index]))
        return None if found is None else replace(found, box=self.seen.inner(found.box, heat.shape))

    def cut_out(self, box: Box) -> np.ndarray:
        """Cut a part out of the picture: uint8 (height, width, 3)."""
        return self.rgb[box.pixels(self.rgb.shape)]

    def faithfulness(self, heat_map: HeatMap, *, steps: int = STEPS) -> Curves:
        """Hold a heat map to account by deletion and insertion; see ``toolkit.explain.perturbation``."""
        index = self.explainer.index_of(heat_map.label)
        return faithfulness(self.pixels, heat_map.values, self._probabilities, index, steps=steps)

    def _probabilities(self, pixels: np.ndarray) -> np.ndarray:
        return softmax(self.explainer.logits(pixels))

    def _answer_parts(self, boxes: list[Box]) -> np.ndarray:
        size = self.explainer.preprocessing.size
        parts = [self.cut_out(self.seen.inner(box, size)) for box in boxes]
        pixels = np.stack([decode_pixels(np.ascontiguousarray(part), self.explainer.preprocessing) for part in parts])
        return self._probabilities(pixels)

    def _without_evidence(self, stage: str | None) -> str:
        name = self.explainer.model.name
        if self._read:
            read = ", ".join(tap.name for tap, _ in self._read)
            return f"the classifier of {name!r} does not read stage {stage!r}, but {read}; take grad-cam"
        return (
            f"the classifier of {name!r} is not linear in maps of several cells, so that its evidence cannot be split "
            "exactly; take grad-cam, hires-cam or occlusion"
        )

    def _evidence(
        self, weights: np.ndarray, read: Sequence[tuple[Tap, np.ndarray]], *, with_bias: bool
    ) -> tuple[np.ndarray, tuple[tuple[str, float], ...]]:
        """Sum the evidence of maps over the picture; the bias, which takes off what is everywhere, is spread evenly."""
        model = self.explainer.model
        values = np.zeros(self.explainer.preprocessing.size, np.float32)
        parts = []
        for tap, cells in read:
            evidence = tap.evidence(cells, weights)
            down, across = spreading(model, tap.tensor)
            values += down @ evidence @ across.T
            parts.append((tap.name, float(evidence.sum())))
        if with_bias and self.explainer.read_out is not None:
            bias = float(self.explainer.read_out.bias @ weights)
            values += bias / values.size
            parts.append(("bias", bias))
        return values, tuple(parts)

    def _by_gradient(self, weights: np.ndarray, layer: "keras.Layer", method: str) -> np.ndarray:
        inputs = normalize(self.pixels[None], self.explainer.preprocessing)
        with step("looking for the gradients"):
            cells, gradient = map_and_gradient(self.explainer.halves(layer), inputs, weights)
        if method == "grad-cam":
            gradient = gradient.mean(axis=(0, 1), keepdims=True)
        down, across = spreading(self.explainer.model, layer.output)
        return (down @ (cells * gradient).sum(axis=-1) @ across.T).astype(np.float32)

    def _occlusion(self, index: int, other: int | None) -> np.ndarray:
        whole = log_odds(self.logits, index, other)
        losses = [(window, whole - log_odds(logits, index, other)) for window, logits in self._occluded]
        return mean_loss(self.pixels.shape[:2], losses)

    @functools.cached_property
    def _occluded(self) -> list[tuple[tuple[slice, slice], np.ndarray]]:
        return occluded_logits(self.pixels, self.explainer.logits)
