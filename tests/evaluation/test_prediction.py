from __future__ import annotations

import json
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest

from kpose import geometry
from kpose.checkpoint import save_model
from kpose.codecs import GaussianCodec, OffsetCodec
from kpose.config import parse_config
from kpose.data import Instances, Preparation, evaluation_batches, read_coco, validation_sets
from kpose.errors import KposeError
from kpose.evaluation import evaluate, pose_test, predict_instances, view_batches
from kpose.evaluation.prediction import load_networks
from kpose.inference import Member, PoseTest, predict_heatmaps
from kpose.skeletons import COCO_17
from tests.evaluation.conftest import crops_of_truth, perfect_test
from tests.inference.conftest import card_of, map_picture, oracle, tiny_network


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_may_have_any_size_and_order(coco_val, batch_size):
    codec = GaussianCodec((64, 48), (16, 12))
    expected = predict_instances(perfect_test(codec), coco_val, crops_of_truth(coco_val, codec), progress=False)
    batches = list(crops_of_truth(coco_val, codec, batch_size=batch_size))[::-1]
    found = predict_instances(perfect_test(codec), coco_val, batches, progress=False)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(found.areas, expected.areas)


def test_people_that_no_batch_brings_are_an_error(coco_val):
    codec = GaussianCodec((64, 48), (16, 12))
    batches = list(crops_of_truth(coco_val, codec))[:-1]
    with pytest.raises(KposeError, match=r"\d+ of 153 people came in no batch"):
        predict_instances(perfect_test(codec), coco_val, batches, progress=False)


@pytest.mark.parametrize("alignment", ["classic", "unbiased"])
def test_areas_are_those_of_the_padded_boxes(coco_val, alignment):
    codec = GaussianCodec((64, 48), (16, 12), alignment=alignment)
    found = predict_instances(perfect_test(codec), coco_val, crops_of_truth(coco_val, codec), progress=False)
    _, sizes = geometry.fit_box_to_aspect(coco_val.boxes, (64, 48), 1.25)
    np.testing.assert_allclose(found.areas, sizes.prod(axis=-1), rtol=1e-4)


# --- through the pictures ------------------------------------------------------------------------------------------------------------

JOINTS = np.random.default_rng(4).uniform([98, 76], [142, 126], (17, 2))
BOXES = [[60.0, 36.0, 120.0, 130.0], [70.0, 40.0, 100.0, 124.0], [52.0, 30.0, 130.0, 140.0]]


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> Instances:
    """The same person in three boxes of a picture that tells an `oracle` what it sees of it."""
    folder = tmp_path_factory.mktemp("mapped")
    cv2.imwrite(str(folder / "map.png"), map_picture()[..., ::-1])
    keypoints = np.concatenate([JOINTS, np.full((17, 1), 2)], axis=-1).ravel().tolist()
    people = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": 9000, "num_keypoints": 17, "keypoints": keypoints}
        for number, box in enumerate(BOXES, start=1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "map.png", "height": 200, "width": 240}],
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_17.joint_names)}],
    }
    (folder / "people.json").write_text(json.dumps(content))
    return read_coco(folder / "people.json", folder, COCO_17, for_training=False, progress=False)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotations", [(0.0,), (-20.0, 0.0, 20.0)], ids=str)
@pytest.mark.parametrize("scales", [(1.0,), (0.95, 1.0, 1.15)], ids=str)
@pytest.mark.parametrize("ensemble", ["positions", "heatmaps"])
def test_right_networks_give_the_joints_through_the_whole_loader(mapped, ensemble, scales, rotations, flip):
    codec = GaussianCodec((128, 96), (32, 24), 2.0, "unbiased", "exact", "dark")
    preparations = (Preparation(codec), Preparation(codec, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    members = tuple(Member(oracle(preparation, JOINTS), preparation) for preparation in preparations)
    test = PoseTest(members, COCO_17, flip, rotations=rotations, scales=scales, ensemble=ensemble)
    # Batches of one to two people: the last is smaller.
    found = predict_instances(test, mapped, view_batches(test, mapped, 2 * test.views), progress=False)
    # A region is at most 175 image pixels wide, and the codec errs by less than a hundredth of a heatmap pixel.
    assert np.abs(found.keypoints[..., :2] - JOINTS).max() < 0.01 * 175 * 1.15 / 24
    _, sizes = geometry.fit_box_to_aspect(mapped.boxes, codec.input_size, 1.25)
    np.testing.assert_allclose(found.areas, sizes.prod(axis=-1), rtol=1e-4)


def test_networks_of_different_crops_answer_together(mapped):
    preparations = (
        Preparation(GaussianCodec((128, 96), (32, 24), 2.0, "unbiased", "exact", "dark"), 1.3),
        Preparation(OffsetCodec((256, 192), (64, 48)), 1.25, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    )
    members = tuple(Member(oracle(preparation, JOINTS), preparation) for preparation in preparations)
    test = PoseTest(members, COCO_17, rotations=(-20.0, 0.0, 20.0))
    batches = list(view_batches(test, mapped, 6))
    assert [[kind["image"].shape for kind in batch] for batch in batches] == [
        [(6, 128, 96, 3), (6, 256, 192, 3)],
        [(3, 128, 96, 3), (3, 256, 192, 3)],
    ]
    found = predict_instances(test, mapped, batches, progress=False)
    assert np.abs(found.keypoints[..., :2] - JOINTS).max() < 0.06 * 182 / 48


@pytest.mark.parametrize("alignment", ["classic", "unbiased"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_plain_test_is_crop_heatmaps_decoding_and_the_map_back_bit_for_bit(drawn_people, alignment, flip):
    config = parse_config({"model": {"input_size": [64, 48]}, "codec": {"alignment": alignment}, "evaluation": {"flip": flip}})
    model = tiny_network()
    test = pose_test(config, model)
    preparation = test.preparations[0]
    found = predict_instances(test, drawn_people, view_batches(test, drawn_people, 32), progress=False)
    for batch in evaluation_batches(drawn_people, preparation, 32):
        heatmaps = predict_heatmaps(test.members[0].forward, batch["image"], preparation.codec, COCO_17, flip)
        to_image = geometry.invert_affine(batch["matrix"].astype(np.float64))
        expected = geometry.transform_points(preparation.codec.decode(heatmaps), to_image).astype(np.float32)
        np.testing.assert_array_equal(found.keypoints[batch["index"]], expected)


# --- from a configuration ------------------------------------------------------------------------------------------------------------


def config_of(folder, **evaluation):
    validation = {"annotations": str(folder / "truth.json"), "images": str(folder / "images")}
    return parse_config({"model": {"input_size": [64, 48]}, "data": {"validation": validation}, "evaluation": evaluation})


def with_card(model: keras.Model, **settings) -> keras.Model:
    model.card = card_of(model.input_shape[1:3], **settings)
    return model


def test_a_configuration_says_how_networks_are_asked():
    views = {"rotations": [-10, 10], "scales": [1, 1.2], "ensemble": "heatmaps", "batch_size": 9}
    config = parse_config({"model": {"input_size": [64, 48]}, "evaluation": {"flip": False, "shift_heatmap": False, **views}})
    test = pose_test(config, tiny_network())
    assert (test.flip, test.shift_heatmap, test.ensemble) == (False, False, "heatmaps")
    assert (test.rotations, test.scales) == ((-10.0, 10.0), (1.0, 1.2))
    assert (test.people_at_once(9), test.crops_at_once(9)) == (2, 8)


def test_further_networks_of_an_ensemble_see_what_their_cards_say():
    other = with_card(tiny_network((96, 96)), data={"mean": [0, 0, 0], "box_padding": 1.5}, codec={"alignment": "unbiased", "sigma": 3})
    config = parse_config({"model": {"input_size": [64, 48]}, "codec": {"decoding": "argmax"}})
    first, second = pose_test(config, [tiny_network(), other]).preparations
    assert first == Preparation(GaussianCodec((64, 48), (16, 12), decoding="argmax"))
    assert second == Preparation(GaussianCodec((96, 96), (24, 24), 3.0, "unbiased", decoding="argmax"), 1.5, (0, 0, 0))


def test_an_ensemble_needs_cards_and_the_same_joints():
    config = parse_config({"model": {"input_size": [64, 48]}})
    with pytest.raises(KposeError, match="needs a card"):
        pose_test(config, [tiny_network(), tiny_network()])
    with pytest.raises(KposeError, match=r"the configuration has skeleton 'coco_17' \(17 joints\), .* has 'mpii_16' \(16 joints\)"):
        pose_test(config, [tiny_network(), with_card(tiny_network(joints=16), skeleton="mpii_16")])
    with pytest.raises(KposeError, match="at least one network"):
        pose_test(config, [])


@pytest.mark.parametrize("ensemble", ["positions", "heatmaps"])
def test_a_network_beside_itself_scores_as_alone(small_coco, ensemble):
    config = config_of(small_coco, ensemble=ensemble, rotations=[0, 90])
    (validation,) = validation_sets(config)
    model = with_card(tiny_network())
    alone, together = (evaluate(networks, validation, config, progress=False) for networks in (model, [model, model]))
    assert together.results == alone.results
    other = evaluate([model, with_card(tiny_network(seed=6))], validation, config, progress=False)
    assert other.results != alone.results


def test_checkpoints_are_read_once_all_of_them_fit(small_coco):
    config = config_of(small_coco)
    files = [small_coco / name for name in ("a.keras", "large.keras", "mpii.keras")]
    for file, size, settings in zip(files, [(64, 48), (96, 96), (64, 48)], [{}, {}, {"skeleton": "mpii_16"}], strict=True):
        model = with_card(tiny_network(size, joints=16 if settings else 17), **settings)
        save_model(model, file, model.card)
    assert [model.input_shape[1:3] for model in load_networks(config, files[:2])] == [(64, 48), (96, 96)]
    with pytest.raises(KposeError, match=r"large\.keras was trained with model\.input_size"):
        load_networks(config, files[1::-1])
    with pytest.raises(KposeError, match=r"a\.keras has skeleton 'coco_17' .*mpii\.keras has 'mpii_16'"):
        load_networks(config, files)
    with pytest.raises(KposeError, match="no network given"):
        load_networks(config, [])
    with pytest.raises(KposeError, match=r"no checkpoint .*gone\.keras"):
        load_networks(config, [files[0], small_coco / "gone.keras"])


def test_a_broken_photo_is_named_whatever_the_views(small_coco):
    (small_coco / "images" / "a.jpg").write_bytes(b"no picture")
    config = config_of(small_coco, rotations=[0, 30], scales=[1, 1.2])
    (validation,) = validation_sets(config)
    test = replace(pose_test(config, tiny_network()), flip=False)
    with pytest.raises(KposeError, match=r"a\.jpg"):
        predict_instances(test, validation.instances, view_batches(test, validation.instances, 4), progress=False)
