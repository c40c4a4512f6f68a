"""Several pictures answered one after the other, without a word of HTML: what was sent, and the table of answers."""

import csv
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.data.sources.archive import FILES, ArchiveLimits, unpack
from toolkit.demo.classifier import Answer
from toolkit.errors import UserError

#: Pictures that are answered at once, at most.
MAX_PICTURES = 200
#: Of an archive: what a visitor may send, compressed pictures do not swell much beyond.
ARCHIVE_LIMITS = ArchiveLimits(files=2000, size=250_000_000)

_SHOWN = 5  # names of what is left out


@dataclass(frozen=True)
class Item:
    """One of several pictures.

    Attributes:
        name: as its visitor knows it; in an archive with its folders.
        path: of the upload; empty where there is none.
        problem: the reason why there is no answer.
        answer: to the picture, without its pixels.
        thumbnail: what the network saw, as a data URL.
    """

    name: str
    path: str = ""
    problem: str = ""
    answer: Answer | None = None
    thumbnail: str = ""

    @property
    def folder(self) -> str:
        """Name of the folder that the picture lies in, which in a data set is that of its class."""
        return PurePosixPath(self.name).parent.name

    def true_label(self, labels: Sequence[str]) -> str | None:
        """Take the folder's name for the true label, where it is a label."""
        return self.folder if self.folder in labels else None

    def judged(self, reject_below: float | None) -> "Item":
        """Refuse an unsure answer by another threshold, see ``Answer.judged``."""
        return self if self.answer is None else replace(self, answer=self.answer.judged(reject_below))

    def as_document(self) -> dict[str, Any]:
        """Plain JSON-ready values: the name and the answer, or the problem."""
        told = {"problem": self.problem} if self.answer is None else self.answer.as_document()
        return {"name": self.name} | told


def pictures_of(archive: Path, name: str, keep: Callable[[Path], str]) -> tuple[list[Item], str]:
    """List the pictures in a tar or zip file that a visitor sent.

    Args:
        archive: the file.
        name: as its visitor knows it.
        keep: copies a picture to where it outlives this call, and gives the path.

    Returns:
        The pictures by name, not yet answered, and what was left out, in words.

    Raises:
        UserError: it is damaged, names places outside itself, has no pictures, or more than are answered at once.
    """
    with tempfile.TemporaryDirectory(prefix="toolkit-unpacked-") as folder:
        directory = Path(folder) / "archive"
        try:
            left_out = unpack(archive, directory, ARCHIVE_LIMITS)
        except UserError as error:
            text = str(error).replace(str(archive), name).replace("; expected one folder of pictures per class", "")
            raise UserError(text.replace(str(directory.parent), "the server's folder")) from None
        files = directory / FILES
        paths = sorted(path for path in files.rglob("*") if path.is_file())
        if len(paths) > MAX_PICTURES:
            raise UserError(
                f"{name}: {len(paths):,} pictures; {MAX_PICTURES} are answered at once, so send them in several parts"
            )
        items = [Item(path.relative_to(files).as_posix(), keep(path)) for path in paths]
    return items, _words(left_out)


def _words(left_out: Sequence[tuple[str, str]]) -> str:
    if not left_out:
        return ""
    shown = ", ".join(f"{name} ({reason})" for name, reason in left_out[:_SHOWN])
    more = len(left_out) - _SHOWN
    return f"Left out: {shown}" + (f" and {more:,} more" if more > 0 else "")


def table(items: Sequence[Item], labels: Sequence[str]) -> str:
    """Write a CSV table of all answers, with the columns of ``toolkit predict --csv`` and the reasons for none.

    Args:
        items: the pictures.
        labels: of the network, by which folders' names are known for true labels.
    """
    most = max((len(item.answer.predictions) for item in items if item.answer), default=1)
    further = [f"{field}_{rank}" for rank in range(2, most + 1) for field in ("label", "probability")]
    truths = [item.true_label(labels) for item in items]
    has_truth = any(truth is not None for truth in truths)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    told = ["true_label"] if has_truth else []
    writer.writerow(["path", "label", "probability", "rejected", *further, "reason", *told, "problem"])
    for item, truth in zip(items, truths, strict=True):
        known = [truth] if has_truth else []
        if item.answer is None:
            writer.writerow([item.name, *[""] * (4 + len(further)), *known, item.problem])
            continue
        best, *others = item.answer.predictions
        cells = [cell for other in others for cell in (other.label, other.probability)]
        cells += [""] * (len(further) - len(cells))
        rejected = str(item.answer.rejected).lower()
        row = [item.name, best.label, best.probability, rejected, *cells, item.answer.reason, *known, ""]
        writer.writerow(row)
    return text.getvalue()
