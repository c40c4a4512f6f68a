"""Pictures of one's own classes in, and a network of one's own out, tried at once."""

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from toolkit.bundle import KERAS_FILE
from toolkit.data.pixels.decode import ImageError
from toolkit.demo import markup, uploads
from toolkit.demo.classifier import Classifier
from toolkit.demo.markup import teach as parts
from toolkit.demo.tabs import shared
from toolkit.demo.tabs.shared import AT_ONCE, script, sentence
from toolkit.demo.teaching.lesson import Lesson
from toolkit.demo.teaching.school import School, Visitor
from toolkit.errors import UserError, unknown_name

log = logging.getLogger(__name__)

_POLL = 0.2  # seconds between two looks at a lesson by who waits for its end
_MAX_FILES = 64  # that one request may name
_QUIET = ("only the classifier will train", "out-of-fold accuracy", "writing ")  # beginnings of what is not repeated

Answer = dict[str, Any]


def build(classifier: Classifier, school: School | None = None) -> None:
    """Lay the tab out and wire it up."""
    tab = Teaching(classifier, school or School())

    def ask(request: Any) -> Answer:
        return tab.ask(request)

    visit = gr.HTML(elem_id="teach-visit")
    gr.HTML(
        parts.teach_frame(),
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
    uploads.refuse_addresses(pictures)
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


class Teaching:
    """The tab's handlers, over the bundles there are to start from and the visitors of a ``School``."""

    def __init__(self, classifier: Classifier, school: School) -> None:
        self.school = school
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
            network: the bundle whose network to start from, NAME/VERSION, or NAME for its newest version that can be
                taught; empty for the first one.

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
        left_out = visitor.collection.add_zip(uploads.file_name(pictures), uploads.read_upload(pictures))
        findings = [finding.sentence for finding in visitor.collection.examine()]
        backbone = self._backbone(str(network or ""))
        lesson = visitor.teach(self._classifier.directory(backbone), report=False)
        while not lesson.is_over:
            told = lesson.steps[-1].label if lesson.steps else "waiting for others to be taught"
            progress(parts.lesson_share(lesson.steps), desc=told)
            time.sleep(_POLL)
        if lesson.phase != "done":
            raise UserError(lesson.problem or "the lesson was stopped")
        file = _download_place(visitor) / "taught.zip"
        visitor.write_bundle(file)
        said = {"network": backbone, **(lesson.judged or {}), "findings": findings, "left_out": left_out}
        return said | {"seconds": round(lesson.seconds, 1)}, str(file)

    def _open(self, visitor: Visitor, _: dict[str, Any]) -> Answer:
        networks = [{"name": name, "advice": advice} for name, advice in self._backbones().items()]
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
        name = uploads.file_name(request.get("file"))
        left_out = visitor.collection.add_zip(name, _take(request.get("file")))
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
        visitor.teach(self._classifier.directory(self._backbone(str(request.get("network")))))
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
            file = _download_place(visitor) / "report.html"
            file.write_bytes(lesson.report.read_bytes())
        else:
            file = _download_place(visitor) / "taught.zip"
            visitor.write_bundle(file)
        return {"path": str(file), "name": file.name}

    def _collection(self, visitor: Visitor, request: dict[str, Any]) -> Answer:
        known = request.get("known")
        seen = [number for number in known if isinstance(number, int)] if isinstance(known, list) else []
        return {"collection": visitor.collection.as_document(seen)}

    def _backbones(self) -> dict[str, str]:
        """Bundles that a lesson can start from and what each is good for, those for photographs first."""
        found = {
            bundle: manifest
            for bundle, manifest in self._classifier.manifests().items()
            if not manifest.members and (self._classifier.directory(bundle) / KERAS_FILE).is_file()
        }
        seen = {bundle: manifest.preprocessing for bundle, manifest in found.items()}
        ordered = sorted(found, key=lambda bundle: (-seen[bundle].size[0], seen[bundle].channel_order == "grey"))
        return {bundle: parts.advice(found[bundle]) for bundle in ordered}

    def _backbone(self, name: str) -> str:
        known = list(self._backbones())
        found = next((bundle for bundle in known if name in ("", bundle, bundle.rpartition("/")[0])), None)
        if found is None:
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


def _download_place(visitor: Visitor) -> Path:
    """Make a folder that a file may be fetched from, by a path that nobody can guess, until the visit ends."""
    visitor.sent.append(Path(tempfile.mkdtemp(prefix="taught-", dir=get_upload_folder())))
    return visitor.sent[-1]


def _notes(lesson: Lesson) -> list[str]:
    """Pick from what was said what a visitor does not see already."""
    return [f"{text[:1].upper()}{text[1:]}." for text in lesson.said if not text.startswith(_QUIET)]
