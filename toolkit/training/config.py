"""What a training run is told, as nested frozen dataclasses: every key has a type, a default and a meaning."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.registry import unknown_name
from toolkit.spec import UserError


@dataclass(frozen=True)
class DataConfig:
    """Attributes:
    augment: see ``toolkit.data.pipeline.training_batches``.
    fractions: shares of training, validation and test; ``None`` lets the data set's size decide.
    split_seed: of the stratified split.
    """

    augment: Literal["none", "shift", "shift_flip"] = "none"
    fractions: tuple[float, float, float] | None = None
    split_seed: int = 0


@dataclass(frozen=True)
class OptimizerConfig:
    """Attributes:
    name: ``sgd`` has momentum, ``adamw`` decoupled weight decay.
    lr: peak learning rate.
    momentum: of ``sgd``.
    weight_decay: decoupled, per step and scaled by the rate; kernels only.
    schedule: ``cosine`` falls to zero over the run, ``step`` divides by ten at half and at three quarters.
    warmup_epochs: the rate rises linearly over these.
    label_smoothing: probability moved from the true class to all classes.
    """

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class RunConfig:
    """Attributes:
    epochs: passes over the training pictures.
    batch_size: pictures per step.
    seed: of initial weights, order and augmentation.
    dtype_policy: a Keras dtype policy.
    """

    epochs: int = 20
    batch_size: int = 32
    seed: int = 0
    dtype_policy: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"


@dataclass(frozen=True)
class TrainConfig:
    """A resolved training run: data, optimizer, run."""

    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)


def config_as_json(config: TrainConfig) -> str:
    """One indented JSON document that ``config_from_json`` reads back equal."""
    return json.dumps(dataclasses.asdict(config), indent=1) + "\n"


def config_from_json(text: str | bytes) -> TrainConfig:
    """Parse and check a config.

    Raises:
        UserError: not JSON, a wrong type, or a key that does not exist.
    """
    return _validate(json.loads(text))


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
            raise UserError(f"--set {override!r}: expected group.key=value, such as optimizer.lr=0.05")
        known = [f"{g}.{n}" for g, members in document.items() for n in members]
        if f"{group}.{name}" not in known:
            raise UserError(unknown_name("setting", key.strip(), known))
        document[group][name] = _parse(value.strip())
    return _validate(document)


def _parse(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _validate(document: Any) -> TrainConfig:
    import pydantic

    try:
        config = pydantic.TypeAdapter(TrainConfig).validate_python(document)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"setting {'.'.join(map(str, first['loc']))}={first['input']!r}: {first['msg']}") from None
    if min(config.run.epochs, config.run.batch_size) < 1:
        raise UserError(f"run.epochs and run.batch_size must be at least 1, got {config.run}")
    if config.optimizer.lr <= 0:
        raise UserError(f"optimizer.lr must be positive, got {config.optimizer.lr}")
    return config
