"""A visitor's pictures by class: taken in one by one or from a zip file, within limits, and looked at by the doctor."""

import csv
import re
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from toolkit.data import scan_folder
from toolkit.data.doctor import FEW_PICTURES, IMBALANCE, examine_folder
from toolkit.data.pixels.decode import ImageError, image_errors, open_image, read_rgb
from toolkit.data.sources.alike import alike_key
from toolkit.data.sources.archive import ArchiveLimits, list_archive, unpack
from toolkit.data.sources.listing import class_name
from toolkit.demo.encoding import image_url
from toolkit.demo.teaching.limits import MEGABYTE, Limits
from toolkit.errors import UserError, WriteError, one_line
from toolkit.files import scratch_folder
from toolkit.spec import Preprocessing

#: Table of the pictures and their classes, which ``toolkit.data.scan_folder`` reads.
TABLE = "pictures.csv"
#: Side of a thumbnail, in pixels; twice its size on the page, for sharp screens.
THUMBNAIL = 112
_MAX_NAME = 60
_DEFAULT_NAME = re.compile(r"Class \d+")
_NUM_OTHER_FILES = 1000  # that a zip file may hold beside pictures
_MAX_PROBLEMS = 5  # that are told one by one
_GROUPS = 6  # of pictures that a finding shows

_UNPACKING = threading.Semaphore(2)  # zip files of all visitors, and folders that the doctor looks at


@dataclass
class Class:
    """A class of a collection: its pictures by their numbers, oldest first."""

    name: str
    pictures: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Finding:
    """A finding of the doctor: a sentence, and the pictures it is about, group by group."""

    sentence: str
    groups: tuple[tuple[int, ...], ...] = ()


class Collection:
    """Pictures in classes, in a folder. Safe for several threads.

    Classes and pictures are known by numbers that are never used again.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._lock = threading.RLock()
        self._next = 1
        self._files: dict[int, Path] = {}
        self._thumbnails: dict[int, str] = {}
        self._classes: dict[int, Class] = {}
        for _ in range(2):
            self.add_class()

    def __len__(self) -> int:
        return len(self._files)

    @property
    def num_bytes(self) -> int:
        """Size of all pictures on disk."""
        with self._lock:
            return sum(path.stat().st_size for path in self._files.values())

    def add_class(self, name: str = "") -> int:
        """Add a class, and give its number."""
        with self._lock:
            if len(self._classes) >= self._limits.num_classes:
                raise UserError(f"at most {self._limits.num_classes} classes can be taught here")
            taken = {alike_key(own.name) for own in self._classes.values()}
            free = (f"Class {number}" for number in range(1, self._limits.num_classes + 2))
            number = self._number()
            self._classes[number] = Class(name or next(n for n in free if alike_key(n) not in taken))
            return number

    def rename(self, number: int, name: str) -> None:
        """Name a class.

        Raises:
            UserError: nothing is left of the name, or another class is called so.
        """
        tidy = _tidy(name)
        with self._lock:
            own = self._class(number)
            if not tidy:
                raise UserError("a class needs a name; give it one")
            if any(alike_key(other.name) == alike_key(tidy) for other in self._classes.values() if other is not own):
                raise UserError(f"there is a class {tidy!r} already; choose another name")
            own.name = tidy

    def remove_class(self, number: int) -> None:
        """Remove a class with its pictures."""
        with self._lock:
            for picture in list(self._class(number).pictures):
                self.remove(picture)
            del self._classes[number]

    def add(self, number: int, name: str, data: bytes) -> int:
        """Take a picture into a class, and give its number.

        Raises:
            ImageError: it cannot be read, or has too many pixels.
            UserError: there are too many pictures, or they are too large.
        """
        self._require_room(1, len(data))
        suffix, thumbnail = _look_at(name, data, self._limits)
        with self._lock:
            own = self._class(number)
            self._require_room(1, len(data))
            picture = self._number()
            path = self._folder / f"{picture:06d}.{suffix}"
            path.write_bytes(data)
            self._files[picture] = path
            self._thumbnails[picture] = thumbnail
            own.pictures.append(picture)
            return picture

    def add_zip(self, name: str, archive: Path) -> list[str]:
        """Take the pictures of a zip file of class folders, and say in sentences what was left out.

        Args:
            name: of the file, as its visitor knows it.
            archive: the file; it is read piece by piece.

        Raises:
            UserError: it is no such file, or holds more than there is room for: then nothing is taken.
        """
        if not zipfile.is_zipfile(archive):
            raise UserError(f"{name}: not a zip file; expected one with a folder of pictures for each class")
        with _UNPACKING, scratch_folder("toolkit-teach-") as scratch:
            given, archive = archive, scratch / "pictures.zip"  # whatever its name ends in
            archive.symlink_to(given)
            try:
                unpack(archive, scratch / "unpacked", self._archive_limits())
                listing = list_archive(archive, scratch / "unpacked")
            except WriteError:
                raise UserError(f"{name}: a damaged zip file, or this server has no room for it") from None
            except UserError as error:
                raise UserError(str(error).replace(str(archive), name)) from None
            sizes = [(listing.root / file.path).stat().st_size for file in listing.files]
            self._require_room(len(sizes), sum(sizes))
            problems = []
            numbers = self._classes_named([file.label for file in listing.files])
            for file in listing.files:
                try:
                    path = listing.root / file.path
                    self.add(numbers[_tidy(file.label)], file.path, path.read_bytes())
                except ImageError as error:
                    problems.append(str(error))
        return _first(problems) + _counted(
            len(listing.ignored), "was no picture of a class", "were no pictures of a class"
        )

    def move(self, picture: int, number: int) -> None:
        """Put a picture into another class."""
        with self._lock:
            own = self._class(number)
            self._class_of(picture).pictures.remove(picture)
            own.pictures.append(picture)

    def remove(self, picture: int) -> None:
        """Remove a picture."""
        with self._lock:
            self._class_of(picture).pictures.remove(picture)
            self._files.pop(picture).unlink(missing_ok=True)
            del self._thumbnails[picture]

    def class_called(self, name: str) -> int | None:
        """Give the number of the class of a name, if there is one."""
        with self._lock:
            return next((number for number, own in self._classes.items() if own.name == name), None)

    def thumbnail(self, picture: int) -> str:
        """Give a picture's thumbnail as a data URL; nothing for one that is gone."""
        return self._thumbnails.get(picture, "")

    def as_document(self, known: Sequence[int] = ()) -> dict[str, Any]:
        """Describe classes and pictures, JSON-ready, with thumbnails of all pictures but the ``known`` ones."""
        with self._lock:
            classes = [
                {"id": number, "name": own.name, "pictures": list(own.pictures)}
                for number, own in self._classes.items()
            ]
            seen = set(known)
            thumbnails = {str(picture): url for picture, url in self._thumbnails.items() if picture not in seen}
        return {"classes": classes, "thumbnails": thumbnails}

    def write_table(self) -> Path:
        """Write the table of all pictures and their classes, beside them; classes without pictures are left out.

        Raises:
            UserError: there are pictures in fewer than two classes.
        """
        with self._lock:
            taught = [own for own in self._classes.values() if own.pictures]
            if len(taught) < 2:
                raise UserError("a network learns to tell classes apart: give pictures of at least two")
            table = self._folder / TABLE
            with table.open("w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(("path", "label"))
                rows.writerows((self._files[picture].name, own.name) for own in taught for picture in own.pictures)
            return table

    def examine(self) -> list[Finding]:
        """Ask the doctor what in the pictures may mislead a network, or whoever judges it."""
        with self._lock:
            if not any(own.pictures for own in self._classes.values()):
                return []
            counts = {own.name: len(own.pictures) for own in self._classes.values()}
            taught = sum(count > 0 for count in counts.values())
            table = self.write_table() if taught > 1 else None
        empty = [name for name, count in counts.items() if not count]
        found = [Finding(f"There are no pictures yet of {_listed(empty)}.")] if empty else []
        few = [f"{name} ({count})" for name, count in counts.items() if 0 < count < FEW_PICTURES]
        if few:
            found.append(Finding(f"Few pictures to learn from: {_listed(few)}. {FEW_PICTURES} or more are better."))
        if taught and max(counts.values()) > IMBALANCE * min(count for count in counts.values() if count):
            found.append(
                Finding("One class has over ten times the pictures of another, and weighs most in the accuracy.")
            )
        return [*self._seen_by_doctor(table), *found] if table else found

    def _seen_by_doctor(self, table: Path) -> list[Finding]:
        try:
            with _UNPACKING:
                report = examine_folder(scan_folder(table, remember=False))
        except UserError:  # told when it is to be taught
            return []
        conflicts = {path for group in (*report["conflicts"], *report["near_conflicts"]) for path in group}
        odd = [[row["path"]] for row in report["odd_sizes"]]
        kinds = [
            ("The same picture is in two classes: at most one can be right.", report["conflicts"]),
            ("These look the same and are in two classes.", report["near_conflicts"]),
            ("Identical files: they stay together when accuracy is measured.", report["duplicates"]),
            ("These look the same: they stay together when accuracy is measured.", report["near_duplicates"]),
            ("A suspicious size: very small, or very long.", odd),
        ]
        told = []
        for index, (sentence, groups) in enumerate(kinds):
            shown = [group for group in groups if index < 2 or not conflicts.intersection(group)]
            numbers = tuple(tuple(int(Path(path).stem) for path in group) for group in shown[:_GROUPS])
            more = f" The first {_GROUPS} of {len(shown)} are shown." if len(shown) > _GROUPS else ""
            if numbers:
                told.append(Finding(sentence + more, numbers))
        return told

    def class_named(self, label: str) -> int:
        """Give the number of the class of a name, which is made if there is none.

        Raises:
            UserError: there are too many.
        """
        return self._classes_named([label])[_tidy(label)]

    def _classes_named(self, labels: Sequence[str]) -> dict[str, int]:
        """Find or make the classes of a zip file; those that nobody has named or filled make room.

        Raises:
            UserError: there would be too many.
        """
        names = {alike_key(_tidy(label)): _tidy(label) for label in labels}
        with self._lock:
            unused = [n for n, c in self._classes.items() if not c.pictures and _DEFAULT_NAME.fullmatch(c.name)]
            kept = {alike_key(own.name): n for n, own in self._classes.items() if n not in unused}
            total = len(kept.keys() | names.keys())
            if total > self._limits.num_classes:
                raise UserError(f"{total} classes, and at most {self._limits.num_classes} can be taught here")
            for number in unused:
                del self._classes[number]
            for key, name in names.items():
                if key not in kept:
                    kept[key] = self.add_class(name)
            return {_tidy(label): kept[alike_key(_tidy(label))] for label in labels}

    def _require_room(self, num_pictures: int, num_bytes: int) -> None:
        limits = self._limits
        if len(self) + num_pictures > limits.num_pictures:
            raise UserError(
                f"{len(self) + num_pictures:,} pictures, and at most {limits.num_pictures:,} can be taught here"
            )
        total = self.num_bytes + num_bytes
        if total > limits.num_bytes:
            raise UserError(
                f"{_megabytes(total)} of pictures, and at most {_megabytes(limits.num_bytes)} are taken here"
            )

    def _archive_limits(self) -> ArchiveLimits:
        left = max(0, self._limits.num_bytes - self.num_bytes)
        return ArchiveLimits(self._limits.num_pictures + _NUM_OTHER_FILES, left)

    def _class(self, number: int) -> Class:
        if number not in self._classes:
            raise UserError("this class is gone; reload the page")
        return self._classes[number]

    def _class_of(self, picture: int) -> Class:
        found = next((own for own in self._classes.values() if picture in own.pictures), None)
        if found is None:
            raise UserError("this picture is gone; reload the page")
        return found

    def _number(self) -> int:
        with self._lock:
            self._next += 1
            return self._next - 1


def _look_at(name: str, data: bytes, limits: Limits) -> tuple[str, str]:
    """Give the extension that a picture's format has, and its thumbnail."""
    with image_errors(name), open_image(data) as image:
        image_format = str(image.format).lower()
        num_pixels = image.width * image.height
    if num_pixels > limits.num_pixels:
        raise ImageError(f"{name}: {num_pixels:,} pixels, and at most {limits.num_pixels:,} are taken here")
    try:
        shown = Image.fromarray(read_rgb(data, Preprocessing((THUMBNAIL, THUMBNAIL))))
    except ImageError as error:
        raise ImageError(f"{name}: {error.reason('the picture')}") from None
    if max(shown.size) > THUMBNAIL:
        shown = ImageOps.fit(shown, (THUMBNAIL, THUMBNAIL))
    kind = "webp" if max(shown.size) == THUMBNAIL else "png"  # tiny ones keep every pixel
    return {"jpeg": "jpg", "mpo": "jpg"}.get(image_format, image_format), image_url(shown, kind, quality=75)


def _tidy(name: str) -> str:
    """Make a class's name that every table and file can hold."""
    plain = " ".join(class_name(str(name)).replace('"', "'").split())
    return one_line(plain)[:_MAX_NAME].strip()


def _first(problems: list[str]) -> list[str]:
    more = len(problems) - _MAX_PROBLEMS
    return problems[:_MAX_PROBLEMS] + (_counted(more, "more could not be read", "more could not be read"))


def _counted(count: int, one: str, several: str) -> list[str]:
    return [] if count < 1 else [f"{count:,} file {one}"] if count == 1 else [f"{count:,} files {several}"]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / MEGABYTE:,.0f} MB"
