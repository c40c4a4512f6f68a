"""The vocabulary every other module shares: what a network is, and how a picture becomes its input.

Standard library only, so that reading metadata never pays for importing a framework.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Interpolation = Literal["bilinear", "bicubic"]
ChannelOrder = Literal["rgb", "bgr", "grey"]
ResizeMode = Literal["crop", "stretch"]

#: Ends of the names of files that hold a whole network: Keras' own, and those of which it is built anew in Keras.
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
GRAPH_SUFFIXES = (".onnx", ".tflite")


def is_network_name(name: str) -> bool:
    """Tell by its name whether a file holds a whole network, and not weights alone.

    >>> is_network_name("Mine.H5"), is_network_name("mine.weights.h5")
    (True, False)
    """
    lower = name.lower()
    return lower.endswith((*KERAS_SUFFIXES, *GRAPH_SUFFIXES)) and not lower.endswith(".weights.h5")


@dataclass(frozen=True)
class Preprocessing:
    """The way from a decoded picture to a network's input; it belongs to the weights and travels with them.

    Two steps, kept apart because they run in different places:

    1. *Resizing*, on decoded RGB: to ``size``, giving **pixels**, uint8 of shape ``(height, width, 3)``.
    2. *Normalisation*, on pixels: ``(value * scale - mean) / std`` per channel in ``channel_order``, float32.

    Attributes:
        size: ``(height, width)`` of the network's input.
        resize: ``"crop"`` scales the shorter side to ``size / crop_fraction`` and cuts out the centre;
            ``"stretch"`` scales both sides and keeps everything in view.
        crop_fraction: the share of the resized shorter side that the centre crop keeps, in (0, 1].
        interpolation: the resampling kernel, always widened when scaling down (antialiased).
        channel_order: ``"rgb"``, ``"bgr"`` (Caffe), or ``"grey"`` (ITU-R 601 luma, one channel).
        scale: factor on the 0…255 pixel values before ``mean`` and ``std`` apply.
        mean: one value per channel, in ``channel_order``, in scaled units.
        std: one *standard deviation* (never a variance) per channel, in scaled units.

    >>> Preprocessing(size=(32, 32), channel_order="grey", mean=(0.0,), std=(1.0,)).input_shape
    (32, 32, 1)
    """

    size: tuple[int, int]
    resize: ResizeMode = "crop"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bilinear"
    channel_order: ChannelOrder = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size must be a positive (height, width), got {self.size}")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must be in (0, 1], got {self.crop_fraction}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(
                f"channel order {self.channel_order!r} needs {self.channels} mean and std values, "
                f"got mean={self.mean} and std={self.std}"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")

    @property
    def channels(self) -> int:
        """Channels of the network's input: 1 for grey, else 3."""
        return 1 if self.channel_order == "grey" else 3

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of the network's input, ``(height, width, channels)``."""
        return (*self.size, self.channels)

    def affine(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Factor and offset per channel such that the input is ``pixel * factor + offset``.

        Every runtime normalises with these two numbers, so all of them round alike.

        >>> Preprocessing(size=(8, 8), scale=1 / 127.5, mean=(1.0, 1.0, 1.0)).affine()[1]
        (-1.0, -1.0, -1.0)
        """
        factor = tuple(self.scale / s for s in self.std)
        offset = tuple(-m / s for m, s in zip(self.mean, self.std, strict=True))
        return factor, offset

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Rebuild from what ``as_dict`` gave, back from JSON.

        >>> square = Preprocessing(size=(8, 8))
        >>> Preprocessing.from_dict(square.as_dict()) == square
        True
        """
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**plain)

    def resized(self, size: tuple[int, int]) -> "Preprocessing":
        """The same preprocessing for another input size."""
        return replace(self, size=size)


#: Most networks' for ImageNet: torchvision's centre crop and channel statistics.
IMAGENET = Preprocessing((224, 224), crop_fraction=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class PretrainedWeights:
    """One set of published weights: where it is found, what it was trained on, how well it does."""

    tag: str  # the name given to ``create_model(weights=…)``
    url: str  # source address; ``hf://OWNER/NAME/FILE`` is a file on the Hugging Face hub
    # The source's own checksum, ``"sha256:…"``, ``"sha1:…"`` or ``"md5:…"``; a shorter sha256 holds the first digits
    # only, as torchvision's file names do. Empty where the source tells it with the file (the hub) or not at all.
    digest: str
    num_classes: int  # width of its classifier
    layout: str  # whose names its tensors carry, one of ``toolkit.weights.naming``: ``"torchvision"``, ``"caffe"`` …
    preprocessing: Preprocessing  # what turns a picture into the input these weights were trained on
    top1: float | None = None  # published top-1 accuracy, a fraction; None where none was published
    top5: float | None = None  # published top-5 accuracy, a fraction
    published_in: str = ""  # the place those accuracies are printed
    licence: str = ""  # SPDX identifier or a short statement
    variant: dict[str, Any] = field(default_factory=dict)  # builder arguments they need, ``{"version": "v1"}``


@dataclass(frozen=True)
class BuildOptions:
    """The options of every builder; what only some networks can vary are keywords of their own."""

    name: str
    input_shape: tuple[int, int, int]  # (height, width, channels), at least ``ModelInfo.min_size`` high and wide
    num_classes: int  # number of logits
    include_top: bool = True  # with the classifier, or only the backbone
    pooling: str | None = None  # what pools a backbone's feature map: None, ``"avg"`` or ``"max"``


@dataclass(frozen=True)
class ModelInfo:
    """The facts about a network that are known without building it.

    ``num_params`` counts trainable parameters and ``macs`` multiply-adds of convolutions and dense layers for one
    picture, both of the default variant at ``input_shape`` and ``num_classes``; tests recompute them.
    """

    name: str  # what ``create_model`` calls it
    title: str  # its name as a person writes it
    paper: str  # citation with the place of publication
    year: int
    min_size: int  # the smallest height and width it takes
    num_classes: int  # default number of classes
    num_params: int
    macs: int
    stages: tuple[str, ...]  # input to output; every layer's name starts with one of them
    preprocessing: Preprocessing  # the default for training from scratch
    recipe: str  # name of the training recipe that suits it
    # The builder, ``build(options, **variant) -> keras.Model`` for a ``BuildOptions``.
    build: Callable[..., Any] = field(repr=False, compare=False)
    # Published weights by tag; ``"imagenet"`` stands for the best of them.
    weights: dict[str, PretrainedWeights] = field(default_factory=dict)
    weights_note: str = ""  # why there are none, where none were ever published
    deviations: tuple[str, ...] = ()  # every difference from the paper

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Default ``(height, width, channels)``."""
        return self.preprocessing.input_shape
