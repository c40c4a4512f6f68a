"""The hub asked through its library, whose errors become one line for a person."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from toolkit import __version__
from toolkit.bundle import MANIFEST
from toolkit.errors import UserError, first_line
from toolkit.files import disk_reason
from toolkit.hub.address import HubAddress
from toolkit.weights.download import is_offline
from toolkit.weights.resumable import NO_CONNECTION

if TYPE_CHECKING:
    from huggingface_hub import HfApi


_REMEDY = f"{NO_CONNECTION}; HF_ENDPOINT names another hub"


class UnreachableError(UserError):
    """The hub does not answer, or fails."""


def open_hub(address: HubAddress) -> "HfApi":
    """Open the hub that ``HF_ENDPOINT`` names, huggingface.co by default; nothing is asked yet.

    Raises:
        UserError: ``TOOLKIT_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids it.
    """
    if is_offline():
        raise UserError(
            f"{address}: the hub is not asked while TOOLKIT_OFFLINE or HF_HUB_OFFLINE is set; unset it first"
        )
    import huggingface_hub

    endpoint = os.environ.get("HF_ENDPOINT") or None
    return huggingface_hub.HfApi(endpoint=endpoint, library_name="toolkit", library_version=__version__)


@contextmanager
def asking(hub: "HfApi", address: HubAddress, *, for_writing: bool = False) -> Iterator[None]:
    """Have what the hub's library raises said in one line, and its own bars and warnings left out.

    A full disk stays an ``OSError``, for whoever knows what is being written.

    Raises:
        UnreachableError: the hub does not answer, or fails.
        UserError: it refuses.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    library, bars = logging.getLogger("huggingface_hub"), not are_progress_bars_disabled()
    level = library.level
    library.setLevel(logging.ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the library has changed what it speaks HTTP with, and so what it raises, twice
        if disk_reason(error):
            raise
        raise _in_words(error, hub, address, for_writing) from error
    finally:
        library.setLevel(level)
        if bars:
            enable_progress_bars()


def find_commit(hub: "HfApi", address: HubAddress) -> str:
    """Look up the commit that an address means now, of a repository that holds a bundle.

    A single request, which is not repeated: without a network, the library would try for half a minute elsewhere.
    """
    import huggingface_hub

    url = huggingface_hub.hf_hub_url(address.repository, MANIFEST, revision=address.revision, endpoint=hub.endpoint)
    commit = hub.get_hf_file_metadata(url=url).commit_hash or ""
    if not re.fullmatch("[0-9a-f]{40}", commit):  # it becomes a folder's name
        raise UserError(f"{address}: {_shown(hub.endpoint)} does not answer as a hub does; HF_ENDPOINT names another")
    return commit


def _in_words(error: Exception, hub: "HfApi", address: HubAddress, for_writing: bool) -> UserError:
    from huggingface_hub import errors

    endpoint, status = _shown(hub.endpoint), getattr(getattr(error, "response", None), "status_code", 0)
    broken = f"{address}: the connection to {endpoint} failed"
    if isinstance(error, errors.LocalEntryNotFoundError):  # what was asked for comes from nowhere
        return UnreachableError(f"{broken} ({_shown(first_line(error.__cause__ or error))}); {_REMEDY}")
    if isinstance(error, errors.GatedRepoError):
        return UserError(f"{address}: its owner asks for consent first; give it at {endpoint}/{address.repository}")
    if isinstance(error, errors.RevisionNotFoundError):
        known = f"{endpoint}/{address.repository}/refs"
        return UserError(f"{address}: no revision {address.revision or 'main'} of it; {known} lists those there are")
    if isinstance(error, errors.EntryNotFoundError):
        return UserError(f"{address}: not a bundle; it has no {MANIFEST}, which `toolkit push` writes")
    if status in (401, 404):
        return UserError(f"{address}: {_absent(endpoint, for_writing)}")
    if status == 403:
        return UserError(f"{address}: the token in use may not {'write' if for_writing else 'read'} it (status 403)")
    if status == 429 or status >= 500:
        return UnreachableError(f"{address}: {endpoint} answers with status {status}; try again later")
    if type(error).__module__.startswith(("httpx", "httpcore")):
        return UnreachableError(f"{broken} ({_shown(first_line(error))}); {_REMEDY}")
    return UserError(f"{address}: {_shown(first_line(error))}")


def _absent(endpoint: str, for_writing: bool) -> str:
    """Word a repository that is absent, or private, of which the hub does not say which."""
    from huggingface_hub import get_token

    if get_token():
        return f"no such repository at {endpoint}, or the token in use may not {'write' if for_writing else 'see'} it"
    if for_writing:
        return f"{endpoint} lets in only who is logged in; set HF_TOKEN, or run `hf auth login`"
    return f"no such repository at {endpoint}; if it is private, set HF_TOKEN, or run `hf auth login`"


def _shown(text: str) -> str:
    """Leave out of addresses what lets one in: a password before the host, a signature behind the path.

    >>> _shown("403 for url 'https://me:secret@hub.example/user/name?Signature=secret'")
    "403 for url 'https://hub.example/user/name'"
    """
    return re.sub(r"(https?://)(?:[^/@\s]*@)?([^\s?'\"]*)(?:\?[^\s'\"]*)?", r"\1\2", text)
