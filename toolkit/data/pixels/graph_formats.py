"""PNG, GIF, BMP and WebP bytes to uint8 RGB on white, as TensorFlow operations.

The twin of ``toolkit.data.pixels.colours`` and ``encoded``: all functions take a scalar string and give
(height, width, 3). Branches are ``tf.cond``, as in ``toolkit.data.pixels.graph``.
"""

import tensorflow as tf

from toolkit.data.pixels.colours import RANGES
from toolkit.data.pixels.encoded import MAX_GIF_BLOCKS
from toolkit.data.pixels.sizes import MAX_PIXELS


def decode_png(data: tf.Tensor) -> tf.Tensor:
    """Decode a PNG of any depth; 16-bit samples in the range that the largest of them lies in."""

    depth = tf.minimum(_bytes(tf.strings.substr(_padded(data), 24, 1))[0], 16)

    def deep():
        rgba = tf.cast(tf.io.decode_png(data, channels=4, dtype=tf.uint16), tf.int32)
        return _on_white(tf.concat([_to_8_bits(rgba[..., :3]), _to_8_bits(rgba[..., 3:])], axis=-1))

    def shallow():
        # Where samples have fewer bits than 8, libpng's opaque is not 255 but their largest value.
        return _on_white(tf.io.decode_png(data, channels=4), opaque=tf.bitwise.left_shift(1, depth) - 1)

    return tf.cond(tf.equal(depth, 16), deep, shallow)


def decode_webp(data: tf.Tensor) -> tf.Tensor:
    """Decode a still WebP, with an opacity or without.

    An animated one is refused here: the operation makes room for one frame and writes all of them there, which ends the
    process.
    """
    head = tf.strings.substr(_padded(data), 0, 64)
    is_webp = tf.equal(tf.strings.substr(head, 8, 4), b"WEBP")
    known = tf.debugging.Assert(
        is_webp, ["not a picture in a format that this graph decodes: JPEG, PNG, BMP, WebP, or a GIF's first frame"]
    )
    has_flags = tf.equal(tf.strings.substr(head, 12, 4), b"VP8X")
    is_animated = has_flags & tf.not_equal(tf.bitwise.bitwise_and(_bytes(head)[20], 2), 0)
    still = tf.debugging.Assert(
        tf.logical_not(is_webp & is_animated),
        ["an animated WebP, which this graph does not decode: send its first frame, as a still WebP or a PNG"],
    )
    with tf.control_dependencies([known, still]):
        pixels = tf.io.decode_image(data, channels=0, expand_animations=False)
    pixels.set_shape([None, None, None])
    return tf.cond(tf.equal(tf.shape(pixels)[2], 4), lambda: _on_white(pixels), lambda: pixels[..., :3])


def decode_bmp(data: tf.Tensor) -> tf.Tensor:
    """Decode a BMP of 8 bits with a palette, of 24, or of 32, whose fourth byte means nothing; ignore what follows."""
    raw = _bytes(tf.strings.substr(_padded(data), 0, 64))
    start, header = _little_endian(raw, 10, 4), _little_endian(raw, 14, 4)
    width, height = _little_endian(raw, 18, 4), tf.abs(_little_endian(raw, 22, 4))
    bits, compression = _little_endian(raw, 28, 2), _little_endian(raw, 30, 4)
    is_plain = (header >= 40) & (header <= 124) & tf.reduce_any(tf.equal(bits, [8, 24, 32]))
    is_plain &= tf.equal(compression, 0) | (tf.equal(compression, 3) & tf.equal(bits, 32))
    pixels_there = (width > 0) & (height > 0) & (tf.cast(width, tf.int64) * tf.cast(height, tf.int64) <= MAX_PIXELS)
    known = tf.debugging.Assert(
        is_plain & pixels_there, ["not a BMP that this graph decodes (8, 24 or 32 bits, not compressed): send a PNG"]
    )
    with tf.control_dependencies([known]):
        row_size = (width * bits // 8 + 3) // 4 * 4
        # Some programs do not fill the last row up, and some write more behind it.
        filling = tf.constant(bytes(3))
        filled = tf.strings.join([data, tf.strings.substr(filling, 0, row_size - width * bits // 8)])
        whole = tf.strings.substr(filled, 0, start + row_size * height)

    def palette():
        count = _little_endian(raw, 46, 4)
        count = tf.where(tf.equal(count, 0), 256, tf.clip_by_value(count, 0, 256))
        colours = _bytes(tf.strings.substr(_padded(data, 4 * 256), 14 + header, 4 * 256))
        colours = tf.reverse(tf.reshape(colours[: 4 * 256], [256, 4])[:, :3], axis=[1])
        colours = tf.where(tf.range(256)[:, None] < count, colours, 0)
        indices = tf.io.decode_bmp(whole, channels=0)
        return tf.gather(tf.cast(colours, tf.uint8), tf.cast(indices[..., 0], tf.int32))

    return tf.cond(tf.equal(bits, 8), palette, lambda: tf.io.decode_bmp(whole, channels=0)[..., :3])


def decode_gif(data: tf.Tensor) -> tf.Tensor:
    """Decode the first frame of a GIF on its canvas, white where it is transparent and where it does not reach.

    The operation decodes what is transparent as black, and what it is decoded from knows no more of it. So it decodes
    twice, the second time with every colour of the palette inverted: what is black both times is transparent.
    """
    values = tf.io.decode_raw(_padded(data, 1024), tf.uint8)
    frame = _first_frame(values, tf.strings.length(data))
    head_size = frame + 10 + 3 * 256
    raw = tf.cast(values[:head_size], tf.int32)
    left, top, width, height = (_little_endian(raw, frame + 1 + 2 * index, 2) for index in range(4))
    has_own = raw[frame + 9] >= 128
    table = tf.where(has_own, frame + 10, 13)
    table_size = _palette_bytes(tf.where(has_own, raw[frame + 9], raw[10]))
    # At the canvas' corner: the operation cuts off what it takes to lie outside.
    place = tf.range(head_size)
    at_corner = tf.where((place > frame) & (place <= frame + 4), 0, raw)
    inverted = tf.where((place >= table) & (place < table + table_size), 255 - at_corner, at_corner)

    def decoded(head):
        characters = tf.gather(tf.constant([bytes([value]) for value in range(256)]), head)
        size = tf.minimum(head_size, tf.strings.length(data))
        rest = tf.strings.substr(data, size, tf.strings.length(data) - size)
        whole = tf.strings.join([tf.strings.reduce_join(characters[:size]), rest])
        return tf.io.decode_image(whole, channels=3, expand_animations=False)

    first, second = decoded(at_corner), decoded(inverted)
    is_drawn = tf.equal(tf.cast(first[..., :1], tf.int32) + tf.cast(second[..., :1], tf.int32), 255)
    drawn = tf.where(is_drawn, first, 255)[:height, :width]
    canvas_height = tf.maximum(_little_endian(raw, 8, 2), top + height)
    canvas_width = tf.maximum(_little_endian(raw, 6, 2), left + width)
    fits = tf.debugging.assert_less_equal(
        tf.cast(canvas_height, tf.int64) * tf.cast(canvas_width, tf.int64), tf.constant(MAX_PIXELS, tf.int64)
    )
    with tf.control_dependencies([fits]):
        below, right = canvas_height - top - tf.shape(drawn)[0], canvas_width - left - tf.shape(drawn)[1]
        return tf.pad(drawn, [[top, below], [left, right], [0, 0]], constant_values=255)


def _first_frame(values: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Walk over a GIF's extensions to where its first frame is described."""

    def goes_on(place, is_in_extension, count):
        return (place < length) & (count <= MAX_GIF_BLOCKS) & (is_in_extension | tf.equal(values[place], 0x21))

    def step(place, is_in_extension, count):
        size = tf.cast(values[place], tf.int32)
        place = tf.where(is_in_extension, place + 1 + size, place + 2)
        return place, tf.logical_not(is_in_extension) | (size > 0), count + 1

    start = 13 + _palette_bytes(tf.cast(values[10], tf.int32))
    place, _, count = tf.while_loop(goes_on, step, [start, tf.constant(False), 0])
    place = tf.minimum(place, length)
    is_found = tf.equal(values[place], 0x2C) & (count <= MAX_GIF_BLOCKS)
    with tf.control_dependencies([tf.debugging.Assert(is_found, ["no picture found in this GIF"])]):
        return tf.identity(place)


def _palette_bytes(flags: tf.Tensor) -> tf.Tensor:
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, tf.bitwise.bitwise_and(flags, 7)), 0)


def _to_8_bits(values: tf.Tensor) -> tf.Tensor:
    largest = tf.reduce_max(values)
    shift = tf.reduce_sum([tf.where(largest >= end, 4, 0) for end in RANGES[:-1]])
    return tf.cast(tf.bitwise.right_shift(values, shift), tf.uint8)


def _on_white(rgba: tf.Tensor, opaque: int | tf.Tensor = 255) -> tf.Tensor:
    """Lay uint8 RGBA on white, unless all of it has the opacity ``opaque``."""

    def blended():
        values = tf.cast(rgba, tf.int32)
        opacity = values[..., 3:]
        return tf.cast((values[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255, tf.uint8)

    is_opaque = tf.reduce_all(tf.equal(tf.cast(rgba[..., 3], tf.int32), opaque))
    return tf.cond(is_opaque, lambda: rgba[..., :3], blended)


def _padded(data: tf.Tensor, count: int = 64) -> tf.Tensor:
    """Append zeros, so that a shorter file fails in its decoder and not here."""
    return tf.strings.join([data, tf.constant(bytes(count))])


def _bytes(data: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.io.decode_raw(data, tf.uint8), tf.int32)


def _little_endian(raw: tf.Tensor, offset: int | tf.Tensor, count: int) -> tf.Tensor:
    return tf.reduce_sum(raw[offset : offset + count] * [1 << 8 * index for index in range(count)])
