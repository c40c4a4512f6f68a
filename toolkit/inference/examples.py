"""A bundle's answers to the pictures that it brings, beside their true labels."""

from pathlib import Path
from typing import Any

from toolkit.bundle import find_bundle, read_examples
from toolkit.errors import UserError
from toolkit.inference.predictor import Predictor
from toolkit.progress import step


def answer_examples(bundle: str | Path, engine: str = "auto") -> dict[str, Any]:
    """Classify a bundle's own example pictures.

    Args:
        bundle: ``…/NAME/VERSION``, or ``…/NAME`` for its highest version.
        engine: see ``Predictor.load``.

    Returns:
        ``{"bundle", "engine", "rows"}`` with a row ``{"path", "true_label", "label", "probability", "rejected"}`` per
        picture; ``true_label`` is None where the bundle does not tell it.

    Raises:
        UserError: the bundle brings none, or cannot be opened.
    """
    version_dir = find_bundle(bundle, shipped=True)
    examples = read_examples(version_dir)
    if not examples:
        raise UserError(f"{version_dir}: brings no example pictures; export it with --examples N")
    with step("classifying the examples"):
        predictor = Predictor.load(version_dir, engine)
        answers = list(predictor.answers([example.path for example in examples]))
    rows = []
    for example, answer in zip(examples, answers, strict=True):
        (best,) = predictor.top(answer.probabilities, 1)
        found = {"label": best.label, "probability": best.probability, "rejected": predictor.is_rejected(answer)}
        rows.append({"path": str(example.path), "true_label": example.label} | found)
    return {"bundle": str(version_dir), "engine": predictor.engine_name, "rows": rows}
