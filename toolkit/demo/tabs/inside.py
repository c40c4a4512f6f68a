"""A network from inside: heat maps, feature maps, edge filters, the arithmetic of its layers, and X or O by hand."""

import functools
import logging
import threading
from typing import Any

import gradio as gr
import numpy as np

from toolkit.data.pixels.decode import ImageError, read_rgb
from toolkit.demo import markup, uploads
from toolkit.demo.classifier import Classifier
from toolkit.demo.inside import xo
from toolkit.demo.inside.looks import Look, Looks, NothingToOpen
from toolkit.demo.inside.way import way_through
from toolkit.demo.markup import arithmetic as arithmetic_markup
from toolkit.demo.markup import inside as views
from toolkit.demo.markup import xo as xo_markup
from toolkit.demo.tabs import shared
from toolkit.demo.tabs.shared import AT_ONCE, PRIVATE, script, sentence
from toolkit.errors import UserError
from toolkit.explain.draw import overlay
from toolkit.explain.inside import statistics
from toolkit.explain.words import as_document
from toolkit.inference.refusal import reason_of

log = logging.getLogger(__name__)

#: Explanations under way at once: each may take seconds of all processors.
EXPLAINING: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "explain"}

_HEAT, _FEATURES, _EDGES, _ARITHMETIC = "heat", "features", "edges", "arithmetic"  # the views of a picture
_WAITING = {
    _HEAT: "Show me a picture: I show you where the network looks.",
    _FEATURES: "Show me a picture: I show you what each stage makes of it.",
    _ARITHMETIC: "Show me a picture: I follow it through the network.",
}
_METHODS = {
    "auto": "the best there is",
    "evidence": "evidence, split exactly",
    "grad-cam": "Grad-CAM",
    "hires-cam": "HiResCAM",
    "occlusion": "occlusion, without gradients",
}
_AS_NEEDED = ("as the method needs", "")


def build(classifier: Classifier, tab: gr.Tab, classified: gr.Image, classifying: gr.Dropdown) -> gr.Dropdown:
    """Lay the tab out and wire it up, and give the list of networks.

    Args:
        classifier: has the bundles.
        tab: the tab; when it is opened without a picture of its own, it takes
        classified: the picture of tab Classify, and
        classifying: the network that it was shown to.
    """
    bundles = classifier.bundles()
    page = Inside(classifier)
    accepted = markup.accepted(uploads.SUFFIXES, "inside-picture", uploads.MAX_PICTURE)
    files = gr.HTML(accepted, js_on_load=script("files.js"), elem_classes="tk-hidden")
    view = gr.State(_HEAT)
    methods = [(name, value) for value, name in _METHODS.items()]
    with gr.Row(elem_id="inside", equal_height=False):
        with gr.Column(min_width=280, scale=2):
            picture = shared.picture_place("inside-picture", height=280)
            examples = gr.HTML(js_on_load=shared.EXAMPLES_JS, elem_id="inside-examples")
            bundle = gr.Dropdown(bundles, value=bundles[0], label="Network", elem_id="inside-bundle")
        with gr.Column(min_width=320, scale=5), gr.Tabs(elem_id="inside-views"):
            with gr.Tab("Heat map") as heat_tab:
                with gr.Row(elem_classes="tk-controls"):
                    label = gr.Dropdown([], label="Evidence for", elem_id="inside-label", min_width=140)
                    method = gr.Dropdown(methods, value="auto", label="Method", elem_id="inside-method", min_width=140)
                    stage = gr.Dropdown([_AS_NEEDED], value="", label="Map", elem_id="inside-stage", min_width=140)
                heat = gr.HTML(views.waiting(_WAITING[_HEAT]), js_on_load=script("inside/heat.js"), elem_id="heat")
            with gr.Tab("Features") as features_tab:
                layer = gr.Dropdown([], label="Stage", elem_id="inside-layer")
                features = gr.HTML(views.waiting(_WAITING[_FEATURES]), js_on_load=None, elem_id="features")
            with gr.Tab("Edges") as edges_tab:
                edges = gr.HTML(views.edges_view(), js_on_load=script("inside/filters.js"), elem_id="edges")
            with gr.Tab("Arithmetic") as arithmetic_tab:
                arithmetic = gr.HTML(
                    views.waiting(_WAITING[_ARITHMETIC]),
                    js_on_load=script("inside/arithmetic.js"),
                    elem_id="arithmetic",
                )
            with gr.Tab("X or O"):
                verdict, maps = page.work(xo.SAMPLES["X"])
                with gr.Row(equal_height=False):
                    board = gr.HTML(xo_markup.board(), js_on_load=script("inside/board.js"), elem_id="board")
                    drawn = gr.HTML(verdict, js_on_load=None, elem_id="xo")
                worked = gr.HTML(maps, js_on_load=script("inside/maps.js"), elem_id="xo-maps")
    api_picture = gr.Image(visible=False, label="picture", type="filepath")
    api_bundle = gr.Textbox(bundles[0], visible=False, label="bundle")
    api_label, api_stage = (gr.Textbox("", visible=False, label=name) for name in ("label", "stage"))
    api_method = gr.Dropdown(list(_METHODS), value="auto", visible=False, label="method")
    api_button, api_answer = gr.Button(visible=False), gr.JSON(visible=False, label="answer")
    api_overlay = gr.Image(visible=False, label="overlay", format="png")

    busy: dict[str, Any] = {"show_progress": "minimal", "trigger_mode": "always_last"}
    looking = PRIVATE | EXPLAINING | busy
    panels = [heat, features, edges, arithmetic]
    choices = [label, method, stage, layer]
    asked = [view, picture, bundle, *choices]
    everything = [picture, *choices, *panels]
    shared.page().load(page.open, None, [bundle, examples], **AT_ONCE)
    opened = tab.select(page.take_over, [picture, bundle, classified, classifying], [picture, bundle], **AT_ONCE)
    opened.then(page.first, [view, picture, bundle, label], everything, **looking)
    change = bundle.change(page.examples, bundle, examples, **AT_ONCE)
    change.then(page.fresh, [view, picture, bundle], everything, **looking)
    picture.upload(page.fresh, [view, picture, bundle], everything, **looking)
    picture.clear(lambda: (None, *page.clear()), None, [label, *panels], **AT_ONCE)
    files.taken(page.take, [view, bundle], everything, **looking)
    files.refused(page.refuse, view, panels, **AT_ONCE)
    examples.click(page.take_example, [view, bundle], everything, **looking)
    for control in (label, method, stage, layer):
        control.input(page.show, asked, [stage, *panels], **looking)
    heat.choose(page.choose, [view, picture, bundle, method, stage, layer], [label, stage, *panels], **looking)
    heat.search(page.search, asked, [stage, *panels], **looking)
    for view_tab, name in (
        (heat_tab, _HEAT),
        (features_tab, _FEATURES),
        (edges_tab, _EDGES),
        (arithmetic_tab, _ARITHMETIC),
    ):
        view_tab.select(functools.partial(page.turn, name), asked[1:], [view, stage, *panels], **looking)
    board.drawn(page.work_event, None, [drawn, worked], **AT_ONCE)
    api_button.click(
        page.heat_map,
        [api_picture, api_bundle, api_label, api_method, api_stage],
        [api_answer, api_overlay],
        preprocess=False,
        api_name="heat_map",
        **EXPLAINING,
    )
    api_button.click(
        page.arithmetic,
        [api_picture, api_bundle],
        api_answer,
        preprocess=False,
        api_name="arithmetic",
        **EXPLAINING,
    )
    return bundle


class Inside:
    """The tab's handlers. A view is given as its panel; what is not shown is left, and made when it is opened."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._looks = Looks(classifier)

    def open(self) -> tuple[Any, ...]:
        bundles = self._classifier.bundles()
        return gr.Dropdown(choices=bundles, value=bundles[0]), self.examples(bundles[0])

    def examples(self, bundle: str) -> str:
        try:
            return markup.examples_strip(self._classifier.examples(bundle))
        except UserError:  # is told where a picture is looked at
            return ""

    def take_over(self, picture: Any, bundle: str, classified: Any, classifying: str) -> tuple[Any, Any]:
        """Start with what was classified, and by which network, where there is no picture yet; open it meanwhile."""
        is_taken = not picture and bool(classified)
        chosen = classifying if is_taken else bundle
        threading.Thread(target=self._warm, args=(chosen,), daemon=True).start()
        return shared.take_over(picture, classified), gr.skip() if chosen == bundle else chosen

    def first(self, view: str, picture: dict[str, Any] | None, bundle: str, label: str | None) -> tuple[Any, ...]:
        """Look at the picture that was taken over, unless that was done."""
        if not picture or label:
            return tuple(9 * [gr.skip()])
        return self.fresh(view, picture, bundle)

    def fresh(self, view: str, picture: Any, bundle: str, *, is_placed: bool = True) -> tuple[Any, ...]:
        """Look at a new picture, or with a new network.

        Args:
            view: that is open.
            picture: as the browser sends it.
            bundle: the network.
            is_placed: the picture stands in its place; else it is put there.

        Returns:
            The picture, the four choices, and the panels.
        """
        if not picture:
            return *(5 * [gr.skip()]), *self.clear()
        shown = uploads.shown(picture)  # None where it cannot be read, which makes room for the next one
        place = gr.skip() if is_placed and shown == picture.get("path") else shown
        try:
            look = self._look(picture, bundle)
        except Exception as error:
            # Edges need no network.
            panel = self._problem(error, picture) if view != _EDGES else self._written(view, picture, bundle, {})
            # A picture that is not there has no evidence; the next one taken over is looked at, see `first`.
            label = gr.skip() if shown else None
            return place, label, *(3 * [gr.skip()]), *self._panels(view, panel)
        explainer, (label, _) = look.explanation.explainer, look.explanation.top(1)[0]
        stages = views.stage_choices(explainer)
        methods = [(name, value) for value, name in _METHODS.items() if self._has(look, value)]
        choices = (
            gr.Dropdown(choices=self._labels(look), value=label),
            gr.Dropdown(choices=methods, value="auto"),
            gr.Dropdown(choices=[_AS_NEEDED, *((name, name) for name in stages)], value=""),
            gr.Dropdown(choices=stages, value=stages[0] if stages else None),
        )
        return place, *choices, *self._panels(view, self._written(view, picture, bundle, {"label": label}))

    def show(
        self, view: str, picture: Any, bundle: str, label: str, method: str, stage: str, layer: str
    ) -> tuple[Any, ...]:
        """Make the view anew: the map that is chosen, and panels."""
        if not picture:
            return tuple(5 * [gr.skip()])
        if method == "occlusion":
            stage = ""  # which looks at no map
        chosen = {"label": label, "method": method, "stage": stage, "layer": layer}
        return stage, *self._panels(view, self._written(view, picture, bundle, chosen))

    def turn(self, view: str, *asked: Any) -> tuple[Any, ...]:
        """Open another view."""
        return view, *self.show(view, *asked)

    def choose(self, event: gr.EventData, view: str, picture: Any, bundle: str, *rest: str) -> tuple[Any, ...]:
        """Show the evidence for the class that was clicked, by the method and map that are chosen."""
        label = str(shared.sent(event).get("label"))
        return label, *self.show(view, picture, bundle, label, *rest)

    def search(self, view: str, picture: Any, bundle: str, *chosen: str) -> tuple[Any, ...]:
        """Look for the smallest part of the picture that keeps the answer, and outline it."""
        try:
            self._looks.search(self._look(picture, bundle))
        except Exception as error:
            return gr.skip(), *self._panels(view, self._problem(error, picture))
        return self.show(view, picture, bundle, *chosen)

    def take(self, view: str, bundle: str, event: gr.EventData) -> tuple[Any, ...]:
        """Look at what was dropped, pasted or chosen; of several files the first."""
        return self.fresh(view, shared.sent_file(event), bundle, is_placed=False)

    def refuse(self, view: str, event: gr.EventData) -> tuple[Any, ...]:
        """Say why a file was not even sent."""
        return self._panels(view, shared.not_sent_card(event))

    def take_example(self, view: str, bundle: str, event: gr.EventData) -> tuple[Any, ...]:
        """Look at one of the bundle's own pictures."""
        picture = shared.clicked_example(self._classifier, bundle, event)
        if picture is None:
            return *(5 * [gr.skip()]), *self._panels(view, shared.EXAMPLE_GONE)
        return self.fresh(view, picture, bundle, is_placed=False)

    def clear(self) -> tuple[Any, ...]:
        waiting = (views.waiting(_WAITING[name]) if name in _WAITING else views.edges_view() for name in _PANELS)
        return tuple(waiting)

    def work_event(self, event: gr.EventData) -> tuple[str, str]:
        return self.work(shared.sent(event).get("cells"))

    def work(self, cells: object) -> tuple[str, str]:
        """Work a drawn board through the X-or-O network: the answer, and the maps on the way."""
        try:
            worked = xo.work(xo.read_board(cells))
        except UserError as error:
            return markup.problem_card("This is no board", sentence(str(error)), "Reload the page."), ""
        return xo_markup.verdict(worked), xo_markup.maps(worked)

    def heat_map(
        self, picture: dict[str, Any] | None, bundle: str, label: str, method: str, stage: str
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Find where in a picture the evidence for a class lies, by the original network, never by a quantized one.

        Args:
            picture: the file to look at.
            bundle: which network, NAME/VERSION, or NAME for its newest version.
            label: the class; empty for the likeliest.
            method: auto, evidence, grad-cam, hires-cam or occlusion; empty for auto.
            stage: whose map a gradient method takes; empty for the last one.

        Returns:
            {"predictions": [{"label", "probability"}, ...], "rejected", "reason", "seen", "heat_maps": [{"label",
            "against", "method", "maps", "by_stage", "peak": {"down", "across"}, "half_of_it"}], "smallest_region",
            "network"}: best first; rejected where the answer means "none of these", for the reason that it is
            "unfamiliar" or "unsure"; seen is the part that the network saw, in pixels; peak in shares of that part;
            by_stage in logits. And the picture under the heat map, as PNG.
        """
        with shared.told_to_programs(self._classifier, picture):
            look = self._look(picture, bundle)
            heat = self._looks.heat_map(look, label or None, method or "auto", stage or None)
            document = as_document(look.explanation, [heat], None, reason_of(look.explanation))
            return document, overlay(look.explanation, heat)

    def arithmetic(self, picture: dict[str, Any] | None, bundle: str) -> dict[str, Any]:
        """Follow a picture through a network, layer by layer.

        Args:
            picture: the file to follow.
            bundle: which network, NAME/VERSION, or NAME for its newest version.

        Returns:
            {"picture": {"height", "width"}, "input": [height, width, channels], "layers": [{"layer", "type", "reads",
            "shape", "size_working", "parameters", "parameters_working", "multiply_adds", "multiply_adds_working",
            "receptive_field": {"size", "first", "jump"}}, ...], "parameters", "multiply_adds"}: shapes without the
            batch; a receptive field in pixels of the input, (down, across), null where every value sees all of it; cell
            i begins at first + i · jump.
        """

        with shared.told_to_programs(self._classifier, picture):
            explanation = self._look(picture, bundle).explanation
            layers = [step.as_document() for step in way_through(explanation.explainer.model)]
            height, width = explanation.rgb.shape[:2]
            return {
                "picture": {"height": height, "width": width},
                "input": list(explanation.explainer.preprocessing.input_shape),
                "layers": layers,
                "parameters": sum(layer["parameters"] for layer in layers),
                "multiply_adds": sum(layer["multiply_adds"] for layer in layers),
            }

    def _look(self, picture: Any, bundle: str) -> Look:
        return self._looks.look(uploads.read_upload(picture), bundle)

    def _written(self, view: str, picture: Any, bundle: str, chosen: dict[str, Any]) -> str:
        """Write a view of a picture, or why there is none."""
        try:
            if view == _EDGES:
                return views.edges_view(read_rgb(uploads.read_upload(picture)))
            return self._panel(view, self._look(picture, bundle), bundle, chosen)
        except Exception as error:
            return self._problem(error, picture)

    def _panel(self, view: str, look: Look, bundle: str, chosen: dict[str, Any]) -> str:
        if view == _FEATURES:
            sheet = self._looks.sheet(look, chosen.get("layer") or None)
            return views.features_view(look, sheet, statistics(look.explanation)) + self._filters(bundle)
        if view == _ARITHMETIC:
            return arithmetic_markup.arithmetic_view(look, way_through(look.explanation.explainer.model))
        method, stage = chosen.get("method") or "auto", chosen.get("stage") or None
        heat = self._looks.heat_map(look, chosen.get("label") or None, method, stage)
        return views.heat_view(look, heat, self._looks.evidence(look))

    def _filters(self, bundle: str) -> str:
        try:
            return views.filters_view(*self._looks.filters(bundle))
        except UserError as error:
            return f'<p class="tk-note">{markup.escape(sentence(self._classifier.without_paths(error)))}</p>'

    def _panels(self, view: str, panel: str) -> tuple[Any, ...]:
        return tuple(panel if name == view else gr.skip() for name in _PANELS)

    def _has(self, look: Look, method: str) -> bool:
        explainer = look.explanation.explainer
        if method == "evidence":
            return explainer.read_out is not None
        return method in ("auto", "occlusion") or bool(explainer.maps)

    def _labels(self, look: Look) -> list[tuple[str, str]]:
        top = look.explanation.top(len(look.explanation.explainer.labels))
        return [(f"{label} · {markup.percent(share)}", label) for label, share in top]

    def _problem(self, error: Exception, picture: Any) -> str:
        if isinstance(error, ImageError):
            return shared.unreadable_card(picture, error)
        if isinstance(error, NothingToOpen):
            advice = "Heat, features and arithmetic need the original network, model.keras; edges need none."
            text = f"{self._classifier.without_paths(error)}."
            return markup.problem_card("This network cannot be looked into", text, advice)
        if isinstance(error, UserError):
            text = self._classifier.without_paths(error)
            return markup.problem_card("This cannot be shown", sentence(text), "Choose something else.")
        log.error("looking inside failed", exc_info=error)
        return markup.problem_card("Something went wrong", "The network failed on this picture.", "Try another one.")

    def _warm(self, bundle: str) -> None:
        try:
            self._looks.explainer(bundle)
        except UserError as error:
            log.warning("%s", error)  # the visitor is told when a picture comes


_PANELS = (_HEAT, _FEATURES, _EDGES, _ARITHMETIC)
