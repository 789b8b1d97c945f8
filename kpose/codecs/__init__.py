"""Keypoints <-> network targets.

What a configuration says for the published encodings (`codec:`; all else are the defaults):

* Classic heatmaps (SimpleBaseline, HRNet): nothing, `sigma: 3` at 384x288.
* DARK (Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020): `{center: exact, decoding:
  dark}`. On networks that were taught rounded centres `{decoding: dark}` alone helps too; it needs no training.
* UDP (Huang et al., "The Devil is in the Details: Delving into Unbiased Data Processing for Human Pose Estimation", CVPR 2020) is no codec
  of its own but the sum of three settings: lengths measured between pixel centres, exact centres, DARK:

      codec:
        alignment: unbiased
        center: exact
        decoding: dark

  Its authors' code decodes by a variant of DARK (7 x 7 modulation, second differences over one pixel); here it is DARK's own.
* Heatmaps and offsets (Multi-Stage HRNet): `{name: offset}`; UDP's form of it `{name: offset, alignment: unbiased}`. The loss is `offset`
  too.
* Coarse to fine (Li et al., "Rethinking on Multi-Stage Networks for Human Pose Estimation", 2019): `stage_spread: [1.5, 1.0]`, one factor
  on sigma or radius for each output of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kpose import geometry
from kpose.codecs.codec import Codec
from kpose.codecs.gaussian import GaussianCodec
from kpose.codecs.offset import OffsetCodec
from kpose.errors import KposeError

if TYPE_CHECKING:
    import keras

    from kpose.config import CodecConfig
    from kpose.skeletons import Skeleton

__all__ = ["Codec", "GaussianCodec", "OffsetCodec", "decoded_size", "make_codec", "make_codecs", "maps_per_joint"]


def maps_per_joint(config: CodecConfig) -> int:
    """How many maps a network of this codec gives for each joint."""
    return OffsetCodec.maps_per_joint if config.name == "offset" else GaussianCodec.maps_per_joint


def make_codec(config: CodecConfig, input_size: geometry.Size, heatmap_size: geometry.Size, spread: float | None = None) -> Codec:
    """The codec of a configuration.

    Args:
        config: which codec, and its settings.
        input_size: height and width of the crop.
        heatmap_size: height and width of the network's maps.
        spread: factor on sigma or radius; by default that of the last output (`stage_spread`), which is the one to decode.

    Raises:
        KposeError: when sigma or radius is refused.
    """
    if spread is None:
        spread = config.stage_spread[-1] if config.stage_spread else 1.0
    if config.name == "offset":
        return OffsetCodec(input_size, heatmap_size, config.radius * spread, config.alignment)
    return GaussianCodec(input_size, heatmap_size, config.sigma * spread, config.alignment, config.center, config.decoding)


def make_codecs(config: CodecConfig, input_size: geometry.Size, heatmap_sizes: Sequence[geometry.Size]) -> list[Codec]:
    """The codec of each output of a network, given the sizes of their maps; the last output is the one to decode.

    Raises:
        KposeError: when `stage_spread` has another number of values than there are outputs.
    """
    spreads = config.stage_spread or [1.0] * len(heatmap_sizes)
    if len(spreads) != len(heatmap_sizes):
        raise KposeError(
            f"codec.stage_spread has {len(spreads)} values, but the network {len(heatmap_sizes)} outputs; give one value for each output"
        )
    return [make_codec(config, input_size, size, spread) for size, spread in zip(heatmap_sizes, spreads, strict=True)]


def decoded_size(model: keras.Model, skeleton: Skeleton, codec: CodecConfig) -> tuple[int, int]:
    """Height and width of the maps that are decoded: those of the last output.

    Raises:
        KposeError: when there are not as many for each joint as the codec has.
    """
    height, width, channels = model.outputs[-1].shape[1:]
    each = maps_per_joint(codec)
    if channels != skeleton.num_joints * each:
        raise KposeError(
            f"{model.name} gives {channels} maps, but skeleton {skeleton.name!r} has {skeleton.num_joints} joints with {each} in codec "
            f"{codec.name!r}; take the skeleton and the codec it was built for (Multi-Stage HRNet: codec.name=offset)"
        )
    return height, width
