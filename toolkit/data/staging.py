"""Folders that appear whole or not at all, whatever kills the process that writes them."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".partial-"
_ABANDONED_SECONDS = 7 * 24 * 3600


@contextmanager
def new_folder(directory: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``directory`` at the end, or is thrown away at an error.

    If another process has made ``directory`` meanwhile, its content stays: both were to be the same.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(directory.parent)
    staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory.parent))
    try:
        yield staging
        try:
            os.replace(staging, directory)
        except OSError:
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
