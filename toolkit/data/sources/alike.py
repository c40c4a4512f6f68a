"""Names that a person reads as one: they differ in case, blanks or Unicode form only."""

import unicodedata
from collections.abc import Iterable


def alike_key(name: str) -> str:
    """Give a class's name the form in which those that look the same are equal.

    >>> alike_key("Dog "), alike_key("Ka\\u0308fer") == alike_key("k\\u00e4fer")
    ('dog', True)
    """
    visible = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", " ".join(visible.split()).casefold())


def path_key(path: str) -> str:
    """Give a path the form in which those are equal that differ in case or Unicode form only: blanks count.

    >>> path_key("Cats/1.JPG"), path_key("Ka\\u0308fer") == path_key("k\\u00e4fer")
    ('cats/1.jpg', True)
    """
    return unicodedata.normalize("NFC", path).casefold()


def alike_groups(names: Iterable[str]) -> list[list[str]]:
    """Group the names that look the same as others.

    >>> alike_groups(["Dog", "cat", "dog"])
    [['Dog', 'dog']]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(alike_key(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
