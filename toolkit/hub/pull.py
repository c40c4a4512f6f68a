"""Bundles brought here from the hub: every file compared with the manifest before the bundle appears."""

import logging
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from toolkit import machine
from toolkit.bundle import (
    EXTRA,
    GRAPH,
    MANIFEST,
    SAVED_MODEL,
    next_version,
    publish,
    read_manifest,
    require_bundle_place,
    sha256_of,
)
from toolkit.errors import UserError
from toolkit.files import new_folder, write_file
from toolkit.hub.address import HubAddress, parse_address
from toolkit.hub.asking import UnreachableError, asking, find_commit, open_hub
from toolkit.progress import track
from toolkit.weights.download import is_offline

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger("toolkit")

#: Places of a bundle's files; nothing else of a repository is brought here.
PLACES = (*SAVED_MODEL, f"{EXTRA}/")
# Operations of a TensorFlow graph that reach beyond it, those of `saved_model_cli scan` and calls of Python. A graph
# names its operations in plain bytes.
_REACHING = (b"WriteFile", b"ReadFile", b"PrintV2", b"PyFunc")


def pull_bundle(address: str, directory: str | Path) -> dict[str, str]:
    """Bring a bundle here from the hub as the next version of ``directory``, whole or not at all.

    Files are compared with the checksums in the bundle's manifest. Nothing of it is run.

    Args:
        address: ``hf://OWNER/NAME``, or ``hf://OWNER/NAME@REVISION``.
        directory: the bundle, ``saved_models/NAME``.

    Returns:
        ``{"bundle", "address", "commit"}``: the version's directory, and the commit that it came from.

    Raises:
        UserError: the hub is not to be asked, does not answer, or has no such bundle; or a file is damaged.
        WriteError: there is no room for it.
    """
    where, directory = parse_address(address), Path(directory)
    require_bundle_place(directory)
    hub = open_hub(where)
    with asking(hub, where):
        commit = find_commit(hub, where)
    with next_version(directory) as staging:
        _download(hub, where, commit, staging)
        return {"bundle": str(publish(staging, directory)), "address": str(where), "commit": commit}


def fetch_bundle(address: str) -> Path:
    """Bring a bundle here from the hub into the user's cache, or find it there, and give its directory.

    It is in ``bundles/OWNER/NAME/COMMIT`` of the cache. Where the hub is not to be asked or does not answer, what was
    fetched last of this address is taken.

    Raises:
        UserError: as ``pull_bundle``.
        WriteError: there is no room for it.
    """
    where = parse_address(address)
    root = machine.cache_dir() / "bundles" / where.repository
    note = root / f"{quote(where.revision or 'main', safe='')}.commit"
    here = _noted(root, note)
    if here is not None and is_offline():
        return here
    hub = open_hub(where)
    try:
        with asking(hub, where):
            commit = find_commit(hub, where)
        version_dir = root / commit
        if not (version_dir / MANIFEST).is_file():
            with new_folder(version_dir, shared=True) as staging:
                _download(hub, where, commit, staging)
        write_file(note, commit)
        return version_dir
    except UnreachableError as error:
        if here is None:
            raise
        log.warning("%s; taking what was fetched before, %s", error, here)
        return here


def _noted(root: Path, note: Path) -> Path | None:
    """Directory that was fetched last of an address."""
    try:
        version_dir = root / note.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return version_dir if (version_dir / MANIFEST).is_file() else None


def _download(hub: "HfApi", address: HubAddress, commit: str, folder: Path) -> None:
    """Download a bundle into a folder, comparing each file with the manifest."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    def take(name: str) -> None:
        with asking(hub, address):
            try:
                hub.hf_hub_download(address.repository, name, revision=commit, local_dir=folder)
            except RemoteEntryNotFoundError:
                raise UserError(f"{address}: lacks {name}, which its manifest names; push the bundle again") from None

    take(MANIFEST)
    try:
        files = read_manifest(folder).files
    except UserError as error:
        raise UserError(f"{address}: {MANIFEST}: {error.reason(folder / MANIFEST)}") from None
    for name in files:
        if not _is_place(name):
            raise UserError(f"{address}: its manifest names {name!r}, and a bundle has no such file; nothing is kept")
    if GRAPH not in files:
        raise UserError(f"{address}: its manifest names no {GRAPH}, which every bundle has; nothing is kept")
    for name in track(sorted(files), f"downloading {address}"):
        take(name)
        if sha256_of(folder / name) != files[name]:
            raise UserError(
                f"{address}: {name} differs from the manifest's checksum; it was damaged or exchanged there, and "
                "nothing is kept; push the bundle again"
            )
    graph = (folder / GRAPH).read_bytes()
    for operation in _REACHING:
        if operation in graph:
            raise UserError(
                f"{address}: its graph has the operation {operation.decode()}, which reaches beyond the graph and no "
                "classifier needs; nothing is kept"
            )
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's notes


def _is_place(name: str) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name or "\\" in name or not name.isprintable():
        return False
    return any(name.startswith(place) if place.endswith("/") else name == place for place in PLACES)
