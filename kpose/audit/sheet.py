"""The contact sheet of an audit: the worst people, with what is wrong with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kpose.audit.findings import AuditedSet, Finding
from kpose.data.crops import decode_whole
from kpose.geometry import crop_matrix, fit_box_to_aspect, transform_points
from kpose.visualize import add_caption, contact_sheet, draw_pose, mark_joints

_CELL = (300, 240)
_MARGIN = 1.3


def worst_people(findings: Sequence[Finding], count: int) -> list[list[Finding]]:
    """The findings of the worst people: of each kind in turn the worst, so that no kind crowds out the others.

    Returns:
        Up to `count` lists, each with all findings of one person, that which brought them here first.
    """
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    by_person: dict[tuple[str, int], list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.person is not None:
            by_kind[finding.kind].append(finding)
            by_person[finding.dataset, finding.person].append(finding)
    queues = [sorted(group, key=lambda finding: finding.measure) for group in by_kind.values()]
    chosen: dict[tuple[str, int], list[Finding]] = {}
    while queues and len(chosen) < count:
        for queue in queues:
            while queue:
                finding = queue.pop()
                assert finding.person is not None
                key = (finding.dataset, finding.person)
                if key not in chosen:
                    chosen[key] = [finding, *(other for other in by_person[key] if other is not finding)]
                    break
        queues = [queue for queue in queues if queue]
    return list(chosen.values())[:count]


def audit_sheet(sets: Sequence[AuditedSet], findings: Sequence[Finding], count: int = 24, progress: bool = True) -> np.ndarray | None:
    """Draw the worst people: the picture as it is, beside it the annotation with faulty joints ringed, beneath it what is wrong.

    Returns:
        `(height, width, 3)` uint8 RGB; None where no finding is about a person.
    """
    by_name = {audited.name: audited for audited in sets}
    people = worst_people(findings, count)
    bar = tqdm(people, desc="drawing the worst", unit="person", disable=not progress, leave=False)
    cells = [_cell(by_name[group[0].dataset], group, len(sets) > 1) for group in bar]
    return contact_sheet(cells, columns=4) if cells else None


def _cell(audited: AuditedSet, findings: Sequence[Finding], named: bool) -> np.ndarray:
    people, person = audited.people, findings[0].person
    assert person is not None
    keypoints = people.keypoints[person].astype(np.float64)
    joints = [people.skeleton.index(name) for finding in findings for name in finding.joints]
    try:
        picture = decode_whole(tf.io.read_file(people.image_files[people.image_index[person]])).numpy()
        unreadable: tuple[str, ...] = ()
    except tf.errors.OpError:
        picture = np.full((*_CELL, 3), 128, np.uint8)
        unreadable = ("the picture cannot be read",)
    # The box and the joints: what lies outside is what the sheet is to show, but not at any distance.
    box = people.boxes[person].astype(np.float64)
    seen = keypoints[keypoints[:, 2] > 0, :2]
    reach = 0.5 * box[2:].max()
    low = np.maximum(np.minimum(box[:2], seen.min(axis=0, initial=np.inf)), box[:2] - reach)
    high = np.minimum(np.maximum(box[:2] + box[2:], seen.max(axis=0, initial=-np.inf)), box[:2] + box[2:] + reach)
    centre, size = fit_box_to_aspect(np.concatenate([low, np.maximum(high - low, 4)]), _CELL, _MARGIN)
    matrix = np.asarray(crop_matrix(centre, size, _CELL), np.float64)
    # A large person is drawn down in steps, or thin lines of the picture would break up.
    crop = cv2.warpAffine(picture, matrix, _CELL[::-1], flags=cv2.INTER_AREA if matrix[0, 0] < 0.5 else cv2.INTER_LINEAR)
    placed = keypoints.copy()
    placed[:, :2] = transform_points(keypoints[:, :2], matrix)
    placed[:, 2] = np.where(keypoints[:, 2] > 1, 2, keypoints[:, 2] > 0)
    drawn = mark_joints(draw_pose(crop, placed, people.skeleton), placed[sorted(set(joints)), :2])
    head = f"{audited.name}: annotation {people.ids[person]}" if named else f"annotation {people.ids[person]}"
    return add_caption(np.concatenate([crop, drawn], axis=1), [head, *(finding.text for finding in findings[:4]), *unreadable])
