"""Every codec gives an encoded keypoint back within its documented bound: plainly, through a mirrored crop, through a turned one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kpose import geometry
from kpose.codecs import GaussianCodec, OffsetCodec
from kpose.skeletons import COCO_17

INPUT_SIZE, HEATMAP_SIZE = (160, 128), (40, 32)
STRIDE = 4
JOINTS = COCO_17.num_joints
TOLERANCE = 2e-4


@dataclass(frozen=True)
class Case:
    """A codec and what its module promises, in heatmap pixels.

    Attributes:
        codec: whose promise it is.
        bound: on the error in x and in y.
        margin: how far from the edge of the heatmap it holds.
        mirrored_bias: in x, of heatmaps of the mirrored crop.
        mirrored_excess: by how much the error of those may go beyond the bound.
    """

    codec: GaussianCodec | OffsetCodec
    bound: float
    margin: float
    mirrored_bias: float = 0.0
    mirrored_excess: float = 0.0


def gaussian(bound: float, margin: float, **settings: Any) -> Case:
    codec = GaussianCodec(INPUT_SIZE, HEATMAP_SIZE, **settings)
    return Case(codec, bound, margin, 0.0 if codec.alignment == "unbiased" else 1 / STRIDE)


def offset(bound: float, margin: float, mirrored_excess: float = 0.0, **settings: Any) -> Case:
    return Case(OffsetCodec(INPUT_SIZE, HEATMAP_SIZE, **settings), bound, margin, mirrored_excess=mirrored_excess)


CASES: dict[str, Case] = {}
for alignment in ("classic", "unbiased"):
    CASES |= {
        f"{alignment}, rounded, argmax": gaussian(0.5, 0, alignment=alignment, decoding="argmax"),
        f"{alignment}, rounded, quarter": gaussian(0.5, 0, alignment=alignment),
        f"{alignment}, rounded, dark": gaussian(0.502, 6, alignment=alignment, decoding="dark"),
        f"{alignment}, exact, argmax": gaussian(0.5, 0, alignment=alignment, center="exact", decoding="argmax"),
        f"{alignment}, exact, quarter": gaussian(0.25, 2, alignment=alignment, center="exact"),
        f"{alignment}, exact, quarter, edge": gaussian(0.5, 0, alignment=alignment, center="exact"),
        f"{alignment}, exact, dark": gaussian(0.001, 6, alignment=alignment, center="exact", decoding="dark"),
        f"{alignment}, exact, dark, sigma 3": gaussian(0.001, 9, alignment=alignment, sigma=3.0, center="exact", decoding="dark"),
        f"{alignment}, exact, dark, sigma 1": gaussian(0.01, 3, alignment=alignment, sigma=1.0, center="exact", decoding="dark"),
        f"{alignment}, exact, dark, edge": gaussian(1.0, 0, alignment=alignment, center="exact", decoding="dark"),
        f"{alignment}, offset": offset(0.04, 7, alignment=alignment),
        f"{alignment}, offset, edge": offset(1.8, 0, 0.02 if alignment == "classic" else 0.0, alignment=alignment),
        f"{alignment}, offset, radius 3": offset(0.25, 7, alignment=alignment, radius=3.0),
        f"{alignment}, offset, radius 5": offset(0.003, 7, alignment=alignment, radius=5.0),
    }
all_codecs = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
FRACTIONS = arrays(np.float64, (JOINTS, 2), elements=st.floats(0, 1))


def place(fractions, case, margin):
    """Visible keypoints in the crop, at least `margin` heatmap pixels from the edge of the heatmap."""
    size = np.array(HEATMAP_SIZE[::-1])
    points = margin + fractions * (size - 1 - 2 * margin)
    points = np.concatenate([points, np.full((JOINTS, 1), 2.0)], axis=1)
    return geometry.heatmap_to_crop(points, INPUT_SIZE, HEATMAP_SIZE, case.codec.alignment)


def encode(case, keypoints):
    maps, weights = case.codec.encode(tf.constant(keypoints, tf.float32))
    np.testing.assert_array_equal(weights.numpy(), 1)
    return maps.numpy()


def error(case, found, keypoints):
    """`(JOINTS, 2)` in heatmap pixels."""
    return (found[:, :2] - keypoints[:, :2]) / geometry.heatmap_stride(INPUT_SIZE, HEATMAP_SIZE, case.codec.alignment)


def mirror(keypoints):
    return keypoints[COCO_17.flip_permutation] * (-1, 1, 1) + (INPUT_SIZE[1] - 1, 0, 0)


@all_codecs
@settings(max_examples=12)
@given(fractions=FRACTIONS)
def test_there_and_back(case, fractions):
    keypoints = place(fractions, case, case.margin)
    assert np.abs(error(case, case.codec.decode(encode(case, keypoints)), keypoints)).max() <= case.bound + TOLERANCE


@all_codecs
@settings(max_examples=12)
@given(fractions=FRACTIONS)
@example(fractions=np.full((JOINTS, 2), (0.0625, 0.0595)))
def test_through_the_mirrored_crop(case, fractions):
    # A classic heatmap ends a quarter before the mirrored crop does, and its first column is not shifted.
    keypoints = place(fractions, case, case.margin + 1.5)
    maps = case.codec.unmirror(encode(case, mirror(keypoints)), COCO_17.flip_permutation)
    found = error(case, case.codec.decode(maps), keypoints) - (case.mirrored_bias, 0)
    assert np.abs(found).max() <= case.bound + case.mirrored_excess + TOLERANCE


@all_codecs
@settings(max_examples=12)
@given(fractions=FRACTIONS)
def test_averaged_with_the_mirrored_crop(case, fractions):
    """The flip test of a perfect network."""
    keypoints = place(fractions, case, case.margin + 1.5)
    back = case.codec.unmirror(encode(case, mirror(keypoints)), COCO_17.flip_permutation)
    found = error(case, case.codec.decode((encode(case, keypoints) + back) / 2), keypoints)
    # Half of the mirrored ones' bias; the rounded centres of the two may be on either side of the joint.
    found -= (case.mirrored_bias / 2, 0)
    assert np.abs(found).max() <= case.bound + case.mirrored_bias / 2 * (case.bound > 0.01) + TOLERANCE


@all_codecs
@settings(max_examples=12)
@given(
    fractions=FRACTIONS,
    center=arrays(np.float64, (2,), elements=st.floats(0, 2000)),
    width=st.floats(30, 1500),
    rotation=st.floats(-180, 180),
)
def test_from_the_photo_through_a_turned_crop(case, fractions, center, width, rotation):
    in_crop = place(fractions, case, case.margin)
    region = np.array([width, width * INPUT_SIZE[0] / INPUT_SIZE[1]])
    matrix = geometry.crop_matrix(center, region, INPUT_SIZE, rotation, alignment=case.codec.alignment)
    in_photo = geometry.transform_points(in_crop, geometry.invert_affine(matrix))
    maps = encode(case, geometry.transform_points(in_photo, matrix))
    back = geometry.transform_points(case.codec.decode(maps), geometry.invert_affine(matrix))
    photo_pixels = STRIDE / np.sqrt(np.abs(np.linalg.det(matrix[:, :2])))
    # Under unbiased alignment pixels are not quite square; and the crop frame is exact to float32 alone.
    limit = (np.sqrt(2) * case.bound + 1e-3) * photo_pixels * 1.04
    assert np.linalg.norm(back[:, :2] - in_photo[:, :2], axis=-1).max() <= limit


@pytest.mark.parametrize("name", ["unbiased, rounded, argmax", "unbiased, rounded, quarter"])
def test_unbiased_alignment_adds_nothing_to_the_limit_of_the_grid(name):
    """Over a fine grid of places the error of rounded centres is that of rounding, to 0.05 crop pixels, mirrored or not."""
    case = CASES[name]
    steps = np.linspace(0, 1, 401)
    fractions = np.stack([steps, steps[::-1]], axis=1)
    size = np.array(HEATMAP_SIZE[::-1]) - 1
    expected = np.abs(fractions * size - np.round(fractions * size))
    for start in range(0, 400 - JOINTS, JOINTS):
        part = fractions[start : start + JOINTS]
        keypoints = place(part, case, 0)
        mirrored = case.codec.unmirror(encode(case, mirror(keypoints)), COCO_17.flip_permutation)
        for maps in (encode(case, keypoints), mirrored):
            found = np.abs(error(case, case.codec.decode(maps), keypoints))
            np.testing.assert_allclose(found * STRIDE, expected[start : start + JOINTS] * STRIDE, atol=0.05)
