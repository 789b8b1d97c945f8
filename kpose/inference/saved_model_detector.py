"""Person detectors as SavedModels, with the outputs that the TensorFlow Model Garden and the Object Detection API export.

detector = SavedModelDetector("retinanet/saved_model")
boxes, scores = detector(image)

Their files are not part of kpose. A SavedModel is a program: load none that you do not trust.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kpose.errors import KposeError
from kpose.inference.detector import MINIMUM_SCORE, fit_picture, people_within

# COCO's number of the class, which both count from 1 (0 is the background).
PERSON_CLASS = 1
SIGNATURE = "serving_default"
_BOXES, _SCORES, _CLASSES, _COUNT, _INFO = "detection_boxes", "detection_scores", "detection_classes", "num_detections", "image_info"
# Fractions of the picture reach a little beyond 1; a box of so few pixels is nobody.
_LARGEST_FRACTION = 2.0


class SavedModelDetector:
    """Finds people in pictures.

    The signature `serving_default` takes one picture `(1, H, W, 3)`, uint8 or float32 RGB in 0..255, of any size or of a fixed one. It
    gives `detection_boxes` `(1, N, 4)`, y and x of the upper left, then of the lower right corner, `detection_scores` and
    `detection_classes` `(1, N)`, perhaps `num_detections` `(1,)`, how many of the N count, and `image_info` `(1, 4, 2)`. Boxes are
    fractions of the picture where none is beyond 2; otherwise pixels: of the network's input if there is an `image_info`, whose third
    row tells its scale (so the Model Garden's detectors, unless told to normalise), else of the picture as it was put in.

    Args:
        folder: of the SavedModel.
        minimum_score: boxes with a lower score are left out.
        person_class: the number of the class `person`.

    Raises:
        KposeError: when there is no SavedModel, it is damaged, or its signature is another.
    """

    def __init__(self, folder: str | Path, minimum_score: float = MINIMUM_SCORE, person_class: int = PERSON_CLASS) -> None:
        import tensorflow as tf

        self.minimum_score, self.person_class, self.name = minimum_score, person_class, str(folder)
        if not (Path(folder) / "saved_model.pb").is_file():
            raise KposeError(f"there is no SavedModel in {folder}: it has no saved_model.pb")
        try:
            self._loaded = tf.saved_model.load(str(folder))
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            raise KposeError(f"the SavedModel in {folder} is damaged: {' '.join(str(error).split())[:160]}") from error
        signatures = getattr(self._loaded, "signatures", {})
        if SIGNATURE not in signatures:
            raise KposeError(f"the SavedModel in {folder} has signatures {sorted(signatures)}; a person detector has {SIGNATURE!r}")
        self._detect = signatures[SIGNATURE]
        inputs, outputs = self._detect.structured_input_signature[1], set(self._detect.structured_outputs)
        if missing := {_BOXES, _SCORES, _CLASSES} - outputs:
            raise KposeError(
                f"the SavedModel in {folder} does not give {', '.join(sorted(missing))}; it gives {', '.join(sorted(outputs))}"
            )
        fits = len(inputs) == 1 and all(
            spec.dtype in (tf.uint8, tf.float32) and spec.shape.is_compatible_with((1, None, None, 3)) for spec in inputs.values()
        )
        if not fits:
            raise KposeError(
                f"the SavedModel in {folder} takes {list(inputs.values())}; a person detector takes one picture (1, H, W, 3) of uint8 or "
                "float32: export it with input_type image_tensor and batch_size 1"
            )
        ((self._input, spec),) = inputs.items()
        self._dtype = spec.dtype
        height, width = spec.shape.as_list()[1:3] if spec.shape.rank else (None, None)
        if (height is None) != (width is None):
            raise KposeError(f"the SavedModel in {folder} takes pictures of {height} x {width}; a detector fixes both sides or neither")
        self._size: tuple[int, int] | None = None if height is None or width is None else (height, width)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The people in a picture, the surest first.

        Args:
            image: `(H, W, 3)` uint8 RGB.

        Returns:
            Boxes `(n, 4)` float32 x, y, width, height in the image frame, within the picture, and scores `(n,)` float32.

        Raises:
            KposeError: when the detector fails on the picture, or gives anything else than boxes, scores and classes.
        """
        import tensorflow as tf

        shown_image, shown = (image, image.shape[:2]) if self._size is None else fit_picture(image, self._size)
        try:
            found = self._detect(**{self._input: tf.cast(shown_image[None], self._dtype)})
        except tf.errors.OpError as error:
            raise KposeError(f"the detector in {self.name} fails: {' '.join(str(error.message).split())[:160]}") from error
        outputs = {name: value.numpy() for name, value in found.items() if name in (_BOXES, _SCORES, _CLASSES, _COUNT, _INFO)}
        count = int(np.reshape(outputs.get(_COUNT, outputs[_BOXES].shape[1:2]), -1)[0])
        try:
            corners = outputs[_BOXES].reshape(-1, 4)[:count].astype(np.float64)
            scores, classes = (outputs[name].reshape(-1)[:count].astype(np.float64) for name in (_SCORES, _CLASSES))
            in_picture = corners * self._scale(corners, outputs.get(_INFO), shown_image.shape[:2])
            # From the part of the input that the picture fills.
            corners = in_picture * np.tile(np.divide(image.shape[:2], shown), 2)
            return people_within(corners, scores, classes == self.person_class, image.shape[:2], self.minimum_score)
        except (ValueError, IndexError) as error:
            shapes = {name: value.shape for name, value in outputs.items()}
            raise KposeError(f"the detector in {self.name} gives {shapes}, which are no boxes of one picture: {error}") from error

    @staticmethod
    def _scale(corners: np.ndarray, info: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
        """`(4,)`: what brings y, x, y, x into pixels of the picture that was put in."""
        finite = corners[np.isfinite(corners)]
        if not finite.size or finite.max() <= _LARGEST_FRACTION:
            return np.tile(np.asarray(size, np.float64), 2)
        return np.ones(4) if info is None else np.tile(1 / info.reshape(4, 2)[2].astype(np.float64), 2)
