"""The host's decoder: every kind of source gives the same pixels, and bad input is one clear error."""

import io
import random
import struct
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from toolkit.data import ImageError, decode_pixels
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels import graph
from toolkit.data.pixels.decode import read_rgb
from toolkit.data.pixels.sizes import MAX_PIXELS
from toolkit.spec import Preprocessing

PREPROCESSING = Preprocessing(size=(20, 24), crop_fraction=0.9)


def noise(height: int = 50, width: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def turned(image_format: str = "JPEG", **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noise(), image_format, exif=exif.tobytes(), **options)


def bmp_16_bit() -> bytes:
    data = b"\x12\x34" * 64
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 16, 3, len(data), 2835, 2835, 0, 0)
    header += struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(data), 0, 0, 14 + len(header)) + header + data


def deep() -> bytes:
    return encoded(Image.fromarray((np.arange(2000, dtype=np.uint16) * 32).reshape(50, 40)), "PNG")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(noise(), "PNG"), id="png"),
        pytest.param(encoded(noise().convert("RGBA"), "PNG"), id="alpha"),
        pytest.param(deep(), id="16 bit"),
        pytest.param(encoded(noise(), "JPEG"), id="jpeg"),
        pytest.param(turned(), id="turned jpeg"),
        pytest.param(encoded(noise().convert("P"), "GIF"), id="gif"),
    ],
)
def test_bytes_path_string_pillow_and_array_give_the_same_pixels(data, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(data)
    expected = decode_pixels(data, PREPROCESSING)
    assert expected.shape == (20, 24, 3)
    assert expected.dtype == np.uint8
    assert expected.std() > 10
    for source in (path, str(path), Image.open(io.BytesIO(data)), read_rgb(data)):
        np.testing.assert_array_equal(decode_pixels(source, PREPROCESSING), expected)


def test_grey_arrays_count_as_pictures():
    grey = np.asarray(noise().convert("L"))
    expected = read_rgb(np.repeat(grey[..., None], 3, axis=-1))
    np.testing.assert_array_equal(read_rgb(grey), expected)
    np.testing.assert_array_equal(read_rgb(grey[..., None]), expected)


def test_pillow_image_is_left_as_it_was():
    image = Image.open(io.BytesIO(encoded(noise(800, 900), "JPEG")))
    decode_pixels(image, PREPROCESSING)
    assert image.size == (900, 800)


def test_phone_jpeg_with_a_second_picture_is_turned_upright_by_host_and_graph():
    """Must hold: Pillow names such a file MPO, and its orientation counts all the same."""
    data = turned("MPO", save_all=True, append_images=[noise()])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert read_rgb(data).shape == (40, 50, 3)
    in_graph = graph.decode_pixels(tf.constant(data), PREPROCESSING).numpy().astype(int)
    assert np.abs(decode_pixels(data, PREPROCESSING).astype(int) - in_graph).max() <= 1


def test_an_empty_file_is_called_so(tmp_path):
    (tmp_path / "a.jpg").touch()
    for source in (tmp_path / "a.jpg", str(tmp_path / "a.jpg")):
        with pytest.raises(ImageError) as error:
            decode_pixels(source, PREPROCESSING)
        assert str(error.value) == f"{tmp_path / 'a.jpg'}: an empty file, not a picture"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "the picture: not a picture"),
        (b"<html>", "not a picture in a supported format .*JPEG"),
        (encoded(noise(), "PPM"), "not a picture in a supported format"),
        (encoded(noise(), "JPEG")[:700], "damaged or truncated"),
        (encoded(noise(), "PNG")[:-500], "damaged or truncated"),
        (encoded(noise(), "PNG")[:-12], "damaged or truncated picture .the file ends before"),
        (encoded(noise().convert("P"), "GIF")[:-2], "the file ends before the picture does"),
        (encoded(noise().convert("1"), "BMP"), "BMP with compression, or of 1, 4 or 16 bits"),
        (bmp_16_bit(), "16 bits"),
        (encoded(noise(), "WEBP", save_all=True, append_images=[noise().rotate(180)]), "animated WebP"),
        (np.zeros((4, 4, 3), np.float32), "uint8 of shape .* got float32"),
        (np.zeros((4, 4, 4), np.uint8), r"got uint8 of shape \(4, 4, 4\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"got uint8 of shape \(1, 4, 4, 3\)"),
    ],
)
def test_bad_input_is_one_clear_error(source, message):
    with pytest.raises(ImageError, match=message) as error:
        decode_pixels(source, PREPROCESSING)
    assert "\n" not in str(error.value)


def test_damaged_pillow_image_is_the_same_error():
    with pytest.raises(ImageError, match="the picture: damaged or truncated"):
        decode_pixels(Image.open(io.BytesIO(encoded(noise(), "JPEG")[:700])), PREPROCESSING)


def test_unreadable_path_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file"):
        decode_pixels(tmp_path / "nowhere.png", PREPROCESSING)
    with pytest.raises(ImageError, match="a folder; give the pictures in it"):
        decode_pixels(tmp_path, PREPROCESSING)


@pytest.mark.parametrize("side", [13_350, 40_000])
@pytest.mark.parametrize("limit_of_pillow", [Image.MAX_IMAGE_PIXELS, None])
def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch, side, limit_of_pillow):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit_of_pillow)
    assert side * side > MAX_PIXELS
    data = bytearray(encoded(noise(8, 8), "BMP"))
    data[18:26] = struct.pack("<ii", side, side)
    with pytest.raises(ImageError, match="pixels"):
        decode_pixels(bytes(data), PREPROCESSING)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "MPO"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_no_damage_raises_anything_but_image_error(image_format):
    whole = turned(image_format) if image_format in ("JPEG", "MPO") else encoded(noise(), image_format)
    dice = random.Random(0)
    outcomes = set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 5)):
            data[dice.randrange(min(len(data), 400))] = dice.randrange(256)
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        try:
            outcomes.add(decode_pixels(bytes(data), PREPROCESSING).shape)
        except ImageError:
            outcomes.add("refused")
    assert outcomes == {(20, 24, 3), "refused"} or outcomes == {"refused"}


def test_decoding_in_threads_leaves_the_process_warnings_alone(monkeypatch):
    """Must hold: of two decodes that overlap, the one that began last and ends last changes nothing for good."""
    data = encoded(noise(), "JPEG")
    opened, second_began, first_ended = Image.open, threading.Event(), threading.Event()
    pauses = iter((second_began, first_ended))

    def slow_open(*arguments, **options):
        pause = next(pauses)
        if pause is first_ended:
            second_began.set()
        pause.wait(0.3)
        return opened(*arguments, **options)

    monkeypatch.setattr(Image, "open", slow_open)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(read_rgb, data)
        first.add_done_callback(lambda _: first_ended.set())
        time.sleep(0.05)
        second = pool.submit(read_rgb, data)
    np.testing.assert_array_equal(first.result(), second.result())
    assert warnings.filters == before


def test_load_pixels_keeps_the_order_of_its_sources():
    colours = [(value, 255 - value, 7) for value in range(0, 256, 5)]
    pixels = load_pixels([Image.new("RGB", (9, 9), colour) for colour in colours], PREPROCESSING)
    assert [tuple(picture[3, 3].tolist()) for picture in pixels] == colours
    assert load_pixels([], PREPROCESSING).shape == (0, 20, 24, 3)
