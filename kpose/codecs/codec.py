"""What every codec offers: keypoints in the crop <-> what a network is taught and gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from kpose import geometry

if TYPE_CHECKING:
    import tensorflow as tf


class Codec(Protocol):
    """Keypoints in the crop <-> maps of the network, `maps_per_joint` for each joint: of joint k the channels from `k * maps_per_joint` on.

    Attributes:
        maps_per_joint: channels of each joint.
        input_size: height and width of the crop.
        heatmap_size: height and width of the maps.
        alignment: how crop and heatmap pixels correspond, see `kpose.geometry`.
    """

    maps_per_joint: ClassVar[int]

    @property
    def input_size(self) -> geometry.Size: ...  # noqa: D102 (see the class)

    @property
    def heatmap_size(self) -> geometry.Size: ...  # noqa: D102

    @property
    def alignment(self) -> geometry.Alignment: ...  # noqa: D102

    def encode(self, keypoints: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps `(..., height, width, K * maps_per_joint)` and weights `(..., K)`, float32, of `(..., K, 3)` crop-frame keypoints."""
        ...

    def decode(self, maps: np.ndarray) -> np.ndarray:
        """`(..., K, 3)` float32 of maps `(..., height, width, K * maps_per_joint)`: x, y in the crop frame, and a score."""
        ...

    def unmirror(self, maps: np.ndarray, flip_permutation: np.ndarray, shift: bool = True) -> np.ndarray:
        """The maps of a mirrored crop, brought back to the crop itself."""
        ...
