"""What an audit finds: kinds of faults, and one record for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kpose.data.instances import Instances

# What `--strict` refuses: a training or a score is wrong with them. The others are worth a look.
SERIOUS = {
    "swapped_sides": "left and right joints exchanged",
    "impossible_limb": "limb far longer than anybody's",
    "invalid_flag": "visibility other than 0, 1, 2",
    "duplicate_person": "person annotated twice in one picture",
    "duplicate_id": "annotation id given twice",
    "leak": "picture both in training and in validation",
}
MINOR = {
    "coincident_joints": "joints at the same coordinates",
    "outside_image": "joints outside of the picture",
    "outside_box": "joints outside of the box",
    "few_joints": "person with less than a quarter of the joints",
    "repeated_picture": "picture listed twice",
    "uneven_sides": "one side annotated more often than the other",
}
KINDS = SERIOUS | MINOR


@dataclass(frozen=True)
class AuditedSet:
    """People under audit.

    Attributes:
        name: what reports call the set.
        people: as read, in the set's own skeleton.
        validation: whether it is for validation; pictures must not be both there and in training.
    """

    name: str
    people: Instances
    validation: bool = False


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        kind: a key of `KINDS`.
        dataset: name of the set.
        measure: how bad it is, larger is worse; comparable within a kind alone, its unit stands in `text`.
        text: what is wrong, with numbers.
        person: position among the set's people; None where it concerns no single person.
        annotation: id of the annotation, if it concerns one.
        image: file name of the picture, if it concerns one.
        joints: names of the joints concerned.
    """

    kind: str
    dataset: str
    measure: float
    text: str
    person: int | None = None
    annotation: int | None = None
    image: str | None = None
    joints: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For `audit.json`; the position, which a filter of the set would move, is left out."""
        fields = ("kind", "dataset", "annotation", "image", "joints", "measure", "text")
        values = {name: getattr(self, name) for name in fields}
        return values | {"joints": list(self.joints), "measure": round(float(self.measure), 4)}


def about_person(audited: AuditedSet, kind: str, person: int, joints: Sequence[int], measure: float, text: str) -> Finding:
    """A finding about somebody and some of their joints."""
    people = audited.people
    names = tuple(people.skeleton.joint_names[joint] for joint in joints)
    image = people.image_files[int(people.image_index[person])]
    return Finding(kind, audited.name, float(measure), text, int(person), int(people.ids[person]), image, names)
