"""The markup of teaching: the frame that the page's script fills, and what a lesson came to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toolkit.demo.markup.parts import bundle_name, escape, percent
from toolkit.demo.teaching.backbones import Start
from toolkit.demo.teaching.lesson import Told
from toolkit.demo.teaching.limits import MEGABYTE, Limits

#: From this much more probable on, another class than the picture's own puts its label in doubt.
DOUBT = 0.5
_KINDS = {"photographs": "photographs", "small": "small pictures", "drawings": "letters and drawings"}
_MAX_MATRIX = 20  # classes
_NAMED = 3  # classes by which a network is known

# What a lesson is made of, in order, with the seconds that each takes about, so that one bar can stand for all of it.
_PLAN = {
    "starting TensorFlow": 5.0,
    "reading pictures": 0.5,
    "building the network": 1.5,
    "computing features": 3.0,
    "choosing the classifier": 0.7,
    "writing the report": 1.0,
    "classifying held-out pictures": 2.0,
    "writing the SavedModel": 3.0,
    "writing a LiteRT file": 1.5,
    "opening engines": 1.0,
    "comparing engines on held-out pictures": 3.0,
    "timing engines": 0.5,
}


def teach_frame(limits: Limits) -> str:
    """Write the tab's frame, which ``assets/teach.js`` fills and keeps."""
    room = f"{limits.num_pictures:,} pictures, {limits.num_bytes // MEGABYTE:,} MB"
    return f"""<div class="tt">
<p class="tt-lead">Show it about twenty pictures of each thing. In seconds, a network on this server learns to tell \
them apart. <span>What you give is seen by nobody else and gone when you close this page.</span></p>
<div class="tt-columns">
<div class="tt-left">
<div class="tt-classes"></div>
<div class="tt-more"><button type="button" class="tt-plus">+ Add a class</button>
<p class="tt-zip">Or drop a folder of class folders here, or a zip of one. Choose \
<label>a folder<input type="file" webkitdirectory data-folder></label> or \
<label>a zip<input type="file" accept=".zip,application/zip" data-zip></label> (at most {room}).</p></div>
<div class="tt-problems" role="alert"></div>
<div class="tt-findings" aria-live="polite"></div>
</div>
<div class="tt-right">
<section class="tt-card tt-lesson" data-state="empty">
<label class="tt-from">Start from <select data-network aria-label="Network to start from"></select></label>
<p class="tt-advice"></p>
<button type="button" class="tt-go" disabled>Teach</button>
<p class="tt-need" aria-live="polite"></p>
<div class="tt-progress" hidden>
<div class="tt-bar" role="progressbar" aria-label="The lesson" aria-valuemin="0" aria-valuemax="100"><i></i></div>
<p class="tt-now" aria-live="polite"></p><ol class="tt-steps"></ol></div>
<div class="tt-score" aria-live="polite"></div>
</section>
<section class="tt-card tt-try" hidden>
<h3>Try it</h3>
<div class="tt-tools"><label class="tt-button">Choose a picture\
<input type="file" accept="image/*,.heic,.tif,.tiff" data-try></label>
<button type="button" class="tt-button" data-live>Webcam</button></div>
<div class="tt-seen" hidden></div>
<div class="tt-answer" aria-live="polite"></div>
<p class="tt-take">Put it to work: <button type="button" data-open="classify">in Classify</button>
<button type="button" data-open="compare">in Compare</button></p>
<p class="tt-take">Take it home: <button type="button" data-download="bundle">the network</button>
<button type="button" data-download="report">the report</button></p>
</section>
</div>
</div>
<div class="tt-results"></div>
</div>"""


def start_title(start: Start) -> str:
    """Name a network to start from, with what it is for."""
    return f"{start.name}, for {_KINDS[start.kind]}"


def advice(start: Start) -> str:
    """Say honestly what a network is good for as a start.

    A network that was trained on small grey pictures has seen strokes, and nothing of what photographs show.
    """
    height, width = start.preprocessing.size
    colour = "grey" if start.kind == "drawings" else "colour"
    right = "" if start.top1 is None else f" ({100 * start.top1:.0f} % right)"
    sees = (
        f"{start.title} with {start.num_params:,} parameters sees {width} × {height} pixels in {colour}, and was "
        f"taught to tell {start.num_classes:,} classes apart{right}"
    )
    if start.kind == "drawings":
        return f"{sees}. Good for letters, signs and drawings; photographs are hard for it."
    if start.kind == "small":
        return f"{sees}. It tells colours and coarse shapes apart, and sees little detail."
    return f"{sees}. Good for photographs."


def own_name(bundle: str, labels: Sequence[str]) -> str:
    """Name what a visitor taught, for lists of networks.

    >>> own_name("yours/x7_k/2", ("ant", "bee", "cat", "dog"))
    'yours/2: ant, bee, cat …'
    """
    shown = ", ".join(labels[:_NAMED]) + (" …" if len(labels) > _NAMED else "")
    return f"{bundle_name(bundle)}: {shown}"


def lesson_share(steps: Sequence[Told]) -> float:
    """Estimate how much of a lesson is done, 0…1, from the steps so far.

    >>> lesson_share([])
    0.0
    """
    done = 0.0
    for step in steps:
        part = 1.0 if step.seconds is not None else step.done / step.total if step.total else 0.3
        done += _PLAN.get(step.label, 0.0) * part
    return min(1.0, done / sum(_PLAN.values()))


def score(judged: Mapping[str, Any]) -> str:
    """Write the accuracy with its error, and how it was measured; or that it could not be."""
    accuracy, error = judged["accuracy"], judged["standard_error"]
    if accuracy is None:
        return (
            '<p class="tt-figure tt-unknown">not measured</p><p class="tt-hint">There are too few pictures to tell how '
            "good it is. Give it more of each class.</p>"
        )
    spread = f' <small title="standard error">± {100 * error:.0f}</small>' if error is not None else ""
    return (
        f'<p class="tt-figure"><b>{100 * accuracy:.0f} %</b>{spread} right</p>'
        f'<p class="tt-hint">of {judged["n"]:,} pictures, each answered by a classifier that was fitted without it. '
        "The one you get learned from all of them.</p>"
    )


def results(judged: Mapping[str, Any], number_of: Callable[[str], int | None], thumbnail: Callable[[int], str]) -> str:
    """Write the confusion matrix and the surest mistakes as pictures; empty where nothing was judged.

    Args:
        judged: of a lesson.
        number_of: gives a class's number on the page by its name, if it is still there.
        thumbnail: gives a picture's data URL by its number, empty if it is gone.
    """
    if not judged["matrix"]:
        return ""
    return f'<div class="tt-judged">{_matrix(judged)}{_mistakes(judged, number_of, thumbnail)}</div>'


def _matrix(judged: Mapping[str, Any]) -> str:
    names, matrix = judged["classes"], judged["matrix"]
    if len(names) > _MAX_MATRIX:
        return ""
    head = "".join(f'<th scope="col" title="{escape(name)}"><span>{escape(name)}</span></th>' for name in names)
    rows = "".join(_row(index, name, row) for index, (name, row) in enumerate(zip(names, matrix, strict=True)))
    return f"""<section class="tt-card tt-confusion"><h3>Confusion matrix</h3>
<p class="tt-hint">A row for what it is, a column for what it was called.</p>
<div class="tt-scroll"><table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"""


def _row(index: int, name: str, counts: Sequence[int]) -> str:
    total = max(1, sum(counts))
    cells = "".join(
        f'<td class="{"tt-hit" if column == index else "tt-miss" if count else ""}" '
        f'style="--share:{100 * count / total:.0f}%">{count or "·"}</td>'
        for column, count in enumerate(counts)
    )
    return f'<tr><th scope="row" title="{escape(name)}"><span>{escape(name)}</span></th>{cells}</tr>'


def _mistakes(
    judged: Mapping[str, Any], number_of: Callable[[str], int | None], thumbnail: Callable[[int], str]
) -> str:
    wrong = sum(sum(row) - row[index] for index, row in enumerate(judged["matrix"]))
    figures = []
    for mistake in judged["mistakes"]:
        picture = int(mistake["file"].partition(".")[0])
        source, called = thumbnail(picture), number_of(mistake["called"])
        if source and called is not None:
            figures.append(_mistake(mistake, picture, called, source))
    if not wrong:
        return (
            '<section class="tt-card"><h3>No mistakes</h3><p class="tt-hint">No picture was called by another name.</p>'
            "</section>"
        )
    some = f" The surest {len(judged['mistakes'])} are shown." if wrong > len(judged["mistakes"]) else ""
    noun = "mistake" if wrong == 1 else "mistakes"
    return f"""<section class="tt-card tt-mistakes"><h3>{wrong} {noun}, or wrong labels?</h3>
<p class="tt-hint">The surest first.{some} Put right what is in the wrong class, take out what misleads, \
and teach again.</p>
<div class="tt-gallery">{"".join(figures)}</div></section>"""


def _mistake(mistake: Mapping[str, Any], picture: int, called: int, source: str) -> str:
    doubt = '<em class="tt-doubt">label in doubt</em>' if mistake["margin"] >= DOUBT else ""
    name = escape(mistake["called"])
    return (
        f'<figure data-picture="{picture}"><div class="tt-shot"><img src="{source}" alt="">{doubt}</div>'
        f"<figcaption>is <b>{escape(mistake['is'])}</b><br>called <b>{name}</b> {percent(mistake['sure'])}"
        f'<span><button type="button" data-move="{picture}" data-to="{called}" title="Move it to {name}">it is {name}'
        "</button>"
        f'<button type="button" data-remove="{picture}">take out</button></span></figcaption></figure>'
    )
