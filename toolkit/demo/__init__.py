"""The visitor's page: open it, drop a picture in, see what the network says.

Importing this package loads neither Gradio nor a framework; the functions below do.
"""

from toolkit.demo.server import Access, build_demo, launch

__all__ = ["Access", "build_demo", "launch"]
