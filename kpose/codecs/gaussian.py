"""Gaussian heatmaps: the classic encoding, with the quarter-pixel offset when decoding.

Tompson et al. (NIPS 2014) train with one Gaussian a joint; Newell et al. (ECCV 2016) decode the maximum, moved a quarter of a pixel
towards the higher neighbour. Details (rounded centre, cut off at three sigma, which maxima are moved) are those of Xiao et al. (ECCV 2018),
which the published weights and scores follow.

Since the centre is rounded, an encoded keypoint comes back up to half a heatmap pixel off in x and in y (2 crop pixels at stride 4): the
quarter-pixel offset helps on a network's lopsided maxima alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from kpose import geometry
from kpose.errors import KposeError

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class GaussianCodec:
    """Keypoints in the crop <-> one Gaussian heatmap per joint.

    Attributes:
        input_size: height and width of the crop.
        heatmap_size: height and width of the heatmaps.
        sigma: standard deviation of the Gaussian in heatmap pixels.
        alignment: how crop and heatmap pixels correspond, see `kpose.geometry`.
    """

    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: float = 2.0
    alignment: geometry.Alignment = "classic"
    center: Literal["rounded", "exact"] = "rounded"
    decoding: Literal["argmax", "quarter_offset", "dark"] = "quarter_offset"

    maps_per_joint: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise KposeError(f"codec sigma must be finite and greater than 0, found {self.sigma}")

    def encode(self, keypoints: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Heatmaps and weights of keypoints; runs in a graph, for any number of people at once.

        Args:
            keypoints: `(..., K, 3)` x, y, visibility in the crop frame.

        Returns:
            Heatmaps `(..., height, width, K)` float32 with maximum 1, and weights `(..., K)` float32: 1 for an annotated joint whose
            Gaussian touches the heatmap, else 0 (its heatmap is empty).
        """
        import tensorflow as tf

        height, width = self.heatmap_size
        keypoints = tf.cast(keypoints, tf.float32)
        points = geometry.crop_to_heatmap(keypoints[..., :2], self.input_size, self.heatmap_size, self.alignment)
        # The published code rounds by int(x + 0.5), towards 0: joints left of or above the crop come one pixel nearer.
        shifted = points + 0.5
        center = tf.sign(shifted) * tf.floor(tf.abs(shifted))
        reach = 3.0 * self.sigma
        x, y = center[..., 0], center[..., 1]
        # Joints may carry any number: NaN and infinity fail each comparison, here and in the profiles, so that none reaches a heatmap.
        touches = (x >= -reach) & (x < width + reach) & (y >= -reach) & (y < height + reach)
        weights = tf.cast((keypoints[..., 2] > 0) & touches, tf.float32)
        across = self._profile(x, width, reach) * weights[..., None, :]
        down = self._profile(y, height, reach)
        # The Gaussian is the product of its profiles: K * (height + width) exponentials instead of K * height * width.
        heatmaps = down[..., :, None, :] * across[..., None, :, :]
        return heatmaps, weights

    def _profile(self, center: tf.Tensor, length: int, reach: float) -> tf.Tensor:
        """`(..., length, K)`: the one-dimensional Gaussian about `center (..., K)`, cut off at `reach`."""
        import tensorflow as tf

        distance = tf.range(length, dtype=tf.float32)[:, None] - center[..., None, :]
        return tf.where(tf.abs(distance) <= reach, tf.exp(-tf.square(distance) / (2.0 * self.sigma**2)), 0.0)

    def decode(self, heatmaps: np.ndarray) -> np.ndarray:
        """Keypoints of heatmaps.

        Args:
            heatmaps: `(..., height, width, K)`.

        Returns:
            `(..., K, 3)` float32: x, y in the crop frame, and the maximum of the heatmap as score. A heatmap without a positive value
            gives 0, 0 and its maximum.

        Raises:
            KposeError: when the heatmaps are not of the codec's `heatmap_size`.
        """
        heatmaps = np.asarray(heatmaps, np.float32)
        if heatmaps.shape[-3:-1] != tuple(self.heatmap_size):
            raise KposeError(
                f"heatmaps of shape {heatmaps.shape} do not fit this codec, which is for (..., height, width, joints) with "
                f"height and width {tuple(self.heatmap_size)}"
            )
        *leading, height, width, joints = heatmaps.shape
        count = math.prod(leading)
        heatmaps = heatmaps.reshape(count, height, width, joints)
        flat = heatmaps.reshape(count, height * width, joints)
        best = flat.argmax(axis=1)
        scores = np.take_along_axis(flat, best[:, None, :], axis=1)[:, 0, :]
        y, x = np.divmod(best, width)
        person, joint = np.meshgrid(np.arange(count), np.arange(joints), indexing="ij")
        # The published decoders leave maxima on the first two and the last rows and columns where they are.
        inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
        inner_x, inner_y = np.where(inside, x, 1), np.where(inside, y, 1)
        slope_x = heatmaps[person, inner_y, inner_x + 1, joint] - heatmaps[person, inner_y, inner_x - 1, joint]
        slope_y = heatmaps[person, inner_y + 1, inner_x, joint] - heatmaps[person, inner_y - 1, inner_x, joint]
        shift = 0.25 * inside if self.decoding == "quarter_offset" else np.zeros(inside.shape)
        points = np.stack([x + shift * np.sign(slope_x), y + shift * np.sign(slope_y)], axis=-1)
        points = np.where(scores[..., None] > 0, points, 0.0)
        points = geometry.heatmap_to_crop(points.astype(np.float32), self.input_size, self.heatmap_size, self.alignment)
        decoded = np.concatenate([points, scores[..., None]], axis=-1).astype(np.float32)
        return decoded.reshape(*leading, joints, 3)

    def unmirror(self, heatmaps: np.ndarray, flip_permutation: np.ndarray, shift: bool = True) -> np.ndarray:
        """Heatmaps of a mirrored crop, brought back to the crop itself.

        Args:
            heatmaps: `(..., height, width, K)` of the crop mirrored pixel by pixel (`crop[:, ::-1]`).
            flip_permutation: `(K,)`, `Skeleton.flip_permutation`.
            shift: move by one pixel to the right. Under `classic` alignment a mirrored crop's maxima lie `stride - 1` crop pixels to the
                left of where they belong, close to one heatmap pixel (one crop pixel to the right remains; none for a crop mirrored by
                `geometry.crop_matrix`); under `unbiased` they are in their place and nothing is moved.

        Returns:
            Of the shape of `heatmaps`.
        """
        back = heatmaps[..., ::-1, :][..., flip_permutation]
        if shift and self.alignment == "classic":
            back = np.concatenate([back[..., :1, :], back[..., :-1, :]], axis=-2)
        return back
