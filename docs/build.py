"""Write ``docs/networks.md`` from the registry: ``python docs/build.py``. A test holds the file to what this writes."""

from collections import defaultdict
from pathlib import Path

from toolkit.registry import list_models, model_info
from toolkit.spec import ModelInfo

OUT = Path(__file__).with_name("networks.md")


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


if __name__ == "__main__":
    OUT.write_text(networks(), encoding="utf-8")
