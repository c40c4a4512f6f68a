"""Any picture, whole or damaged: host, graph and training give the same pixels, or all refuse it in one line."""

import functools
import io
import random
import resource
import struct
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from toolkit.data.feed.pipeline import evaluation_batches, picture_errors
from toolkit.data.feed.split import Subset
from toolkit.data.pixels import graph
from toolkit.data.pixels.decode import ImageError, as_graph_reads, decode_pixels, read_rgb
from toolkit.data.scan.pictures import inspect_files
from toolkit.spec import Preprocessing

PREPROCESSING = Preprocessing(size=(24, 32), crop_fraction=0.875)
SIZES = [(40, 50), (3, 3), (1, 1), (200, 3), (64, 31)]

# Modes that each format is written in; "RGB;16" and its kind are written here, Pillow cannot.
MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "L;16", "LA;16", "RGB;16", "RGBA;16", "P;2", "tRNS"),
    "GIF": ("P", "L", "tRNS", "1"),
    "BMP": ("RGB", "L", "RGBA", "P"),
    "WEBP": ("RGB", "RGBA", "L"),
}


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def deep_png(values: np.ndarray) -> bytes:
    """16-bit samples (height, width, 1 to 4) as PNG."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def picture(image_format: str, mode: str, size: tuple[int, int], seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / 9
    waves = np.stack([127 + 100 * np.sin(x + y + phase) for phase in range(4)], axis=-1)
    values = np.clip(waves + rng.normal(0, 9, waves.shape), 0, 255).astype(np.uint8)
    if mode.endswith(";16") and mode != "I;16":
        channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode[:-3]]
        top = rng.choice([255, 4095, 65535])
        return deep_png(np.round(values[..., :channels] / 255.0 * top).astype(np.uint16))
    image, options = Image.fromarray(values, "RGBA"), {}
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * int(rng.choice([1, 16, 257])))
    elif mode == "P;2":
        image, options = image.convert("RGB").quantize(4), {"bits": 2}
    elif mode == "tRNS":
        image, options = image.convert("RGB").quantize(16), {"transparency": 3}
    else:
        image = image.convert("RGB").convert(mode) if "A" not in mode else image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def cases() -> dict[str, bytes]:
    return {
        f"{image_format} {mode} {size[0]}x{size[1]}": picture(image_format, mode, size, seed)
        for image_format, modes in MODES.items()
        for mode in modes
        for seed, size in enumerate(SIZES)
    }


def damaged(data: bytes, dice: random.Random) -> bytes:
    kind = dice.choice(["cut", "cut a little", "flip", "zero", "more"])
    if kind == "cut":
        return data[: dice.randrange(len(data))]
    if kind == "cut a little":
        return data[: -dice.choice([1, 2, 3, 4, 8, 12])]
    if kind == "more":
        return data + dice.randbytes(dice.choice([1, 40, 5000]))
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 3])):
        place = dice.randrange(len(data))
        changed[place] = 0 if kind == "zero" else changed[place] ^ (1 << dice.randrange(8))
    return bytes(changed)


@functools.cache
def decoder():
    spec = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda data: graph.decode_pixels(data, PREPROCESSING), input_signature=spec)


def by_host(data: bytes) -> np.ndarray | None:
    try:
        return decode_pixels(data, PREPROCESSING).astype(int)
    except ImageError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error}") from error
        return None


def by_graph(data: bytes) -> np.ndarray | None:
    try:
        return decoder()(tf.constant(data)).numpy().astype(int)
    except tf.errors.OpError:
        return None


def disagreement(data: bytes) -> str:
    host, in_graph = by_host(data), by_graph(data)
    if (host is None) != (in_graph is None):
        return "refused by the host alone" if host is None else "refused by the graph alone"
    if host is None:
        return ""
    # Of CMYK both round twice.
    differs = np.abs(host - in_graph) > (2 if data.startswith(b"\xff\xd8") else 1)
    return f"{np.mean(differs):.1%} of the values differ" if differs.any() else ""


@pytest.mark.parametrize("image_format", MODES)
def test_host_and_graph_read_every_mode_alike(image_format):
    found = {name: disagreement(data) for name, data in cases().items() if name.startswith(image_format)}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize("image_format", MODES)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_host_and_graph_take_damage_alike(image_format):
    dice = random.Random(1)
    found = {}
    for name, data in cases().items():
        if name.startswith(image_format):
            for number in range(6):
                found[f"{name} {number}"] = disagreement(damaged(data, dice))
    wrong = {name: what for name, what in found.items() if what}
    assert {name: what for name, what in wrong.items() if "differ" in what} == {}
    # A flipped bit within compressed data is noticed by one library and not by the other: nothing to be done.
    assert len(wrong) <= 0.02 * len(found), wrong


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_what_the_scan_calls_readable_the_training_pipeline_reads(tmp_path):
    dice = random.Random(2)
    paths = []
    for name, data in cases().items():
        path = tmp_path / name.replace(" ", "_").replace(";", "_")
        path.write_bytes(damaged(data, dice) if dice.random() < 0.5 else data)
        paths.append(path)
    _, reasons = inspect_files(paths)
    readable = [str(path) for path, reason in zip(paths, reasons, strict=True) if reason is None]
    assert 0.5 * len(paths) < len(readable) < len(paths)
    batches = evaluation_batches(Subset(tuple(readable), (0,) * len(readable)), PREPROCESSING, batch_size=32)
    with picture_errors():
        assert sum(len(labels) for _, labels in batches) == len(readable)


def host_only(image_format: str, mode: str, **options) -> bytes:
    if image_format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    image = Image.open(io.BytesIO(picture("PNG", mode if mode in MODES["PNG"] else "RGB", (40, 50))))
    image.load()
    if mode == "F":
        image = Image.fromarray(np.asarray(image.convert("L"), np.float32) / 255)
    elif mode != image.mode:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image_format", "mode", "options"),
    [
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (5, 5))]}),
        ("TIFF", "CMYK", {}),
        ("TIFF", "L", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "F", {}),
        ("TIFF", "I;16", {}),
        ("TIFF", "RGBA", {}),
        ("TIFF", "1", {"compression": "group4"}),
        ("AVIF", "RGB", {"quality": 95}),
        ("AVIF", "RGBA", {"quality": 95}),
        ("HEIF", "RGB", {"quality": 95}),
    ],
)
def test_host_reads_scanners_and_phones_formats_and_the_graph_says_that_it_does_not(image_format, mode, options):
    data = host_only(image_format, mode, **options)
    like = picture("PNG", mode if mode in ("I;16", "RGBA", "1") else "L" if mode in ("L", "F") else "RGB", (40, 50))
    assert np.abs(by_host(data) - by_host(like)).mean() < 4
    with pytest.raises(tf.errors.InvalidArgumentError, match="not a picture in a format that this graph decodes: JPEG"):
        decoder()(tf.constant(data))
    np.testing.assert_array_equal(by_host(as_graph_reads(data)), by_host(data))
    assert disagreement(as_graph_reads(data)) == ""
    assert as_graph_reads(like) is like


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF", "TIFF", "PNG", "WEBP"])
def test_whatever_a_damaged_picture_makes_its_plugin_raise_it_is_an_unreadable_picture(image_format):
    """Pillow's AVIF raised RuntimeError, for which a server answered 500 and `toolkit check` ended in a traceback."""
    whole = host_only(image_format, "RGB")
    rng, refused = np.random.default_rng(0), 0
    for _ in range(60):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        refused += by_host(bytes(data)) is None
    assert refused


def animation(**options) -> bytes:
    frames = [Image.open(io.BytesIO(picture("PNG", "RGB", (40, 50), seed))) for seed in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "by_the_host", "by_the_graph"),
    [
        (picture("BMP", "1", (40, 50)), "a BMP .* save it as PNG", "not a BMP that this graph decodes .* send a PNG"),
        (
            animation(lossless=True),
            "an animated WebP .* save one frame of it",
            "an animated WebP, .* send its first frame",
        ),
        (animation(quality=95), "an animated WebP", "an animated WebP"),
    ],
)
def test_rare_kinds_are_refused_by_both_which_say_what_to_do(data, by_the_host, by_the_graph):
    """An animated WebP wrote behind the memory that TensorFlow made for it, and ended a server."""
    with pytest.raises(ImageError, match=by_the_host):
        decode_pixels(data, PREPROCESSING)
    with pytest.raises(tf.errors.InvalidArgumentError, match=by_the_graph):
        decoder()(tf.constant(data))


@pytest.mark.parametrize(
    ("mode", "lossless", "place", "sides"),
    [
        ("RGB", True, 21, b"\xff\xff\xff\x0f"),
        ("RGB", False, 26, b"\xff\x3f" * 2),
        ("RGBA", False, 24, b"\xff\x3f\0" * 2),
    ],
)
def test_webp_that_announces_too_much_is_refused_by_both(mode, lossless, place, sides):
    buffer = io.BytesIO()
    Image.new(mode, (50, 40), (255, 0, 0, 90)[: len(mode)]).save(buffer, "WEBP", lossless=lossless)
    data = buffer.getvalue()
    assert disagreement(data) == ""
    huge = data[:place] + sides + data[place + len(sides) :]
    assert by_host(huge) is None
    with pytest.raises(tf.errors.InvalidArgumentError, match="announces more than"):
        decoder()(tf.constant(huge))


@pytest.mark.parametrize(("image_format", "turned"), [("TIFF", True), ("AVIF", True), ("PNG", False)])
def test_upright_is_what_both_decoders_can_tell(image_format, turned):
    """TensorFlow's decoders know nothing of an orientation in PNG and WebP, so the host ignores it there."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(buffer, image_format, exif=exif)
    assert read_rgb(buffer.getvalue()).shape[:2] == ((40, 20) if turned else (20, 40))


def test_heic_without_its_library_names_the_extra(monkeypatch):
    data = b"\0\0\0\x18ftypheic" + bytes(40)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match=r"^the picture: a HEIC picture needs pillow-heif: pip install 'toolkit\[heif\]'$"
    ):
        decode_pixels(data, PREPROCESSING)


LOGO = Image.new("RGBA", (60, 60))
LOGO.paste((0, 0, 0, 255), (20, 20, 40, 40))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "GIF"])
def test_transparency_is_white(image_format):
    """Black icons drawn in the alpha channel alone, which were black on black."""
    buffer = io.BytesIO()
    LOGO.save(buffer, image_format, **({"lossless": True} if image_format == "WEBP" else {}))
    for pixels in (by_host(buffer.getvalue()), by_graph(buffer.getvalue())):
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[12, 16].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("top", "expected"), [(255, 255), (200, 200), (4095, 255), (2000, 125), (65535, 255), (5000, 19)]
)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_pictures_have_the_range_that_their_values_have(top, expected, channels):
    values = np.zeros((40, 40, channels), np.uint16)
    values[:, 20:] = top
    if channels in (2, 4):
        values[..., -1] = 65535
    for pixels in (by_host(deep_png(values)), by_graph(deep_png(values))):
        assert pixels[10, 2].tolist() == [0] * 3
        assert pixels[10, 30].tolist() == [expected] * 3


def test_gif_frame_smaller_than_its_canvas_lies_on_white():
    buffer = io.BytesIO()
    Image.new("L", (30, 20), 100).save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", 64, 48)
    frame = data.index(b"\x2c", 13 + 3 * (2 << (data[10] & 7)))
    data[frame + 1 : frame + 5] = struct.pack("<HH", 17, 14)
    for pixels in (by_host(bytes(data)), by_graph(bytes(data))):
        assert pixels[1, 1].tolist() == [255] * 3
        assert pixels[12, 16].tolist() == [100] * 3


def test_gif_with_a_palette_of_its_own_and_long_comments():
    data = picture("GIF", "tRNS", (30, 30))
    flags, size = data[10], 3 * (2 << (data[10] & 7))
    palette, rest = data[13 : 13 + size], data[13 + size :]
    comments = b"\x21\xfe" + (b"\xff" + b"," * 255) * 30 + b"\0"
    frame = rest.index(b"\x2c", 0)
    own = (
        rest[:frame]
        + rest[frame : frame + 9]
        + bytes([rest[frame + 9] | 0x80 | flags & 7])
        + palette
        + rest[frame + 10 :]
    )
    moved = data[:10] + bytes([flags & 0x7F]) + data[11:13] + comments + own
    np.testing.assert_array_equal(by_host(moved), by_host(data))
    assert disagreement(moved) == ""
    endless = data[: 13 + size] + b"\x21\xfe" + b"\x01," * 5000 + b"\0" + rest
    assert by_host(endless) is None
    assert by_graph(endless) is None


@pytest.mark.parametrize("size", [(2, 20_000), (60_000, 1), (1, 1_000_000)])
@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_memory_for_a_long_thin_picture_is_bounded(size, resize):
    """Must hold: 290 bytes took 9.5 GiB, and a server with it."""
    preprocessing = Preprocessing(size=(224, 224), resize=resize, interpolation="bicubic")
    buffer = io.BytesIO()
    Image.new("RGB", size, (90, 60, 30)).save(buffer, "PNG")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    in_graph = graph.decode_pixels(tf.constant(buffer.getvalue()), preprocessing).numpy()
    for pixels in (decode_pixels(buffer.getvalue(), preprocessing), in_graph):
        assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[90, 60, 30]]
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10 < 400


def test_longer_side_than_any_decoder_takes_is_refused_by_both():
    buffer = io.BytesIO()
    Image.new("1", (1_000_001, 1)).save(buffer, "PNG")
    assert by_host(buffer.getvalue()) is None
    assert by_graph(buffer.getvalue()) is None
