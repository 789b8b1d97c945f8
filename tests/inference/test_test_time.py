from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose.codecs import GaussianCodec
from kpose.config import CodecConfig
from kpose.errors import KposeError
from kpose.inference import compile_forward, predict_heatmaps
from kpose.inference.test_time import decoded_size
from kpose.skeletons import COCO_17, Skeleton

SIZE = (32, 24)
HEATMAP = (8, 6)


def tiny_network(outputs: int = 1) -> keras.Model:
    keras.utils.set_random_seed(3)
    images = keras.Input((*SIZE, 3))
    stages = [keras.layers.Conv2D(17, 5, strides=4, padding="same", name=f"stage_{stage}")(images) for stage in range(outputs)]
    return keras.Model(images, stages if outputs > 1 else stages[0])


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *SIZE, 3)).astype(np.float32)


def test_heatmaps_that_are_not_one_for_each_joint_are_refused():
    assert decoded_size(tiny_network(outputs=2), COCO_17, CodecConfig()) == HEATMAP
    with pytest.raises(KposeError, match="gives 17 maps, but skeleton 'five' has 5 joints"):
        decoded_size(tiny_network(), Skeleton("five", tuple("abcde")), CodecConfig())


def test_without_flip_it_is_the_network():
    model, images = tiny_network(), crops(3)
    heatmaps = predict_heatmaps(model, images, GaussianCodec(SIZE, HEATMAP), COCO_17, flip=False)
    np.testing.assert_array_equal(heatmaps, model(images, training=False).numpy())


@pytest.mark.parametrize(("alignment", "shift"), [("classic", True), ("classic", False), ("unbiased", True)])
def test_flip_averages_with_the_mirrored_crops(alignment, shift):
    model, images = tiny_network(), crops(2)
    codec = GaussianCodec(SIZE, HEATMAP, alignment=alignment)
    mirrored = model(images[:, :, ::-1], training=False).numpy()
    back = np.zeros_like(mirrored)
    for joint in range(17):
        partner = COCO_17.flip_permutation[joint]
        for x in range(HEATMAP[1]):
            source = HEATMAP[1] - 1 - x
            if shift and alignment == "classic":
                source = HEATMAP[1] - 1 - max(x - 1, 0)
            back[:, :, x, joint] = mirrored[:, :, source, partner]
    expected = (model(images, training=False).numpy() + back) / 2
    np.testing.assert_allclose(predict_heatmaps(model, images, codec, COCO_17, True, shift), expected, atol=1e-6)


@pytest.mark.parametrize("alignment", ["classic", "unbiased"])
def test_flip_leaves_a_perfect_networks_keypoints_where_they_are(alignment):
    """A forward that returns the truth for the crop and for its mirror image: the average still says the truth."""
    size, heatmap_size = (64, 48), (16, 12)
    codec = GaussianCodec(size, heatmap_size, sigma=1.5, alignment=alignment)
    random = np.random.default_rng(1)
    keypoints = np.concatenate([random.uniform([12, 12], [34, 50], (4, 17, 2)), np.full((4, 17, 1), 2.0)], axis=-1).astype(np.float32)
    in_mirror = keypoints[:, COCO_17.flip_permutation]
    in_mirror[..., 0] = size[1] - 1 - in_mirror[..., 0]
    answers = iter([codec.encode(keypoints)[0], codec.encode(in_mirror)[0]])
    heatmaps = predict_heatmaps(lambda images: next(answers), np.zeros((4, *size, 3)), codec, COCO_17)
    error = np.abs(codec.decode(heatmaps)[..., :2] - keypoints[..., :2])
    assert error.max() < 4.0
    assert error.mean() < 1.6


@pytest.mark.parametrize("count", [1, 4, 7])
def test_compiled_network_answers_any_number_of_crops(count):
    model, images = tiny_network(), crops(count)
    np.testing.assert_allclose(compile_forward(model, 4)(images), model(images, training=False).numpy(), atol=1e-5)


def test_compiled_network_is_traced_once():
    traces = []

    class Counting(keras.layers.Layer):
        def call(self, inputs):
            if tf.inside_function():
                traces.append(inputs.shape)
            return inputs

    images = keras.Input((*SIZE, 3))
    model = keras.Model(images, Counting()(images))
    traces.clear()
    forward = compile_forward(model, 4)
    for count in (4, 4, 3, 1, 9):
        assert forward(crops(count)).shape == (count, *SIZE, 3)
    assert traces == [(4, *SIZE, 3)]


def test_the_last_stage_counts():
    model, images = tiny_network(outputs=2), crops(2)
    expected = model(images, training=False)[1].numpy()
    codec = GaussianCodec(SIZE, HEATMAP)
    np.testing.assert_allclose(predict_heatmaps(model, images, codec, COCO_17, flip=False), expected, atol=1e-6)
    np.testing.assert_allclose(predict_heatmaps(compile_forward(model, 2), images, codec, COCO_17, flip=False), expected, atol=1e-6)
