from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kpose.audit.duplicates import check_people, check_pictures, pairs_within_pictures
from kpose.audit.findings import AuditedSet
from kpose.data.instances import Instances
from tests.audit.conftest import bodies


def test_every_pair_of_a_picture_comes_once(make_people):
    people = make_people(bodies(7), image_index=np.array([0, 1, 0, 2, 0, 1, 3]))
    pairs = [frozenset(pair) for both in pairs_within_pictures(people) for pair in zip(*(part.tolist() for part in both), strict=True)]
    assert len(pairs) == 4
    assert set(pairs) == {frozenset(pair) for pair in ((0, 2), (0, 4), (2, 4), (1, 5))}


def test_a_person_annotated_twice_in_one_picture_is_found(make_people):
    keypoints = bodies(6)
    keypoints[3, :, :2] = keypoints[0, :, :2] + 0.5  # the same person, drawn by another hand
    keypoints[4, :, :2] = keypoints[1, :, :2] + 0.5  # the same pose, in another picture
    people = make_people(keypoints, image_index=np.array([0, 1, 2, 0, 3, 0]))
    (found,) = check_people(AuditedSet("train", people))
    assert (found.kind, found.person) == ("duplicate_person", 0)
    assert "also annotation 1003" in found.text
    assert found.measure > 0.95


def test_two_people_side_by_side_are_two(make_people):
    keypoints = bodies(2)
    keypoints[1, :, :2] = keypoints[0, :, :2] + 60
    assert check_people(AuditedSet("train", make_people(keypoints, image_index=np.array([0, 0])))) == []


def test_ids_given_twice_are_found(make_people):
    people = make_people(bodies(5))
    ids = people.ids.copy()
    ids[4] = ids[1]
    found = check_people(AuditedSet("train", replace(people, ids=ids)))
    assert [(finding.kind, finding.person) for finding in found] == [("duplicate_id", 1), ("duplicate_id", 4)]


@pytest.fixture
def make_set(make_people, tmp_path):
    """A set with one person in each of the pictures, whose content is given."""

    def make(name: str, *contents: bytes, validation: bool = False) -> AuditedSet:
        files = []
        for number, content in enumerate(contents):
            file = tmp_path / name.replace(" ", "_") / f"{number}.jpg"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
            files.append(str(file))
        people: Instances = make_people(bodies(len(contents)), files=tuple(files))
        return AuditedSet(name, people, validation)

    return make


def test_equal_pictures_are_found_by_their_content(make_set):
    found = check_pictures([make_set("train", b"abc", b"xyz", b"abc", b"longer")], progress=False)
    assert [(finding.kind, finding.image[-5:]) for finding in found] == [("repeated_picture", "2.jpg")]
    assert found[0].text == "the same picture as 0.jpg"


def test_a_picture_in_training_and_validation_is_a_leak(make_set):
    sets = [make_set("train", b"abc", b"xyz"), make_set("validation", b"new", b"xyz", validation=True), make_set("train more", b"xyz")]
    found = check_pictures(sets, progress=False)
    assert [(finding.kind, finding.dataset) for finding in found] == [("leak", "validation")]
    assert found[0].image.endswith("1.jpg")
    assert "also in the training set train" in found[0].text


def test_pictures_that_cannot_be_read_are_taken_to_differ(make_set, tmp_path):
    audited = make_set("train", b"abc", b"abc")
    (tmp_path / "train" / "1.jpg").unlink()
    assert check_pictures([audited], progress=False) == []
