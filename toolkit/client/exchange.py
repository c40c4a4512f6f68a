"""Requests to a server and the meaning of its replies, without any transport: TensorFlow Serving's REST protocol."""

import base64
import json
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote, urlsplit

from toolkit.data import ImageError
from toolkit.errors import UserError
from toolkit.inference.images import encoded, image_source, iter_images
from toolkit.inference.predictor import NamedAnswer, Prediction, Thresholds

#: Pictures in one request at most; servers of this package take more.
BATCH_SIZE = 32
#: Bytes of pictures after which a request is sent, half of what servers of this package take once in base64.
BATCH_BYTES = 24 << 20

Result = TypeVar("Result")


class ServerError(UserError):
    """No answer: the server cannot be reached, is too busy, has no such bundle, or is of another kind.

    Attributes:
        status: of its last reply; None where there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Query:
    """A request: a ``GET``, or with a body a ``POST``."""

    url: str
    body: bytes | None = None


@dataclass(frozen=True)
class Reply:
    """A server's reply, and the version of the bundle that it is from, where the server says so."""

    status: int
    content: bytes
    version: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture's encoded bytes, or the reason why there are none, and what messages call it."""

    name: str
    content: bytes | ImageError


#: Yields queries, is sent their replies, and returns what came of it.
Exchange: TypeAlias = Generator[Query, Reply, Result]


def bundle_url(url: str, bundle: str, version: int | str | None) -> str:
    """Put the address of a served bundle together.

    >>> bundle_url("http://127.0.0.1:8501/", "digits", None), bundle_url("https://a.org/x", "digits", "stable")
    ('http://127.0.0.1:8501/v1/models/digits', 'https://a.org/x/v1/models/digits/labels/stable')

    Raises:
        UserError: no address of a server, or no name of a bundle.
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) and not parts.query
    except ValueError:  # a port that is none
        fits = False
    if not fits:
        raise UserError(f"{url}: expected a server's address, such as http://127.0.0.1:8501")
    if not bundle or not isinstance(bundle, str):
        raise UserError(f"expected a bundle's name, got {bundle!r}")
    if isinstance(version, str):
        wanted = f"/labels/{quote(version, safe='')}"
    else:
        wanted = "" if version is None else f"/versions/{version:d}"
    return f"{url.rstrip('/')}/v1/models/{quote(bundle, safe='')}{wanted}"


def read_batches(images: Any) -> Iterator[list[Picture]]:
    """Read pictures, as ``Predictor.predict`` takes them, in batches for a request each.

    Raises:
        ImageError: neither a picture nor several.
    """
    pictures, name_of = iter_images(images)
    batch: list[Picture] = []
    num_bytes = 0
    for index, image in enumerate(pictures):
        picture = _read(image, name_of(index))
        size = len(picture.content) if isinstance(picture.content, bytes) else 0
        if batch and (len(batch) == BATCH_SIZE or num_bytes + size > BATCH_BYTES):
            yield batch
            batch, num_bytes = [], 0
        batch.append(picture)
        num_bytes += size
    if batch:
        yield batch


def _read(image: Any, name: str) -> Picture:
    try:
        source = image_source(image, name)
        return Picture(source if isinstance(source, str) else name, encoded(source))
    except ImageError as error:
        return Picture(name, error)


def ask_thresholds(url: str) -> Exchange[dict[str, Thresholds]]:
    """Ask for the bounds beyond which answers mean "none of these"; other servers have none.

    Returns:
        They, by the version they are of, and as ``""`` for replies that do not say which one they are from.

    Raises:
        ServerError: no such bundle, or no such server.
    """
    reply = yield Query(f"{url}/metadata")
    if reply.status != 200:
        raise _failure(url, reply)
    document = _parse(url, reply)
    document = document if isinstance(document, dict) else {}
    found = document.get("metadata", {}).get("rejection", {})
    thresholds = Thresholds(found.get("reject_below"), found.get("novelty_above"))
    return {"": thresholds, str(document.get("model_spec", {}).get("version", "")): thresholds}


def _ask_thresholds_of(url: str, version: str, known: dict[str, Thresholds]) -> Exchange[Thresholds]:
    """Look up the bounds of the version that answered, or ask for them: shares and labels may have moved."""
    if version not in known:
        try:
            found = yield from ask_thresholds(f"{_CHOICE.sub('', url)}/versions/{quote(version, safe='')}")
        except ServerError as error:
            if error.status != 404:
                raise
            found = known  # it was removed after it answered
        known[version] = found[""]
    return known[version]


def ask_pictures(
    url: str, batch: Sequence[Picture], known: dict[str, Thresholds] | None, top_k: int
) -> Exchange[list[NamedAnswer | ImageError]]:
    """Ask for answers to pictures.

    A picture that the server refuses costs the others of its request nothing: they are sent once more without it,
    or each alone where the server does not say which one it is.

    Args:
        url: of the bundle.
        batch: the pictures.
        known: thresholds by version, those of ``ask_thresholds`` to begin with; others are asked for and added. None
            where nobody wants to know whether an answer means "none of these".
        top_k: classes named of each picture.

    Returns:
        For each picture its answer, or the error that says why there is none.

    Raises:
        ServerError: no answer to any of them.
    """
    found: dict[int, NamedAnswer | ImageError] = {}
    contents: dict[int, bytes] = {}
    for index, picture in enumerate(batch):
        if isinstance(picture.content, ImageError):
            found[index] = picture.content
        else:
            contents[index] = picture.content
    groups = [list(contents)] if contents else []
    while groups:
        group = groups.pop()
        reply = yield Query(f"{url}:predict", _body([contents[index] for index in group]))
        if reply.status == 200:
            rows = _parse_rows(url, reply, len(group))
            thresholds = Thresholds()
            if known is not None:
                thresholds = yield from _ask_thresholds_of(url, reply.version, known)
            found |= {i: _named(url, row, thresholds, top_k) for i, row in zip(group, rows, strict=True)}
            continue
        if reply.status not in (400, 413):
            raise _failure(url, reply)
        message = _message(reply)
        at_fault = _place(message, group)
        if at_fault is None and len(group) > 1:
            groups += [[index] for index in group]
            continue
        refused = group[0] if at_fault is None else at_fault
        found[refused] = ImageError(f"{batch[refused].name}: {_PLACE.sub('', message)}")
        if rest := [index for index in group if index != refused]:
            groups.append(rest)
    return [found[index] for index in range(len(batch))]


_CHOICE = re.compile(r"/(?:versions|labels)/[^/]*$")  # what bundle_url put behind the bundle's name
_PLACE = re.compile(r"^instances\[(\d+)\]: ")


def _place(message: str, group: Sequence[int]) -> int | None:
    """Find which picture of a request a server's message names."""
    found = _PLACE.match(message)
    return group[int(found[1])] if found and int(found[1]) < len(group) else None


def _body(contents: Sequence[bytes]) -> bytes:
    return b'{"instances": [%s]}' % b", ".join(b'{"b64": "%s"}' % base64.b64encode(content) for content in contents)


def _parse_rows(url: str, reply: Reply, count: int) -> list[Any]:
    document = _parse(url, reply)
    rows = document.get("predictions") if isinstance(document, dict) else None
    if not isinstance(rows, list) or len(rows) != count:
        raise ServerError(f"{url}: expected {count} predictions, got {_shown(reply.content)}", reply.status)
    return rows


def _named(url: str, row: Any, thresholds: Thresholds, top_k: int) -> NamedAnswer:
    try:
        labels, scores = row["top_labels"], row["top_scores"]
        predictions = [Prediction(str(label), float(score)) for label, score in zip(labels, scores, strict=True)]
        novelty = None if row.get("novelty") is None else float(row["novelty"])
        num_classes = len(row.get("probabilities", labels))
    except (TypeError, KeyError, ValueError, AttributeError):
        given = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise ServerError(
            f"{url}: expected top_labels and top_scores for each picture, as this package's bundles answer, got {given}"
        ) from None
    if not len(predictions) or len(predictions) < min(top_k, num_classes):
        raise ServerError(
            f"{url}: names the best {len(predictions)} of {num_classes} classes and no more; "
            f"top_k must not be larger, got {top_k}"
        )
    return NamedAnswer(predictions[:top_k], thresholds.reason(predictions[0].probability, novelty), novelty)


def _parse(url: str, reply: Reply) -> Any:
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError):
        shown = _shown(reply.content)
        raise ServerError(f"{url}: expected JSON of a model server, got {shown}", reply.status) from None


def _message(reply: Reply) -> str:
    """Find the server's own words for an error."""
    try:
        words = json.loads(reply.content)["error"]
    except (ValueError, RecursionError, KeyError, TypeError):
        words = None
    return words if isinstance(words, str) else _shown(reply.content)


def _failure(url: str, reply: Reply) -> ServerError:
    hints = {
        401: "; give its key by the client's headers",
        403: "; give its key by the client's headers",
        429: "; it has more requests than it can answer, try again later",
        503: "; try again later, or look into the server's log",
    }
    return ServerError(f"{url}: {reply.status}, {_message(reply)}{hints.get(reply.status, '')}", reply.status)


def _shown(content: bytes) -> str:
    text = content[:120].decode("utf-8", "replace").strip()
    return (repr(text) if text else "nothing") + ("…" if len(content) > 120 else "")
