"""Pictures of networks: what they say, which blocks they fold, and that every network can be drawn."""

import re
import xml.etree.ElementTree as ElementTree

import keras
import pytest
from PIL import Image

from toolkit.draw import draw_model
from toolkit.draw.blocks import boxes
from toolkit.errors import UserError


def _texts(path):
    """All text of an SVG file, in its order."""
    return ["".join(text.itertext()) for text in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(scope="module")
def resnet152(outline):
    return outline("resnet152")


def test_resnet152_is_eleven_boxes(resnet152):
    drawn = boxes(resnet152)
    assert [(box.stage, box.repeats, box.shape) for box in drawn] == [
        ("stem", 1, (224, 224, 3)),
        ("stem", 1, (112, 112, 64)),
        ("stem", 1, (56, 56, 64)),
        *(
            (f"stage{stage}", repeats, (side, side, 4 * width))
            for stage, depth, side, width in ((1, 3, 56, 64), (2, 8, 28, 128), (3, 36, 14, 256), (4, 3, 7, 512))
            for repeats in (1, depth - 1)
        ),
        ("head", 1, (2048,)),
        ("head", 1, (1000,)),
    ]
    first, rest = drawn[7:9]
    assert first.lines == ("1×1 conv, 256", "3×3 conv, 256, /2", "1×1 conv, 1024")
    assert first.shortcut == "1×1 conv, 1024, /2"
    assert rest.lines == ("1×1 conv, 256", "3×3 conv, 256", "1×1 conv, 1024")
    assert rest.shortcut == ""


def test_svg_holds_what_is_said_as_text(resnet152, tmp_path):
    path = tmp_path / "net.svg"
    draw_model(resnet152, path, title="ResNet-152")
    texts = _texts(path)
    assert texts[0] == "ResNet-152"
    assert {"35 ×", "7 ×", "14×14×1024", "7×7 conv, 64, /2", "global average pool", "dense, 1000"} <= set(texts)
    assert texts.count("2 ×") == 2
    before = path.read_bytes()
    draw_model(resnet152, path, title="ResNet-152")
    assert path.read_bytes() == before


def test_png_is_of_a_size_to_read(resnet152, tmp_path):
    draw_model(resnet152, tmp_path / "net.PNG")
    with Image.open(tmp_path / "net.PNG") as picture:
        assert picture.format == "PNG"
        assert 600 < picture.width < 2000
        assert 600 < picture.height < 2000
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {(220, 232, 247), (251, 230, 209), (225, 240, 218)} <= colours  # convolutions, pooling, dense


def test_branches_of_a_module_are_lines(outline):
    inception = next(box for box in boxes(outline("googlenet")) if box.joined)
    assert inception.lines == (
        "1×1 conv, 64",
        "1×1 conv, 96 → 3×3 conv, 128",
        "1×1 conv, 16 → 5×5 conv, 32",
        "3×3 max pool → 1×1 conv, 32",
    )
    assert inception.shape == (28, 28, 256)


def test_survivals_of_folded_blocks_are_a_range(outline):
    drawn = boxes(outline("resnet110_sd"))
    assert [(box.repeats, box.note()) for box in drawn if box.survivals] == [
        (18, "kept with p = 0.99 … 0.83"),
        (1, "kept with p = 0.82"),
        (17, "kept with p = 0.81 … 0.67"),
        (1, "kept with p = 0.66"),
        (17, "kept with p = 0.65 … 0.50"),
    ]


def test_plain_networks_have_no_shortcuts(outline):
    assert {box.shortcut for box in boxes(outline("plain34"))} == {None}


def test_a_branch_says_where_it_comes_from(tmp_path):
    x = keras.Input((8, 8, 3), name="input")
    trunk = keras.layers.Conv2D(4, 3, name="stage1_conv")(x)
    side = keras.layers.Conv2D(5, 1, name="side_conv")(trunk)
    main = keras.layers.Conv2D(6, 1, name="stage2_conv")(trunk)
    model = keras.Model(x, {"side": side, "main": main})
    draw_model(model, tmp_path / "net.svg")
    assert _texts(tmp_path / "net.svg").count("from stage1_conv") == 1


def test_names_without_stages_give_a_box_per_layer(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), *(keras.layers.Conv2D(2, 1, activation="relu") for _ in range(3))]
    )
    drawn = boxes(model)
    assert [(box.lines, box.repeats) for box in drawn] == [(("1×1 conv, 2",), 3)]
    draw_model(model, tmp_path / "net.svg", title="a model of somebody's own")
    assert "1×1 conv, 2" in _texts(tmp_path / "net.svg")


@pytest.mark.parametrize("name", ["net.pdf", "net", "net.svg.txt"])
def test_other_suffixes_are_refused(name, tmp_path):
    with pytest.raises(
        UserError, match=re.escape(f"cannot draw to '{name}'; give a file name that ends in .svg or .png")
    ):
        draw_model(None, tmp_path / name)


def test_missing_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*nowhere to draw into"):
        draw_model(None, tmp_path / "nowhere" / "net.svg")


def test_every_network_can_be_drawn(tmp_path, outline):
    # The smallest of each family: what differs within one are numbers.
    for name in ("lenet5", "lenet5_rgb", "mlp", "softmax_regression", "xo", "exercise_cnn", "alexnet_owt", "zfnet"):
        draw_model(outline(name), tmp_path / f"{name}.svg")
        assert "input" in _texts(tmp_path / f"{name}.svg")
