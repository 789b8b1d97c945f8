"""MPII Human Pose (Andriluka et al., CVPR 2014), in the three forms that it goes round in.

* the release, `mpii_human_pose_v1_u12_1.mat`;
* `train.json` and `valid.json`, the lists of HRNet and SimpleBaseline;
* `valid.h5` and `train.h5`, the lists of the stacked hourglass.

All of them count pixels from 1, as MATLAB does; what is returned counts from 0. A box is the region that published networks are shown
before it is grown (HRNet's data loader): a square of 200 pixels at scale 1 about the person's centre, which is moved down by 15 pixels at
scale 1 so that the feet stay inside; `data.box_padding`, 1.25, grows it. It is never cut to the picture. Areas are those of these squares.

A head size is 0.6 times the diagonal of the head's box, the unit of PCKh.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from kpose.data.entries import MAXIMUM_COORDINATE, Span, check_span, image_path, kind_of, numbers, require_objects, shown, with_pictures
from kpose.data.instances import Instances
from kpose.data.matlab import array_shapes, as_list, field, read_arrays, read_variable
from kpose.errors import KposeError
from kpose.files import read_json
from kpose.skeletons import MPII_16

HEAD_SIZE_SHARE = 0.6  # of the diagonal of the head's box
_SIDE = 200.0  # pixels that a person of scale 1 takes
_DOWN = 15.0  # by how much the centre is moved down at scale 1
_LIST_PADDING = 1.25  # the hourglass' lists have it in their scale already
_JOINTS = MPII_16.num_joints
# The joints of gt_valid.mat, which are those of the skeleton in its order.
_MATLAB_JOINTS = (
    *("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head"),
    *("rwri", "relb", "rsho", "lsho", "lelb", "lwri"),
)
MAXIMUM_PEOPLE = 1_000_000


def read_mpii(
    annotations: str | Path,
    images: str | Path,
    head_boxes: str | Path | None = None,
    *,
    people: Span | None = None,
    partial: bool = False,
    for_training: bool,
    progress: bool = True,
) -> Instances:
    """Read annotated people.

    A joint that is not annotated has visibility 0; one that the file calls hidden 1; the others 2. The JSON does not tell hidden joints.
    Images are numbered in the order in which they come; a person's number is the place in the file, from 1.

    Args:
        annotations: one of the three forms, told by the ending: `.mat`, `.json` or `.h5`. Of the release those people are read whose joints
            are public: for evaluation only those that it calls sufficiently separated (`single_person`), which PCKh is defined for.
        images: the folder of the pictures.
        head_boxes: for the JSON, `gt_valid.mat` of its people in its order, for their head sizes; the others bring their own.
        people: only these of the file, from .. up to.
        partial: leave out people whose picture is missing instead of refusing the file.
        for_training: whether people close to others take part.
        progress: show a progress bar.

    Raises:
        KposeError: when a file is missing, malformed, or does not fit the other, or names pictures that are not there.
    """
    annotations, images = Path(annotations), Path(images)
    form = annotations.suffix.lower()
    if head_boxes is not None and form != ".json":
        raise KposeError(f"{annotations} brings its own head sizes; leave out 'head_boxes', which go with the JSON")
    if form == ".json":
        columns = _read_list(annotations, None if head_boxes is None else Path(head_boxes))
    elif form == ".h5":
        columns = _read_h5(annotations)
    elif form == ".mat":
        columns = _read_release(annotations, single=not for_training, progress=progress)
    else:
        raise KposeError(f"{annotations} is none of MPII's files; give the release (.mat), train.json or valid.json, or valid.h5")
    return with_pictures(_instances(columns, annotations, images, people), images, annotations, partial)


@dataclass(frozen=True)
class _Columns:
    """People as the files have them: pixels counted from 1, the centre not yet moved."""

    names: list[Any]  # of the pictures, not yet checked
    centers: np.ndarray  # (N, 2)
    scales: np.ndarray  # (N,)
    keypoints: np.ndarray  # (N, 16, 3)
    head_sizes: np.ndarray  # (N,)


def _instances(columns: _Columns, source: Path, images: Path, people: Span | None) -> Instances:
    first, end = check_span(people, len(columns.names), source)
    chosen = np.arange(first, end)
    keypoints, centers, scales = columns.keypoints[chosen], columns.centers[chosen], columns.scales[chosen]
    annotated = keypoints[..., 2] > 0
    # What stands where nothing is annotated may be anything.
    keypoints = np.where(annotated[..., None], keypoints - [1, 1, 0], 0.0)
    # Who has no centre has -1 there; a scale of 0 or less is none.
    located = (scales > 0) & (centers[:, 0] != -1)
    place = np.where(located[:, None], np.column_stack([centers, _SIDE * scales]), 0.0)
    wrong = ~(np.abs(np.column_stack([keypoints.reshape(len(chosen), -1), place])) <= MAXIMUM_COORDINATE).all(axis=1)
    if wrong.any():
        raise KposeError(
            f"{source}: person {chosen[wrong][0]} has a joint, centre or scale that is no number within {MAXIMUM_COORDINATE:g}; mend or "
            "remove it"
        )
    usable = located & annotated.any(axis=1)
    sides = _SIDE * scales[usable]
    middles = centers[usable] + np.outer(scales[usable], [0, _DOWN]) - 1
    files: dict[str, int] = {}
    image_index = [
        files.setdefault(image_path(images, {"image": columns.names[position]}, "image", source, f"person {position}"), len(files))
        for position in chosen[usable]
    ]
    left_out = {"no joint is annotated": ~annotated.any(axis=1), "they have no centre or scale": annotated.any(axis=1) & ~located}
    return Instances(
        skeleton=MPII_16,
        image_files=tuple(files),
        image_ids=np.arange(1, len(files) + 1, dtype=np.int64),
        image_sizes=np.zeros((len(files), 2), np.int32),
        image_index=np.array(image_index, np.int32),
        ids=chosen[usable].astype(np.int64) + 1,
        boxes=np.column_stack([middles - sides[:, None] / 2, sides, sides]).astype(np.float32),
        keypoints=keypoints[usable].astype(np.float32),
        areas=(sides**2).astype(np.float32),
        box_scores=np.ones(len(sides), np.float32),
        head_sizes=columns.head_sizes[chosen][usable].astype(np.float32),
        annotation_file=source,
        notes=tuple(f"{source}: {who.sum()} people left out: {why}" for why, who in left_out.items() if who.any()),
    )


# --- train.json, valid.json ----------------------------------------------------------------------------------------------------------


def _read_list(path: Path, head_boxes: Path | None) -> _Columns:
    content = read_json(path)
    if not isinstance(content, list):
        raise KposeError(f"{path}: expected a list of people with image, center, scale, joints and joints_vis, found {kind_of(content)}")
    names, centers, scales, keypoints = [], [], [], []
    for position, entry in enumerate(require_objects(content, path, "the list")):
        what = f"person {position}"
        names.append(entry.get("image"))
        centers.append(numbers(entry, "center", 2, path, what))
        scales.append(numbers({"scale": [entry.get("scale")]}, "scale", 1, path, what)[0])
        for key in ("joints", "joints_vis"):
            if key not in entry:
                raise KposeError(f"{path}: {what} has no {key!r}; a list without joints (test.json) can neither train nor be scored")
        joints = entry["joints"]
        if not isinstance(joints, list) or len(joints) != _JOINTS:
            found = f"{len(joints)} joints" if isinstance(joints, list) else shown(joints)
            raise KposeError(f"{path}: {what} has {found}, expected {_JOINTS}")
        flags = numbers(entry, "joints_vis", _JOINTS, path, what)
        if not set(flags) <= {0, 1}:
            wrong = next(flag for flag in flags if flag not in (0, 1))
            raise KposeError(f"{path}: {what} has the flag {wrong:g} in 'joints_vis', expected 0 or 1")
        points = [numbers({"joint": joint}, "joint", 2, path, what) for joint in joints]
        keypoints.append([[x, y, 2 * flag] for (x, y), flag in zip(points, flags, strict=True)])
    joints_and_flags = np.array(keypoints, np.float64).reshape(-1, _JOINTS, 3)
    return _Columns(
        names,
        np.array(centers, np.float64).reshape(-1, 2),
        np.array(scales, np.float64),
        joints_and_flags,
        np.full(len(names), np.nan) if head_boxes is None else _head_sizes(head_boxes, joints_and_flags, path),
    )


def _head_sizes(path: Path, keypoints: np.ndarray, source: Path) -> np.ndarray:
    """Head sizes `(N,)` from `gt_valid.mat`, whose people must be those of `keypoints` (N, 16, 3) in the same order."""
    arrays = read_arrays(path, {"pos_gt_src": (_JOINTS, 2, None), "jnt_missing": (_JOINTS, None), "headboxes_src": (2, 2, None)})
    for name, array in arrays.items():
        if array.shape[-1] != len(keypoints):
            raise KposeError(
                f"{path}: {name!r} is of {array.shape[-1]} people, {source} has {len(keypoints)}; give the file that belongs to it"
            )
    if "dataset_joints" in array_shapes(path):
        names = [str(name) for name in as_list(read_variable(path, "dataset_joints"))]
        if names != list(_MATLAB_JOINTS):
            raise KposeError(f"{path}: 'dataset_joints' is {shown(names)}, expected {' '.join(_MATLAB_JOINTS)}")
    joints = arrays["pos_gt_src"].transpose(2, 0, 1)
    both = (arrays["jnt_missing"].T == 0) & (keypoints[..., 2] > 0)
    distances = np.linalg.norm(np.where(both[..., None], joints - keypoints[..., :2], 0.0), axis=-1)
    # In the copies that go round a dozen joints differ by more than a pixel; no person does as a whole.
    strangers = np.flatnonzero((distances > 2).sum(axis=1) * 2 > both.sum(axis=1))
    if len(strangers):
        raise KposeError(
            f"{path}: person {strangers[0]} is another one than in {source} (joints lie {distances[strangers[0]].max():.0f} pixels apart); "
            "give the file that belongs to it, unchanged"
        )
    sizes = HEAD_SIZE_SHARE * np.hypot(*(arrays["headboxes_src"][1] - arrays["headboxes_src"][0]))
    without = np.flatnonzero(~(np.isfinite(sizes) & (sizes > 0)))
    if len(without):
        raise KposeError(f"{path}: the head box of person {without[0]} has no size")
    return sizes


# --- valid.h5 ------------------------------------------------------------------------------------------------------------------------


def _read_h5(path: Path) -> _Columns:
    """Here `center` is moved down and `scale` padded already, absent joints are 0, 0, and `normalize` is the head size.

    Neck and head lost their fractions of a pixel.
    """
    columns: dict[str, np.ndarray] = {}
    trailing = {"imgname": (), "center": (2,), "scale": (), "part": (_JOINTS, 2), "visible": (_JOINTS,), "normalize": ()}
    try:
        with h5py.File(path, "r") as file:
            for name, shape in trailing.items():
                # A link may lead out of the file.
                if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
                    raise KposeError(f"{path} has no dataset {name!r}; expected MPII's valid.h5 with {', '.join(trailing)}")
                dataset = file[name]
                lengths = ", ".join(map(str, dataset.shape))
                if dataset.ndim != 1 + len(shape) or dataset.shape[1:] != shape:
                    raise KposeError(f"{path}: {name!r} has the lengths {lengths}, expected {', '.join(map(str, ('N', *shape)))}")
                if dataset.shape[0] > MAXIMUM_PEOPLE or dataset.external or dataset.is_virtual:
                    raise KposeError(f"{path}: {name!r} has {lengths} values or takes them from other files; this is not valid.h5")
                texts = name == "imgname"
                if dataset.dtype.kind not in ("S" if texts else "biuf") or dataset.dtype.itemsize > 256:
                    raise KposeError(f"{path}: {name!r} is of type {dataset.dtype}, expected {'texts' if texts else 'numbers'}")
                columns[name] = dataset[()]
    except KposeError:
        raise
    except Exception as error:  # h5py raises whatever the damage leads to
        text = str(error).strip().split("\n", 1)[0] or type(error).__name__
        raise KposeError(f"cannot read {path}: {text}; fetch it again") from error
    count = len(columns["imgname"])
    for name, column in columns.items():
        if len(column) != count:
            raise KposeError(f"{path}: {name!r} has {len(column)} people, 'imgname' {count}")
    columns = {name: column if name == "imgname" else column.astype(np.float64) for name, column in columns.items()}
    if not np.isin(columns["visible"], (0, 1)).all():
        raise KposeError(f"{path}: 'visible' has a flag that is neither 0 nor 1")
    present = (columns["part"] != 0).any(axis=-1)
    visibility = np.where(present, 1 + columns["visible"], 0)
    scales = columns["scale"] / _LIST_PADDING
    return _Columns(
        [name.decode("utf-8", "replace").rstrip("\0") for name in columns["imgname"].tolist()],
        columns["center"] - np.stack([np.zeros(count), _DOWN * scales], axis=-1),
        scales,
        np.concatenate([columns["part"], visibility[..., None]], axis=-1),
        columns["normalize"],
    )


# --- the release ---------------------------------------------------------------------------------------------------------------------


def _read_release(path: Path, *, single: bool, progress: bool) -> _Columns:
    release = read_variable(path, "RELEASE")
    images = as_list(field(release, "annolist"))
    in_training = as_list(field(release, "img_train"))
    alone = as_list(field(release, "single_person"))
    if not images:
        raise KposeError(f"{path}: 'RELEASE' has no 'annolist'; expected mpii_human_pose_v1_u12_1.mat")
    for name, column in (("img_train", in_training), ("single_person", alone)):
        if len(column) != len(images):
            raise KposeError(f"{path}: {name!r} has {len(column)} entries, 'annolist' {len(images)}")
    names, rows = [], []
    bar = tqdm(zip(images, in_training, alone, strict=True), path.name, len(images), unit="image", disable=not progress, leave=False)
    for position, (image, train, separated) in enumerate(bar):
        if not train:
            continue  # the joints of the test set are not public
        name = field(field(image, "image"), "name")
        wanted = as_list(separated) if single else None
        for person, rectangle in enumerate(as_list(field(image, "annorect")), start=1):
            points = as_list(field(field(rectangle, "annopoints"), "point"))
            if points and (wanted is None or person in wanted):
                rows.append(list(_person(rectangle, points, path, f"person {person} of image {position + 1}")))
                names.append(name)
    table = np.array(rows, np.float64).reshape(-1, 4 + 3 * _JOINTS)
    return _Columns(names, table[:, :2], table[:, 2], table[:, 4:].reshape(-1, _JOINTS, 3), table[:, 3])


def _person(rectangle: Any, points: list[Any], source: Path, what: str) -> Iterator[float]:
    """Centre, scale, head size, and x, y, visibility of the joints."""
    position = field(rectangle, "objpos")
    yield _number(position, "x", source, what, -1)
    yield _number(position, "y", source, what, -1)
    yield _number(rectangle, "scale", source, what, -1)
    x1, y1, x2, y2 = (_number(rectangle, corner, source, what, np.nan) for corner in ("x1", "y1", "x2", "y2"))
    yield HEAD_SIZE_SHARE * float(np.hypot(x2 - x1, y2 - y1))
    joints = np.zeros((_JOINTS, 3))
    for point in points:
        joint = _number(point, "id", source, what)
        if joint not in range(_JOINTS):
            raise KposeError(f"{source}: {what} has a joint of the number {joint:g}, expected 0 to {_JOINTS - 1}")
        # Empty for the neck and the head's top, which were set with the head's box; a number for some people, a digit as text for others.
        visible = field(point, "is_visible")
        if visible not in (None, 0, 1, "0", "1"):
            raise KposeError(f"{source}: {what} has is_visible {shown(visible)}, expected 0, 1 or nothing")
        joints[int(joint)] = _number(point, "x", source, what), _number(point, "y", source, what), 1 if visible in (0, "0") else 2
    yield from joints.ravel().tolist()


def _number(value: Any, name: str, source: Path, what: str, default: float | None = None) -> float:
    found = field(value, name)
    if found is None and default is not None:
        return default
    if not isinstance(found, float):
        raise KposeError(f"{source}: {what} has {name!r} {shown(found, found is not None)}, expected a number")
    return found
