"""The settings a search tries, and the scale Optuna draws each of them from.

``optimizer.lr=log:1e-4:1e-1`` is a setting of ``toolkit.training.config`` and where its values come from:

=====================  ==========================================================================================
``uniform:LOW:HIGH``   every value as likely
``log:LOW:HIGH``       every order of magnitude as likely: for rates and decays
``log1m:LOW:HIGH``     ``log`` of 1 − value: for momentum and the like, where 0.9 to 0.99 is as far as 0.99 to 0.999
``int:LOW:HIGH``       whole numbers, both ends included
``logint:LOW:HIGH``    whole numbers, every order of magnitude as likely
``choice:A,B,C``       one of these; values that hold commas themselves in JSON, as in ``choice:[0.5],[0.3,0.6]``
=====================  ==========================================================================================
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, get_args

from toolkit.errors import UserError, unknown_name
from toolkit.training.config import TrainConfig, apply_overrides, require_known

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Scale = Literal["uniform", "log", "log1m", "int", "logint", "choice"]
Value = float | int | str | bool | None

_INTEGRAL = ("int", "logint")
_EXAMPLE = "expected KEY=SCALE:…, such as optimizer.lr=log:1e-4:1e-1 or run.batch_size=choice:16,32"


@dataclass(frozen=True)
class Setting:
    """A searched setting.

    Attributes:
        key: as in ``optimizer.lr``.
        scale: see the module.
        low: the least value; 0 of a choice.
        high: the greatest value; 0 of a choice.
        options: of a choice; lists stand as their JSON text, which ``override`` takes as what it says.
    """

    key: str
    scale: Scale
    low: float = 0
    high: float = 0
    options: tuple[Value, ...] = ()

    @property
    def parameter(self) -> str:
        """Optuna's name of what it draws."""
        return f"1 - {self.key}" if self.scale == "log1m" else self.key

    def suggest(self, trial: "BaseTrial") -> Value:
        """Draw a trial's value, or return the one drawn before."""
        if self.scale == "choice":
            return trial.suggest_categorical(self.parameter, self.options)
        if self.scale in _INTEGRAL:
            return trial.suggest_int(self.parameter, int(self.low), int(self.high), log=self.scale == "logint")
        if self.scale == "log1m":
            drawn = trial.suggest_float(self.parameter, 1 - self.high, 1 - self.low, log=True)
            value = float(1 - _rounded(drawn))
        else:
            drawn = trial.suggest_float(self.parameter, self.low, self.high, log=self.scale == "log")
            value = float(_rounded(drawn))
        return min(max(value, self.low), self.high)

    def override(self, value: Value) -> str:
        """Write a value as ``--set`` takes it.

        >>> parse_setting("optimizer.lr=log:1e-4:1e-2").override(0.001)
        'optimizer.lr=0.001'
        >>> parse_setting("optimizer.name=choice:sgd,adam").override("sgd")
        'optimizer.name=sgd'
        """
        plain = isinstance(value, str) and (value.startswith("[") or _parse(value) == value)
        return f"{self.key}={value if plain else json.dumps(value)}"


def as_overrides(settings: Sequence[Setting], values: Mapping[str, Value]) -> list[str]:
    """Write one trial's values as ``--set`` takes them."""
    return [setting.override(values[setting.key]) for setting in settings]


def parse_search(specs: Iterable[str], config: TrainConfig, overridden: Iterable[str] = ()) -> tuple[Setting, ...]:
    """Read what is to be searched, and try the ends of every range and every choice on ``config``.

    Args:
        specs: ``KEY=SCALE:…`` each.
        config: what the search starts from.
        overridden: the ``--set`` it was made with, which must not name the same settings.

    Raises:
        UserError: nothing to search, not of that form, an unknown setting or scale (the nearest is suggested), a
            setting twice, or a value its type does not allow.
    """
    settings: dict[str, Setting] = {}
    fixed = {override.partition("=")[0].strip() for override in overridden}
    for spec in specs:
        setting = parse_setting(spec)
        if setting.key in settings:
            raise UserError(f"--search {spec!r}: {setting.key} is searched already; give it once")
        if setting.key in fixed:
            raise UserError(f"--search {spec!r}: --set has fixed {setting.key} already; leave one of them out")
        _require_allowed(spec, setting, config)
        settings[setting.key] = setting
    if not settings:
        raise UserError(f"nothing to search: --search is missing; {_EXAMPLE}")
    return tuple(settings.values())


def parse_setting(spec: str) -> Setting:
    """Read one ``KEY=SCALE:…``, without a look at which values the setting allows.

    Raises:
        UserError: not of that form, or an unknown setting or scale.
    """
    key, equals, distribution = (part.strip() for part in spec.partition("="))
    name, colon, arguments = distribution.partition(":")
    if not equals or not colon:
        raise UserError(f"--search {spec!r}: {_EXAMPLE}")
    require_known(key)
    if name not in get_args(Scale):
        raise UserError(f"--search {spec!r}: " + unknown_name("scale", name, list(get_args(Scale))))
    scale: Scale = name  # type: ignore[assignment]  # just looked up
    if scale == "choice":
        return Setting(key, scale, options=_options(spec, arguments))
    low, high = _bounds(spec, scale, arguments)
    return Setting(key, scale, low, high)


def _options(spec: str, arguments: str) -> tuple[Value, ...]:
    try:
        parsed = json.loads(f"[{arguments}]")
    except json.JSONDecodeError:
        parsed = [_parse(text.strip()) for text in arguments.split(",")]
    options = tuple(json.dumps(option) if isinstance(option, list) else option for option in parsed)
    if not options or "" in options or any(isinstance(option, dict) for option in options):
        raise UserError(f"--search {spec!r}: expected values with commas between them, such as choice:16,32,64")
    if len(set(map(repr, options))) < len(options):
        raise UserError(f"--search {spec!r}: a value stands there twice")
    return options


def _parse(text: str) -> Value:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _bounds(spec: str, scale: Scale, arguments: str) -> tuple[float, float]:
    number = int if scale in _INTEGRAL else float
    try:
        low, high = (number(text) for text in arguments.split(":"))
    except ValueError:
        kind = "whole numbers" if scale in _INTEGRAL else "numbers"
        raise UserError(f"--search {spec!r}: expected two {kind} as in {scale}:LOW:HIGH, got {arguments!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--search {spec!r}: the first number must be below the second, got {low:g} and {high:g}")
    if scale in ("log", "logint") and low <= 0:
        raise UserError(f"--search {spec!r}: a log scale starts above 0, got {low:g}; uniform and int may start there")
    if scale == "log1m" and high >= 1:
        raise UserError(f"--search {spec!r}: log1m is the log scale of 1 − value and ends below 1, got {high:g}")
    return low, high


def _require_allowed(spec: str, setting: Setting, config: TrainConfig) -> None:
    for value in setting.options or (setting.low, setting.high):
        try:
            apply_overrides(config, [setting.override(value)])
        except UserError as error:
            integral = "; whole numbers come from int:… and logint:…" if "valid integer" in str(error) else ""
            raise UserError(f"--search {spec!r}: {error}{integral}") from None


def _rounded(value: float) -> Decimal:
    """Round to six digits: more than a rate means anything to, few enough to type again."""
    return Decimal(f"{value:.6g}")
