"""A made-up teacher with known errors, made-up annotations with known faults: what is put right, what is left alone."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpose.cli import main
from kpose.data import read_coco
from kpose.data.instances import Instances
from kpose.data.joint_mapping import JointMapping
from kpose.data.pseudo_labels import (
    CONSISTENT_OKS,
    FILLED_VISIBILITY,
    TRUSTED_SCORE,
    UPRIGHT_DEGREES,
    ask_teacher,
    changes_sheet,
    fill_joints,
    upright_rotations,
    write_pseudo_labels,
)
from kpose.errors import KposeError
from kpose.geometry import crop_matrix, transform_points
from kpose.skeletons import COCO_17, LSP_14, MPII_16, Skeleton

TORSO = 60.0
# A body seen from the front, in torsos: x of its left joints, y of both. Its left is on the right of the picture.
FRONT = {
    "nose": (0.0, -0.5),
    "eye": (0.07, -0.55),
    "ear": (0.15, -0.5),
    "shoulder": (0.38, 0.0),
    "elbow": (0.55, 0.5),
    "wrist": (0.6, 1.0),
    "hip": (0.25, 1.0),
    "knee": (0.28, 1.9),
    "ankle": (0.3, 2.8),
}
ARMS = ("shoulder", "elbow", "wrist")
LEGS = ("hip", "knee", "ankle")
FACE = tuple(joint for joint in COCO_17.joint_names if joint.endswith(("nose", "eye", "ear")))


def bodies(count: int, seed: int = 0) -> np.ndarray:
    """`(count, 17, 3)`: all joints of people who differ by some pixels."""
    random = np.random.default_rng(seed)
    keypoints = np.full((count, 17, 3), 2.0)
    for number, name in enumerate(COCO_17.joint_names):
        x, y = FRONT[name.split("_")[-1]]
        keypoints[:, number, :2] = 150 + TORSO * (-x if name.startswith("right") else x), 60 + TORSO * y
    keypoints[..., :2] += random.normal(0, 2, (count, 17, 2))
    return keypoints


def people_of(keypoints: np.ndarray, skeleton: Skeleton = COCO_17) -> Instances:
    """One person a picture, all with the box of a whole body."""
    count = len(keypoints)
    boxes = np.tile(np.array([[105.0, 20.0, 90.0, 215.0]], np.float32), (count, 1))
    return Instances(
        skeleton=skeleton,
        image_files=tuple(f"pictures/{number}.png" for number in range(count)),
        image_ids=np.arange(count) + 1,
        image_sizes=np.full((count, 2), 300, np.int32),
        image_index=np.arange(count, dtype=np.int32),
        ids=np.arange(count) + 101,
        boxes=boxes,
        keypoints=keypoints.astype(np.float32),
        areas=boxes[:, 2] * boxes[:, 3],
        box_scores=np.ones(count, np.float32),
        annotation_file=Path("joints.mat"),
    )


def of_lsp(keypoints: np.ndarray) -> Instances:
    """The people as LSP-Extended annotates them: no face."""
    return people_of(JointMapping(COCO_17, LSP_14).to_target(keypoints), LSP_14)


def indices(*parts: str) -> list[int]:
    return [number for number, joint in enumerate(COCO_17.joint_names) if joint.split("_")[-1] in parts]


def exchanged(keypoints: np.ndarray, *parts: str) -> np.ndarray:
    result = keypoints.copy()
    chosen = indices(*parts)
    result[:, chosen] = keypoints[:, COCO_17.flip_permutation[chosen]]
    return result


def views_of(truth: np.ndarray, score: float = 0.8, noise: float = 0.5) -> np.ndarray:
    """What a good teacher answers, twice."""
    views = np.repeat(truth[:, None], 2, axis=1).astype(np.float32)
    views[..., :2] += np.random.default_rng(5).normal(0, noise, views[..., :2].shape)
    views[..., 2] = score
    return views


def test_missing_joints_are_filled_and_annotated_ones_stay() -> None:
    truth = bodies(20)
    annotated = truth.copy()
    missing = np.random.default_rng(1).random((20, 17)) < 0.2
    missing[:, indices("nose", "eye", "ear")] = True
    annotated[missing] = 0
    result = fill_joints(of_lsp(annotated), views_of(truth), COCO_17)
    assert result.agreeing.all()
    np.testing.assert_array_equal(result.filled, missing)
    assert not result.exchanged.any() and not result.masked.any()
    found = result.people.keypoints
    assert (found[missing, 2] == FILLED_VISIBILITY).all()
    assert np.abs(found[missing, :2] - truth[missing, :2]).max() < 3
    np.testing.assert_array_equal(found[~missing], annotated[~missing].astype(np.float32))
    np.testing.assert_array_equal(result.people.boxes, of_lsp(annotated).boxes)


@pytest.mark.parametrize("parts", [ARMS, LEGS, ARMS + LEGS], ids=["arms", "legs", "body"])
def test_exchanged_sides_are_found_and_undone(parts: tuple[str, ...]) -> None:
    truth = bodies(10)
    annotated = truth.copy()
    annotated[:5] = exchanged(truth, *parts)[:5]
    result = fill_joints(of_lsp(annotated), views_of(truth), COCO_17)
    expected = np.zeros((10, 17), bool)
    expected[np.ix_(range(5), indices(*parts))] = True
    np.testing.assert_array_equal(result.exchanged, expected)
    body = indices(*ARMS, *LEGS)
    np.testing.assert_array_equal(result.people.keypoints[:, body], truth[:, body].astype(np.float32))


def test_an_exchange_takes_joints_along_that_the_teacher_does_not_see() -> None:
    truth = bodies(1)
    annotated = exchanged(truth, *ARMS)
    annotated[0, COCO_17.index("right_wrist")] = 0
    views = views_of(truth)
    views[0, :, indices("wrist"), 2] = 0
    result = fill_joints(of_lsp(annotated), views, COCO_17)
    # What was annotated as the left wrist is the right one; the left one was annotated as the right one: not at all.
    assert result.exchanged[0, indices("wrist")].tolist() == [False, True]
    assert result.people.keypoints[0, COCO_17.index("right_wrist")] == pytest.approx(truth[0, COCO_17.index("right_wrist")])


def test_an_exchange_needs_both_sides_of_the_pairs() -> None:
    truth = bodies(1)
    views = views_of(truth)
    for joint in ("right_elbow", "right_wrist"):
        views[0, :, COCO_17.index(joint), 2] = 0
    # Four joints of the arms fit the other way round, but only the shoulders as a pair.
    result = fill_joints(of_lsp(exchanged(truth, *ARMS)), views, COCO_17)
    assert not result.exchanged.any()


def test_the_face_changes_sides_with_the_upper_half_where_it_is_annotated() -> None:
    truth = bodies(3)
    result = fill_joints(people_of(exchanged(truth, "eye", "ear", *ARMS)), views_of(truth), COCO_17)
    np.testing.assert_array_equal(result.people.keypoints, truth.astype(np.float32))


def test_contradicted_joints_are_masked() -> None:
    truth = bodies(6)
    annotated = truth.copy()
    for person, joint in enumerate(indices(*ARMS)):
        annotated[person, joint, :2] += TORSO, -TORSO
    result = fill_joints(of_lsp(annotated), views_of(truth), COCO_17)
    np.testing.assert_array_equal(np.argwhere(result.masked), list(enumerate(indices(*ARMS))))
    assert not result.people.keypoints[result.masked].any()
    assert not (result.masked & result.filled).any(), "the teacher takes out, it does not replace"


@pytest.mark.parametrize(
    "fault",
    [
        lambda truth: truth + np.array([3 * TORSO, 0, 0]),
        # The arms are elsewhere: the legs alone, although they fit the other way round, prove nothing.
        lambda truth: exchanged(truth + np.isin(np.arange(17), indices(*ARMS))[:, None] * np.array([0, 3 * TORSO, 0]), *LEGS),
        # Too little is annotated to tell.
        lambda truth: truth * np.isin(np.arange(17), indices("hip", "nose"))[:, None],
    ],
    ids=["somebody else", "half a person", "two joints"],
)
def test_people_on_whom_the_teacher_disagrees_are_left_alone(fault) -> None:
    truth = bodies(4)
    people = of_lsp(fault(truth))
    result = fill_joints(people, views_of(truth), COCO_17)
    assert not result.agreeing.any()
    assert not (result.exchanged | result.masked | result.filled).any()
    np.testing.assert_array_equal(result.people.keypoints, JointMapping(LSP_14, COCO_17).to_target(people.keypoints))


@pytest.mark.parametrize("parts", [ARMS, LEGS], ids=["arms", "legs"])
def test_a_teacher_that_mixes_up_half_of_a_straight_body_does_not_twist_it(parts: tuple[str, ...]) -> None:
    truth = bodies(5)
    result = fill_joints(of_lsp(truth), views_of(exchanged(truth, *parts)), COCO_17)
    assert not result.exchanged.any() and not result.filled.any()
    body = indices(*ARMS, *LEGS)
    np.testing.assert_array_equal(result.people.keypoints[:, body], truth[:, body].astype(np.float32))


@pytest.mark.parametrize("how", ["low score", "mirrored elsewhere"])
def test_joints_that_the_teacher_is_not_sure_of_are_neither_filled_nor_masked(how: str) -> None:
    truth = bodies(4)
    annotated = truth.copy()
    annotated[:, indices("ankle")] = 0
    annotated[:, indices("wrist"), :2] += TORSO
    views = views_of(truth)
    unsure = indices("ankle", "wrist")
    if how == "low score":
        views[:, :, unsure, 2] = TRUSTED_SCORE - 0.01
    else:
        # By twice the OKS distance, half of which the mean moves.
        sigmas = np.asarray(COCO_17.oks_sigmas)[unsure]
        views[:, 1, unsure, 0] += 2 * sigmas * np.sqrt(0.53 * 90 * 215) * np.sqrt(-2 * np.log(CONSISTENT_OKS)) + 5
    result = fill_joints(of_lsp(annotated), views, COCO_17)
    assert result.agreeing.all()
    assert not result.masked.any() and not result.filled[:, unsure].any()
    assert result.filled[:, indices("nose", "eye", "ear")].all()


@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.0, 5.0, 20.0, 60.0]), missing=st.floats(0, 0.7))
def test_no_annotated_coordinate_ever_moves(seed: int, spread: float, missing: float) -> None:
    random = np.random.default_rng(seed)
    truth = bodies(8, seed)
    annotated = truth.copy()
    annotated[:, :, :2] += random.normal(0, spread, (8, 17, 2)) * (random.random((8, 17, 1)) < 0.3)
    annotated[4:] = exchanged(annotated, *[ARMS, LEGS, ARMS + LEGS][seed % 3])[4:]
    annotated[random.random((8, 17)) < missing] = 0
    views = views_of(truth, noise=spread / 10)
    views[..., 2] = random.random((8, 2, 17))
    people = people_of(annotated)
    result = fill_joints(people, views, COCO_17)
    before, after = people.keypoints, result.people.keypoints
    partner = before[:, COCO_17.flip_permutation]
    origin = np.where(result.exchanged[..., None], partner, before)
    kept = (after[..., 2] > 0) & ~result.filled
    np.testing.assert_array_equal(after[kept], origin[kept])
    assert not after[result.masked].any()
    # Nothing comes from nowhere, and nothing is lost but what is masked.
    assert (after[..., 2] > 0).sum() == (before[..., 2] > 0).sum() - result.masked.sum() + result.filled.sum()
    changed = (after != before).any(axis=(1, 2))
    assert not (changed & ~result.agreeing).any()


def test_a_teacher_without_sigmas_or_common_joints_is_refused() -> None:
    truth = bodies(1)
    with pytest.raises(KposeError, match="'mpii_16' has no oks_sigmas"):
        fill_joints(of_lsp(truth), np.zeros((1, 2, 16, 3), np.float32), MPII_16)
    strange = Skeleton("strange", ("tail",))
    with pytest.raises(KposeError, match="no joint of skeleton 'strange' .* has a name of 'coco_17'"):
        fill_joints(people_of(truth[:, :1], strange), views_of(truth), COCO_17)


def test_a_flat_box_is_no_trouble() -> None:
    truth = bodies(1)
    people = people_of(truth)
    people = replace(people, boxes=people.boxes * np.array([1, 1, 1, 0], np.float32))
    assert len(fill_joints(people, views_of(truth), COCO_17).people) == 1


# --- turned people -------------------------------------------------------------------------------------------------------------------


@given(angle=st.floats(-180, 180), mirrored=st.booleans(), seed=st.integers(0, 100))
def test_a_body_turned_by_any_angle_stands_upright_in_its_crop(angle: float, mirrored: bool, seed: int) -> None:
    keypoints = bodies(1, seed)
    shoulders, hips = indices("shoulder"), indices("hip")
    # Exactly upright before it is turned.
    keypoints[0, hips, 0] += keypoints[0, shoulders, 0].mean() - keypoints[0, hips, 0].mean()
    turn = np.radians(angle)
    offset = keypoints[0, :, :2] - 150
    keypoints[0, :, 0] = 150 + np.cos(turn) * offset[:, 0] - np.sin(turn) * offset[:, 1]
    keypoints[0, :, 1] = 150 + np.sin(turn) * offset[:, 0] + np.cos(turn) * offset[:, 1]
    (rotation,) = upright_rotations(keypoints, COCO_17)
    if abs(angle) < UPRIGHT_DEGREES - 1e-6:
        assert rotation == 0
        return
    matrix = crop_matrix(np.array([150.0, 150.0]), np.array([300.0, 300.0]), (256, 256), rotation, mirrored)
    crop = transform_points(keypoints[0], matrix)
    x, y = crop[shoulders, :2].mean(axis=0) - crop[hips, :2].mean(axis=0)
    assert y < 0
    leaning = np.degrees(np.arctan2(x, -y))
    assert abs(leaning) < (1e-6 if abs(angle) > UPRIGHT_DEGREES + 1e-6 else UPRIGHT_DEGREES + 1e-3)


def test_people_without_a_whole_torso_are_not_turned() -> None:
    lying = bodies(2)
    lying[..., :2] = lying[..., 1::-1]
    assert (np.abs(upright_rotations(lying, COCO_17)) > 60).all()
    lying[1, COCO_17.index("left_hip"), 2] = 0
    assert (upright_rotations(lying, COCO_17) != 0).tolist() == [True, False]
    arms = Skeleton("arms", ("left_shoulder", "right_shoulder", "left_wrist"))
    assert upright_rotations(lying[:, [5, 6, 9]], arms).tolist() == [0, 0]


# --- asking --------------------------------------------------------------------------------------------------------------------------


class Oracle:
    """Knows the people by a number in the corner of their pictures."""

    skeleton = COCO_17

    def __init__(self, truth: np.ndarray, together: threading.Barrier | None = None) -> None:
        self.truth, self.asked = truth, list[tuple[float, bool]]()
        self.busy, self.together = threading.Lock(), together

    def __call__(self, image: np.ndarray, box: np.ndarray, rotation: float = 0.0, mirrored: bool = False) -> np.ndarray:
        assert self.busy.acquire(blocking=False), "a teacher is asked by one thread at a time"
        try:
            if self.together and not self.asked:
                self.together.wait(timeout=60)  # for the other teachers, each in its own thread
            self.asked.append((rotation, mirrored))
            answer = self.truth[image[0, 0, 0]].copy()
            answer[:, 2] = 0.9 if mirrored else 0.7
            return answer
        finally:
            self.busy.release()


@pytest.fixture
def pictures(tmp_path: Path) -> Instances:
    """Twelve people of LSP's joints and their pictures; the third picture is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    people = of_lsp(bodies(12))
    for number in range(12):
        picture = np.full((300, 300, 3), 200, np.uint8)
        picture[0, 0] = number
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    (folder / "2.png").write_bytes(b"no picture")
    return replace(people, image_files=tuple(str(tmp_path / file) for file in people.image_files))


@pytest.mark.parametrize("count", [1, 3])
def test_everybody_is_looked_at_twice_in_order(pictures: Instances, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    truth = bodies(12)
    together = threading.Barrier(count)
    teachers = [Oracle(truth, together) for _ in range(count)]
    views = ask_teacher(pictures, teachers)
    readable = np.arange(12) != 2
    for view in (0, 1):
        np.testing.assert_allclose(views[readable, view, :, :2], truth[readable, :, :2], rtol=1e-6)
    assert np.unique(views[readable, 0, :, 2]) == pytest.approx([0.7])
    assert np.unique(views[readable, 1, :, 2]) == pytest.approx([0.9])
    assert sum(len(teacher.asked) for teacher in teachers) == 22
    assert not views[2].any()
    assert "2.png: Unknown image file format" in (printed := capsys.readouterr().out)
    assert "(people who stay as annotated for such a reason: 1)" in printed


def test_people_on_their_heads_are_turned(pictures: Instances) -> None:
    upside_down = pictures.keypoints.copy()
    upside_down[3, :, 1] = 300 - upside_down[3, :, 1]
    teacher = Oracle(bodies(12))
    ask_teacher(replace(pictures, keypoints=upside_down).select(np.array([3, 4])), [teacher], progress=False)
    turned = [abs(rotation) for rotation, _ in teacher.asked]
    assert turned[:2] == pytest.approx([180, 180], abs=10) and turned[2:] == [0, 0]
    assert [mirrored for _, mirrored in teacher.asked] == [False, True] * 2


# --- writing -------------------------------------------------------------------------------------------------------------------------


def test_a_file_a_summary_and_a_sheet(pictures: Instances, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = bodies(12)
    path, sheet = tmp_path / "filled.json", tmp_path / "sheet.png"
    result = write_pseudo_labels(pictures, tmp_path / "pictures", [Oracle(truth)], path, sheet)
    read = read_coco(path, tmp_path / "pictures", COCO_17, for_training=True)
    np.testing.assert_allclose(read.keypoints, result.people.keypoints, atol=0.006)
    np.testing.assert_allclose(read.boxes, pictures.boxes - np.array([0, 0, 1, 1]), atol=0.006)
    assert read.ids.tolist() == list(range(101, 113)) and read.image_files == pictures.image_files
    lines = capsys.readouterr().out.splitlines()
    assert "its neck, head_top not used" in lines[0]
    figures = "12 people, teacher and annotation agree on 11; joints filled 55, masked 0, exchanged left for right 0 (of 0 people)"
    assert lines[-2:] == [f"{figures}; written to {path}", f"some of the changed people: {sheet}"]
    assert figures in json.loads(path.read_text())["info"]["description"]
    assert cv2.imread(str(sheet)) is not None


def test_the_sheet_shows_each_kind_of_change(pictures: Instances) -> None:
    truth = bodies(12)
    annotated = truth.copy()
    annotated[0] = exchanged(truth, *LEGS)[0]
    annotated[1, COCO_17.index("left_wrist"), :2] += TORSO
    people = replace(of_lsp(annotated), image_files=pictures.image_files).select(np.array([0, 1, 3, 4]))
    views = views_of(truth)[[0, 1, 3, 4]]
    result = fill_joints(people, views, COCO_17)
    sheet = changes_sheet(people, views, result)
    ringed = np.argwhere((np.abs(sheet.astype(int) - (230, 20, 40)) < 12).all(-1))
    cell, gap, banner = (260, 200), 8, 20
    # One of each kind, and then another one of those filled: two a row. The ring is on the second one's annotation.
    assert sheet.shape == (gap + 2 * (banner + cell[0] + gap), gap + 8 * (cell[1] + gap), 3)
    assert len(ringed) and set((ringed[:, 1] - gap) // (cell[1] + gap)) == {5} and set(ringed[:, 0] // (gap + banner + cell[0])) == {0}
    with pytest.raises(KposeError, match="no person was changed"):
        changes_sheet(people, np.zeros_like(views), fill_joints(people, np.zeros_like(views), COCO_17))


def test_neither_the_annotation_nor_a_former_file_is_lost(pictures: Instances, tmp_path: Path) -> None:
    class Failing(Oracle):
        def __call__(self, *arguments: object, **options: object) -> np.ndarray:
            raise RuntimeError("out of order")

    teacher = Failing(bodies(12))
    with pytest.raises(KposeError, match=r"'labels\.txt'; choose a name that ends in \.json"):
        write_pseudo_labels(pictures, tmp_path / "pictures", [teacher], tmp_path / "labels.txt")
    former = tmp_path / "people.json"
    former.write_text("former")
    with pytest.raises(KposeError, match="is the annotation itself"):
        write_pseudo_labels(replace(pictures, annotation_file=former), tmp_path / "pictures", [teacher], tmp_path / "x/../people.json")
    with pytest.raises(RuntimeError, match="out of order"):
        write_pseudo_labels(pictures, tmp_path / "pictures", [teacher, teacher], former)
    with pytest.raises(KposeError, match=r"does not lie in"):
        write_pseudo_labels(pictures, tmp_path / "elsewhere", [Oracle(bodies(12))], former)
    assert former.read_text() == "former"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people.json", "pictures"]


# --- the command line ----------------------------------------------------------------------------------------------------------------


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The line of an error."""
    assert main(["prepare-data", "pseudo-labels", *arguments]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("kpose: ")]
    assert len(lines) == 1
    return lines[0]


def test_what_is_no_teacher_is_told_in_one_line(
    tmp_path: Path, shared_models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs LiteRT, the extra 'lite'")
    rest = ("--annotations", "gone.json", "--images", str(tmp_path), "--output", str(tmp_path / "x.json"))
    assert "cannot read gone.tflite: No such file" in run("--teacher", "gone.tflite", *rest, capsys=capsys)
    text = tmp_path / "text.tflite"
    text.write_text("nothing of that kind")
    assert "is not a TFLite file; expected MoveNet" in run("--teacher", str(text), *rest, capsys=capsys)
    detector = str(shared_models / "efficientdet_lite0.tflite")
    assert "it is another network" in run("--teacher", detector, *rest, capsys=capsys)
    teacher = str(shared_models / "movenet_lightning_fp16.tflite")
    assert "cannot read gone.json" in run("--teacher", teacher, *rest, capsys=capsys)
    assert "'data.train.0.format'" in run("--teacher", teacher, *rest, "--format", "lspett", capsys=capsys)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert "needs LiteRT, which is not installed; run: pip install" in run("--teacher", teacher, *rest, capsys=capsys)
    assert not (tmp_path / "x.json").exists()


def test_the_real_teacher_completes_real_people(
    tmp_path: Path, shared_data: Path, shared_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs LiteRT, the extra 'lite'")
    images, path = shared_data / "lspet/images", tmp_path / "lspet.json"
    given = ["--format", "lspet", "--annotations", str(shared_data / "lspet/joints.mat"), "--images", str(images), "--people", "606", "616"]
    teacher = str(shared_models / "movenet_thunder_fp16.tflite")
    assert main(["prepare-data", "pseudo-labels", *given, "--teacher", teacher, "--output", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("10 people, teacher and annotation agree on ")
    people = read_coco(path, images, COCO_17, for_training=True)
    assert people.ids.tolist() == list(range(607, 617))
    # im00615 sits facing the camera, annotated as an observer would: his right is on the picture's left.
    (boy,) = people.keypoints[people.ids == 615]
    for joint in ("shoulder", "hip", "knee", "ankle", "eye"):
        assert boy[COCO_17.index(f"right_{joint}"), 0] < boy[COCO_17.index(f"left_{joint}"), 0], joint
    assert boy[COCO_17.index("nose"), 2] == FILLED_VISIBILITY
