"""Parameters that say what values they take."""

from dataclasses import Field, field
from typing import Any


def limited(default: float, least: float, most: float) -> Any:
    """A dataclass field with a default and the least and the most it may be."""
    return field(default=default, metadata={"least": least, "most": most})


def read_limited(parameter: Field, text: str) -> float:
    """A value for a field made by ``limited``, of its default's type.

    Raises:
        ValueError: no such number, or out of its limits.
    """
    value = type(parameter.default)(text)  # type: ignore[misc]
    least, most = parameter.metadata["least"], parameter.metadata["most"]
    if not least <= value <= most:
        raise ValueError(f"{parameter.name} must be {least:g} to {most:g}, got {text}")
    return value
