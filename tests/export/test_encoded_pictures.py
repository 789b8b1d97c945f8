from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.export.encoded_pictures import decode_upright, read_header, upright_size
from kpose.inference.images import read_image

LARGEST = 10_000


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def header(content):
    return read_header(content, tf.constant(7), LARGEST)


@tf.function(input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((4,), tf.int32)], autograph=False)
def part(content, region):
    return decode_upright(content, read_header(content, tf.constant(7), LARGEST), region)


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1)


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def tiff(orientation: int, order: str, entries_before: int = 1) -> bytes:
    entries = [(0x0100 + number, 3, 1, 9) for number in range(entries_before)] + [(0x0112, 3, 1, orientation)]
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        directory += struct.pack(f"{order}HHIHH", tag, kind, count, value, 0)
    return (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8) + directory


def with_segments(content: bytes, *segments: tuple[int, bytes]) -> bytes:
    written = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data for marker, data in segments)
    return content[:2] + written + content[2:]


def exif(content: bytes, orientation: int, order: str = "<") -> bytes:
    return with_segments(content, (0xE1, b"http://ns.adobe.com/xap/1.0/\0..."), (0xE1, b"Exif\0\0" + tiff(orientation, order)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_picture_is_turned_as_read_image_turns_it(orientation, order, tmp_path):
    content = exif(jpeg(picture()), orientation, order)
    (tmp_path / "turned.jpg").write_bytes(content)
    expected = read_image(tmp_path / "turned.jpg")
    size = upright_size(header(content)).numpy()
    assert size.tolist() == list(expected.shape[:2])
    np.testing.assert_array_equal(part(content, [0, 0, *size]), expected)
    # Parts lie where they lie in the whole, also at its edges.
    for y, x, height, width in ((3, 5, 20, 11), (0, 0, 9, 9), (size[0] - 7, size[1] - 8, 7, 8)):
        np.testing.assert_array_equal(part(content, [y, x, height, width]), expected[y : y + height, x : x + width])


@pytest.mark.parametrize("encode", [jpeg, png])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_header_and_pixels_of_every_kind(encode, channels, tmp_path):
    image = np.dstack([picture()] * 2)[..., :channels]
    content = encode(image[..., 0] if channels == 1 else image)
    (tmp_path / "image.png").write_bytes(content)
    assert header(content).numpy().tolist() == [40, 60, 1]
    np.testing.assert_array_equal(part(content, [0, 0, 40, 60]), read_image(tmp_path / "image.png"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "picture 7 is neither a JPEG nor a PNG file"),
        (b"GIF89a" + bytes(40), "picture 7 is neither a JPEG nor a PNG file"),
        (b"\x89PNG\r\n\x1a\n", "picture 7 is neither a JPEG nor a PNG file"),
        (b"\xff\xd8\xff broken", "Invalid JPEG data"),
        (jpeg(picture(100, 104)), "picture 7 claims 104 x 100 pixels; from 1 to 10000 are answered"),
        (png(picture(100, 104)), "picture 7 claims 104 x 100 pixels"),
        (b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 0xFFFFFFFF, 0xFFFFFFFF), "picture 7 claims 4294967295 x 4294967295"),
        (b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 0, 5), "picture 7 claims 0 x 5 pixels"),
    ],
)
def test_a_file_is_refused_by_its_header(content, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        header(content)


def test_nothing_is_decoded_before_the_header_is_checked():
    """The claim is what is refused, not the missing pixels behind it."""
    content = jpeg(picture(100, 104))[:700]
    with pytest.raises(tf.errors.InvalidArgumentError, match="picture 7 claims"):
        part(content, [0, 0, 100, 104])


@pytest.mark.parametrize("encode", [jpeg, png])
def test_a_file_that_is_cut_off_is_refused(encode):
    content = encode(picture())
    with pytest.raises(tf.errors.InvalidArgumentError):
        part(content[: len(content) // 2], [0, 0, 40, 60])


@settings(max_examples=60)
@given(data=st.data(), orientation=st.integers(1, 8), order=st.sampled_from("<>"))
def test_damaged_camera_data_never_fail(data, orientation, order):
    """Of a file that cannot say how it is to be turned any way is right, but it is one."""
    block = bytearray(b"Exif\0\0" + tiff(orientation, order))
    for _ in range(data.draw(st.integers(0, 4))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    content = with_segments(jpeg(picture()), (0xE1, bytes(block[: data.draw(st.integers(0, len(block)))])))
    height, width, found = header(content).numpy().tolist()
    assert (height, width) == (40, 60) and 1 <= found <= 8


def test_a_million_segments_take_no_time():
    """Those beyond the first thousand are not looked at."""
    content = jpeg(picture())
    many = content[:2] + b"\xff\xe0\x00\x02" * 200_000 + content[2:]
    assert header(many).numpy().tolist() == [40, 60, 1]
