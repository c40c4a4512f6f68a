"""A bundle's layout, its manifest and its checksums."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import UserError
from toolkit.files import write_file
from toolkit.spec import Preprocessing

if TYPE_CHECKING:
    import pydantic

EXTRA = "assets.extra"
MANIFEST = f"{EXTRA}/manifest.json"
WARMUP = f"{EXTRA}/tf_serving_warmup_requests"
EXAMPLES = f"{EXTRA}/examples"
EXAMPLE_LABELS = f"{EXTRA}/examples.json"
PICTURES = f"{EXTRA}/pictures.npz"
OLDER_PICTURES = f"{EXTRA}/pictures.json"  # of bundles written until now
KERAS_FILE = f"{EXTRA}/model.keras"
NOVELTY_FILE = f"{EXTRA}/novelty.npz"
LABELS = "assets/labels.txt"
#: The graph of a SavedModel, and so of a bundle.
GRAPH = "saved_model.pb"
#: Beginnings of the places of what TensorFlow Serving reads.
SAVED_MODEL = (GRAPH, "fingerprint.pb", "variables/", "assets/", WARMUP)


def litert_file(kind: str) -> str:
    """Path within a bundle of the LiteRT file of a kind: ``fp32``, ``int8``, ``int16x8``, ``dynamic``, ``float16``."""
    return f"{EXTRA}/model.{kind}.tflite"


FLOAT_LITERT = litert_file("fp32")


INT8_LITERT = litert_file("int8")


#: Raised when a reader of the old form would misunderstand the new one.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class EnsembleMember:
    """One network of an ensemble, as the ``Manifest`` of the bundle it came from describes it."""

    name: str  # ``NAME/VERSION``
    model: str
    weights_digest: str
    preprocessing: Preprocessing


@dataclass(frozen=True)
class NoveltyFacts:
    """Facts about a network's second answer, which tells pictures of none of the classes."""

    method: str  # in words
    above: float  # a larger answer means none of the classes
    false_rejects: float  # at most this share of pictures of the classes lies above
    confidence: float  # that it does
    num_judged: int  # pictures that the threshold is from, each judged by means without it
    parity: dict[str, float]  # by engine, the largest difference from the network; of quantized ones the mean


@dataclass(frozen=True)
class RejectionCurve:
    """Price of refusing answers that are less probable than a threshold, see ``toolkit.metrics.rejection_curve``."""

    below: tuple[float, ...]  # ascending, from 0
    answered: tuple[int, ...]  # of the pictures that ``Manifest.metrics`` are from, those not refused
    right: tuple[int, ...]  # of these, the right answers


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
        metrics: measured on held-out pictures, fractions in 0…1; ``n`` says how many. Where none were held out, by
            cross-validation, with the ``standard_error`` of ``top1``.
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
        rejection: price of every threshold that ``reject_below`` could be; None where no answers were judged.
        novelty: of a graph that tells pictures of none of the classes; None where it does not.
        ground: mean brightness, 0…1, of the training pictures' borders where they are marks on one plain ground and the
            network is grey, as of ink on paper; None otherwise. See ``toolkit.data.pixels.ground``.
        members: of an ensemble, whose answers are averaged; empty for a bundle of one network seeing one crop. The
            ``preprocessing`` above is then that of the largest input among them, which the ``pixels`` signature takes.
        crops: of a picture that each member is shown at each scale, see ``toolkit.ensemble.crops.plan_crops``.
        scales: shorter sides that a picture is resized to; empty for the members' own.
        timings: what the recommendation was made by: the engines that had passed; None where they were not timed.
        recipes: by kind of LiteRT file, a digest of all that it follows from (``toolkit.compress.changes``), where it
            was quantized after training: who is asked for the same again knows it.
        licence: of the published weights that training began with; empty where it is not known, or began with none.
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
    novelty: NoveltyFacts | None = None
    rejection: RejectionCurve | None = None
    licence: str = ""

    @property
    def subset(self) -> str:
        """Kind of the pictures that ``metrics`` were measured on: ``held-out`` or ``out-of-fold``."""
        return "out-of-fold" if "standard_error" in self.metrics else "held-out"


def read_manifest(version_dir: Path) -> Manifest:
    """Read and check a manifest against the schema.

    Raises:
        UserError: missing, not JSON, or not of this schema.
    """
    import pydantic

    path = version_dir / MANIFEST
    try:
        manifest = _schema().validate_json(path.read_bytes())
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


@functools.cache  # making it takes far longer than reading a manifest by it
def _schema() -> "pydantic.TypeAdapter[Manifest]":
    import pydantic

    return pydantic.TypeAdapter(Manifest)


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


def sha256_of(path: Path) -> str:
    """Compute the lower-case hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
