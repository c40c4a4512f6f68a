"""Folders drawn at random by Hypothesis: hostile names, formats, sizes, links and splits."""

import io
import os
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck
from hypothesis import strategies as st
from PIL import Image


def encoded(kind: str, size: tuple[int, int], mode: str, **options) -> bytes:
    pixels = np.random.default_rng(sum(size)).integers(0, 256, (*size[::-1], 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


_WHOLE = [
    encoded(kind, size, mode)
    for kind, modes in {
        "PNG": ("RGB", "RGBA", "L", "P", "1", "LA"),
        "JPEG": ("RGB", "L", "CMYK"),
        "GIF": ("P", "L"),
        "BMP": ("RGB", "P", "1"),
        "WEBP": ("RGB",),
        "PPM": ("RGB",),
        "TIFF": ("RGB",),
        "ICO": ("RGBA",),
    }.items()
    for mode in modes
    for size in ((8, 8), (17, 5), (1, 1), (300, 1))
    if kind != "ICO" or size[1] > 1
]
_WHOLE += [
    encoded("WEBP", (17, 5), "RGB", save_all=True, append_images=[Image.new("RGB", (17, 5))]),
    encoded("PNG", (2, 20_000), "1"),
    encoded("JPEG", (30_000, 1), "L"),
]
_CONTENTS = st.one_of(
    st.sampled_from(_WHOLE),
    st.builds(lambda data, cut: data[: len(data) - cut], st.sampled_from(_WHOLE), st.integers(1, 40)),
    st.builds(lambda data, tail: data + tail, st.sampled_from(_WHOLE), st.binary(min_size=1, max_size=20)),
    st.binary(max_size=60),
)
_HOSTILE = (
    *(b"$1_to_$5", b"nul", b"-x", b"--help", b"[v1]", b"a*b?", b"line\nbreak", b"tab\there", b" blank ", b"."),
    *(b".NET", b"..x", b"#1", b'"quoted"', b"'", b"back\\slash", b"%s{0}", b"~$x", b"caf\xe9", b"\xff\xfe"),
    *("Käfer".encode(), "Ka\u0308fer".encode(), "犬".encode(), "\u202egpj.exe".encode(), b"x" * 200, b"Dog", b"dog"),
    *(b"@eaDir", b"Thumbs.db", b"__MACOSX", b"._1.png", b"lost+found", b".DS_Store", b"quarantine.txt", b"index"),
)
_SPLITS = (b"train", b"Val", b"testing", b"dev", b"seg_train", b"test_images", b"fold1", b"examples")
_ENDS = (b"", b".png", b".jpg", b".JPEG", b".gif", b".ppm", b".jpg_large", b".txt", b".csv", b".jpg?w=640", b".tif")
_FOLDER_NAMES = st.sampled_from([*_HOSTILE, b"cat", b"bird"])
_STEMS = st.sampled_from([*_HOSTILE, *(b"%d" % number for number in range(5))])
_NAMES = st.builds(lambda stem, end: stem + end, _STEMS, st.sampled_from(_ENDS))
_PATHS = st.builds(
    lambda *parts: b"/".join(part for part in parts if part),
    st.sampled_from([b"", b"", b"data", b"pets/pets"]),
    st.sampled_from([b"", b"", b"", *_SPLITS]),
    st.one_of(st.just(b""), st.sampled_from([b"cat", b"cat", b"bird", b"bird", b"dog"]), _FOLDER_NAMES),
    st.one_of(st.just(b""), st.just(b""), _FOLDER_NAMES),
    _NAMES,
)
FILES = st.dictionaries(_PATHS, _CONTENTS, max_size=30)
_TARGETS = st.sampled_from([b".", b"..", b"/nowhere", b"cat", b"../cat", b"1.png"])
LINKS = st.lists(st.tuples(_PATHS, _TARGETS), max_size=3)


def write(root: Path, files: dict[bytes, bytes], links: list[tuple[bytes, bytes]], *, enough: bool) -> None:
    if enough:  # of two classes, so that most folders can be read
        files = files | {b"%s/n%d.png" % (name, i): _WHOLE[i] for name in (b"cat", b"bird") for i in range(3)}
    for name, data in files.items():
        path = os.path.join(os.fsencode(root), name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                file.write(data)
        except OSError:  # a file where a folder should be, or the other way round
            continue
    for name, target in links:
        path = os.path.join(os.fsencode(root), name)
        if os.path.isdir(os.path.dirname(path)) and not os.path.lexists(path):
            os.symlink(target, path)


#: Settings of a property that takes as long as it takes.
OPTIONS = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
