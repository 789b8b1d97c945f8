"""Pictures from outside: checked before they are decoded, decoded as the training pipeline does, turned as their EXIF data asks."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from kpose.errors import KposeError
from kpose.files import address, read_bytes

SUFFIXES = (".jpg", ".jpeg", ".png")
# A file of a few kilobytes can claim any size; beyond these it is a mistake or an attack.
LARGEST_FILE_BYTES = 256 << 20
LARGEST_PICTURE_PIXELS = 100_000_000

ORIENTATION_TAG = 0x0112


def read_image(path: str | Path) -> np.ndarray:
    """Read a JPEG or PNG file.

    Returns:
        `(H, W, 3)` uint8 RGB, upright; grey and transparent pictures are converted.

    Raises:
        KposeError: when the file is missing, of another format, damaged or cut off, or larger than 100 megapixels.
    """
    try:
        content = read_bytes(path, LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise KposeError(f"cannot read picture {address(path)}: {error.strerror}") from error
    if len(content) > LARGEST_FILE_BYTES:
        raise KposeError(f"picture {address(path)} is larger than {LARGEST_FILE_BYTES >> 20} MiB; make it smaller")
    return decode_image(content, address(path))


def decode_image(content: bytes, name: str, largest_pixels: int = LARGEST_PICTURE_PIXELS, upright: bool = True) -> np.ndarray:
    """Decode a JPEG or PNG picture whose size in bytes was limited already.

    Args:
        content: the file's.
        name: what errors call it.
        largest_pixels: of a picture of more its header alone is read.
        upright: turn it as its EXIF data says.

    Returns:
        `(H, W, 3)` uint8 RGB; grey and transparent pictures are converted.

    Raises:
        KposeError: when it is of another format, damaged or cut off, or larger than `largest_pixels`.
    """
    import tensorflow as tf

    from kpose.data.crops import decode_whole, first_line

    try:
        height, width = _size(content, name)
        if height * width > largest_pixels:
            limit = largest_pixels // 10**6
            raise KposeError(f"picture {name} claims {width} x {height} pixels, more than {limit} million; make it smaller")
        image = decode_whole(tf.constant(content)).numpy()
    except tf.errors.OpError as error:
        raise KposeError(f"picture {name} is damaged or cut off: {first_line(error)[:160]}") from error
    return _upright(image, _orientation(content)) if upright else image


def _size(content: bytes, name: str) -> tuple[int, int]:
    """Height and width from the header alone."""
    import tensorflow as tf

    if content.startswith(b"\xff\xd8\xff"):
        height, width, _ = tf.image.extract_jpeg_shape(content).numpy().tolist()
        return height, width
    if content.startswith(b"\x89PNG\r\n\x1a\n") and content[12:16] == b"IHDR" and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return height, width
    raise KposeError(f"picture {name} is neither a JPEG nor a PNG; convert it")


def _orientation(content: bytes) -> int:
    """The EXIF orientation of a JPEG, 1 to 8; 1 (upright) where there is none."""
    position = 2
    while content.startswith(b"\xff\xd8") and content[position : position + 1] == b"\xff":
        marker, length = content[position + 1 : position + 2], int.from_bytes(content[position + 2 : position + 4], "big")
        segment = content[position + 4 : position + 2 + length]
        if marker == b"\xe1" and segment.startswith(b"Exif\0\0"):
            return _orientation_of_tiff(segment[6:])
        if marker == b"\xda" or length < 2:
            break
        position += 2 + length
    return 1


def _orientation_of_tiff(block: bytes) -> int:
    little = block.startswith(b"II")

    def number(start: int, size: int) -> int:
        return int.from_bytes(block[start : start + size], "little" if little else "big")

    directory = number(4, 4)
    for entry in range(directory + 2, min(directory + 2 + 12 * number(directory, 2), len(block)), 12):
        if number(entry, 2) == ORIENTATION_TAG:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
