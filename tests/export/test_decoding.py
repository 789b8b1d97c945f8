from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kpose.codecs import GaussianCodec, OffsetCodec
from kpose.errors import KposeError
from kpose.export.decoding import keypoint_function

CROP, MAPS = (128, 96), (32, 24)


def maps_of(codec: GaussianCodec, number: int = 24, joints: int = 7) -> np.ndarray:
    """Maps of joints also at and beyond the edge of the crop, with noise; one map without a positive value, one that is constant."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-4, 130, (number, joints, 2)), np.full((number, joints, 1), 2)], axis=-1).astype(np.float32)
    maps = np.asarray(codec.encode(tf.constant(points))[0]) + rng.normal(0, 0.01, (number, *codec.heatmap_size, joints))
    maps[0, ..., 0], maps[1, ..., 1] = -1.0, 0.5
    return maps.astype(np.float32)


@pytest.mark.parametrize("alignment", ["classic", "unbiased"])
@pytest.mark.parametrize(("decoding", "sigma"), [("argmax", 2), ("quarter_offset", 2), ("dark", 2), ("dark", 1)])
def test_decodes_as_the_codec_does(decoding, sigma, alignment):
    codec = GaussianCodec(CROP, MAPS, sigma, alignment, "exact", decoding)
    maps = maps_of(codec)
    function = keypoint_function(codec)
    found = np.concatenate([function(tf.constant(one[None])) for one in maps])
    expected = codec.decode(maps)
    # Steps of DARK on mere noise are long, and float32 has them less exactly.
    steps = np.maximum(1.0, np.abs(expected))
    assert (np.abs(found - expected) / steps).max() < 1e-3
    assert np.quantile(np.abs(found - expected), 0.9) < 1e-4


def test_offsets_are_refused():
    with pytest.raises(KposeError, match="convert without --decode"):
        keypoint_function(OffsetCodec(CROP, MAPS))
