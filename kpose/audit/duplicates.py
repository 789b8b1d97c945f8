"""The same thing twice: people in a picture, ids, pictures in a set, pictures in training and in validation."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from kpose.audit.findings import AuditedSet, Finding, about_person
from kpose.data.instances import Instances
from kpose.geometry import box_overlap

# Two annotations are of one person when their boxes overlap by so much and their joints are so similar.
BOX_OVERLAP = 0.7
SIMILARITY = 0.8
# Object keypoint similarity of skeletons without sigmas: about the mean of COCO's.
_USUAL_SIGMA = 0.07
_CHUNK = 1 << 20


def pairs_within_pictures(people: Instances) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of people in the same picture, as two arrays of positions at a time."""
    order = np.argsort(people.image_index, kind="stable")
    images = people.image_index[order]
    apart = 1
    while apart < len(order):
        together = np.flatnonzero(images[apart:] == images[:-apart])
        if not len(together):
            return  # whoever stands further apart in the order is in another picture
        yield order[together], order[together + apart]
        apart += 1


def similarity(people: Instances, first: np.ndarray, others: Instances, second: np.ndarray) -> np.ndarray:
    """Object keypoint similarity of annotated people over the joints that both have; 0 where they share fewer than two."""
    a, b = people.keypoints[first].astype(np.float64), others.keypoints[second].astype(np.float64)
    both = (a[..., 2] > 0) & (b[..., 2] > 0)
    sigmas = people.skeleton.oks_sigmas
    variances = (2 * np.array(sigmas if sigmas is not None else [_USUAL_SIGMA] * people.skeleton.num_joints)) ** 2
    area = (people.areas[first].astype(np.float64) + others.areas[second]) / 2
    exponent = ((a - b)[..., :2] ** 2).sum(axis=-1) / variances / np.maximum(area, 1e-9)[:, None] / 2
    count = both.sum(axis=1)
    return np.where(count >= 2, (np.exp(-exponent) * both).sum(axis=1) / np.maximum(count, 1), 0)


def doubled_people(people: Instances) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of annotations of one person in one picture: positions `(D,)` of both, and their similarity `(D,)`."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    for first, second in pairs_within_pictures(people):
        near = box_overlap(people.boxes[first], people.boxes[second]) >= BOX_OVERLAP
        first, second = first[near], second[near]
        alike = similarity(people, first, people, second)
        found.append((first[alike >= SIMILARITY], second[alike >= SIMILARITY], alike[alike >= SIMILARITY]))
    first, second, alike = (np.concatenate(column) for column in zip(*found, strict=True))
    return first, second, alike


def check_people(audited: AuditedSet) -> list[Finding]:
    """People annotated twice, and annotation ids given twice."""
    people = audited.people
    findings = [
        about_person(
            audited, "duplicate_person", a, (), alike, f"also annotation {people.ids[b]} in this picture: similarity (OKS) {alike:.2f}"
        )
        for a, b, alike in zip(*doubled_people(people), strict=True)
    ]
    values, counts = np.unique(people.ids, return_counts=True)
    doubled = np.isin(people.ids, values[counts > 1])
    for person in np.flatnonzero(doubled).tolist():
        count = int(counts[np.searchsorted(values, people.ids[person])])
        findings.append(about_person(audited, "duplicate_id", person, (), count, f"id {people.ids[person]} is given {count} times"))
    return findings


def check_pictures(sets: Sequence[AuditedSet], progress: bool = True) -> list[Finding]:
    """Pictures of equal content within a set, and in training and validation sets; only those with people count.

    Files of a size that no other has are not even opened, so that most of a large set costs one look into its folder. Pictures that were
    encoded anew or resized are not recognised. Files that cannot be read are taken to be different.
    """
    listed = [
        (number, people.image_files[image])
        for number, people in ((number, audited.people) for number, audited in enumerate(sets))
        for image in np.unique(people.image_index).tolist()
    ]
    keys = _content_keys(sorted({file for _, file in listed}), progress)
    groups: dict[object, list[tuple[int, str]]] = defaultdict(list)
    for number, file in listed:
        groups[keys[file]].append((number, file))
    findings = []
    for group in groups.values():
        if len(group) < 2:
            continue
        roles = {sets[number].validation for number, _ in group}
        training = next((member for member in group if not sets[member[0]].validation), None)
        seen: set[int] = set()
        for number, file in group:
            audited = sets[number]
            if len(roles) == 2 and audited.validation and training is not None:
                text = f"also in the training set {sets[training[0]].name}: {os.path.basename(training[1])}"
                findings.append(Finding("leak", audited.name, len(group), text, image=file))
            elif number in seen:
                other = next(name for other, name in group if other == number)
                text = f"the same picture as {os.path.basename(other)}" if other != file else "the same file under two image ids"
                findings.append(Finding("repeated_picture", audited.name, len(group), text, image=file))
            seen.add(number)
    return findings


def _content_keys(files: list[str], progress: bool) -> dict[str, object]:
    """Of each file something that is equal for equal content."""
    sizes: dict[int, list[str]] = defaultdict(list)
    keys: dict[str, object] = {}
    for file in tqdm(files, desc="sizes of pictures", unit="file", disable=not progress or len(files) < 20000, leave=False):
        try:
            sizes[os.stat(file).st_size].append(file)
        except OSError:
            keys[file] = file
    doubtful = [file for group in sizes.values() if len(group) > 1 for file in group]
    keys |= {file: file for group in sizes.values() if len(group) == 1 for file in group}
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(_digest, doubtful)
        bar = tqdm(hashes, total=len(doubtful), desc="content of pictures", unit="file", disable=not progress, leave=False)
        keys |= dict(zip(doubtful, bar, strict=True))
    return keys


def _digest(file: str) -> object:
    digest = hashlib.blake2b(digest_size=20)
    try:
        with open(file, "rb") as content:
            while block := content.read(_CHUNK):
                digest.update(block)
    except OSError:
        return file
    return digest.digest()
