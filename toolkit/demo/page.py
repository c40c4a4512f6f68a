"""The page itself: its components and their handlers."""

import logging
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.themes import Base, Default
from gradio.themes.utils.fonts import LocalFont
from gradio.utils import get_upload_folder
from gradio_client.utils import is_http_url_like

from toolkit.data.pixels.decode import ImageError
from toolkit.demo import markup
from toolkit.demo.classifier import Answer, Classifier
from toolkit.errors import UserError

log = logging.getLogger(__name__)

STYLE = Path(__file__).with_name("style.css")

#: Predictions under way at once; an engine answers one at a time, but the next picture can be decoded meanwhile.
CONCURRENCY = 2
#: Visitors that may wait; the next is told that the server is busy.
QUEUE_SIZE = 32
#: Every ten minutes, uploads older than an hour are deleted.
DELETE_CACHE = (600, 3600)

# Pictures of a few pixels are shown as they are, not blurred. The answer is read out when it changes.
ON_LOAD_JS = """() => {
  document.addEventListener("load", (event) => {
    const image = event.target;
    if (image instanceof HTMLImageElement)
      image.style.imageRendering = Math.max(image.naturalWidth, image.naturalHeight) < 96 ? "pixelated" : "auto";
  }, true);
  document.querySelector("#answer")?.setAttribute("aria-live", "polite");
}"""

_EXAMPLES_JS = """element.addEventListener("click", (event) => {
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


def build_page(classifier: Classifier) -> gr.Blocks:
    """Lay the page out and wire it up."""
    bundles = classifier.bundles()
    engines = ["auto", *classifier.engines(bundles[0])]
    page = _Page(classifier)
    with gr.Blocks(title="toolkit demo", analytics_enabled=False, delete_cache=DELETE_CACHE) as demo:
        gr.HTML(markup.HEADER)
        with gr.Row(elem_id="main", equal_height=False):
            with gr.Column(min_width=300):
                picture = gr.Image(
                    label="Picture",
                    type="filepath",
                    format="png",
                    sources=["upload", "webcam", "clipboard"],
                    buttons=["fullscreen"],
                    height=360,
                    elem_id="picture",
                )
                examples = gr.HTML(js_on_load=_EXAMPLES_JS, elem_id="examples")
            with gr.Column(min_width=300):
                answer = gr.HTML(markup.NOTHING_YET, elem_id="answer")
                with gr.Row(elem_id="controls"):
                    bundle = gr.Dropdown(bundles, value=bundles[0], label="Network", elem_id="bundle", min_width=150)
                    engine = gr.Dropdown(engines, value="auto", label="Engine", elem_id="engine", min_width=150)
                about = gr.HTML(elem_id="about")
        api_button, api_answer = gr.Button(visible=False), gr.JSON(visible=False, label="answer")

        # Handlers take what the browser sends, unprocessed: the picture's own bytes reach our decoder, and a bundle
        # published after this page was built is not refused as an unknown choice. Each checks what it is given.
        private: dict[str, Any] = {"preprocess": False, "api_visibility": "private"}
        at_once = private | {"queue": False, "show_progress": "hidden"}
        limits: dict[str, Any] = {"concurrency_limit": CONCURRENCY, "concurrency_id": "predict"}
        predicting = private | limits | {"show_progress": "minimal", "show_progress_on": answer}
        predicting["trigger_mode"] = "always_last"  # a second picture while the first is under way is not lost
        choice, question = [bundle, engine, examples, about], [picture, bundle, engine]
        demo.load(page.open, None, choice, **at_once)
        chosen = bundle.input(page.choose_bundle, bundle, choice, **at_once)
        chosen.then(page.look_again, question, answer, **predicting)
        chosen = engine.input(page.choose_engine, [bundle, engine], about, **at_once)
        chosen.then(page.look_again, question, answer, **predicting)
        picture.input(page.look, question, [picture, answer], **predicting)
        picture.clear(lambda: markup.NOTHING_YET, None, answer, **at_once)
        examples.click(page.show_example, [bundle, engine], [picture, answer], **predicting)
        api_button.click(page.predict, question, api_answer, preprocess=False, api_name="predict", **limits)
    _refuse_addresses(picture)
    demo.queue(max_size=QUEUE_SIZE, default_concurrency_limit=CONCURRENCY)
    return demo


class _Page:
    """The page's handlers, over one ``Classifier``."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def open(self) -> tuple[Any, ...]:
        bundles = self._classifier.bundles()
        return (gr.Dropdown(choices=bundles, value=bundles[0]), *self.choose_bundle(bundles[0])[1:])

    def choose_bundle(self, bundle: str) -> tuple[Any, ...]:
        classifier = self._classifier
        try:
            engine = classifier.preferred_engine(bundle)
            names = [(f"auto ({classifier.resolve_engine(bundle, 'auto')})", "auto")]
            names += [(name, name) for name in classifier.engines(bundle)]
            examples = markup.examples_strip(classifier.examples(bundle))
        except UserError as error:
            return gr.skip(), gr.skip(), "", markup.problem_card("Cannot open it", classifier.without_paths(error))
        threading.Thread(target=self._warm, args=(bundle, engine), daemon=True).start()
        return gr.skip(), gr.Dropdown(choices=names, value=engine), examples, self.choose_engine(bundle, engine)

    def choose_engine(self, bundle: str, engine: str) -> str:
        try:
            resolved = self._classifier.resolve_engine(bundle, engine)
            return markup.about(self._classifier.manifest(bundle), resolved)
        except UserError as error:
            return markup.problem_card("Cannot open it", self._classifier.without_paths(error))

    def look(self, picture: dict[str, Any] | None, bundle: str, engine: str) -> tuple[Any, str]:
        """Classify what was just dropped; an unreadable file makes room for the next one."""
        card, readable = self._card(picture, bundle, engine)
        return (gr.skip() if readable else None), card

    def look_again(self, picture: dict[str, Any] | None, bundle: str, engine: str) -> str:
        return self._card(picture, bundle, engine)[0]

    def show_example(self, bundle: str, engine: str, event: gr.EventData) -> tuple[Any, Any]:
        try:
            path = self._classifier.examples(bundle)[int(event.index)]
        except (UserError, IndexError, ValueError, TypeError, AttributeError):
            return gr.skip(), markup.problem_card("This example is gone", "Its bundle has changed.", "Reload the page.")
        # Copied, so that the browser can be given it without opening the bundles' folder.
        copy = save_file_to_cache(path, cache_dir=get_upload_folder())
        return copy, self._card({"path": copy}, bundle, engine)[0]

    def predict(self, picture: dict[str, Any] | None, bundle: str, engine: str) -> dict[str, Any]:
        """Classify a picture (JPEG, PNG, BMP, GIF, WebP; the original file's bytes are used).

        Args:
            picture: the file to classify.
            bundle: which network, NAME/VERSION, or NAME for its newest version.
            engine: auto, or an engine this bundle can be run by.

        Returns:
            {"bundle", "engine", "milliseconds", "predictions": [{"label", "probability"}, ...], "rejected"}: best
            first, and whether even the best is too improbable.
        """
        try:
            return asdict(self._classify(picture, bundle, engine))
        except ImageError as error:
            raise gr.Error(f"{_file_name(picture)}: {_reason(error)}", print_exception=False) from None
        except UserError as error:
            raise gr.Error(self._classifier.without_paths(error), print_exception=False) from None
        except Exception:
            log.exception("%s with %s failed", bundle, engine)
            raise gr.Error("the network failed on this picture", print_exception=False) from None

    def _card(self, picture: dict[str, Any] | None, bundle: str, engine: str) -> tuple[str, bool]:
        """The card to show, and whether the picture could be read."""
        if not picture:
            return markup.NOTHING_YET, True
        try:
            return markup.answer_card(self._classify(picture, bundle, engine)), True
        except ImageError as error:
            title = f"{_file_name(picture)} cannot be read as a picture"
            return markup.problem_card(title, _sentence(_reason(error)), "Try another picture."), False
        except UserError as error:
            text = self._classifier.without_paths(error)
            return markup.problem_card("This network cannot be used", text, "Choose another one."), True
        except Exception:
            log.exception("%s with %s failed", bundle, engine)
            advice = "Try another picture or engine; the server's log says more."
            return markup.problem_card("Something went wrong", "The network failed on this picture.", advice), True

    def _classify(self, picture: dict[str, Any] | None, bundle: str, engine: str) -> Answer:
        return self._classifier.classify(_uploaded_bytes(picture), bundle, engine)

    def _warm(self, bundle: str, engine: str) -> None:
        try:
            self._classifier.predictor(bundle, engine)
        except UserError as error:
            log.warning("%s", error)  # the visitor is told when a picture comes


def _refuse_addresses(picture: Any) -> None:
    """Refuse files sent as web addresses: this server would fetch them, of any size and from anywhere.

    Set on the instance: for a subclass of a component, Gradio writes a ``.pyi`` file beside this module.
    """
    keep = picture.async_move_resource_to_block_cache

    async def move(url_or_file_path: str | Path | None) -> str | None:
        if url_or_file_path is not None and is_http_url_like(str(url_or_file_path)):
            raise gr.Error("send the picture's bytes, not its web address", print_exception=False)
        return await keep(url_or_file_path)

    picture.async_move_resource_to_block_cache = move
    # Gradio's own example in the interface's documentation is a web address.
    example = {"path": "picture.png", "url": "picture.png", "meta": {"_type": "gradio.FileData"}}
    picture.example_payload = lambda: example


def _uploaded_bytes(picture: Any) -> bytes:
    """Read the picture's file as it was sent.

    Raises:
        ImageError: nothing was sent, it is no longer there, or the path leads elsewhere than to an upload.
    """
    path = picture.get("path") if isinstance(picture, dict) else None
    if not isinstance(path, str) or not path:
        raise ImageError("the picture: no file was given")
    # Checked here too, since Gradio 6.31 lets any path pass if the payload has no "meta".
    if not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise ImageError("the picture: not an upload; send the file itself")
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError):
        raise ImageError("the picture: no longer on the server, which keeps uploads for an hour") from None


def _file_name(picture: Any) -> str:
    if not isinstance(picture, dict):
        return "the picture"
    return str(picture.get("orig_name") or Path(str(picture.get("path") or "the picture")).name)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _reason(error: ImageError) -> str:
    return str(error).removeprefix("the picture: ")
