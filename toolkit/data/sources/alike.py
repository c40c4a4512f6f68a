"""Class names that a person reads as one: they differ in case, blanks or Unicode form only."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from toolkit.data.sources.listing import Listing


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


def join_classes(listing: Listing, expected: Sequence[str] = ()) -> Listing:
    """Make one class of those that look the same: the ``expected`` one of them, or the one with most pictures."""
    counts = Counter(file.label for file in listing.files)
    joined = {
        alike_key(name): name for name in sorted(listing.labels, key=lambda name: (counts[name], name == name.strip()))
    }
    joined |= {alike_key(name): name for name in reversed(expected)}
    files = tuple(replace(file, label=joined[alike_key(file.label)]) for file in listing.files)
    return replace(listing, files=files, labels=tuple(sorted({joined[alike_key(name)] for name in listing.labels})))
