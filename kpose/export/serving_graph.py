"""The graph that a server runs: encoded pictures and boxes in, keypoints out; what `PoseEstimator` does, within bounded memory.

Of a request no more than one picture is decoded at a time, and no more than a batch of crops is on its way through the network. What a
client sends wrongly is answered by an `InvalidArgumentError` of one line, before anything is decoded where the header can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from kpose import geometry
from kpose.data.crops import Preparation, sample_crop
from kpose.export.batch_decoding import decode, unmirror
from kpose.export.encoded_pictures import decode_upright, read_header, require, upright_size

_Shape = tuple[int | None, ...]

# Names of the inputs and outputs of the signatures.
IMAGES, BOXES, CROPS, KEYPOINTS, SCORES, HEATMAPS = "images", "boxes", "crops", "keypoints", "scores", "heatmaps"


@dataclass(frozen=True)
class ServingGraph:
    """What is exported; each method is the function of a signature.

    Attributes:
        network: of `inference_network`, from crops `(B, H, W, 3)` in 0..255 to maps.
        preparation: the crops that it is to see, in 0..255, and the codec of its maps.
        flip_permutation: `Skeleton.flip_permutation`.
        flip, shift_heatmap, keypoint_threshold: as of `PoseEstimator`.
        batch_size: crops that go through the network at once, at most, mirrored ones among them.
        largest_pixels: a picture that claims more is refused.
    """

    network: keras.Model
    preparation: Preparation
    flip_permutation: np.ndarray
    flip: bool = True
    shift_heatmap: bool = True
    keypoint_threshold: float = 0.2
    batch_size: int = 32
    largest_pixels: int = 25_000_000

    @property
    def people_at_once(self) -> int:
        """How many people make a batch."""
        return max(1, self.batch_size // (2 if self.flip else 1))

    @property
    def _keypoints_shape(self) -> tuple[int, int]:
        return len(self.flip_permutation), 3

    def people(self, images: tf.Tensor, boxes: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """The joints of the people in pictures.

        Args:
            images: `(I,)` strings: JPEG or PNG files; turned upright as their EXIF data ask.
            boxes: `(I, N, 4)` float32: of each picture N people's x, y, width, height in pixels of the upright picture. Four zeros stand
                for nobody, where pictures have different numbers of people.

        Returns:
            keypoints `(I, N, K, 3)` float32: x, y in pixels of the upright picture, and a score; scores `(I, N)` of the people. All 0 for
            nobody.
        """
        pictures, most = tf.shape(images)[0], tf.shape(boxes)[1]
        agree = require(
            tf.shape(boxes)[0] == pictures,
            lambda: tf.strings.format(
                "there are {} images but boxes for {}; give each image its boxes, four zeros where it has fewer people",
                (pictures, tf.shape(boxes)[0]),
            ),
        )
        with tf.control_dependencies([agree]):
            flat = tf.reshape(boxes, (-1, 4))
        places = tf.cast(tf.where(tf.reduce_any(tf.not_equal(flat, 0.0), axis=-1))[:, 0], tf.int32)
        chosen, picture = tf.gather(flat, places), places // tf.maximum(most, 1)
        headers = tf.map_fn(
            lambda number: read_header(images[number], number, self.largest_pixels),
            tf.range(pictures),
            fn_output_signature=tf.TensorSpec((3,), tf.int32),
            parallel_iterations=1,
        )
        sizes = tf.gather(upright_size(headers), picture)
        with tf.control_dependencies([self._require_boxes(chosen, sizes, picture, places - picture * most)]):
            chosen = tf.identity(chosen)
        found = self._look(images, headers, picture, chosen, sizes)
        keypoints = tf.scatter_nd(places[:, None], found, (pictures * most, *self._keypoints_shape))
        keypoints = tf.reshape(keypoints, (pictures, most, *self._keypoints_shape))
        return {KEYPOINTS: keypoints, SCORES: self._scores(keypoints)}

    def crops(self, crops: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Keypoints `(B, K, 3)` in pixels of the crop and scores `(B,)`, of crops `(B, H, W, 3)` uint8 RGB."""
        keypoints = self._in_batches(tf.shape(crops)[0], self._keypoints_shape, lambda *span: (self._keypoints(_as_float(crops, *span)),))
        return {KEYPOINTS: keypoints, SCORES: self._scores(keypoints)}

    def heatmaps(self, crops: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """The maps `(B, h, w, K)` that are decoded, averaged with the mirrored crops' where that was asked for, of crops as in `crops`."""
        maps_shape = self.network.output_shape[1:]
        return {HEATMAPS: self._in_batches(tf.shape(crops)[0], maps_shape, lambda *span: (self._maps(_as_float(crops, *span)),))}

    def _require_boxes(self, boxes: tf.Tensor, sizes: tf.Tensor, picture: tf.Tensor, number: tf.Tensor) -> tf.Operation:
        """Refuses what `kpose.inference.predictor.check_boxes` refuses, the first one by its number in its picture."""
        limits = tf.cast(tf.reverse(sizes, axis=[-1]), tf.float32)
        corner, extent = boxes[:, :2], boxes[:, 2:]
        finite = tf.reduce_all(tf.math.is_finite(boxes), axis=-1)
        has_area = tf.reduce_all(extent > 0, axis=-1)
        inside = tf.reduce_all((corner < limits) & (corner + extent > 0), axis=-1)
        good = finite & has_area & inside

        def message() -> tf.Tensor:
            first = tf.argmin(tf.cast(good, tf.int32))
            fault = tf.where(
                finite[first],
                tf.where(
                    has_area[first], "lies outside of the picture of [height, width]", "has no area, in the picture of [height, width]"
                ),
                "holds NaN or infinity, in the picture of [height, width]",
            )
            where = (number[first], picture[first], boxes[first])
            line = tf.strings.format("box {} of picture {}, [x, y, width, height] = {}, ", where)
            return tf.strings.join([line, fault, tf.strings.format(" {}", sizes[first])])

        return require(tf.reduce_all(good), message)

    def _look(self, images: tf.Tensor, headers: tf.Tensor, picture: tf.Tensor, boxes: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
        """Keypoints `(V, K, 3)` in the pictures of V people's boxes `(V, 4)`, in the order of their pictures `(V,)`."""
        size = self.preparation.codec.input_size
        matrices = self.preparation.views(boxes)[:, 0]
        regions = geometry.visible_region(matrices, size, sizes)
        # In float64: of a picture of many thousand pixels float32 leaves no thousandths.
        to_image = geometry.invert_affine(tf.cast(matrices, tf.float64))

        def load(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """What of a picture its people's crops show, and where that begins."""
            own = tf.boolean_mask(regions, picture == number)
            start = tf.reduce_min(own[:, :2], axis=0)
            extent = tf.reduce_max(own[:, :2] + own[:, 2:], axis=0) - start
            return decode_upright(images[number], headers[number], tf.concat([start, extent], axis=0)), start

        def cut(
            person: tf.Tensor, loaded: tf.Tensor, pixels: tf.Tensor, start: tf.Tensor, crops: tf.TensorArray, place: tf.Tensor
        ) -> tuple:
            number = picture[person]
            pixels, start = tf.cond(number == loaded, lambda: (pixels, start), lambda: load(number))
            region = regions[person]
            part = tf.slice(pixels, tf.concat([region[:2] - start, [0]], axis=0), tf.concat([region[2:], [3]], axis=0))
            moved = geometry.translate_source(matrices[person], tf.reverse(region[:2], axis=[0]))
            return person + 1, number, pixels, start, crops.write(place, sample_crop(part, moved, size)), place + 1

        def look(start: tf.Tensor, stop: tf.Tensor, *held: tf.Tensor) -> tuple[tf.Tensor, ...]:
            crops = tf.TensorArray(tf.float32, stop - start, element_shape=(*size, 3))
            shapes = tuple(map(tf.TensorShape, ((), *held_shapes, None, ())))
            _, *held_after, crops, _ = tf.while_loop(
                lambda person, *_: person < stop, cut, (start, *held, crops, 0), shape_invariants=shapes, parallel_iterations=1
            )
            found = self._keypoints(crops.stack())
            moved = geometry.transform_points(tf.cast(found, tf.float64), to_image[start:stop])
            return (tf.cast(moved, tf.float32), *held_after)

        # The picture that is decoded at the moment: its number, pixels, and where they begin.
        nothing, held_shapes = (tf.constant(-1), tf.zeros((0, 0, 3), tf.uint8), tf.zeros(2, tf.int32)), ((), (None, None, 3), (2,))
        return self._in_batches(tf.shape(boxes)[0], self._keypoints_shape, look, nothing, held_shapes)

    def _in_batches(
        self, count: tf.Tensor, shape: _Shape, part: Callable[..., tuple], held: tuple = (), held_shapes: tuple[_Shape, ...] = ()
    ) -> tf.Tensor:
        """`(count, *shape)`, batch after batch: `part` makes it of `start` and `stop`, and hands `held` on to the next batch."""
        at_once = self.people_at_once
        array = tf.TensorArray(tf.float32, -(-count // at_once), infer_shape=False, element_shape=(None, *shape))

        def body(batch: tf.Tensor, array: tf.TensorArray, *held: tf.Tensor) -> tuple:
            values, *held_after = part(batch * at_once, tf.minimum((batch + 1) * at_once, count), *held)
            return batch + 1, array.write(batch, values), *held_after

        shapes = (tf.TensorShape(()), tf.TensorShape(None), *map(tf.TensorShape, held_shapes))
        _, array, *_ = tf.while_loop(
            lambda batch, *_: batch * at_once < count, body, (tf.constant(0), array, *held), shape_invariants=shapes, parallel_iterations=1
        )
        return tf.ensure_shape(array.concat(), (None, *shape))

    def _maps(self, crops: tf.Tensor) -> tf.Tensor:
        if not self.flip:
            return self.network(crops, training=False)
        both = self.network(tf.concat([crops, tf.reverse(crops, axis=[2])], axis=0), training=False)
        upright, mirrored = tf.split(both, 2)
        return 0.5 * (upright + unmirror(self.preparation.codec, mirrored, self.flip_permutation, self.shift_heatmap))

    def _keypoints(self, crops: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(decode(self.preparation.codec, self._maps(crops)), (None, *self._keypoints_shape))

    def _scores(self, keypoints: tf.Tensor) -> tf.Tensor:
        """`kpose.inference.scores.mean_joint_scores`."""
        joints = keypoints[..., 2]
        counts = tf.cast(joints > self.keypoint_threshold, tf.float32)
        return tf.reduce_sum(joints * counts, axis=-1) / tf.maximum(tf.reduce_sum(counts, axis=-1), 1.0)


def _as_float(crops: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
    return tf.cast(crops[start:stop], tf.float32)
