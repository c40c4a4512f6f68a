"""HTML for all that Gradio has no component for: ``parts`` for all tabs, and a module for each tab."""

from toolkit.demo.markup.batch import tiles, working
from toolkit.demo.markup.classify import (
    about,
    accepted,
    answer_card,
    drawing,
    examples_strip,
    nothing_yet,
    threshold,
)
from toolkit.demo.markup.parts import HEADER, data_url, escape, milliseconds, percent, problem_card, thumbnail

__all__ = [
    "HEADER",
    "about",
    "accepted",
    "answer_card",
    "data_url",
    "drawing",
    "escape",
    "examples_strip",
    "milliseconds",
    "nothing_yet",
    "percent",
    "problem_card",
    "threshold",
    "thumbnail",
    "tiles",
    "working",
]
