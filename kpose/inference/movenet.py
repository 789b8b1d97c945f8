"""MoveNet, the single-pose network that Google publishes as TFLite files: a teacher for joints nobody annotated, and a peer.

It cannot be trained further, and its file is not part of kpose. It needs LiteRT: `pip install kpose[lite]`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from kpose import geometry
from kpose.inference.litert import Interpreter, open_interpreter
from kpose.skeletons import COCO_17

BOX_PADDING = 1.25


class MoveNet:
    """MoveNet Lightning or Thunder on one person at a time.

    Args:
        path: the `.tflite` file: `(1, S, S, 3)` RGB in 0..255 to `(1, 1, 17, 3)` y, x, score, coordinates as fractions of S.
        threads: of the CPU.

    Raises:
        KposeError: when LiteRT is not installed, or the file is missing, damaged, or no such network.
    """

    skeleton = COCO_17

    def __init__(self, path: str | Path, threads: int = 2) -> None:
        self.interpreter: Interpreter = open_interpreter(
            path, threads, "MoveNet (single pose)", inputs=[(1, None, None, 3)], outputs=[(1, 1, COCO_17.num_joints, 3)]
        )
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]
        height, width = self.input["shape"][1:3]
        self.input_size: geometry.Size = (int(height), int(width))

    def crop_matrix(self, box: np.ndarray, rotation: float = 0.0, mirrored: bool = False) -> np.ndarray:
        """`(2, 3)`: from the image to the square crop round a box `(4,)`, see `geometry.crop_matrix`."""
        center, size = geometry.fit_box_to_aspect(np.asarray(box, np.float64), self.input_size, BOX_PADDING)
        return geometry.crop_matrix(center, size, self.input_size, rotation, mirrored)

    def __call__(self, image: np.ndarray, box: np.ndarray, rotation: float = 0.0, mirrored: bool = False) -> np.ndarray:
        """The person in a box.

        Args:
            image: `(H, W, 3)` uint8 RGB.
            box: `(4,)` x, y, width, height, image frame.
            rotation: degrees by which the region is turned, see `geometry.crop_matrix`.
            mirrored: look at the mirror image; left and right are changed back.

        Returns:
            `(17, 3)` float32 x, y in the image frame, and the score in 0..1.
        """
        matrix = self.crop_matrix(box, rotation, mirrored)
        height, width = self.input_size
        crop = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
        y, x, score = self.run(crop).T
        found = np.stack([x * width, y * height, score], axis=-1)
        points = geometry.transform_points(found, geometry.invert_affine(matrix))
        return (points[self.skeleton.flip_permutation] if mirrored else points).astype(np.float32)

    def run(self, crop: np.ndarray) -> np.ndarray:
        """The network alone: a crop `(S, S, 3)` uint8 to `(17, 3)` y, x, score."""
        self.interpreter.set_tensor(self.input["index"], crop[None].astype(self.input["dtype"]))
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.output["index"])[0, 0]
