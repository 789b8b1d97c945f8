"""Joints that tremble from frame to frame, made steady: `PoseSmoother`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kpose.errors import KposeError

if TYPE_CHECKING:
    from kpose.inference.predictor import Pose


@dataclass
class OneEuroFilter:
    """A low-pass filter whose cutoff rises with speed: still things rest, fast ones do not lag.

    Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems", CHI 2012.

    Attributes:
        minimum_cutoff: cutoff at rest, Hz: less trembles less.
        beta: by how much the cutoff rises with speed, Hz per unit of speed: more lags less.
        derivative_cutoff: cutoff for the speed itself, Hz.

    Raises:
        KposeError: when a value is out of range.
    """

    minimum_cutoff: float
    beta: float
    derivative_cutoff: float = 1.0

    def __post_init__(self) -> None:
        if not (self.minimum_cutoff > 0 and self.derivative_cutoff > 0 and self.beta >= 0):
            raise KposeError(
                f"cutoffs of a filter must be above 0 and beta at least 0, found {self.minimum_cutoff}, "
                f"{self.derivative_cutoff} and {self.beta}"
            )
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        self._values = np.zeros(0)
        self._speeds = np.zeros(0)
        self._times = np.zeros(0)

    def __call__(self, measured: np.ndarray, seconds: float, unit: float = 1.0, missing: np.ndarray | None = None) -> np.ndarray:
        """The smoothed values.

        Args:
            measured: any number of values, each filtered by itself; the number stays the same until `reset`.
            seconds: of a clock that only goes forward; at a time that is not later than its last, a value begins anew.
            unit: what speeds are measured in: a speed of one `unit` a second counts as 1.
            missing: of the same shape, bool: these are passed on as they are, and begin anew when they come again.

        Returns:
            float64 of the same shape.
        """
        measured = np.asarray(measured, np.float64)
        if self._values.shape != measured.shape:
            self._values, self._speeds, self._times = measured.copy(), np.zeros_like(measured), np.full_like(measured, np.nan)
        step = seconds - self._times
        known = step > 0  # not so of NaN
        step = np.where(known, step, 1.0)
        change = measured - self._values
        speeds = self._speeds + _weight(self.derivative_cutoff, step) * (change / (step * unit) - self._speeds)
        values = self._values + _weight(self.minimum_cutoff + self.beta * np.abs(speeds), step) * change
        self._values, self._speeds = np.where(known, values, measured), np.where(known, speeds, 0.0)
        self._times = np.full_like(measured, seconds)
        if missing is not None:
            self._times[missing] = np.nan
            return np.where(missing, measured, self._values)
        return self._values.copy()


def _weight(cutoff: np.ndarray | float, step: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + 1.0 / (2.0 * np.pi * cutoff * step))


class PoseSmoother:
    """Smooths the joints of one person over the frames of a video, each coordinate by a `OneEuroFilter`.

    Speeds are measured in the person's size (the longer side of the box) a second, so that settings do not depend on the distance. A joint
    that is not sure is passed on as it is, and begins anew when it is found again. The Android runner has the same.

    Args:
        minimum_cutoff: cutoff at rest, Hz.
        beta: by how much the cutoff rises, Hz per person size a second.
        minimum_score: joints with a greater score are sure.

    Raises:
        KposeError: see `OneEuroFilter`.
    """

    def __init__(self, minimum_cutoff: float = 1.0, beta: float = 10.0, minimum_score: float = 0.2) -> None:
        self._filter = OneEuroFilter(minimum_cutoff, beta)
        self._minimum_score = minimum_score

    def __call__(self, pose: Pose, seconds: float) -> Pose:
        """The pose with smoothed joints; `seconds` as in `OneEuroFilter`."""
        missing = np.repeat(pose.keypoints[:, 2:] <= self._minimum_score, 2, axis=1)
        keypoints = pose.keypoints.copy()
        keypoints[:, :2] = self._filter(pose.keypoints[:, :2], seconds, float(max(pose.box[2:])), missing)
        return replace(pose, keypoints=keypoints)

    def reset(self) -> None:
        """Forget the past, as when another person comes."""
        self._filter.reset()
