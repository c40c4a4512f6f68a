"""The settings of a training run as nested frozen dataclasses: every key has a type, a default and a meaning."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from toolkit.data.augment import parse
from toolkit.errors import UserError, unknown_name

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0), Lt(2**32)]
Schedule = Literal[
    "constant",
    "cosine",
    "exponential",
    "inverse_sqrt_epoch",
    "inverse_sqrt_step",
    "inverse_time",
    "manual",
    "plateau",
    "staircase",
    "step",
]
Initializer = Literal["own", "he_normal", "he_uniform", "lecun_normal", "glorot_normal", "glorot_uniform"]
DtypePolicy = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
#: What ``toolkit.create_model`` is told beside a variant: by the data, ``--model`` and ``--weights``.
NO_VARIANTS = ("name", "num_classes", "input_shape", "weights", "include_top", "pooling", "sum_channels")
# Read by pydantic: a key that does not exist is an error, and infinity is no number.
_STRICT = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True)
class DataConfig:
    """Settings of the data.

    Attributes:
        augment: augmentations with their parameters, such as ``"mirror, resized_crop:0.25/1"``; see
            ``toolkit.data.augment.parse``.
        balanced: show every class equally often.
        class_weights: weigh the loss such that all classes count alike, however few pictures they have.
        cache_mib: decode each picture once and keep the pixels, where a subset's take no more memory than this.
        fractions: shares of training, validation and test; ``None`` lets the data set's size decide.
        size: pixels a side that the network sees, by default as many as it was made for, or its weights.
        split_seed: of the stratified split.
    """

    __pydantic_config__ = _STRICT
    augment: str = "none"
    balanced: bool = False
    class_weights: bool = False
    cache_mib: Annotated[int, Ge(0)] = 2048
    fractions: tuple[float, float, float] | None = None
    size: Count | None = None
    split_seed: Seed = 0


@dataclass(frozen=True)
class ModelConfig:
    """Settings of the network.

    Attributes:
        variant: keywords of the network's builder, such as ``{"aux_heads": true}`` or ``{"version": "v1"}``.
        loss_weights: of a network that answers several outputs, by output name; 1 where not named. The outputs beside
            ``logits`` are for training only and taken off at its end.
        initializer: of all kernels: ``own`` leaves them as the network's builder drew them, ``he_normal`` has variance
            2 / fan-in, ``lecun_normal`` 1 / fan-in, ``glorot_normal`` 2 / (fan-in + fan-out).
        dropout: rate of all of the network's dropout layers in place of their own.
    """

    __pydantic_config__ = _STRICT
    variant: dict[str, Any] = field(default_factory=dict)
    loss_weights: dict[str, float] = field(default_factory=dict)
    initializer: Initializer = "own"
    dropout: Share | None = None


@dataclass(frozen=True)
class OptimizerConfig:
    """Settings of the optimizer and its learning rate.

    Attributes:
        name: ``sgd`` and ``nesterov`` have momentum, ``adamw`` is Adam, whose decay is always decoupled here.
        lr: peak learning rate.
        momentum: of ``sgd`` and ``nesterov``; 0 for neither.
        rho: of ``rmsprop``, how slowly it forgets squared gradients.
        beta_1: of ``adam``, how slowly it forgets gradients.
        beta_2: of ``adam``, how slowly it forgets squared gradients.
        epsilon: of ``rmsprop`` and ``adam``.
        l2: weight decay as the papers have it: half of it times the squared kernels is added to the loss, so its
            gradient passes through momentum and adaptive scaling as any other.
        weight_decay: decoupled: kernels shrink by this times the rate in each step, past momentum and scaling.
        clip_norm: gradients are scaled down where the norm of all of them together is larger.
        ema_epochs: the weights validated and kept are an exponential average over about so many epochs; 0 for none.
        label_smoothing: probability moved from the true class to all classes.
        warmup_epochs: the rate rises linearly over these, and the schedule starts after them.
        schedule: how the rate falls from there. ``cosine``: to zero over the run. ``step``: times ``decay`` at each of
            ``milestones``, shares of the run. ``staircase``: times ``decay`` every ``every`` epochs. ``manual``: to
            each of ``rates`` at each of ``milestones``, epochs. ``plateau``: times ``decay`` after ``patience`` epochs
            without a better ``monitor``. ``exponential``: times ``decay`` every epoch. ``inverse_time``: divided by 1 +
            ``decay`` · epoch. ``inverse_sqrt_epoch``, ``inverse_sqrt_step``: divided by the root of the epoch's or
            step's number.
        decay: by default 0.95 for ``exponential``, 1 for ``inverse_time``, 0.1 for the others.
        every: epochs between the stairs of ``staircase``.
        milestones: of ``step``, by default half and three quarters, and of ``manual``.
        rates: of ``manual``, one per milestone.
        patience: of ``plateau``, in epochs.
        monitor: of ``plateau`` and of early stopping.
        min_share: no schedule but ``manual`` falls below this share of ``lr``.
    """

    __pydantic_config__ = _STRICT
    name: Literal["sgd", "nesterov", "rmsprop", "adam", "adamw"] = "adamw"
    lr: Positive = 1e-3
    momentum: Share = 0.9
    rho: Share = 0.9
    beta_1: Share = 0.9
    beta_2: Share = 0.999
    epsilon: Positive = 1e-8
    l2: NotNegative = 0.0
    weight_decay: NotNegative = 0.0
    clip_norm: Positive | None = None
    ema_epochs: NotNegative = 0.0
    label_smoothing: Share = 0.0
    warmup_epochs: NotNegative = 0.0
    schedule: Schedule = "cosine"
    decay: Positive | None = None
    every: Positive = 30
    milestones: tuple[Positive, ...] = ()
    rates: tuple[Positive, ...] = ()
    patience: Count = 5
    monitor: Literal["val_loss", "val_accuracy", "loss", "accuracy"] = "val_loss"
    min_share: Share = 0.0


@dataclass(frozen=True)
class RunConfig:
    """Settings of the run.

    Attributes:
        epochs: passes over the training pictures.
        batch_size: pictures per step, all devices and hosts together.
        seed: of initial weights, order and augmentation.
        dtype_policy: a Keras dtype policy, or ``auto``: ``mixed_bfloat16`` where the hardware computes in bfloat16,
            ``mixed_float16`` on older GPUs, ``float32`` elsewhere.
        checkpoint_every_steps: also within an epoch, for epochs that take hours.
        early_stopping: stop after this many epochs without a better ``optimizer.monitor``, and keep the best epoch's
            weights.
        gradient_norms: note each layer's gradient norm after every epoch.
        tensorboard: also write TensorBoard's event files.
    """

    __pydantic_config__ = _STRICT
    epochs: Count = 20
    batch_size: Count = 32
    seed: Seed = 0
    dtype_policy: DtypePolicy = "float32"
    checkpoint_every_steps: Count | None = None
    early_stopping: Count | None = None
    gradient_norms: bool = True
    tensorboard: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """A resolved training run: data, model, optimizer, run."""

    __pydantic_config__ = _STRICT
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)


def config_as_json(config: TrainConfig) -> str:
    """Write one indented JSON document that ``config_from_json`` reads back equal."""
    return json.dumps(dataclasses.asdict(config), indent=1) + "\n"


def config_from_json(text: str | bytes) -> TrainConfig:
    """Parse and check a config.

    Raises:
        UserError: not JSON, a wrong type or value, or a key that does not exist.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"not a training config: {error}") from None
    return _validate(document)


#: Settings that are lists, and what they list.
_LISTS = {
    "data.fractions": "three shares, of training, validation and test, such as 0.8,0.1,0.1",
    "optimizer.milestones": "numbers that rise, such as 0.5,0.75",
    "optimizer.rates": "a rate for each milestone, such as 0.01,0.001",
}


def apply_overrides(config: TrainConfig, overrides: Iterable[str]) -> TrainConfig:
    """Apply ``group.key=value`` strings, each checked against the key's type.

    >>> apply_overrides(TrainConfig(), ["optimizer.lr=0.05", "run.epochs=3"]).optimizer.lr
    0.05

    Raises:
        UserError: not of that form, an unknown key (the nearest is suggested), or a value of the wrong type.
    """
    document = dataclasses.asdict(config)
    for override in overrides:
        key, equals, value = override.partition("=")
        group, dot, name = key.strip().partition(".")
        if not equals or not dot:
            meant = "".join(f"; did you mean {known}={value}?" for known in settings_called(key) if equals)
            raise UserError(f"--set {override!r}: expected group.key=value, such as optimizer.lr=0.05{meant}")
        require_known(f"{group}.{name}")
        document[group][name] = parse_value(value.strip())
    return _validate(document)


def require_known(key: str) -> None:
    """Raise unless ``key`` is a setting, as in ``optimizer.lr``.

    Raises:
        UserError: names the nearest setting.
    """
    known = _settings()
    if key not in known:
        if called := settings_called(key):
            raise UserError(f"unknown setting {key!r}; did you mean {called[0]!r}?")
        raise UserError(unknown_name("setting", key, known))


def settings_called(name: str) -> list[str]:
    """List the settings that have a name in their group.

    >>> settings_called("epochs"), settings_called("batch-size")
    (['run.epochs'], ['run.batch_size'])
    """
    return [key for key in _settings() if key.partition(".")[2] == name.strip().replace("-", "_")]


def _settings() -> list[str]:
    return [f"{group}.{name}" for group, members in dataclasses.asdict(TrainConfig()).items() for name in members]


def parse_value(value: str) -> Any:
    """Read the value of ``KEY=VALUE``: JSON, a list without its brackets, else text.

    >>> parse_value("0.1"), parse_value("[0.5, 0.75]"), parse_value("0.9,0.1,0"), parse_value("shift_flip")
    (0.1, [0.5, 0.75], [0.9, 0.1, 0], 'shift_flip')
    """
    for text in (value, f"[{value}]" if "," in value else value):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            continue
    return value


def _validate(document: Any) -> TrainConfig:
    import pydantic

    try:
        # As JSON: strict about types, and yet a list is a tuple there.
        config = pydantic.TypeAdapter(TrainConfig).validate_json(json.dumps(document), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "unexpected_keyword_argument":
            require_known(key)
        name = ".".join(map(str, first["loc"][:2]))
        if name in _LISTS:
            given = document[first["loc"][0]][first["loc"][1]]
            raise UserError(f"setting {name}={given!r}: expected {_LISTS[name]}") from None
        raise UserError(f"setting {key}={first['input']!r}: {first['msg']}") from None
    parse(config.data.augment)
    if taken := [keyword for keyword in config.model.variant if keyword in NO_VARIANTS]:
        raise UserError(f"setting model.variant: {taken[0]!r} is no keyword of a network's builder; leave it out")
    if config.data.balanced and config.data.class_weights:
        raise UserError("data.balanced and data.class_weights make up for the same imbalance: set one of them")
    _check_milestones(config.optimizer)
    return config


def _check_milestones(optimizer: OptimizerConfig) -> None:
    milestones, rates = optimizer.milestones, optimizer.rates
    if list(milestones) != sorted(set(milestones)):
        raise UserError(f"optimizer.milestones must rise, got {milestones}")
    if optimizer.schedule == "step" and any(share >= 1 for share in milestones):
        raise UserError(f"optimizer.milestones of the schedule 'step' are shares of the run, below 1, got {milestones}")
    if optimizer.schedule == "manual" and not 0 < len(milestones) == len(rates):
        raise UserError(
            "the schedule 'manual' needs optimizer.milestones, in epochs, and as many optimizer.rates, "
            f"got {milestones} and {rates}"
        )
