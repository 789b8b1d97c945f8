from __future__ import annotations

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kpose.checkpoint import ModelCard, save_model
from kpose.cli import main
from kpose.config import load_config, parse_config
from kpose.data import validation_sets
from kpose.errors import KposeError
from kpose.evaluation import (
    Predictions,
    evaluate_checkpoint,
    explain_scores,
    protocol_card,
    read_raw_predictions,
    score_predictions,
    write_raw_predictions,
)
from kpose.evaluation.explain import FACTORS, TOGETHER, UNEXPLAINED, _NetworkVariants
from kpose.evaluation.metrics import metric_of
from kpose.evaluation.protocol import read_protocol_card

# A second person who comes after an invented one: precision 2/3 from the 52nd of 101 recalls on.
SECOND_AFTER_INVENTED = (51 + 50 * 2 / 3) / 101


def config_of(folder, detections: bool = True, **evaluation):
    validation = {"annotations": str(folder / "truth.json"), "images": str(folder / "images")}
    if detections:
        validation["detections"] = str(folder / "detections.json")
    return parse_config({"model": {"input_size": [64, 48]}, "data": {"validation": validation}, "evaluation": evaluation})


def written(folder, name: str, config, predictions: Predictions, weights: str = "weights.keras"):
    """A folder as `kpose evaluate` writes it, of predictions that are made up."""
    (validation,) = validation_sets(config)
    file = folder / weights
    file.write_bytes(weights.encode())
    score = score_predictions(predictions, validation, config.evaluation)
    card = protocol_card(
        config, validation.dataset, validation.instances, score.metrics, [(ModelCard.from_config(config), file)], protocol="OKS AP"
    )
    card["metrics"] = {name: None if np.isnan(value) else value for name, value in score.metrics.items()}
    output = folder / name
    output.mkdir(exist_ok=True)
    (output / "protocol.json").write_text(json.dumps(card))
    (output / "results.json").write_text(json.dumps(score.results))
    write_raw_predictions(score.raw, output / "predictions.npz")
    return output


def predictions_of(folder, joint_scores, shift: float = 0.0) -> Predictions:
    """Of the three detections: the first person, the first person again, the second; moved aside by some pixels."""
    truth = json.loads((folder / "truth.json").read_text())["annotations"]
    keypoints = np.array([truth[person]["keypoints"] for person in (0, 0, 1)], np.float32).reshape(-1, 17, 3)
    keypoints[..., 0] += shift
    keypoints[..., 2] = np.broadcast_to(joint_scores, (3, 17))
    return Predictions(keypoints, np.full(3, 33000.0))


# One joint alone is sure of the person who was found twice.
ONE_SURE_JOINT = np.where(np.arange(17) == 0, 0.9, 0.1)


@pytest.mark.parametrize(
    ("joint_scores", "first", "second", "factor", "settings", "scores"),
    [
        (
            0.5,
            {"suppression_threshold": None},
            {"suppression_threshold": 0.9},
            "OKS suppression",
            ("off", "0.9"),
            (SECOND_AFTER_INVENTED, 1),
        ),
        # With box scores of 0.9, 0.8, 0.7 the joints' own scores would rank the second person before the first one's double.
        (
            np.array([[0.9], [0.5], [0.55]]),
            {"suppression_threshold": None, "box_rescoring": True},
            {"suppression_threshold": None, "box_rescoring": False},
            "box rescoring",
            ("on", "off"),
            (SECOND_AFTER_INVENTED, 1),
        ),
        (
            np.stack([np.full(17, 0.95), ONE_SURE_JOINT, np.full(17, 0.5)]),
            {"suppression_threshold": None, "keypoint_threshold": 0.2},
            {"suppression_threshold": None, "keypoint_threshold": 0.0},
            "keypoint threshold",
            ("0.2", "0"),
            (SECOND_AFTER_INVENTED, 1),
        ),
    ],
)
def test_suppression_and_score_rule_get_their_share_without_a_network(small_coco, joint_scores, first, second, factor, settings, scores):
    predictions = predictions_of(small_coco, joint_scores)
    folders = [written(small_coco, name, config_of(small_coco, **rule), predictions) for name, rule in (("a", first), ("b", second))]
    found = explain_scores(*folders, annotations=small_coco / "truth.json")
    row, last = found.rows
    assert (row.factor, row.first, row.second) == (factor, *settings)
    assert (row.before, row.after) == pytest.approx(scores)
    assert row.reverse == pytest.approx(row.difference)
    assert (last.factor, last.difference) == (UNEXPLAINED, 0)


def test_what_needs_the_network_is_one_row_of_known_size(small_coco):
    a = written(small_coco, "a", config_of(small_coco), predictions_of(small_coco, 0.5))
    b = written(
        small_coco,
        "b",
        config_of(small_coco, flip=False, rotations=[0, 10], suppression_threshold=None),
        predictions_of(small_coco, 0.5, shift=100),
        "other.keras",
    )
    found = explain_scores(a, b, annotations=small_coco / "truth.json")
    assert [row.factor for row in found.rows] == ["network", "flip test", "views", TOGETHER, "OKS suppression", UNEXPLAINED]
    assert [row.difference for row in found.rows[:3]] == [None] * 3
    assert [row.difference for row in found.switched] == pytest.approx([-1, 0, 0])
    assert (found.rows[1].first, found.rows[1].second) == ("on, shifted by a pixel", "off")
    assert (found.rows[2].first, found.rows[2].second) == ("rotations 0; scales 1", "rotations 0, 10; scales 1")
    assert "give --config FILE and --weights FILE" in found.table()


def test_a_switch_of_boxes_leaves_the_suppression_a_factor_of_its_own(small_coco):
    """People of annotated boxes are not suppressed; the double that a detector finds is, once that is switched on."""
    found_twice = predictions_of(small_coco, 0.5)
    once = Predictions(found_twice.keypoints[[0, 2]], found_twice.areas[[0, 2]])
    a = written(small_coco, "a", config_of(small_coco, detections=False), once)
    b = written(small_coco, "b", config_of(small_coco), found_twice)
    found = explain_scores(a, b, annotations=small_coco / "truth.json")
    assert found.rows[0].first == "annotated"
    assert found.rows[0].second.startswith("detections.json (")
    shares = {row.factor: row.difference for row in found.rows}
    assert shares[TOGETHER] == pytest.approx(SECOND_AFTER_INVENTED - 1)
    assert shares["OKS suppression"] == pytest.approx(1 - SECOND_AFTER_INVENTED)


def edit(folder, change) -> None:
    card = json.loads((folder / "protocol.json").read_text())
    change(card)
    (folder / "protocol.json").write_text(json.dumps(card))


def test_what_no_setting_explains_stands_first_and_last(small_coco):
    folders = [written(small_coco, name, config_of(small_coco), predictions_of(small_coco, 0.5)) for name in "ab"]
    for folder, ap, tensorflow in zip(folders, (0.75, 0.875), ("1.15.0", "2.0.0"), strict=True):
        edit(
            folder,
            lambda card, ap=ap, tensorflow=tensorflow: (card["metrics"].update(AP=ap), card["versions"].update(tensorflow=tensorflow)),
        )
    found = explain_scores(*folders, annotations=small_coco / "truth.json")
    assert [(row.factor, row.difference) for row in found.rows] == [
        ("A scored again", 0.25),
        ("tensorflow", None),
        (UNEXPLAINED, -0.125),
    ]
    assert (found.rows[1].first, found.rows[1].second) == ("1.15.0", "2.0.0")
    assert any("A with 1.15.0, B with 2.0.0" in note for note in found.notes)
    assert found.to_dict()["difference"] == 0.125


def test_text_of_a_card_cannot_break_the_table(small_coco):
    folders = [written(small_coco, name, config_of(small_coco), predictions_of(small_coco, 0.5)) for name in "ab"]
    edit(folders[1], lambda card: card["versions"].update(keras="3\n\x1b[31mall  1.0"))
    table = explain_scores(*folders, annotations=small_coco / "truth.json").table()
    assert "3??[31mall  1.0" in table


def test_shares_of_correct_joints_are_the_networks_doing_alone(small_coco):
    """Suppression and score rule do not touch them, so nothing is scored anew and no annotation is asked for."""
    folders = [
        written(small_coco, name, config_of(small_coco, **rule), predictions_of(small_coco, 0.5))
        for name, rule in (("a", {"flip": True}), ("b", {"flip": False, "keypoint_threshold": 0.1}))
    ]
    for folder, value in zip(folders, (88.5, 89.25), strict=True):
        edit(folder, lambda card, value=value: card.update(protocol="PCKh@0.5", metrics={"PCKh": value}))
    found = explain_scores(*folders)
    assert found.metric == "PCKh"
    shares = [(row.factor, row.difference) for row in found.rows]
    assert shares == [("flip test", None), (TOGETHER, 0.75), ("keypoint threshold", 0), (UNEXPLAINED, 0)]


# --- with the network ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def staged(small_coco, monkeypatch):
    """Networks whose answers are known: every setting but A's moves everybody aside, or finds somebody twice."""
    asked = []

    def predict(test, instances, batches):
        asked.append(test)
        moved = 6 * (not test.flip) + 4 * (test.decoding == "argmax") + 5 * (test.rotations != (0,)) + 7 * (test.padding != 1.25)
        moved += 8 * ("other.keras" in test.files)
        truth = json.loads((small_coco / "truth.json").read_text())["annotations"]
        # Whom a box belongs to: the second person stands to the right of the first.
        who = (instances.boxes[:, 0] > 100).astype(int)
        keypoints = np.array([truth[person]["keypoints"] for person in who], np.float32).reshape(-1, 17, 3)
        keypoints[..., 0] += moved
        keypoints[..., 2] = 0.5
        return Predictions(keypoints, np.full(len(who), 33000.0))

    def test_of(config, models):
        evaluation = config.evaluation
        return SimpleNamespace(
            flip=evaluation.flip,
            rotations=tuple(evaluation.rotations),
            decoding=config.codec.decoding,
            padding=config.data.box_padding,
            files=models,
        )

    monkeypatch.setattr("kpose.evaluation.explain.load_networks", lambda config, files: [file.name for file in files])
    monkeypatch.setattr("kpose.evaluation.explain.pose_test", test_of)
    monkeypatch.setattr("kpose.evaluation.explain.view_batches", lambda test, instances, size: [])
    monkeypatch.setattr("kpose.evaluation.explain.predict_instances", predict)
    monkeypatch.setattr("kpose.evaluation.explain.read_card", lambda file: ModelCard.from_config(config_of(small_coco)))

    def write(name, config, weights="weights.keras"):
        (validation,) = validation_sets(config)
        test = test_of(config, [weights])
        return written(small_coco, name, config, predict(test, validation.instances, []), weights)

    return SimpleNamespace(folder=small_coco, write=write, asked=asked)


def changed(config, **sections):
    for name, values in sections.items():
        config = config.model_copy(update={name: getattr(config, name).model_copy(update=values)})
    return config


@pytest.mark.parametrize(
    ("factor", "change"),
    [
        ("flip test", {"evaluation": {"flip": False}}),
        ("views", {"evaluation": {"rotations": [10.0]}}),
        ("decoding", {"codec": {"decoding": "argmax"}}),
        ("box padding", {"data": {"box_padding": 1.5}}),
    ],
)
def test_the_network_tells_each_factor_apart(staged, factor, change):
    config = config_of(staged.folder)
    a, b = staged.write("a", config), staged.write("b", changed(config, **copy.deepcopy(change)))
    found = explain_scores(a, b, config=config, weights=[staged.folder / "weights.keras"])
    assert [row.factor for row in found.rows] == [factor, UNEXPLAINED]
    assert found.rows[0].before == pytest.approx(1)
    assert found.rows[0].difference < 0
    assert found.rows[1].difference == 0


def test_all_factors_together_add_up_and_nothing_is_left(staged):
    config = config_of(staged.folder, detections=False)
    other = changed(
        config_of(staged.folder, suppression_threshold=0.5, keypoint_threshold=0.1, box_rescoring=False, flip=False, rotations=[10]),
        codec={"decoding": "argmax"},
        data={"box_padding": 1.5},
    )
    a, b = staged.write("a", config), staged.write("b", other, "other.keras")
    weights = [staged.folder / name for name in ("other.keras", "weights.keras")]
    staged.asked.clear()
    found = explain_scores(a, b, config=config, weights=weights, detections=[staged.folder / "detections.json"])
    assert [row.factor for row in found.rows] == [*(factor.name for factor in FACTORS), UNEXPLAINED]
    assert found.rows[-1].difference == 0
    assert found.rows[0].before == read_protocol_card(a / "protocol.json").metrics["AP"]
    assert all(one.after == other.before for one, other in zip(found.rows, found.rows[1:], strict=False))
    assert sum(row.difference for row in found.rows) == pytest.approx(found.to_dict()["difference"], abs=1e-12)
    # Six factors need the network: both ends, and five variants each way, in the order of the way from the photo to the score.
    assert len(staged.asked) == 12
    kinds = [(t.padding, t.files[0], t.flip, t.rotations, t.decoding) for t in staged.asked[2:7]]
    a, b = (1.25, "weights.keras", True, (0.0,), "quarter_offset"), (1.5, "other.keras", False, (10.0,), "argmax")
    assert kinds == [b[:count] + a[count:] for count in range(5)], "the boxes are switched before all of these"


@pytest.mark.parametrize("given", [["weights.keras"], ["other.keras"]])
def test_weights_of_both_are_needed_before_anything_runs(staged, given):
    config = config_of(staged.folder)
    a, b = staged.write("a", config), staged.write("b", config, "other.keras")
    staged.asked.clear()
    with pytest.raises(
        KposeError, match=rf"needs {'other' if given[0] == 'weights.keras' else 'weights'}\.keras \(.*--weights \(given: {given[0]}"
    ):
        explain_scores(a, b, config=config, weights=[staged.folder / name for name in given])
    assert not staged.asked


def test_detections_are_needed_too(staged):
    config = config_of(staged.folder, detections=False)
    a, b = staged.write("a", config), staged.write("b", config_of(staged.folder))
    with pytest.raises(KposeError, match=r"needs detections\.json \(.*--detections \(given: none\)"):
        explain_scores(a, b, config=config, weights=[staged.folder / "weights.keras"])


def test_networks_that_run_again_say_what_they_said(small_coco):
    """Through real files: what is predicted again for A and for B is what `kpose evaluate` saved."""
    keras.utils.set_random_seed(1)
    images = keras.Input((64, 48, 3))
    model = keras.Model(images, keras.layers.Conv2D(17, 5, strides=4, padding="same")(images))
    first, second = config_of(small_coco), changed(config_of(small_coco, flip=False, scales=[0.9, 1.2]), codec={"decoding": "argmax"})
    save_model(model, small_coco / "weights.keras", ModelCard.from_config(first))
    for name, config in (("a", first), ("b", second)):
        evaluate_checkpoint(config, small_coco / "weights.keras", small_coco / name)
    cards = [read_protocol_card(small_coco / name / "protocol.json") for name in "ab"]
    dataset = first.data.validation[0]
    variants = _NetworkVariants(cards, metric_of(dataset), first, dataset, [small_coco / "weights.keras"], [])
    for name, switched in (("a", frozenset()), ("b", frozenset({"flip test", "views", "decoding"}))):
        again, saved = variants._predict(switched)[0], read_raw_predictions(small_coco / name / "predictions.npz")
        np.testing.assert_allclose(again.keypoints, saved.keypoints, atol=1e-3)
        np.testing.assert_allclose(again.areas, saved.areas)
    assert not np.allclose(saved.keypoints, variants._predict(frozenset({"flip test"}))[0].keypoints, atol=1e-3)


# --- errors --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(small_coco):
    return [written(small_coco, name, config_of(small_coco), predictions_of(small_coco, 0.5)) for name in "ab"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card["dataset"]["annotations"].update(sha256="0" * 64), r"truth\.json \(0{8}\): scores of different datasets"),
        (lambda card: card["dataset"].update(include={"take": ["x"]}), r"not scores of the same people: dataset\.include is \{\} and"),
        (lambda card: card["dataset"].update(people_range=[0, 5]), r"same people: dataset\.people_range is None and \(0, 5\)"),
        (lambda card: card["dataset"].update(joints_left_out=["nose"]), r"dataset\.joints_left_out is \(\) and \('nose',\)"),
        (lambda card: card.update(protocol="PCKh@0.5"), r"a/protocol\.json is OKS AP, .*b/protocol\.json is PCKh@0\.5"),
        (lambda card: card.update(card_version=1), r"b/protocol\.json is a protocol card of version 1"),
        (lambda card: card.update(metrics={"AP": None}), r"b/protocol\.json reports no AP"),
    ],
)
def test_scores_that_do_not_compare_are_refused(small_coco, pair, change, message):
    edit(pair[1], change)
    with pytest.raises(KposeError, match=message) as caught:
        explain_scores(*pair, annotations=small_coco / "truth.json")
    assert "\n" not in str(caught.value)


def test_another_annotation_file_is_refused(small_coco, pair):
    (small_coco / "other.json").write_text("{}")
    with pytest.raises(KposeError, match=r"other\.json is not the file that was scored against, truth\.json \("):
        explain_scores(*pair, annotations=small_coco / "other.json")


def test_the_annotation_file_is_asked_for_or_found_by_its_hash(small_coco, pair):
    with pytest.raises(KposeError, match=r"name truth\.json \(.*\) without its folder; give --annotations FILE, or --config FILE"):
        explain_scores(*pair)
    assert explain_scores(*pair, config=config_of(small_coco)).rows[-1].difference == 0
    (small_coco / "truth.json").write_text("{}")
    with pytest.raises(KposeError, match=r"no validation set with truth\.json"):
        explain_scores(*pair, config=config_of(small_coco))


def test_a_folder_without_raw_predictions_is_told_where_they_come_from(small_coco, pair):
    (pair[0] / "predictions.npz").unlink()
    with pytest.raises(KposeError, match=r"there is no .*predictions\.npz; `kpose evaluate` writes it beside the results"):
        explain_scores(*pair, annotations=small_coco / "truth.json")


def test_raw_predictions_of_other_images_or_joints_are_refused(small_coco, pair):
    written(small_coco, "b", config_of(small_coco, flip=False), predictions_of(small_coco, 0.5))
    raw = read_raw_predictions(pair[1] / "predictions.npz")
    write_raw_predictions(replace(raw, scored_images=raw.scored_images[:1]), pair[1] / "predictions.npz")
    with pytest.raises(KposeError, match=r"b/predictions\.npz is of other images than .*a/predictions\.npz"):
        explain_scores(*pair, annotations=small_coco / "truth.json")
    write_raw_predictions(replace(raw, keypoints=raw.keypoints[:, :14]), pair[1] / "predictions.npz")
    with pytest.raises(KposeError, match=r"b/predictions\.npz has 14 joints a person, its card 17"):
        explain_scores(*pair, annotations=small_coco / "truth.json")


def test_a_part_of_the_people_is_read_through_the_configuration(small_coco, pair):
    for folder in pair:
        edit(folder, lambda card: card["dataset"].update(people_range=[0, 1]))
    with pytest.raises(KposeError, match="give --config FILE"):
        explain_scores(*pair, annotations=small_coco / "truth.json")
    rows = explain_scores(*pair, config=config_of(small_coco)).rows
    # Of the three people whom the lists find, the two who are not asked for now count as invented, ranked behind the first.
    assert rows[0].factor == "A scored again"
    assert rows[-1].before == rows[0].after == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "message"), [("gone", "there is no .*gone; give a folder"), ("images", "holds neither protocol.json nor results.json")]
)
def test_what_is_no_output_of_evaluate_is_refused(small_coco, pair, name, message):
    with pytest.raises(KposeError, match=message):
        explain_scores(pair[0], small_coco / name, annotations=small_coco / "truth.json")


def test_a_card_beside_a_bare_list_compares_the_lists(small_coco, pair):
    found = explain_scores(pair[0], pair[1] / "results.json", annotations=small_coco / "truth.json")
    assert [row.factor for row in found.rows][-1] == "order of scores"
    assert found.first.endswith("a/results.json")
    with pytest.raises(KposeError, match="give --annotations FILE"):
        explain_scores(pair[0], pair[1] / "results.json")
    with pytest.raises(KposeError, match="--weights and --detections need two protocol cards"):
        explain_scores(pair[0], pair[1] / "results.json", annotations=small_coco / "truth.json", weights=[small_coco / "weights.keras"])


# --- the command line ----------------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_writes_it(small_coco, pair, capsys):
    arguments = [
        "evaluate",
        "--explain",
        *map(str, pair),
        "--annotations",
        str(small_coco / "truth.json"),
        "--output",
        str(small_coco / "out"),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "not explained" in printed
    assert str(small_coco / "out" / "explain.json") in printed
    assert json.loads((small_coco / "out" / "explain.json").read_text())["metric"] == "AP"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate"], "give --config FILE and --weights FILE to score a checkpoint, or --explain A B"),
        (["evaluate", "--explain", "gone", "gone"], "kpose: there is no gone; give a folder that `kpose evaluate` wrote"),
        (["evaluate", "--explain", "{a}", "{b}", "--weights", "{a}/results.json"], "give --config FILE too"),
        (["evaluate", "--config", "{config}", "--weights", "x.keras", "--annotations", "truth.json"], "--annotations goes with --explain"),
    ],
)
def test_a_wrong_command_is_one_line(pair, small_coco, arguments, message, capsys):
    (small_coco / "empty.yaml").write_text("{}")
    assert load_config(small_coco / "empty.yaml")
    places = {"a": pair[0], "b": pair[1], "config": small_coco / "empty.yaml"}
    assert main([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
