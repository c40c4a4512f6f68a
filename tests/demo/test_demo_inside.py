"""Tab Look inside without a browser: heat maps, features, edges, arithmetic, and X or O by hand."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.bundle import read_manifest, write_manifest
from toolkit.demo.classifier import Classifier
from toolkit.demo.inside import xo
from toolkit.demo.inside.looks import MAX_NETWORKS, MAX_PICTURES, Looks
from toolkit.demo.inside.way import way_in, way_through
from toolkit.demo.markup.xo import cut, verdict
from toolkit.errors import UserError
from toolkit.spec import Preprocessing


@pytest.fixture(scope="module")
def page(bundles):
    from toolkit.demo.tabs.inside import Inside

    return Inside(Classifier(bundles))


def test_a_new_picture_is_shown_under_heat_with_the_classes_to_choose_from(page, sent, seven):
    _, label, method, stage, layer, heat, *others = page.fresh("heat", sent(seven), "digits/1")
    assert label.value == "7"
    assert next(value for _, value in label.choices) == "7"
    assert len(label.choices) == 10
    assert [value for _, value in method.choices] == ["auto", "grad-cam", "hires-cam", "occlusion"]  # hidden layers
    assert [layer.value, *(value for _, value in layer.choices)] == ["stage2", "stage2", "stage1"]
    assert stage.value == ""
    assert 'data-state="map"' in heat
    assert "original network in float32, never a quantized file" in heat
    assert 'data-label="7" aria-pressed="true"' in heat
    assert all(other["__type__"] == "update" for other in others)  # made when they are opened


def test_the_picture_that_was_classified_is_taken_over_once_with_its_network(page, sent, seven):
    classified, skipped = sent(seven), {"__type__": "update"}
    assert page.take_over(None, "digits/2", classified, "digits/1") == (classified["path"], "digits/1")
    assert page.take_over(None, "digits/1", classified, "digits/1") == (classified["path"], skipped)
    assert page.take_over(sent(seven), "digits/2", classified, "digits/1") == (skipped, skipped)
    assert page.take_over(None, "digits/2", None, "digits/1") == (skipped, skipped)
    assert "data-state" in page.first("heat", classified, "digits/1", None)[5]
    assert page.first("heat", classified, "digits/1", "7")[5]["__type__"] == "update"


def test_another_class_and_method_are_shown_of_the_same_picture(page, sent, seven):
    picture = sent(seven)
    _, heat, *_ = page.show("heat", picture, "digits/1", "3", "grad-cam", "stage1", "")
    assert "For 3 against all others" in heat
    assert "(Grad-CAM, an approximation)" in heat
    stage, heat, *_ = page.show("heat", picture, "digits/1", "3", "occlusion", "stage1", "")
    assert stage == ""  # occlusion looks at no map
    assert "odds lose where a window is covered" in heat


def test_the_smallest_part_that_keeps_the_answer_is_outlined_when_asked_for(page, sent, seven):
    picture, chosen = sent(seven), ("7", "auto", "", "")
    _, heat, *_ = page.show("heat", picture, "digits/1", *chosen)
    assert "How little of it is enough for 7?" in heat
    _, heat, *_ = page.search("heat", picture, "digits/1", *chosen)
    assert 'class="tk-region"' in heat
    assert "% of what was seen is enough for 7" in heat
    assert "data-search" not in heat
    _, again, *_ = page.show("heat", picture, "digits/1", "3", "auto", "", "")
    assert 'class="tk-region"' in again  # kept for another class
    *_, problem = page.search("heat", {"path": "/etc/hostname"}, "digits/1", *chosen)[:2]
    assert "not an upload" in problem.lower()


@pytest.mark.parametrize("view", ["heat", "features", "edges", "arithmetic"])
def test_a_bad_file_is_one_message_in_whatever_view(page, sent, bad_files, view):
    picture, label, *_, heat, features, edges, arithmetic = page.fresh(view, sent(bad_files["text"]), "digits/1")
    assert label is None  # that of the picture before, for which the next one would not be looked at
    panel = {"heat": heat, "features": features, "edges": edges, "arithmetic": arithmetic}[view]
    assert picture is None
    assert panel.count('data-state="problem"') == 1
    assert "letter.jpg cannot be read as a picture" in panel
    assert "Not a picture in a supported format" in panel


@pytest.mark.parametrize(
    ("label", "method", "stage", "told"),
    [
        ("eleven", "auto", "", "unknown class"),
        ("7", "magic", "", "unknown method"),
        ("7", "grad-cam", "stage9", "unknown stage"),
        ("7", "evidence", "", "is not linear in maps of several cells"),
    ],
)
def test_what_this_network_has_not_is_one_sentence(page, sent, seven, label, method, stage, told):
    _, heat, *_ = page.show("heat", sent(seven), "digits/1", label, method, stage, "")
    assert 'data-state="problem"' in heat
    assert told in heat.lower().replace("&#x27;", "'")
    assert "Traceback" not in heat


def test_a_bundle_without_its_network_says_which_file_is_missing(bundles, tmp_path, sent, seven):
    from toolkit.demo.tabs.inside import Inside

    version = Path(shutil.copytree(bundles / "digits" / "2", tmp_path / "bare" / "1"))
    (version / "assets.extra" / "model.keras").unlink()
    bare = Inside(Classifier(tmp_path))
    *_, heat, _, _, _ = bare.fresh("heat", sent(seven), "bare/1")
    assert "This network cannot be looked into" in heat
    assert "bare/1/assets.extra/model.keras: missing" in heat
    assert str(tmp_path) not in heat
    place, *_, edges, _ = bare.fresh("edges", sent(seven), "bare/1", is_placed=False)
    assert 'data-state="edges"' in edges  # for which no network is needed
    assert place.endswith(seven.name)


def test_labels_from_outside_stay_text(bundles, tmp_path, sent, seven):
    from toolkit.demo.tabs.inside import Inside

    version = Path(shutil.copytree(bundles / "digits" / "1", tmp_path / "hostile" / "1"))
    hostile = tuple(f"<img src=x onerror=alert({n})>${{1+1}}{{{{x}}}}\"'" for n in range(10))
    write_manifest(version, replace(read_manifest(version), labels=hostile))
    page = Inside(Classifier(tmp_path))
    _, label, *_, heat, _, _, _ = page.fresh("heat", sent(seven), "hostile/1")
    assert label.value in hostile
    assert 'data-state="map"' in heat
    for text in ("<img src=x", "${", "{{"):
        assert text not in heat
    assert 'data-state="map"' in page.show("heat", sent(seven), "hostile/1", hostile[3], "auto", "", "")[1]


def test_stages_are_shown_as_sheets_with_statistics_and_first_filters(page, sent, seven):
    _, _, features, *_ = page.show("features", sent(seven), "digits/1", "", "", "", "stage1")
    assert "<b>stage1_conv</b>: 6 channels of 28×28 cells" in features
    assert features.count("<figure>") == 6 + 6  # maps, and filters
    assert re.findall(r"<th>(stage\d)</th>", features) == ["stage1", "stage2"]


def test_the_arithmetic_is_that_of_the_notes_table(page, sent, seven):
    *_, panel = page.show("arithmetic", sent(seven), "digits/1", "", "", "", "")
    assert "the picture: 8×8 pixels → resized to 32×32 → colours to grey → values 0…255 to −1…1" in panel
    assert 'data-size="32 − 5 + 1" data-params="(5·5·1 + 1)·6" data-macs="28·28·6 · 5·5·1"' in panel
    assert "<td>61,706</td><td>416,520</td>" in panel


def test_ways_in_that_crop_and_stretch():
    lines = way_in(600, 800, Preprocessing((224, 224), crop_fraction=0.875))
    assert lines == ["the picture: 800×600 pixels", "resized to 341×256", "cut out of its middle: 224×224", lines[3]]
    assert "stretched to 32×32" in way_in(10, 20, Preprocessing((32, 32), resize="stretch"))


def test_networks_and_pictures_kept_are_bounded(bundles, digits):
    looks = Looks(Classifier(bundles))
    files = sorted((digits / "1").glob("*.png"))[: MAX_PICTURES + 2]
    found = [looks.look(file.read_bytes(), "digits/1") for file in files]
    assert looks.look(files[-1].read_bytes(), "digits/1") is found[-1]
    assert looks.look(files[0].read_bytes(), "digits/1") is not found[0]
    assert len(looks._looks) == MAX_PICTURES
    looks.explainer("digits/2")
    looks.look(files[0].read_bytes(), "digits")
    assert len(looks._networks) <= MAX_NETWORKS


def test_ink_on_paper_is_exchanged_as_it_is_where_it_is_classified(page, bundles, seven, tmp_path):
    paper = tmp_path / "paper.png"
    Image.open(seven).convert("L").point(lambda value: 225 - 0.8 * value).save(paper)
    looks = Looks(Classifier(bundles))
    look = looks.look(paper.read_bytes(), "digits/1")
    assert look.turned
    assert look.explanation.label == "7"


@pytest.mark.parametrize(
    ("cells", "answer"), [*((cells, name[-1]) for name, cells in xo.SAMPLES.items()), (81 * xo.GROUND, "O")]
)
def test_a_board_by_hand_is_what_the_network_answers(cells, answer):
    import keras

    from toolkit import create_model

    worked = xo.work(xo.read_board(cells))
    model = create_model("xo")
    layers = ("stage1_conv", "stage1_relu", "stage1_pool1", "stage1_pool2", "head_logits")
    outputs = keras.Model(model.input, [model.get_layer(layer).output for layer in layers])
    answers = [keras.ops.convert_to_numpy(one)[0] for one in outputs(worked.board[None, :, :, None])]
    for found, maps in zip(answers[:-1], (worked.maps, worked.rectified, worked.pooled, worked.last), strict=True):
        np.testing.assert_allclose(np.moveaxis(found, -1, 0), maps, atol=1e-6)
    np.testing.assert_allclose(answers[-1], worked.votes, atol=1e-6)
    assert worked.answer == answer


def test_numbers_on_the_board_are_cut_off_as_in_the_notes(page):
    said, maps = page.work(xo.SAMPLES["X"])
    assert "It says: an X" in said
    first = re.findall(r'data-row="0" data-column="\d">([^<]*)<', maps.split("mean of nine products")[0])
    assert first[3:] == ["0.77", "−0.11", "0.11", "0.33", "0.55", "−0.11", "0.33"]
    assert cut(2.07 / 4) == "0.51"


@pytest.mark.parametrize("cells", [None, "", "#" * 80, "x" * 81, 7, "#" * 82])
def test_a_board_that_is_none_is_refused(page, cells):
    with pytest.raises(UserError, match="81 cells"):
        xo.read_board(cells)
    assert 'data-state="problem"' in page.work(cells)[0]


def test_equal_votes_are_neither():
    worked = replace(xo.work(xo.read_board(xo.SAMPLES["X"])), votes=np.array([0.5, 0.5]))
    assert worked.answer == ""
    assert "It says: neither" in verdict(worked)


def test_api_gives_the_heat_map_and_the_arithmetic(client, seven, bad_files):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    document, overlay = client.predict(handle_file(seven), "digits", "7", "grad-cam", "stage1", api_name="/heat_map")
    assert document["heat_maps"][0]["method"] == "grad-cam"
    assert document["heat_maps"][0]["maps"] == ["stage1_conv"]
    assert document["network"] == "original, float32"
    assert document["predictions"][0]["label"] == "7"
    assert (document["rejected"], document["reason"]) == (False, "")
    with Image.open(overlay) as image:
        assert image.size[0] == image.size[1] > 200
    way = client.predict(handle_file(seven), "digits/1", api_name="/arithmetic")
    assert (way["parameters"], way["multiply_adds"]) == (61_706, 416_520)
    conv = next(layer for layer in way["layers"] if layer["layer"] == "stage1_conv")
    assert conv["shape"] == [28, 28, 6]
    assert conv["receptive_field"] == {"size": [5, 5], "first": [0, 0], "jump": [1, 1]}
    with pytest.raises(AppError, match="unknown method"):
        client.predict(handle_file(seven), "digits/1", "", "magic", "", api_name="/heat_map")
    with pytest.raises(AppError, match="truncated"):
        client.predict(handle_file(bad_files["truncated"]), "digits/1", api_name="/arithmetic")


def test_programs_are_told_what_means_none_of_these(bundles, sent, seven, tmp_path):
    from toolkit.demo.tabs.inside import Inside

    version_dir = Path(shutil.copytree(bundles / "digits" / "2", tmp_path / "digits" / "1"))
    write_manifest(version_dir, replace(read_manifest(version_dir), reject_below=1.0))
    document, _ = Inside(Classifier(tmp_path)).heat_map(sent(seven), "digits", "", "occlusion", "")
    assert (document["rejected"], document["reason"]) == (True, "unsure")


def test_explanations_asked_for_at_once_are_all_given(client, seven):
    from gradio_client import handle_file

    jobs = [client.submit(handle_file(seven), "digits/1", str(n), "auto", "", api_name="/heat_map") for n in range(6)]
    documents = [job.result(timeout=120)[0] for job in jobs]
    assert [document["heat_maps"][0]["label"] for document in documents] == list("012345")


def test_api_documents_what_it_gives(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert "never by a quantized one" in endpoints["/heat_map"]["description"]
    assert "layer by layer" in endpoints["/arithmetic"]["description"]


def test_the_way_of_a_network_with_a_layer_without_rules_is_one_sentence():
    import keras

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2DTranspose(3, 3)(inputs))
    with pytest.raises(UserError, match="no rule for the multiply-adds of layer"):
        way_through(model)
