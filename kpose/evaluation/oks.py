"""Object keypoint similarity of whole datasets at once: pycocotools' keypoint evaluation without its loops over people.

pycocotools compares every result with every person, and matches them for every threshold and area range, in Python loops. Here both are
array operations over many images; every number is made by the same operations in the same order, so that the outcome is equal to the last
digit. What follows the matching, precision, recall and their means, is pycocotools' own code.
"""

from __future__ import annotations

import contextlib
import copy
import io
from dataclasses import dataclass

import numpy as np
from pycocotools.cocoeval import COCOeval

# So many images are matched together: enough to make Python's share small, few enough for the arrays to stay in the processor's cache.
_IMAGES_AT_ONCE = 64
# And so many pairs of a result and a person are compared together.
_PAIRS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class AnnotatedPeople:
    """The N people to be found, in the image frame.

    Attributes:
        image_ids: `(N,)` the dataset's numbers of the images.
        keypoints: `(N, K, 3)` x, y, visibility; joints of visibility 0 are not compared.
        boxes: `(N, 4)` x, y, width, height; what is found near somebody without keypoints is compared with the box.
        areas: `(N,)` square pixels, the scale of the similarity.
        ignored: `(N,)` bool, whether finding them or not makes no difference: crowds, and people without keypoints.
        crowds: `(N,)` bool, whether several results may be matched with them.
    """

    image_ids: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    ignored: np.ndarray
    crowds: np.ndarray


@dataclass(frozen=True)
class FoundPeople:
    """The P results, in the image frame.

    Attributes:
        image_ids: `(P,)` the dataset's numbers of the images.
        keypoints: `(P, K, 2)` x, y.
        scores: `(P,)` the order in which they are matched.
    """

    image_ids: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray

    @property
    def areas(self) -> np.ndarray:
        """`(P,)` square pixels of the keypoints' bounding boxes, as pycocotools takes them."""
        if not self.keypoints.size:
            return np.zeros(len(self.keypoints))
        extent = self.keypoints.max(axis=1) - self.keypoints.min(axis=1)
        return extent[:, 0] * extent[:, 1]


class OksEvaluation(COCOeval):
    """pycocotools' `COCOeval` of keypoints for one category, with a matching that is fast.

    `run` does what `evaluate`, `accumulate` and `summarize` do, in silence; the figures are in `stats` and `eval` as there.

    Args:
        truth: whom to find.
        found: the results.
        sigmas: `(K,)`, `Skeleton.oks_sigmas`.
        image_ids: the images that take part.
    """

    def __init__(self, truth: AnnotatedPeople, found: FoundPeople, sigmas: np.ndarray, image_ids: np.ndarray) -> None:
        super().__init__(iouType="keypoints")
        self.truth, self.found = truth, found
        self.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        self.params.imgIds = np.unique(image_ids).tolist()
        self.params.catIds = [1]

    def run(self) -> np.ndarray:
        """The ten figures of `COCOeval.summarize`, -1 where there is nobody to find."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluate()
            self.accumulate()
            self.summarize()
        return self.stats

    def evaluate(self) -> None:
        """Match results and people: per image and area range what `accumulate` needs."""
        images = np.array(self.params.imgIds, np.int64)
        truth, people = _grouped(self.truth.image_ids, np.zeros(len(self.truth.image_ids)), images, None)
        found, results = _grouped(self.found.image_ids, -self.found.scores, images, self.params.maxDets[-1])
        lowest, highest = np.array(self.params.areaRng, np.float64).T[..., None]  # (A, 1) each
        areas = self.truth.areas[truth]
        ignored = self.truth.ignored[truth] | (areas < lowest) | (areas > highest)
        matched, matched_ignored = self._match(truth, people, ignored, found, results)
        # Results of another size that nobody was found for are no mistakes.
        areas = self.found.areas[found]
        ignored_results = matched_ignored | (~matched & ((areas < lowest) | (areas > highest))[:, None])
        scores = self.found.scores[found]
        self.evalImgs = [
            {
                "dtScores": scores[results[i] : results[i + 1]],
                "dtMatches": matched[a, :, results[i] : results[i + 1]],
                "dtIgnore": ignored_results[a, :, results[i] : results[i + 1]],
                "gtIgnore": ignored[a, people[i] : people[i + 1]],
            }
            for a in range(len(lowest))
            for i in range(len(images))
        ]
        self._paramsEval = copy.deepcopy(self.params)

    def _match(
        self, truth: np.ndarray, people: np.ndarray, ignored: np.ndarray, found: np.ndarray, results: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Greedy matching, the best results first.

        Args:
            truth: `(N,)` positions of the people, image by image.
            people: `(I + 1,)` where in `truth` each image begins.
            ignored: `(A, N)` of `truth`, per area range.
            found: `(P,)` positions of the results, image by image, the best first.
            results: `(I + 1,)` where in `found` each image begins.

        Returns:
            `(A, T, P)` bool each, per area range and threshold: whether a result is matched, and whether with somebody ignored.
        """
        # COCOeval lets a perfect match pass at any threshold.
        thresholds = np.minimum(self.params.iouThrs, 1 - 1e-10)[:, None, None]
        matched = np.zeros((len(ignored), len(thresholds), len(found)), bool)
        matched_ignored = np.zeros_like(matched)
        num_people, num_results = np.diff(people), np.diff(results)
        # Images with equally many people side by side leave little of the dense arrays empty.
        order = np.argsort(num_people, kind="stable")
        order = order[(num_people[order] > 0) & (num_results[order] > 0)]
        for start in range(0, len(order), _IMAGES_AT_ONCE):
            block = order[start : start + _IMAGES_AT_ONCE]
            rows, columns = num_results[block].max(), num_people[block].max()
            person = people[block, None] + np.arange(columns)  # (I, G)
            exists = np.arange(columns) < num_people[block, None]
            person = np.where(exists, person, 0)
            result = results[block, None] + np.arange(rows)  # (I, D)
            is_result = np.arange(rows) < num_results[block, None]
            result = np.where(is_result, result, 0)
            similarity = np.full((len(block), rows, columns), -1.0)
            pairs = is_result[:, :, None] & exists[:, None]
            similarity[pairs] = self._similarity(
                truth[np.broadcast_to(person[:, None], pairs.shape)[pairs]], found[np.broadcast_to(result[:, :, None], pairs.shape)[pairs]]
            )
            crowds = self.truth.crowds[truth[person]]
            ignored_here = ignored[:, None, person]  # (A, 1, I, G)
            free = np.ones((len(ignored), len(thresholds), len(block), columns), bool)
            for rank in range(rows):
                candidates = similarity[:, rank]
                eligible = (free | crowds) & (candidates >= thresholds)
                counted = eligible & ~ignored_here
                # Somebody who counts goes before everybody who is ignored.
                chosen = np.where(counted.any(axis=-1, keepdims=True), counted, eligible)
                # The most similar one; of equals the last, as COCOeval takes it.
                best = columns - 1 - np.where(chosen, candidates, -1.0)[..., ::-1].argmax(axis=-1)
                match = chosen.any(axis=-1)  # (A, T, I)
                area, threshold, image = np.nonzero(match)
                who = best[area, threshold, image]
                free[area, threshold, image, who] = False
                where = result[image, rank]
                matched[area, threshold, where] = True
                matched_ignored[area, threshold, where] = ignored_here[area, 0, image, who]
        return matched, matched_ignored

    def _similarity(self, people: np.ndarray, results: np.ndarray) -> np.ndarray:
        """Object keypoint similarity of pairs: `people` and `results` are `(M,)` positions. Returns `(M,)`."""
        variances = (self.params.kpt_oks_sigmas * 2) ** 2
        visible = self.truth.keypoints[..., 2] > 0
        count = visible.sum(axis=1)
        visible_first = np.argsort(~visible, axis=1, kind="stable")
        similarity = np.zeros(len(people))
        # Rows of equal length: a sum over padding would be another sum in the last digit.
        for joints in np.unique(count[people]):
            same = np.flatnonzero(count[people] == joints)
            for start in range(0, len(same), _PAIRS_AT_ONCE):
                pairs = same[start : start + _PAIRS_AT_ONCE]
                person, result = people[pairs], self.found.keypoints[results[pairs]]
                if joints:
                    which = visible_first[person, :joints]
                    difference = np.take_along_axis(result, which[..., None], axis=1)
                    difference -= np.take_along_axis(self.truth.keypoints[person, :, :2], which[..., None], axis=1)
                    scales = variances[which]
                else:
                    # Somebody without keypoints: how far outside of the doubled box.
                    corner, size = self.truth.boxes[person, None, :2], self.truth.boxes[person, None, 2:]
                    difference = np.maximum(0, corner - size - result) + np.maximum(0, result - (corner + size * 2))
                    scales = variances
                squares = difference[..., 0] ** 2 + difference[..., 1] ** 2
                exponent = squares / scales / (self.truth.areas[person] + np.spacing(1))[:, None] / 2
                similarity[pairs] = np.exp(-exponent).sum(axis=1) / exponent.shape[1]
        return similarity


def _grouped(image_ids: np.ndarray, keys: np.ndarray, images: np.ndarray, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Entries image by image.

    Args:
        image_ids: `(N,)` of the entries.
        keys: `(N,)` the order inside of an image; of equals the first comes first.
        images: `(I,)` the images to keep, ascending.
        limit: so many of an image at most.

    Returns:
        Positions of the kept entries, and `(I + 1,)` where among them each image begins.
    """
    position = np.minimum(np.searchsorted(images, image_ids), len(images) - 1)
    order = np.lexsort((keys, position))
    order = order[images[position[order]] == image_ids[order]]
    if limit is not None:
        rank = np.arange(len(order)) - np.searchsorted(position[order], position[order])
        order = order[rank < limit]
    return order, np.searchsorted(position[order], np.arange(len(images) + 1))
