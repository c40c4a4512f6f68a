"""The networks to browse: tables worked out beforehand, drawings, and the timeline."""

import json
import time
from dataclasses import asdict
from xml.etree import ElementTree

import pytest

from toolkit.catalogue import list_models, model_info
from toolkit.demo.classifier import Classifier
from toolkit.demo.markup.timeline import timeline
from toolkit.demo.networks.drawing import drawing
from toolkit.demo.networks.tables import tables, work_out
from toolkit.errors import UserError

RERUN = "run `python -m toolkit.demo.networks.tables`"


@pytest.fixture(scope="module")
def page(bundles):
    from toolkit.demo.tabs.networks import Networks

    return Networks(Classifier(bundles))


@pytest.mark.parametrize("name", list_models())
def test_every_network_has_its_tables(name):
    rows, info = tables(name).rows, model_info(name)
    assert sum(row.params for row in rows) == info.num_params, RERUN
    assert sum(row.macs for row in rows) == info.macs, RERUN
    assert rows[0].output_shape == info.input_shape


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("lenet5", "xo", "resnet20") else pytest.mark.slow)
        for name in list_models()
    ],
)
def test_the_file_holds_what_the_network_gives(name):
    worked_out = json.loads(json.dumps(work_out(name)))
    held = tables(name)
    assert [list(json.loads(json.dumps(asdict(row))).values()) for row in held.rows] == worked_out["rows"], RERUN
    assert [json.loads(json.dumps(asdict(box))) for box in held.boxes] == worked_out["boxes"], RERUN


def test_a_large_network_is_shown_without_building_it(page):
    start = time.process_time()
    card = page.show("resnet152")
    assert time.process_time() - start < 2
    assert "60,192,808" in card
    assert card.count('<td class="tk-word">BatchNormalization</td>') > 150
    assert "torchvision" in card  # published weights
    assert "He, Zhang" in card or "residual learning" in card
    assert "<svg" in card


def test_what_bundles_served_here_measured_stands_on_the_page(page, bundles):
    card = page.show("lenet5")
    metrics = Classifier(bundles).manifest("digits/1").metrics
    assert f"<td>{100 * metrics['top1']:.1f}</td>" in card
    assert "digits/2" in card
    assert "Measured" not in page.show("vgg16")


def test_a_network_of_no_such_name_is_one_sentence(page):
    from gradio import EventData

    assert 'data-state="problem"' in page.show("resnet51")
    assert "resnet50" in page.show("resnet51")
    assert page.choose(EventData(None, {"name": "../../etc"}))["__type__"] == "update"
    assert page.choose(EventData(None, {"name": "xo"})) == "xo"
    with pytest.raises(UserError, match="unknown model 'nothing'"):
        tables("nothing")


def test_a_drawing_has_the_page_s_colours_and_no_style_of_its_own():
    svg = drawing("lenet5", "LeNet-5")
    root = ElementTree.fromstring(svg)
    assert "var(--tk-convolution)" in svg
    assert "#dce8f7" not in svg
    assert not list(root.iter("{http://www.w3.org/2000/svg}style"))
    assert root.get("aria-label") == "Drawing of LeNet-5"


def test_the_timeline_has_a_dot_for_every_network_in_order_of_years():
    networks = [model_info(name) for name in list_models()]
    root = ElementTree.fromstring(timeline(networks, "lenet5"))
    dots = {dot.get("data-network"): dot for dot in root.iter() if dot.get("data-network")}
    assert sorted(dots) == list_models()
    assert "61,706 parameters, 416,520 multiply-adds" in dots["lenet5"].get("aria-label")
    circles = {name: dot.find("circle") for name, dot in dots.items()}
    places = {name: (float(c.get("cx")), float(c.get("cy")), float(c.get("r"))) for name, c in circles.items()}
    years = sorted((info.year, places[info.name][0]) for info in networks)
    assert [x for _, x in years] == sorted(x for _, x in years)
    assert places["vgg16"][1] < places["lenet5"][1]  # more parameters stand higher
    assert places["vgg19"][2] > places["resnet20"][2]  # more multiply-adds are larger
    assert [name for name, dot in dots.items() if "tk-chosen" in dot.get("class")] == ["lenet5"]
