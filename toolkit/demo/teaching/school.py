"""Visitors who teach, each with a folder of his own that goes with the visit."""

import logging
import secrets
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.demo.classifier import YOURS, Answer, Classifier
from toolkit.demo.teaching.collection import Collection
from toolkit.demo.teaching.lesson import Backbone, Lesson, Line, Order
from toolkit.demo.teaching.limits import MEGABYTE, Limits
from toolkit.demo.teaching.worker import NAME
from toolkit.errors import UserError
from toolkit.machine import num_threads

log = logging.getLogger(__name__)

#: Engines for what was just taught, the first that is installed: none of them is timed first.
_ENGINES = ("litert", "openvino", "savedmodel")
_MAX_LOADED = 2  # engines of a visitor's network
_MANY_THREADS = 4  # from which two lessons at once do not slow down whoever only asks for an answer
_RESERVE = 1024 * MEGABYTE  # of the disk, that is left to others
_GONE_SECONDS = 5.0  # a killed process is gone long before


class Visitor:
    """A visit: pictures, the lesson they were last taught in, and the network that came of it.

    Attributes:
        collection: the pictures.
        lesson: the last one, under way or over.
        sent: folders of what was given to the browser, which go with the visit.
    """

    def __init__(self, folder: Path, line: Line, limits: Limits) -> None:
        self.lesson: Lesson | None = None
        self.sent: list[Path] = []
        self._folder = folder
        self._line = line
        self._limits = limits
        self._token = secrets.token_urlsafe(16)
        self._num_lessons = 0
        self._classifier: Classifier | None = None
        self._lock = threading.Lock()
        (folder / "pictures").mkdir()
        self.collection = Collection(folder / "pictures", limits)

    def teach(self, backbone: Backbone, *, report: bool = True) -> Lesson:
        """Begin a lesson, or join the line for one; what was taught before is forgotten.

        Args:
            backbone: what is built on.
            report: write the HTML report too.

        Raises:
            UserError: there are too few pictures, too many wait, or the disk is full.
        """
        with self._lock:
            table = self.collection.write_table()
            if shutil.disk_usage(self._folder).free < _RESERVE:
                raise UserError("this server has no room left for another network; try again later")
            if self.lesson is not None and self.lesson.phase != "done":
                self._forget()  # first, for its place in the line
            folder = self._folder / f"lesson-{self._num_lessons + 1}"
            lesson = Lesson(Order(table, backbone, report), folder, self._limits)
            self._line.join(lesson)  # or be refused, and keep the network there is
            self._forget()
            self._num_lessons += 1
            self.lesson = lesson
            return lesson

    def stop(self) -> None:
        """End the lesson under way."""
        if self.lesson is not None:
            self._line.leave(self.lesson)

    def ahead(self) -> int:
        """Count the lessons before this visitor's."""
        return self._line.ahead_of(self.lesson) if self.lesson is not None else 0

    @property
    def bundle(self) -> str:
        """Name under which the other tabs find the network that was taught; a secret of its visitor's."""
        return f"{YOURS}{self._token}/{self._num_lessons}"

    def network(self) -> Classifier:
        """Give the network that was taught.

        Raises:
            UserError: there is none yet.
        """
        lesson = self.taught()
        with self._lock:
            if self._classifier is None:
                self._classifier = Classifier(lesson.bundles, max_loaded=_MAX_LOADED)
            return self._classifier

    def classify(self, picture: bytes) -> Answer:
        """Ask the network that was taught.

        Raises:
            ImageError: the picture cannot be read.
            UserError: there is no network yet.
        """
        classifier = self.network()
        (bundle,) = classifier.bundles()
        engines = classifier.engines(bundle)
        return classifier.classify(picture, bundle, next(name for name in _ENGINES if name in engines))

    def taught(self) -> Lesson:
        """Give the lesson that is done.

        Raises:
            UserError: there is none.
        """
        if self.lesson is None or self.lesson.phase != "done":
            raise UserError("nothing is taught yet; teach a network first")
        return self.lesson

    def write_bundle(self, file: Path) -> None:
        """Write the network that was taught as a zip file of its bundle, ``NAME/VERSION``."""
        bundle = self.taught().bundle
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as zipped:  # weights do not get smaller
            for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
                zipped.write(path, f"{NAME}/{bundle.name}/{path.relative_to(bundle).as_posix()}")

    def clear(self) -> None:
        """Stop work, and remove everything but what was ``sent``; nothing can be taught any more."""
        with self._lock:
            self._forget()
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """End the visit: work stops, and everything is removed."""
        self.clear()
        for folder in self.sent:
            shutil.rmtree(folder, ignore_errors=True)

    def _forget(self) -> None:
        self._classifier = None
        if self.lesson is not None:
            lesson, self.lesson = self.lesson, None
            self._line.leave(lesson)
            if not lesson.wait(_GONE_SECONDS):
                log.error("a lesson's process is not gone after %s seconds", _GONE_SECONDS)
            shutil.rmtree(lesson.folder, ignore_errors=True)


class School:
    """All visitors who teach, by a secret that each page gets. Safe for several threads."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits(at_once=2 if num_threads() >= _MANY_THREADS else 1)
        self._line = Line(self.limits)
        self._lock = threading.Lock()
        self._visits: dict[str, _Visit] = {}
        self._root: tempfile.TemporaryDirectory[str] | None = None

    @property
    def folder(self) -> Path:
        """The folder of all visitors' folders, which only this user can read; it goes when the process ends."""
        with self._lock:
            return self._folder()

    def open(self, session: str) -> str:
        """Let a page in, and give the secret that it names itself by; ``session`` is told when the page closes."""
        self._sweep()
        secret = secrets.token_urlsafe(16)
        with self._lock:
            self._visits[secret] = _Visit(session)
        return secret

    def get(self, secret: str) -> Visitor:
        """Find the visitor of a secret, who is given a folder when first asked for.

        Raises:
            UserError: there is none.
        """
        with self._lock:
            visit = self._visits.get(secret)
            if visit is None:
                raise UserError("this visit has ended and its pictures are gone; reload the page")
            visit.last_seen = time.monotonic()
            if visit.visitor is None:
                folder = Path(tempfile.mkdtemp(prefix="visit-", dir=self._folder()))
                visit.visitor = Visitor(folder, self._line, self.limits)
            return visit.visitor

    def network(self, bundle: str) -> Classifier | None:
        """Find what a visitor taught by its name, see ``Visitor.bundle``; None where it is gone."""
        found = None
        with self._lock:
            for visit in self._visits.values():
                if visit.visitor is not None and visit.visitor.bundle == bundle:
                    visit.last_seen, found = time.monotonic(), visit.visitor
        try:
            return None if found is None else found.network()
        except UserError:  # it is taught anew
            return None

    def leave(self, secret: str) -> None:
        """End one visit."""
        with self._lock:
            visit = self._visits.pop(secret, None)
        if visit is not None and visit.visitor is not None:
            visit.visitor.close()

    def close(self, session: str) -> None:
        """End the visits of a page that was closed."""
        self._leave_all(lambda visit: visit.session == session)

    def shut(self) -> None:
        """End all visits; it happens by itself when the process ends."""
        self._leave_all(lambda _: True)
        if self._root is not None:
            self._root.cleanup()

    def _sweep(self) -> None:
        """End visits that nobody has heard of for long."""
        oldest = time.monotonic() - self.limits.idle_seconds
        self._leave_all(lambda visit: visit.last_seen < oldest)

    def _leave_all(self, is_over: Callable[["_Visit"], bool]) -> None:
        with self._lock:
            gone = [secret for secret, visit in self._visits.items() if is_over(visit)]
        for secret in gone:
            self.leave(secret)

    def _folder(self) -> Path:
        if self._root is None:
            self._root = tempfile.TemporaryDirectory(prefix="toolkit-teach-", ignore_cleanup_errors=True)
        return Path(self._root.name)


@dataclass
class _Visit:
    """A page that is open."""

    session: str
    visitor: Visitor | None = None
    last_seen: float = field(default_factory=time.monotonic)
