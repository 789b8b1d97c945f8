"""Gaussian heatmaps: the classic encoding, with rounded or exact centres, and three ways from a heatmap's maximum to the joint.

Tompson et al. (NIPS 2014) train with one Gaussian a joint; Newell et al. (ECCV 2016) decode the maximum, moved a quarter of a pixel
towards the higher neighbour. Details (rounded centre, cut off at three sigma, which maxima are moved) are those of Xiao et al. (ECCV 2018),
which the published weights and scores follow. Exact centres are those of Huang et al.'s code ("The Devil is in the Details", CVPR 2020):
the Gaussian about the joint itself, cut off about the rounded centre. For decoding by DARK see `kpose.codecs.dark`.

How far an encoded keypoint comes back from where it was, in x and in y, heatmap pixels (`docs/benchmarks/codecs.md` has it in crop pixels):

    center    decoding         at most            why
    rounded   any              0.5                the centre is rounded; the quarter offset helps on lopsided maxima alone
    exact     argmax           0.5                the maximum is the pixel next to the joint
    exact     quarter_offset   0.25 (0.5)         a quarter towards the joint
    exact     dark             0.001 (0.5 to 1)   the Gaussian is cut off; 0.01 with sigma 1, of which pixels see little

In parentheses: within three sigma of the edge of the heatmap (quarter offset: two pixels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from kpose import geometry
from kpose.codecs.dark import dark_offsets
from kpose.codecs.maxima import as_people, find_maxima, take
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
        center: whether the Gaussian's centre is a whole heatmap pixel, as published, or where the joint is.
        decoding: from the maximum to the joint: the maximum itself, a quarter of a pixel towards the higher neighbour, or DARK.
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
            Heatmaps `(..., height, width, K)` float32 with maximum 1 (a little less about an exact centre), and weights `(..., K)` float32:
            1 for an annotated joint whose Gaussian touches the heatmap, else 0 (its heatmap is empty).
        """
        import tensorflow as tf

        height, width = self.heatmap_size
        keypoints = tf.cast(keypoints, tf.float32)
        points = geometry.crop_to_heatmap(keypoints[..., :2], self.input_size, self.heatmap_size, self.alignment)
        # The published code rounds by int(x + 0.5), towards 0: joints left of or above the crop come one pixel nearer.
        shifted = points + 0.5
        rounded = tf.sign(shifted) * tf.floor(tf.abs(shifted))
        center = rounded if self.center == "rounded" else points
        reach = 3.0 * self.sigma
        x, y = rounded[..., 0], rounded[..., 1]
        # Joints may carry any number: NaN and infinity fail each comparison, here and in the profiles, so that none reaches a heatmap.
        touches = (x >= -reach) & (x < width + reach) & (y >= -reach) & (y < height + reach)
        weights = tf.cast((keypoints[..., 2] > 0) & touches, tf.float32)
        across = self._profile(center[..., 0], x, width, reach) * weights[..., None, :]
        down = self._profile(center[..., 1], y, height, reach)
        # The Gaussian is the product of its profiles: K * (height + width) exponentials instead of K * height * width.
        heatmaps = down[..., :, None, :] * across[..., None, :, :]
        return heatmaps, weights

    def _profile(self, center: tf.Tensor, rounded: tf.Tensor, length: int, reach: float) -> tf.Tensor:
        """`(..., length, K)`: the one-dimensional Gaussian about `center (..., K)`, cut off at `reach` from `rounded (..., K)`."""
        import tensorflow as tf

        pixels = tf.range(length, dtype=tf.float32)[:, None]
        distance = pixels - center[..., None, :]
        kept = tf.abs(pixels - rounded[..., None, :]) <= reach
        return tf.where(kept, tf.exp(-tf.square(distance) / (2.0 * self.sigma**2)), 0.0)

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
        heatmaps, leading = as_people(heatmaps, self.heatmap_size)
        x, y, scores = find_maxima(heatmaps)
        points = np.stack([x, y], axis=-1).astype(np.float32)
        if self.decoding == "quarter_offset":
            points += _quarter_offsets(heatmaps, x, y)
        elif self.decoding == "dark":
            points += dark_offsets(heatmaps, x, y, self.sigma)
        points = np.where(scores[..., None] > 0, points, np.float32(0))
        points = geometry.heatmap_to_crop(points, self.input_size, self.heatmap_size, self.alignment)
        decoded = np.concatenate([points, scores[..., None]], axis=-1).astype(np.float32)
        return decoded.reshape(*leading, *decoded.shape[1:])

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


def _quarter_offsets(heatmaps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`(N, K, 2)`: a quarter of a pixel from maxima `(N, K)` of heatmaps `(N, height, width, K)` towards their higher neighbours."""
    height, width = heatmaps.shape[1:3]
    # The published decoders leave maxima on the first two and the last rows and columns where they are.
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    column, row = np.where(inside, x, 1), np.where(inside, y, 1)
    slope_x = take(heatmaps, column + 1, row) - take(heatmaps, column - 1, row)
    slope_y = take(heatmaps, column, row + 1) - take(heatmaps, column, row - 1)
    slopes = np.stack([slope_x, slope_y], axis=-1)
    return (0.25 * inside[..., None] * np.sign(slopes)).astype(np.float32)
