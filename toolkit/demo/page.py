"""The page: a tab for each thing to do."""

import gradio as gr

from toolkit.demo import markup, uploads
from toolkit.demo.classifier import Classifier
from toolkit.demo.quota import Quota
from toolkit.demo.tabs import classify, compare, inside, networks, teach
from toolkit.demo.tabs.shared import CONCURRENCY, DELETE_CACHE, QUEUE_SIZE
from toolkit.demo.teaching.school import School


def build_page(classifier: Classifier, quota: Quota, school: School | None) -> gr.Blocks:
    """Lay the page out and wire it up.

    Args:
        classifier: over the bundles, and those of ``school``.
        quota: for the files of all visitors.
        school: of visitors who teach; None where nobody may.
    """
    with gr.Blocks(title="toolkit demo", analytics_enabled=False, delete_cache=DELETE_CACHE) as demo:
        gr.HTML(markup.HEADER)
        own = gr.State(())  # the visitor's own bundles, as choices
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Classify", id="classify"):
                picture, classifying = classify.build(classifier, quota)
            with gr.Tab("Compare", id="compare") as tab:
                comparing = compare.build(classifier, tab, picture, own)
            if school is not None:
                with gr.Tab("Teach", id="teach"):
                    teaching = teach.Teaching(classifier, school, quota)
                    frame = teach.build(teaching)
            with gr.Tab("Look inside", id="inside") as tab:
                looking = inside.build(classifier, tab, picture, classifying)
            with gr.Tab("Networks", id="networks") as tab:
                networks.build(classifier, tab)
        if school is not None:
            teach.offer(teaching, frame, tabs, own, (classifying, looking, comparing))
        demo.unload(release)
    uploads.refuse_addresses(demo)
    demo.queue(max_size=QUEUE_SIZE, default_concurrency_limit=CONCURRENCY)
    return demo


def release(request: gr.Request) -> None:
    """Let go of the uploads of a page that was closed."""
    uploads.release(str(request.session_hash))
