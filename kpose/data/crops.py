"""From an encoded picture to the network's input: decode what the crop shows, warp once, normalise."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kpose import geometry
from kpose.codecs import Codec, make_codec
from kpose.config import Config
from kpose.data import augmentation
from kpose.errors import KposeError


@dataclass(frozen=True)
class Preparation:
    """How a person becomes a crop: what training and evaluation share.

    Attributes:
        codec: crop size, heatmap size and alignment.
        box_padding: factor by which boxes grow once they have the crop's aspect ratio.
        mean, std: of RGB in 0..1, for the normalisation.
    """

    codec: Codec
    box_padding: float = 1.25
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def matrix(self, plan: augmentation.Plan) -> tf.Tensor:
        """`(n, 2, 3)`: the maps from image to crop of a plan."""
        return geometry.crop_matrix(
            plan["center"], plan["size"], self.codec.input_size, plan["rotation"], plan["mirrored"], self.codec.alignment
        )

    def views(self, boxes: geometry.Array, rotations: Sequence[float] = (0.0,), scales: Sequence[float] = (1.0,)) -> geometry.Array:
        """The maps by which a test looks at people: every rotation at every scale.

        Args:
            boxes: `(n, 4)` x, y, width, height in the image frame; numpy or TensorFlow.
            rotations: degrees, see `geometry.crop_matrix`.
            scales: factors on the size of the region.

        Returns:
            `(n, V, 2, 3)` from image to crop: first all scales of the first rotation.
        """
        turns, factors = np.array(list(itertools.product(rotations, scales)), np.float32).T
        centers, sizes = geometry.fit_box_to_aspect(boxes, self.codec.input_size, self.box_padding)
        sizes = sizes[:, None, :] * factors[:, None]
        return geometry.crop_matrix(centers[:, None, :], sizes, self.codec.input_size, turns, alignment=self.codec.alignment)

    def normalise(self, crop: tf.Tensor) -> tf.Tensor:
        """Crops `(..., H, W, 3)` of 0..255, H and W static, to mean 0 and standard deviation 1."""
        height, width, channels = crop.shape[-3:]
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        # Whole rows at a time: TensorFlow broadcasts over a last dimension of 3 several times slower.
        rows = tf.reshape(crop, [-1, height, width * channels])
        rows = rows * np.tile(1.0 / (255.0 * std), width) - np.tile(mean / std, width)
        return tf.ensure_shape(tf.reshape(rows, tf.shape(crop)), crop.shape)

    def denormalise(self, crop: np.ndarray) -> np.ndarray:
        """The uint8 picture of a normalised crop."""
        return np.clip(np.rint((crop * np.asarray(self.std, np.float32) + np.asarray(self.mean, np.float32)) * 255.0), 0, 255).astype(
            np.uint8
        )


def preparation_from_config(config: Config, heatmap_size: geometry.Size | None = None) -> Preparation:
    """How a configuration cuts people out; heatmaps are a quarter of the crop where no size is given."""
    size = config.model.input_size
    codec = make_codec(config.codec, size, heatmap_size or (size[0] // 4, size[1] // 4))
    return Preparation(codec, config.data.box_padding, config.data.mean, config.data.std)


def load_crop(
    content: tf.Tensor,
    matrix: tf.Tensor,
    preparation: Preparation,
    colour: tf.Tensor | None = None,
    cutout: tf.Tensor | None = None,
    frame: tf.Tensor | None = None,
) -> tf.Tensor:
    """The normalised crop `(H, W, 3)` of an encoded picture.

    Args:
        content: the bytes of a JPEG, PNG, BMP or GIF file.
        matrix: `(2, 3)` from image to crop.
        preparation: crop and normalisation.
        colour: see `augmentation.random_colour`.
        cutout: see `augmentation.random_cutout`.
        frame: see `augmentation.truncate`.
    """
    size = preparation.codec.input_size

    def shown(image_size: tf.Tensor) -> tf.Tensor:
        region = geometry.visible_region(matrix, size, image_size)
        return region if frame is None else _within(region, frame)

    region, offset = decode_region(content, shown)
    crop = sample_crop(region, geometry.translate_source(matrix, offset), size)
    if colour is not None:
        crop = augmentation.adjust_colour(crop, colour)
    crop = preparation.normalise(crop)
    return crop if cutout is None else augmentation.cut_out(crop, cutout)


def _within(region: tf.Tensor, frame: tf.Tensor) -> tf.Tensor:
    """The part of a region y, x, height, width within the edges x, y, x, y of a frame, at least a pixel."""
    edges = tf.cast(frame, tf.int32)
    first, last = region[:2], region[:2] + region[2:]
    start = tf.clip_by_value(edges[1::-1], first, last - 1)
    return tf.concat([start, tf.clip_by_value(edges[:1:-1], start + 1, last) - start], axis=0)


def load_views(content: tf.Tensor, matrices: tf.Tensor, preparation: Preparation) -> tf.Tensor:
    """Several normalised crops of an encoded picture, which is decoded once.

    Args:
        content: the bytes of a JPEG, PNG, BMP or GIF file.
        matrices: `(V, 2, 3)` from image to crop.
        preparation: crop and normalisation.

    Returns:
        `(V, H, W, 3)`.
    """
    if matrices.shape[0] == 1:
        return load_crop(content, matrices[0], preparation)[None]
    size = preparation.codec.input_size

    def shown(image_size: tf.Tensor) -> tf.Tensor:
        regions = tf.map_fn(lambda matrix: geometry.visible_region(matrix, size, image_size), matrices, fn_output_signature=tf.int32)
        start = tf.reduce_min(regions[:, :2], axis=0)
        return tf.concat([start, tf.reduce_max(regions[:, :2] + regions[:, 2:], axis=0) - start], axis=0)

    region, offset = decode_region(content, shown)

    def sample(matrix: tf.Tensor) -> tf.Tensor:
        return sample_crop(region, geometry.translate_source(matrix, offset), size)

    return preparation.normalise(tf.map_fn(sample, matrices, fn_output_signature=tf.float32))


def decode_region(content: tf.Tensor, choose: Callable[[tf.Tensor], tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a part of a picture.

    Args:
        content: the bytes of the file. Of a JPEG only the part is decoded.
        choose: y, x, height, width `(4,)` of the part, from the picture's height and width `(2,)` int32.

    Returns:
        The part `(h, w, 3)` uint8 RGB, and its offset `(2,)` x, y.
    """

    def from_jpeg() -> tuple[tf.Tensor, tf.Tensor]:
        region = choose(tf.image.extract_jpeg_shape(content)[:2])
        # The accurate transform costs the same and gives OpenCV's pixels bit for bit, which the published weights were trained with.
        return tf.image.decode_and_crop_jpeg(content, region, channels=3, dct_method="INTEGER_ACCURATE"), region

    def from_other() -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        region = choose(tf.shape(image)[:2])
        return tf.slice(image, [region[0], region[1], 0], [region[2], region[3], 3]), region

    part, region = tf.cond(tf.io.is_jpeg(content), from_jpeg, from_other)
    part.set_shape([None, None, 3])
    return part, tf.stack([region[1], region[0]])


def decode_whole(content: tf.Tensor) -> tf.Tensor:
    """The whole picture `(H, W, 3)` uint8 RGB, of the same pixels as `decode_region` gives."""
    return decode_region(content, lambda size: tf.stack([0, 0, size[0], size[1]]))[0]


def sample_crop(image: tf.Tensor, matrix: tf.Tensor, crop_size: geometry.Size) -> tf.Tensor:
    """`geometry.warp_image` of one uint8 picture, to within 0.02 grey levels and two to four times as fast.

    CropAndResize takes uint8 as it is and works out the place of a pixel once for all channels, where ImageProjectiveTransformV3 does so
    for each. It cuts upright boxes: an upright crop is one of them, a turned one is asked for as boxes of a single pixel each.

    Args:
        image: `(H, W, 3)` uint8.
        matrix: `(2, 3)` from image to crop.
        crop_size: height and width of the crop.

    Returns:
        `(height, width, 3)` float32 in 0..255, black outside of the picture.
    """
    height, width = crop_size
    # A black margin, so that the picture fades out over one pixel as in the other implementation.
    padded = tf.pad(image, [[1, 1], [1, 1], [0, 0]])
    extent = tf.cast(tf.shape(padded)[:2] - 1, tf.float32)
    inverse = geometry.invert_affine(matrix) + tf.constant([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    x, y = inverse[0] / extent[1], inverse[1] / extent[0]

    def upright() -> tf.Tensor:
        corners = tf.constant([[0, 0, 1], [width - 1, height - 1, 1]], tf.float32)
        box = tf.reshape(tf.matmul(corners, tf.stack([y, x], axis=-1)), [1, 4])
        return tf.raw_ops.CropAndResize(image=padded[None], boxes=box, box_ind=[0], crop_size=crop_size, extrapolation_value=0.0)[0]

    def turned() -> tf.Tensor:
        pixels = np.stack(np.broadcast_arrays(np.arange(width)[None, :], np.arange(height)[:, None], 1), axis=-1)
        points = tf.matmul(tf.constant(pixels.reshape(-1, 3), tf.float32), tf.stack([y, x, y, x], axis=-1))
        samples = tf.raw_ops.CropAndResize(
            image=padded[None], boxes=points, box_ind=tf.zeros([height * width], tf.int32), crop_size=[1, 1], extrapolation_value=0.0
        )
        return tf.reshape(samples, [height, width, 3])

    crop = tf.cond((matrix[0, 1] == 0) & (matrix[1, 0] == 0), upright, turned)
    return tf.ensure_shape(crop, [height, width, 3])


def check_image(file: str) -> None:
    """Decode a picture whole.

    Raises:
        KposeError: when it cannot be read or decoded.
    """
    try:
        decode_whole(tf.io.read_file(file))
    except tf.errors.OpError as error:
        raise KposeError(f"cannot read the picture {file}: {first_line(error)}; replace it or leave it out") from error


def first_line(error: tf.errors.OpError) -> str:
    """What TensorFlow says went wrong, without the names of graph nodes."""
    line = str(error.message).strip().splitlines()[0].split("}} ")[-1].split(" [Op:")[0]
    # A dataset prepends the path of its iterators.
    return line.split("Iterator::Root", 1)[1].split(": ", 1)[-1] if "Iterator::Root" in line else line
