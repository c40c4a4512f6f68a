"""What is in a feature cache, whether it is whole, and how to make it smaller."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.transfer.cache import Store, close_store, entry_is_whole, open_store

_DAY = 24 * 3600
_BATCH = 1000  # entries deleted in one transaction, so that writers wait for moments only


def list_cache(directory: str | Path) -> dict[str, Any]:
    """The contexts in a cache, most recently used first.

    Returns:
        ``{"path", "bytes", "contexts": [{"id", "network", "cut", "shape", "dtype", "entries", "bytes", "last_used",
        …}]}``, ``bytes`` of the file on disk and of the entries alone.
    """
    with _store(directory) as store:
        contexts = [_measure(store, prefix, document) for prefix, document in _contexts(store)]
        contexts.sort(key=lambda context: -context["last_used"])
        return {"path": str(store.path), "bytes": store.num_bytes(), "contexts": contexts}


def verify_cache(directory: str | Path, *, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Check every entry against its checksum and remove those that are damaged; they are computed again when needed.

    Returns:
        ``{"path", "entries", "damaged"}``.
    """
    with _store(directory) as store:
        keys = list(store.keys(b""))
        damaged = []
        for start in range(0, len(keys), _BATCH):
            with store.begin() as transaction:
                chunk = keys[start : start + _BATCH]
                damaged += [key for key in chunk if not entry_is_whole(key, transaction.get(key))]
            if progress:
                progress(min(start + _BATCH, len(keys)), len(keys))
        _delete(store, damaged)
        return {"path": str(store.path), "entries": len(keys), "damaged": len(damaged)}


def prune_cache(
    directory: str | Path, *, contexts: tuple[str, ...] = (), unused_days: float | None = None, everything: bool = False
) -> dict[str, Any]:
    """Remove whole contexts, then give their room back to the disk.

    Args:
        directory: of the cache.
        contexts: beginnings of the identifiers that ``list_cache`` gives.
        unused_days: remove what nobody has used for so many days.
        everything: remove all.

    Returns:
        ``{"path", "removed": [identifiers], "entries", "bytes", "compacted"}``; ``compacted`` is False where another
        process has the cache open: the room is then used again, but stays the file's.

    Raises:
        UserError: nothing was asked for, or an identifier fits no context.
    """
    if not (contexts or everything or unused_days is not None):
        raise UserError("say what to prune: identifiers of contexts, an age in days, or everything")
    with _store(directory) as store:
        known = list(_contexts(store))
        for wanted in contexts:
            if not any(prefix.hex().startswith(wanted) for prefix, _ in known):
                listing = ", ".join(prefix.hex()[:8] for prefix, _ in known) or "nothing"
                raise UserError(f"no context {wanted!r} in {store.path}; there is {listing}")
        limit = time.time() - (unused_days or 0) * _DAY
        chosen = [
            prefix
            for prefix, document in known
            if everything
            or prefix.hex().startswith(contexts or ("-",))
            or (unused_days is not None and document["last_used"] <= limit)
        ]
        num_entries = 0
        for prefix in chosen:
            keys = list(store.keys(prefix))
            num_entries += len(keys)
            _delete(store, keys)
            with store.begin(write=True) as transaction:
                transaction.delete(prefix, db=store.contexts)
        compacted = store.compact()
        return {
            "path": str(store.path),
            "removed": [prefix.hex() for prefix in chosen],
            "entries": num_entries,
            "bytes": store.num_bytes(),
            "compacted": compacted,
        }


@contextmanager
def _store(directory: str | Path) -> Iterator[Store]:
    if not Path(directory).is_dir():
        raise UserError(f"{directory}: no feature cache there; `toolkit finetune` makes one")
    store = open_store(directory)
    try:
        yield store
    finally:
        close_store(store)


def _contexts(store: Store) -> Iterator[tuple[bytes, dict[str, Any]]]:
    with store.begin() as transaction, transaction.cursor(db=store.contexts) as cursor:
        rows = [(bytes(key), json.loads(bytes(value))) for key, value in cursor]
    yield from rows


def _measure(store: Store, prefix: bytes, document: dict[str, Any]) -> dict[str, Any]:
    sizes = []
    with store.begin() as transaction, transaction.cursor() as cursor:
        is_there = cursor.set_range(prefix)
        while is_there and bytes(cursor.key()[: len(prefix)]) == prefix:
            sizes.append(len(cursor.value()))
            is_there = cursor.next()
    return {"id": prefix.hex(), **document, "entries": len(sizes), "bytes": sum(sizes)}


def _delete(store: Store, keys: list[bytes]) -> None:
    for start in range(0, len(keys), _BATCH):
        with store.begin(write=True) as transaction:
            for key in keys[start : start + _BATCH]:
                transaction.delete(key)
