"""One picture through several networks and engines, side by side."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from toolkit.data.pixels.decode import ImageError
from toolkit.demo import comparison, markup, uploads
from toolkit.demo.classifier import Classifier
from toolkit.demo.markup import compare as words
from toolkit.demo.tabs import shared
from toolkit.demo.tabs.shared import AT_ONCE, LIMITS, PRIVATE, script
from toolkit.errors import UserError

log = logging.getLogger(__name__)

#: Networks that are chosen when the page opens: the newest version of each, the first by name.
_FIRST = 3


def build(classifier: Classifier, tab: gr.Tab, classified: gr.Image, own: gr.State) -> gr.Dropdown:
    """Lay the tab out and wire it up.

    Args:
        classifier: has the bundles.
        tab: the tab; when it is opened without a picture of its own, it takes
        classified: the picture of tab Classify.
        own: the visitor's own bundles, as choices.

    Returns:
        The list of networks.
    """
    page = Compare(classifier)
    accepted = markup.accepted(uploads.SUFFIXES, "compared", uploads.MAX_PICTURE)
    files = gr.HTML(accepted, js_on_load=script("files.js"), elem_classes="tk-hidden")
    with gr.Row(elem_id="comparing", equal_height=False):
        with gr.Column(min_width=280, scale=4):
            picture = shared.picture_place("compared", height=300)
            bundles = gr.Dropdown([], multiselect=True, label="Networks", elem_id="compare-bundles")
            engines = gr.Dropdown([], multiselect=True, label="Engines", elem_id="compare-engines")
            examples = gr.HTML(js_on_load=shared.EXAMPLES_JS, elem_id="compare-examples")
        with gr.Column(min_width=300, scale=7):
            answer = gr.HTML(words.WAITING, js_on_load=shared.READ_OUT_JS, elem_id="comparison")

    asked = gr.State(None)
    predicting = PRIVATE | LIMITS | {"show_progress": "hidden", "trigger_mode": "always_last"}
    chosen, seen = [bundles, engines], [picture, answer, asked]
    question = [picture, *chosen, asked]
    # What takes a moment waits until the tab is opened: every network's fastest engine may have to be found out.
    opened = tab.select(page.open, [*chosen, own], [*chosen, examples], **AT_ONCE)
    opened = opened.then(shared.take_over, [picture, classified], picture, **AT_ONCE)
    opened.then(page.look, question, seen, **predicting)
    # Told of what a visitor chooses, not of what is set here, or the first picture would be compared three times.
    bundles.input(page.choose, chosen, engines, **AT_ONCE).then(page.look, question, seen, **predicting)
    engines.input(page.look, question, seen, **predicting)
    picture.upload(page.look, question, seen, **predicting)
    picture.clear(lambda: (words.WAITING, None), None, [answer, asked], **AT_ONCE)
    files.taken(page.take, chosen, seen, **predicting)
    files.refused(page.refuse, None, [answer, asked], **AT_ONCE)
    examples.click(page.show_example, chosen, seen, **predicting)
    button, result = gr.Button(visible=False), gr.JSON(visible=False, label="rows")
    button.click(page.compare, question[:-1], result, preprocess=False, api_name="compare", **LIMITS)
    return bundles


class Compare:
    """The tab's handlers, over one ``Classifier``."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def open(self, chosen: Any = None, engines: Any = None, own: Sequence[tuple[str, str]] = ()) -> tuple[Any, ...]:
        """List the networks there are, the visitor's own first; at first the newest of each is chosen."""
        bundles = [*own, *((name, name) for name in self._classifier.bundles())]
        if _texts(chosen):
            return gr.Dropdown(choices=bundles), self.choose(chosen, engines), gr.skip()
        first = [*(name for _, name in own), *self._first()][:_FIRST]
        try:
            names, started = self._engines(first)
            examples = markup.examples_strip(self._classifier.examples(self._first()[0]))
        except UserError:  # is told when a picture comes
            names, started, examples = [], [], ""
        return gr.Dropdown(choices=bundles, value=first), gr.Dropdown(choices=names, value=started), examples

    def choose(self, bundles: Any, engines: Any) -> Any:
        """List the engines that any of the networks can be run by; those chosen stay."""
        try:
            names, first = self._engines(_texts(bundles))
        except UserError:
            return gr.skip()
        return gr.Dropdown(choices=names, value=[name for name in _texts(engines) if name in names] or first)

    def look(self, picture: Any, bundles: Any, engines: Any, asked: Any = None) -> Iterator[tuple[Any, Any, Any]]:
        """Compare what is in the picture's place, unless just that was ``asked`` already."""
        if asked is not None and asked == _question(picture, bundles, engines):
            yield gr.skip(), gr.skip(), gr.skip()
            return
        yield from self._shown(picture, bundles, engines)

    def take(self, bundles: Any, engines: Any, event: gr.EventData) -> Iterator[tuple[Any, Any, Any]]:
        """Compare the answers to what was dropped, pasted or chosen."""
        yield from self._new(shared.sent_file(event), bundles, engines)

    def show_example(self, bundles: Any, engines: Any, event: gr.EventData) -> Iterator[tuple[Any, Any, Any]]:
        """Compare the answers to an example."""
        picture = shared.clicked_example(self._classifier, self._first()[0], event)
        if picture is None:
            yield gr.skip(), shared.EXAMPLE_GONE, None
        else:
            yield from self._new(picture, bundles, engines)

    def refuse(self, event: gr.EventData) -> tuple[str, None]:
        """Say why a file was not even sent."""
        return shared.not_sent_card(event), None

    def compare(self, picture: dict[str, Any] | None, bundles: list[str], engines: list[str]) -> list[dict[str, Any]]:
        """Ask several networks in several engines about one picture.

        Args:
            picture: the file.
            bundles: which networks, NAME/VERSION each, or NAME for its newest version; empty for the newest of each.
            engines: auto, or engines that these networks can be run by; a network is run by those that it has. Empty
                for the fastest in float32 and its quantized form.

        Returns:
            [{"bundle", "engine", "predictions": [{"label", "probability"}, ...], "rejected", "reason", "milliseconds",
            "size", "difference", "problem"}, ...]: best label first; the median time of the network alone; the bytes
            its files take; and the largest difference in probability from the network's first float engine.
        """
        with shared.told_to_programs(self._classifier, picture):
            data = uploads.read_upload(picture)
            pairs = self._pairs(bundles, engines)
            return [row.as_document() for row in comparison.compare(self._classifier, data, pairs)]

    def _new(self, picture: Any, bundles: Any, engines: Any) -> Iterator[tuple[Any, Any, Any]]:
        """Show a new picture, where it can be read, and the answers to it."""
        path = uploads.shown(picture)
        given = picture if path is None else picture | {"path": path}
        for index, (place, shown, asked) in enumerate(self._shown(given, bundles, engines)):
            yield (place if path is None or index else path), shown, asked

    def _shown(self, picture: Any, bundles: Any, engines: Any) -> Iterator[tuple[Any, Any, Any]]:
        """The picture's place, None where it cannot be read; the answers as they come; and what was asked."""
        if not picture:
            yield gr.skip(), words.WAITING, None
            return
        asked = _question(picture, bundles, engines)
        try:
            data = uploads.read_upload(picture)
            pairs = self._pairs(bundles, engines)
            manifests = {bundle: self._classifier.manifest(bundle) for bundle, _ in pairs}
            rows: list[comparison.Row] = []
            yield gr.skip(), words.comparison(rows, manifests, len(pairs)), asked
            for row in comparison.compare(self._classifier, data, pairs):
                rows.append(row)
                yield gr.skip(), words.comparison(rows, manifests, len(pairs) - len(rows)), asked
        except ImageError as error:
            yield None, shared.unreadable_card(picture, error), None
        except UserError as error:
            text = self._classifier.without_paths(error)
            yield gr.skip(), markup.problem_card("These cannot be compared", text, "Choose others."), asked
        except Exception:
            log.exception("comparing %s in %s failed", bundles, engines)
            advice = "Try another picture or engine; the server's log says more."
            card = markup.problem_card("Something went wrong", "A network failed on this picture.", advice)
            yield gr.skip(), card, None

    def _first(self) -> list[str]:
        """The newest version of the first few bundles."""
        bundles = self._classifier.bundles()
        newest = {bundle.rpartition("/")[0]: bundle for bundle in reversed(bundles)}
        return [bundle for bundle in bundles if bundle in newest.values()][:_FIRST]

    def _pairs(self, bundles: Any, engines: Any) -> list[tuple[str, str]]:
        named = [self._classifier.newest(name) for name in _texts(bundles)] or self._first()
        return comparison.pairs_of(self._classifier, named, _texts(engines) or self._engines(named)[1])

    def _engines(self, bundles: list[str]) -> tuple[list[str], list[str]]:
        """The engines of several bundles, and those to begin with."""
        names = dict.fromkeys(name for bundle in bundles for name in self._classifier.engines(bundle))
        first = dict.fromkeys(
            name for bundle in bundles for name in comparison.default_engines(self._classifier, bundle)
        )
        return list(names), list(first)


def _question(picture: Any, bundles: Any, engines: Any) -> tuple[Any, ...]:
    path = picture.get("path") if isinstance(picture, dict) else None
    return path, tuple(_texts(bundles)), tuple(_texts(engines))


def _texts(given: Any) -> list[str]:
    """Take the texts of a list that somebody sent."""
    return [text for text in given if isinstance(text, str)] if isinstance(given, list) else []
