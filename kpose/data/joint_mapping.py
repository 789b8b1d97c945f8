"""Joint training by joint name: the people of a dataset as people of another skeleton, and a network's answers the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from kpose.data.instances import Instances
from kpose.errors import KposeError, did_you_mean
from kpose.geometry import Array, array_namespace
from kpose.skeletons import Skeleton


@dataclass(frozen=True)
class JointMapping:
    """Which joint of one skeleton is which of another: those of equal name, unless told otherwise.

    Attributes:
        source: what a dataset annotates.
        target: what the network gives.
        rename: joints of the source that go by another name in the target.
        interpolate: joints that the source lacks (by the target's names) as the mean of joints that it has (by its own names), such as
            the pelvis between the hips. It is annotated where all of those are, visible where all of those are.
        label: what errors and notes call the dataset.

    Raises:
        KposeError: on construction, when a name is unknown, a joint is given twice, or the skeletons have nothing in common.

    Example:
        >>> from kpose.skeletons import LSP_14, MPII_16
        >>> mapping = JointMapping(LSP_14, MPII_16, {"neck": "upper_neck"}, {"pelvis": ["left_hip", "right_hip"]})
        >>> mapping.missing
        ('thorax',)
    """

    source: Skeleton
    target: Skeleton
    rename: Mapping[str, str] = field(default_factory=dict)
    interpolate: Mapping[str, Sequence[str]] = field(default_factory=dict)
    label: str = "dataset"

    def __post_init__(self) -> None:
        for joint, renamed in self.rename.items():
            self._require(joint, self.source, "rename")
            self._require(renamed, self.target, "rename")
        for joint, parts in self.interpolate.items():
            self._require(joint, self.target, "interpolate")
            if not parts:
                raise KposeError(f"{self.label}: 'interpolate' names no joint for {joint!r}; give at least one that the dataset has")
            for part in parts:
                self._require(part, self.source, "interpolate")
        givers: dict[str, str] = {}
        for joint in self.source.joint_names:
            name = self.rename.get(joint, joint)
            if name in givers:
                raise KposeError(f"{self.label}: both {givers[name]!r} and {joint!r} would be {name!r} of {self.target.name!r}; rename one")
            givers[name] = joint
        for joint in self.interpolate:
            if joint in givers:
                raise KposeError(f"{self.label} annotates {joint!r} itself (as {givers[joint]!r}); take it out of 'interpolate'")
        if not self._parts:
            raise KposeError(
                f"{self.label}: no joint of skeleton {self.source.name!r} ({', '.join(self.source.joint_names[:4])}, ...) has a name of "
                f"{self.target.name!r} ({', '.join(self.target.joint_names[:4])}, ...); name the pairs under 'rename'"
            )

    def _require(self, joint: str, skeleton: Skeleton, where: str) -> None:
        if joint not in skeleton.joint_names:
            hint = did_you_mean(joint, skeleton.joint_names, otherwise=f"it has {', '.join(skeleton.joint_names)}")
            raise KposeError(f"{self.label}: {where!r} names {joint!r}, which skeleton {skeleton.name!r} does not have{hint}")

    @cached_property
    def _parts(self) -> dict[int, tuple[int, ...]]:
        """By position in the target: the positions in the source that it is the mean of."""
        names = {self.rename.get(joint, joint): joint for joint in self.source.joint_names}
        parts: dict[str, tuple[str, ...]] = {joint: (names[joint],) for joint in self.target.joint_names if joint in names}
        parts |= {joint: tuple(sources) for joint, sources in self.interpolate.items()}
        return {self.target.index(joint): self.source.indices(sources) for joint, sources in parts.items()}

    @property
    def is_identity(self) -> bool:
        """Whether both skeletons have the same joints in the same order."""
        return self._parts == {joint: (joint,) for joint in range(self.target.num_joints)} and self.target.num_joints == len(
            self.source.joint_names
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Joints of the target that the dataset cannot teach."""
        return tuple(joint for position, joint in enumerate(self.target.joint_names) if position not in self._parts)

    @property
    def unused(self) -> tuple[str, ...]:
        """Joints of the source that the target does not have: nothing is learned from them, and no score counts them."""
        return tuple(joint for joint, known in zip(self.source.joint_names, self.known, strict=True) if not known)

    @cached_property
    def known(self) -> np.ndarray:
        """`(Ks,)` bool: which joints of the source a network of the target gives."""
        known = np.array([self.rename.get(joint, joint) in self.target.joint_names for joint in self.source.joint_names])
        known.setflags(write=False)
        return known

    @property
    def note(self) -> str:
        """One line on what the mapping leaves open; empty where every joint has its partner."""
        remarks = []
        if self.missing:
            remarks.append(f"does not annotate {', '.join(self.missing)}")
        if self.unused:
            remarks.append(f"its {', '.join(self.unused)} not used")
        return f"{self.label} for {self.target.name}: {'; '.join(remarks)}" if remarks else ""

    def to_target(self, keypoints: Array) -> Array:
        """Annotated keypoints of the source as those of the target.

        Args:
            keypoints: `(..., Ks, 3)` x, y, visibility, any frame; numpy or TensorFlow.

        Returns:
            `(..., Kt, 3)` float32 of the same kind; zeros for a joint that is not annotated.
        """
        namespace = array_namespace(keypoints)
        take = np.take if namespace is np else namespace.gather
        keypoints = np.asarray(keypoints, np.float32) if namespace is np else namespace.cast(keypoints, namespace.float32)
        # What stands where nothing is annotated may be anything, even NaN.
        clean = namespace.where(keypoints[..., 2:] > 0, keypoints, namespace.zeros_like(keypoints))
        # One more joint at the end, which is never annotated, gives what the dataset lacks.
        nobody = self.source.num_joints
        most = max(map(len, self._parts.values()))
        parts = np.full((self.target.num_joints, most), nobody)
        means = np.zeros((self.target.num_joints, nobody), np.float32)
        for joint, sources in self._parts.items():
            parts[joint] = np.resize(sources, most)
            np.add.at(means[joint], list(sources), np.float32(1 / len(sources)))
        visibility = namespace.concat([clean[..., 2], namespace.zeros_like(clean[..., :1, 2])], axis=-1)
        least = take(visibility, parts[:, 0], axis=-1)
        for column in range(1, most):
            least = namespace.minimum(least, take(visibility, parts[:, column], axis=-1))
        points = namespace.einsum("ts,...sc->...tc", means, clean[..., :2])
        points = namespace.where(least[..., None] > 0, points, namespace.zeros_like(points))
        return namespace.concat([points, least[..., None]], axis=-1)

    def to_source(self, keypoints: np.ndarray) -> np.ndarray:
        """A network's keypoints of the target as those of the source.

        Args:
            keypoints: `(..., Kt, C)`: x, y, score, any frame.

        Returns:
            `(..., Ks, C)`; zeros for a joint that is not `known`.
        """
        keypoints = np.asarray(keypoints)
        found = np.zeros((*keypoints.shape[:-2], self.source.num_joints, keypoints.shape[-1]), keypoints.dtype)
        names = [self.rename.get(joint, joint) for joint, known in zip(self.source.joint_names, self.known, strict=True) if known]
        found[..., self.known, :] = keypoints[..., list(self.target.indices(names)), :]
        return found

    def apply(self, instances: Instances) -> Instances:
        """The people of a dataset, annotated with the target's joints.

        People of whom nothing is left (the target has none of their annotated joints) stay: to choose is the caller's.
        """
        if self.is_identity and instances.skeleton == self.target:
            return instances
        return replace(instances, skeleton=self.target, keypoints=self.to_target(instances.keypoints))
