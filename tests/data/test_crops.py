from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kpose import geometry
from kpose.codecs.gaussian import GaussianCodec
from kpose.data.crops import Preparation, check_image, decode_region, load_crop, load_views, sample_crop
from kpose.errors import KposeError

SIZE = (64, 48)
PREPARATION = Preparation(GaussianCodec(SIZE, (16, 12)))


@pytest.fixture
def picture() -> np.ndarray:
    """Smooth noise, 101 x 131: odd sizes meet the chroma blocks of a JPEG half-way."""
    noise = np.random.default_rng(0).uniform(0, 255, (101, 131, 3))
    return cv2.GaussianBlur(noise, (0, 0), 2).clip(0, 255).astype(np.uint8)


def encoded(picture: np.ndarray, extension: str, *options: int) -> tf.Tensor:
    channels = picture if picture.ndim == 2 else picture[..., ::-1]
    return tf.constant(cv2.imencode(extension, channels, options)[1].tobytes())


def maps() -> list[tf.Tensor]:
    """Crops inside, across the borders of, and far outside of the picture; turned and mirrored."""
    made = []
    for center, width, rotation, mirrored in (
        ((65, 50), 40, 0, False),
        ((65, 50), 60, 30, True),
        ((5, 5), 50, -100, False),
        ((130, 100), 90, 12, True),
        ((66, 51), 400, 77, False),
        ((500, 500), 40, 0, False),
    ):
        size = tf.constant([width, width * SIZE[0] / SIZE[1]], tf.float32)
        made.append(geometry.crop_matrix(tf.constant(center, tf.float32), size, SIZE, rotation=float(rotation), mirrored=mirrored))
    return made


@pytest.mark.parametrize("number", range(6))
def test_sampling_points_equals_the_projective_transform(picture: np.ndarray, number: int) -> None:
    matrix = maps()[number]
    expected = geometry.warp_image(picture[None], matrix[None], SIZE)[0]
    np.testing.assert_allclose(sample_crop(tf.constant(picture), matrix, SIZE), expected, atol=0.05)


@given(
    center=st.tuples(st.floats(-60, 190), st.floats(-60, 160)),
    width=st.floats(20, 300),
    rotation=st.one_of(st.just(0.0), st.floats(-180, 180)),
    mirrored=st.booleans(),
)
def test_upright_and_turned_crops_equal_the_projective_transform_wherever_they_lie(
    center: tuple[float, float], width: float, rotation: float, mirrored: bool
) -> None:
    """Inside, across the borders and beyond, where the picture fades to black over one pixel."""
    bright = np.random.default_rng(0).integers(150, 256, (101, 131, 3)).astype(np.uint8)
    size = tf.constant([width, width * SIZE[0] / SIZE[1]], tf.float32)
    matrix = geometry.crop_matrix(tf.constant(center, tf.float32), size, SIZE, rotation=rotation, mirrored=mirrored)
    expected = geometry.warp_image(bright[None], matrix[None], SIZE)[0]
    np.testing.assert_allclose(sample_crop(tf.constant(bright), matrix, SIZE), expected, atol=0.05)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("subsampling", [0x111111, 0x211111, 0x221111, 0x121111, 0x411111])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_crop_of_the_decoded_part_of_a_jpeg_equals_the_crop_of_the_whole(
    picture: np.ndarray, number: int, subsampling: int, progressive: int
) -> None:
    """Also where the part cuts through a block of halved chroma.

    There the outermost column of the part may differ, for its chroma is interpolated without the neighbour; the region has one to
    spare.
    """
    content = encoded(picture, ".jpg", cv2.IMWRITE_JPEG_SAMPLING_FACTOR, subsampling, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    whole, matrix = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"), maps()[number]
    expected = PREPARATION.normalise(sample_crop(whole, matrix, SIZE))
    # Where the picture is padded the place of a point is rounded differently: hundredths of a grey level.
    np.testing.assert_allclose(load_crop(content, matrix, PREPARATION), expected, atol=1e-3)
    region, offset = decode_region(content, lambda size: geometry.visible_region(matrix, SIZE, size))
    x, y = offset.numpy()
    height, width = region.shape[:2]
    np.testing.assert_array_equal(region[:, 1:-1], whole[y : y + height, x + 1 : x + width - 1])


@pytest.mark.parametrize("number", range(6))
def test_a_crop_of_a_part_of_a_png_equals_the_crop_of_the_whole(picture: np.ndarray, number: int) -> None:
    matrix = maps()[number]
    expected = PREPARATION.normalise(sample_crop(tf.constant(picture), matrix, SIZE))
    np.testing.assert_allclose(load_crop(encoded(picture, ".png"), matrix, PREPARATION), expected, atol=1e-3)


def test_only_what_the_crop_shows_is_decoded(picture: np.ndarray) -> None:
    region, _ = decode_region(encoded(picture, ".jpg"), lambda size: geometry.visible_region(maps()[0], SIZE, size))
    assert region.shape[0] < 60 and region.shape[1] < 45


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp"])
def test_grey_pictures_become_rgb(picture: np.ndarray, extension: str) -> None:
    region, _ = decode_region(encoded(picture[..., 0], extension), lambda size: tf.stack([0, 0, size[0], size[1]]))
    assert region.shape == (101, 131, 3)
    np.testing.assert_array_equal(region[..., 0], region[..., 2])


def test_jpegs_decode_to_the_pixels_of_opencv(picture: np.ndarray) -> None:
    content = encoded(picture, ".jpg")
    region, _ = decode_region(content, lambda size: tf.stack([0, 0, size[0], size[1]]))
    np.testing.assert_array_equal(region, cv2.imdecode(np.frombuffer(content.numpy(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1])


def test_the_colour_order_is_rgb(picture: np.ndarray) -> None:
    region, offset = decode_region(encoded(picture, ".png"), lambda size: tf.constant([10, 20, 30, 40]))
    np.testing.assert_array_equal(region, picture[10:40, 20:60])
    assert offset.numpy().tolist() == [20, 10]


def test_normalisation_is_undone_exactly(picture: np.ndarray) -> None:
    normalised = PREPARATION.normalise(tf.cast(picture, tf.float32)).numpy()
    np.testing.assert_allclose(normalised[0, 0, 0], (picture[0, 0, 0] / 255 - 0.485) / 0.229, rtol=1e-4)
    np.testing.assert_array_equal(PREPARATION.denormalise(normalised), picture)


@pytest.mark.parametrize("leading", [(), (4,), (2, 2), (0,)])
def test_normalisation_keeps_leading_dimensions_and_treats_each_channel_alone(leading: tuple[int, ...]) -> None:
    crops = np.random.default_rng(0).uniform(0, 255, (*leading, 5, 7, 3)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None] * len(leading) + [5, 7, 3])])
    def in_graph(crops: tf.Tensor) -> tf.Tensor:
        normalised = PREPARATION.normalise(crops)
        assert normalised.shape[-3:] == (5, 7, 3)
        return normalised

    expected = (crops / 255 - np.array(PREPARATION.mean)) / np.array(PREPARATION.std)
    np.testing.assert_allclose(in_graph(crops), expected, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 broken", b"no picture at all"])
def test_a_broken_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(KposeError, match=r"cannot read the picture .*broken.jpg: .*replace it or leave it out") as error:
        check_image(str(path))
    assert "\n" not in str(error.value)


def test_a_cut_off_jpeg_is_broken(tmp_path: Path, picture: np.ndarray) -> None:
    content = encoded(picture, ".jpg").numpy()
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(KposeError, match="cut.jpg"):
        check_image(str(path))


@pytest.mark.parametrize("kinds", [(np, tf), (tf, np)], ids=["numpy", "tensorflow"])
def test_views_are_every_rotation_at_every_scale(kinds: tuple) -> None:
    boxes = np.array([[10, 20, 30, 60], [5, 5, 80, 20]], np.float32)
    own, _ = kinds
    views = PREPARATION.views(boxes if own is np else tf.constant(boxes), [0.0, -30.0], [1.0, 0.8, 1.5])
    assert tf.is_tensor(views) == (own is tf)
    assert tuple(views.shape) == (2, 6, 2, 3)
    centers, sizes = geometry.fit_box_to_aspect(boxes, SIZE, 1.25)
    for position, (rotation, scale) in enumerate([(0, 1), (0, 0.8), (0, 1.5), (-30, 1), (-30, 0.8), (-30, 1.5)]):
        expected = geometry.crop_matrix(centers, sizes * np.float32(scale), SIZE, rotation)
        np.testing.assert_allclose(views[:, position], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_views_of_a_picture_decoded_once_are_its_crops(picture: np.ndarray, extension: str) -> None:
    content = encoded(picture, extension)
    views = load_views(content, tf.stack(maps()), PREPARATION)
    assert views.shape == (6, *SIZE, 3)
    for view, matrix in zip(views, maps(), strict=True):
        np.testing.assert_allclose(view, load_crop(content, matrix, PREPARATION), atol=2e-3)
    alone = load_views(content, maps()[0][None], PREPARATION)[0]
    np.testing.assert_array_equal(alone, load_crop(content, maps()[0], PREPARATION))
