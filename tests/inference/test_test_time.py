from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose import geometry
from kpose.codecs import GaussianCodec, OffsetCodec
from kpose.config import CodecConfig
from kpose.data import Preparation
from kpose.errors import KposeError
from kpose.inference import Member, PoseTest, compile_forward, predict_heatmaps
from kpose.inference.test_time import common_skeleton, decoded_size
from kpose.skeletons import COCO_17, Skeleton
from tests.inference.conftest import card_of, map_picture, oracle

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


# A person in the map picture, whose region is 150 x 200 image pixels; joints far enough inside that no edge of a heatmap disturbs decoding.
BOX = np.array([[60.0, 36.0, 120.0, 130.0]], np.float32)
JOINTS = np.random.default_rng(4).uniform([98, 76], [142, 126], (17, 2))
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def cut(preparation: Preparation, rotations=(0.0,), scales=(1.0,)) -> tuple[np.ndarray, np.ndarray]:
    """The crops of the person in the map picture, and their matrices, by the slow and simple warp."""
    matrices = preparation.views(BOX, rotations, scales)[0]
    crops = geometry.warp_image(np.repeat(map_picture()[None], len(matrices), axis=0), matrices, preparation.codec.input_size)
    return preparation.normalise(crops).numpy(), matrices


def asked(test: PoseTest) -> np.ndarray:
    """What the test says of the person in the map picture, `(17, 3)`."""
    images, matrices = zip(*(cut(preparation, test.rotations, test.scales) for preparation in test.preparations), strict=True)
    return test.keypoints(images, matrices)[0]


def error_of(test: PoseTest) -> float:
    return np.abs(asked(test)[:, :2] - JOINTS).max()


def members_of(*preparations: Preparation) -> tuple[Member, ...]:
    return tuple(Member(oracle(preparation, JOINTS), preparation) for preparation in preparations)


# Encoding and decoding err by so many heatmap pixels at most (docstrings of the codecs); Gaussians of mirrored classic crops lie a
# quarter of a pixel off, an eighth in the average.
CODECS = {
    "dark": (GaussianCodec((128, 96), (32, 24), 2.0, "unbiased", "exact", "dark"), 0.01),
    "dark_classic": (GaussianCodec((128, 96), (32, 24), 2.0, "classic", "exact", "dark"), 0.13),
    "offset_classic": (OffsetCodec((256, 192), (64, 48)), 0.06),
}
ROTATIONS, SCALES = (-20.0, 0.0, 20.0), (0.85, 1.0, 1.15)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotations", [(0.0,), (35.0,), ROTATIONS], ids=str)
@pytest.mark.parametrize("scales", [(1.0,), SCALES], ids=str)
@pytest.mark.parametrize("ensemble", ["positions", "heatmaps"])
@pytest.mark.parametrize("name", CODECS)
def test_networks_that_are_right_give_the_joints_however_they_are_asked(name, ensemble, scales, rotations, flip):
    codec, bound = CODECS[name]
    # The second network wants other colours, so it gets crops of its own.
    members = members_of(Preparation(codec, **PLAIN), Preparation(codec))
    test = PoseTest(members, COCO_17, flip, rotations=rotations, scales=scales, ensemble=ensemble)
    heatmap_pixel = 150 / codec.heatmap_size[1] * max(scales)
    assert error_of(test) < bound * heatmap_pixel


def test_the_bounds_above_would_notice_a_forgotten_shift():
    codec, bound = CODECS["dark_classic"]
    assert error_of(PoseTest(members_of(Preparation(codec)), COCO_17, shift_heatmap=False)) > 2 * bound * 150 / 24


@given(
    rotation=st.floats(-180, 180),
    scale=st.floats(0.9, 1.5),
    flip=st.booleans(),
    size=st.sampled_from([(128, 96), (96, 96), (96, 128)]),
    padding=st.floats(1.2, 1.5),
)
@settings(max_examples=25)
def test_any_single_view_gives_the_joints(rotation, scale, flip, size, padding):
    codec = GaussianCodec(size, (size[0] // 4, size[1] // 4), 2.0, "unbiased", "exact", "dark")
    preparation = Preparation(codec, padding)
    test = PoseTest(members_of(preparation), COCO_17, flip, rotations=(rotation,), scales=(scale,))
    _, region = geometry.fit_box_to_aspect(BOX[0], size, padding)
    assert error_of(test) < 0.01 * scale * region[0] / codec.heatmap_size[1]


def test_networks_of_different_input_sizes_and_codecs_answer_together():
    small, large = CODECS["dark"][0], OffsetCodec((256, 192), (64, 48))
    preparations = (Preparation(small, 1.3, **PLAIN), Preparation(large, 1.2))
    test = PoseTest(members_of(*preparations, *preparations), COCO_17, rotations=ROTATIONS, scales=SCALES)
    assert test.preparations == preparations, "networks with the same crops share them"
    assert error_of(test) < 0.08 * 150 / 24 * 1.15


def biased(preparation: Preparation, bias: tuple[float, float], strength: float = 1.0) -> Member:
    """A network that is off by `bias` crop pixels, and so sure of it."""
    joints = np.concatenate([np.full((17, 2), 50.0) + bias, np.full((17, 1), 2.0)], axis=-1).astype(np.float32)
    maps = strength * np.asarray(preparation.codec.encode(joints)[0])
    return Member(lambda images: np.repeat(maps[None], len(images), axis=0), preparation)


def test_positions_of_networks_are_averaged():
    preparation = Preparation(CODECS["dark"][0])
    members = (biased(preparation, (-14, 2)), biased(preparation, (6, 8), 0.4))
    one, other, both = (asked(PoseTest(part, COCO_17, flip=False)) for part in (members[:1], members[1:], members))
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-4)
    np.testing.assert_allclose(both[:, 2], (1.0 + 0.4) / 2, rtol=0.03)


def test_heatmaps_of_networks_are_averaged_so_that_the_surer_one_decides():
    preparation = Preparation(CODECS["dark"][0])
    sure, unsure = biased(preparation, (-20, 2)), biased(preparation, (30, 8), 0.4)
    together = asked(PoseTest((sure, unsure), COCO_17, flip=False, ensemble="heatmaps"))
    np.testing.assert_allclose(together[:, :2], asked(PoseTest((sure,), COCO_17, flip=False))[:, :2], atol=0.1)
    np.testing.assert_allclose(together[:, 2], 1.0 / 2, rtol=0.03)


def test_positions_in_the_views_are_averaged():
    """A network that always sees the joints off the middle of the crop, by (2, -14) pixels: half a turn later it is off the other way."""
    preparation = Preparation(CODECS["dark"][0])
    members = (biased(preparation, (0, 0)),)
    plain, turned, both = (asked(PoseTest(members, COCO_17, False, rotations=turns)) for turns in [(0.0,), (180.0,), (0.0, 180.0)])
    middle = BOX[0, :2] + BOX[0, 2:] / 2
    assert np.abs(plain[:, :2] - middle).max() > 10
    np.testing.assert_allclose(both, (plain + turned) / 2, atol=1e-6)
    np.testing.assert_allclose(both[:, :2], np.broadcast_to(middle, (17, 2)), atol=1e-3)
    scaled = asked(PoseTest(members, COCO_17, False, scales=(0.5, 2.0)))
    np.testing.assert_allclose(scaled[:, :2], middle + 1.25 * (plain[:, :2] - middle), atol=1e-3)


@pytest.mark.parametrize("ensemble", ["positions", "heatmaps"])
def test_a_network_beside_itself_changes_nothing(ensemble):
    member = Member(tiny_network(), Preparation(GaussianCodec(SIZE, HEATMAP)))
    alone = PoseTest((member,), COCO_17, rotations=ROTATIONS, scales=SCALES)
    np.testing.assert_array_equal(asked(replace(alone, members=(member, member), ensemble=ensemble)), asked(alone))


def test_a_plain_test_of_one_network_is_its_decoded_heatmaps():
    model, codec = tiny_network(), GaussianCodec(SIZE, HEATMAP)
    preparation = Preparation(codec)
    images, matrices = cut(preparation)
    heatmaps = predict_heatmaps(model, images, codec, COCO_17)
    expected = geometry.transform_points(codec.decode(heatmaps), geometry.invert_affine(matrices.astype(np.float64)))
    np.testing.assert_array_equal(PoseTest((Member(model, preparation),), COCO_17).keypoints([images], [matrices]), expected)


def test_the_area_is_that_of_the_first_networks_region_itself():
    preparations = [Preparation(codec, padding) for (codec, _), padding in zip(CODECS.values(), (1.25, 1.5, 1.5), strict=True)]
    test = PoseTest(members_of(*preparations), COCO_17, rotations=ROTATIONS, scales=SCALES)
    areas = test.areas([cut(preparation, ROTATIONS, SCALES)[1] for preparation in test.preparations])
    np.testing.assert_allclose(areas, [150 * 200], rtol=1e-5)


@pytest.mark.parametrize(("views", "people", "crops"), [((1, 1), 32, 32), ((3, 3), 3, 27), ((3, 1), 10, 30), ((8, 9), 1, 32)])
def test_all_views_of_a_person_share_a_batch(views, people, crops):
    rotations, scales = (tuple(np.linspace(1, 2, count)) for count in views)
    test = PoseTest(members_of(Preparation(CODECS["dark"][0])), COCO_17, rotations=rotations, scales=scales)
    assert test.views == views[0] * views[1]
    assert (test.people_at_once(32), test.crops_at_once(32)) == (people, crops)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": ()}, "needs at least one network"),
        ({"rotations": ()}, r"rotations must be at least one finite number of degrees, found \[\]"),
        ({"rotations": (float("nan"),)}, "rotations must be"),
        ({"scales": ()}, r"scales must be at least one finite number above 0, found \[\]"),
        ({"scales": (1.0, 0.0)}, r"found \[1.0, 0.0\]"),
        ({"scales": (float("inf"),)}, "scales must be"),
        ({"ensemble": "median"}, "must be 'positions' or 'heatmaps', found 'median'"),
    ],
)
def test_a_test_that_asks_for_nothing_is_refused(options, message):
    with pytest.raises(KposeError, match=message):
        PoseTest(**{"members": members_of(Preparation(CODECS["dark"][0])), "skeleton": COCO_17, **options})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Preparation(OffsetCodec((128, 96), (32, 24))), "codec is GaussianCodec and OffsetCodec"),
        (Preparation(GaussianCodec((256, 192), (64, 48))), r"heatmap_size is \(32, 24\) and \(64, 48\)"),
        (Preparation(GaussianCodec((128, 96), (32, 24), alignment="unbiased")), "alignment is classic and unbiased"),
        (Preparation(GaussianCodec((96, 96), (32, 24))), "aspect ratio is 0.75 and 1.0"),
        (Preparation(GaussianCodec((128, 96), (32, 24)), 1.5), "box_padding is 1.25 and 1.5"),
    ],
)
def test_heatmaps_of_other_places_are_not_averaged(other, message):
    members = members_of(Preparation(GaussianCodec((128, 96), (32, 24))), other)
    with pytest.raises(KposeError, match=message + r".*average positions instead \(ensemble: positions\)"):
        PoseTest(members, COCO_17, ensemble="heatmaps")
    assert PoseTest(members, COCO_17, ensemble="positions").members == members


def test_heatmaps_of_one_size_from_crops_of_another_are_averaged():
    codecs = [GaussianCodec(size, (32, 24), 2.0, "unbiased", "exact", "dark") for size in ((128, 96), (64, 48))]
    test = PoseTest(members_of(*map(Preparation, codecs)), COCO_17, rotations=ROTATIONS, ensemble="heatmaps")
    assert error_of(test) < 0.02 * 150 / 24


def test_networks_of_other_joints_do_not_answer_together():
    with pytest.raises(KposeError, match=r"a\.keras has skeleton 'coco_17' \(17 joints\), b\.keras has 'mpii_16' \(16 joints\)"):
        common_skeleton([card_of(), card_of(skeleton="mpii_16")], ["a.keras", "b.keras"])
    with pytest.raises(KposeError, match="no network given"):
        common_skeleton([], [])
