"""A contact sheet of what the loader really feeds to the network."""

from __future__ import annotations

import numpy as np

from kpose.config import Config
from kpose.data.crops import preparation_from_config
from kpose.data.pipeline import training_data
from kpose.errors import KposeError
from kpose.skeletons import get_skeleton
from kpose.visualize import contact_sheet, draw_heatmaps, draw_pose


def inspection_sheet(config: Config, samples: int = 24, columns: int = 6) -> np.ndarray:
    """Draw the first samples of the training stream of a configuration.

    Nothing is taken from the annotations: pictures are the fed ones with the normalisation undone, joints are decoded from the fed heatmaps
    and left out where the fed weight is 0. What is wrong on the sheet is wrong in training.

    Args:
        config: the experiment.
        samples: how many.
        columns: samples side by side; each is a pair of the pose and the heatmaps on the crop.

    Returns:
        `(height, width, 3)` uint8 RGB.

    Raises:
        KposeError: when the data is refused, or no sample is asked for.
    """
    if samples < 1:
        raise KposeError(f"cannot draw {samples} samples; ask for 1 or more")
    skeleton = get_skeleton(config.skeleton)
    preparation = preparation_from_config(config)
    # A Gaussian of which less than this is on the crop has its maximum elsewhere than its joint; a disc has offsets.
    minimum_score = 0.5 if preparation.codec.maps_per_joint == 1 else 0.0
    # A smaller batch shows the same stream.
    small = config.model_copy(update={"training": config.training.model_copy(update={"batch_size": min(samples, 16)})})
    cells: list[np.ndarray] = []
    titles: list[str] = []
    for images, heatmaps, weights in training_data(small).dataset.as_numpy_iterator():
        decoded = preparation.codec.decode(heatmaps)
        decoded[..., 2] *= weights > 0
        for image, maps, keypoints in zip(preparation.denormalise(images), heatmaps, decoded, strict=True):
            pose = draw_pose(image, keypoints, skeleton, minimum_score)
            glow = draw_heatmaps(image, maps[..., :: preparation.codec.maps_per_joint], skeleton, config.codec.alignment)
            cells.append(np.concatenate([pose, glow], axis=1))
            titles.append(f"{len(titles)}: {int((keypoints[:, 2] > 0).sum())} of {skeleton.num_joints} joints")
            if len(cells) == samples:
                return contact_sheet(cells, columns, titles)
    raise AssertionError("the training stream is endless")
