"""Write pages from the catalogue, from docstrings and from recorded runs: ``python docs/build.py``.

A test holds the files to what this writes.
"""

import inspect
import re
import runpy
from collections import defaultdict
from pathlib import Path

import toolkit
from toolkit.catalogue import list_models, model_info
from toolkit.spec import ModelInfo

DOCS = Path(__file__).parent
#: Pages of the public names: each with its title, and the modules that the names are from.
_PYTHON = {
    "data": ("Pictures", ("toolkit.data",)),
    "networks": (
        "Networks, weights, checks",
        ("toolkit.api.networks", "toolkit.catalogue", "toolkit.factory", "toolkit.spec"),
    ),
    "training": ("Training and fine-tuning", ("toolkit.api.training", "toolkit.api.transfer")),
    "answers": (
        "Predictions and explanations",
        ("toolkit.api.predicting", "toolkit.api.explaining", "toolkit.inference"),
    ),
    "bundles": ("Bundles", ("toolkit.api.bundles",)),
    "servers": ("Servers, this machine, errors", ("toolkit.client", "toolkit.api.doctor", "toolkit.errors")),
}
RESULTS = runpy.run_path(str(DOCS / "results.py"))


def results() -> str:
    """The page of measured figures as Markdown."""
    return RESULTS["page"]()


def networks() -> str:
    """The page as Markdown: a table per paper, and what differs from the paper."""
    papers: defaultdict[tuple[int, str], list[ModelInfo]] = defaultdict(list)
    for info in map(model_info, list_models()):
        papers[info.year, info.paper].append(info)
    lines = [
        "# Networks",
        "",
        "Trainable parameters and multiply-adds for one picture, of the default variant at its default input; tests",
        "recompute both. Written by `python docs/build.py`.",
    ]
    for (_, paper), infos in sorted(papers.items()):
        header = ["| name | network | input | parameters | multiply-adds |", "|---|---|---|---|---|"]
        lines += ["", f"## {paper}", "", *header]
        infos.sort(key=lambda info: (info.title.split("-")[0], info.num_params, info.name))
        for info in infos:
            size = "×".join(map(str, info.input_shape))
            lines.append(f"| `{info.name}` | {info.title} | {size} | {info.num_params:,} | {info.macs:,} |")
        shared = [text for text in infos[0].deviations if all(text in info.deviations for info in infos)]
        lines += ["", *(f"- {text}" for text in shared)]
        for info in infos:
            own = [text for text in info.deviations if text not in shared]
            lines += [f"- `{info.name}`: {text}" for text in own]
    return "\n".join(lines) + "\n"


def weights() -> str:
    """The page of published weights as Markdown."""
    lines = [
        "# Published weights",
        "",
        "Tags for `create_model(NAME, weights=TAG)`; `imagenet` stands for the one in bold. Accuracies are those",
        "published at the place named, not measured here. `toolkit weights list NAME` tells what is here. Written",
        "by `python docs/build.py`.",
        "",
        "| network | tag | top-1 % | top-5 % | published in | licence |",
        "|---|---|---|---|---|---|",
    ]
    without: defaultdict[str, list[str]] = defaultdict(list)
    for info in map(model_info, list_models()):
        best = info.weights["imagenet"].tag if "imagenet" in info.weights else ""
        for tag, entry in sorted(info.weights.items()):
            if tag == entry.tag:
                shown = f"**`{tag}`**" if tag == best else f"`{tag}`"
                top1, top5 = (f"{100 * share:.2f}" if share else "–" for share in (entry.top1, entry.top5))
                lines.append(
                    f"| `{info.name}` | {shown} | {top1} | {top5} | {entry.published_in} | {entry.licence or '–'} |"
                )
        if not info.weights:
            without[info.weights_note].append(f"`{info.name}`")
    lines += ["", "None were published, or none that fit:", ""]
    lines += [f"- {', '.join(names)}: {note}" for note, names in without.items()]
    return "\n".join(lines) + "\n"


def python() -> dict[str, str]:
    """The pages of the public names, from their docstrings, as Markdown: an overview, and one a kind of work."""
    lines = [
        "# Python",
        "",
        "What the command line does, one call does, with the same names: `toolkit finetune photos --model vgg16` is",
        '`toolkit.finetune("photos", model="vgg16")`. Results are what `--json` prints, and show themselves in a',
        "notebook; [one of ten cells](notebooks/fine_tune.ipynb) does the main job. Written by `python docs/build.py`.",
    ]
    pages = {}
    for page, (title, modules) in _PYTHON.items():
        names = [name for name, home in toolkit._HOME.items() if home.startswith(modules)]
        things = {name: getattr(toolkit, name) for name in sorted(names, key=str.lower)}
        lines += ["", f"## {title}", "", "| name | |", "|---|---|"]
        for name, thing in things.items():
            [first, *_] = _documentation(thing)
            lines.append(f"| [`{name}`](python/{page}.md#{name.lower()}) | {first} |")
        pages[f"python/{page}.md"] = _python_page(title, things)
    listed = "\n".join(lines) + "\n"
    missing = [name for name in toolkit._HOME if f"| [`{name}`]" not in listed]
    if missing:
        raise ValueError(f"no page of _PYTHON has {', '.join(missing)}; name the module that they are from")
    return {"python.md": listed, **pages}


def _python_page(title: str, things: dict[str, object]) -> str:
    lines = [f"# {title}"]
    for name, thing in things.items():
        lines += ["", f"## `{name}`", "", *_signature(name, thing), *_documentation(thing)]
        if inspect.isclass(thing):
            for method, function in vars(thing).items():
                function = getattr(function, "__func__", function)
                if not method.startswith("_") and inspect.isfunction(function):
                    lines += [
                        "",
                        f"### `{name}.{method}`",
                        "",
                        *_signature(method, function),
                        *_documentation(function),
                    ]
    return "\n".join(lines) + "\n"


def _signature(name: str, thing: object) -> list[str]:
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return []
    given = inspect.signature(thing).parameters.values()
    parameters, kinds = [str(parameter) for parameter in given], [parameter.kind for parameter in given]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parameters.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    clutter = r"collections\.abc\.|typing\.|os\.(?=PathLike)|toolkit[\w.]*\.(?=[A-Z])|pathlib\."
    parameters = [re.sub(clutter, "", parameter) for parameter in parameters]
    written = f"{name}({', '.join(parameters)})"
    if len(written) > 100:
        written = "\n".join([f"{name}(", *(f"    {parameter}," for parameter in parameters), ")"])
    return ["```python", written, "```", ""]


def _documentation(thing: object) -> list[str]:
    """Turn a docstring into Markdown: sections into lists, examples into blocks."""
    call = toolkit._call_of(thing) if inspect.ismodule(thing) else thing
    found, section = [], ""
    for paragraph in (inspect.getdoc(call) or "").split("\n\n"):
        head, _, rest = paragraph.partition("\n")
        if head in ("Args:", "Attributes:", "Returns:", "Raises:", "Yields:"):
            section, paragraph = head, inspect.cleandoc(" \n" + rest)
            found += [f"**{head.rstrip(':')}**", ""]
        if paragraph.startswith(">>>"):
            found += ["```python", paragraph.replace("  # doctest: +SKIP", ""), "```", ""]
        elif section in ("Args:", "Attributes:"):
            found += [re.sub(r"^(\*{0,2}\w+):", r"- `\1`:", paragraph, flags=re.MULTILINE), ""]
        else:
            found += [paragraph, ""]
        section = section if head.startswith(" ") or head in ("Args:", "Attributes:") else ""
    return re.sub("``", "`", "\n".join(found).rstrip().replace("```", "\0")).replace("\0", "```").splitlines()


def written() -> dict[str, str]:
    """All that is written here: texts by their paths below ``docs``."""
    return {"networks.md": networks(), "weights.md": weights(), "results.md": results(), **python()}


if __name__ == "__main__":
    for path, text in written().items():
        (DOCS / path).parent.mkdir(exist_ok=True)
        (DOCS / path).write_text(text, encoding="utf-8")
    for chart in RESULTS["charts"]():
        (RESULTS["PICTURES"] / f"{chart.name}.svg").write_bytes(chart.svg())
