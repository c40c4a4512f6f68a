"""Versions of a bundle side by side: found, listed, written beside their place and published in one step."""

import functools
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.bundle.manifest import GRAPH, MANIFEST
from toolkit.errors import UserError, WriteError
from toolkit.files import remove_abandoned, require_writable, staging_path, writing
from toolkit.spec import is_network_name

log = logging.getLogger("toolkit")

_STAGING = ".staging-"
# What is often given for a bundle: the folder of a training run, by its files.
_RUN = ("config.json", "model.json", "model.keras")
#: Names of the bundles that come with the project.
SHIPPED = ("lenet5-mnist", "resnet18-thin", "resnet20-cifar10")


def shipped_bundle(name: str | os.PathLike[str]) -> Path | None:
    """Find a bundle that comes with the project, in a checkout or where it is installed; None for any other name."""
    if os.fspath(name) not in SHIPPED:
        return None
    package = Path(__file__).parents[1]
    found = [root / "saved_models" / name for root in (package, package.parent)]
    return next((directory for directory in found if complete_versions(directory)), None)


def is_bundle(path: Path) -> bool:
    """Tell a bundle's folder, or one of its versions, from other places."""
    return path.is_dir() and ((path / MANIFEST).is_file() or bool(complete_versions(path)))


def find_bundle(path: str | os.PathLike[str], *, shipped: bool = False) -> Path:
    """Find the version directory that ``path`` means: itself, or the highest complete version below it.

    With ``shipped``, the name of a bundle that comes with the project means that one where nothing else is at ``path``:
    for whoever reads it only.

    Raises:
        UserError: nothing there that holds a manifest.
    """
    path = Path(path)
    if shipped and not path.exists():
        path = shipped_bundle(path) or path
    if not path.exists():
        if path.parts[:1] == ("hf:",):  # of two slashes, a path has kept one
            address = f"hf://{'/'.join(path.parts[1:])}"
            raise UserError(f"{address}: an address; `toolkit pull {address} saved_models/NAME` brings the bundle here")
        there = complete_versions(path.parent) if path.name.isdecimal() else {}
        if there:
            raise UserError(f"{path.parent}: no version {path.name}; there is {', '.join(map(str, sorted(there)))}")
        known = f"; the project brings {', '.join(SHIPPED)}" if shipped else _where_shipped(path)
        raise UserError(f"{path}: no such bundle{known}")
    if (path / MANIFEST).is_file():
        return path
    versions = complete_versions(path)
    if versions:
        return versions[max(versions)]
    raise UserError(f"{path}: not a bundle; expected NAME or NAME/VERSION with {MANIFEST} in it{_instead(path)}")


def _instead(path: Path) -> str:
    """Say what stands in a bundle's place, and how a bundle is had of it; nothing where it cannot be told."""
    if held := held_bundles(path):
        return f"; it is a folder of bundles: give one of them, such as {path / next(iter(held))}"
    if is_network_name(path.name) or (path / GRAPH).is_file():
        return f"; `toolkit import {path} --labels FILE --out saved_models/NAME` makes one of this network"
    if all((path / name).is_file() for name in _RUN):
        return f"; `toolkit train --resume {path} --export saved_models/NAME` makes one of this run"
    return "; it is a file" if path.is_file() else ""


def _where_shipped(path: Path) -> str:
    """Say where the bundle of this name is that comes with the project, for calls that write beside a bundle."""
    place = shipped_bundle(path)
    return f"; the one that comes with the project is {place}: give that path, or the path of a copy" if place else ""


def shipped_folder_in_words() -> str:
    """Say where the bundles are that come with the project, as the end of a message; empty where they are not."""
    found = [place for name in SHIPPED if (place := shipped_bundle(name))]
    return f"; those that come with the project are in {found[0].parent}" if found else ""


def list_bundles(root: str | Path) -> dict[str, dict[int, Path]]:
    """List the bundles below ``root``: their complete versions by name, ascending, with their directories.

    A ``root`` that holds complete versions itself is one bundle of that name.

    Raises:
        UserError: there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        state = "a file" if root.exists() else "no such folder"
        raise UserError(f"{root}: {state}; expected a folder of bundles{shipped_folder_in_words()}")
    own = complete_versions(root)
    if own:
        return {root.name: own}
    found = {name: complete_versions(root / name) for name in sorted(os.listdir(root))}
    return {name: versions for name, versions in found.items() if versions}


def held_bundles(path: str | Path) -> dict[str, dict[int, Path]]:
    """List the bundles in a folder of bundles as ``list_bundles`` does; none where the path is anything else."""
    path = Path(path)
    if not path.is_dir() or is_bundle(path):
        return {}
    return list_bundles(path)


def require_bundle_place(directory: str | Path, option: str = "") -> None:
    """Refuse a place where no bundle's next version can be written, before work is done for it.

    Args:
        directory: ``…/NAME``, which may not be there yet.
        option: of a command, by which another is named.

    Raises:
        UserError: it is one version, a folder of bundles, whose versions would hide them, or not writable.
    """
    directory = Path(directory)
    if (directory / MANIFEST).is_file():
        raise UserError(f"{directory}: one version of a bundle; give the bundle, which holds its versions")
    if held_bundles(directory):
        raise UserError(f"{directory}: a folder of bundles; name a bundle in it, such as {directory / 'NAME'}")
    require_writable(directory, option)


def require_bundles(root: str | Path) -> dict[str, dict[int, Path]]:
    """List the bundles below ``root`` as ``list_bundles`` does, where there must be some.

    Raises:
        UserError: there is no such folder, or no bundle in it.
    """
    bundles = list_bundles(root)
    if not bundles:
        expected = f"expected NAME/VERSION/{MANIFEST}, as export writes them"
        raise UserError(f"{root}: no bundles in it; {expected}{_instead(Path(root)) or shipped_folder_in_words()}")
    return bundles


def complete_versions(directory: Path) -> dict[int, Path]:
    """List the versions below a bundle's directory that are whole, ascending: a manifest is written last."""
    try:
        versions = list_versions(directory)
    except (PermissionError, FileNotFoundError):  # a volume's lost+found, say, or gone since it was looked at
        return {}
    found = {version: directory / str(version) for version in versions}
    return {version: path for version, path in found.items() if _is_whole(path)}


def _is_whole(version_dir: Path) -> bool:
    try:
        return (version_dir / MANIFEST).is_file()
    except PermissionError:  # which must not hide the versions beside it
        _say_unreadable(version_dir)
    except OSError:
        pass
    return False


@functools.cache  # once for each
def _say_unreadable(version_dir: Path) -> None:
    log.warning("%s: left out, as this user may not read it", version_dir)


def list_versions(directory: Path) -> list[int]:
    """List the version numbers that are taken below a bundle's directory, ascending."""
    if not directory.is_dir():
        return []
    # A stray file takes its number too: nothing could be renamed onto it.
    return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal())


def publish(staging: Path, directory: Path) -> Path:
    """Move a finished version to the next free number below ``directory``, in one step.

    Whoever watches ``directory`` sees the whole version or none of it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    while True:
        target = directory / str(max(list_versions(directory), default=0) + 1)
        try:
            # Renaming onto a directory fails unless it is empty, so two publishers never share a number.
            return staging.rename(target)
        except OSError:
            if not target.exists():
                raise


@contextmanager
def next_version(directory: Path) -> Iterator[Path]:
    """Give a ``staging_dir`` to write a bundle's next version in, which is removed at the end unless published.

    Those that killed processes left in the same place are removed first.

    Raises:
        WriteError: it cannot be written.
    """
    remove_abandoned(directory, _STAGING)
    staging = staging_dir(directory)
    try:
        with writing(directory):
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def staging_dir(directory: Path) -> Path:
    """Make a fresh hidden directory beside the versions, on the same file system; servers ignore it.

    Raises:
        WriteError: it cannot be made, for instance because ``directory`` is a file.
    """
    staging = staging_path(directory, _STAGING)
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise WriteError(f"{directory}: cannot be written to ({error.strerror})", directory) from None
    return staging
