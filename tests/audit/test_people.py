"""Faults of single people: each is made by hand, found, named, and nobody else is accused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kpose.audit.findings import AuditedSet
from kpose.audit.people import check_flags, check_limbs, check_places
from kpose.skeletons import LSP_14
from tests.audit.conftest import bodies

KNEE, ELBOW, ANKLE = (LSP_14.index(f"left_{name}") for name in ("knee", "elbow", "ankle"))


def of_kind(findings, kind):
    return [finding for finding in findings if finding.kind == kind]


def test_sound_people_are_left_in_peace(make_people):
    sound = AuditedSet("train", make_people(bodies(300)))
    assert check_limbs([sound]) == []
    assert check_places(sound) == []
    assert check_flags(sound) == []


def test_a_limb_far_too_long_is_found_and_its_joints_are_named(make_people):
    keypoints = bodies(300)
    knee, hip = keypoints[7, KNEE, :2], keypoints[7, LSP_14.index("left_hip"), :2]
    keypoints[7, ANKLE, :2] = knee + 6 * (knee - hip)
    (found,) = check_limbs([AuditedSet("train", make_people(keypoints))])
    assert (found.kind, found.person, found.annotation) == ("impossible_limb", 7, 1007)
    assert set(found.joints) == {"left_knee", "left_ankle"}
    assert found.measure == pytest.approx(6, rel=0.6)
    assert "times as long as usual" in found.text


def test_a_limb_that_points_at_the_camera_is_no_fault(make_people):
    keypoints = bodies(300)
    keypoints[7, ANKLE, :2] = keypoints[7, KNEE, :2] + 0.01
    assert check_limbs([AuditedSet("train", make_people(keypoints))]) == []


def test_joints_upon_one_another_are_found_unless_one_is_not_annotated(make_people):
    keypoints = bodies(60)
    keypoints[3, ELBOW] = keypoints[3, KNEE]
    keypoints[4, ELBOW] = keypoints[4, KNEE]
    keypoints[4, ELBOW, 2] = 0
    (found,) = of_kind(check_limbs([AuditedSet("train", make_people(keypoints))]), "coincident_joints")
    assert (found.person, set(found.joints)) == (3, {"left_elbow", "left_knee"})


def test_sets_of_one_skeleton_are_judged_together_and_told_apart(make_people):
    long = bodies(300, seed=1)
    long[0, ANKLE, :2] += 5000
    first, second = AuditedSet("train a", make_people(bodies(300))), AuditedSet("train b", make_people(long))
    (found,) = check_limbs([first, second])
    assert (found.dataset, found.person) == ("train b", 0)


def test_joints_outside_of_box_and_picture_are_measured(make_people):
    keypoints = bodies(20)
    people = make_people(keypoints)
    boxes = people.boxes.copy()
    boxes[5, 3] /= 2  # the legs stand out
    image_sizes = people.image_sizes.copy()
    image_sizes[6] = (int(keypoints[6, :, 1].max()) - 20, 800)  # rows below are not in the picture
    image_sizes[7] = 0  # unknown
    audited = AuditedSet("train", replace(people, boxes=boxes, image_sizes=image_sizes))
    (box,) = of_kind(check_places(audited), "outside_box")
    assert box.person == 5
    assert {"left_ankle", "right_ankle"} <= set(box.joints)
    assert box.measure == pytest.approx(boxes[5, 3] / max(boxes[5, 2:]), rel=0.01)
    (picture,) = of_kind(check_places(audited), "outside_image")
    assert picture.person == 6
    assert picture.measure == pytest.approx(keypoints[6, :, 1].max() - (image_sizes[6, 0] - 1), abs=0.01)


def test_a_joint_that_is_not_annotated_is_nowhere(make_people):
    people = make_people(bodies(5))
    keypoints = people.keypoints.copy()
    keypoints[2, KNEE] = (-9000, 1e6, 0)
    assert check_places(AuditedSet("train", replace(people, keypoints=keypoints))) == []


def test_flags_outside_of_their_range_few_joints_and_uneven_sides_are_told(make_people):
    people = make_people(bodies(200))
    keypoints = people.keypoints.copy()
    keypoints[1, KNEE, 2] = 3
    keypoints[2, 2:, 2] = 0
    keypoints[10:60, ELBOW, 2] = 0
    found = check_flags(AuditedSet("train", replace(people, keypoints=keypoints)))
    (flag,) = of_kind(found, "invalid_flag")
    assert (flag.person, flag.joints) == (1, ("left_knee",))
    assert "visibility 3" in flag.text
    (few,) = of_kind(found, "few_joints")
    assert (few.person, few.text) == (2, "2 of 14 joints")
    (uneven,) = of_kind(found, "uneven_sides")
    assert uneven.joints == ("left_elbow", "right_elbow")
    assert uneven.person is None
    assert uneven.measure == pytest.approx(50**0.5)


def test_findings_do_not_depend_on_the_persons_size(make_people):
    keypoints = bodies(300)
    keypoints[7, ANKLE, :2] += 2000
    small = keypoints * [0.1, 0.1, 1]
    found = [check_limbs([AuditedSet("train", make_people(points))])[0] for points in (keypoints, small)]
    assert found[0].measure == pytest.approx(found[1].measure, rel=1e-3)
    assert np.array_equal(found[0].joints, found[1].joints)
