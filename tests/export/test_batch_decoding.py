from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kpose.codecs import Codec, GaussianCodec, OffsetCodec
from kpose.export.batch_decoding import decode, unmirror

CROP, MAPS = (128, 96), (32, 24)
ALIGNMENTS = ("classic", "unbiased")
CODECS: list[Codec] = [
    *(GaussianCodec(CROP, MAPS, 2, alignment, "exact", decoding) for alignment in ALIGNMENTS for decoding in ("argmax", "quarter_offset")),
    *(GaussianCodec(CROP, MAPS, sigma, alignment, "exact", "dark") for alignment in ALIGNMENTS for sigma in (1, 2)),
    *(OffsetCodec(CROP, MAPS, alignment=alignment) for alignment in ALIGNMENTS),
]


def maps_of(codec: Codec, number: int = 24, joints: int = 7) -> np.ndarray:
    """Maps of joints also at and beyond the edge of the crop, with noise; one map without a positive value, one that is constant."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-4, 130, (number, joints, 2)), np.full((number, joints, 1), 2)], axis=-1).astype(np.float32)
    maps = np.asarray(codec.encode(tf.constant(points))[0]) + rng.normal(0, 0.01, (number, *MAPS, joints * codec.maps_per_joint))
    maps[0, ..., 0], maps[1, ..., 1] = -1.0, 0.5
    return maps.astype(np.float32)


def in_graph(function, maps: np.ndarray) -> np.ndarray:
    """As exported: compiled for any number of people."""
    signature = [tf.TensorSpec((None, *maps.shape[1:]), tf.float32)]
    return tf.function(function, input_signature=signature, autograph=False)(tf.constant(maps)).numpy()


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_decodes_as_the_codec_does(codec):
    maps = maps_of(codec)
    found, expected = in_graph(lambda values: decode(codec, values), maps), codec.decode(maps)
    assert found.shape == expected.shape
    # Steps of DARK on mere noise are long.
    assert (np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max() < 1e-3
    assert np.quantile(np.abs(found - expected), 0.9) < 1e-4


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_nobody_is_decoded_to_nothing(codec):
    assert in_graph(lambda values: decode(codec, values), maps_of(codec)[:0]).shape == (0, 7, 3)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_brings_mirrored_maps_back_as_the_codec_does(codec, shift):
    maps, permutation = maps_of(codec), np.array([0, 2, 1, 4, 3, 6, 5])
    found = in_graph(lambda values: unmirror(codec, values, permutation, shift), maps)
    np.testing.assert_allclose(found, codec.unmirror(maps, permutation, shift), atol=1e-6)
