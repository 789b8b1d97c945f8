"""Keypoints <-> network targets."""

from __future__ import annotations

from kpose import geometry
from kpose.codecs.codec import Codec
from kpose.codecs.gaussian import GaussianCodec
from kpose.config import CodecConfig
from kpose.errors import KposeError

__all__ = ["Codec", "GaussianCodec", "make_codec", "maps_per_joint"]


def maps_per_joint(config: CodecConfig) -> int:
    """How many maps a network of this codec gives for each joint."""
    return 3 if config.name == "offset" else 1


def make_codec(config: CodecConfig, input_size: geometry.Size, heatmap_size: geometry.Size, spread: float = 1.0) -> Codec:
    """The codec of a configuration.

    Args:
        config: which codec, and its settings.
        input_size: height and width of the crop.
        heatmap_size: height and width of the network's maps.
        spread: factor on sigma or radius, for outputs that are supervised more coarsely (`stage_spread`).
    """
    if config.name == "gaussian":
        return GaussianCodec(input_size, heatmap_size, config.sigma * spread, config.alignment, config.center, config.decoding)
    raise KposeError(f"the codec {config.name!r} is not there yet")
