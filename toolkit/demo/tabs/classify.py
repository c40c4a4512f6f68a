"""Pictures in, one or several, and the network's answers to them."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from toolkit.data.pixels.decode import ImageError
from toolkit.data.sources.archive import SUFFIXES, is_archive_name
from toolkit.demo import batch, markup, uploads
from toolkit.demo.batch import MAX_PICTURES, Item
from toolkit.demo.classifier import Answer, Classifier
from toolkit.demo.tabs import shared
from toolkit.demo.tabs.shared import AT_ONCE, LIMITS, PRIVATE, script, sentence
from toolkit.ensemble.crops import SCHEMES
from toolkit.errors import UserError

log = logging.getLogger(__name__)

_PICTURE, _DRAW = "picture", "draw"  # the tabs
_TO_PICTURE, _TO_DRAW = gr.update(selected=_PICTURE), gr.update(selected=_DRAW)

#: Crops of a picture when the switch is on.
CROPS = 10
#: A batch takes its time; who has one picture does not wait for it.
_BATCHES: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "batch"}
_TOLD_EVERY = 0.5  # seconds between two words on how far a batch is
_THUMBNAIL = 120
_KEPT = 3600  # seconds that a batch's answers are kept for its visitor

_OFFER_JS = """element.addEventListener("click", (event) => {
  if (event.target.closest("button[data-draw]")) trigger("draw", {});
});"""


def build(classifier: Classifier) -> gr.Image:
    """Lay the tab out and wire it up; the picture's place is for other tabs to start from."""
    bundles = classifier.bundles()
    engines = ["auto", *classifier.engines(bundles[0])]
    accepted = markup.accepted(uploads.SUFFIXES, "picture", SUFFIXES, MAX_PICTURES)
    files = gr.HTML(accepted, js_on_load=script("files.js"), elem_id="files", elem_classes="tk-hidden")

    def keep(path: Path) -> str:
        return str(files.move_resource_to_block_cache(path))  # where it is deleted with the uploads

    page = Classify(classifier, keep)
    with gr.Row(elem_id="main", equal_height=False):
        with gr.Column(min_width=300):
            with gr.Tabs(selected=_PICTURE, elem_id="ways") as ways:
                with gr.Tab("Picture", id=_PICTURE):
                    picture = shared.picture_place("picture")
                with gr.Tab("Draw", id=_DRAW, elem_id="draw-tab"):
                    canvas = gr.HTML(markup.drawing(), js_on_load=script("drawing.js"), elem_id="drawing")
            examples = gr.HTML(js_on_load=shared.EXAMPLES_JS, elem_id="examples")
        with gr.Column(min_width=300):
            answer = gr.HTML(markup.nothing_yet(), js_on_load=_OFFER_JS, elem_id="answer")
            with gr.Row(elem_id="controls"):
                bundle = gr.Dropdown(bundles, value=bundles[0], label="Network", elem_id="bundle", min_width=150)
                engine = gr.Dropdown(engines, value="auto", label="Engine", elem_id="engine", min_width=150)
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
        event.then(page.answer_again, [items, *how], [items, tiles], **answering)
    # Nor `input` here, which is told of a picture that is taken away, too, and brings it back.
    picture.upload(page.look, question, seen, **predicting)
    picture.clear(page.clear, bundle, answer, **AT_ONCE)
    files.taken(page.take, how, [*seen, ways], **predicting)
    files.batch(page.answer_batch, how, [items, tiles, *seen, ways], **answering)
    files.refused(page.refuse, None, answer, **AT_ONCE)
    canvas.drawn(page.draw, how, seen, **predicting)
    canvas.refused(page.refuse, None, answer, **AT_ONCE)
    canvas.cleared(lambda bundle: (None, page.clear(bundle)), bundle, seen, **AT_ONCE)
    examples.click(page.show_example, how, [*seen, ways], **predicting)
    tiles.picked(page.pick, [items, *how], [*seen, ways], **predicting)
    limit.changed(page.judge, [items, picture, bundle, engine, ten], [below, answer, tiles], **predicting)
    answer.draw(lambda: _TO_DRAW, None, ways, **AT_ONCE)
    _add_endpoints(page, picture, chosen)
    uploads.refuse_addresses(picture)
    return picture


def _add_endpoints(page: "Classify", picture: gr.Image, chosen: list[Any]) -> None:
    """Offer to programs what the page does for people."""
    result = gr.JSON(visible=False, label="answer")
    one, several, listing = (gr.Button(visible=False) for _ in range(3))
    one.click(page.predict, [picture, *chosen], result, preprocess=False, api_name="predict", **LIMITS)
    pictures = gr.File(file_count="multiple", visible=False, label="pictures")
    crops = gr.Number(1, precision=0, visible=False, label="crops")
    below = gr.Number(None, visible=False, label="reject_below")
    options = {"preprocess": False, "api_name": "predict_several", **_BATCHES}
    several.click(page.predict_several, [pictures, *chosen, crops, below], result, **options)
    listing.click(page.networks, None, result, api_name="networks", queue=False)
    uploads.refuse_addresses(pictures)


@dataclass(frozen=True)
class _How:
    """A visitor's choice: the network, its engine, whether several crops are averaged, and the threshold."""

    bundle: str
    engine: str
    ten: bool = False
    below: float | None = None
    crops: int = 1


class Classify:
    """The tab's handlers, over one ``Classifier``."""

    def __init__(self, classifier: Classifier, keep: Callable[[Path], str] = uploads.keep_copy) -> None:
        """Answer by ``classifier``; ``keep`` copies a picture out of an archive to among the uploads."""
        self._classifier = classifier
        self._keep = keep

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
        path, card = self._show(picture, _How(bundle, engine, ten, below))
        return (gr.skip() if path is not None and picture and path == picture.get("path") else path), card

    def look_again(self, picture: Any, bundle: str, engine: str, ten: bool = False, below: float | None = None) -> str:
        return self._card(picture, _How(bundle, engine, ten, below))[0]

    def take(
        self, bundle: str, engine: str, event: gr.EventData, ten: bool = False, below: float | None = None
    ) -> tuple[Any, ...]:
        """Classify what was dropped, pasted or chosen; of several files the first."""
        return *self.draw(bundle, engine, event, ten, below), _TO_PICTURE

    def draw(
        self, bundle: str, engine: str, event: gr.EventData, ten: bool = False, below: float | None = None
    ) -> tuple[Any, ...]:
        """Classify what was drawn."""
        sent = shared.sent(event)
        name, count = str(sent.get("name")), sent.get("count")
        several = isinstance(count, int) and count > 1
        note = f"{count:,} files came at once: this is the answer to the first, {name}." if several else ""
        return self._show({"path": sent.get("path"), "orig_name": name}, _How(bundle, engine, ten, below), note)

    def refuse(self, event: gr.EventData) -> str:
        """Say why files were not even sent."""
        sent = shared.sent(event)
        count = sent.get("count")
        title = f"{count:,} files were not sent" if isinstance(count, int) else f"{sent.get('name')} was not sent"
        return markup.problem_card(title, str(sent.get("reason")), "Try another picture.")

    def clear(self, bundle: str) -> str:
        return self._nothing_yet(bundle)

    def show_example(
        self, bundle: str, engine: str, event: gr.EventData, ten: bool = False, below: float | None = None
    ) -> tuple[Any, ...]:
        try:
            example = self._classifier.examples(bundle)[int(event.index)]
            copy = uploads.keep_copy(example.path)
        except (UserError, OSError, IndexError, ValueError, TypeError, AttributeError):
            gone = markup.problem_card("This example is gone", "Its bundle has changed.", "Reload the page.")
            return gr.skip(), gone, gr.skip()
        return *self._show({"path": copy}, _How(bundle, engine, ten, below)), _TO_PICTURE

    def answer_batch(
        self, bundle: str, engine: str, event: gr.EventData, ten: bool = False, below: float | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Classify several files, and the pictures in archives among them."""
        how = _How(bundle, engine, ten, below)
        sent = shared.sent(event).get("files")
        files = [file for file in sent if isinstance(file, dict)] if isinstance(sent, list) else []
        rest = (gr.skip(),) * 3
        try:
            items, name, remark = self._sent_items(files)
            for working in self._answered(items, name, how):
                yield gr.skip(), working, *rest
            shown = markup.tiles(items, self._classifier.manifest(bundle).labels, remark)
        except UserError as error:
            text = self._classifier.without_paths(error)
            card = markup.problem_card("These pictures cannot be answered", text, "Send others.")
            yield (), "", gr.skip(), card, gr.skip()
            return
        except Exception:
            log.exception("answering several pictures by %s with %s failed", bundle, engine)
            advice = "Try again, or fewer; the server's log says more."
            card = markup.problem_card("Something went wrong", "These pictures were not answered.", advice)
            yield (), "", gr.skip(), card, gr.skip()
            return
        # Of several files the first is answered already, but one within an archive is not.
        first = next((item for item in items if item.answer), None)
        if first and is_archive_name(str(files[0].get("name"))):
            count = f"{len(items):,} picture{'s' if len(items) > 1 else ''}"
            note = f"{name}: {count}, this is the answer to {first.name}."
            rest = (*self._show({"path": first.path, "orig_name": first.name}, how, note), _TO_PICTURE)
        yield tuple(items), shown, *rest

    def answer_again(
        self, items: Any, bundle: str, engine: str, ten: bool = False, below: float | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Classify the same pictures by another network or engine."""
        if not items:
            yield gr.skip(), gr.skip()
            return
        again = list(items)
        try:
            for working in self._answered(again, f"{len(again):,} pictures", _How(bundle, engine, ten, below)):
                yield gr.skip(), working
            yield tuple(again), markup.tiles(again, self._classifier.manifest(bundle).labels)
        except UserError:  # is told in the answer's place
            yield (), ""

    def pick(
        self, items: Any, bundle: str, engine: str, event: gr.EventData, ten: bool = False, below: float | None = None
    ) -> tuple[Any, ...]:
        """Show one of several pictures large."""
        try:
            item = items[int(shared.sent(event)["index"])]
        except (KeyError, IndexError, ValueError, TypeError):
            gone = markup.problem_card("This picture is gone", "Answers are kept for an hour.", "Send it again.")
            return gr.skip(), gone, gr.skip()
        picture = {"path": item.path, "orig_name": item.name}
        return *self._show(picture, _How(bundle, engine, ten, below), item.name), _TO_PICTURE

    def judge(
        self, items: Any, picture: Any, bundle: str, engine: str, ten: bool, event: gr.EventData
    ) -> tuple[Any, ...]:
        """Judge the answers there are by another threshold."""
        below = _fraction(shared.sent(event).get("below"))
        how = _How(bundle, engine, ten, below)
        card = self._card(picture, how)[0]
        try:
            manifest = self._classifier.manifest(bundle)
        except UserError:  # is told on the card
            return below, card, gr.skip()
        own = manifest.reject_below or 0.0
        judged = [item.judged(own if below is None else below) for item in items]
        return below, card, markup.tiles(judged, manifest.labels)

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
            return self._classify(picture, _How(bundle, engine)).as_document()

    def predict_several(
        self, pictures: Any, bundle: str, engine: str, crops: int | None = 1, reject_below: float | None = None
    ) -> dict[str, Any]:
        """Classify several pictures; tar and zip files among them stand for the pictures that they hold.

        Args:
            pictures: the files, 200 pictures at most.
            bundle: which network, NAME/VERSION, or NAME for its newest version.
            engine: auto, or an engine this bundle can be run by.
            crops: of each picture, whose answers are averaged: 1, 10, 50 or 144.
            reject_below: the probability, 0 to 1, below which an answer means none of the classes; empty for the
                bundle's own threshold.

        Returns:
            {"answers": [...], "csv"}: for each picture what predict says and its name, or its name and the problem;
            and all of it as a table in CSV.
        """
        with shared.told_to_programs(self._classifier):
            if crops not in (None, *SCHEMES):
                raise UserError(f"{crops!r} crops: expected one of {', '.join(map(str, SCHEMES))}")
            if reject_below is not None and _fraction(reject_below) is None:
                raise UserError(f"reject_below {reject_below!r}: expected a probability from 0 to 1, or nothing")
            given = pictures if isinstance(pictures, list) else [pictures]
            named = [
                {"name": uploads.file_name(own), "path": own.get("path")} for own in given if isinstance(own, dict)
            ]
            items, name, _ = self._sent_items(named)
            bundle = self._classifier.newest(bundle)
            how = _How(bundle, engine, below=_fraction(reject_below), crops=int(crops or 1))
            for _ in self._answered(items, name, how):
                pass
            labels = self._classifier.manifest(bundle).labels
            return {"answers": [item.as_document() for item in items], "csv": batch.table(items, labels)}

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

    def _show(self, picture: Any, how: "_How", note: str = "") -> tuple[str | None, str]:
        """The file to show in the picture's place, None where it cannot be read, and the card."""
        card, is_readable = self._card(picture, how, note)
        return (uploads.shown(picture) if picture and is_readable else None), card

    def _card(self, picture: Any, how: "_How", note: str = "") -> tuple[str, bool]:
        """The card to show, and whether the picture could be read."""
        if not picture:
            return self._nothing_yet(how.bundle), True
        try:
            return markup.answer_card(self._classify(picture, how), note), True
        except ImageError as error:
            title = f"{uploads.file_name(picture)} cannot be read as a picture"
            return markup.problem_card(title, sentence(error.reason("the picture")), "Try another picture."), False
        except UserError as error:
            text = self._classifier.without_paths(error)
            return markup.problem_card("This network cannot be used", text, "Choose another one."), True
        except Exception:
            log.exception("%s with %s failed", how.bundle, how.engine)
            advice = "Try another picture or engine; the server's log says more."
            return markup.problem_card("Something went wrong", "The network failed on this picture.", advice), True

    def _sent_items(self, files: list[dict[str, Any]]) -> tuple[list[Item], str, str]:
        """List the pictures that were sent, also those in archives; a name for all of them, and what is left out.

        Raises:
            UserError: there are none, or too many, or an archive is refused.
        """
        items: list[Item] = []
        remarks = []
        for file in files:
            if len(items) > MAX_PICTURES:
                break
            name = str(file.get("name"))[:255]
            try:
                path = uploads.upload_path(file)
            except ImageError as error:
                reason = file.get("reason") or error.reason("the picture")
                items.append(Item(name, problem=sentence(str(reason))))
                continue
            if is_archive_name(name):
                inside, remark = batch.pictures_of(path, name, self._keep)
                items += inside
                remarks += [remark] if remark else []
            else:
                items.append(Item(name, str(path)))
        if len(items) > MAX_PICTURES:
            raise UserError(f"more than {MAX_PICTURES} pictures came at once; send them in several parts")
        if not items:
            raise UserError("no files were sent")
        name = f"{len(items):,} pictures" if len(files) > 1 else str(files[0].get("name"))
        return items, name, "; ".join(remarks)

    def _answered(self, items: list[Item], name: str, how: "_How") -> Iterator[str]:
        """Put the answers into the list one by one; now and then, write how far that is."""
        told = time.monotonic()
        for index, item in enumerate(items):
            if item.path:
                items[index] = self._answer(item, how)
            if time.monotonic() - told > _TOLD_EVERY:
                yield markup.working(name, index + 1, len(items))
                told = time.monotonic()

    def _answer(self, item: Item, how: "_How") -> Item:
        try:
            answer = self._classify({"path": item.path}, how)
        except ImageError as error:
            return replace(item, answer=None, problem=sentence(error.reason("the picture")))
        except UserError:
            raise
        except Exception:
            log.exception("%s with %s failed", how.bundle, how.engine)
            return replace(item, answer=None, problem="The network failed on this picture.")
        assert answer.seen is not None
        return replace(
            item, answer=replace(answer, seen=None), thumbnail=markup.data_url(answer.seen, _THUMBNAIL), problem=""
        )

    def _nothing_yet(self, bundle: str) -> str:
        try:
            return markup.nothing_yet(self._classifier.manifest(bundle))
        except UserError:  # is told where the network is chosen
            return markup.nothing_yet()

    def _classify(self, picture: Any, how: "_How") -> Answer:
        crops = how.crops
        if how.ten and not self._classifier.manifest(how.bundle).members:
            crops = CROPS
        answer = self._classifier.classify(uploads.read_upload(picture), how.bundle, how.engine, crops)
        return answer.judged(how.below)

    def _warm(self, bundle: str, engine: str) -> None:
        try:
            self._classifier.predictor(bundle, engine)
        except UserError as error:
            log.warning("%s", error)  # the visitor is told when a picture comes


def _fraction(value: Any) -> float | None:
    """Take a probability that somebody sent; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= 1 else None
