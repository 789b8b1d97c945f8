"""Heatmaps and offsets: a disc about each joint, and inside of it the way to the joint.

The scheme of Papandreou et al. ("Towards Accurate Multi-person Pose Estimation in the Wild", CVPR 2017, section 3.2), which Multi-Stage
HRNet takes over; what neither paper states (radius, units, order of the channels, how noise is smoothed) is that of the same team's
published code (Huang et al., "The Devil is in the Details", CVPR 2020, target "offset"). Joint k has three channels: 3k is 1 inside of a
disc about the joint and 0 elsewhere, 3k + 1 and 3k + 2 are there the x and y from the pixel to the joint, in radii.

Decoding smooths the heatmap (15 x 15) and the offsets (7 x 7), takes the heatmap's maximum and follows the offset found there. An encoded
keypoint comes back within 0.04 heatmap pixels in x and in y at the published radius of 4 (0.25 at 3, 0.5 at 2, 0.003 at 5 and more, where
the second kernel lies wholly in the disc). Less than 7 pixels from the edge of the map the first kernel sees the disc mirrored, as the
published code's does, and that becomes 1.8 (1.82 where the map is of the mirrored crop alone, of classic alignment). A smoothed disc of
radius 4 has the maximum 0.7: that is the score of a certain joint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kpose import geometry
from kpose.codecs.blur import gaussian_blur
from kpose.codecs.maxima import as_people, find_maxima, take
from kpose.errors import KposeError

if TYPE_CHECKING:
    import tensorflow as tf

HEATMAP_BLUR, OFFSET_BLUR = 15, 7


@dataclass(frozen=True)
class OffsetCodec:
    """Keypoints in the crop <-> a disc and two offset maps per joint.

    Attributes:
        input_size: height and width of the crop.
        heatmap_size: height and width of the maps.
        radius: of the disc, heatmap pixels, at least 1; also the unit of the offsets.
        alignment: how crop and heatmap pixels correspond, see `kpose.geometry`.
    """

    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    radius: float = 4.0
    alignment: geometry.Alignment = "classic"

    maps_per_joint: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if not 1 <= self.radius < math.inf:
            raise KposeError(f"codec radius must be finite and at least 1 heatmap pixel, found {self.radius}")

    def encode(self, keypoints: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps and weights of keypoints; runs in a graph, for any number of people at once.

        Args:
            keypoints: `(..., K, 3)` x, y, visibility in the crop frame.

        Returns:
            Maps `(..., height, width, 3 * K)` float32, and weights `(..., K)` float32: 1 for an annotated joint whose disc has a pixel in
            the map, else 0 (its maps are empty).
        """
        import tensorflow as tf

        height, width = self.heatmap_size
        keypoints = tf.cast(keypoints, tf.float32)
        points = geometry.crop_to_heatmap(keypoints[..., :2], self.input_size, self.heatmap_size, self.alignment)
        # (..., 1, width, K) and (..., height, 1, K): from the pixel to the joint.
        dx = (points[..., None, None, :, 0] - tf.range(width, dtype=tf.float32)[:, None]) / self.radius
        dy = (points[..., None, None, :, 1] - tf.range(height, dtype=tf.float32)[:, None, None]) / self.radius
        # Joints may carry any number: NaN and infinity are in no disc.
        disc = (tf.square(dx) + tf.square(dy) <= 1.0) & (keypoints[..., None, None, :, 2] > 0)
        weights = tf.cast(tf.reduce_any(disc, axis=(-3, -2)), tf.float32)
        maps = tf.stack([tf.cast(disc, tf.float32), tf.where(disc, dx, 0.0), tf.where(disc, dy, 0.0)], axis=-1)
        shape = tf.concat([tf.shape(disc)[:-1], [self.maps_per_joint * tf.shape(disc)[-1]]], axis=0)
        joints = keypoints.shape[-2]
        channels = None if joints is None else self.maps_per_joint * joints
        return tf.ensure_shape(tf.reshape(maps, shape), [*keypoints.shape[:-2], height, width, channels]), weights

    def decode(self, maps: np.ndarray) -> np.ndarray:
        """Keypoints of maps.

        Args:
            maps: `(..., height, width, 3 * K)`.

        Returns:
            `(..., K, 3)` float32: x, y in the crop frame, and the maximum of the smoothed heatmap as score. A heatmap without a positive
            value gives 0, 0 and its maximum.

        Raises:
            KposeError: when the maps are not of the codec's `heatmap_size`, or not three for each joint.
        """
        maps, leading = as_people(maps, self.heatmap_size, self.maps_per_joint)
        x, y, scores = find_maxima(gaussian_blur(maps[..., ::3], HEATMAP_BLUR, border="mirror"))
        offsets = [take(gaussian_blur(maps[..., axis::3], OFFSET_BLUR, border="mirror"), x, y) for axis in (1, 2)]
        points = np.stack([x, y], axis=-1).astype(np.float32) + self.radius * np.stack(offsets, axis=-1)
        points = np.where(scores[..., None] > 0, points, np.float32(0))
        points = geometry.heatmap_to_crop(points, self.input_size, self.heatmap_size, self.alignment)
        decoded = np.concatenate([points, scores[..., None]], axis=-1).astype(np.float32)
        return decoded.reshape(*leading, *decoded.shape[1:])

    def unmirror(self, maps: np.ndarray, flip_permutation: np.ndarray, shift: bool = True) -> np.ndarray:
        """Maps of a mirrored crop, brought back to the crop itself; offsets in x change their sign.

        Under `classic` alignment a mirrored crop's discs lie `stride - 1` crop pixels to the left of where they belong. Moved by one
        heatmap pixel, as Gaussian heatmaps are, they lie one crop pixel to the right; but offsets can say so, and the moved ones point that
        crop pixel to the left. Nothing remains of the error then.

        Args:
            maps: `(..., height, width, 3 * K)` of the crop mirrored pixel by pixel (`crop[:, ::-1]`).
            flip_permutation: `(K,)`, `Skeleton.flip_permutation`.
            shift: move the maps by one pixel to the right, and correct the offsets, under `classic` alignment; under `unbiased` all is in
                its place.

        Returns:
            Of the shape of `maps`.
        """
        back = maps.reshape(*maps.shape[:-1], len(flip_permutation), self.maps_per_joint)[..., ::-1, :, :][..., flip_permutation, :]
        back = back * np.array([1, -1, 1], back.dtype)
        if shift and self.alignment == "classic":
            stride, _ = geometry.heatmap_stride(self.input_size, self.heatmap_size, self.alignment)
            back = np.concatenate([back[..., :1, :, :], back[..., :-1, :, :]], axis=-3)
            back[..., 1] -= 1.0 / (stride * self.radius)
            # The first column has stayed where it was, a heatmap pixel to the left of the others.
            back[..., 0, :, 1] += 1.0 / self.radius
        return back.reshape(maps.shape)
