"""Articulated figures in three dimensions: proportions and joint angles in, the positions of the joints out.

Body frame: x to the figure's own left, y up, z where it faces. The unit is the stature of a standing adult; angles are in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

Range = tuple[float, float]


def rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """`(3, 3)` rotation by `x`, then `y`, then `z` degrees about the fixed axes, right-handed."""
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(math.radians(angle)), math.sin(math.radians(angle))) for angle in (x, y, z))
    return np.array(
        [
            [cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz],
            [cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz],
            [-sy, sx * cy, cx * cy],
        ]
    )


@dataclass(frozen=True)
class Proportions:
    """Lengths between joints, as fractions of an adult's stature, and how stout the figure is."""

    head: float
    neck: float
    torso: float
    upper_arm: float
    forearm: float
    hand: float
    thigh: float
    shank: float
    foot: float
    shoulder_width: float
    hip_width: float
    girth: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Proportions:
        """A body between child and adult, slim and stout; a child's head is large for its short limbs."""
        child = rng.uniform(0.3, 1.0) if rng.random() < 0.25 else 0.0
        girth = float(np.exp(rng.normal(0.0, 0.12)))
        limb = rng.uniform(0.94, 1.06) * (1 - 0.14 * child)

        def about(value: float) -> float:
            return float(value * rng.uniform(0.95, 1.05))

        return cls(
            head=about(1.0 + 0.35 * child),
            neck=about(0.052 * (1 - 0.2 * child)),
            torso=about(0.285),
            upper_arm=about(0.168 * limb),
            forearm=about(0.148 * limb),
            hand=about(0.065 * limb),
            thigh=about(0.245 * limb),
            shank=about(0.238 * limb),
            foot=about(0.105),
            shoulder_width=about(0.224 * girth**0.3),
            hip_width=about(0.118 * girth**0.4),
            girth=girth,
        )


@dataclass(frozen=True)
class ArmAngles:
    """Shoulder flexion (forwards), abduction (sideways), inward rotation; flexion of the elbow."""

    flexion: float
    abduction: float
    rotation: float
    elbow: float


@dataclass(frozen=True)
class LegAngles:
    """Hip flexion (forwards), abduction (sideways), outward rotation; flexion of the knee."""

    flexion: float
    abduction: float
    rotation: float
    knee: float


@dataclass(frozen=True)
class Pose:
    """All joint angles of a figure. `bend` leans the trunk forwards, `lean` to its left, `twist` turns it to its left."""

    left_arm: ArmAngles
    right_arm: ArmAngles
    left_leg: LegAngles
    right_leg: LegAngles
    bend: float = 0.0
    lean: float = 0.0
    twist: float = 0.0
    nod: float = 0.0
    tilt: float = 0.0
    turn: float = 0.0
    lying: float = 0.0
    sitting: bool = False


@dataclass(frozen=True)
class _Activity:
    """Ranges of the joint angles, in the order of `ArmAngles` and `LegAngles`; `other_*` where the two sides differ.

    Those marked `simple` keep the figure upright and its silhouette plain.
    """

    share: float
    arm: tuple[Range, Range, Range, Range]
    leg: tuple[Range, Range, Range, Range]
    other_arm: tuple[Range, Range, Range, Range] | None = None
    other_leg: tuple[Range, Range, Range, Range] | None = None
    bend: Range = (-6, 12)
    lying: float = 0.0
    sitting: bool = False
    simple: bool = False


_RELAXED = ((-20, 30), (4, 22), (-10, 50), (2, 50))
_ANY_ARM = ((-30, 120), (0, 120), (-40, 70), (0, 130))
_STRAIGHT = ((-8, 12), (1, 14), (0, 20), (0, 10))
_ACTIVITIES = (
    _Activity(4, arm=_RELAXED, leg=_STRAIGHT, simple=True),
    _Activity(2, arm=_ANY_ARM, leg=_STRAIGHT, other_arm=_RELAXED, simple=True),
    # Hands on the hips.
    _Activity(1, arm=((-30, -12), (38, 55), (55, 80), (80, 105)), leg=_STRAIGHT),
    # Reaching, carrying, typing.
    _Activity(1.5, arm=((30, 100), (0, 25), (-10, 50), (0, 100)), leg=_STRAIGHT, bend=(-5, 30)),
    # Arms raised, both or one.
    _Activity(1.5, arm=((-20, 30), (100, 170), (-30, 30), (0, 80)), leg=((-10, 20), (2, 25), (0, 20), (0, 20))),
    _Activity(1, arm=((110, 175), (-10, 25), (-20, 30), (0, 60)), leg=_STRAIGHT, other_arm=_RELAXED),
    # Walking and running: the arms swing against the legs.
    _Activity(
        3,
        arm=((15, 45), (4, 18), (10, 40), (10, 60)),
        other_arm=((-45, -10), (4, 18), (10, 40), (5, 50)),
        leg=((12, 38), (0, 6), (0, 10), (2, 25)),
        other_leg=((-30, -8), (0, 6), (0, 10), (5, 40)),
        bend=(0, 12),
        simple=True,
    ),
    _Activity(
        2,
        arm=((25, 70), (6, 25), (20, 50), (70, 115)),
        other_arm=((-70, -25), (6, 25), (10, 40), (60, 110)),
        leg=((35, 85), (0, 10), (0, 10), (40, 105)),
        other_leg=((-35, 0), (0, 10), (0, 10), (10, 100)),
        bend=(8, 30),
    ),
    # A kick or a lunge.
    _Activity(1, arm=_ANY_ARM, leg=((30, 95), (0, 35), (0, 25), (0, 70)), other_leg=_STRAIGHT, bend=(-15, 15)),
    # Sitting and squatting.
    _Activity(3, arm=((10, 60), (3, 25), (10, 60), (20, 100)), leg=((70, 98), (0, 25), (0, 10), (55, 105)), bend=(-12, 25), sitting=True),
    _Activity(1, arm=((30, 90), (5, 30), (0, 40), (5, 80)), leg=((75, 120), (5, 35), (0, 25), (85, 145)), bend=(10, 45)),
    # Bending down to the floor.
    _Activity(1.5, arm=((50, 120), (0, 20), (-10, 40), (0, 50)), leg=((-5, 30), (0, 15), (0, 10), (0, 40)), bend=(40, 95)),
    # Dancing, climbing, everything else.
    _Activity(2, arm=((-50, 160), (0, 150), (-50, 80), (0, 135)), leg=((-30, 90), (0, 45), (-10, 40), (0, 110)), bend=(-20, 45)),
    # Lying on a side, the back or the front.
    _Activity(1, arm=_ANY_ARM, leg=((-10, 70), (0, 20), (0, 20), (0, 80)), bend=(-10, 25), lying=90.0),
)


def sample_pose(rng: np.random.Generator, simple: bool = False) -> Pose:
    """Joint angles of a random activity; of a `simple` one, standing or walking, if asked."""
    shares = np.array([activity.share * (activity.simple or not simple) for activity in _ACTIVITIES])
    activity = _ACTIVITIES[rng.choice(len(_ACTIVITIES), p=shares / shares.sum())]

    def angles(ranges: tuple[Range, ...]) -> list[float]:
        return [float(rng.uniform(*each)) for each in ranges]

    arms = [ArmAngles(*angles(activity.arm)), ArmAngles(*angles(activity.other_arm or activity.arm))]
    legs = [LegAngles(*angles(activity.leg)), LegAngles(*angles(activity.other_leg or activity.leg))]
    first = int(rng.random() < 0.5)
    return Pose(
        left_arm=arms[first],
        right_arm=arms[1 - first],
        left_leg=legs[1 - first],
        right_leg=legs[first],
        bend=float(rng.uniform(*activity.bend)),
        lean=float(rng.normal(0, 5)),
        twist=float(rng.normal(0, 10)),
        nod=float(rng.normal(5, 12)),
        tilt=float(rng.normal(0, 7)),
        turn=float(np.clip(rng.normal(0, 25), -65, 65)),
        lying=activity.lying * float(rng.choice((-1, 1))) * float(rng.uniform(0.8, 1.1)),
        sitting=activity.sitting,
    )


# The head as an ellipsoid: half its width, height and depth.
HEAD_RADII = np.array([0.058, 0.082, 0.070])
# Facial joints in units of those radii, from the centre of the head; x is negated for the right side.
_FACE = {"eye": (0.40, 0.08, 0.88), "ear": (1.02, -0.05, -0.08)}
_NOSE = (0.0, -0.16, 1.16)


@dataclass(frozen=True)
class Figure:
    """A posed body.

    Attributes:
        proportions: the lengths it was built from.
        points: landmarks by name, `(3,)` each: the joints of COCO, and `pelvis`, `waist`, `chest` (between the shoulders), `head`
            (its centre), `left_toe`, `left_hand` and their right-hand partners.
        pelvis_axes, chest_axes, head_axes: `(3, 3)`; the columns are the left, up and forward direction of that part.
        sitting: whether something to sit on belongs under the pelvis.
    """

    proportions: Proportions
    points: Mapping[str, np.ndarray]
    pelvis_axes: np.ndarray
    chest_axes: np.ndarray
    head_axes: np.ndarray
    sitting: bool = False

    def turned(self, matrix: np.ndarray) -> Figure:
        """The figure rotated about the origin by a `(3, 3)` matrix."""
        return replace(
            self,
            points={name: matrix @ point for name, point in self.points.items()},
            pelvis_axes=matrix @ self.pelvis_axes,
            chest_axes=matrix @ self.chest_axes,
            head_axes=matrix @ self.head_axes,
        )


def build_figure(proportions: Proportions, pose: Pose) -> Figure:
    """Forward kinematics from the pelvis (the origin) outwards."""
    size = proportions
    down = np.array([0.0, -1.0, 0.0])
    # The pelvis takes part of the bend; the legs stay with the ground, as when a person bends down.
    pelvis = rotation(x=0.4 * pose.bend, z=-0.3 * pose.lean)
    chest = pelvis @ rotation(x=0.6 * pose.bend, y=pose.twist, z=-0.7 * pose.lean)
    head = chest @ rotation(x=pose.nod - 0.5 * pose.bend, y=pose.turn, z=pose.tilt)
    points: dict[str, np.ndarray] = {"pelvis": np.zeros(3)}
    points["waist"] = 0.38 * size.torso * pelvis[:, 1]
    points["chest"] = points["waist"] + 0.62 * size.torso * chest[:, 1]
    head_base = points["chest"] + size.neck * (0.6 * chest[:, 1] + 0.4 * head[:, 1]) + 0.012 * chest[:, 2]
    radii = HEAD_RADII * size.head
    points["head"] = head_base + head @ np.array([0.0, 0.85 * radii[1], 0.012])
    points["nose"] = points["head"] + head @ (radii * _NOSE)
    for side, sign, arm, leg in (("left", 1.0, pose.left_arm, pose.left_leg), ("right", -1.0, pose.right_arm, pose.right_leg)):
        mirror = np.array([sign, 1.0, 1.0])
        for name, place in _FACE.items():
            points[f"{side}_{name}"] = points["head"] + head @ (radii * mirror * place)
        raised = max(0.0, max(arm.abduction, arm.flexion) - 60) / 120
        shoulder = points["chest"] + chest @ np.array([sign * size.shoulder_width / 2 * (1 - 0.15 * raised), 0.05 * raised, 0.0])
        upper = chest @ rotation(z=sign * arm.abduction) @ rotation(x=-arm.flexion) @ rotation(y=-sign * arm.rotation)
        lower = upper @ rotation(x=-arm.elbow)
        points[f"{side}_shoulder"] = shoulder
        points[f"{side}_elbow"] = shoulder + size.upper_arm * upper @ down
        points[f"{side}_wrist"] = points[f"{side}_elbow"] + size.forearm * lower @ down
        points[f"{side}_hand"] = points[f"{side}_wrist"] + size.hand * lower @ down
        hip = pelvis @ np.array([sign * size.hip_width / 2, 0.0, 0.0])
        thigh = rotation(z=sign * leg.abduction) @ rotation(x=-leg.flexion) @ rotation(y=sign * leg.rotation)
        shank = thigh @ rotation(x=leg.knee)
        points[f"{side}_hip"] = hip
        points[f"{side}_knee"] = hip + size.thigh * thigh @ down
        points[f"{side}_ankle"] = points[f"{side}_knee"] + size.shank * shank @ down
        # A foot is at a right angle to the shank, less where the knee is bent.
        points[f"{side}_toe"] = points[f"{side}_ankle"] + shank @ rotation(x=0.15 * leg.knee) @ np.array([0, -0.028, size.foot])
        points[f"{side}_heel"] = points[f"{side}_ankle"] + shank @ np.array([0, -0.022, -0.016])
    figure = Figure(proportions, points, pelvis_axes=pelvis, chest_axes=chest, head_axes=head, sitting=pose.sitting)
    return figure.turned(rotation(z=pose.lying)) if pose.lying else figure


@dataclass(frozen=True)
class Camera:
    """Weak perspective: image x = origin x + scale X, image y = origin y - scale Y, both times distance / (distance - Z).

    Attributes:
        scale: pixels per stature at Z = 0.
        origin: image x and y of the body origin, pixel centres at integers.
        distance: from the camera to the origin, in statures.
    """

    scale: float
    origin: tuple[float, float]
    distance: float

    def project(self, point: np.ndarray) -> np.ndarray:
        """`(3,)` body frame -> `(3,)`: image x, image y, and nearness in pixels (greater is nearer to the viewer)."""
        scale = self.scale_at(point)
        return np.array([self.origin[0] + scale * point[0], self.origin[1] - scale * point[1], self.scale * point[2]])

    def scale_at(self, point: np.ndarray) -> float:
        """Pixels per stature at the distance of a point."""
        return float(self.scale * self.distance / (self.distance - point[2]))
