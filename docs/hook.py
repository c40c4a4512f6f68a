"""Notebooks as pages of the site: MkDocs calls these functions by their names."""

import html
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook, which stays beside it to be downloaded."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        document = json.loads(Path(file.abs_src_path).read_text(encoding="utf-8"))
        page = as_markdown(document, Path(file.src_uri).name)
        files.append(File.generated(config, re.sub("ipynb$", "md", file.src_uri), content=page))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links to notebooks lead to their pages."""
    if page.file.src_uri.startswith("notebooks/"):
        return markdown
    return re.sub(r"\((notebooks/\w+)\.ipynb\)", r"(\1.md)", markdown)


def as_markdown(document: dict[str, Any], name: str) -> str:
    """Write a notebook as Markdown: its texts as they are, its cells as code, and what they showed below them."""
    parts = []
    for cell in document["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [_shown(output.get("data") or {"text/plain": output["text"]}) for output in cell["outputs"]]
    title, _, rest = "\n\n".join(parts).partition("\n\n")
    return f"{title}\n\n[The notebook]({name})\n\n{rest}\n"


def _shown(data: dict[str, Any]) -> str:
    if "text/html" in data:
        found = "".join(data["text/html"])
    elif "image/png" in data:
        found = f'<img alt="" src="data:image/png;base64,{data["image/png"].strip()}">'
    else:
        found = f"<pre>{html.escape(''.join(data['text/plain']))}</pre>"
    # A blank line would end the block for Markdown.
    found = re.sub(r"\n\s*\n", "\n", found)
    return f'<div class="output">\n{found}\n</div>'
