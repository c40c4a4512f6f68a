"""Features of a frozen network on disk, found by content.

A key is made of everything that changes the value: the frozen layers and their weights, the cut, the preprocessing,
the stored dtype and the format's version (together the ``FeatureContext``), the picture's own bytes, and its view. A
renamed file is found again; other weights or another cut never are.

LMDB was chosen by measurement: 10,000 vectors of 2,048 float16, written sixteen at a time and flushed to the disk each
time, read back in random order (2 cores of an AMD EPYC 9004, shared):

    storage                          vectors/s written    read    bytes on disk, × the vectors' own
    LMDB                                         2,100  103,000    2.0
    SQLite, write-ahead log                      2,400   20,000    1.1
    a .npy file each                             2,100    8,800    2.0
    an Arrow file for each batch                 3,700   22,000    1.1
    Zarr, a chunk for each batch, unflushed     10,800    1,500    1.0

Writing keeps up with any network that computes them, and reading is what every repetition pays for. LMDB is also the
only one of them with transactions between processes and readers that wait for nobody; its price is whole pages.
"""

import errno
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from toolkit.data.pixels.decode import DECODING, read_file
from toolkit.data.scan.cache import file_status, is_settled
from toolkit.errors import UserError, WriteError
from toolkit.files import allocate, disk_reason
from toolkit.machine import num_threads
from toolkit.progress import step
from toolkit.spec import Preprocessing

#: Raise it whenever the same key would get another value.
FORMAT_VERSION = 2

_HEADER = struct.Struct("<I")  # crc32 of key and payload
_MAP_SIZE = 1 << 38  # address space, not disk: LMDB's file grows with its content
_PREFIX = 16  # bytes of a key that name the context
_DIGEST_BYTES = hashlib.sha256().digest_size
_STATUS = _DIGEST_BYTES + 1  # where a file's status begins in what is remembered of it
_DAY = 24 * 3600
_LOCKS_BYTES = 1 << 16  # of 512 readers, 64 bytes each, and a header
_SHORT_WRITE = os.strerror(errno.EIO)
_BATCH = 1000  # entries deleted in one transaction, so that writers wait for moments only

# LMDB refuses to open an environment twice in one process, so caches in one directory share it.
_LOCK = threading.Lock()
_OPEN: dict[Path, "Store"] = {}
_NUM_USERS: Counter[Path] = Counter()


@dataclass(frozen=True)
class FeatureContext:
    """All that features depend on beside the picture.

    Attributes:
        network: its name, for people; not part of the key.
        cut: name of the layer whose output the features are.
        shape: of one picture's features.
        weights: digest of the frozen weights.
        architecture: digest of the frozen layers and how they are joined: equal weights may stand in other graphs.
        preprocessing: what the network was trained with.
        dtype: ``"float16"`` or ``"float32"``, as stored.
    """

    network: str
    cut: str
    shape: tuple[int, ...]
    weights: str
    architecture: str
    preprocessing: Preprocessing
    dtype: str = "float16"

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digest of all but the network's name."""
        document = {**asdict(self), "network": "", "format": FORMAT_VERSION}
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[: 2 * _PREFIX]

    def as_document(self) -> dict[str, Any]:
        """Describe the context, JSON-ready, for listings."""
        return asdict(self)


class FeatureCache:
    """The features of one context, in an LMDB environment: safe for several processes and threads, whole after a kill.

    A write is one transaction: it is there entirely or not at all. A damaged entry fails its checksum and counts
    as missing.

    Args:
        directory: created if need be; shared by all networks and data sets.
        context: everything but the picture and its view that the features depend on.

    Attributes:
        context: as given.
        prefix: what the keys of all its features begin with.
        store: what the directory's caches share.

    Raises:
        UserError: the directory cannot be used, or the file in it is damaged.
    """

    def __init__(self, directory: str | Path, context: FeatureContext) -> None:
        self.context = context
        self.prefix = bytes.fromhex(context.digest)
        self.store = open_store(directory)
        self._closed = False
        document = json.dumps(context.as_document() | {"last_used": int(time.time())}).encode()
        with self.store.begin(write=True) as transaction:
            transaction.put(self.prefix, document, db=self.store.contexts)

    def key(self, picture: bytes, view: str = "plain") -> bytes:
        """Make the key of one view of a picture, given the sha256 of its encoded bytes."""
        return self.prefix + hashlib.sha256(picture + view.encode()).digest()

    def missing(self, keys: Iterable[bytes]) -> list[bytes]:
        """List keys that are not there, or whose entry is damaged, each once and in order."""
        with self.store.begin() as transaction:
            return [key for key in dict.fromkeys(keys) if _payload(key, transaction.get(key)) is None]

    def get(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """Read features, of the context's shape and dtype, of those keys that are there and whole."""
        found: dict[bytes, np.ndarray] = {}
        with self.store.begin() as transaction:
            for key in keys:
                payload = _payload(key, transaction.get(key))
                if payload is not None:
                    found[key] = np.frombuffer(payload, self.context.dtype).reshape(self.context.shape).copy()
        return found

    def read_into(self, out: np.ndarray, keys: Sequence[bytes]) -> list[int]:
        """Fill ``out``, one row for each key, and return the indices of keys that are not there."""
        absent = []
        rows = out.reshape(len(out), -1)
        with self.store.begin() as transaction:
            for index, key in enumerate(keys):
                payload = _payload(key, transaction.get(key))
                if payload is None:
                    absent.append(index)
                else:
                    rows[index] = np.frombuffer(payload, self.context.dtype)
        return absent

    def put(self, features: Mapping[bytes, np.ndarray]) -> None:
        """Store features, all of them or none.

        Raises:
            UserError: a value is beyond what the dtype can hold.
        """
        put_together([self], features)

    def entry(self, key: bytes, value: np.ndarray) -> bytes:
        """Encode features as they are stored, or say that the dtype cannot hold them."""
        with np.errstate(over="ignore"):
            stored = np.asarray(value, self.context.dtype)
        if stored.shape != self.context.shape:
            raise ValueError(f"features of shape {stored.shape}, expected {self.context.shape}")
        if not np.isfinite(stored).all():
            raise UserError(
                f"features of {self.context.network} at {self.context.cut} are not finite in {self.context.dtype}: "
                "they overflow it or are damaged; cache them as float32"
            )
        payload = stored.tobytes()
        return _HEADER.pack(_checksum(key, payload)) + payload

    def __len__(self) -> int:
        return sum(1 for _ in self.store.keys(self.prefix))

    def close(self) -> None:
        """Release the files; closing twice does nothing."""
        if not self._closed:
            self._closed = True
            close_store(self.store)


def put_together(caches: Iterable[FeatureCache], features: Mapping[bytes, np.ndarray]) -> None:
    """Store features of several caches of one directory, all of them or none; each key says whose it is.

    Raises:
        UserError: a value is beyond what the dtype can hold.
    """
    owners = {cache.prefix: cache for cache in caches}
    entries = {key: owners[key[:_PREFIX]].entry(key, value) for key, value in features.items()}
    with next(iter(owners.values())).store.begin(write=True) as transaction:
        for key, entry in entries.items():
            transaction.put(key, entry)


class Store:
    """The LMDB environment behind all caches of a directory, opened once in a process.

    Attributes:
        path: the environment's own directory.
        features: database of key → checksum and payload.
        contexts: database of context prefix → JSON document.
        files: database of content digests by path, see ``file_digests``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained(), ExitStack() as opened:
            path.mkdir(parents=True, exist_ok=True)
            self._in_use = opened.enter_context((path / "in-use").open("w"))
            fcntl.flock(self._in_use, fcntl.LOCK_SH)  # waits while another process compacts the file
            opened.enter_context(_removed_if_begun(path / "data.mdb"))
            _allocate_locks(path / "lock.mdb")
            # Without metasync the last transaction may be lost with the machine, but never the file's wholeness.
            self._environment = opened.enter_context(
                lmdb.open(str(path), map_size=_MAP_SIZE, max_readers=512, max_dbs=3, metasync=False, readahead=False)
            )
            self._require_whole()
            # Files of older versions hold a fourth database, which nobody reads.
            self.features, self.contexts, self.files = (
                self._environment.open_db(name) for name in (b"features", b"contexts", b"files")
            )
            self._opened = opened.pop_all()

    @contextmanager
    def begin(self, *, write: bool = False) -> Iterator[lmdb.Transaction]:
        """Begin a transaction on the features, unless a call's ``db=`` names another database."""
        with self._explained(), self._environment.begin(db=self.features, write=write) as transaction:
            yield transaction

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        """List the keys of one context, in order."""
        with self.begin() as transaction, transaction.cursor() as cursor:
            is_there = cursor.set_range(prefix)
            while is_there and bytes(cursor.key()[: len(prefix)]) == prefix:
                yield bytes(cursor.key())
                is_there = cursor.next()

    def num_bytes(self) -> int:
        """Measure the file on disk."""
        return (self.path / "data.mdb").stat().st_blocks * 512

    def compact(self) -> bool:
        """Rewrite the file without what was deleted and close it, unless somebody else has it open."""
        if _NUM_USERS[self.path] > 1:
            return False
        try:
            fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        beside = self.path / "compacted"
        try:
            with self._explained():
                beside.mkdir(exist_ok=True)
                (beside / "data.mdb").unlink(missing_ok=True)
                self._environment.copy(str(beside), compact=True)
                self._environment.close()
                (beside / "data.mdb").replace(self.path / "data.mdb")
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return True

    def close(self) -> None:
        """Release the file, for whoever waits to compact it too."""
        self._opened.close()

    def _require_whole(self) -> None:
        """Refuse a file cut short: reading behind its end would end the process with a bus error."""
        last_page = self._environment.info()["last_pgno"]
        expected = (last_page + 1) * self._environment.stat()["psize"]
        size = (self.path / "data.mdb").stat().st_size
        if last_page > 1 and size < expected:
            raise lmdb.CorruptedError(f"{size:,} bytes of {expected:,}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except lmdb.MapFullError as error:
            raise UserError(f"{self.path}: the feature cache is full ({error}); see `toolkit cache prune`") from None
        except (lmdb.LockError, lmdb.ReadonlyError, OSError) as error:
            raise self._not_written(getattr(error, "strerror", None) or str(error)) from None
        except lmdb.Error as error:
            # A write that comes out short, as on a full disk, is an "Input/output error" to LMDB.
            reason = disk_reason(error) or ("the disk is full, or fails" if _SHORT_WRITE in str(error) else "")
            if reason:
                raise self._not_written(f"{reason}; `toolkit cache prune` makes room") from None
            raise UserError(
                f"{self.path}: the feature cache is damaged ({error}); "
                "delete this folder, its features are computed again"
            ) from None

    def _not_written(self, reason: str) -> WriteError:
        return WriteError(f"{self.path}: the feature cache cannot be written ({reason})", self.path)


def _allocate_locks(file: Path) -> None:
    """Take room for LMDB's table of readers, which it maps into memory: a page without room would end the process."""
    with file.open("ab") as locks:
        allocate(locks.fileno(), os.fstat(locks.fileno()).st_size or _LOCKS_BYTES)


@contextmanager
def _removed_if_begun(file: Path) -> Iterator[None]:
    """Remove a new file whose two first pages did not get written: LMDB would take it for a damaged one."""
    is_new = not file.exists()
    try:
        yield
    except BaseException:
        if is_new and file.exists() and file.stat().st_size < 2 * mmap.PAGESIZE:
            file.unlink()
        raise


def open_store(directory: str | Path) -> Store:
    """Open the store of a cache directory; give it back with ``close_store``."""
    path = Path(directory).absolute() / f"features-{FORMAT_VERSION}"
    with _LOCK:
        if path not in _OPEN:
            _OPEN[path] = Store(path)
        _NUM_USERS[path] += 1
        return _OPEN[path]


def close_store(store: Store) -> None:
    """Close it once nobody in this process uses it."""
    with _LOCK:
        _NUM_USERS[store.path] -= 1
        if not _NUM_USERS[store.path]:
            _OPEN.pop(store.path).close()


def _checksum(key: bytes, payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(key))


def _payload(key: bytes, entry: bytes | memoryview | None) -> memoryview | None:
    if entry is None or len(entry) < _HEADER.size:
        return None
    payload = memoryview(entry)[_HEADER.size :]
    return payload if _checksum(key, payload) == _HEADER.unpack_from(entry)[0] else None


def file_digests(paths: Sequence[str | Path], store: Store) -> list[bytes]:
    """Digest each file by sha256, remembered by path, size and times, so that an unchanged one is not read again.

    Behind the digest of any picture but a JPEG stands the version of its decoding: where that changes, features of
    JPEGs stay valid.

    Raises:
        ImageError: a file cannot be read.
    """
    names = [os.path.abspath(path) for path in paths]
    keys = [hashlib.sha256(os.fsencode(name)).digest() for name in names]
    with store.begin() as transaction:
        remembered = [transaction.get(key, db=store.files) for key in keys]
    with ThreadPoolExecutor(num_threads()) as pool:
        found = list(pool.map(_file_digest, names, remembered))
    fresh = {key: row for key, (row, is_new) in zip(keys, found, strict=True) if row and is_new}
    if fresh:
        with store.begin(write=True) as transaction:
            for key, row in fresh.items():
                transaction.put(key, row, db=store.files)
    return [row[:_DIGEST_BYTES] + row[_DIGEST_BYTES:_STATUS].strip(b"\0") for row, _ in found]


def _file_digest(name: str, remembered: bytes | None) -> tuple[bytes, bool]:
    """Give a digest with the file's status, and say whether that is worth remembering."""
    now = time.time_ns()
    try:
        status = os.stat(name)
    except OSError:
        return _digest(read_file(Path(name))), False  # which explains what is wrong
    if remembered and remembered[_STATUS:] == file_status(status) and remembered[_DIGEST_BYTES] in (0, DECODING):
        return remembered, False
    return _digest(read_file(Path(name))) + file_status(status), is_settled(status, now)


def _digest(data: bytes) -> bytes:
    decoding = 0 if data.startswith(b"\xff\xd8\xff") else DECODING
    return hashlib.sha256(data).digest() + bytes([decoding])


def list_cache(directory: str | Path) -> dict[str, Any]:
    """List the contexts in a cache, most recently used first.

    Returns:
        ``{"path", "bytes", "contexts": [{"id", "network", "cut", "shape", "dtype", "entries", "bytes", "last_used",
        …}]}``, ``bytes`` of the file on disk and of the entries alone.
    """
    with _store(directory) as store:
        contexts = [_measure(store, prefix, document) for prefix, document in _contexts(store)]
        contexts.sort(key=lambda context: -context["last_used"])
        return {"path": str(store.path), "bytes": store.num_bytes(), "contexts": contexts}


def verify_cache(directory: str | Path) -> dict[str, Any]:
    """Check every entry against its checksum and remove those that are damaged; they are computed again when needed.

    Returns:
        ``{"path", "entries", "damaged"}``.
    """
    with _store(directory) as store:
        keys = list(store.keys(b""))
        damaged = []
        with step("verifying", len(keys)) as told:
            for start in range(0, len(keys), _BATCH):
                with store.begin() as transaction:
                    chunk = keys[start : start + _BATCH]
                    damaged += [key for key in chunk if _payload(key, transaction.get(key)) is None]
                told(start + len(chunk))
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
        raise UserError("say what to prune: identifiers, as `toolkit cache list` shows them, --unused-days N, or --all")
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
