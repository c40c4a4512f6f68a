"""Sizes of resized and cropped pictures, in integers only, so that every runtime agrees to the pixel.

``toolkit.data.pixels.decode`` follows these rules on the host, ``toolkit.data.pixels.graph`` inside TensorFlow graphs;
a parity test ties the two together.
"""

from toolkit.spec import Preprocessing

#: A larger picture is refused before its pixels are allocated. The largest sensors of today have 100 to 150 million;
#: Pillow's own limit is a little above.
MAX_PIXELS = 178_000_000
#: A larger file is refused unread: no picture of ``MAX_PIXELS`` needs more.
MAX_FILE_BYTES = 1 << 30

#: A longer side is refused too: libpng's limit, which TensorFlow keeps.
MAX_SIDE = 1_000_000

#: A picture that would cover more than this many times the crop's box once resized, a rule or a spacer, is never
#: resized whole: only what is cut out of it is computed. Others are, so that their crops do not differ in rounding
#: from what was cut out of them before.
LONG = 16

#: JPEG decoders shrink by these factors almost for free.
JPEG_SCALES = (8, 4, 2)


def crop_box(preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width that a resized picture must cover before the centre crop.

    >>> crop_box(Preprocessing(size=(224, 224), crop_fraction=0.875))
    (256, 256)
    """
    height, width = preprocessing.size
    return round(height / preprocessing.crop_fraction), round(width / preprocessing.crop_fraction)


def resized_size(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width of a ``height`` × ``width`` picture after the resize, before the centre crop.

    >>> resized_size(600, 800, Preprocessing(size=(224, 224), crop_fraction=0.875))
    (256, 341)
    """
    if preprocessing.resize == "stretch":
        return preprocessing.size
    box_height, box_width = crop_box(preprocessing)
    if box_height * width >= box_width * height:
        return box_height, max(box_width, (2 * width * box_height + height) // (2 * height))
    return max(box_height, (2 * height * box_width + width) // (2 * width)), box_width


def is_long(height: int, width: int, preprocessing: Preprocessing) -> bool:
    """Tell if a ``height`` × ``width`` picture is computed only where it is cut out, see ``LONG``.

    >>> is_long(2, 20_000, Preprocessing(size=(224, 224))), is_long(500, 4_000, Preprocessing(size=(224, 224)))
    (True, False)
    """
    resized_height, resized_width = resized_size(height, width, preprocessing)
    box_height, box_width = crop_box(preprocessing)
    return resized_height * resized_width > LONG * box_height * box_width


def jpeg_scale(height: int, width: int, preprocessing: Preprocessing) -> int:
    """Largest factor to shrink a JPEG by while decoding that leaves twice the size it is then resized to.

    Twice, because the decoder's own averaging is coarser than the resize: what it leaves, the resize smooths.

    >>> jpeg_scale(3000, 4000, Preprocessing(size=(224, 224)))
    4
    """
    target_height, target_width = resized_size(height, width, preprocessing)
    for scale in JPEG_SCALES:
        if height >= 2 * scale * target_height and width >= 2 * scale * target_width:
            return scale
    return 1
