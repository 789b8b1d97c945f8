"""Where people are in a photo: what a detector is, and TFLite ones (EfficientDet-Lite, SSD) that end in detection post-processing.

detector = PersonDetector("efficientdet_lite0.tflite")
boxes, scores = detector(image)

Their files are not part of kpose. It needs LiteRT: `pip install kpose[lite]`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from kpose.errors import KposeError
from kpose.files import write_json
from kpose.inference.litert import Interpreter, open_interpreter

if TYPE_CHECKING:
    from kpose.data import Instances

# From a picture `(H, W, 3)` uint8 RGB to boxes `(n, 4)` x, y, width, height in the image frame, and their scores `(n,)`.
Detector = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

# COCO's first class; the published files count from 0 and leave the background out.
PERSON_CLASS = 0
# On COCO train2017 (45 photos) and 150 fashion photos EfficientDet-Lite0 finds more of the people in a picture that keeps its shape than
# in one that is stretched to the input: box AP 0.386 against 0.379, F1 at this score 0.69 against 0.67, fashion 100 % against 98 %. The
# picture lies at the upper left, where the network was trained to have it; the grey is the mean colour of its training.
PADDING = 127
# Of 0.2, 0.3, 0.4 and 0.5 the one with the best F1 there.
MINIMUM_SCORE = 0.3


class PersonDetector:
    """Finds people in pictures.

    Args:
        path: the `.tflite` file: `(1, H, W, 3)` uint8 RGB in; out come boxes `(1, N, 4)` of y and x of the upper left, then of the lower
            right corner, as fractions of the input, classes and scores `(1, N)`, and how many of the N count. In any order: classes and
            scores, of equal shape, are told apart by their values.
        minimum_score: boxes with a lower score are left out.
        person_class: the number of the class `person`.
        threads: of the CPU.

    Raises:
        KposeError: when LiteRT is not installed, or the file is missing, damaged, or no such network.
    """

    def __init__(self, path: str | Path, minimum_score: float = MINIMUM_SCORE, person_class: int = PERSON_CLASS, threads: int = 2) -> None:
        self.minimum_score, self.person_class = minimum_score, person_class
        what = "a person detector with detection post-processing"
        self.interpreter: Interpreter = open_interpreter(path, threads, what, inputs=[(1, None, None, 3)])
        self._input = self.interpreter.get_input_details()[0]
        if self._input["dtype"] != np.uint8:
            raise KposeError(f"{path} takes {self._input['dtype'].__name__}; a person detector takes uint8: export it with a uint8 input")
        outputs = self.interpreter.get_output_details()
        shapes = {tensor["index"]: tuple(map(int, tensor["shape"])) for tensor in outputs}
        boxes = [index for index, shape in shapes.items() if len(shape) == 3 and shape[0] == 1 and shape[2] == 4]
        lists = [index for index, shape in shapes.items() if boxes and shape == shapes[boxes[0]][:2]]
        counts = [index for index, shape in shapes.items() if shape in ((), (1,))]
        if (len(boxes), len(lists), len(counts), len(shapes)) != (1, 2, 1, 4):
            raise KposeError(
                f"{path} has outputs {list(shapes.values())}; {what} has boxes (1, N, 4), classes and scores (1, N), and a count (1,)"
            )
        self._boxes, self._count = boxes[0], counts[0]
        self._lists = lists[0], lists[1]

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The people in a picture, the surest first.

        Args:
            image: `(H, W, 3)` uint8 RGB.

        Returns:
            Boxes `(n, 4)` float32 x, y, width, height in the image frame, within the picture, and scores `(n,)` float32 in 0..1.
        """
        height, width = image.shape[:2]
        fitted, shown = fit_picture(image, tuple(self._input["shape"][1:3]))
        self.interpreter.set_tensor(self._input["index"], fitted[None])
        self.interpreter.invoke()
        count = int(self.interpreter.get_tensor(self._count).reshape(-1)[0])
        corners = self.interpreter.get_tensor(self._boxes)[0, :count].astype(np.float64)
        classes, scores = _classes_and_scores(*(self.interpreter.get_tensor(index)[0, :count] for index in self._lists))
        # Fractions of the input -> of the part of it that the picture fills -> pixels.
        corners *= np.tile(np.divide(fitted.shape[:2], shown) * (height, width), 2)
        return people_within(corners, scores, classes == self.person_class, (height, width), self.minimum_score)


def people_within(
    corners: np.ndarray, scores: np.ndarray, people: np.ndarray, size: tuple[int, int], minimum_score: float
) -> tuple[np.ndarray, np.ndarray]:
    """Detections as a detector gives them: cut to the picture, sure enough, the surest first.

    Args:
        corners: `(n, 4)` top, left, bottom, right in pixels of the picture.
        scores: `(n,)`.
        people: `(n,)` whether it is one.
        size: height and width of the picture.
        minimum_score: of those that stay.

    Returns:
        Boxes `(m, 4)` float32 x, y, width, height and scores `(m,)` float32.
    """
    height, width = size
    top, left, bottom, right = corners.T
    left, right = np.clip(left, 0, width), np.clip(right, 0, width)
    top, bottom = np.clip(top, 0, height), np.clip(bottom, 0, height)
    # Not a number is never greater.
    order = np.flatnonzero(people & (scores >= minimum_score) & (right > left) & (bottom > top))
    order = order[np.argsort(-scores[order], kind="stable")]
    boxes = np.stack([left, top, right - left, bottom - top], axis=-1)
    return boxes[order].astype(np.float32), scores[order].astype(np.float32)


def fit_picture(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture in its own shape as large as a network's input takes it.

    Args:
        image: `(H, W, 3)` uint8.
        size: height and width of the input.

    Returns:
        `(*size, 3)` uint8, the picture at its upper left, grey elsewhere; and the height and width of that part.
    """
    height, width = image.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    shown = min(size[0], max(1, round(height * scale))), min(size[1], max(1, round(width * scale)))
    fitted = np.full((*size, 3), PADDING, np.uint8)
    fitted[: shown[0], : shown[1]] = cv2.resize(image, shown[::-1], interpolation=cv2.INTER_LINEAR)
    return fitted, shown


def _classes_and_scores(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the two is which: classes are whole numbers, scores lie in 0..1.

    Where both could be either (a single box, of a class 0 or 1 and a score 1), it is the order of the post-processing operation.
    """
    scores_first = (first % 1 > 0).any() or (second > 1).any()
    return (second, first) if scores_first else (first, second)


def write_detections(detector: PersonDetector, people: Instances, path: str | Path, category_id: int = 1, progress: bool = True) -> Path:
    """Look for people in the pictures of a dataset, and write COCO detections, which `data.validation[].detections` takes.

    Args:
        detector: its `minimum_score` decides what is written.
        people: of the dataset; all of its pictures are searched, also those without anybody.
        path: the JSON file.
        category_id: the number of the category `person` in the dataset's annotation, 1 in COCO.
        progress: show a bar.

    Returns:
        The path.

    Raises:
        KposeError: when a picture cannot be read, or the file cannot be written.
    """
    found: list[dict[str, Any]] = []
    pictures = zip(people.image_ids, people.image_files, strict=True)
    for number, file in tqdm(
        pictures, total=len(people.image_files), desc="detecting people", unit=" pictures", disable=not progress, leave=False
    ):
        boxes, scores = detector(read_as_annotated(file))
        found += [
            {"image_id": int(number), "category_id": category_id, "bbox": np.round(box, 2).tolist(), "score": round(score, 5)}
            for box, score in zip(boxes.astype(np.float64), scores.tolist(), strict=True)
        ]
    return write_json(found, path)


def read_as_annotated(file: str | Path) -> np.ndarray:
    """A picture of a dataset `(H, W, 3)` uint8 RGB as the crops of a score are cut from it: not turned as its EXIF data ask.

    Raises:
        KposeError: when it cannot be read or decoded.
    """
    import tensorflow as tf

    from kpose.data.crops import decode_whole, first_line

    try:
        return decode_whole(tf.io.read_file(str(file))).numpy()
    except tf.errors.OpError as error:
        raise KposeError(f"cannot read the picture {file}: {first_line(error)}; replace it or leave it out") from error
