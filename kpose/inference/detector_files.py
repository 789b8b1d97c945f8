"""A detector of whatever kind its file is."""

from __future__ import annotations

from pathlib import Path

from kpose.errors import KposeError
from kpose.inference.detector import Detector, PersonDetector
from kpose.inference.listed_detections import ListedDetections
from kpose.inference.saved_model_detector import SavedModelDetector


def open_detector(path: str | Path, person_class: int | None = None) -> Detector | ListedDetections:
    """A detector: a `.tflite` file, the folder of a SavedModel, or a `.json` file of detections.

    Args:
        path: the file or folder.
        person_class: number of the class `person`; by default as of the kind.

    Raises:
        KposeError: when it is none of them, see their classes.
    """
    path = Path(path)
    kind = SavedModelDetector if path.is_dir() else _KINDS.get("".join(path.suffixes[-2:]).lower()) or _KINDS.get(path.suffix.lower())
    if kind is None:
        raise KposeError(
            f"{path} is no detector that kpose knows: expected a .tflite file, the folder of a SavedModel, or detections in .json"
        )
    if person_class is None:
        return kind(path)
    if kind is ListedDetections:
        return ListedDetections(path, person_category=person_class)
    return kind(path, person_class=person_class)


_KINDS: dict[str, type] = {".tflite": PersonDetector, ".json": ListedDetections, ".json.gz": ListedDetections}
