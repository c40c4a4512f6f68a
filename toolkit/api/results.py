"""Answers of calls: the document that a command prints with ``--json``, which shows and reports itself."""

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.options import write_options
from toolkit.errors import UserError, one_line
from toolkit.files import scratch_folder, write_file

if TYPE_CHECKING:
    import keras

    from toolkit.workflows.finetune import FinetunedFolder

#: Files of a bundle unless others are asked for.
FORMATS = ("savedmodel", "litert", "int8")

_FRAME_HEIGHT = 620  # pixels of a page within a notebook
_SHOWN = 12  # pictures of a kind on a page


class Page:
    """An HTML page that fetches nothing: a notebook shows it, ``save`` writes it.

    Attributes:
        html: the whole document.
    """

    def __init__(self, html: str) -> None:
        self.html = html

    def save(self, file: str | Path) -> Path:
        """Write the page to a file, and give its path."""
        write_file(file, self.html)
        return Path(file)

    def __repr__(self) -> str:
        return f"<Page of {len(self.html):,} characters; save(FILE) writes it, a notebook shows it>"

    def _repr_html_(self) -> str:
        # In a frame, so that the page's style stays its own.
        style = f"width:100%;height:{_FRAME_HEIGHT}px;border:1px solid #8884"
        return f'<iframe style="{style}" srcdoc="{html.escape(self.html)}"></iframe>'


class Result(dict[str, Any]):
    """The answer of a call: the document that its command prints with ``--json``.

    Attributes:
        command: the call's name.
        options: of the call, by name, all of them.
    """

    command = ""
    options: dict[str, Any]

    def report(self) -> Page:
        """Make a page about the result."""
        from toolkit.report.page import document

        return Page(document(self._title(), f"<h1>{html.escape(self._title())}</h1>{self._body()}"))

    @property
    def place(self) -> Path | None:
        """Folder that the call made, which notes its options; None if it made none."""
        return None

    def resolved(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Find what the options left open.

        Args:
            options: of the call, by name.

        Returns:
            Options that take the place of those.
        """
        return {}

    def _title(self) -> str:
        return ""

    def _body(self) -> str:
        return ""

    def _lines(self) -> list[str]:
        """Say in a few lines what it came to."""
        return [self._title()]

    def __repr__(self) -> str:
        return "\n".join(map(one_line, self._lines()))

    def _repr_html_(self) -> str:
        return "<br>".join(html.escape(line) for line in repr(self).splitlines())


class Finetuned(Result):
    """A network fine-tuned on a folder, see ``toolkit.finetune``."""

    def __init__(self, document: dict[str, Any], fitted: "FinetunedFolder") -> None:
        super().__init__(document)
        self._fitted = fitted

    @property
    def model(self) -> "keras.Model":
        """The Keras network; it answers logits."""
        return self._fitted.result.model

    def report(self) -> Page:
        """Make the page about the fine-tuning: accuracy with its interval, what was tried, mistakes, the pictures."""
        with scratch_folder("toolkit-report-") as directory:
            self._fitted.write_report(directory / "report.html")
            return Page((directory / "report.html").read_text(encoding="utf-8"))

    def export(
        self,
        out: str | Path,
        *,
        examples: int = 0,
        force: bool = False,
        formats: Sequence[str] = FORMATS,
        half: bool = False,
    ) -> Path:
        """Write the network as a bundle's next version, if its engines agree.

        Args:
            out: ``saved_models/NAME``.
            examples: held-out pictures to ship in the bundle for the demo.
            force: write it even if its engines disagree.
            formats: files of the bundle, see ``toolkit.finetune``.
            half: round the weights to half precision, see ``toolkit.finetune``.

        Returns:
            The version's folder, ``saved_models/NAME/1``. The result's ``"bundle"`` and ``"metrics"`` tell of it, too.

        Raises:
            UserError: the place cannot be written, or the engines disagree.
        """
        from toolkit.api.shown import bars_for_people
        from toolkit.bundle import require_bundle_place
        from toolkit.workflows import ExportOptions

        chosen = ExportOptions(Path(out), examples, force, tuple(formats), half)
        require_bundle_place(chosen.directory, "out")
        with bars_for_people():
            self.update(self._fitted.deliver(chosen))
        self.options |= {"out": out, "examples": examples, "force": force, "formats": formats, "half": half}
        assert self.place is not None
        write_options(self.place, self.command, self.options)
        return Path(self["bundle"])

    @property
    def place(self) -> Path | None:
        """The bundle's folder for what is beside the SavedModel."""
        return place_beside(self)

    def resolved(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The network that was chosen, where there were several."""
        chosen = [own for own in self.get("networks", ()) if own["chosen"]]
        return {"model": chosen[0]["name"], "weights": chosen[0]["weights"]} if chosen else {}

    def _lines(self) -> list[str]:
        how = self["finetuning"]
        lines = [how["plan"]]
        if self["accuracy"] is not None:
            error = "" if self["standard_error"] is None else f" ± {100 * self['standard_error']:.2f}"
            measured = next(step["subset"] for step in how["steps"] if step["kept"])
            lines.append(f"accuracy {100 * self['accuracy']:.2f}{error} %, {measured}")
        return lines + ([self["bundle"]] if "bundle" in self else [])


class Trained(Result):
    """A network trained on a folder, see ``toolkit.train``."""

    @property
    def model(self) -> "keras.Model":
        """The Keras network; it answers logits."""
        from toolkit.network import load_network

        return load_network(Path(self["run"]) / "model.keras")

    def report(self) -> Page:
        """Give the run's page: accuracy, learning curves, mistakes, settings."""
        return Page((Path(self["run"]) / "report.html").read_text(encoding="utf-8"))

    def export(
        self,
        out: str | Path,
        *,
        examples: int = 0,
        force: bool = False,
        formats: Sequence[str] = FORMATS,
        half: bool = False,
    ) -> Path:
        """Write the network as a bundle's next version, see ``Finetuned.export``."""
        from toolkit.api.shown import bars_for_people
        from toolkit.workflows import ExportOptions, TrainOptions, train_folder

        chosen = ExportOptions(Path(out), examples, force, tuple(formats), half)
        with bars_for_people():
            self.update(train_folder(out=self["run"], options=TrainOptions(resume=True), export=chosen))
        return Path(self["bundle"])

    @property
    def place(self) -> Path | None:
        """The run's directory, of the host that writes there."""
        return Path(self["run"]) if "metrics" in self else None

    def resolved(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Data, network and recipe, as the run has noted them; of one that went on, all that it was begun with."""
        if self.place is None:  # the host that writes there notes it, and this one may not see the folder
            return {}
        from toolkit.training.run_dir import RunDirectory
        from toolkit.workflows.run_command import RunCommand, changed_settings

        run = RunDirectory(self["run"])
        noted = RunCommand(**run.command())
        found: dict[str, Any] = {"data": noted.data, "model": noted.model, "recipe": noted.recipe}
        if not options["resume"]:
            return found
        found |= {"set": changed_settings(noted.recipe, run.config()), "out": self["run"], "resume": None}
        found |= {name: getattr(noted, name) for name in ("weights", "smoke", "skip_bad", "join_classes", "track")}
        found["split_folders"] = noted.source.named_splits
        if exported := noted.export_options():
            found |= {"export": exported.directory, "examples": exported.num_examples}
            found |= {"force": exported.force, "formats": exported.formats, "half": exported.half}
        return found

    def _lines(self) -> list[str]:
        lines = [accuracy_in_words(self["metrics"])] if "metrics" in self else []
        return lines + [self[key] for key in ("run", "bundle") if key in self]


class Compressed(Result):
    """A bundle's network in a smaller form, see ``toolkit.compress``."""

    def report(self) -> Page:
        """Make the page about the compression: bytes, accuracy and speed beside those of the float network.

        Raises:
            UserError: the bundle had the very file already, and nothing was measured.
        """
        if "report" not in self:
            raise UserError(f"{self['bundle']} had this {self['method']} file already: nothing was measured")
        from toolkit.compress.report import report_page

        return Page(report_page(self["report"]))

    @property
    def place(self) -> Path | None:
        """The new version's folder for what is beside the SavedModel; None if none was written."""
        return place_beside(self) if self["written"] else None

    def _lines(self) -> list[str]:
        if "report" not in self:
            return [f"{self['bundle']} has this {self['method']} file already: nothing was written"]
        verdict = self["report"]["rows"][-1]["verdict"]
        return [f"{self['method']}: {self['bytes']:,} bytes, in float {self['float_bytes']:,}", verdict, self["bundle"]]


class Evaluated(Result):
    """A bundle's accuracy on a folder, see ``toolkit.evaluate``."""

    def _title(self) -> str:
        return f"{accuracy_in_words(self)}, {self['engine']}"

    def _lines(self) -> list[str]:
        return [self._title(), f"measured on {self['pictures']}"]

    def _body(self) -> str:
        from toolkit.metrics import confidence_interval
        from toolkit.report.page import beside, headline, table

        interval = confidence_interval(self["top1"], self["n"], self.get("standard_error"))
        shown = headline(self["top1"], "Accuracy", *interval, html.escape(self["pictures"]))
        tables = [table("Classes", ["class", "recall %"], [list(row) for row in self["per_class"].items()])]
        if self["confusions"]:
            tables.append(table("Most frequent mistakes", ["is", "was called", "times"], self["confusions"]))
        return f'<div class="headlines">{shown}</div>{beside(*tables)}'


class Checked(Result):
    """Findings in a folder of pictures, see ``toolkit.check``."""

    def _title(self) -> str:
        return f"{self['source']}: {self['n']:,} pictures in {len(self['classes'])} classes"

    def _lines(self) -> list[str]:
        return [self._title(), *(f"- {line}" for line in self["warnings"] or ["nothing found to complain about"])]

    def _body(self) -> str:
        from toolkit.report.page import table

        warnings = self["warnings"] or ["nothing found to complain about"]
        subsets = self["split"]
        rows = [[name, count, *(own[name] for own in subsets.values())] for name, count in self["classes"].items()]
        parts = [f"<ul>{''.join(f'<li>{html.escape(one_line(line))}</li>' for line in warnings)}</ul>"]
        parts.append(table("Classes", ["class", "pictures", *subsets], rows))
        for heading, key in (("Identical", "duplicates"), ("Alike", "near_duplicates")):
            groups = self[key]
            parts += [f"<h2>{heading}: {len(groups):,}</h2>"] if groups else []
            parts += [self._pictures(group[:3], ", ".join(group[:3])) for group in groups[:_SHOWN]]
        odd = self["odd_sizes"]
        parts += [f"<h2>Of an odd size: {len(odd):,}</h2>"] if odd else []
        parts += [self._pictures([row["path"]], f"{row['path']}: {row['reason']}") for row in odd[:_SHOWN]]
        return "".join(parts)

    def _pictures(self, paths: Iterable[str], caption: str) -> str:
        from toolkit.report.page import thumbnails

        return thumbnails(_readable([Path(self["root"]) / path for path in paths]), caption)


class Predictions(list[dict[str, Any]]):
    """Answers of a bundle, one a picture, see ``toolkit.predict``; a notebook shows them beside the pictures."""

    def __init__(self, rows: Iterable[dict[str, Any]], pictures: Sequence[Any]) -> None:
        super().__init__(rows)
        self._pictures = pictures

    @property
    def labels(self) -> list[str | None]:
        """The likeliest class of each picture; None of one that was refused or could not be read."""
        return [None if "error" in row or row["rejected"] else row["predictions"][0]["label"] for row in self]

    def report(self) -> Page:
        """Make a page of the pictures and their answers."""
        from toolkit.report.page import document

        title = f"{len(self):,} pictures"
        return Page(document(title, f"<h1>{title}</h1>{self._figures(len(self))}"))

    def __repr__(self) -> str:
        return "\n".join(one_line(f"{row['path']}: {_said(row)}") for row in self)

    def _repr_html_(self) -> str:
        from toolkit.report.page import STYLE

        more = f"<p>… and {len(self) - _SHOWN:,} more</p>" if len(self) > _SHOWN else ""
        style = "".join(line for line in STYLE.splitlines(keepends=True) if line.startswith("figure"))
        return f"<style>{style}</style>{self._figures(_SHOWN)}{more}"

    def _figures(self, most: int) -> str:
        from toolkit.report.page import thumbnails

        shown = zip(self._pictures[:most], self[:most], strict=True)
        return "".join(thumbnails(_readable([picture]), f"{row['path']}: {_said(row)}") for picture, row in shown)


def _said(row: dict[str, Any]) -> str:
    """Word an answer.

    >>> _said({"predictions": [{"label": "ant", "probability": 0.9}], "rejected": True})
    'none of these (ant 90.0 %)'
    """
    if "error" in row:
        return row["error"]
    named = ", ".join(f"{own['label']} {100 * own['probability']:.1f} %" for own in row["predictions"])
    return f"none of these ({named})" if row["rejected"] else named


def _readable(pictures: Iterable[Any]) -> list[Any]:
    """Decode pictures of any kind, leaving out those that cannot be read."""
    from toolkit.data import ImageError
    from toolkit.data.pixels.decode import read_rgb
    from toolkit.inference.images import image_source

    found = []
    for picture in pictures:
        try:
            found.append(read_rgb(image_source(picture)))
        except ImageError:
            continue
    return found


def place_beside(result: Result) -> Path | None:
    """Give the folder of a bundle's files beside the SavedModel, if the result has a bundle."""
    from toolkit.bundle import EXTRA

    return Path(result["bundle"]) / EXTRA if "bundle" in result else None


def accuracy_in_words(metrics: dict[str, Any]) -> str:
    """Word an accuracy.

    >>> accuracy_in_words({"subset": "test", "top1": 0.9, "n": 1000})
    'test accuracy 90.00 % (1,000 pictures)'
    """
    known = {"train": "train ", "val": "validation ", "test": "test "}
    return f"{known.get(metrics['subset'], '')}accuracy {100 * metrics['top1']:.2f} % ({metrics['n']:,} pictures)"
