"""The one exception whose message is for a person, and the sentence for a name that nobody has."""

import difflib


class UserError(Exception):
    """Input a person can mend: the command line prints it as one line and exits with status 2."""


def unknown_name(kind: str, name: str, known: list[str], *, listing: str = "") -> str:
    """One line for a name nobody has: what was given, the nearest known, and where the list is.

    >>> unknown_name("model", "resnet5O", ["resnet50", "vgg16"])
    "unknown model 'resnet5O'; did you mean 'resnet50'?"
    """
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
    if close:
        hint = "did you mean " + " or ".join(repr(c) for c in close) + "?"
    else:
        hint = "known: " + ", ".join(sorted(known)[:12])
    return f"unknown {kind} {name!r}; {hint}" + (f" ({listing})" if listing else "")
