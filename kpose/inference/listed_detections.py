"""People whom a detector found earlier: a JSON file in the form of COCO's results, looked up by the picture's file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from kpose.errors import KposeError
from kpose.files import read_json
from kpose.inference.detector import MINIMUM_SCORE, people_within

# COCO's number of the category, which results name without a list of categories.
PERSON_CATEGORY = 1


class ListedDetections:
    """Detections of a file, in the place of a detector: `PoseEstimator(detector=ListedDetections("detections.json"))`.

    The file is a list of `{"image_id": 785, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}`, as COCO's detectors are
    submitted and `kpose.inference.detector.write_detections` writes them. A picture is found by its `file_name`, if entries carry one
    (with folders or without), else by the number at the end of its name: 000000000785.jpg is image 785. A picture that is not listed
    shows nobody.

    Args:
        path: the JSON file (`.gz` too).
        minimum_score: boxes with a lower score are left out.
        person_category: `category_id` of people; entries of others are left out.

    Raises:
        KposeError: when the file cannot be read or is of another form.
    """

    def __init__(self, path: str | Path, minimum_score: float = MINIMUM_SCORE, person_category: int = PERSON_CATEGORY) -> None:
        self.minimum_score = minimum_score
        content = read_json(path)
        if not isinstance(content, list):
            raise KposeError(f"{path}: expected a list of detections, found {type(content).__name__}; boxes of other forms: --boxes")
        found: dict[str | int, list[list[float]]] = {}
        for position, entry in enumerate(content):
            row = _row(entry)
            if row is None:
                raise KposeError(
                    f"{path}: entry {position} is no detection: {str(entry)[:80]}; "
                    "expected image_id or file_name, bbox of four numbers, and score"
                )
            key, category, numbers = row
            if category == person_category:
                found.setdefault(key, []).append(numbers)
        self._found = {key: np.array(rows, np.float64) for key, rows in found.items()}

    def of(self, picture: str | Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The people in a picture, the surest first.

        Args:
            picture: its path or name.
            size: its height and width.

        Returns:
            Boxes `(n, 4)` float32 x, y, width, height, within the picture, and scores `(n,)` float32.
        """
        rows = next((self._found[key] for key in _keys(str(picture)) if key in self._found), np.zeros((0, 5)))
        x, y, width, height, scores = rows.T
        corners = np.stack([y, x, y + height, x + width], axis=-1)
        return people_within(corners, scores, np.ones(len(rows), bool), size, self.minimum_score)

    def lists(self, picture: str | Path) -> bool:
        """Whether anything is listed of a picture."""
        return any(key in self._found for key in _keys(str(picture)))

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Refuses: pixels do not say which picture they are.

        Raises:
            KposeError: always; see `of`.
        """
        raise KposeError("listed detections are found by a picture's file: give paths, or name the pictures; videos need a detector")


def _keys(name: str) -> list[str | int]:
    """What a picture may be listed as: its path from any folder on, then its number."""
    parts = Path(name).as_posix().split("/")
    number = re.search(r"(\d{1,18})$", Path(name).stem, re.ASCII)
    return ["/".join(parts[start:]) for start in range(len(parts))] + ([int(number[1])] if number else [])


def _row(entry: Any) -> tuple[str | int, Any, list[float]] | None:
    """Name or number of the picture, category, and box and score, of an entry; None of one that is no detection."""
    if not isinstance(entry, dict):
        return None
    key, box, score = entry.get("file_name", entry.get("image_id")), entry.get("bbox"), entry.get("score")
    if isinstance(key, bool) or not isinstance(key, (str, int)) or not isinstance(box, list) or len(box) != 4:
        return None
    numbers = [*box, score]
    if any(isinstance(number, bool) or not isinstance(number, (int, float)) for number in numbers):
        return None
    try:
        values = [float(number) for number in numbers]
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return (key, entry.get("category_id", PERSON_CATEGORY), values) if np.isfinite(values).all() else None
