from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.errors import KposeError
from kpose.evaluation import coco_ap, explain_result_lists
from kpose.evaluation.result_lists import ONLY_FIRST, ONLY_SECOND, POSITIONS, SCORES
from kpose.skeletons import COCO_17

# Two people in each of two photos: precision is interpolated at 101 recalls, of which the first of two people reaches 51.
FIRST_HALF = 51 / 101


@dataclass
class Scene:
    """A truth of people of 100 x 200 pixels, and result lists that put them somewhere."""

    folder: Path

    @staticmethod
    def pose(left: float) -> np.ndarray:
        return np.stack([np.linspace(left + 10, left + 90, 17), np.linspace(30, 210, 17), np.full(17, 2.0)], axis=-1)

    def truth(self, people: list[tuple[int, float]]) -> str:
        annotations = [
            {"id": number, "image_id": image, "category_id": 1, "bbox": [left, 20, 100, 200], "area": 12000, "iscrowd": 0}
            | {"keypoints": self.pose(left).ravel().tolist(), "num_keypoints": 17}
            for number, (image, left) in enumerate(people, start=1)
        ]
        content = {"images": [{"id": image} for image in (1, 2)], "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        return self._write("truth.json", content)

    def results(self, name: str, people: list[tuple[int, float, float]], joints: int = 17) -> str:
        content = [
            {"image_id": image, "category_id": 1, "keypoints": self.pose(left)[:joints].ravel().tolist(), "score": score}
            for image, left, score in people
        ]
        return self._write(name, content)

    def _write(self, name, content) -> str:
        path = self.folder / name
        path.write_text(json.dumps(content))
        return str(path)


@pytest.fixture
def scene(tmp_path) -> Scene:
    return Scene(tmp_path)


def shares(explanation) -> dict[str, float]:
    return {row.factor: row.difference for row in explanation.rows}


PEOPLE = [(1, 0.0), (1, 300.0)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # B lacks nobody, A lacks the second person: half of the recall is missing.
        ([(1, 0, 0.9)], [(1, 0, 0.9), (1, 300, 0.8)], {ONLY_SECOND: 1 - FIRST_HALF}),
        # A has an invented person between both, so the second is found with a precision of 2/3.
        ([(1, 0, 0.9), (1, 600, 0.85), (1, 300, 0.8)], [(1, 0, 0.9), (1, 300, 0.8)], {ONLY_FIRST: (1 - FIRST_HALF) / 3}),
        # B puts the second person 25 pixels aside: OKS 0.27 with an area of 12000, below every threshold.
        ([(1, 0, 0.9), (1, 300, 0.8)], [(1, 0, 0.9), (1, 325, 0.8)], {POSITIONS: FIRST_HALF - 1}),
        # B ranks an invented person, of both lists, before the second.
        (
            [(1, 0, 0.9), (1, 600, 0.1), (1, 300, 0.8)],
            [(1, 0, 0.9), (1, 600, 0.85), (1, 300, 0.8)],
            {SCORES: (FIRST_HALF - 1) / 3},
        ),
        # Another scale of scores changes nothing: what counts is the order.
        ([(1, 0, 0.9), (1, 300, 0.8)], [(1, 0, 90.0), (1, 300, 80.0)], {}),
    ],
)
def test_each_factor_gets_its_share_and_the_others_nothing(scene, first, second, expected):
    found = explain_result_lists(scene.results("a.json", first), scene.results("b.json", second), scene.truth(PEOPLE))
    assert shares(found) == pytest.approx({ONLY_FIRST: 0, ONLY_SECOND: 0, POSITIONS: 0, SCORES: 0} | expected, abs=1e-9)
    for row in found.rows:
        assert row.reverse == pytest.approx(row.difference, abs=1e-9)


def test_somebody_who_comes_in_is_ranked_as_in_the_own_list(scene):
    """B's scores are a hundredth of A's: its second person would stand behind A's invented one, which B ranks last."""
    first = [(1, 0, 0.9), (1, 600, 0.2)]
    second = [(1, 0, 0.009), (1, 300, 0.008), (1, 600, 0.002)]
    found = explain_result_lists(scene.results("a.json", first), scene.results("b.json", second), scene.truth(PEOPLE))
    assert shares(found) == pytest.approx({ONLY_FIRST: 0, ONLY_SECOND: 1 - FIRST_HALF, POSITIONS: 0, SCORES: 0}, abs=1e-9)


def test_people_are_matched_within_their_photo_and_once(scene):
    first = [(1, 0, 0.9), (1, 4, 0.8), (2, 0, 0.7)]
    second = [(2, 0, 0.9), (1, 1, 0.5)]
    found = explain_result_lists(scene.results("a.json", first), scene.results("b.json", second), scene.truth(PEOPLE))
    settings = {row.factor: (row.first, row.second) for row in found.rows}
    assert settings[ONLY_FIRST][0] == "1 of 3"
    assert settings[ONLY_SECOND][1] == "0 of 2 in"
    assert found.notes[0].startswith("2 people were found in both.")


def test_poses_far_apart_in_one_place_are_one_person(scene):
    """Joints in reverse order: similar in nothing but the region."""
    path = scene.results("a.json", [(1, 0, 0.9)])
    turned = json.loads(Path(path).read_text())
    turned[0]["keypoints"] = np.array(turned[0]["keypoints"]).reshape(17, 3)[::-1].ravel().tolist()
    (scene.folder / "b.json").write_text(json.dumps(turned))
    found = explain_result_lists(path, scene.folder / "b.json", scene.truth(PEOPLE))
    assert shares(found) == pytest.approx({ONLY_FIRST: 0, ONLY_SECOND: 0, POSITIONS: -FIRST_HALF, SCORES: 0}, abs=1e-9)


places = st.tuples(st.sampled_from([1, 2]), st.integers(0, 30).map(lambda step: 20.0 * step), st.sampled_from([0.1, 0.4, 0.5, 0.9]))


@settings(max_examples=40)
@given(st.lists(places, min_size=1, max_size=7), st.lists(places, min_size=1, max_size=7))
def test_shares_add_up_whatever_the_lists(tmp_path_factory, first, second):
    scene = Scene(tmp_path_factory.mktemp("lists"))
    truth = scene.truth([(1, 0.0), (1, 300.0), (2, 100.0)])
    paths = [scene.results("a.json", first), scene.results("b.json", second)]
    found = explain_result_lists(*paths, truth)
    before, after = (coco_ap(path, truth)["AP"] for path in paths)
    assert (found.rows[0].before, found.rows[-1].after) == (before, after)
    assert sum(shares(found).values()) == pytest.approx(after - before, abs=1e-12)
    assert sum(row.reverse for row in found.rows) == pytest.approx(after - before, abs=1e-12)
    # Seen from B, the shares are those of the way back; the two kinds of people change places.
    mine, back = shares(found), {row.factor: row.reverse for row in explain_result_lists(*paths[::-1], truth).rows}
    assert mine[ONLY_FIRST] + mine[ONLY_SECOND] == pytest.approx(-back[ONLY_FIRST] - back[ONLY_SECOND], abs=1e-12)
    assert [mine[POSITIONS], mine[SCORES]] == pytest.approx([-back[POSITIONS], -back[SCORES]], abs=1e-12)


def test_a_list_against_itself_differs_in_nothing(scene):
    path = scene.results("a.json", [(1, 0, 0.5), (1, 300, 0.5), (2, 10, 0.5)])
    assert set(shares(explain_result_lists(path, path, scene.truth(PEOPLE))).values()) == {0.0}


@pytest.mark.parametrize(
    ("people", "joints", "message"),
    [
        ([(3, 0, 0.5)], 17, r"b\.json: result number 0 is for image 3, which is not in .*truth\.json"),
        ([(1, 0, 0.5)], 14, r"b\.json: result number 0: 'keypoints': expected 51 numbers .*found 42, 14 joints"),
        ([(1, 0, "high")], 17, r"b\.json: result number 0: 'score': expected a number"),
    ],
)
def test_a_list_that_does_not_belong_here_is_named(scene, people, joints, message):
    first, second = scene.results("a.json", [(1, 0, 0.9)]), scene.results("b.json", people, joints)
    with pytest.raises(KposeError, match=message):
        explain_result_lists(first, second, scene.truth(PEOPLE), COCO_17)
