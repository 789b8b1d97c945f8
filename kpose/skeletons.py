"""Skeletons: which joints a person has, and everything that depends on which joint is which.

Losses, flips, metrics, drawing and the mapping between datasets ask a `Skeleton`; no other file knows a joint by number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kpose.errors import KposeError, did_you_mean
from kpose.yaml_files import read_yaml


@dataclass(frozen=True)
class Skeleton:
    """Joints of one annotation scheme.

    Attributes:
        name: short name, such as `coco_17`.
        joint_names: names in the order of the annotation.
        left_right_pairs: joints that change places in a mirrored image, by name.
        limbs: joints that a drawing connects, by name.
        upper_body, lower_body: joints of each half, for half-body augmentation, by name.
        oks_sigmas: per-joint spread of human annotators for object keypoint similarity, or None where the dataset has none.

    Raises:
        KposeError: on construction, when a name is unknown or doubled or the sigmas do not fit.
    """

    name: str
    joint_names: tuple[str, ...]
    left_right_pairs: tuple[tuple[str, str], ...] = ()
    limbs: tuple[tuple[str, str], ...] = ()
    upper_body: tuple[str, ...] = ()
    lower_body: tuple[str, ...] = ()
    oks_sigmas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.joint_names:
            raise KposeError(f"skeleton {self.name!r} has no joints; list them under 'joint_names'")
        doubled = {joint for joint in self.joint_names if self.joint_names.count(joint) > 1}
        if doubled:
            raise KposeError(f"skeleton {self.name!r} names {sorted(doubled)[0]!r} more than once; joint names must differ")
        for field in ("left_right_pairs", "limbs"):
            for pair in getattr(self, field):
                if len(pair) != 2 or pair[0] == pair[1]:
                    raise KposeError(f"skeleton {self.name!r}: {list(pair)} in {field!r} must be two different joints")
                for joint in pair:
                    self._check_joint(joint, field)
        for field in ("upper_body", "lower_body"):
            for joint in getattr(self, field):
                self._check_joint(joint, field)
        paired = [joint for pair in self.left_right_pairs for joint in pair]
        if len(set(paired)) != len(paired):
            raise KposeError(f"skeleton {self.name!r}: a joint stands in two of 'left_right_pairs'; each belongs to one pair")
        if self.oks_sigmas is not None:
            if len(self.oks_sigmas) != len(self.joint_names):
                raise KposeError(
                    f"skeleton {self.name!r} has {len(self.joint_names)} joints but {len(self.oks_sigmas)} 'oks_sigmas'; "
                    "give one per joint or none"
                )
            for sigma in self.oks_sigmas:
                if not 0 < sigma < math.inf:
                    raise KposeError(f"skeleton {self.name!r}: 'oks_sigmas' must be finite and greater than 0, one is {sigma}")

    def _check_joint(self, joint: str, where: str) -> None:
        if joint not in self.joint_names:
            hint = did_you_mean(joint, self.joint_names, otherwise=f"it has {', '.join(self.joint_names)}")
            raise KposeError(f"skeleton {self.name!r} has no joint {joint!r} (named in {where!r}){hint}")

    @property
    def num_joints(self) -> int:
        """How many joints a person has (K)."""
        return len(self.joint_names)

    def index(self, joint: str) -> int:
        """The position of a joint in the annotation order. Raises `KposeError` for an unknown name."""
        self._check_joint(joint, "index")
        return self.joint_names.index(joint)

    def indices(self, joints: Sequence[str]) -> tuple[int, ...]:
        """The positions of several joints."""
        return tuple(self.index(joint) for joint in joints)

    @cached_property
    def flip_permutation(self) -> np.ndarray:
        """`(K,)` int32: `keypoints[..., flip_permutation, :]` puts each joint where its mirrored partner was."""
        permutation = np.arange(self.num_joints, dtype=np.int32)
        for left, right in self.left_right_pairs:
            i, j = self.index(left), self.index(right)
            permutation[i], permutation[j] = j, i
        permutation.setflags(write=False)  # one array serves everybody who asks
        return permutation

    @cached_property
    def limb_indices(self) -> tuple[tuple[int, int], ...]:
        """The limbs as pairs of joint positions."""
        return tuple((self.index(a), self.index(b)) for a, b in self.limbs)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, as in a skeleton YAML; `Skeleton.from_dict` reads them back."""
        return {
            "name": self.name,
            "joint_names": list(self.joint_names),
            "left_right_pairs": [list(pair) for pair in self.left_right_pairs],
            "limbs": [list(pair) for pair in self.limbs],
            "upper_body": list(self.upper_body),
            "lower_body": list(self.lower_body),
            "oks_sigmas": None if self.oks_sigmas is None else list(self.oks_sigmas),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "skeleton") -> Skeleton:
        """Build a skeleton from `to_dict` values.

        Args:
            values: the fields by name; `name` and `joint_names` are required.
            source: where the values come from (a file), named in errors.

        Raises:
            KposeError: when a field is unknown, missing, or of the wrong type.
        """
        known = ("name", "joint_names", "left_right_pairs", "limbs", "upper_body", "lower_body", "oks_sigmas")
        if not isinstance(values, dict):
            raise KposeError(f"{source}: expected a mapping with {', '.join(known)}, found {type(values).__name__}")
        for key in values:
            if key not in known:
                hint = did_you_mean(key, known, otherwise=f"known: {', '.join(known)}")
                raise KposeError(f"{source}: unknown key {key!r}{hint}")
        for key in ("name", "joint_names"):
            if values.get(key) is None:
                raise KposeError(f"{source}: {key!r} is missing")
        if not isinstance(values["name"], str) or not values["name"].strip():
            raise KposeError(f"{source}: 'name' must be text, found {values['name']!r}")

        def names(key: str) -> tuple[str, ...]:
            value = () if values.get(key) is None else values[key]
            if not isinstance(value, (list, tuple)) or not all(isinstance(joint, str) for joint in value):
                raise KposeError(f"{source}: {key!r} must be a list of joint names, found {value!r}")
            return tuple(value)

        def pairs(key: str) -> tuple[tuple[str, str], ...]:
            value = () if values.get(key) is None else values[key]
            well_formed = isinstance(value, (list, tuple)) and all(
                isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(joint, str) for joint in pair) for pair in value
            )
            if not well_formed:
                raise KposeError(f"{source}: {key!r} must be a list of [joint, joint], found {value!r}")
            return tuple((pair[0], pair[1]) for pair in value)

        sigmas = values.get("oks_sigmas")
        if sigmas is not None:
            if not isinstance(sigmas, (list, tuple)) or not all(
                isinstance(sigma, (int, float)) and not isinstance(sigma, bool) for sigma in sigmas
            ):
                raise KposeError(f"{source}: 'oks_sigmas' must be a list of numbers, found {sigmas!r}")
            sigmas = tuple(float(sigma) for sigma in sigmas)
        return cls(
            name=values["name"],
            joint_names=names("joint_names"),
            left_right_pairs=pairs("left_right_pairs"),
            limbs=pairs("limbs"),
            upper_body=names("upper_body"),
            lower_body=names("lower_body"),
            oks_sigmas=sigmas,
        )

    @classmethod
    def from_yaml(cls, path: str | Path) -> Skeleton:
        """Read a skeleton of your own from a YAML file with the fields of `to_dict`.

        Raises:
            KposeError: when the file is missing, is no YAML, or does not describe a skeleton.
        """
        return cls.from_dict(read_yaml(path, "skeleton"), source=str(path))


def _sides(*joints: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"left_{joint}", f"right_{joint}") for joint in joints)


def _both(*joints: str) -> tuple[str, ...]:
    return tuple(name for pair in _sides(*joints) for name in pair)


# The limbs that all whole-body skeletons share.
_ARMS = tuple((f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (("shoulder", "elbow"), ("elbow", "wrist")))
_LEGS = tuple((f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (("hip", "knee"), ("knee", "ankle")))

COCO_17 = Skeleton(
    name="coco_17",
    joint_names=("nose", *_both("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")),
    left_right_pairs=_sides("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
    limbs=(
        *_LEGS,
        ("left_hip", "right_hip"),
        ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"),
        ("left_shoulder", "right_shoulder"),
        *_ARMS,
        ("left_eye", "right_eye"),
        ("nose", "left_eye"),
        ("nose", "right_eye"),
        ("left_eye", "left_ear"),
        ("right_eye", "right_ear"),
        ("left_ear", "left_shoulder"),
        ("right_ear", "right_shoulder"),
    ),
    upper_body=("nose", *_both("eye", "ear", "shoulder", "elbow", "wrist")),
    lower_body=_both("hip", "knee", "ankle"),
    # pycocotools, Params.setKpParams.
    oks_sigmas=(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)

MPII_16 = Skeleton(
    name="mpii_16",
    joint_names=(
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("pelvis", "thorax", "upper_neck", "head_top"),
        *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    ),
    left_right_pairs=_sides("ankle", "knee", "hip", "wrist", "elbow", "shoulder"),
    limbs=(
        *_LEGS,
        ("pelvis", "left_hip"),
        ("pelvis", "right_hip"),
        ("pelvis", "thorax"),
        ("thorax", "upper_neck"),
        ("upper_neck", "head_top"),
        ("thorax", "left_shoulder"),
        ("thorax", "right_shoulder"),
        *_ARMS,
    ),
    upper_body=("thorax", "upper_neck", "head_top", *_both("wrist", "elbow", "shoulder")),
    lower_body=("pelvis", *_both("ankle", "knee", "hip")),
)

LSP_14 = Skeleton(
    name="lsp_14",
    joint_names=(
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
        *("neck", "head_top"),
    ),
    left_right_pairs=_sides("ankle", "knee", "hip", "wrist", "elbow", "shoulder"),
    limbs=(
        *_LEGS,
        ("left_hip", "right_hip"),
        ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"),
        ("neck", "left_shoulder"),
        ("neck", "right_shoulder"),
        ("neck", "head_top"),
        *_ARMS,
    ),
    upper_body=("neck", "head_top", *_both("wrist", "elbow", "shoulder")),
    lower_body=_both("ankle", "knee", "hip"),
)

AIC_14 = Skeleton(
    name="aic_14",
    joint_names=(
        *("right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
        *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
        *("head_top", "neck"),
    ),
    left_right_pairs=_sides("shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
    limbs=LSP_14.limbs,
    upper_body=("head_top", "neck", *_both("shoulder", "elbow", "wrist")),
    lower_body=_both("hip", "knee", "ankle"),
    # The deltas of the AI Challenger evaluation code, as the field quotes them.
    oks_sigmas=(
        *(0.01388152, 0.01515228, 0.01057665, 0.01417709, 0.01497891, 0.01402144, 0.03909642),
        *(0.03686941, 0.01981803, 0.03843971, 0.03412318, 0.02415081, 0.01291456, 0.01236173),
    ),
)

CROWDPOSE_14 = Skeleton(
    name="crowdpose_14",
    joint_names=(*_both("shoulder", "elbow", "wrist", "hip", "knee", "ankle"), "head_top", "neck"),
    left_right_pairs=_sides("shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
    limbs=LSP_14.limbs,
    upper_body=("head_top", "neck", *_both("shoulder", "elbow", "wrist")),
    lower_body=_both("hip", "knee", "ankle"),
    # The CrowdPose evaluation code.
    oks_sigmas=(0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
)

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO_17, MPII_16, LSP_14, AIC_14, CROWDPOSE_14)}


def get_skeleton(name_or_path: str | Path) -> Skeleton:
    """A built-in skeleton by name, or one of your own from a YAML file.

    Raises:
        KposeError: when there is neither a skeleton of that name nor such a file.
    """
    text = str(name_or_path)
    if text in SKELETONS:
        return SKELETONS[text]
    if text.endswith((".yaml", ".yml")):
        return Skeleton.from_yaml(text)
    hint = did_you_mean(text, SKELETONS, otherwise=f"built in: {', '.join(SKELETONS)}")
    raise KposeError(f"unknown skeleton {text!r}{hint} (your own: the path of a .yaml file)")
