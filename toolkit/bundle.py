"""The bundle: one servable version as a directory on disk. Its layout, its manifest, its checksums, its versions.

``NAME/VERSION/`` *is* a TensorFlow SavedModel and needs nothing of this package to be served. What this package
adds stands in ``assets.extra``, which TensorFlow Serving leaves alone.
"""

import hashlib
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from toolkit.errors import UserError
from toolkit.files import write_file
from toolkit.machine import num_threads
from toolkit.progress import step
from toolkit.spec import Preprocessing

EXTRA = "assets.extra"
MANIFEST = f"{EXTRA}/manifest.json"
WARMUP = f"{EXTRA}/tf_serving_warmup_requests"
EXAMPLES = f"{EXTRA}/examples"
EXAMPLE_LABELS = f"{EXTRA}/examples.json"
PICTURES = f"{EXTRA}/pictures.json"
KERAS_FILE = f"{EXTRA}/model.keras"
LABELS = "assets/labels.txt"


def litert_file(kind: str) -> str:
    """Path within a bundle of the LiteRT file of a kind: ``fp32``, ``int8``, ``int16x8``, ``dynamic``, ``float16``."""
    return f"{EXTRA}/model.{kind}.tflite"


FLOAT_LITERT = litert_file("fp32")
INT8_LITERT = litert_file("int8")

#: Digests of the pictures that a bundle was made with, by subset: those that taught it, those that chose among its
#: settings, and those that it was measured on.
Pictures = Mapping[str, frozenset[str]]
_STAGING = ".staging-"  # then the number of the process that writes there, and of what machine
_ABANDONED_SECONDS = 24 * 3600

#: Raised when a reader of the old form would misunderstand the new one.
SCHEMA_VERSION = 1

_CHUNK = 64  # files per task


@dataclass(frozen=True)
class EnsembleMember:
    """One network of an ensemble, as the ``Manifest`` of the bundle it came from describes it."""

    name: str  # ``NAME/VERSION``
    model: str
    weights_digest: str
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Timings:
    """Median times of a bundle's engines for one picture."""

    processor: str  # as ``toolkit.machine.processor`` names it
    p50_ms: dict[str, float]  # by engine


@dataclass(frozen=True)
class Manifest:
    """A bundle's description of itself.

    Attributes:
        model: the network's name here, or its Keras name.
        num_params: trainable parameters.
        weights_digest: sha256 over all weights in order.
        preprocessing: from picture to input.
        labels: class names in output order.
        metrics: measured on held-out pictures, fractions in 0…1; ``n`` says how many.
        parity: largest difference in probability from the Keras network, by engine.
        versions: packages it was made with.
        files: sha256 by path, of every other file in the bundle.
        recommended_engine: the fastest within the accuracy budget where it was made, or what ``recommend_engine`` set.
        forced: what the parity gate objected to before ``--force`` wrote it all the same.
        schema_version: of this document.
        temperature: what fine-tuning divided the logits by so that probabilities are calibrated. It is in the weights:
            nothing is left to divide.
        reject_below: answers less probable than this may be refused as none of the classes, at the price of one right
            answer in twenty; None where it was not fitted.
        ground: mean brightness, 0…1, of the training pictures' borders where they are marks on one plain ground and the
            network is grey, as of ink on paper; None otherwise. See ``toolkit.data.pixels.ground``.
        members: of an ensemble, whose answers are averaged; empty for a bundle of one network seeing one crop. The
            ``preprocessing`` above is then that of the largest input among them, which the ``pixels`` signature takes.
        crops: of a picture that each member is shown at each scale, see ``toolkit.ensemble.crops.plan_crops``.
        scales: shorter sides that a picture is resized to; empty for the members' own.
        timings: what the recommendation was made by: the engines that had passed; None where they were not timed.
        recipes: by kind of LiteRT file, a digest of all that it follows from (``toolkit.compress.changes``), where it
            was quantized after training: who is asked for the same again knows it.
    """

    name: str
    model: str
    num_params: int
    weights_digest: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    metrics: dict[str, int | float]
    parity: dict[str, float]
    versions: dict[str, str]
    recommended_engine: str
    files: dict[str, str] = field(default_factory=dict)
    forced: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION
    temperature: float | None = None
    reject_below: float | None = None
    ground: float | None = None
    members: tuple[EnsembleMember, ...] = ()
    crops: int = 1
    scales: tuple[int, ...] = ()
    timings: Timings | None = None
    recipes: dict[str, str] = field(default_factory=dict)


def find_bundle(path: str | Path) -> Path:
    """Find the version directory that ``path`` means: itself, or the highest complete version below it.

    Raises:
        UserError: nothing there that holds a manifest.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such bundle")
    if (path / MANIFEST).is_file():
        return path
    versions = complete_versions(path)
    if versions:
        return versions[max(versions)]
    raise UserError(f"{path}: not a bundle; expected NAME or NAME/VERSION with {MANIFEST} in it")


def list_bundles(root: str | Path) -> dict[str, dict[int, Path]]:
    """List the bundles below ``root``: their complete versions by name, ascending, with their directories.

    A ``root`` that holds complete versions itself is one bundle of that name.

    Raises:
        UserError: there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of bundles")
    own = complete_versions(root)
    if own:
        return {root.name: own}
    found = {name: complete_versions(root / name) for name in sorted(os.listdir(root))}
    return {name: versions for name, versions in found.items() if versions}


def complete_versions(directory: Path) -> dict[int, Path]:
    """List the versions below a bundle's directory that are whole, ascending: a manifest is written last."""
    try:
        found = {version: directory / str(version) for version in list_versions(directory)}
        return {version: path for version, path in found.items() if (path / MANIFEST).is_file()}
    except (PermissionError, FileNotFoundError):  # a volume's lost+found, say, or gone since it was looked at
        return {}


def list_versions(directory: Path) -> list[int]:
    """List the version numbers that are taken below a bundle's directory, ascending."""
    if not directory.is_dir():
        return []
    # A stray file takes its number too: nothing could be renamed onto it.
    return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal())


def read_manifest(version_dir: Path) -> Manifest:
    """Read and check a manifest against the schema.

    Raises:
        UserError: missing, not JSON, or not of this schema.
    """
    import pydantic

    path = version_dir / MANIFEST
    try:
        manifest = pydantic.TypeAdapter(Manifest).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; the bundle is incomplete") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise UserError(f"{path}: damaged manifest ({where}: {first['msg']})") from None
    if manifest.schema_version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: written by a newer toolkit (schema {manifest.schema_version}, this one reads {SCHEMA_VERSION})"
        )
    return manifest


def write_manifest(version_dir: Path, manifest: Manifest) -> None:
    """Write the manifest with the checksum of every other file in ``version_dir``, as the last step of a bundle."""
    import json

    paths = [path for path in sorted(version_dir.rglob("*")) if path.is_file() and path != version_dir / MANIFEST]
    files = {path.relative_to(version_dir).as_posix(): sha256_of(path) for path in paths}
    text = json.dumps(asdict(manifest) | {"files": files}, indent=1)
    (version_dir / MANIFEST).write_text(text + "\n", encoding="utf-8")


def set_recommended(version_dir: Path, engine: str) -> None:
    """Change the recommended engine in a manifest, in one step; everything else in it stays as it is."""
    import json

    path = version_dir / MANIFEST
    document = json.loads(path.read_bytes()) | {"recommended_engine": engine}
    write_file(path, json.dumps(document, indent=1) + "\n")


def verify_files(version_dir: Path, manifest: Manifest, prefixes: tuple[str, ...] = ("",)) -> None:
    """Compare those files of a bundle whose path starts with one of ``prefixes``, or all, with their checksums.

    Raises:
        UserError: names the first file that is missing or damaged.
    """
    for name, digest in manifest.files.items():
        if not name.startswith(prefixes):
            continue
        path = version_dir / name
        if not path.is_file():
            raise UserError(f"{path}: missing; the bundle is incomplete, export or copy it again")
        if sha256_of(path) != digest:
            raise UserError(f"{path}: checksum differs from the manifest; the file is damaged, copy the bundle again")


@dataclass(frozen=True)
class Example:
    """A picture that a bundle brings, and its true label where the bundle tells it."""

    path: Path
    label: str | None = None


def read_examples(version_dir: Path) -> list[Example]:
    """List the example pictures of a bundle; a missing or damaged file of labels leaves them without."""
    import json

    folder = version_dir / EXAMPLES
    if not folder.is_dir():
        return []
    try:
        rows = json.loads((version_dir / EXAMPLE_LABELS).read_text(encoding="utf-8"))
        labels = {str(row["file"]): str(row["label"]) for row in rows}
    except (OSError, ValueError, TypeError, KeyError):
        labels = {}
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return [Example(path, labels.get(path.name)) for path in paths]


def write_examples(version_dir: Path, examples: Sequence[Example]) -> None:
    """Copy pictures into a bundle that is being written, for the demo's visitors to click on, with their true labels.

    They are named by their number: what a picture was called may be private, or say what is on it.
    """
    import json

    if not examples:
        return
    (version_dir / EXAMPLES).mkdir(parents=True)
    rows = []
    for index, example in enumerate(examples):
        name = f"{index:02d}{example.path.suffix.lower()}"
        shutil.copyfile(example.path, version_dir / EXAMPLES / name)
        rows += [{"file": name, "label": example.label}] if example.label is not None else []
    (version_dir / EXAMPLE_LABELS).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def require_network(version_dir: Path, manifest: Manifest) -> Path:
    """Find the Keras file of a bundle's one network, and check it.

    Raises:
        UserError: the bundle is an ensemble, or the file is missing or damaged.
    """
    if manifest.members:
        names = ", ".join(member.name for member in manifest.members)
        raise UserError(f"{version_dir}: an ensemble, not one network; take a bundle it was made of: {names}")
    verify_files(version_dir, manifest, (KERAS_FILE,))
    return version_dir / KERAS_FILE


def require_same_labels(version_dirs: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    """Refuse to average bundles whose answers do not mean the same.

    Raises:
        UserError: names the first bundle whose labels differ from the first one's, and how.
    """
    first = manifests[0].labels
    for version_dir, manifest in zip(version_dirs[1:], manifests[1:], strict=True):
        if manifest.labels == first:
            continue
        if sorted(manifest.labels) == sorted(first):
            difference = "the same labels in another order"
        elif len(manifest.labels) != len(first):
            difference = f"{len(manifest.labels)} labels, not {len(first)}"
        else:
            ours, theirs = next(pair for pair in zip(first, manifest.labels, strict=True) if pair[0] != pair[1])
            difference = f"{theirs!r} where the first has {ours!r}"
        raise UserError(f"{version_dir}: cannot be averaged with {version_dirs[0]}: it has {difference}")


def same_network(version_dirs: Sequence[Path], manifests: Sequence[Manifest]) -> str:
    """Say which of several bundles have a network in common, whose answers would count twice; empty if none have."""
    owners: dict[tuple[str, Preprocessing], Path] = {}
    for version_dir, manifest in zip(version_dirs, manifests, strict=True):
        for network in manifest.members or (manifest,):
            owner = owners.setdefault((network.weights_digest, network.preprocessing), version_dir)
            if owner is not version_dir:
                return (
                    f"{version_dir}: has the same network as {owner} (equal weights), whose answers count twice "
                    "in an average; leave one of them out"
                )
    return ""


def write_pictures(version_dir: Path, pictures: Mapping[str, Iterable[str]]) -> None:
    """Note the digests of the pictures a bundle was made with by subset, see ``picture_digests``."""
    import json

    subsets = {subset: sorted(pictures.get(subset, ())) for subset in ("train", "val", "test")}
    (version_dir / PICTURES).write_text(json.dumps(subsets) + "\n", encoding="utf-8")


def read_pictures(version_dir: Path, manifest: Manifest) -> Pictures | None:
    """Read what ``write_pictures`` noted; None for a bundle that does not know its pictures.

    Raises:
        UserError: the file is missing or damaged.
    """
    import json

    if PICTURES not in manifest.files:
        return None
    verify_files(version_dir, manifest, (PICTURES,))
    subsets = json.loads((version_dir / PICTURES).read_bytes())
    return {subset: frozenset(digests) for subset, digests in subsets.items()}


def join_pictures(pictures: Sequence[Pictures | None]) -> Pictures | None:
    """Pictures that several bundles together were made with; None if one of them does not know its own.

    What taught one of them taught all, and what chose among the settings of one is held out for none.
    """
    known = [own for own in pictures if own is not None]
    if len(known) < len(pictures):
        return None
    train, val, test = (frozenset().union(*(own[subset] for own in known)) for subset in ("train", "val", "test"))
    return {"train": train, "val": val - train, "test": test - val - train}


def picture_digests(paths: Sequence[str | Path]) -> list[str]:
    """Compute the first 16 hex digits of the sha256 of each file, by which a picture is known again."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    digests: list[str] = []
    with step("recognising pictures", len(paths)) as told, ThreadPoolExecutor(num_threads()) as pool:
        for found in pool.map(lambda chunk: [sha256_of(Path(path))[:16] for path in chunk], chunks):
            digests += found
            told(len(digests))
    return digests


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
    """
    _sweep(directory)
    staging = staging_dir(directory)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def staging_dir(directory: Path) -> Path:
    """Make a fresh hidden directory beside the versions, on the same file system; servers ignore it.

    Raises:
        UserError: it cannot be made, for instance because ``directory`` is a file.
    """
    staging = directory / f"{_STAGING}{os.getpid()}-{_machine()}-{secrets.token_hex(4)}"
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written to ({error.strerror})") from None
    return staging


def _sweep(directory: Path) -> None:
    """Remove staging directories whose process is gone: known by its number here, elsewhere by its age."""
    for staging in directory.glob(f"{_STAGING}*") if directory.is_dir() else ():
        process, machine, *_ = [*staging.name.removeprefix(_STAGING).split("-"), ""]
        with suppress(OSError):  # gone meanwhile, or somebody else's
            is_old = time.time() - staging.stat().st_mtime > _ABANDONED_SECONDS
            if is_old or (machine == _machine() and not _is_running(process)):
                shutil.rmtree(staging, ignore_errors=True)


def _machine() -> str:
    """Name where a process's number means that process: a host, or a container on it."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        return True
    return True


def sha256_of(path: Path) -> str:
    """Compute the lower-case hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
