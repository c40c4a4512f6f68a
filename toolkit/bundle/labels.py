"""Labels of a bundle's versions, such as ``stable``: moved on and back in one step, and what may be removed.

They stand in a file beside the versions, ``{"stable": [4, 3], "canary": [5]}``: each label's version, then those it had
before, the last one first. In another, ``{"canary": 0.1}``, stands how many of the requests that name no version are
answered by a label's; ``stable`` answers the rest. TensorFlow Serving leaves the files alone.
"""

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.bundle.manifest import MANIFEST, read_manifest, verify_files
from toolkit.bundle.versions import complete_versions, find_bundle, list_bundles
from toolkit.errors import UserError
from toolkit.files import remove_folder, write_file, writing
from toolkit.progress import step

VERSION_LABELS = "version_labels.json"
TRAFFIC = "version_traffic.json"

STABLE, CANARY = "stable", "canary"

_MOST_BEFORE = 20  # versions that a label remembers
_NAME = re.compile(r"(?!\d+$)[\w.-]{1,64}", re.ASCII)


class Share(NamedTuple):
    """A label's share of the requests that name no version.

    Attributes:
        label: such as ``canary``.
        version: that it means.
        share: of all such requests, in 0…1.
    """

    label: str
    version: int
    share: float


def read_version_labels(directory: str | Path) -> dict[str, int]:
    """Read which version each label of a bundle means; it may have been removed since.

    Args:
        directory: the bundle's, which holds its versions.

    Raises:
        UserError: the file is damaged or cannot be read.
    """
    return {label: versions[0] for label, versions in _read(Path(directory)).items()}


def labelled_version(root: str | Path, name: str, label: str) -> int:
    """Look up the version that a label means, of one of the bundles below ``root`` (see ``list_bundles``).

    Raises:
        UserError: no such bundle or label, the version was removed, or the file is damaged.
    """
    versions = list_bundles(root).get(name, {})
    labels = read_version_labels(next(iter(versions.values())).parent) if versions else {}
    if label not in labels:
        raise UserError(f"no version of {name} is labelled {label}; labels are: {', '.join(labels) or 'none'}")
    if labels[label] not in versions:
        raise UserError(f"version {labels[label]} of {name}, which {label} means, is not there any more")
    return labels[label]


def locate_version(bundle: str | Path) -> tuple[Path, int | None]:
    """Take a path apart into a bundle's directory and the version it names, if it names one.

    Raises:
        UserError: no bundle, or one that is no numbered version below a bundle's directory.
    """
    path = Path(bundle)
    find_bundle(path)
    if not (path / MANIFEST).is_file():
        return path, None
    path = path.resolve() if path.name in ("", "..") else path
    if not path.name.isdecimal():
        raise UserError(f"{path}: not a numbered version of a bundle, which labels are for; expected NAME/VERSION")
    return path.parent, int(path.name)


def promote(bundle: str | Path, label: str = STABLE) -> dict[str, Any]:
    """Have a label mean a version from now on, once its files have been compared with their checksums.

    Args:
        bundle: ``NAME/VERSION``; of ``NAME`` the version that ``canary`` means, else the highest.
        label: any name; servers take ``stable`` and the others for a version's number.

    Returns:
        ``{"bundle", "label", "before"}``: the version's directory, and the version that the label meant before, or
        None.

    Raises:
        UserError: no such version, it is damaged, or as ``move_label``.
    """
    directory, version = locate_version(bundle)
    if version is None:
        highest = max(complete_versions(directory))
        version = highest if label == CANARY else read_version_labels(directory).get(CANARY, highest)
    version_dir = directory / str(version)
    if version_dir.is_dir():
        with step("comparing files with their checksums"):
            verify_files(version_dir, read_manifest(version_dir))
    return {"bundle": str(version_dir), "label": label, "before": move_label(directory, label, version)}


def roll_back(bundle: str | Path, label: str = STABLE, *, remove: bool = False) -> dict[str, Any]:
    """Have a label mean the version again that it meant before, or take it away.

    Args:
        bundle: ``NAME``, not one version of it.
        label: such as ``stable``.
        remove: take it away instead.

    Returns:
        ``{"bundle", "label", "before"}``: the directory of the version that the label means now, None where it was
        taken away, and the version that it meant until now.

    Raises:
        UserError: as ``move_label_back``.
    """
    directory = _whole_bundle(bundle)
    if remove:
        return {"bundle": None, "label": label, "before": remove_label(directory, label)}
    version, before = move_label_back(directory, label)
    return {"bundle": str(directory / str(version)), "label": label, "before": before}


def share_traffic(
    bundle: str | Path, share: float | None = None, label: str = CANARY, *, end: bool = False
) -> dict[str, Any]:
    """Have a label's version answer a share of the requests that name no version, and ``stable`` the rest.

    Args:
        bundle: ``NAME``, not one version of it.
        share: in 0…1; with 0 ``stable`` answers all of them. By default nothing is changed.
        label: any but ``stable``.
        end: have the highest version answer them again, as it does where nothing is shared.

    Returns:
        ``{"bundle", "traffic"}``: its directory, and ``{"label", "version", "share"}`` for each label that answers such
        requests, ``stable`` last; none where the highest version does.

    Raises:
        UserError: no such share or label, no version is stable, or the file is damaged.
        WriteError: the file cannot be written.
    """
    directory = _whole_bundle(bundle)
    if share is not None and end:
        raise UserError("expected a share or --end, got both")
    if share is not None and not 0 <= share <= 1:
        raise UserError(f"a share must be from 0 to 1, such as 0.1 for one request in ten; got {share}")
    if label == STABLE:
        raise UserError(f"{STABLE} answers what is left; give the share of another label, such as {CANARY}")
    with _locked(directory):
        if end:
            with writing(directory / TRAFFIC):
                (directory / TRAFFIC).unlink(missing_ok=True)
        elif share is not None:
            labels = _read(directory)
            for needed in (label, STABLE):
                _versions_of(directory, labels, needed)
            if labels[label][0] == labels[STABLE][0]:
                raise UserError(
                    f"{directory}: {label} and {STABLE} both mean version {labels[label][0]}, and a share is for two; "
                    f"`toolkit bundles promote {directory}/VERSION --label {label}` names another"
                )
            shares = _read_shares(directory) | {label: share}
            if sum(shares.values()) > 1:
                told = ", ".join(f"{name} {part:g}" for name, part in shares.items())
                raise UserError(f"{directory}: shares must not be more than 1 together, got {told}")
            write_file(directory / TRAFFIC, json.dumps(shares) + "\n")
        return {"bundle": str(directory), "traffic": [each._asdict() for each in read_traffic(directory)]}


def read_traffic(directory: str | Path) -> list[Share]:
    """Read which versions answer the requests that name none, ``stable`` last; empty where the highest does.

    Args:
        directory: the bundle's.

    Raises:
        UserError: a file is damaged or cannot be read, or no version is stable.
    """
    directory = Path(directory)
    if not (directory / TRAFFIC).exists():
        return []
    labels = _read(directory)
    shares = {label: share for label, share in _read_shares(directory).items() if label in labels}
    shares[STABLE] = max(0.0, 1 - sum(shares.values()))
    return [Share(label, _versions_of(directory, labels, label)[0], share) for label, share in shares.items()]


def prune(bundle: str | Path, keep: int = 3, *, dry_run: bool = False) -> dict[str, list[str]]:
    """Remove a bundle's old versions, see ``prune_versions``.

    Returns:
        ``{"removed", "labelled"}``: directories that were removed, and those kept for a label's sake.
    """
    removed, labelled = prune_versions(_whole_bundle(bundle), keep, dry_run=dry_run)
    return {"removed": [str(path) for path in removed], "labelled": [str(path) for path in labelled]}


def _whole_bundle(bundle: str | Path) -> Path:
    directory, named = locate_version(bundle)
    if named is not None:
        raise UserError(f"{bundle}: one version; give the bundle, {directory}")
    return directory


def move_label(directory: Path, label: str, version: int) -> int | None:
    """Have a label mean this version from now on.

    Args:
        directory: the bundle's.
        label: such as ``stable``.
        version: a complete one.

    Returns:
        The version that it meant before, None if none.

    Raises:
        UserError: no name for a label, no such version, or the file is damaged.
        WriteError: the file cannot be written.
    """
    if not _NAME.fullmatch(label):
        raise UserError(f"a label must be of letters, digits, '_', '-' and '.', not a number alone; got {label!r}")
    with _locked(directory):
        known = complete_versions(directory)
        if version not in known:
            raise UserError(f"{directory}: no version {version}; there are {', '.join(map(str, known)) or 'none'}")
        labels = _read(directory)
        before = [number for number in labels.get(label, ()) if number != version]
        had = labels.get(label, [None])[0]
        if had != version:
            _write(directory, labels | {label: [version, *before[:_MOST_BEFORE]]})
        return had


def move_label_back(directory: Path, label: str) -> tuple[int, int]:
    """Have a label mean the version again that it meant before.

    Returns:
        That version, and the one it meant until now.

    Raises:
        UserError: there is no such label, or none of its earlier versions is left.
        WriteError: the file cannot be written.
    """
    with _locked(directory):
        labels, known = _read(directory), complete_versions(directory)
        now, *before = _versions_of(directory, labels, label)
        left = [number for number in before if number in known]
        if not left:
            gone = f"; removed since: {', '.join(map(str, before))}" if before else ""
            raise UserError(
                f"{directory}: no version that {label} meant before {now} is left{gone}; promote one of "
                f"{', '.join(map(str, known)) or 'none'}, or take the label away with --remove"
            )
        _write(directory, labels | {label: left})
        return left[0], now


def remove_label(directory: Path, label: str) -> int:
    """Take a label away with its share of the requests, and give the version that it meant.

    Raises:
        UserError: there is no such label, or it is ``stable`` and answers requests that name no version.
        WriteError: a file cannot be written.
    """
    with _locked(directory):
        labels, shares = _read(directory), _read_shares(directory)
        version = _versions_of(directory, labels, label)[0]
        if label == STABLE and (directory / TRAFFIC).exists():
            raise UserError(
                f"{directory}: {STABLE} answers the requests that name no version; end that first, with "
                f"toolkit bundles share {directory} --end"
            )
        if label in shares:
            del shares[label]
            write_file(directory / TRAFFIC, json.dumps(shares) + "\n")
        _write(directory, {name: versions for name, versions in labels.items() if name != label})
        return version


def prune_versions(directory: Path, keep: int, *, dry_run: bool = False) -> tuple[list[Path], list[Path]]:
    """Remove a bundle's old versions; a server finds each whole or not at all.

    Never removed are versions with a label, the one that each label would be moved back to, and what is not a complete
    version.

    Args:
        directory: the bundle's.
        keep: how many of the highest versions stay.
        dry_run: remove nothing.

    Returns:
        Versions that were removed, and those kept for a label's sake, ascending.

    Raises:
        UserError: ``keep`` is below one, no bundle, or its labels cannot be read.
        WriteError: a version cannot be removed.
    """
    if keep < 1:
        raise UserError(f"expected to keep at least 1 version, got {keep}")
    with _locked(directory):
        versions = complete_versions(directory)
        old = list(versions)[:-keep]
        labelled = set()
        for now, *before in _read(directory).values():
            labelled |= {now, *[number for number in before if number in versions][:1]}
        removed = [versions[number] for number in old if number not in labelled]
        for version_dir in removed if not dry_run else ():
            with writing(version_dir):
                remove_folder(version_dir)
        return removed, [versions[number] for number in old if number in labelled]


def _versions_of(directory: Path, labels: dict[str, list[int]], label: str) -> list[int]:
    if label not in labels:
        raise UserError(
            f"{directory}: no version is labelled {label}; labels are: {', '.join(labels) or 'none'}; "
            f"`toolkit bundles promote {directory}/VERSION --label {label}` gives it"
        )
    return labels[label]


def _read(directory: Path) -> dict[str, list[int]]:
    expected = 'labels with their versions, such as {"stable": [4, 3]}'
    return _read_document(directory / VERSION_LABELS, _is_history, expected)


def _read_shares(directory: Path) -> dict[str, float]:
    shares = _read_document(directory / TRAFFIC, _is_share, 'labels with their shares, such as {"canary": 0.1}')
    shares.pop(STABLE, None)  # written by hand; it has what the others leave
    return shares


def _read_document(path: Path, is_value: Callable[[object], bool], expected: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not all(map(is_value, document.values())):
        raise UserError(f"{path}: damaged; expected {expected}")
    return document


def _is_history(versions: object) -> bool:
    return isinstance(versions, list) and bool(versions) and all(type(number) is int for number in versions)


def _is_share(share: object) -> bool:
    return isinstance(share, (int, float)) and not isinstance(share, bool) and 0 <= share <= 1


def _write(directory: Path, labels: dict[str, list[int]]) -> None:
    write_file(directory / VERSION_LABELS, json.dumps(labels) + "\n")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Let one process at a time change a bundle's labels and remove its versions."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{directory}: cannot be read ({error.strerror})") from None
    try:
        with suppress(OSError):  # a file system without locks: the last writer's file stays, and stays whole
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
