"""The page's looks, its limits, the wiring of handlers, and the words that several tabs have for the same."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context
from gradio.themes import Base, Default
from gradio.themes.utils.fonts import LocalFont

from toolkit.data.pixels.decode import ImageError
from toolkit.demo import markup, uploads
from toolkit.demo.classifier import Classifier
from toolkit.errors import UserError

log = logging.getLogger(__name__)

_ASSETS = Path(__file__).parents[1] / "assets"

#: The page's style sheets: ``style.css`` for all, and one of its own for a tab that needs it.
STYLES = sorted(_ASSETS.glob("*.css"), key=lambda path: (path.name != "style.css", path.name))

#: Predictions under way at once; an engine answers one at a time, but the next picture can be decoded meanwhile.
CONCURRENCY = 2
#: Visitors that may wait; the next is told that the server is busy.
QUEUE_SIZE = 64
#: Every ten minutes, uploads older than an hour are deleted.
DELETE_CACHE = (600, 3600)

# Options of events. Handlers take what the browser sends, unprocessed: the picture's own bytes reach our decoder, and a
# bundle published after the page was built is not refused as an unknown choice. Each handler checks what it is given.
#: Of an event that is the page's own business, and no endpoint.
PRIVATE: dict[str, Any] = {"preprocess": False, "api_visibility": "private"}
#: The same, of one that is answered in milliseconds, without waiting in the queue.
AT_ONCE: dict[str, Any] = PRIVATE | {"queue": False, "show_progress": "hidden"}
#: Of an event that runs a network: all of these share the places.
LIMITS: dict[str, Any] = {"concurrency_limit": CONCURRENCY, "concurrency_id": "predict"}

# Pictures of a few pixels are shown as they are, not blurred. The answer is read out when it changes.
ON_LOAD_JS = """() => {
  document.addEventListener("load", (event) => {
    const image = event.target;
    if (image instanceof HTMLImageElement)
      image.style.imageRendering = Math.max(image.naturalWidth, image.naturalHeight) < 96 ? "pixelated" : "auto";
  }, true);
  document.querySelector("#answer")?.setAttribute("aria-live", "polite");
}"""

#: Has a changed answer read out.
READ_OUT_JS = 'element.setAttribute("aria-live", "polite");'

#: Said in the place of an answer to an example that is no longer there.
EXAMPLE_GONE = markup.problem_card("This example is gone", "Its bundle has changed.", "Reload the page.")

#: Tells which of the bundle's own pictures was clicked.
EXAMPLES_JS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-index]");
  if (button) trigger("click", {index: Number(button.dataset.index)});
});"""


def theme() -> Base:
    """Make Gradio's default theme calmer, with a font that comes with Gradio: nothing is loaded from elsewhere."""
    # 600 is Gradio's usual second weight, but the file it brings for it lacks the Latin letters (Gradio 6.31).
    font = LocalFont("Source Sans Pro", weights=(400, 700))
    colours = {"primary_hue": "indigo", "secondary_hue": "indigo", "neutral_hue": "slate"}
    calm = Default(**colours, radius_size="lg", font=[font, "system-ui", "sans-serif"])
    # The default's faint grey falls short of the contrast that small text needs.
    return calm.set(body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400")


def script(name: str) -> str:
    """Read a script of the page, by its name in ``assets``."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def picture_place(elem_id: str, height: int = 360) -> gr.Image:
    """Lay out the place for a visitor's picture: dropped, chosen, pasted or from the camera."""
    return gr.Image(
        show_label=False,
        type="filepath",
        format="png",
        sources=["upload", "webcam", "clipboard"],
        buttons=["fullscreen"],
        height=height,
        elem_id=elem_id,
        elem_classes="tk-picture",
    )


def page() -> gr.Blocks:
    """Find the page that a tab is being built into; its ``load`` is told of each visitor."""
    assert Context.root_block is not None
    return Context.root_block


def sent(event: gr.EventData) -> dict[str, Any]:
    """Take the data that a script of the page sent with an event, or whoever pretends to be it."""
    return event._data if isinstance(event._data, dict) else {}


def sent_file(event: gr.EventData) -> dict[str, Any]:
    """Take the file that the script ``files.js`` sent, as Gradio gives the value of a picture's place."""
    told = sent(event)
    return {"path": told.get("path"), "orig_name": str(told.get("name"))}


def take_over(picture: Any, classified: Any) -> Any:
    """Start with the picture that was classified, where there is none yet."""
    return gr.skip() if picture or not classified else uploads.shown(classified)


def clicked_example(classifier: Classifier, bundle: str, event: gr.EventData) -> dict[str, Any] | None:
    """Copy the bundle's own picture that was clicked to among the uploads; None where it is gone."""
    try:
        return {"path": uploads.keep_copy(classifier.examples(bundle)[int(event.index)].path)}
    except (UserError, OSError, IndexError, ValueError, TypeError, AttributeError):
        return None


def not_sent_card(event: gr.EventData) -> str:
    """Say why files were not even sent."""
    told = sent(event)
    count = told.get("count")
    title = f"{count:,} files were not sent" if isinstance(count, int) else f"{told.get('name')} was not sent"
    return markup.problem_card(title, str(told.get("reason")), "Try another picture.")


def unreadable_card(picture: Any, error: ImageError) -> str:
    """Say why a picture cannot be read."""
    title = f"{uploads.file_name(picture)} cannot be read as a picture"
    return markup.problem_card(title, sentence(error.reason("the picture")), "Try another picture.")


@contextmanager
def told_to_programs(classifier: Classifier, picture: Any = None) -> Iterator[None]:
    """Word what goes wrong in an endpoint as its caller may read it; the unforeseen goes to the server's log alone."""
    try:
        yield
    except ImageError as error:
        reason = f"{uploads.file_name(picture)}: {error.reason('the picture')}"
        raise gr.Error(reason, print_exception=False) from None
    except UserError as error:
        raise gr.Error(classifier.without_paths(error), print_exception=False) from None
    except Exception:
        log.exception("an endpoint failed")
        raise gr.Error("the network failed on this picture", print_exception=False) from None


def sentence(text: str) -> str:
    """Write an error's reason as a sentence.

    >>> sentence("damaged or truncated picture")
    'Damaged or truncated picture.'
    """
    return f"{text[:1].upper()}{text[1:]}."
