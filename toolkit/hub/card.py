"""Model card of a bundle: what its manifest tells, for people who look at it on the hub."""

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.bundle import Manifest
from toolkit.errors import one_line
from toolkit.hub.address import HubAddress
from toolkit.metrics import confidence_interval

#: SPDX identifiers whose lower-case form the hub knows.
_KNOWN = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT")
_LISTED = 200  # labels


@dataclass(frozen=True)
class CardFacts:
    """Facts for a card beside those in the manifest.

    Attributes:
        num_pictures: by subset, how many pictures the bundle was made with; empty where it does not know.
        licence: of the weights; empty where nobody knows.
        files: by name, what the files beside the bundle's own are.
    """

    num_pictures: Mapping[str, int] = field(default_factory=dict)
    licence: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def model_card(manifest: Manifest, address: HubAddress, facts: CardFacts) -> str:
    """Write a bundle's model card: the hub's metadata as YAML, then Markdown.

    Args:
        manifest: the bundle's.
        address: where it is going to be, with its version.
        facts: what the manifest does not tell.
    """
    name = _plain(manifest.name)
    members = " · ".join(f"{_plain(member.model)} ({_plain(member.name)})" for member in manifest.members)
    parts = [
        f"---\n{_metadata(manifest, facts)}\n---",
        f"# {name}",
        f"An image classifier of {len(manifest.labels):,} classes: {members or _plain(manifest.model)}, "
        f"{manifest.num_params:,} trainable parameters. It takes pictures of any size and format and answers "
        "probabilities.",
        f"```python\nfrom toolkit import Predictor\n\npredictor = Predictor.load({str(address)!r})\n"
        'predictor.predict("photo.jpg")\n```',
        f"To serve it: `toolkit pull {address} saved_models/NAME`, then `toolkit serve saved_models`. It is a "
        "TensorFlow SavedModel, too, with LiteRT files in `assets.extra`.",
        "## Accuracy",
        _accuracy(manifest),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(manifest, facts)),
        "## Labels",
        _labels(manifest.labels),
        "## Pictures and weights",
        "\n".join(f"- {line}" for line in _origin(manifest, facts)),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(manifest: Manifest, facts: CardFacts) -> str:
    import yaml

    document: dict[str, Any] = {
        "library_name": "toolkit",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "keras", "tensorflow", "litert"],
    }
    if facts.licence:
        spdx = facts.licence.split(" ")[0]
        known = {one.lower(): one for one in _KNOWN}
        document["license"] = spdx.lower() if spdx.lower() in known else "other"
        if document["license"] == "other":
            document["license_name"] = one_line(facts.licence)
    if scores := _scores(manifest):
        results = [{"type": "accuracy", "name": title, "value": round(share, 4)} for title, share, _ in scores]
        pictures = {"type": "imagefolder", "name": _pictures(manifest), "split": "test"}
        result = {"task": {"type": "image-classification"}, "dataset": pictures, "metrics": results}
        document["model-index"] = [{"name": manifest.name, "results": [result]}]
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False).strip()


def _scores(manifest: Manifest) -> list[tuple[str, float, tuple[float, float]]]:
    """Accuracies with the bounds between which they lie at 95 % confidence."""
    metrics, found = manifest.metrics, []
    count, error = int(metrics.get("n", 0)), metrics.get("standard_error")
    for key, title in (("top1", "top-1"), ("top5", "top-5")):
        if key not in metrics or not count or (key == "top5" and len(manifest.labels) <= 5):
            continue
        share = float(metrics[key])
        known = error if key == "top1" and error is not None and math.isfinite(error) else None
        found.append((title, share, confidence_interval(share, count, known)))
    return found


def _pictures(manifest: Manifest) -> str:
    kind = "by cross-validation" if manifest.subset == "out-of-fold" else "held-out pictures"
    return f"{int(manifest.metrics.get('n', 0)):,} {kind}"


def _accuracy(manifest: Manifest) -> str:
    scores = _scores(manifest)
    if not scores:
        return "Its accuracy was not measured: no pictures are known that it was not taught with."
    pictures = f"{int(manifest.metrics['n']):,} pictures " + (
        "by cross-validation" if manifest.subset == "out-of-fold" else "held out from training"
    )
    rows = [
        f"| {title} accuracy | {100 * share:.2f} % | {100 * low:.1f} – {100 * high:.1f} % |"
        for title, share, (low, high) in scores
    ]
    shown = ["| | value | 95 % interval |", "|---|---|---|", *rows]
    engines = [
        f"| {_plain(engine)} | {_percent(manifest.metrics.get(f'top1_{engine}'))} | {difference:.1e} |"
        for engine, difference in manifest.parity.items()
    ]
    if engines:
        shown += ["", "| engine | top-1 | largest difference in probability from Keras |", "|---|---|---|", *engines]
    return f"Measured on {pictures}.\n\n" + "\n".join(shown)


def _limits(manifest: Manifest, facts: CardFacts) -> list[str]:
    size = "×".join(map(str, manifest.preprocessing.size))
    lines = [f"It sees a picture at {size} pixels: what is too small to be seen there, it does not see."]
    if manifest.novelty is not None:
        lines.append(
            "It tells pictures of none of its classes by their distance from those that taught it, and errs in "
            f"at most {100 * manifest.novelty.false_rejects:.0f} % of pictures that are of one."
        )
    elif manifest.reject_below is not None:
        lines.append(
            f"An answer less probable than {100 * manifest.reject_below:.1f} % may be refused as none of its classes; "
            "one right answer in twenty is refused with them."
        )
    else:
        lines.append("It answers one of its classes whatever the picture shows.")
    lines.append("Its accuracy holds for pictures like those it was measured on, and says nothing of others.")
    if manifest.temperature is None:
        lines.append("Its probabilities are not calibrated.")
    if facts.num_pictures and facts.num_pictures.get("train", 0) < 20 * len(manifest.labels):
        lines.append(f"It was taught by few pictures: {facts.num_pictures['train']:,} for all of its classes.")
    lines += [f"Written although {_plain(reason)}." for reason in manifest.forced]
    return lines


def _labels(labels: tuple[str, ...]) -> str:
    shown = ", ".join(_plain(label) for label in labels[:_LISTED])
    more = f" and {len(labels) - _LISTED:,} more, in `assets/labels.txt`" if len(labels) > _LISTED else ""
    return f"{len(labels):,}, in output order: {shown}{more}."


def _origin(manifest: Manifest, facts: CardFacts) -> list[str]:
    lines = []
    if facts.num_pictures:
        words = {"train": "teaching", "val": "choosing settings", "test": "measuring"}
        counts = (f"{count:,} for {words[subset]}" for subset, count in facts.num_pictures.items() if count)
        lines.append(f"Pictures: {', '.join(counts)}. They are not in here, except for examples where it has some.")
    lines.append(f"Licence of the weights: {_plain(facts.licence) or 'not known; ask who pushed them'}.")
    lines += [f"`{name}`: {what}" for name, what in facts.files.items()]
    versions = ", ".join(f"{_plain(package)} {_plain(version)}" for package, version in manifest.versions.items())
    return [*lines, f"Made with {versions}."]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def _plain(text: str) -> str:
    """Keep names from being taken for Markdown or HTML."""
    text = html.escape(one_line(text), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#~" else letter for letter in text)
