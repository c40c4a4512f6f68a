"""Several pictures at once on tab Classify: files and archives, their tiles, and another threshold for all of them."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from toolkit.data.pixels.decode import ImageError
from toolkit.data.sources.archive import is_archive_name
from toolkit.demo import batch, markup, uploads
from toolkit.demo.batch import MAX_PICTURES, Item
from toolkit.demo.classifier import Classifier
from toolkit.demo.tabs import shared
from toolkit.demo.tabs.answers import TO_PICTURE, Answers, How
from toolkit.demo.tabs.shared import sentence
from toolkit.ensemble.crops import SCHEMES
from toolkit.errors import UserError

log = logging.getLogger(__name__)

_TOLD_EVERY = 0.5  # seconds between two words on how far a batch is
_THUMBNAIL = 120


class Several:
    """Handlers for several pictures, over one ``Classifier``."""

    def __init__(self, classifier: Classifier, keep: Callable[[Path], str] = uploads.keep_copy) -> None:
        """Answer by ``classifier``; ``keep`` copies a picture out of an archive to among the uploads."""
        self._classifier = classifier
        self._keep = keep
        self._answers = Answers(classifier)

    def answer(
        self, bundle: str, engine: str, event: gr.EventData, ten: bool = False, below: float | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Classify several files, and the pictures in archives among them."""
        how = How(bundle, engine, ten, below)
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
            rest = (*self._answers.show({"path": first.path, "orig_name": first.name}, how, note), TO_PICTURE)
        yield tuple(items), shown, *rest

    def again(
        self, items: Any, bundle: str, engine: str, ten: bool = False, below: float | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Classify the same pictures by another network or engine."""
        if not items:
            yield gr.skip(), gr.skip()
            return
        again = list(items)
        try:
            for working in self._answered(again, f"{len(again):,} pictures", How(bundle, engine, ten, below)):
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
        return *self._answers.show(picture, How(bundle, engine, ten, below), item.name), TO_PICTURE

    def judge(
        self, items: Any, picture: Any, bundle: str, engine: str, ten: bool, event: gr.EventData
    ) -> tuple[Any, ...]:
        """Judge the answers there are by another threshold."""
        below = _fraction(shared.sent(event).get("below"))
        how = How(bundle, engine, ten, below)
        card = self._answers.card(picture, how)[0]
        try:
            manifest = self._classifier.manifest(bundle)
        except UserError:  # is told on the card
            return below, card, gr.skip()
        own = manifest.reject_below or 0.0
        judged = [item.judged(own if below is None else below) for item in items]
        return below, card, markup.tiles(judged, manifest.labels)

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
            how = How(bundle, engine, below=_fraction(reject_below), crops=int(crops or 1))
            for _ in self._answered(items, name, how):
                pass
            labels = self._classifier.manifest(bundle).labels
            return {"answers": [item.as_document() for item in items], "csv": batch.table(items, labels)}

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

    def _answered(self, items: list[Item], name: str, how: How) -> Iterator[str]:
        """Put the answers into the list one by one; now and then, write how far that is."""
        told = time.monotonic()
        for index, item in enumerate(items):
            if item.path:
                items[index] = self._answer(item, how)
            if time.monotonic() - told > _TOLD_EVERY:
                yield markup.working(name, index + 1, len(items))
                told = time.monotonic()

    def _answer(self, item: Item, how: How) -> Item:
        try:
            answer = self._answers.classify({"path": item.path}, how)
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


def _fraction(value: Any) -> float | None:
    """Take a probability that somebody sent; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= 1 else None
