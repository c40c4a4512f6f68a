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
from typing import TYPE_CHECKING

from toolkit.errors import UserError, unknown_name
from toolkit.training.config import TrainConfig, apply_overrides, parse_value, require_known

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Value = float | int | str | bool | None

_SCALES = ("uniform", "log", "log1m", "int", "logint", "choice")
_INTEGRAL = ("int", "logint")
_EXAMPLE = "expected KEY=SCALE:…, such as optimizer.lr=log:1e-4:1e-1 or run.batch_size=choice:16,32"


@dataclass(frozen=True)
class Setting:
    """A searched setting: its scale with the least and greatest value, or with the options of a choice.

    Options that are lists stand as their JSON text, which ``override`` takes as what it says.
    """

    key: str
    scale: str
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
        """Write a value as ``--set`` takes it, such as ``optimizer.name=sgd``."""
        plain = isinstance(value, str) and (value.startswith("[") or parse_value(value) == value)
        return f"{self.key}={value if plain else json.dumps(value)}"


def as_overrides(settings: Sequence[Setting], values: Mapping[str, Value]) -> list[str]:
    """Write one trial's values as ``--set`` takes them."""
    return [setting.override(values[setting.key]) for setting in settings]


def parse_search(specs: Iterable[str], config: TrainConfig, overridden: Iterable[str] = ()) -> tuple[Setting, ...]:
    """Read what is to be searched, and try the ends of every range and every choice on ``config``.

    Raises:
        UserError: nothing to search, not of the form ``KEY=SCALE:…``, an unknown setting or scale (the nearest is
            suggested), a setting twice or among the ``--set`` of ``overridden``, or a value its type does not allow.
    """
    settings: dict[str, Setting] = {}
    fixed = {override.partition("=")[0].strip() for override in overridden}
    for spec in specs:
        setting = parse_setting(spec)
        if setting.key in settings:
            raise UserError(f"--search {spec!r}: {setting.key} is searched already; give it once")
        if setting.key in fixed:
            raise UserError(f"--search {spec!r}: --set has fixed {setting.key} already; leave one of them out")
        for value in setting.options or (setting.low, setting.high):
            try:
                apply_overrides(config, [setting.override(value)])
            except UserError as error:
                integral = "; whole numbers come from int:… and logint:…" if "valid integer" in str(error) else ""
                raise UserError(f"--search {spec!r}: {error}{integral}") from None
        settings[setting.key] = setting
    if not settings:
        raise UserError(f"nothing to search: --search is missing; {_EXAMPLE}")
    return tuple(settings.values())


def parse_setting(spec: str) -> Setting:
    """Read one ``KEY=SCALE:…``, without a look at which values the setting allows."""
    key, equals, distribution = (part.strip() for part in spec.partition("="))
    scale, colon, arguments = distribution.partition(":")
    if not equals or not colon:
        raise UserError(f"--search {spec!r}: {_EXAMPLE}")
    require_known(key)
    if scale not in _SCALES:
        raise UserError(f"--search {spec!r}: " + unknown_name("scale", scale, list(_SCALES)))
    if scale == "choice":
        return Setting(key, scale, options=_options(spec, arguments))
    return Setting(key, scale, *_bounds(spec, scale, arguments))


def _options(spec: str, arguments: str) -> tuple[Value, ...]:
    try:
        parsed = json.loads(f"[{arguments}]")
    except json.JSONDecodeError:
        parsed = [parse_value(text.strip()) for text in arguments.split(",")]
    options = tuple(json.dumps(option) if isinstance(option, list) else option for option in parsed)
    if not options or "" in options or any(isinstance(option, dict) for option in options):
        raise UserError(f"--search {spec!r}: expected values with commas between them, such as choice:16,32,64")
    if len(set(map(repr, options))) < len(options):
        raise UserError(f"--search {spec!r}: a value stands there twice")
    return options


def _bounds(spec: str, scale: str, arguments: str) -> tuple[float, float]:
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


def _rounded(value: float) -> Decimal:
    """Round to six digits: more than a rate means anything to, few enough to type again."""
    return Decimal(f"{value:.6g}")
