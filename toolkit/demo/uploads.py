"""Visitors' files: read as they were sent, and shown as the network's decoder reads them."""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder
from gradio_client.utils import is_http_url_like
from PIL import Image

from toolkit.data.pixels.decode import ImageError, image_errors, open_image, read_file, read_rgb

#: What is offered in the dialog for choosing a file, beside what the browser itself takes for a picture.
SUFFIXES = (".tif", ".tiff", ".heic", ".heif", ".avif")

# Browsers show these as the decoder reads them; the rest not at all, or all of an animation, or 16 bits otherwise.
_SHOWN_ALIKE = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP")
_PREVIEW = ".preview.webp"
#: Beginning of the names of folders from which a page fetches what was taught.
DOWNLOADS = "taught-"
_LONGEST = 1600  # side of a preview, in pixels

#: Bytes that a picture may have; an archive of pictures has more room, see ``toolkit.demo.server``.
MAX_PICTURE = 20_000_000
_GONE = "no longer on the server, which keeps uploads for an hour at most; send it again"

# When a page asked for an upload last, by the upload's path and the page's session, for as long as the page is open:
# none is left of an upload whose pages are closed. The folder of uploads is the process's, too.
_ASKED: dict[Path, dict[str, float]] = {}
_FRESH = 60.0  # seconds that an upload is kept before any page has asked for it
_STALE = 600.0  # seconds after which a page that is still open has to send it again, if room is needed


def read_upload(picture: Any) -> bytes:
    """Read a picture's file as it was sent, also where a preview of it is shown.

    Raises:
        ImageError: nothing was sent, it is no longer there or too large, or the path leads elsewhere than to an upload.
    """
    path = upload_path(picture)
    try:
        if (size := path.stat().st_size) > MAX_PICTURE:
            raise ImageError(
                f"the picture: {size / 1e6:.1f} MB, and at most {MAX_PICTURE / 1e6:.0f} MB are taken of one"
            )
        return path.read_bytes()
    except OSError:
        raise ImageError(f"the picture: {_GONE}") from None


def shown(picture: dict[str, Any]) -> str | None:
    """Name the file to show in the browser for an upload: itself, or a preview of what the decoder reads.

    None where it is no upload or cannot be read.
    """
    try:
        data, path = read_upload(picture), str(picture["path"])
        with image_errors("the picture"), open_image(data) as image:
            is_alike = image.format in _SHOWN_ALIKE and not image.mode.startswith("I")
            is_still = getattr(image, "n_frames", 1) == 1 or image.format == "MPO"
        if path.endswith(_PREVIEW) or (is_alike and is_still):
            return path
        preview = Image.fromarray(read_rgb(data))
    except ImageError:
        return None
    preview.thumbnail((_LONGEST, _LONGEST))
    preview.save(path + _PREVIEW, quality=90, lossless=max(preview.size) < 100)
    return path + _PREVIEW


def keep_copy(path: Path) -> str:
    """Copy a file among the uploads, so that the browser can be given it without opening the bundles' folder."""
    read_file(path)
    return save_file_to_cache(path, cache_dir=get_upload_folder())


def file_name(picture: Any) -> str:
    """Name a picture for its visitor."""
    if not isinstance(picture, dict):
        return "the picture"
    return str(picture.get("orig_name") or Path(str(picture.get("path") or "the picture")).name)


def upload_path(picture: Any) -> Path:
    """Find the file of an upload.

    Raises:
        ImageError: nothing was sent, it is no longer there, or the path leads elsewhere than to an upload.
    """
    path = picture.get("path") if isinstance(picture, dict) else None
    if not isinstance(path, str) or not path:
        raise ImageError("the picture: no file was given")
    path = path.removesuffix(_PREVIEW)
    try:
        # Checked here too, since Gradio 6.31 lets any path pass if the payload has no "meta".
        is_upload = Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve())
        is_there = is_upload and Path(path).is_file()
    except (OSError, ValueError):
        is_upload, is_there = True, False
    if not is_upload:
        raise ImageError("the picture: not an upload; send the file itself")
    if not is_there:
        raise ImageError(f"the picture: {_GONE}")
    _claim(Path(path))
    return Path(path)


def _claim(path: Path) -> None:
    request = LocalContext.request.get(None)
    session = getattr(request, "session_hash", None)
    if session:
        _ASKED.setdefault(path, {})[str(session)] = time.monotonic()


def release(session: str) -> None:
    """Forget which uploads a page asked for: it was closed."""
    for path, sessions in list(_ASKED.items()):
        sessions.pop(session, None)
        if not path.exists():
            _ASKED.pop(path, None)


def dispensable() -> list[Path]:
    """List uploads that may be removed where room is needed, in that order.

    First those of closed pages, and those that no page has asked for in a minute; then those that pages, though they
    are open, have not asked for of late. The oldest of each go first.
    """
    found: list[tuple[bool, float, Path]] = []
    for path in Path(get_upload_folder()).glob("*/*"):  # as Gradio lays them down
        if path.parent.name.startswith(DOWNLOADS):
            continue
        sessions = _ASKED.get(path.with_name(path.name.removesuffix(_PREVIEW)))
        with suppress(OSError):
            arrived = path.lstat().st_mtime
            if sessions is None:
                is_idle = time.time() - arrived > _FRESH
            else:
                is_idle = all(time.monotonic() - asked > _STALE for asked in list(sessions.values()))
            if is_idle and path.is_file():
                found.append((bool(sessions), arrived, path))
    return [path for *_, path in sorted(found)]


def refuse_addresses(page: gr.Blocks) -> None:
    """Refuse files sent as web addresses: this server would fetch them, of any size and from anywhere.

    Args:
        page: it is changed itself, all of its components: Gradio looks for files in what is sent for any of them, text
            too. (For a subclass of a component, Gradio writes a ``.pyi`` file beside this module.)
    """
    block: Any  # whose methods are replaced
    for block in page.blocks.values():
        block.async_move_resource_to_block_cache = _refusing(block.async_move_resource_to_block_cache)
        if block.get_block_name() in ("image", "file"):
            # Gradio's own example in the interface's documentation is a web address.
            example = {"path": "picture.png", "url": "picture.png", "meta": {"_type": "gradio.FileData"}}
            is_several = getattr(block, "file_count", "single") == "multiple"
            block.example_payload = partial(list, [example]) if is_several else example.copy


def _refusing(keep: Callable[[str | Path | None], Awaitable[str | None]]) -> Any:
    async def move(url_or_file_path: str | Path | None) -> str | None:
        if url_or_file_path is not None and is_http_url_like(str(url_or_file_path)):
            raise gr.Error("send the picture's bytes, not its web address", print_exception=False)
        return await keep(url_or_file_path)

    return move
