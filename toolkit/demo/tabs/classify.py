"""One picture in, and the network's answer to it."""

import logging
import threading
from typing import Any

import gradio as gr

from toolkit.data.pixels.decode import ImageError
from toolkit.demo import markup, uploads
from toolkit.demo.classifier import Answer, Classifier
from toolkit.demo.tabs import shared
from toolkit.demo.tabs.shared import AT_ONCE, LIMITS, PRIVATE, script, sentence
from toolkit.errors import UserError

log = logging.getLogger(__name__)

_PICTURE, _DRAW = "picture", "draw"  # the tabs
_TO_PICTURE, _TO_DRAW = gr.update(selected=_PICTURE), gr.update(selected=_DRAW)

_OFFER_JS = """element.addEventListener("click", (event) => {
  if (event.target.closest("button[data-draw]")) trigger("draw", {});
});"""

_EXAMPLES_JS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-index]");
  if (button) trigger("click", {index: Number(button.dataset.index)});
});"""


def build(classifier: Classifier) -> None:
    """Lay the tab out and wire it up."""
    bundles = classifier.bundles()
    engines = ["auto", *classifier.engines(bundles[0])]
    page = Classify(classifier)
    files = gr.HTML(markup.accepted(uploads.SUFFIXES), js_on_load=script("files.js"), elem_id="files")
    with gr.Row(elem_id="main", equal_height=False):
        with gr.Column(min_width=300):
            with gr.Tabs(selected=_PICTURE) as ways:
                with gr.Tab("Picture", id=_PICTURE):
                    picture = gr.Image(
                        show_label=False,
                        type="filepath",
                        format="png",
                        sources=["upload", "webcam", "clipboard"],
                        buttons=["fullscreen"],
                        height=360,
                        elem_id="picture",
                    )
                with gr.Tab("Draw", id=_DRAW, elem_id="draw-tab"):
                    canvas = gr.HTML(markup.drawing(), js_on_load=script("drawing.js"), elem_id="drawing")
            examples = gr.HTML(js_on_load=_EXAMPLES_JS, elem_id="examples")
        with gr.Column(min_width=300):
            answer = gr.HTML(markup.nothing_yet(), js_on_load=_OFFER_JS, elem_id="answer")
            with gr.Row(elem_id="controls"):
                bundle = gr.Dropdown(bundles, value=bundles[0], label="Network", elem_id="bundle", min_width=150)
                engine = gr.Dropdown(engines, value="auto", label="Engine", elem_id="engine", min_width=150)
            about = gr.HTML(elem_id="about")
    api_button, api_answer = gr.Button(visible=False), gr.JSON(visible=False, label="answer")

    predicting = PRIVATE | LIMITS | {"show_progress": "minimal", "show_progress_on": answer}
    predicting["trigger_mode"] = "always_last"  # a second picture while the first is under way is not lost
    chosen, question = [bundle, engine], [picture, bundle, engine]
    choice = [*chosen, examples, about, canvas]
    shared.page().load(page.open, None, [*choice, answer], **AT_ONCE)
    # Not `input`, which a list that is opened and left again tells too (Gradio 6.31).
    change = bundle.change(page.choose_bundle, chosen, choice, **AT_ONCE)
    change.then(page.look_again, question, answer, **predicting)
    change = engine.change(page.choose_engine, chosen, about, **AT_ONCE)
    change.then(page.look_again, question, answer, **predicting)
    # Nor `input` here, which is told of a picture that is taken away, too, and brings it back.
    picture.upload(page.look, question, [picture, answer], **predicting)
    picture.clear(page.clear, bundle, answer, **AT_ONCE)
    files.taken(page.take, chosen, [picture, answer, ways], **predicting)
    files.refused(page.refuse, None, answer, **AT_ONCE)
    canvas.drawn(page.draw, chosen, [picture, answer], **predicting)
    canvas.refused(page.refuse, None, answer, **AT_ONCE)
    canvas.cleared(lambda bundle: (None, page.clear(bundle)), bundle, [picture, answer], **AT_ONCE)
    examples.click(page.show_example, chosen, [picture, answer, ways], **predicting)
    answer.draw(lambda: _TO_DRAW, None, ways, **AT_ONCE)
    api_button.click(page.predict, question, api_answer, preprocess=False, api_name="predict", **LIMITS)
    uploads.refuse_addresses(picture)


class Classify:
    """The tab's handlers, over one ``Classifier``."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def open(self) -> tuple[Any, ...]:
        bundles = self._classifier.bundles()
        first = bundles[0]
        chosen = self.choose_bundle(first, self._classifier.preferred_engine(first))[1:]
        return gr.Dropdown(choices=bundles, value=first), *chosen, self._nothing_yet(first)

    def choose_bundle(self, bundle: str, engine: str) -> tuple[Any, ...]:
        """Show a network, with the engine that was chosen, where it has that one."""
        classifier = self._classifier
        try:
            engines = classifier.engines(bundle)
            kept = engine if engine in ("auto", *engines) else classifier.preferred_engine(bundle)
            names = [(f"auto ({classifier.resolve_engine(bundle, 'auto')})", "auto")]
            names += [(name, name) for name in engines]
            examples = markup.examples_strip(classifier.examples(bundle))
            canvas = markup.drawing(classifier.manifest(bundle))
        except UserError as error:
            problem = markup.problem_card("Cannot open it", classifier.without_paths(error))
            return gr.skip(), gr.skip(), "", problem, gr.skip()
        threading.Thread(target=self._warm, args=(bundle, kept), daemon=True).start()
        return gr.skip(), gr.Dropdown(choices=names, value=kept), examples, self.choose_engine(bundle, kept), canvas

    def choose_engine(self, bundle: str, engine: str) -> str:
        try:
            resolved = self._classifier.resolve_engine(bundle, engine)
            return markup.about(self._classifier.manifest(bundle), resolved)
        except UserError as error:
            return markup.problem_card("Cannot open it", self._classifier.without_paths(error))

    def look(self, picture: dict[str, Any] | None, bundle: str, engine: str) -> tuple[Any, str]:
        """Classify what is new in the picture's place; an unreadable file makes room for the next one."""
        path, card = self._show(picture, bundle, engine)
        return (gr.skip() if path is not None and picture and path == picture.get("path") else path), card

    def look_again(self, picture: dict[str, Any] | None, bundle: str, engine: str) -> str:
        return self._card(picture, bundle, engine)[0]

    def take(self, bundle: str, engine: str, event: gr.EventData) -> tuple[Any, ...]:
        """Classify what was dropped, pasted or chosen; of several files the first."""
        return *self.draw(bundle, engine, event), _TO_PICTURE

    def draw(self, bundle: str, engine: str, event: gr.EventData) -> tuple[Any, ...]:
        """Classify what was drawn."""
        sent = shared.sent(event)
        name, count = str(sent.get("name")), sent.get("count")
        several = isinstance(count, int) and count > 1
        note = f"{count:,} files came at once: this is the answer to the first, {name}." if several else ""
        return self._show({"path": sent.get("path"), "orig_name": name}, bundle, engine, note)

    def refuse(self, event: gr.EventData) -> str:
        """Say why a file was not even sent."""
        sent = shared.sent(event)
        title = f"{sent.get('name')} was not sent"
        return markup.problem_card(title, str(sent.get("reason")), "Try another picture.")

    def clear(self, bundle: str) -> str:
        return self._nothing_yet(bundle)

    def show_example(self, bundle: str, engine: str, event: gr.EventData) -> tuple[Any, ...]:
        try:
            example = self._classifier.examples(bundle)[int(event.index)]
            copy = uploads.keep_copy(example.path)
        except (UserError, OSError, IndexError, ValueError, TypeError, AttributeError):
            gone = markup.problem_card("This example is gone", "Its bundle has changed.", "Reload the page.")
            return gr.skip(), gone, gr.skip()
        return *self._show({"path": copy}, bundle, engine), _TO_PICTURE

    def predict(self, picture: dict[str, Any] | None, bundle: str, engine: str) -> dict[str, Any]:
        """Classify a picture; the original file's bytes are used.

        Args:
            picture: the file to classify.
            bundle: which network, NAME/VERSION, or NAME for its newest version.
            engine: auto, or an engine this bundle can be run by.

        Returns:
            {"bundle", "engine", "milliseconds", "predictions": [{"label", "probability"}, ...], "rejected",
            "true_label", "turned"}: best first, whether even the best is too improbable, the true label if the picture
            is an example of the bundle, and whether light and dark were exchanged.
        """
        try:
            return self._classify(picture, bundle, engine).as_document()
        except ImageError as error:
            raise gr.Error(
                f"{uploads.file_name(picture)}: {error.reason('the picture')}", print_exception=False
            ) from None
        except UserError as error:
            raise gr.Error(self._classifier.without_paths(error), print_exception=False) from None
        except Exception:
            log.exception("%s with %s failed", bundle, engine)
            raise gr.Error("the network failed on this picture", print_exception=False) from None

    def _show(self, picture: dict[str, Any] | None, bundle: str, engine: str, note: str = "") -> tuple[str | None, str]:
        """The file to show in the picture's place, None where it cannot be read, and the card."""
        card, is_readable = self._card(picture, bundle, engine, note)
        return (uploads.shown(picture) if picture and is_readable else None), card

    def _card(self, picture: dict[str, Any] | None, bundle: str, engine: str, note: str = "") -> tuple[str, bool]:
        """The card to show, and whether the picture could be read."""
        if not picture:
            return self._nothing_yet(bundle), True
        try:
            return markup.answer_card(self._classify(picture, bundle, engine), note), True
        except ImageError as error:
            title = f"{uploads.file_name(picture)} cannot be read as a picture"
            return markup.problem_card(title, sentence(error.reason("the picture")), "Try another picture."), False
        except UserError as error:
            text = self._classifier.without_paths(error)
            return markup.problem_card("This network cannot be used", text, "Choose another one."), True
        except Exception:
            log.exception("%s with %s failed", bundle, engine)
            advice = "Try another picture or engine; the server's log says more."
            return markup.problem_card("Something went wrong", "The network failed on this picture.", advice), True

    def _nothing_yet(self, bundle: str) -> str:
        try:
            return markup.nothing_yet(self._classifier.manifest(bundle))
        except UserError:  # is told where the network is chosen
            return markup.nothing_yet()

    def _classify(self, picture: dict[str, Any] | None, bundle: str, engine: str) -> Answer:
        return self._classifier.classify(uploads.read_upload(picture), bundle, engine)

    def _warm(self, bundle: str, engine: str) -> None:
        try:
            self._classifier.predictor(bundle, engine)
        except UserError as error:
            log.warning("%s", error)  # the visitor is told when a picture comes
