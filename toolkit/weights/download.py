"""Published weights brought here: fetched once, checked each time, shared by all processes of a machine.

Files of the Hugging Face hub lie in the hub's own cache, where other programs find them too; all others in
``$TOOLKIT_CACHE/weights``, or in ``weights`` of the user's cache directory, under the host and path of their address.
A file put there by hand is as good as a downloaded one.
"""

import hashlib
import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from toolkit import machine
from toolkit.errors import UserError
from toolkit.spec import PretrainedWeights
from toolkit.weights import resumable

log = logging.getLogger(__name__)

_HUB = "hf://"
_DIGITS = {"sha256": 64, "sha1": 40, "md5": 32}


def fetch_weights(weights: PretrainedWeights, *, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Download the file of these weights if it is not here yet, and hold it against its digest.

    An interrupted download goes on where it stopped; two processes that want one file transfer it once. Nothing is
    fetched while ``TOOLKIT_OFFLINE`` or ``HF_HUB_OFFLINE`` is set to 1. Proxies are those of the environment. A bar is
    drawn while stderr is a terminal.

    Args:
        weights: a row of ``model_info(name).weights``.
        cache_dir: directory of the files, in place of the one in the user's cache.

    Returns:
        The file's path.

    Raises:
        UserError: it cannot be had, or is not what it should be; the message says where to put it by hand.
    """
    place = cached_path(weights, cache_dir)
    if place.is_file():
        try:
            verify_file(place, digest_of(weights, place))
        except UserError as error:
            raise UserError(f"{error}; remove it to download it again") from error
        return place
    if is_offline():
        raise _failure(weights, place, "TOOLKIT_OFFLINE or HF_HUB_OFFLINE is set")
    if weights.url.startswith(_HUB):
        return _fetch_from_hub(weights, place)
    try:
        _fetch(weights, place)
    except resumable.DownloadError as error:
        raise _failure(weights, place, str(error)) from error
    except OSError as error:
        reason = f"cannot write {error.filename or place}: {error.strerror or error}"
        raise _failure(weights, place, f"{reason}; TOOLKIT_CACHE names another directory") from error
    return place


def cached_path(weights: PretrainedWeights, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The place of the file, or where it belongs when it is put there by hand.

    >>> from toolkit import model_info
    >>> cached_path(model_info("resnet50").weights["imagenet-tv2"], "cache").as_posix()
    'cache/download.pytorch.org/models/resnet50-11ad3fa6.pth'
    """
    host, path, query = _address(weights.url)
    *folders, name = [unquote(part) for part in path.split("/") if part]
    # A query may tell files of one name apart, but is no part of the name, whose suffix says the format.
    parts = [host, *folders, *([query] if query else []), name]
    root = machine.cache_dir() / "weights" if cache_dir is None else Path(cache_dir)
    place = root.joinpath(*(re.sub(r"[^\w.=+~-]|^\.+$", "_", part) for part in parts))
    if place.is_file() or not weights.url.startswith(_HUB):
        return place
    return _cached_by_hub(weights.url) or place


def verify_file(path: str | os.PathLike[str], digest: str) -> None:
    """Compare a file with its digest; nothing is compared where ``digest`` is empty.

    Args:
        path: the file.
        digest: ``"sha256:…"``, ``"sha1:…"`` or ``"md5:…"``, a sha256 perhaps with its first digits only.

    Raises:
        UserError: the file is another one, damaged, or not there.
    """
    if not digest:
        return
    algorithm, _, expected = digest.partition(":")
    if len(expected) not in {8, _DIGITS.get(algorithm, 0)} or (len(expected) == 8 and algorithm != "sha256"):
        raise ValueError(f"a digest is a sha256, its first eight digits, a sha1 or an md5, got {digest!r}")
    found = hash_file(path, algorithm)
    if not found.startswith(digest):
        own = found.removeprefix(f"{algorithm}:")
        raise UserError(f"{path} is damaged or another file: its {algorithm} is {own}, not {_in_words(expected)}")


def hash_file(path: str | os.PathLike[str], algorithm: str) -> str:
    """Compute a file's digest, ``"sha256:…"`` where that is the algorithm.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            # Not for security where a source prints nothing better, and so allowed under FIPS rules.
            found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return f"{algorithm}:{found.hexdigest()}"


def digest_of(weights: PretrainedWeights, path: Path) -> str:
    """The published digest, or what the hub said of the file: its cache links to contents by their sha256."""
    if weights.digest or not weights.url.startswith(_HUB) or not path.is_symlink():
        return weights.digest
    name = Path(os.readlink(path)).name
    return f"sha256:{name}" if re.fullmatch(r"[0-9a-f]{64}", name) else ""


def _fetch(weights: PretrainedWeights, place: Path) -> None:
    from filelock import FileLock, Timeout

    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{place}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.info("waiting for another process that downloads %s", weights.url)
        lock.acquire()
    try:
        if place.is_file():
            return verify_file(place, weights.digest)
        part = place.with_name(place.name + ".part")
        resumable.download(weights.url, part)
        try:
            verify_file(part, weights.digest)
        except UserError as error:
            resumable.forget(part)
            raise _failure(weights, place, str(error)) from error
        os.replace(part, place)
        resumable.forget(part)
    finally:
        lock.release()


# --- The Hugging Face hub


def _fetch_from_hub(weights: PretrainedWeights, place: Path) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    repository, file = _hub_file(weights.url)
    try:
        # Without a network the library tries for half a minute, with lines of warnings; it need not start.
        with suppress(errors.HfHubHTTPError):
            huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, file))
        path = Path(huggingface_hub.hf_hub_download(repository, file))
    except Exception as error:  # the library has changed what it speaks HTTP with, and so what it raises, twice
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        answered = getattr(error, "response", None) is not None
        raise _failure(weights, place, reason if answered else f"{reason}; {resumable.NO_CONNECTION}") from error
    try:
        # The hub's library compares sizes only.
        verify_file(path, digest_of(weights, path))
    except UserError as error:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise _failure(weights, place, str(error)) from error
    return path


def _cached_by_hub(url: str) -> Path | None:
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(*_hub_file(url))
    return Path(found) if isinstance(found, str) else None


def _hub_file(url: str) -> tuple[str, str]:
    owner, name, file = url.removeprefix(_HUB).split("/", 2)
    return f"{owner}/{name}", file


# --- Places and words


def _address(url: str) -> tuple[str, str, str]:
    """Host, path and query."""
    if url.startswith(_HUB):
        return "huggingface.co", url.removeprefix(_HUB), ""
    split = urlsplit(url)
    return split.netloc, split.path, split.query


def is_offline() -> bool:
    """Tell if ``TOOLKIT_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids to ask the network."""
    values = (os.environ.get(name, "") for name in ("TOOLKIT_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.strip().lower() not in ("", "0", "false", "no", "off") for value in values)


def _failure(weights: PretrainedWeights, place: Path, reason: str) -> UserError:
    url = weights.url
    if url.startswith(_HUB):
        import huggingface_hub

        url = huggingface_hub.hf_hub_url(*_hub_file(url))
    algorithm, _, digits = weights.digest.partition(":")
    expected = f" with the {algorithm} {_in_words(digits)}" if digits else ""
    own = "--model resnet18 --weights resnet18-thin"
    by_hand = f"the file{expected} may be put at {place} by hand"
    return UserError(f"cannot download {url}: {reason}; {by_hand}; {own} takes a network that comes with the project")


def _in_words(digits: str) -> str:
    return f"{digits}…" if len(digits) == 8 else digits
