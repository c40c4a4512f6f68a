"""Write ``docs/networks.md`` and ``docs/weights.md`` from the catalogue: ``python docs/build.py``.

A test holds the files to what this writes.
"""

from collections import defaultdict
from pathlib import Path

from toolkit.catalogue import list_models, model_info
from toolkit.spec import ModelInfo

DOCS = Path(__file__).parent


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


if __name__ == "__main__":
    (DOCS / "networks.md").write_text(networks(), encoding="utf-8")
    (DOCS / "weights.md").write_text(weights(), encoding="utf-8")
