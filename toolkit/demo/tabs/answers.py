"""Answers to a visitor's pictures, as cards."""

import logging
from dataclasses import dataclass
from typing import Any

import gradio as gr

from toolkit.data.pixels.decode import ImageError
from toolkit.demo import markup, uploads
from toolkit.demo.classifier import Answer, Classifier
from toolkit.demo.tabs.shared import unreadable_card
from toolkit.errors import UserError

log = logging.getLogger(__name__)

#: Ids of the places for a picture that is sent and for one that is drawn.
PICTURE, DRAW = "picture", "draw"
#: Brings the first to the front.
TO_PICTURE = gr.update(selected=PICTURE)
#: Crops of a picture when the switch is on.
CROPS = 10


@dataclass(frozen=True)
class How:
    """A visitor's choice: the network, its engine, whether several crops are averaged, and the threshold."""

    bundle: str
    engine: str
    ten: bool = False
    below: float | None = None
    crops: int = 1


class Answers:
    """Answers by the bundles of a ``Classifier``."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def show(self, picture: Any, how: How, note: str = "") -> tuple[str | None, str]:
        """Give the file to show in the picture's place, None where it cannot be read, and the card."""
        card, is_readable = self.card(picture, how, note)
        return (uploads.shown(picture) if picture and is_readable else None), card

    def card(self, picture: Any, how: How, note: str = "") -> tuple[str, bool]:
        """Write the card, and tell whether the picture could be read."""
        if not picture:
            return self.nothing_yet(how.bundle), True
        try:
            return markup.answer_card(self.classify(picture, how), note), True
        except ImageError as error:
            return unreadable_card(picture, error), False
        except UserError as error:
            text = self._classifier.without_paths(error)
            return markup.problem_card("This network cannot be used", text, "Choose another one."), True
        except Exception:
            log.exception("%s with %s failed", how.bundle, how.engine)
            advice = "Try another picture or engine; the server's log says more."
            return markup.problem_card("Something went wrong", "The network failed on this picture.", advice), True

    def nothing_yet(self, bundle: str) -> str:
        """Write the card that waits for a picture."""
        try:
            return markup.nothing_yet(self._classifier.manifest(bundle))
        except UserError:  # is told where the network is chosen
            return markup.nothing_yet()

    def classify(self, picture: Any, how: How) -> Answer:
        """Ask the network.

        Raises:
            ImageError: the picture cannot be read.
            UserError: see ``Classifier.classify``.
        """
        crops = how.crops
        if how.ten and not self._classifier.manifest(how.bundle).members:
            crops = CROPS
        answer = self._classifier.classify(uploads.read_upload(picture), how.bundle, how.engine, crops)
        return answer.judged(how.below)
