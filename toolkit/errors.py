"""The exceptions whose message is for a person, and the words for a name that nobody has."""

import difflib
import os
import re
from collections.abc import Iterable

# Control characters, separators of lines, surrogates, and what turns the direction of writing.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


class UserError(Exception):
    """Input a person can mend: the command line prints it as one line and exits with status 2."""

    def __str__(self) -> str:
        return one_line(super().__str__())

    def reason(self, place: object) -> str:
        r"""Give the message without the place that it begins with, for where that is told already.

        >>> UserError("a\nb.png: no such file").reason("a\nb.png")
        'no such file'
        """
        return str(self).removeprefix(one_line(f"{place}: "))


class WriteError(UserError):
    """A place that cannot be written; the command line adds which option names it.

    Attributes:
        place: the file or folder that was to be written.
    """

    def __init__(self, message: str, place: str | os.PathLike[str] = "") -> None:
        super().__init__(message)  # alone, so that it can be sent to another process
        self.place = os.fspath(place)


def one_line(text: str) -> str:
    r"""Write a text, in which names of files may stand, without what would break its line or hide what it says.

    >>> print(one_line("a\nb\udce9.png"))
    a\nb\xe9.png
    """
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    # A byte of a name that is not UTF-8.
    return f"\\x{ord(character) - 0xDC00:02x}" if "\udc80" <= character <= "\udcff" else repr(character)[1:-1]


def first_line(error: BaseException) -> str:
    """Give the first line of another library's error; its class where it says nothing.

    >>> first_line(OSError("\\nno such library\\n  at 0x0")), first_line(KeyError())
    ('no such library', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def unknown_name(kind: str, name: str, known: list[str], *, listing: str = "") -> str:
    """One line for a name nobody has: what was given, the nearest known, and where the list is.

    >>> unknown_name("model", "resnet5O", ["resnet50", "vgg16"])
    "unknown model 'resnet5O'; did you mean 'resnet50'?"
    >>> unknown_name("model", "resnet50-of-my-shop", ["resnet50", "vgg16"])
    "unknown model 'resnet50-of-my-shop'; did you mean 'resnet50'?"
    """
    hint = did_you_mean(repr(each) for each in nearest(name, known))
    if not hint:
        listed = ", ".join(sorted(known)[:12]) + (f" … ({len(known)} in all)" if len(known) > 12 else "")
        hint = f"; known: {listed}"
    return f"unknown {kind} {name!r}{hint}" + (f" ({listing})" if listing else "")


def did_you_mean(words: Iterable[str]) -> str:
    """Ask at the end of a message whether one of these was meant; nothing where there is none.

    >>> did_you_mean(["--top-k", "--threads"])
    '; did you mean --top-k or --threads?'
    """
    found = " or ".join(words)
    return f"; did you mean {found}?" if found else ""


def nearest(name: str, known: Iterable[str], *, count: int = 3, least: float = 0.7) -> list[str]:
    """Find the known names that a misspelt one is nearest to, or else begins with; in any case.

    Args:
        name: what was given.
        known: what could be meant.
        count: how many at most, the nearest first.
        least: how similar they must be, from 0 to 1.

    >>> nearest("ResNet5O", ["resnet50", "vgg16"])
    ['resnet50']
    """
    lowered: dict[str, str] = {}
    for each in known:
        lowered.setdefault(each.lower(), each)
    close = difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=least)
    begun = sorted((each for each in lowered if name.lower().startswith(each)), key=len)[-1:]
    return [lowered[each] for each in close or begun]
