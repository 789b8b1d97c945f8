from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
import tensorflow as tf

from kpose.data.crops import decode_region
from kpose.errors import KposeError
from kpose.inference import read_image


def corner_picture() -> np.ndarray:
    """40 x 24, red left and blue right, brighter above: no two orientations look alike."""
    image = np.zeros((24, 40, 3), np.uint8)
    image[:, :20, 0], image[:, 20:, 2] = 200, 200
    image[:12, :, 1] = 120
    return image


def jpeg(image: np.ndarray, exif: bytes = b"") -> bytes:
    content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif if exif else b""
    return content[:2] + segment + content[2:]


def exif(orientation: int, order: str = "<") -> bytes:
    """An EXIF block with a leading entry that is none of our business."""
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 2)
    tiff += struct.pack(order + "HHII", 0x0100, 4, 1, 40) + struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0" + tiff + struct.pack(order + "I", 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_as_opencv_does(tmp_path, orientation, order):
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(corner_picture(), exif(orientation, order)))
    expected = cv2.imread(str(path))[..., ::-1]
    found = read_image(path)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 2
    assert found.flags.c_contiguous


@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", exif(77), b"Exif\0\0" + b"\xff" * 60])
def test_a_damaged_exif_block_does_no_harm(tmp_path, block):
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(corner_picture(), block))
    assert read_image(path).shape == (24, 40, 3)


def test_pixels_are_those_of_the_training_pipeline(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)))
    part, _ = decode_region(tf.io.read_file(str(path)), lambda size: tf.constant([0, 8, 16, 24]))
    # The crop's outermost column may differ where colour is stored at half the resolution; nothing samples it.
    np.testing.assert_array_equal(read_image(path)[:15, 9:31], part[:15, 1:23])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_of_any_channels_becomes_rgb(tmp_path, channels):
    path = tmp_path / "drawing.png"
    image = np.full((6, 8, channels), 200, np.uint8)
    cv2.imwrite(str(path), image)
    assert read_image(path).tolist() == np.full((6, 8, 3), 200).tolist()


def huge_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def huge_jpeg() -> bytes:
    content = bytearray(jpeg(corner_picture()))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 60000, 60000)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a JPEG nor a PNG"),
        (b"GIF89a" + b"\0" * 40, "neither a JPEG nor a PNG"),
        (jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[:-300], "damaged or cut off"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 40, "damaged or cut off"),
        (b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">II", 8, 8) + b"\0" * 9, "damaged or cut off"),
        (huge_png(), "claims 60000 x 60000 pixels"),
        (huge_jpeg(), "claims 60000 x 60000 pixels"),
    ],
    ids=["empty", "gif", "truncated", "broken jpeg", "broken png", "huge png", "huge jpeg"],
)
def test_what_is_no_sound_picture_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(KposeError, match=message) as refusal:
        read_image(path)
    assert "\n" not in str(refusal.value)
    assert "photo.jpg" in str(refusal.value)


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(KposeError, match=r"cannot read picture .*gone\.jpg: No such file"):
        read_image(tmp_path / "gone.jpg")
