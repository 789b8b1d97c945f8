"""Which left and right joints have been mistaken for one another: a likelihood of whole assignments, learned from the dataset itself.

The points of a person are taken as given, their labels are not: which of two points is the left knee is an unknown. Assignments that
annotators produce by mistake are compared: one pair of joints exchanged, a part of the body that hangs together (both arms, both legs,
everything below the hips), the whole body. The probability of each follows in three steps.

1. Every person is turned and scaled upon the mean body by what no exchange alters: the middles of the pairs and the unpaired joints.
2. For each two joints the density of the offset between them is estimated on a grid; it holds the limb's length and its direction at
   once. Mirror images of people are people, so everybody counts twice. A person's own share is taken out of the density that judges
   them, and a small uniform part bounds what a single wild point can say.
3. What an alternative changes in the log-densities is added up with a weight per kind of offset. The weights are those that make the
   annotated assignments most probable among the alternatives (a conditional logit), so offsets that tell nothing about sides lose their
   say, those that repeat one another share it, and the sum comes out as a probability. There are two weights for each: offsets that an
   alternative mirrors tell from which side the person is seen, where one is often in doubt; those that it breaks, one end exchanged and
   the other not, tell whether the body fits together, which does not depend on that.

Whoever is suspected after the first round is left out of the densities of the next. Where both assignments are likely, as with legs seen
from the side, nobody is accused: such exchanges cannot be found without the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kpose.skeletons import Skeleton

# The share of people with exchanged sides is estimated, from this on and within these bounds.
PRIOR = 0.02
_PRIOR_BOUNDS = (0.002, 0.2)
# Fewer people than this cannot say what is usual.
MINIMUM_PEOPLE = 100
# Densities and weights are learned from no more people than this.
_PEOPLE_FOR_DENSITIES = 20_000
_PEOPLE_FOR_WEIGHTS = 5_000
_PEOPLE_AT_ONCE = 4096
_MOST_ALTERNATIVES = 160
_ROUNDS = 2
_BINS = 33
_UNIFORM_SHARE = 0.1
_LEAST_OFFSETS = 40
# Of the weights: where they begin, steps of Adam, the pull back to the beginning, and the share of annotations that may be anything.
_FIRST_WEIGHT = 0.2
_STEPS = 300
_BATCH = 256
_RATE = 0.05
_PENALTY = 3e-3
_DOUBTFUL_SHARE = 0.05
# After a quarter of the steps the least probable annotations, this share of them and only below this probability, teach nothing.
_TRIMMED_SHARE, _TRIMMED_BELOW = 0.03, 0.05


@dataclass(frozen=True, eq=False)
class SideVerdicts:
    """What is believed about the sides of N people with P pairs of joints.

    Attributes:
        probabilities: `(N,)` that some pair is exchanged; 0 where there is too little to judge by.
        pairs: `(N, P)` that this pair is.
        likeliest: `(N, P)` bool, the pairs that the most probable of the other assignments exchanges.
    """

    probabilities: np.ndarray
    pairs: np.ndarray
    likeliest: np.ndarray


def judge_sides(keypoints: np.ndarray, skeleton: Skeleton, seed: int = 0) -> SideVerdicts | None:
    """Judge left and right of every person by what is usual among all of them.

    Args:
        keypoints: `(N, K, 3)` x, y, visibility in the image frame.
        skeleton: its pairs are what can be exchanged, its limbs say which pairs hang together.
        seed: of the choice of people to learn the weights from.

    Returns:
        The verdicts; None where the skeleton has no pairs or there are fewer than `MINIMUM_PEOPLE` people to learn from.
    """
    people, pairs = len(keypoints), len(skeleton.left_right_pairs)
    points, usable = normalise(keypoints, skeleton)
    if not pairs or usable.sum() < MINIMUM_PEOPLE:
        return None
    present = (keypoints[..., 2] > 0) & usable[:, None]
    model = _SideModel(skeleton)
    judged = np.flatnonzero(usable)
    sample = np.random.default_rng(seed).permutation(judged)[:_PEOPLE_FOR_DENSITIES]
    known = np.zeros(people, bool)
    known[sample] = True
    for rounds_left in reversed(range(_ROUNDS)):
        model.learn_densities(points[known], present[known])
        chosen = sample[:_PEOPLE_FOR_WEIGHTS]
        model.learn_weights(points[chosen], present[chosen], known[chosen])
        model.learn_prior(points[chosen], present[chosen], known[chosen])
        if rounds_left:
            for part in _parts(sample):
                known[part] = model.posterior(points[part], present[part], known[part])[:, 0] > 0.5
    verdicts = SideVerdicts(np.zeros(people), np.zeros((people, pairs)), np.zeros((people, pairs), bool))
    for part in _parts(judged):
        posterior = model.posterior(points[part], present[part], known[part])
        others = posterior[:, 1:]
        # A pair that is not annotated cannot be exchanged.
        seen = present[part][:, model.pairs].any(axis=2)
        verdicts.probabilities[part] = others.sum(axis=1)
        verdicts.pairs[part] = (posterior @ model.alternatives) * seen
        verdicts.likeliest[part] = model.alternatives[1 + others.argmax(axis=1)] & seen
    return verdicts


def _parts(chosen: np.ndarray) -> list[np.ndarray]:
    return [chosen[start : start + _PEOPLE_AT_ONCE] for start in range(0, len(chosen), _PEOPLE_AT_ONCE)]


def normalise(keypoints: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Turn and scale people upon their mean body, by a measure that exchanging left and right does not alter.

    The landmarks are the middles of pairs and the unpaired joints; the mean body has them on one vertical line, for a body and its mirror
    image count alike. Landmarks weigh as much as they are steady (a generalised Procrustes alignment).

    Args:
        keypoints: `(N, K, 3)` x, y, visibility in the image frame.
        skeleton: the joints.

    Returns:
        `(N, K)` complex128 x + iy, 1 the spread of the mean body; and `(N,)` bool where at least two landmarks allowed it.
    """
    present = keypoints[..., 2] > 0
    joints = np.where(present, keypoints[..., 0] + 1j * keypoints[..., 1].astype(np.float64), 0)
    members = _landmark_members(skeleton)
    seen = present.astype(np.float64) @ members.T
    landmarks = (joints @ members.T) / np.maximum(seen, 1)
    weights = seen / members.sum(axis=1)  # one of two joints is but half of a middle
    known = seen > 0
    complete = known.sum(axis=1) >= max(2, np.quantile(known.sum(axis=1), 0.9)) if len(known) else np.zeros(0, bool)
    usable = known.sum(axis=1) >= 2
    if not complete.any():
        return joints, np.zeros(len(joints), bool)
    heights = _first_heights(landmarks[complete], weights[complete])
    steadiness = np.ones(len(members))
    sample = np.flatnonzero(usable)[:20000]
    for _ in range(6):
        turned, _, _ = _align(landmarks[sample], weights[sample] * steadiness, heights)
        columns = [turned[known[sample, m], m] for m in range(len(members))]
        heights = np.array([np.median(column.imag) if len(column) else h for column, h in zip(columns, heights, strict=True)])
        spread = [np.median(np.abs(column - 1j * h)) if len(column) else np.inf for column, h in zip(columns, heights, strict=True)]
        steadiness = 1 / (0.1 + np.array(spread)) ** 2
        total = steadiness / steadiness.sum()
        heights = heights - (total * heights).sum()
        heights = heights / np.sqrt((total * heights**2).sum())
    _, matrix, sizes = _align(landmarks, weights * steadiness, heights)
    usable &= sizes > 1e-6
    centre, factor = matrix
    return np.where(present, (joints - centre[:, None]) * factor[:, None], 0), usable


def _landmark_members(skeleton: Skeleton) -> np.ndarray:
    paired = {joint for pair in skeleton.left_right_pairs for joint in pair}
    groups = [*skeleton.left_right_pairs, *((joint,) for joint in skeleton.joint_names if joint not in paired)]
    members = np.zeros((len(groups), skeleton.num_joints))
    for row, group in zip(members, groups, strict=True):
        row[list(skeleton.indices(group))] = 1
    return members


def _first_heights(landmarks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Most people stand upright in their picture."""
    share = weights / weights.sum(axis=1, keepdims=True)
    centred = landmarks - (share * landmarks).sum(axis=1, keepdims=True)
    size = np.sqrt((share * np.abs(centred) ** 2).sum(axis=1, keepdims=True))
    heights = np.zeros(landmarks.shape[1])
    for m in range(len(heights)):
        there = (weights[:, m] > 0) & (size[:, 0] > 0)
        if there.any():
            heights[m] = np.median(centred[there, m].imag / size[there, 0])
    return heights


def _align(landmarks: np.ndarray, weights: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Landmarks upon the mean body, the map that did it (centre of rotation, complex factor), and the people's sizes."""
    total = np.maximum(weights.sum(axis=1), 1e-12)
    share = weights / total[:, None]
    centre = (share * landmarks).sum(axis=1)
    middle = (share * heights).sum(axis=1)
    offset, target = landmarks - centre[:, None], heights - middle[:, None]
    inner = (share * np.conj(offset) * 1j * target).sum(axis=1)
    extent = np.sqrt((share * target**2).sum(axis=1))
    size = np.sqrt((share * np.abs(offset) ** 2).sum(axis=1)) / np.maximum(extent, 1e-6)
    size = np.where(extent > 1e-3, size, 0)
    factor = np.where(size > 0, np.exp(1j * np.angle(inner)) / np.maximum(size, 1e-12), 0)
    # The whole person is moved so that the landmarks they have lie where the mean body has these.
    moved = centre - 1j * middle / np.where(factor == 0, 1, factor)
    return (landmarks - moved[:, None]) * factor[:, None], (moved, factor), size


class _SideModel:
    """Densities of the offsets between joints, and the weights that add them up.

    Of an offset and its mirror image (left hip to left knee, right hip to right knee) one is the kind, the other is turned into it.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self.flip = skeleton.flip_permutation.astype(np.int64)
        self.pairs = np.array([skeleton.indices(pair) for pair in skeleton.left_right_pairs])
        self.alternatives = _alternatives(skeleton)
        pair_of = np.full(skeleton.num_joints, -1)
        for number, pair in enumerate(self.pairs):
            pair_of[pair] = number
        first, second = np.triu_indices(skeleton.num_joints, 1)
        # Offsets between unpaired joints are the same in every assignment.
        told = (pair_of[first] >= 0) | (pair_of[second] >= 0)
        self.first, self.second = first[told], second[told]
        self.kinds = np.zeros(len(self.first), np.int64)
        self.mirrored, self.reversed = np.zeros(len(self.first), bool), np.zeros(len(self.first), bool)
        self.self_mirrored: list[str] = []  # by kind: "" or what the mirror image of an offset does to it
        kinds: dict[tuple[int, int], int] = {}
        for edge, (a, b) in enumerate(zip(self.first.tolist(), self.second.tolist(), strict=True)):
            c, d = int(self.flip[a]), int(self.flip[b])
            twin = (min(c, d), max(c, d))
            if twin in kinds and twin != (a, b):
                self.kinds[edge], self.mirrored[edge], self.reversed[edge] = kinds[twin], True, c > d
                continue
            self.kinds[edge] = kinds[a, b] = len(kinds)
            self.self_mirrored.append("" if twin != (a, b) else "reversed" if c > d else "same")
        # In an alternative, an edge has both ends as annotated (0), one end exchanged (1, 2) or both (3): `(E, 4, H)`.
        padded = np.concatenate([self.alternatives, np.zeros((len(self.alternatives), 1), bool)], axis=1)
        code = padded[:, pair_of[self.first]] + 2 * padded[:, pair_of[self.second]]
        self.holds = (code.T[:, None, :] == np.arange(4)[:, None]).astype(np.float32)
        unpaired = (pair_of[self.first] < 0) | (pair_of[self.second] < 0)
        self.breaks = (code.T[:, None, :] % 3 != 0) & ~unpaired[:, None, None] & (self.holds > 0)
        self.weights = np.full(2 * len(self.self_mirrored), _FIRST_WEIGHT, np.float32)  # of mirrored offsets, then of broken ones
        self.prior = PRIOR

    def _offsets(self, points: np.ndarray, present: np.ndarray, edge: int, code: int) -> tuple[np.ndarray, np.ndarray]:
        """The offset of its kind, and whether both ends are there."""
        a, b = self.first[edge], self.second[edge]
        a, b = self.flip[a] if code & 1 else a, self.flip[b] if code & 2 else b
        offset = points[:, b] - points[:, a]
        if self.reversed[edge]:
            offset = -offset
        return -np.conj(offset) if self.mirrored[edge] else offset, present[:, a] & present[:, b]

    def learn_densities(self, points: np.ndarray, present: np.ndarray) -> None:
        kinds = len(self.self_mirrored)
        self.centres, self.widths = np.zeros(kinds, complex), np.ones(kinds)
        self.tables, self.totals, self.own = np.zeros((kinds, _BINS * _BINS)), np.zeros(kinds), np.zeros(kinds)
        for kind, mirror in enumerate(self.self_mirrored):
            samples = []
            for edge in np.flatnonzero(self.kinds == kind).tolist():
                offset, there = self._offsets(points, present, edge, 0)
                samples.append(offset[there])
            if mirror:
                # From left to right shoulder, the mirror image keeps the direction across; from nose to neck it turns it round.
                samples.append(np.conj(samples[0]) if mirror == "reversed" else -np.conj(samples[0]))
            values = np.concatenate(samples)
            if len(values) < _LEAST_OFFSETS:
                continue  # tells nothing
            centre = np.median(values.real) + 1j * np.median(values.imag)
            distance = np.maximum(np.abs((values - centre).real), np.abs((values - centre).imag))
            width = 2 * (1.3 * np.quantile(distance, 0.98) + 1e-6) / _BINS
            # Silverman's rule for two dimensions; 1.1774 is the median distance of a normal distribution in the plane.
            bandwidth = max(0.7, np.median(np.abs(values - centre)) / 1.1774 * len(values) ** (-1 / 6) / width)
            self.centres[kind], self.widths[kind], self.totals[kind] = centre, width, len(values)
            grid = np.bincount(self._bins(values, kind), minlength=_BINS * _BINS).astype(np.float64).reshape(_BINS, _BINS)
            size = 2 * int(np.ceil(3 * bandwidth)) + 1
            self.tables[kind] = cv2.GaussianBlur(grid, (size, size), bandwidth, borderType=cv2.BORDER_REFLECT).ravel()
            self.own[kind] = cv2.getGaussianKernel(size, bandwidth)[size // 2, 0] ** 2

    def _bins(self, offsets: np.ndarray, kind: int) -> np.ndarray:
        placed = (offsets - self.centres[kind]) / self.widths[kind] + (1 + 1j) * _BINS / 2
        column = np.clip(placed.real, 0, _BINS - 1).astype(np.int64)
        row = np.clip(placed.imag, 0, _BINS - 1).astype(np.int64)
        return row * _BINS + column

    def _log_densities(self, points: np.ndarray, present: np.ndarray, known: np.ndarray) -> np.ndarray:
        """`(n, E, 4)` float32, 0 where an end is missing; `known` `(n,)` says who is part of the densities."""
        found = np.zeros((len(points), len(self.first), 4), np.float32)
        for edge, kind in enumerate(self.kinds.tolist()):
            if not self.totals[kind]:
                continue
            for code in range(4):
                if not self.holds[edge, code].any():
                    continue
                offset, there = self._offsets(points, present, edge, code)
                count, total = self.tables[kind][self._bins(offset, kind)], self.totals[kind]
                if code == 0:
                    count, total = np.maximum(count - self.own[kind] * known, 0), total - known
                density = (1 - _UNIFORM_SHARE) * count / total + _UNIFORM_SHARE / _BINS**2
                found[:, edge, code] = np.log(density / self.widths[kind] ** 2) * there
        return found

    def _allowed(self, present: np.ndarray) -> np.ndarray:
        """`(n, H)`: of alternatives that differ in pairs which a person lacks, only the first counts."""
        seen = present[:, self.pairs].any(axis=2)
        patterns, which = np.unique(seen, axis=0, return_inverse=True)
        result = np.zeros((len(patterns), len(self.alternatives)), bool)
        for row, pattern in zip(result, patterns, strict=True):
            row[np.unique(self.alternatives & pattern, axis=0, return_index=True)[1]] = True
        return result[which.ravel()]

    def _changes(self) -> tuple[np.ndarray, np.ndarray]:
        """`(E, 4, H)` each: what to add up for the log-density that an alternative gains by mirroring an offset, and by breaking it."""
        as_annotated = np.zeros_like(self.holds)
        as_annotated[:, 0] = 1
        broken = self.breaks.any(axis=1, keepdims=True)
        change = self.holds - as_annotated
        return change * ~broken, change * broken

    def learn_weights(self, points: np.ndarray, present: np.ndarray, known: np.ndarray) -> None:
        densities = self._log_densities(points, present, known)
        features = np.zeros((len(points), len(self.alternatives), len(self.weights)), np.float32)
        mirrors, breaks = self._changes()
        for kind in range(len(self.self_mirrored)):
            edges = self.kinds == kind
            changes = densities[:, edges].reshape(len(points), -1)
            features[..., kind] = changes @ mirrors[edges].reshape(-1, len(self.alternatives))
            features[..., kind + len(self.self_mirrored)] = changes @ breaks[edges].reshape(-1, len(self.alternatives))
        allowed = self._allowed(present)
        barred, count = np.where(allowed, 0, -np.inf).astype(np.float32), allowed.sum(axis=1)
        weights = np.full_like(self.weights, _FIRST_WEIGHT)
        moment, square = np.zeros_like(weights), np.zeros_like(weights)
        for step in range(1, _STEPS + 1):
            batch = np.arange(step * _BATCH, (step + 1) * _BATCH) % len(points)  # people come in random order
            flat = features[batch].reshape(-1, len(weights))
            share = _softmax((flat @ weights).reshape(_BATCH, -1) + barred[batch])
            # An annotation that stays improbable is taken for one of the mistakes, and nothing is learned from it: without this a few
            # mistakes would pull all weights towards 0.
            right = (1 - _DOUBTFUL_SHARE) * share[:, 0]
            trust = right / (right + _DOUBTFUL_SHARE / count[batch])
            if step > _STEPS // 4:
                trust = trust * (share[:, 0] > min(_TRIMMED_BELOW, np.quantile(share[:, 0], _TRIMMED_SHARE)))
            gradient = (share * trust[:, None]).ravel() @ flat / _BATCH + _PENALTY * (weights - _FIRST_WEIGHT)
            moment, square = 0.9 * moment + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
            rate = _RATE * (1 - step / (_STEPS + 1))
            weights = weights - rate * (moment / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
            # A body that fits together better is never less likely.
            weights[len(weights) // 2 :] = np.maximum(weights[len(weights) // 2 :], 0)
        self.weights = weights.astype(np.float32)

    def learn_prior(self, points: np.ndarray, present: np.ndarray, known: np.ndarray) -> None:
        """The share of exchanged people under which these are most probable (expectation maximisation)."""
        self.prior = PRIOR
        odds = 1 / np.maximum(self.posterior(points, present, known)[:, 0], 1e-300) - 1
        likelihood_ratios = odds * (1 - PRIOR) / PRIOR
        for _ in range(50):
            expected = float(np.mean(self.prior * likelihood_ratios / (self.prior * likelihood_ratios + 1 - self.prior)))
            self.prior = float(np.clip(expected, *_PRIOR_BOUNDS))

    def posterior(self, points: np.ndarray, present: np.ndarray, known: np.ndarray) -> np.ndarray:
        """`(n, H)` float64, the probability of each alternative; rows sum to 1."""
        mirrors, breaks = self._changes()
        mirrored, broken = np.split(self.weights, 2)
        weighted = mirrors * mirrored[self.kinds][:, None, None] + breaks * broken[self.kinds][:, None, None]
        densities = self._log_densities(points, present, known)
        scores = (densities.reshape(len(points), -1) @ weighted.reshape(-1, len(self.alternatives))).astype(np.float64)
        allowed = self._allowed(present)
        scores[:, 1:] += np.log(self.prior / np.maximum(allowed[:, 1:].sum(axis=1, keepdims=True), 1))
        scores[:, 0] += np.log(1 - self.prior)
        return _softmax(np.where(allowed, scores, -np.inf))


def _softmax(scores: np.ndarray) -> np.ndarray:
    share = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(share / share.sum(axis=1, keepdims=True))


def _alternatives(skeleton: Skeleton) -> np.ndarray:
    """`(H, P)` bool, which pairs are exchanged: first none, then each connected part of the body, then all."""
    pairs = [set(skeleton.indices(pair)) for pair in skeleton.left_right_pairs]
    neighbours: dict[int, set[int]] = {joint: set() for joint in range(skeleton.num_joints)}
    for a, b in skeleton.limb_indices:
        neighbours[a].add(b)
        neighbours[b].add(a)
    pair_of = {joint: number for number, pair in enumerate(pairs) for joint in pair}
    adjacent: list[set[int]] = []
    for pair in pairs:
        # Pairs hang together over unpaired joints too: shoulders over the neck.
        found, seen, todo = set(), set(pair), list(pair)
        while todo:
            for joint in neighbours[todo.pop()] - seen:
                seen.add(joint)
                if joint in pair_of:
                    found.add(pair_of[joint])
                else:
                    todo.append(joint)
        adjacent.append(found)
    parts: dict[frozenset[int], None] = {frozenset([number]): None for number in range(len(pairs))}
    queue = list(parts)
    while queue and len(parts) < _MOST_ALTERNATIVES:
        part = queue.pop(0)
        for number in sorted(set().union(*(adjacent[member] for member in part)) - part):
            larger = part | {number}
            if larger not in parts:
                parts[larger] = None
                queue.append(larger)
    parts[frozenset(range(len(pairs)))] = None
    alternatives = np.zeros((1 + len(parts), len(pairs)), bool)
    for row, part in zip(alternatives[1:], parts, strict=True):
        row[list(part)] = True
    return alternatives
