"""The page built and served, with everything shut that a visitor does not need."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.machine import bind_address, cannot_listen

if TYPE_CHECKING:
    import gradio as gr

#: Larger uploads are refused while they arrive.
MAX_FILE_SIZE = "20mb"


def build_demo(directory: str | Path = "saved_models", engine: str = "auto") -> "gr.Blocks":
    """Build the page over every bundle in ``directory``, not yet served.

    Args:
        directory: holds bundles as ``NAME/VERSION``; one bundle's own directory will do too.
        engine: what the page starts with, where a bundle has it: ``auto``, ``recommended`` or an engine's name.

    Raises:
        UserError: Gradio is not installed, there is no bundle, or no bundle can run ``engine``.
    """
    _require_gradio()
    from toolkit.demo.classifier import Classifier
    from toolkit.demo.page import build_page

    return build_page(Classifier(directory, engine=engine))


def launch(
    directory: str | Path = "saved_models",
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    engine: str = "auto",
    block: bool = True,
) -> "gr.Blocks":
    """Serve the page.

    Args:
        directory: holds bundles as ``NAME/VERSION``.
        host: address to listen on; ``0.0.0.0`` lets other machines in.
        port: port to listen on.
        engine: see ``build_demo``.
        block: serve until interrupted; otherwise return at once, and ``close()`` on the answer stops the server.

    Raises:
        UserError: see ``build_demo``; or the port is taken, or the address is not this machine's.
    """
    demo = build_demo(directory, engine)
    # Tried first: Gradio calls every failure a taken port, and only looks at the loopback address.
    bind_address(host, port).close()
    try:
        demo.launch(server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, **launch_options())
    except OSError as error:
        raise cannot_listen(error, host, port) from None  # another process was quicker
    print(f"demo at {demo.local_url} (Ctrl+C stops it)", file=sys.stderr)
    if block:
        demo.block_thread()
    return demo


def launch_options() -> dict[str, Any]:
    """Arguments for ``gr.Blocks.launch``: the page's looks, and its doors shut."""
    from toolkit.demo.page import ON_LOAD_JS, STYLE, theme

    return {
        "share": False,
        "max_file_size": MAX_FILE_SIZE,
        "allowed_paths": [],
        # Messages meant for visitors are shown all the same; anything unforeseen stays in the server's log.
        "show_error": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "inline": False,
        "footer_links": ["api"],
        "theme": theme(),
        "css_paths": [STYLE],
        "js": ON_LOAD_JS,
    }


def _require_gradio() -> None:
    # Gradio reads these when it is imported or launched. Nothing about visitors leaves this machine.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the demo needs gradio, which is not installed: pip install 'toolkit[demo]'")
