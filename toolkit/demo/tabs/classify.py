"""Pictures in, one or several, and the network's answers to them."""

import logging
import threading
from pathlib import Path
from typing import Any

import gradio as gr

from toolkit.data.sources.archive import SUFFIXES
from toolkit.demo import markup, uploads
from toolkit.demo.batch import MAX_PICTURES
from toolkit.demo.classifier import Classifier
from toolkit.demo.quota import Quota
from toolkit.demo.tabs import shared
from toolkit.demo.tabs.answers import CROPS, DRAW, PICTURE, TO_PICTURE, Answers, How
from toolkit.demo.tabs.several import Several
from toolkit.demo.tabs.shared import AT_ONCE, LIMITS, PRIVATE, script
from toolkit.errors import UserError

log = logging.getLogger(__name__)

#: A batch takes its time; who has one picture does not wait for it.
_BATCHES: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "batch"}
_KEPT = 3600  # seconds that a batch's answers are kept for its visitor

_OFFER_JS = """element.addEventListener("click", (event) => {
  if (event.target.closest("button[data-draw]")) trigger("draw", {});
});"""


def build(classifier: Classifier, quota: Quota) -> tuple[gr.Image, gr.Dropdown]:
    """Lay the tab out and wire it up.

    Returns:
        The picture's place, for other tabs to start from, and the list of networks.
    """
    bundles = classifier.bundles()
    engines = ["auto", *classifier.engines(bundles[0])]
    accepted = markup.accepted(uploads.SUFFIXES, "picture", uploads.MAX_PICTURE, SUFFIXES, MAX_PICTURES)
    files = gr.HTML(accepted, js_on_load=script("files.js"), elem_id="files", elem_classes="tk-hidden")

    def keep(path: Path) -> str:
        quota.require(path.stat().st_size)
        return str(files.move_resource_to_block_cache(path))  # where it is deleted with the uploads

    page, several = Classify(classifier), Several(classifier, keep)
    with gr.Row(elem_id="main", equal_height=False):
        with gr.Column(min_width=300):
            with gr.Tabs(selected=PICTURE, elem_id="ways") as ways:
                with gr.Tab("Picture", id=PICTURE):
                    picture = shared.picture_place("picture")
                with gr.Tab("Draw", id=DRAW, elem_id="draw-tab"):
                    canvas = gr.HTML(markup.drawing(), js_on_load=script("drawing.js"), elem_id="drawing")
            examples = gr.HTML(js_on_load=shared.EXAMPLES_JS, elem_id="examples")
        with gr.Column(min_width=300):
            answer = gr.HTML(markup.nothing_yet(), js_on_load=_OFFER_JS, elem_id="answer")
            with gr.Row(elem_id="controls"):
                bundle = gr.Dropdown(bundles, value=bundles[0], label="Network", elem_id="bundle", min_width=200)
                engine = gr.Dropdown(engines, value="auto", label="Engine", elem_id="engine", min_width=200)
                ten = gr.Checkbox(label=f"Average {CROPS} crops", elem_id="crops", min_width=110)
            about = gr.HTML(elem_id="about")
            limit = gr.HTML(js_on_load=script("threshold.js"), elem_id="threshold")
    tiles = gr.HTML(js_on_load=script("tiles.js"), elem_id="tiles")
    below, items = gr.State(None), gr.State((), time_to_live=_KEPT)

    predicting = PRIVATE | LIMITS | {"show_progress": "minimal", "show_progress_on": answer}
    predicting["trigger_mode"] = "always_last"  # a second picture while the first is under way is not lost
    answering = PRIVATE | _BATCHES | {"show_progress": "hidden", "trigger_mode": "always_last"}
    chosen, how = [bundle, engine], [bundle, engine, ten, below]
    question, seen = [picture, *how], [picture, answer]
    choice = [*chosen, examples, about, canvas]
    limits = [limit, below, ten]
    shared.page().load(page.open, None, [*choice, answer], **AT_ONCE).then(page.limit, how, limits, **AT_ONCE)
    # Not `input`, which a list that is opened and left again tells too (Gradio 6.31).
    for changed, show, shown in (
        (bundle, page.choose_bundle, choice),
        (engine, page.choose_engine, [about]),
        (ten, page.limit, limits),
    ):
        event = changed.change(show, how if changed is ten else chosen, shown, **AT_ONCE)
        if changed is bundle:
            event = event.then(page.limit, how, limits, **AT_ONCE)
        event = event.then(page.look_again, question, answer, **predicting)
        event.then(several.again, [items, *how], [items, tiles], **answering)
    # Nor `input` here, which is told of a picture that is taken away, too, and brings it back.
    picture.upload(page.look, question, seen, **predicting)
    picture.clear(page.clear, bundle, answer, **AT_ONCE)
    files.taken(page.take, how, [*seen, ways], **predicting)
    files.batch(several.answer, how, [items, tiles, *seen, ways], **answering)
    files.refused(page.refuse, None, answer, **AT_ONCE)
    canvas.drawn(page.draw, how, seen, **predicting)
    canvas.refused(page.refuse, None, answer, **AT_ONCE)
    canvas.cleared(lambda bundle: (None, page.clear(bundle)), bundle, seen, **AT_ONCE)
    examples.click(page.show_example, how, [*seen, ways], **predicting)
    tiles.picked(several.pick, [items, *how], [*seen, ways], **predicting)
    limit.changed(several.judge, [items, picture, bundle, engine, ten], [below, answer, tiles], **predicting)
    answer.draw(lambda: gr.update(selected=DRAW), None, ways, **AT_ONCE)
    _add_endpoints(page, several, picture, chosen)
    return picture, bundle


def _add_endpoints(page: "Classify", several: Several, picture: gr.Image, chosen: list[Any]) -> None:
    """Offer to programs what the page does for people."""
    result = gr.JSON(visible=False, label="answer")
    one, many, listing = (gr.Button(visible=False) for _ in range(3))
    one.click(page.predict, [picture, *chosen], result, preprocess=False, api_name="predict", **LIMITS)
    pictures = gr.File(file_count="multiple", visible=False, label="pictures")
    crops = gr.Number(1, precision=0, visible=False, label="crops")
    below = gr.Number(None, visible=False, label="reject_below")
    options = {"preprocess": False, "api_name": "predict_several", **_BATCHES}
    many.click(several.predict_several, [pictures, *chosen, crops, below], result, **options)
    listing.click(page.networks, None, result, api_name="networks", queue=False)


class Classify:
    """The tab's handlers for one picture, over one ``Classifier``."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._answers = Answers(classifier)

    def open(self) -> tuple[Any, ...]:
        bundles = self._classifier.bundles()
        first = bundles[0]
        chosen = self.choose_bundle(first, self._classifier.preferred_engine(first))[1:]
        return gr.Dropdown(choices=bundles, value=first), *chosen, self._answers.nothing_yet(first)

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

    def limit(self, bundle: str, engine: str, ten: bool = False, below: float | None = None) -> tuple[Any, ...]:
        """Show what refusing unsure answers costs, and the switch for crops where the network lets them be chosen."""
        try:
            manifest = self._classifier.manifest(bundle)
        except UserError:  # is told where the network is chosen
            return "", None, gr.skip()
        # Its curve was counted on answers to what it sees alone.
        shown = "" if ten and not manifest.members else markup.threshold(manifest)
        return shown, None, gr.update(visible=not manifest.members)

    def look(
        self, picture: Any, bundle: str, engine: str, ten: bool = False, below: float | None = None
    ) -> tuple[Any, str]:
        """Classify what is new in the picture's place; an unreadable file makes room for the next one."""
        path, card = self._answers.show(picture, How(bundle, engine, ten, below))
        return (gr.skip() if path is not None and picture and path == picture.get("path") else path), card

    def look_again(self, picture: Any, bundle: str, engine: str, ten: bool = False, below: float | None = None) -> str:
        return self._answers.card(picture, How(bundle, engine, ten, below))[0]

    def take(
        self, bundle: str, engine: str, event: gr.EventData, ten: bool = False, below: float | None = None
    ) -> tuple[Any, ...]:
        """Classify what was dropped, pasted or chosen; of several files the first."""
        return *self.draw(bundle, engine, event, ten, below), TO_PICTURE

    def draw(
        self, bundle: str, engine: str, event: gr.EventData, ten: bool = False, below: float | None = None
    ) -> tuple[Any, ...]:
        """Classify what was drawn."""
        sent = shared.sent(event)
        name, count = str(sent.get("name")), sent.get("count")
        several = isinstance(count, int) and count > 1
        note = f"{count:,} files came at once: this is the answer to the first, {name}." if several else ""
        return self._answers.show(shared.sent_file(event), How(bundle, engine, ten, below), note)

    def refuse(self, event: gr.EventData) -> str:
        return shared.not_sent_card(event)

    def clear(self, bundle: str) -> str:
        return self._answers.nothing_yet(bundle)

    def show_example(
        self, bundle: str, engine: str, event: gr.EventData, ten: bool = False, below: float | None = None
    ) -> tuple[Any, ...]:
        picture = shared.clicked_example(self._classifier, bundle, event)
        if picture is None:
            return gr.skip(), shared.EXAMPLE_GONE, gr.skip()
        return *self._answers.show(picture, How(bundle, engine, ten, below)), TO_PICTURE

    def predict(self, picture: dict[str, Any] | None, bundle: str, engine: str) -> dict[str, Any]:
        """Classify a picture; the original file's bytes are used.

        Args:
            picture: the file to classify.
            bundle: which network, NAME/VERSION, or NAME for its newest version.
            engine: auto, or an engine this bundle can be run by.

        Returns:
            {"bundle", "engine", "milliseconds", "predictions": [{"label", "probability"}, ...], "rejected", "reason",
            "true_label", "turned", "crops"}: best first; whether even the best is too improbable, or the picture too
            unfamiliar, and which of both; the true label if the picture is an example of the bundle; whether light and
            dark were exchanged; and the crops that were averaged.
        """
        with shared.told_to_programs(self._classifier, picture):
            return self._answers.classify(picture, How(bundle, engine)).as_document()

    def networks(self) -> list[dict[str, Any]]:
        """List the networks that can be asked.

        Returns:
            [{"bundle", "model", "num_params", "labels", "engines", "metrics", "reject_below"}, ...]: each network's
            bundle, architecture, number of parameters, classes, the engines that run it here, its measured accuracy
            and its threshold for "none of these"; or {"bundle", "problem"} for a damaged one.
        """
        found = []
        for bundle in self._classifier.bundles():
            try:
                manifest = self._classifier.manifest(bundle)
                shown = ("model", "num_params", "labels", "metrics", "reject_below")
                told = {name: getattr(manifest, name) for name in shown}
                found.append({"bundle": bundle, "engines": self._classifier.engines(bundle)} | told)
            except UserError as error:
                found.append({"bundle": bundle, "problem": self._classifier.without_paths(error)})
        return found

    def _warm(self, bundle: str, engine: str) -> None:
        try:
            self._classifier.predictor(bundle, engine)
        except UserError as error:
            log.warning("%s", error)  # the visitor is told when a picture comes
