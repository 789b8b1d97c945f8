"""Encoded pictures inside of a TensorFlow graph: what `kpose.inference.images` does in Python, checked before anything is decoded.

Every refusal is an `InvalidArgumentError` whose message begins with the picture's number in the request, which servers hand to the client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from kpose.data.crops import decode_region
from kpose.inference.images import ORIENTATION_TAG

# Of a JPEG's segments; the camera's data are in one of the first. A hostile file may have millions.
_MOST_SEGMENTS = 1000
# Where colours are stored at half the width, the outermost columns of a part that is decoded alone lack a neighbour.
_MARGIN = 2
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_BYTES = 24
_EXIF = b"Exif\x00\x00"


def read_header(content: tf.Tensor, number: tf.Tensor, largest_pixels: int) -> tf.Tensor:
    """What a file says of its picture, without decoding it.

    Args:
        content: the bytes of the file, a scalar.
        number: of the picture in the request, for messages.
        largest_pixels: a picture that claims more is refused.

    Returns:
        `(3,)` int32: height and width of the picture as it is stored, and its EXIF orientation, 1 to 8.
    """
    is_jpeg = tf.strings.substr(content, 0, len(_JPEG)) == _JPEG
    is_png = (tf.strings.substr(content, 0, len(_PNG)) == _PNG) & (tf.strings.length(content) >= _PNG_HEADER_BYTES)
    known = require(is_jpeg | is_png, lambda: tf.strings.format("picture {} is neither a JPEG nor a PNG file", number))
    with tf.control_dependencies([known]):
        content = tf.identity(content)
    size = tf.cond(is_jpeg, lambda: tf.cast(tf.image.extract_jpeg_shape(content)[:2], tf.int64), lambda: _png_size(content))
    height, width = size[0], size[1]
    # No product, which may not fit into any integer.
    allowed = (height > 0) & (width > 0) & (height <= largest_pixels // tf.maximum(width, 1))
    claim = "picture {} claims {} x {} pixels; from 1 to {} are answered: make it smaller"
    checked = require(allowed, lambda: tf.strings.format(claim, (number, width, height, tf.constant(largest_pixels))))
    orientation = tf.cond(is_jpeg, lambda: _orientation(content), lambda: tf.constant(1))
    with tf.control_dependencies([checked]):
        return tf.concat([tf.cast(size, tf.int32), [orientation]], axis=0)


def upright_size(header: tf.Tensor) -> tf.Tensor:
    """`(..., 2)` int32: height and width of upright pictures, of headers `(..., 3)`."""
    return tf.where(header[..., 2:] >= 5, tf.reverse(header[..., :2], axis=[-1]), header[..., :2])


def decode_upright(content: tf.Tensor, header: tf.Tensor, region: tf.Tensor) -> tf.Tensor:
    """A part of a picture, turned as its EXIF data ask; of a JPEG nothing else is decoded.

    Args:
        content: the bytes of the file, a scalar.
        header: of `read_header`.
        region: `(4,)` y, x, height, width of the part in the upright picture.

    Returns:
        `(height, width, 3)` uint8 RGB, the same pixels as of the whole.
    """
    orientation, size = header[2], upright_size(header)
    transposed, flipped, mirrored = (_one_of(orientation, kinds) for kinds in ((5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)))
    y = tf.where(flipped, size[0] - region[0] - region[2], region[0])
    x = tf.where(mirrored, size[1] - region[1] - region[3], region[1])
    upright = tf.stack([y, x, region[2], region[3]])
    stored = tf.where(transposed, tf.gather(upright, [1, 0, 3, 2]), upright)
    start = tf.maximum(stored[:2] - _MARGIN, 0)
    stop = tf.minimum(stored[:2] + stored[2:] + _MARGIN, header[:2])
    image, _ = decode_region(content, lambda _: tf.concat([start, stop - start], axis=0))
    image = tf.slice(image, tf.concat([stored[:2] - start, [0]], axis=0), tf.concat([stored[2:], [3]], axis=0))
    for asked, turn in (
        (transposed, lambda pixels: tf.transpose(pixels, (1, 0, 2))),
        (flipped, lambda pixels: tf.reverse(pixels, axis=[0])),
        (mirrored, lambda pixels: tf.reverse(pixels, axis=[1])),
    ):
        image = _if(asked, turn, image)
    return tf.ensure_shape(image, (None, None, 3))


def require(condition: tf.Tensor, message: Callable[[], tf.Tensor]) -> tf.Operation:
    """An operation that fails with `message` unless `condition`; what must not run before it has to be told to wait for it."""
    # The message is only put together where it is wanted: with thousands of boxes its parts may not exist otherwise.
    return tf.debugging.Assert(condition, [tf.cond(condition, lambda: tf.constant(""), message)])


def _if(condition: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor], value: tf.Tensor) -> tf.Tensor:
    return tf.cond(condition, lambda: change(value), lambda: value)


def _one_of(value: tf.Tensor, numbers: Sequence[int]) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(numbers))


def _png_size(content: tf.Tensor) -> tf.Tensor:
    sides = tf.reshape(tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.uint8), (2, 4))
    return tf.reverse(tf.reduce_sum(tf.cast(sides, tf.int64) * [1 << 24, 1 << 16, 1 << 8, 1], axis=1), axis=[0])


def _orientation(content: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, 1 to 8; 1 (upright) where there is none."""
    end = tf.strings.length(content)

    def look(position: tf.Tensor, _start: tf.Tensor, _stop: tf.Tensor, _searching: tf.Tensor) -> tuple[tf.Tensor, ...]:
        head = _bytes(content, position, 4)
        length = head[2] * 256 + head[3]
        after = position + 2 + length
        segment = (head[0] == 0xFF) & (length >= 2) & (head[1] != 0xDA)
        tag = tf.strings.substr(content, tf.minimum(position + 4, end), len(_EXIF))
        found = segment & (head[1] == 0xE1) & (tag == _EXIF)
        start, stop = (tf.where(found, place, 0) for place in (position + 4 + len(_EXIF), tf.minimum(after, end)))
        return after, start, stop, segment & ~found

    state = (tf.constant(2), tf.constant(0), tf.constant(0), tf.constant(True))
    _, start, stop, _ = tf.while_loop(
        lambda position, _start, _stop, searching: searching & (position < end), look, state, maximum_iterations=_MOST_SEGMENTS
    )
    return tf.cond(stop > start, lambda: _orientation_of_tiff(_bytes(content, start, stop - start)), lambda: tf.constant(1))


def _orientation_of_tiff(block: tf.Tensor) -> tf.Tensor:
    size = tf.size(block, tf.int64)
    little = (size >= 2) & (tf.reduce_sum(tf.cast(block[:2] == tf.constant(b"I"[0], tf.int32), tf.int32)) == 2)
    # What lies beyond the end is 0.
    padded = tf.cast(tf.pad(block, [[0, 16]]), tf.int64)

    def numbers(starts: tf.Tensor, count: int) -> tf.Tensor:
        places = tf.minimum(starts[:, None], size) + tf.range(count, dtype=tf.int64)
        values = tf.gather(padded, places)
        weights = tf.constant([1 << (8 * place) for place in range(count)], tf.int64)
        return tf.reduce_sum(values * tf.where(little, weights, weights[::-1]), axis=1)

    directory = tf.minimum(numbers(tf.constant([4], tf.int64), 4)[0], size)
    entries = numbers(directory[None], 2)[0]
    first = directory + 2
    starts = tf.range(first, tf.maximum(first, tf.minimum(first + 12 * entries, size)), 12)
    values = tf.boolean_mask(numbers(starts + 8, 2), numbers(starts, 2) == ORIENTATION_TAG)
    value = tf.concat([values, tf.constant([1], tf.int64)], axis=0)[0]
    return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.int32)


def _bytes(content: tf.Tensor, start: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """`(count,)` int32: bytes of a scalar, 0 where it has ended."""
    part = tf.strings.substr(content, tf.minimum(start, tf.strings.length(content)), count)
    values = tf.cast(tf.io.decode_raw(part, tf.uint8), tf.int32)
    return tf.pad(values, [[0, count - tf.size(values)]])
