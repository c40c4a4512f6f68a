"""A lesson, a process of its own: ``python -m toolkit.demo.teaching.worker FOLDER``.

``toolkit.demo.teaching.lesson`` starts it. ``FOLDER`` holds ``lesson.json``; the network is written below it. What
happens leaves on stdout, a JSON document a line. The process ends when its stdin closes, so it never outlives the page.
"""

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.bundle import read_manifest, require_network
from toolkit.errors import UserError
from toolkit.lazy import without_companions
from toolkit.machine import end_with_parent
from toolkit.progress import shown_on, step

if TYPE_CHECKING:
    from toolkit.transfer import FinetuneResult

Tell = Callable[[dict[str, Any]], None]

#: Where below the lesson's folder its network is written, and under what name.
BUNDLES, NAME = "saved_models", "taught"
REPORT = "report.html"
_FORMATS = ("savedmodel", "litert")  # of the network, beside Keras's own
_MOST_SHOWN = 24  # mistakes
_TELL_EVERY = 0.15  # seconds between two tellings of how far a step has come
_NICENESS = 5  # visitors who only ask for an answer go first


def main(folder: Path) -> None:
    """Teach what ``folder`` says; the process's exit status is 0 on success."""
    tell = _claim_stdout()
    end_with_parent()  # which holds the other end of standard input and never writes
    os.nice(_NICENESS)
    logging.getLogger("toolkit").addHandler(_Told(tell))
    logging.getLogger("toolkit").setLevel(logging.INFO)
    try:
        with shown_on(_Display(tell)), without_companions():
            _teach(folder, json.loads((folder / "lesson.json").read_text()), tell)
    except Exception as error:  # whatever it is, the visitor is told one line of it
        traceback.print_exc()
        message = str(error) if isinstance(error, UserError) else ""
        tell({"event": "failed", "message": message})
        raise SystemExit(1) from None


def _teach(folder: Path, lesson: dict[str, Any], tell: Tell) -> None:
    with step("starting TensorFlow"):
        import_module("tensorflow")
        from toolkit.transfer import FinetuneOptions
        from toolkit.workflows import ExportOptions
        from toolkit.workflows.finetune import FolderOptions, fit_folder
    backbone, weights, preprocessing = lesson["backbone"], "", None
    if backbone["bundle"]:
        bundle = Path(backbone["bundle"])
        manifest = read_manifest(bundle)
        network, preprocessing = str(require_network(bundle, manifest)), manifest.preprocessing
    else:
        network, weights = backbone["network"], backbone["weights"]
    options = FolderOptions(
        cache_dir=folder / "features",
        finetuning=FinetuneOptions(unfreeze="none"),
        report=folder / REPORT if lesson["report"] else None,
        preprocessing=preprocessing,
    )
    export = ExportOptions(folder / BUNDLES / NAME, formats=_FORMATS)
    fitted = fit_folder(lesson["table"], network, weights=weights, export=export, options=options)
    tell({"event": "judged", **judged(fitted.result, fitted.folder.class_names)})
    fitted.deliver(export, options.report)


def judged(result: "FinetuneResult", class_names: tuple[str, ...]) -> dict[str, Any]:
    """Say how good a network is, by pictures that did not teach what answers: JSON-ready.

    Returns:
        ``accuracy`` and ``standard_error``, None where there are too few pictures to tell; ``n`` pictures judged;
        ``matrix``: counts by true and predicted class; ``mistakes``: the surest first, each a picture's file,
        the classes it ``is`` and was ``called``, and how much more probable the second was than the first.
    """
    import numpy as np

    from toolkit.report.classification import confusion_matrix
    from toolkit.transfer.insight import label_doubts

    own = result.judged
    document: dict[str, Any] = {
        "classes": list(class_names),
        "accuracy": result.accuracy,
        "standard_error": own.standard_error,
        "n": len(own.subset),
        "matrix": [],
        "mistakes": [],
    }
    if not len(own.subset):
        return document
    document["matrix"] = confusion_matrix(own.probabilities, np.asarray(own.subset.labels)).tolist()
    document["mistakes"] = [
        {
            "file": Path(own.subset.paths[doubt.index]).name,
            "is": class_names[doubt.given],
            "called": class_names[doubt.suggested],
            "sure": float(own.probabilities[doubt.index, doubt.suggested]),
            "margin": doubt.margin,
        }
        for doubt in label_doubts(own.probabilities, own.subset.labels, limit=_MOST_SHOWN)
    ]
    return document


class _Display:
    """Tells steps under way to the page, and how far they have come a few times a second."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._count = 0
        self._told_at: dict[int, float] = {}

    def begin(self, label: str, total: int | None, in_bytes: bool) -> int:
        self._count += 1
        self._tell({"event": "begin", "number": self._count, "label": label, "total": total})
        return self._count

    def update(self, number: int, done: int, total: int | None) -> None:
        now = time.monotonic()
        if done == total or now - self._told_at.get(number, 0.0) > _TELL_EVERY:
            self._told_at[number] = now
            self._tell({"event": "update", "number": number, "done": done, "total": total})

    def end(self, number: int) -> None:
        self._tell({"event": "end", "number": number})


class _Told(logging.Handler):
    """Tells the page what the command line would print."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.INFO)
        self._sent = tell

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "toolkit":
            self._sent({"event": "said", "text": record.getMessage()})


def _claim_stdout() -> Tell:
    """Keep stdout for what is told: whatever libraries print goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return lambda document: print(json.dumps(document), file=channel, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
