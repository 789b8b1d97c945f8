"""One way to every dataset: an entry of the configuration in, people out."""

from __future__ import annotations

from typing import Any

from kpose.config import DatasetConfig
from kpose.data.aic import read_aic
from kpose.data.coco import read_coco
from kpose.data.crowdpose import read_crowdpose
from kpose.data.instances import Instances
from kpose.data.lsp import read_lsp, read_lspet
from kpose.data.mpii import read_mpii
from kpose.errors import KposeError
from kpose.skeletons import AIC_14, CROWDPOSE_14, LSP_14, MPII_16, Skeleton, get_skeleton

# The joints of a format; those of COCO's form are whatever its file annotates.
FORMAT_SKELETONS = {"mpii": MPII_16, "lsp": LSP_14, "lspet": LSP_14, "aic": AIC_14, "crowdpose": CROWDPOSE_14}

# Settings that mean nothing to the other formats.
_ONLY = {
    "head_boxes": ("mpii",),
    "records": ("tfrecord",),
    "damaged_records": ("tfrecord",),
    "detections": ("coco", "crowdpose"),
    "minimum_box_score": ("coco", "crowdpose"),
    "include": ("coco", "crowdpose"),
    "exclude": ("coco", "crowdpose"),
}


def dataset_skeleton(dataset: DatasetConfig, skeleton: Skeleton) -> Skeleton:
    """The joints that a dataset is annotated with.

    Args:
        dataset: its entry in the configuration.
        skeleton: the experiment's, for datasets of formats `coco` and `tfrecord` that do not name their own.

    Raises:
        KposeError: when there is no such skeleton, or the format has other joints.
    """
    own = FORMAT_SKELETONS.get(dataset.format)
    if dataset.skeleton is None:
        return own or skeleton
    named = get_skeleton(dataset.skeleton)
    if own is not None and named.joint_names != own.joint_names:
        raise KposeError(
            f"datasets of format {dataset.format!r} are annotated with the joints of {own.name!r}, not of {named.name!r}; leave out their "
            "'skeleton', and give joints another name with 'rename'"
        )
    return named


def read_dataset(
    dataset: DatasetConfig, skeleton: Skeleton, for_training: bool, progress: bool = True, *, partial: bool = False
) -> Instances:
    """The people of one entry of `data.train` or of `data.validation`, in the dataset's own skeleton.

    Args:
        dataset: what to read.
        skeleton: the experiment's; it is that of a dataset of format `coco` that does not name its own.
        for_training: whether detections are refused.
        progress: show a progress bar on large files.
        partial: leave out people whose picture is missing instead of refusing the dataset.

    Raises:
        KposeError: see the readers; also when a path is not given, a setting does not apply to the format, or nobody is left.
    """
    form = dataset.format
    if form == "tfrecord":
        raise KposeError("a dataset of format 'tfrecord' has no annotation of people to read; give the datasets that it was written from")
    for key, formats in _ONLY.items():
        if form not in formats and getattr(dataset, key) != DatasetConfig.model_fields[key].default:
            raise KposeError(f"{key!r} does not apply to datasets of format {form!r} (to {' and '.join(formats)} alone); remove it")
    for key in ("annotations", "images"):
        if getattr(dataset, key) is None:
            raise KposeError(f"a dataset of format {form!r} needs {key!r}; set it in the configuration's data section")
    assert dataset.annotations is not None and dataset.images is not None
    paths = dataset.annotations, dataset.images
    own = dataset_skeleton(dataset, skeleton)
    choice: dict[str, Any] = {"people": dataset.people, "partial": partial}
    options = {**choice, "for_training": for_training, "progress": progress}
    detected = options | {key: getattr(dataset, key) for key in ("detections", "minimum_box_score", "include", "exclude")}
    match form:
        case "mpii":
            instances = read_mpii(*paths, dataset.head_boxes, **options)
        case "lsp":
            instances = read_lsp(*paths, **choice)
        case "lspet":
            instances = read_lspet(*paths, **choice)
        case "aic":
            instances = read_aic(*paths, **options)
        case "crowdpose":
            instances = read_crowdpose(*paths, **detected)
        case _:
            instances = read_coco(*paths, own, **detected)
    if not len(instances):
        filters = "; check 'include' and 'exclude'" if dataset.include or dataset.exclude else ""
        reasons = f" ({'; '.join(note.split(': ', 1)[-1] for note in instances.notes)})" if instances.notes else ""
        raise KposeError(f"{dataset.detections or dataset.annotations} has no usable person{reasons}{filters}")
    return instances
