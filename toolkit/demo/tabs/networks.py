"""All networks to browse: a timeline, and a page for each."""

from typing import Any

import gradio as gr

from toolkit.bundle import Manifest
from toolkit.catalogue import list_models, model_info
from toolkit.demo import markup
from toolkit.demo.classifier import Classifier
from toolkit.demo.markup import networks as pages
from toolkit.demo.markup.timeline import timeline
from toolkit.demo.networks.drawing import drawing
from toolkit.demo.networks.tables import tables
from toolkit.demo.tabs import shared
from toolkit.demo.tabs.shared import AT_ONCE, script
from toolkit.errors import UserError

#: Shown first.
FIRST = "googlenet"


def build(classifier: Classifier, tab: gr.Tab) -> None:
    """Lay the tab out and wire it up; a network's page is written when the tab is opened."""
    networks = [model_info(name) for name in list_models()]
    page = Networks(classifier)
    titles = sorted(((f"{info.title} ({info.name})", info.name) for info in networks), key=lambda pair: pair[0].lower())
    shown = gr.HTML(timeline(networks, FIRST), js_on_load=script("networks/dots.js"), elem_id="timeline")
    listing = gr.HTML(pages.listing(networks), js_on_load=script("networks/dots.js"), elem_id="listing")
    name = gr.Dropdown(titles, value=FIRST, label=f"One of {len(networks)} networks", elem_id="network")
    card = gr.HTML(js_on_load=script("networks/marked.js"), elem_id="network-page")
    tab.select(page.show, name, card, **AT_ONCE)
    name.change(page.show, name, card, **AT_ONCE)
    for chooser in (shown, listing):
        chooser.choose(page.choose, None, name, **AT_ONCE)


class Networks:
    """The tab's handlers."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def choose(self, event: gr.EventData) -> Any:
        """Take the network whose dot or name was clicked."""
        name = shared.sent(event).get("name")
        return name if name in list_models() else gr.skip()

    def show(self, name: str) -> str:
        """Write a network's page."""
        try:
            info = model_info(str(name))
            rows = tables(name).rows
            return pages.network_card(info, rows, drawing(name, info.title), self._measured(name))
        except UserError as error:
            return markup.problem_card("No such network", f"{error}.", "Choose one of the list.")

    def _measured(self, name: str) -> list[tuple[str, Manifest]]:
        manifests = self._classifier.manifests()
        return [(bundle, manifest) for bundle, manifest in manifests.items() if manifest.model == name]
