"""The host's decoder and the graph's give the same pixels, whatever a picture is stored as."""

import functools
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from toolkit.data.pixels import decode, graph
from toolkit.spec import Preprocessing

PREPROCESSINGS = {
    "crop": Preprocessing(size=(48, 64), crop_fraction=0.875),
    "stretch": Preprocessing(size=(40, 24), resize="stretch", interpolation="bicubic"),
}


def photograph(height: int = 180, width: int = 250) -> Image.Image:
    """A smooth picture with noise on it, so that a wrong kernel, order or offset shows."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([127 + 120 * np.sin(x / 17 + y / 31 + phase) for phase in (0.0, 1.5, 3.0)], axis=-1)
    noise = rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def with_orientation(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", quality=92, exif=exif.tobytes())


@functools.cache
def pictures() -> dict[str, bytes]:
    rgb = photograph()
    sixteen_bit = (np.asarray(rgb.convert("L")).astype(np.uint16) * 257) ^ 0x5A
    frames = [rgb.convert("P"), rgb.rotate(180).convert("P")]
    return {
        "jpeg": encoded(rgb, "JPEG", quality=90),
        "jpeg progressive": encoded(rgb, "JPEG", quality=75, progressive=True),
        "jpeg greyscale": encoded(rgb.convert("L"), "JPEG"),
        "jpeg large, decoded at a fraction": encoded(photograph(1100, 1700), "JPEG"),
        "jpeg large, rotated": with_orientation(photograph(900, 1400), 6),
        "png": encoded(rgb, "PNG"),
        "png palette": encoded(rgb.convert("P"), "PNG"),
        "png alpha": encoded(rgb.convert("RGBA"), "PNG"),
        "png grey and alpha": encoded(rgb.convert("LA"), "PNG"),
        "png 1 bit": encoded(rgb.convert("1"), "PNG"),
        "png 16 bit": encoded(Image.fromarray(sixteen_bit), "PNG"),
        "bmp": encoded(rgb, "BMP"),
        "gif animated": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "webp": encoded(rgb, "WEBP", quality=80),
        "1x1": encoded(rgb.crop((0, 0, 1, 1)), "PNG"),
        "very wide": encoded(photograph(20, 1500), "PNG"),
        "rule": encoded(photograph(2, 20_000), "PNG"),
        "spacer": encoded(photograph(60_000, 1), "PNG"),
        "long screenshot": encoded(photograph(3000, 40), "JPEG"),
        **{f"jpeg orientation {n}": with_orientation(rgb, n) for n in range(1, 9)},
    }


@functools.cache
def decoder(geometry: str):
    """One graph for all pictures, as a served one is."""
    return tf.function(lambda data: graph.decode_pixels(data, PREPROCESSINGS[geometry]))


@pytest.mark.parametrize("geometry", PREPROCESSINGS)
@pytest.mark.parametrize("name", pictures())
def test_host_and_graph_give_the_same_pixels(name, geometry):
    preprocessing = PREPROCESSINGS[geometry]
    data = pictures()[name]

    host = decode.decode_pixels(data, preprocessing).astype(int)
    in_graph = decoder(geometry)(tf.constant(data)).numpy().astype(int)

    assert host.shape == in_graph.shape == (*preprocessing.size, 3)
    difference = np.abs(host - in_graph)
    # A value that falls on a rounding boundary may go either way; nothing else may differ.
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.005


def test_jpeg_cmyk_differs_by_rounding_only():
    data = encoded(photograph().convert("CMYK"), "JPEG")
    preprocessing = PREPROCESSINGS["crop"]
    host = decode.decode_pixels(data, preprocessing).astype(int)
    in_graph = graph.decode_pixels(tf.constant(data), preprocessing).numpy().astype(int)
    assert np.abs(host - in_graph).max() <= 1


@pytest.mark.parametrize("order", ["rgb", "bgr", "grey"])
def test_host_and_graph_normalise_alike(order):
    channels = 1 if order == "grey" else 3
    preprocessing = Preprocessing(
        size=(48, 64), channel_order=order, mean=(0.485, 0.456, 0.406)[:channels], std=(0.229, 0.224, 0.225)[:channels]
    )
    pixels = decode.decode_pixels(photograph(), preprocessing)
    np.testing.assert_allclose(
        decode.normalize(pixels, preprocessing), graph.normalize(tf.constant(pixels), preprocessing), atol=1e-6
    )


def test_normalise_matches_the_formula():
    preprocessing = Preprocessing(size=(1, 1), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = np.array([[[255, 0, 51]]], np.uint8)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(decode.normalize(pixels, preprocessing)[0, 0], expected, rtol=1e-5)


def test_grey_is_pillows_luma():
    image = photograph()
    np.testing.assert_array_equal(decode.luma(np.asarray(image))[..., 0], np.asarray(image.convert("L")))


def test_orientation_is_what_pillow_makes_of_it():
    from PIL import ImageOps

    for orientation in range(1, 9):
        data = with_orientation(photograph(), orientation)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        np.testing.assert_array_equal(decode.read_rgb(data), expected)


@pytest.mark.parametrize("damage", ["truncated", "offset", "count"])
def test_damaged_exif_is_ignored_by_both(damage):
    data = bytearray(with_orientation(photograph(), 6))
    tiff = data.index(b"Exif\x00\x00") + 6
    if damage == "truncated":
        data[tiff + 2 : tiff + 10] = b"\xff" * 8
    elif damage == "offset":
        data[tiff + 4 : tiff + 8] = b"\xff\xff\xff\x7f"
    else:
        data[tiff + 8 : tiff + 10] = b"\xff\xff"
    graph_orientation = int(graph.exif_orientation(tf.constant(bytes(data))))
    upright = decode.read_rgb(bytes(data)).shape[:2] == (250, 180)
    assert (graph_orientation >= 5) == upright


def announced(width: int, height: int) -> dict[str, bytes]:
    """Headers that claim a size, with nothing behind them."""
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\0\0\0"
    gif = b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0"
    jpeg = bytearray(encoded(photograph(8, 8), "JPEG"))
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = struct.pack(">HH", height, width)
    return {"png": png, "gif": gif, "jpeg": bytes(jpeg)}


@pytest.mark.parametrize("image_format", ["png", "gif", "jpeg"])
def test_both_refuse_a_header_that_announces_too_much(image_format):
    data = announced(40_000, 40_000)[image_format]
    with pytest.raises(decode.ImageError):
        decode.decode_pixels(data, PREPROCESSINGS["crop"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="announces more than"):
        tf.function(lambda b: graph.decode_pixels(b, PREPROCESSINGS["crop"]))(tf.constant(data))
