"""The page: a tab for each thing to do."""

import gradio as gr

from toolkit.demo import markup
from toolkit.demo.classifier import Classifier
from toolkit.demo.tabs import classify, compare
from toolkit.demo.tabs.shared import CONCURRENCY, DELETE_CACHE, QUEUE_SIZE


def build_page(classifier: Classifier) -> gr.Blocks:
    """Lay the page out and wire it up."""
    with gr.Blocks(title="toolkit demo", analytics_enabled=False, delete_cache=DELETE_CACHE) as demo:
        gr.HTML(markup.HEADER)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Classify", id="classify"):
                picture = classify.build(classifier)
            with gr.Tab("Compare", id="compare") as tab:
                compare.build(classifier, tab, picture)
    demo.queue(max_size=QUEUE_SIZE, default_concurrency_limit=CONCURRENCY)
    return demo
