"""Bundles brought to the hub, with a model card and their network's weights beside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.bundle import (
    MANIFEST,
    Manifest,
    find_bundle,
    read_manifest,
    read_pictures,
    require_network,
    verify_files,
)
from toolkit.errors import UserError
from toolkit.files import scratch_folder
from toolkit.hub.address import HubAddress, parse_address
from toolkit.hub.asking import asking, find_commit, open_hub
from toolkit.hub.card import CardFacts, model_card
from toolkit.hub.pull import PLACES
from toolkit.progress import step

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD, WEIGHTS, ONNX = "README.md", "model.safetensors", "model.onnx"
_WEIGHTS_WORDS = "weights of the network alone, named `layer/variable`, for other frameworks"


@dataclass(frozen=True)
class PushOptions:
    """Options of ``push_bundle``.

    Attributes:
        private: whether a repository that is made for it is for its owner alone.
        licence: of the weights, such as ``"Apache-2.0"``; by default as the manifest tells.
        others: writes further files to put beside the bundle into a folder, and gives them by their names there, with
            what they are for the card; called once the bundle and the address are found good.
    """

    private: bool = False
    licence: str | None = None
    others: Callable[[Path], Mapping[str, tuple[Path, str]]] | None = None


def push_bundle(bundle: str | Path, address: str, options: PushOptions | None = None) -> dict[str, Any]:
    """Bring a bundle to the hub in one commit, and tag it with its version.

    The repository is made where there is none. Of the bundle go the files that its manifest names, compared with their
    checksums, and the manifest; beside them a model card and the weights as safetensors.

    Args:
        bundle: ``NAME/VERSION``, or ``NAME`` for its highest version.
        address: ``hf://OWNER/NAME``, or ``hf://OWNER/NAME@TAG`` for another tag than ``vVERSION``.
        options: see there.

    Returns:
        ``{"bundle", "address", "url", "commit", "files"}``: the address to pull it by, a page to look at, and the
        names of files that are there now.

    Raises:
        UserError: no such bundle, a file of it is damaged, the hub is not to be asked, does not answer or refuses; or
            it has this tag.
    """
    options, version_dir = options or PushOptions(), find_bundle(bundle, shipped=True)
    manifest = read_manifest(version_dir)
    where = _tagged(parse_address(address), version_dir)
    hub = open_hub(where)
    with asking(hub, where, for_writing=True):
        _require_free(hub, where)
    with step("comparing files with their checksums"):
        verify_files(version_dir, manifest)
    files = {name: version_dir / name for name in (*manifest.files, MANIFEST)}
    with scratch_folder() as scratch:
        others = options.others(scratch) if options.others else {}
        words = {name: what for name, (_, what) in others.items()}
        if not manifest.members:
            files[WEIGHTS] = _write_weights(version_dir, manifest, scratch)
            words = {WEIGHTS: _WEIGHTS_WORDS, **words}
        files |= {name: path for name, (path, _) in others.items()}
        licence = manifest.licence if options.licence is None else options.licence
        files[CARD] = scratch / CARD
        facts = CardFacts(_num_pictures(version_dir, manifest), licence, words)
        files[CARD].write_text(model_card(manifest, where, facts), encoding="utf-8")
        with asking(hub, where, for_writing=True), step(f"pushing to {where}"):
            url = hub.create_repo(where.repository, private=options.private or None, exist_ok=True)
            commit = _commit(hub, where, version_dir, files)
            hub.create_tag(where.repository, tag=str(where.revision), revision=commit)
    return {
        "bundle": str(version_dir),
        "address": str(where),
        "url": str(url),
        "commit": commit,
        "files": sorted(files),
    }


def _tagged(address: HubAddress, version_dir: Path) -> HubAddress:
    """Name the tag by the version where nothing else is said."""
    if address.revision:
        return address
    version = version_dir.resolve().name
    if not version.isdecimal():
        raise UserError(f"{version_dir}: not a numbered version of a bundle; name the tag, such as {address}@v1")
    return HubAddress(address.repository, f"v{version}")


def _require_free(hub: "HfApi", address: HubAddress) -> None:
    """Refuse a tag that is taken: whoever pulled it has pulled something else."""
    from huggingface_hub import errors

    try:
        find_commit(hub, address)
    except errors.HfHubHTTPError as error:
        has_tag = isinstance(error, errors.EntryNotFoundError)
        if not has_tag and error.response.status_code not in (401, 404):
            raise
        if not has_tag:  # whether it may be made shows when it is
            return
    raise UserError(f"{address}: is there already; name another tag, such as hf://{address.repository}@TAG")


def _write_weights(version_dir: Path, manifest: Manifest, folder: Path) -> Path:
    from toolkit.factory import save_weights
    from toolkit.network import load_network

    with step("writing the weights"):
        model = load_network(require_network(version_dir, manifest))
        model.preprocessing = manifest.preprocessing
        return save_weights(model, folder / WEIGHTS)


def _num_pictures(version_dir: Path, manifest: Manifest) -> dict[str, int]:
    known = read_pictures(version_dir, manifest)
    return {} if known is None else {subset: len(digests) for subset, digests in known.items()}


def _commit(hub: "HfApi", address: HubAddress, version_dir: Path, files: Mapping[str, Path]) -> str:
    """Put the files there in one commit, in place of those of the version before."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = {file.rfilename for file in hub.model_info(address.repository).siblings or ()}
    old = sorted(name for name in there - set(files) if name.startswith(PLACES) or name in (WEIGHTS, ONNX))
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in sorted(files.items())),
        *(CommitOperationDelete(path_in_repo=name) for name in old),
    ]
    message = f"{version_dir.parent.name}, version {version_dir.name}"
    return hub.create_commit(address.repository, operations, commit_message=message).oid
