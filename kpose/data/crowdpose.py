"""CrowdPose (Li et al., CVPR 2019): `crowdpose_*.json`, COCO's form with 14 joints and without areas."""

from __future__ import annotations

from pathlib import Path

from kpose.data.coco import Filter, read_coco
from kpose.data.entries import Span
from kpose.data.instances import Instances
from kpose.skeletons import CROWDPOSE_14

# The share of a box that the CrowdPose evaluation code takes for the person's area.
AREA_SHARE = 0.53


def read_crowdpose(
    annotations: str | Path,
    images: str | Path,
    detections: str | Path | None = None,
    minimum_box_score: float = 0.0,
    include: Filter | None = None,
    exclude: Filter | None = None,
    *,
    people: Span | None = None,
    partial: bool = False,
    for_training: bool,
    progress: bool = True,
) -> Instances:
    """Read annotated or detected people; see `read_coco` for the arguments and the errors.

    The file's `head` is the top of the head. Areas are 0.53 of the box, as the dataset's evaluation code has them.
    """
    return read_coco(
        annotations,
        images,
        CROWDPOSE_14,
        detections,
        minimum_box_score,
        include,
        exclude,
        people=people,
        joint_aliases={"head": "head_top"},
        box_area_share=AREA_SHARE,
        partial=partial,
        for_training=for_training,
        progress=progress,
    )
