"""Which values a search tries: a scale for each searched setting, and a draw that follows from seed and number alone.

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
from typing import Literal, get_args

import numpy as np

from toolkit.errors import UserError, unknown_name
from toolkit.training.config import TrainConfig, apply_overrides, require_known

Scale = Literal["uniform", "log", "log1m", "int", "logint", "choice"]
Value = float | int | str | bool | None

# More digits than a rate means anything to, few enough to type again.
_DIGITS = 6
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

    def at(self, share: float) -> Value:
        """The value below which ``share``, from 0 to 1, of the draws lie.

        >>> parse_setting("optimizer.lr=log:1e-4:1e-2").at(0.5)
        0.001
        >>> parse_setting("optimizer.momentum=log1m:0.9:0.999").at(0.5)
        0.99
        >>> parse_setting("run.batch_size=choice:16,32,64").at(0.5)
        32
        """
        if self.scale == "choice":
            return self.options[min(int(share * len(self.options)), len(self.options) - 1)]
        if self.scale == "int":
            return min(int(self.low + share * (self.high - self.low + 1)), int(self.high))
        if self.scale == "logint":  # each number reaches half way to its neighbours
            drawn = _between(self.low - 0.5, self.high + 0.5, share)
            return min(max(round(drawn), int(self.low)), int(self.high))
        if self.scale == "log1m":
            complement = _between(1 - self.low, 1 - self.high, share)
            drawn = round(1 - complement, _DIGITS - 1 - math.floor(math.log10(complement)))
        else:
            between = self.low + share * (self.high - self.low)
            drawn = _rounded(_between(self.low, self.high, share) if self.scale == "log" else between)
        return min(max(drawn, self.low), self.high)

    def draw(self, seed: int, number: int) -> Value:
        """The value that trial ``number`` of a search tries, whatever was tried before and by whom."""
        return self.at(np.random.default_rng([seed, number, *self.key.encode()]).random())

    def override(self, value: Value) -> str:
        """As ``--set`` takes it.

        >>> parse_setting("optimizer.lr=log:1e-4:1e-2").override(0.001)
        'optimizer.lr=0.001'
        >>> parse_setting("optimizer.name=choice:sgd,adam").override("sgd")
        'optimizer.name=sgd'
        """
        plain = isinstance(value, str) and (value.startswith("[") or _parse(value) == value)
        return f"{self.key}={value if plain else json.dumps(value)}"


def as_overrides(settings: Sequence[Setting], values: Mapping[str, Value]) -> list[str]:
    """One trial's values as ``--set`` takes them."""
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
    values = setting.options if setting.scale == "choice" else (setting.low, setting.high)
    for value in values:
        try:
            apply_overrides(config, [setting.override(value)])
        except UserError as error:
            integral = "; whole numbers come from int:… and logint:…" if "valid integer" in str(error) else ""
            raise UserError(f"--search {spec!r}: {error}{integral}") from None


def _between(low: float, high: float, share: float) -> float:
    """Uniform in the logarithm."""
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
