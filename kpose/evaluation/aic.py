"""AI Challenger's mean average precision of keypoints, which knows no scores."""

from __future__ import annotations

import numpy as np

from kpose.errors import KposeError
from kpose.skeletons import AIC_14, Skeleton

THRESHOLDS = np.linspace(0.5, 0.95, 10)


def aic_map(
    predictions: np.ndarray,
    prediction_images: np.ndarray,
    ground_truth: np.ndarray,
    ground_truth_images: np.ndarray,
    boxes: np.ndarray,
    skeleton: Skeleton = AIC_14,
) -> dict[str, float]:
    """The score of the AI Challenger 2017 keypoint task, as its evaluation code `keypoint_eval.py` computes it.

    Each annotated person gets the best similarity that any prediction of the same image has with it; one prediction may serve several.
    Similarity is that of COCO over the visible joints alone (visibility 2; hidden ones are not compared), with the area of the box plus 1
    as the scale; of somebody without a visible joint it is 0. At each of the thresholds 0.50, 0.55, ..., 0.95 the precision is how many
    people have a greater one, over the larger of the numbers of people and of predictions, summed over the images.

    Args:
        predictions: `(P, K, 2)` x, y in the image frame.
        prediction_images: `(P,)` numbers of their images.
        ground_truth: `(N, K, 3)` x, y, visibility (0 absent, 1 hidden, 2 visible) in the image frame.
        ground_truth_images: `(N,)` numbers of their images.
        boxes: `(N, 4)` x, y, width, height of the people.
        skeleton: the joints and their OKS sigmas.

    Returns:
        `mAP`, the mean over the thresholds, and `AP50`, `AP75`, in 0..1.

    Raises:
        KposeError: when shapes do not fit, a number is not finite, a prediction belongs to an image without people, or nobody is
            annotated.
    """
    if skeleton.oks_sigmas is None:
        raise KposeError(
            f"skeleton {skeleton.name!r} has no 'oks_sigmas', which similarity needs; add one number per joint to the skeleton"
        )
    prediction_images, ground_truth_images = np.asarray(prediction_images), np.asarray(ground_truth_images)
    found, truth, areas = _checked(predictions, prediction_images, ground_truth, ground_truth_images, boxes, skeleton)
    scales = 2.0 * (2.0 * np.array(skeleton.oks_sigmas)) ** 2
    total, best = 0, []
    for image in np.unique(ground_truth_images):
        people, results = np.flatnonzero(ground_truth_images == image), np.flatnonzero(prediction_images == image)
        total += max(len(people), len(results))
        if len(results):
            visible = truth[people, None, :, 2] == 2  # (n, 1, K)
            squares = ((truth[people, None, :, :2] - found[results]) ** 2).sum(axis=-1)  # (n, p, K)
            similarity = np.exp(-squares / scales / (areas[people, None, None] + 1.0)) * visible
            best.append((similarity.sum(axis=-1) / np.maximum(visible.sum(axis=-1), 1)).max(axis=1))
    similarities = np.concatenate(best) if best else np.zeros(0)
    precision = [float((similarities > threshold).sum() / total) for threshold in THRESHOLDS]
    return {"mAP": float(np.mean(precision)), "AP50": precision[0], "AP75": precision[5]}


def _checked(
    predictions: np.ndarray,
    prediction_images: np.ndarray,
    ground_truth: np.ndarray,
    ground_truth_images: np.ndarray,
    boxes: np.ndarray,
    skeleton: Skeleton,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, truth and areas of the boxes in float64."""
    joints, found, people = skeleton.num_joints, len(prediction_images), len(ground_truth_images)
    if not people:
        raise KposeError("no annotated person; nothing to compare with")
    arrays = {
        "predictions": (np.asarray(predictions, np.float64), (found, joints, 2)),
        "ground_truth": (np.asarray(ground_truth, np.float64), (people, joints, 3)),
        "boxes": (np.asarray(boxes, np.float64), (people, 4)),
    }
    for name, (array, expected) in arrays.items():
        if array.shape != expected:
            raise KposeError(f"{name} has shape {array.shape}, expected {expected} (the {joints} joints of skeleton {skeleton.name!r})")
        if not np.isfinite(array).all():
            raise KposeError(f"{name} holds NaN or infinity; leave such people out")
    unknown = ~np.isin(prediction_images, ground_truth_images)
    if unknown.any():
        raise KposeError(f"predictions: image {prediction_images[unknown][0]} has no annotated person; was it made for another set?")
    size = arrays["boxes"][0]
    return arrays["predictions"][0], arrays["ground_truth"][0], size[:, 2] * size[:, 3]
