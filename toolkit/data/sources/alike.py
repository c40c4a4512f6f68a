"""Class names that a person reads as one: they differ in case, blanks or Unicode form only."""

import unicodedata
from collections.abc import Iterable


def alike_key(name: str) -> str:
    """What names that look the same have in common.

    >>> alike_key("Dog "), alike_key("Ka\\u0308fer") == alike_key("k\\u00e4fer")
    ('dog', True)
    """
    visible = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", " ".join(visible.split()).casefold())


def alike_groups(names: Iterable[str]) -> list[list[str]]:
    """Names that look the same, by group, where there are several.

    >>> alike_groups(["Dog", "cat", "dog"])
    [['Dog', 'dog']]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(alike_key(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
