"""Picture bytes to pixels and network input as TensorFlow operations, for the input pipeline and the served graph.

The twin of ``toolkit.data.pixels.decode``; both follow ``toolkit.data.pixels.sizes``. Branches are written as
``tf.cond`` and ``tf.case``, so AutoGraph has nothing to convert here, and rewriting these functions took it half the
time of an export.
"""

from collections.abc import Sequence

import tensorflow as tf
from tensorflow.autograph.experimental import do_not_convert

from toolkit.data.pixels import graph_formats
from toolkit.data.pixels.sizes import JPEG_SCALES, LONG, MAX_PIXELS, crop_box
from toolkit.spec import Preprocessing

# An EXIF block stands near the file's start: JFIF and XMP segments, at most 64 KiB each, may come first.
_EXIF_SEARCH_BYTES = 256 * 1024


@do_not_convert
def decode_pixels(image_bytes: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Scalar string of encoded bytes to uint8 RGB of shape ``(*preprocessing.size, 3)``.

    A picture, but for BMP, whose header announces more than ``MAX_PIXELS`` is an error before its pixels are allocated.
    """
    return resize_pixels(decode_rgb(image_bytes, preprocessing), preprocessing)


@do_not_convert
def decode_rgb(image_bytes: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Scalar string to upright uint8 RGB (height, width, 3); a large JPEG is shrunk towards what it is resized to."""
    too_large = f"the picture's header announces more than {MAX_PIXELS:,} pixels"
    limit = tf.constant(MAX_PIXELS, tf.int64)
    allowed = tf.debugging.assert_less_equal(_announced_pixels(image_bytes), limit, too_large)
    with tf.control_dependencies([allowed]):
        image_bytes = tf.identity(image_bytes)

    def begins_with(start: bytes) -> tf.Tensor:
        return tf.equal(tf.strings.substr(image_bytes, 0, len(start)), start)

    rgb = tf.case(
        [
            (begins_with(b"\xff\xd8\xff"), lambda: _decode_jpeg(image_bytes, preprocessing)),
            (begins_with(b"\x89PNG"), lambda: graph_formats.decode_png(image_bytes)),
            (begins_with(b"GIF87a") | begins_with(b"GIF89a"), lambda: graph_formats.decode_gif(image_bytes)),
            (begins_with(b"BM"), lambda: graph_formats.decode_bmp(image_bytes)),
        ],
        default=lambda: graph_formats.decode_webp(image_bytes),
    )
    rgb.set_shape([None, None, 3])
    return rgb


@do_not_convert
def resize_pixels(rgb: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Resize and centre-crop uint8 RGB of shape (height, width, 3) to ``preprocessing.size``."""
    size = preprocessing.size
    if preprocessing.resize == "stretch":
        return tf.ensure_shape(resize_rgb(rgb, preprocessing), [*size, 3])
    height, width = resized_size(rgb, preprocessing)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    pixels = tf.cond(
        is_long(rgb, preprocessing),
        lambda: resize_window(rgb, preprocessing, (top, left), size),
        lambda: resize_rgb(rgb, preprocessing)[top : top + size[0], left : left + size[1]],
    )
    return tf.ensure_shape(pixels, [*size, 3])


@do_not_convert
def resize_rgb(rgb: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Resize uint8 RGB of shape (height, width, 3) to what the centre crop is cut from."""
    shape = tf.shape(rgb)
    size = resized_size(rgb, preprocessing)
    if preprocessing.resize == "crop":
        return resize_to(rgb, size, preprocessing)
    # Rows come first, and of a rule a pixel high the operation would make as many of the same width as are asked for.
    return tf.cond(
        (shape[1] > LONG * shape[0]) & (shape[1] > LONG * size[1]),
        lambda: tf.transpose(resize_to(tf.transpose(rgb, [1, 0, 2]), size[::-1], preprocessing), [1, 0, 2]),
        lambda: resize_to(rgb, size, preprocessing),
    )


@do_not_convert
def resize_to(rgb: tf.Tensor, size: Sequence[int | tf.Tensor], preprocessing: Preprocessing) -> tf.Tensor:
    """Resize uint8 RGB of shape (…, height, width, 3) to a height and width, and round once."""
    resized = tf.image.resize(rgb, size, method=preprocessing.interpolation, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


@do_not_convert
def is_long(rgb: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """The twin of ``toolkit.data.pixels.sizes.is_long``."""
    height, width = (tf.cast(length, tf.int64) for length in resized_size(rgb, preprocessing))
    box_height, box_width = crop_box(preprocessing)
    return height * width > LONG * box_height * box_width


@do_not_convert
def resize_window(
    rgb: tf.Tensor, preprocessing: Preprocessing, starts: Sequence[tf.Tensor], size: Sequence[int]
) -> tf.Tensor:
    """Compute ``size`` rows and columns of a resized picture alone, from ``starts`` on.

    In memory for them and what they cover of the source; but for ties in rounding the same as cut out of the whole.
    """
    taps = 1 if preprocessing.interpolation == "bilinear" else 2
    spans, scales, translations = [], [], []
    for length, resized, start, count in zip(
        tf.unstack(tf.shape(rgb)[:2]), resized_size(rgb, preprocessing), starts, size, strict=True
    ):
        # In double precision: a rule's columns are too many for a float32 to tell the halves of.
        magnified = tf.cast(resized, tf.float64) / tf.cast(length, tf.float64)
        first_place = tf.cast(start, tf.float64) / magnified
        reach = taps * tf.maximum(1 / magnified, tf.ones([], tf.float64)) + 1
        first = tf.maximum(tf.cast(tf.floor(first_place - reach), tf.int32), 0)
        end = tf.minimum(tf.cast(tf.math.ceil(first_place + count / magnified + reach), tf.int32), length)
        spans.append(slice(first, end))
        scales.append(magnified)
        translations.append((tf.cast(first, tf.float64) - first_place) * magnified)
    resized = tf.raw_ops.ScaleAndTranslate(
        images=rgb[tuple(spans)][None],
        size=list(size),
        scale=tf.cast(tf.stack(scales), tf.float32),
        translation=tf.cast(tf.stack(translations), tf.float32),
        kernel_type={"bilinear": "triangle", "bicubic": "keyscubic"}[preprocessing.interpolation],
        antialias=True,
    )[0]
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


@do_not_convert
def normalize(pixels: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """uint8 RGB (…, height, width, 3) to the network's float32 input (…, height, width, channels)."""
    if preprocessing.channel_order == "grey":
        weights = tf.constant([19595, 38470, 7471])
        luma = tf.reduce_sum(tf.cast(pixels, tf.int32) * weights, axis=-1, keepdims=True) + 32768
        values = luma // 65536
    elif preprocessing.channel_order == "bgr":
        values = pixels[..., ::-1]
    else:
        values = pixels
    factor, offset = preprocessing.affine()
    shape = tf.shape(values)
    # A row of pixels at a time: broadcasting over the last axis, of three, is several times slower.
    rows = tf.reshape(tf.cast(values, tf.float32), tf.concat([shape[:-2], [shape[-2] * shape[-1]]], axis=0))
    rows = rows * tf.tile(tf.constant(factor), [shape[-2]]) + tf.tile(tf.constant(offset), [shape[-2]])
    return tf.ensure_shape(tf.reshape(rows, shape), values.shape)


@do_not_convert
def resized_size(rgb: tf.Tensor, preprocessing: Preprocessing) -> tuple[tf.Tensor, tf.Tensor]:
    """The twin of ``toolkit.data.pixels.sizes.resized_size``, of uint8 RGB (height, width, 3): two int32 scalars."""
    shape = tf.shape(rgb)
    return _resized_size(shape[0], shape[1], preprocessing)


def _announced_pixels(data: tf.Tensor) -> tf.Tensor:
    # The header is padded, so that a shorter file fails in its decoder and not here.
    header = tf.strings.substr(tf.strings.join([data, tf.constant(b"\0" * 32)]), 0, 32)
    raw = tf.cast(tf.io.decode_raw(header, tf.uint8), tf.int64)

    def big_endian(offset):
        return tf.reduce_sum(raw[offset : offset + 4] * [1 << 24, 1 << 16, 1 << 8, 1])

    def little_endian(offset, count=2):
        return tf.reduce_sum(raw[offset : offset + count] * [1 << 8 * index for index in range(count)])

    def webp():
        # https://developers.google.com/speed/webp/docs/riff_container: with flags, lossless, or else lossy.
        sides, mask = little_endian(21, 4), tf.constant(0x3FFF, tf.int64)
        lossless = (tf.bitwise.bitwise_and(sides, mask) + 1) * (
            tf.bitwise.bitwise_and(tf.bitwise.right_shift(sides, tf.constant(14, tf.int64)), mask) + 1
        )
        lossy = tf.bitwise.bitwise_and(little_endian(26), mask) * tf.bitwise.bitwise_and(little_endian(28), mask)
        with_flags = (little_endian(24, 3) + 1) * (little_endian(27, 3) + 1)
        return tf.where(tf.equal(raw[15], ord("X")), with_flags, tf.where(tf.equal(raw[15], ord("L")), lossless, lossy))

    return tf.case(
        [
            (tf.equal(raw[0], 0xFF), lambda: tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(data), tf.int64)[:2])),
            (tf.equal(raw[0], 0x89), lambda: big_endian(16) * big_endian(20)),
            (tf.equal(raw[0], ord("G")), lambda: little_endian(6) * little_endian(8)),
            (tf.equal(raw[0], ord("R")), webp),
        ],
        default=lambda: tf.constant(0, tf.int64),
    )


def _decode_jpeg(data: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    orientation = exif_orientation(data)
    shape = tf.io.extract_jpeg_shape(data)
    height, width = shape[0], shape[1]
    turned = orientation >= 5
    upright_height, upright_width = tf.where(turned, width, height), tf.where(turned, height, width)
    target_height, target_width = _resized_size(upright_height, upright_width, preprocessing)

    def fits(scale: int):
        return (upright_height >= 2 * scale * target_height) & (upright_width >= 2 * scale * target_width)

    def decode(scale: int):
        # The accurate transform is what Pillow uses: with it both decoders agree bit for bit.
        return lambda: tf.io.decode_jpeg(data, channels=3, ratio=scale, dct_method="INTEGER_ACCURATE")

    rgb = tf.case([(fits(scale), decode(scale)) for scale in JPEG_SCALES], default=decode(1))
    rgb.set_shape([None, None, 3])
    rgb = tf.cond(turned, lambda: tf.transpose(rgb, [1, 0, 2]), lambda: rgb)
    rgb = _reverse_if(rgb, orientation, (2, 3, 6, 7), axis=1)
    return _reverse_if(rgb, orientation, (3, 4, 7, 8), axis=0)


@do_not_convert
def exif_orientation(data: tf.Tensor) -> tf.Tensor:
    """EXIF orientation, 1 to 8, of a JPEG given as a scalar string; 1 where there is none or it is damaged."""
    parts = tf.strings.split(tf.strings.substr(data, 0, _EXIF_SEARCH_BYTES), b"Exif\x00\x00", maxsplit=1)
    return tf.cond(tf.size(parts) > 1, lambda: _tiff_orientation(parts[1]), lambda: tf.constant(1))


def _tiff_orientation(tiff: tf.Tensor) -> tf.Tensor:
    # TIFF 6.0 section 2: a byte-order mark, the offset of the first directory, then entries of twelve bytes.
    raw = tf.cast(tf.io.decode_raw(tiff, tf.uint8), tf.int32)
    raw = tf.concat([raw, tf.zeros([16], tf.int32)], axis=0)
    limit = tf.size(raw) - 1
    little = tf.equal(raw[0], ord("I"))

    def read(offset, count):
        values = [tf.gather(raw, tf.clip_by_value(offset + i, 0, limit)) for i in range(count)]
        big_endian = values[0] * 0
        little_endian = values[0] * 0
        for i in range(count):
            big_endian = big_endian * 256 + values[i]
            little_endian = little_endian * 256 + values[count - 1 - i]
        return tf.where(little, little_endian, big_endian)

    directory = read(tf.constant(4), 4)
    num_entries = tf.clip_by_value(read(directory, 2), 0, 512)
    entries = directory + 2 + 12 * tf.range(num_entries)
    matches = tf.boolean_mask(entries, tf.equal(read(entries, 2), 0x0112))
    value = tf.cond(tf.size(matches) > 0, lambda: read(matches[0] + 8, 2), lambda: tf.constant(1))
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _reverse_if(rgb: tf.Tensor, orientation: tf.Tensor, orientations: tuple[int, ...], axis: int) -> tf.Tensor:
    applies = tf.reduce_any(tf.equal(orientation, tf.constant(orientations)))
    return tf.cond(applies, lambda: tf.reverse(rgb, [axis]), lambda: rgb)


def _resized_size(height: tf.Tensor, width: tf.Tensor, preprocessing: Preprocessing) -> tuple[tf.Tensor, tf.Tensor]:
    if preprocessing.resize == "stretch":
        return tf.constant(preprocessing.size[0]), tf.constant(preprocessing.size[1])
    # In 64 bits: twice a side times the box is more than 31.
    box_height, box_width = (tf.constant(side, tf.int64) for side in crop_box(preprocessing))
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
    fit_height = box_height * width >= box_width * height
    scaled_width = tf.maximum(box_width, (2 * width * box_height + height) // (2 * height))
    scaled_height = tf.maximum(box_height, (2 * height * box_width + width) // (2 * width))
    resized = tf.where(fit_height, box_height, scaled_height), tf.where(fit_height, scaled_width, box_width)
    return tf.cast(resized[0], tf.int32), tf.cast(resized[1], tf.int32)
