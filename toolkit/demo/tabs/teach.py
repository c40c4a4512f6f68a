"""Pictures of one's own classes in, and a network of one's own out, tried at once."""

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from toolkit.data.pixels.decode import ImageError
from toolkit.demo import markup, uploads
from toolkit.demo.classifier import Classifier, is_own
from toolkit.demo.markup import teach as parts
from toolkit.demo.quota import Quota
from toolkit.demo.tabs import shared
from toolkit.demo.tabs.shared import AT_ONCE, script, sentence
from toolkit.demo.teaching.backbones import Start, find_starts
from toolkit.demo.teaching.lesson import Lesson
from toolkit.demo.teaching.limits import MEGABYTE
from toolkit.demo.teaching.school import School, Visitor
from toolkit.demo.teaching.worker import NAME
from toolkit.errors import UserError, unknown_name

log = logging.getLogger(__name__)

_POLL = 0.2  # seconds between two looks at a lesson by who waits for its end
_MAX_FILES = 64  # that one request may name
_NETWORK = 100 * MEGABYTE  # room that there must be before a network is written
_QUIET = ("only the classifier will train", "out-of-fold accuracy", "writing ")  # beginnings of what is not repeated

Answer = dict[str, Any]


def build(tab: "Teaching") -> gr.HTML:
    """Lay the tab out and wire it up; its frame tells when a network was taught."""

    def ask(request: Any) -> Answer:
        return tab.ask(request)

    visit = gr.HTML(elem_id="teach-visit")
    frame = gr.HTML(
        parts.teach_frame(tab.school.limits),
        js_on_load=script("teach.js"),
        server_functions=[ask],
        apply_default_css=False,
        elem_id="teach",
    )
    shared.page().load(tab.open, None, visit, **AT_ONCE)
    shared.page().unload(tab.close)

    button = gr.Button(visible=False)
    pictures, network = gr.File(visible=False, label="pictures"), gr.Textbox(visible=False, label="network")
    taught, bundle = gr.JSON(visible=False, label="taught"), gr.File(visible=False, label="bundle")
    places = tab.school.limits.at_once + tab.school.limits.waiting
    button.click(
        tab.teach_zip,
        [pictures, network],
        [taught, bundle],
        preprocess=False,
        api_name="teach",
        concurrency_limit=places,
        concurrency_id="teach",
    )
    return frame


def offer(tab: "Teaching", frame: gr.HTML, tabs: gr.Tabs, own: gr.State, choosers: Sequence[gr.Dropdown]) -> None:
    """Have the other tabs offer what a visitor taught.

    Args:
        tab: the tab's handlers.
        frame: see ``build``.
        tabs: of the page.
        own: the visitor's own bundles, as choices.
        choosers: of a network: on tab Classify, of one on tab Look inside, and of several on tab Compare.
    """
    frame.taught(tab.offer, choosers, [own, *choosers], **AT_ONCE)
    frame.opened(tab.bring, choosers, [tabs, *choosers], **AT_ONCE)


class Teaching:
    """The tab's handlers, over the bundles there are to start from and the visitors of a ``School``."""

    def __init__(self, classifier: Classifier, school: School, quota: Quota) -> None:
        self.school = school
        self._quota = quota
        quota.include(school.folder)
        self._classifier = classifier
        self._actions: dict[str, Callable[[Visitor, dict[str, Any]], Answer]] = {
            "open": self._open,
            "add": self._add,
            "add_zip": self._add_zip,
            "add_class": self._add_class,
            "rename": self._rename,
            "remove_class": self._remove_class,
            "remove": self._remove,
            "move": self._move,
            "check": self._check,
            "teach": self._teach,
            "status": self._status,
            "stop": self._stop,
            "try": self._try,
            "download": self._download,
        }

    def open(self, request: gr.Request) -> str:
        """Let a page in: what it names itself by stands in the page, where no other can see it."""
        return f'<span hidden data-secret="{self.school.open(str(request.session_hash))}"></span>'

    def close(self, request: gr.Request) -> None:
        """Forget a page that was closed, and stop what it began."""
        self.school.close(str(request.session_hash))

    def offer(self, one: str, inside: str, several: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Put what a page's visitor taught among the networks that its other tabs offer.

        Returns:
            The visitor's own networks as choices, and the choosers of one network, and of several.
        """
        own = self._own(event)
        if own is None:
            return tuple(4 * [gr.skip()])
        choices = [*own, *((name, name) for name in self._classifier.bundles())]

        def renewed(name: Any) -> Any:  # what was taught before is gone
            return own[0][1] if is_own(name) else name

        chosen = [renewed(name) for name in several] if isinstance(several, list) else []
        return own, *(gr.Dropdown(choices=choices, value=value) for value in (renewed(one), renewed(inside), chosen))

    def bring(self, one: str, inside: str, several: Any, event: gr.EventData) -> tuple[Any, ...]:
        """Open what was taught on the tab that a button names."""
        own, where = self._own(event), str(shared.sent(event).get("where"))
        if own is None or where not in ("classify", "compare"):
            return tuple(4 * [gr.skip()])
        name, to_tab = own[0][1], gr.Tabs(selected=where)
        if where == "classify":
            return to_tab, name, gr.skip(), gr.skip()
        others = [other for other in several if other != name] if isinstance(several, list) else []
        return to_tab, gr.skip(), gr.skip(), [name, *others]

    def _own(self, event: gr.EventData) -> list[tuple[str, str]] | None:
        try:
            visitor = self.school.get(str(shared.sent(event).get("secret")))
            labels = visitor.network().manifest(f"{NAME}/1").labels
        except UserError:  # is told on the tab itself
            return None
        return [(parts.own_name(visitor.bundle, labels), visitor.bundle)]

    def ask(self, request: Any) -> Answer:
        """Do what the page's script asks for, ``request["do"]``, and answer it; a ``problem`` is for the visitor."""
        try:
            if not isinstance(request, dict) or request.get("do") not in self._actions:
                raise UserError("the page does not fit this server; reload it")
            return self._actions[request["do"]](self.school.get(str(request.get("secret"))), request)
        except UserError as error:
            text = self._classifier.without_paths(error)
            # The name of a file stays as it is.
            is_named = isinstance(request, dict) and text.startswith(f"{uploads.file_name(request.get('file'))}: ")
            return {"problem": f"{text}." if is_named else sentence(text)}
        except Exception:
            log.exception("%s failed", request.get("do") if isinstance(request, dict) else "a request")
            return {"problem": "Something went wrong; the server's log says more."}

    def teach_zip(
        self,
        pictures: Any,
        network: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Answer, str]:
        """Teach a network the classes of a zip file.

        Args:
            pictures: a zip file with a folder of pictures for each class.
            network: what to start from: a bundle, NAME/VERSION, or NAME for its newest version that can be taught; or a
                published network, whose weights are on the server, by its name; empty for the best there is.

        Returns:
            {"network", "classes", "accuracy", "standard_error", "n", "matrix", "mistakes", "findings", "left_out",
            "seconds"}: accuracy out of fold, a fraction, of n pictures, null where there are too few to tell; counts
            by true and predicted class; the surest mistakes; what the doctor found; what was left out of the zip file.
            And the bundle, a zip file of NAME/VERSION.
        """
        secret = self.school.open(str(request.session_hash))
        try:
            with shared.told_to_programs(self._classifier):
                answer = self._taught_zip(self.school.get(secret), pictures, network, progress)
        except gr.Error:
            self.school.leave(secret)
            raise
        self.school.get(secret).clear()  # the bundle stays until the program has gone
        return answer

    def _taught_zip(self, visitor: Visitor, pictures: Any, network: str, progress: gr.Progress) -> tuple[Answer, str]:
        left_out = self._take_zip(visitor, pictures)
        findings = [finding.sentence for finding in visitor.collection.examine()]
        start = self._start(str(network or ""))
        self._quota.require(_NETWORK)
        lesson = visitor.teach(start.backbone, report=False)
        while not lesson.is_over:
            told = lesson.steps[-1].label if lesson.steps else "waiting for others to be taught"
            progress(parts.lesson_share(lesson.steps), desc=told)
            time.sleep(_POLL)
        if lesson.phase != "done":
            raise UserError(lesson.problem or "the lesson was stopped")
        file = self._download_place(visitor) / "taught.zip"
        visitor.write_bundle(file)
        said = {"network": start.name, **(lesson.judged or {}), "findings": findings, "left_out": left_out}
        return said | {"seconds": round(lesson.seconds, 1)}, str(file)

    def _open(self, visitor: Visitor, _: dict[str, Any]) -> Answer:
        networks = [
            {"name": start.name, "title": parts.start_title(start), "advice": parts.advice(start)}
            for start in find_starts(self._classifier)
        ]
        return self._collection(visitor, {}) | {"networks": networks}

    def _add(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        problems = []
        files = request.get("files")
        for file in files[:_MAX_FILES] if isinstance(files, list) else []:
            name = uploads.file_name(file)
            try:
                data = _take(file)
                label = file.get("label")
                number = visitor.collection.class_named(str(label)) if label is not None else _whole(file, "class")
                visitor.collection.add(number, name, data)
            except ImageError as error:
                problems.append(f"{name}: {error.reason(name).removeprefix('the picture: ')}.")
            except UserError as error:  # the next ones would be refused as well
                return self._collection(visitor, request) | {"problem": sentence(str(error)), "is_full": True}
        return self._collection(visitor, request) | {"problems": problems}

    def _add_zip(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        left_out = self._take_zip(visitor, request.get("file"))
        return self._collection(visitor, request) | {"problems": [f"{text}." for text in left_out]}

    def _add_class(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        visitor.collection.add_class()
        return self._collection(visitor, request)

    def _rename(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        try:
            visitor.collection.rename(_whole(request, "class"), str(request.get("name")))
        except UserError as error:  # the old name is shown again
            return self._collection(visitor, request) | {"problem": sentence(str(error))}
        return self._collection(visitor, request)

    def _remove_class(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        visitor.collection.remove_class(_whole(request, "class"))
        return self._collection(visitor, request)

    def _remove(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        visitor.collection.remove(_whole(request, "picture"))
        return self._collection(visitor, request)

    def _move(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        visitor.collection.move(_whole(request, "picture"), _whole(request, "class"))
        return self._collection(visitor, request)

    def _check(self, visitor: Visitor, _: dict[str, Any]) -> Answer:
        return {"findings": [vars(finding) for finding in visitor.collection.examine()]}

    def _teach(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        start = self._start(str(request.get("network")))
        self._quota.require(_NETWORK)
        visitor.teach(start.backbone)
        return self._status(visitor, {})

    def _status(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        lesson = visitor.lesson
        if lesson is None:
            return {"phase": "none"}
        steps = lesson.steps
        answer: Answer = {
            "phase": lesson.phase,
            "ahead": visitor.ahead(),
            "seconds": round(lesson.seconds, 1),
            "share": parts.lesson_share(steps),
            "steps": [{k: v for k, v in vars(step).items() if k != "began"} for step in steps],
        }
        if lesson.phase == "failed":
            answer["problem"] = sentence(lesson.problem)
        if lesson.judged is not None and not request.get("has_results"):
            answer["score"] = parts.score(lesson.judged)
            collection = visitor.collection
            answer["results"] = parts.results(lesson.judged, collection.class_called, collection.thumbnail)
            answer["notes"] = _notes(lesson)
        return answer

    def _stop(self, visitor: Visitor, _: dict[str, Any]) -> Answer:
        visitor.stop()
        return self._status(visitor, {})

    def _try(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        file = request.get("file")
        try:
            answer = visitor.classify(_take(file))
        except ImageError as error:
            return {"answer": shared.unreadable_card(file, error)}
        return {"answer": markup.answer_card(answer)}

    def _download(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        lesson = visitor.taught()
        if request.get("what") == "report":
            file = self._download_place(visitor) / "report.html"
            file.write_bytes(lesson.report.read_bytes())
        else:
            file = self._download_place(visitor) / "taught.zip"
            visitor.write_bundle(file)
        return {"path": str(file), "name": file.name}

    def _take_zip(self, visitor: Visitor, file: Any) -> list[str]:
        """Take the pictures of an upload, which is then removed; while it is unpacked, it takes its room twice."""
        path = uploads.upload_path(file)
        try:
            with self._quota.taking(path.stat().st_size):
                return visitor.collection.add_zip(uploads.file_name(file), path)
        finally:
            path.unlink(missing_ok=True)

    def _download_place(self, visitor: Visitor) -> Path:
        """Make a folder that a file may be fetched from, by a path that nobody can guess, until the visit ends."""
        self._quota.require(_NETWORK)
        visitor.sent.append(Path(tempfile.mkdtemp(prefix=uploads.DOWNLOADS, dir=get_upload_folder())))
        return visitor.sent[-1]

    def _collection(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        known = request.get("known")
        seen = [number for number in known if isinstance(number, int)] if isinstance(known, list) else []
        return {"collection": visitor.collection.as_document(seen)}

    def _start(self, name: str) -> Start:
        starts = find_starts(self._classifier)
        found = next((start for start in starts if name in ("", start.name, start.name.rpartition("/")[0])), None)
        if found is None:
            known = [start.name for start in starts]
            raise UserError(unknown_name("network", name, known) if known else "there is no network here to start from")
        return found


def _take(file: Any) -> bytes:
    """Read an upload, which is then removed: what is kept of it lies with the visitor.

    The page's script sends each under a name of its own. Gradio puts files of equal bytes and names at one place, where
    one visitor's would be taken away from another.
    """
    data = uploads.read_upload(file)
    uploads.upload_path(file).unlink(missing_ok=True)
    return data


def _whole(request: dict[str, Any], name: str) -> int:
    value = request.get(name)
    if not isinstance(value, int):
        raise UserError(f"the page sent no number of a {name}; reload it")
    return value


def _notes(lesson: Lesson) -> list[str]:
    """Pick from what was said what a visitor does not see already."""
    return [f"{text[:1].upper()}{text[1:]}." for text in lesson.said if not text.startswith(_QUIET)]
