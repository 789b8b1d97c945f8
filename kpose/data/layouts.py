"""Downloads of the datasets as their publishers pack them: is everything there, and whole?"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from kpose.config import DatasetConfig
from kpose.data.crops import check_image
from kpose.data.matlab import array_shapes
from kpose.data.readers import read_dataset
from kpose.data.tfrecords import write_tfrecords
from kpose.errors import KposeError
from kpose.skeletons import COCO_17

# So many bytes from its end on a JPEG has its end mark, but for a few with something appended, which are then decoded.
_TAIL_BYTES = 4096
_NAMED = 3  # of many files with the same trouble, so many are named


@dataclass(frozen=True)
class Split:
    """A part of a dataset that people train or score with.

    Attributes:
        annotations: where its file may lie, from the dataset's folder on; the first that is there counts.
        images: the folder of its pictures.
        people: which people of the file it is; None for all.
        file_people: how many people the file has, where that is published.
    """

    annotations: tuple[str, ...]
    images: str
    people: tuple[int, int] | None = None
    file_people: int | None = None

    def find(self, root: Path) -> Path | None:
        """Its annotation file, None where there is none."""
        return next((root / name for name in self.annotations if (root / name).is_file()), None)


@dataclass(frozen=True)
class Layout:
    """How a dataset lies on disk.

    Attributes:
        format: of its annotations.
        title: its name in full.
        home: where it is published.
        pictures: how many pictures each folder holds, as published.
        splits: by name.
        numbered: the names of the pictures, if they are numbered from 1.
    """

    format: Literal["coco", "mpii", "lsp", "lspet", "aic", "crowdpose"]
    title: str
    home: str
    pictures: Mapping[str, int]
    splits: Mapping[str, Split]
    numbered: tuple[str, ...] = field(default=())

    def dataset(self, root: str | Path, split: str) -> DatasetConfig:
        """The configuration's entry for a split.

        Raises:
            KposeError: when there is no such split or its annotation file is missing.
        """
        if split not in self.splits:
            raise KposeError(f"{self.title} has no split {split!r}; it has {', '.join(self.splits)}")
        chosen = self.splits[split]
        annotations = chosen.find(Path(root))
        if annotations is None:
            raise KposeError(f"{Path(root) / chosen.annotations[0]} is missing; fetch it from {self.home}")
        return DatasetConfig(format=self.format, annotations=annotations, images=Path(root) / chosen.images, people=chosen.people)


_AIC_TRAIN, _AIC_VAL = "ai_challenger_keypoint_train_20170902", "ai_challenger_keypoint_validation_20170911"
_MPII_RELEASE = "mpii_human_pose_v1_u12_1.mat"

LAYOUTS: dict[str, Layout] = {
    "coco": Layout(
        "coco",
        "COCO 2017",
        "https://cocodataset.org",
        pictures={"train2017": 118_287, "val2017": 5_000},
        splits={
            "train": Split(("annotations/person_keypoints_train2017.json",), "train2017"),
            "val": Split(("annotations/person_keypoints_val2017.json",), "val2017"),
        },
    ),
    "mpii": Layout(
        "mpii",
        "MPII Human Pose",
        "http://human-pose.mpi-inf.mpg.de",
        pictures={"images": 24_984},
        splits={
            "train": Split(("annot/train.json", "annot/train.h5", f"mpii_human_pose_v1_u12_2/{_MPII_RELEASE}", _MPII_RELEASE), "images"),
            "val": Split(("annot/valid.json", "annot/valid.h5"), "images"),
        },
    ),
    "lsp": Layout(
        "lsp",
        "Leeds Sports Pose",
        "http://sam.johnson.io/research/lsp.html",
        pictures={"images": 2_000},
        splits={
            "train": Split(("joints.mat",), "images", people=(0, 1000), file_people=2_000),
            "test": Split(("joints.mat",), "images", people=(1000, 2000), file_people=2_000),
        },
        numbered=("im{:04d}.jpg", "im{:05d}.jpg"),
    ),
    "lspet": Layout(
        "lspet",
        "Leeds Sports Pose Extended",
        "http://sam.johnson.io/research/lspet.html",
        pictures={"images": 10_000},
        splits={"train": Split(("joints.mat",), "images", file_people=10_000)},
        numbered=("im{:05d}.jpg", "im{:04d}.jpg"),
    ),
    "aic": Layout(
        "aic",
        "AI Challenger keypoints",
        "https://github.com/AIChallenger/AI_Challenger_2017",
        pictures={f"{_AIC_TRAIN}/keypoint_train_images_20170902": 210_000, f"{_AIC_VAL}/keypoint_validation_images_20170911": 30_000},
        splits={
            "train": Split((f"{_AIC_TRAIN}/keypoint_train_annotations_20170909.json",), f"{_AIC_TRAIN}/keypoint_train_images_20170902"),
            "val": Split((f"{_AIC_VAL}/keypoint_validation_annotations_20170911.json",), f"{_AIC_VAL}/keypoint_validation_images_20170911"),
        },
    ),
    "crowdpose": Layout(
        "crowdpose",
        "CrowdPose",
        "https://github.com/Jeff-sjtu/CrowdPose",
        pictures={"images": 20_000},
        splits={
            split: Split(tuple(f"{folder}crowdpose_{split}.json" for folder in ("json/", "annotations/", "")), "images")
            for split in ("train", "val", "test")
        },
    ),
}


@dataclass(frozen=True)
class Finding:
    """What was found about one part of a download.

    Attributes:
        part: the file or folder, from the dataset's folder on.
        text: how it is.
        whole: whether it is as published.
    """

    part: str
    text: str
    whole: bool

    def __str__(self) -> str:
        return f"  {'ok    ' if self.whole else 'NOT OK'}  {self.part}: {self.text}"


def check_layout(layout: Layout, root: str | Path, progress: bool = True) -> list[Finding]:
    """Compare a download with what is published: files, numbers of pictures, and whether each begins and ends as it should.

    Pictures are not decoded, but for the few whose end looks wrong; annotations are read when they are used.

    Args:
        layout: what should be there.
        root: the dataset's folder.
        progress: show a bar while pictures are looked at.

    Raises:
        KposeError: when there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise KposeError(f"there is no folder {root}; give the one that {layout.title} was unpacked to ({layout.home})")
    findings = [_check_pictures(layout, root, folder, count, progress) for folder, count in layout.pictures.items()]
    seen: set[tuple[str, ...]] = set()
    for name, split in layout.splits.items():
        if split.annotations not in seen:
            findings.append(_check_annotations(layout, root, name, split))
        seen.add(split.annotations)
    return findings


def prepare_dataset(
    layout: Layout, root: str | Path, output: str | Path | None, split: str = "train", *, shards: int = 16, partial: bool = False
) -> None:
    """Check a download, print what was found line by line, and write a split as TFRecord shards.

    Args:
        layout: what should be there.
        root: the dataset's folder.
        output: where the shards go; None to check alone.
        split: which part to write.
        shards: how many files.
        partial: write those people whose picture is there, although the download is incomplete.

    Raises:
        KposeError: when the download is incomplete and `partial` is not set, or nobody is left, or a file cannot be read or written.
    """
    if output is not None:
        dataset = layout.dataset(root, split)  # before the pictures are looked at, which takes its time
    findings = check_layout(layout, root)
    print(f"{layout.title} in {root}")
    for finding in findings:
        print(finding)
    lacking = [finding.part for finding in findings if not finding.whole]
    if lacking and not (partial and output):
        raise KposeError(
            f"{layout.title} in {root} is incomplete: {_listed(lacking)}; fetch the rest from {layout.home}, or write what is there with "
            "--partial and --output"
        )
    if output is None:
        print(f"{layout.title} is complete; give --output to write it as TFRecord shards")
        return
    instances = read_dataset(dataset, COCO_17, for_training=split == "train", partial=partial)
    for note in instances.notes:
        print(note)
    write_tfrecords(instances, output, f"{layout.format}-{split}", shards)


def _check_pictures(layout: Layout, root: Path, folder: str, count: int, progress: bool) -> Finding:
    place = root / folder
    if not place.is_dir():
        return Finding(folder, f"no such folder; its {count:,} pictures belong there, see {layout.home}", False)
    names = sorted(entry.name for entry in os.scandir(place) if entry.name.lower().endswith((".jpg", ".jpeg")))
    troubles = []
    if len(names) < count:
        absent = _first_absent(layout, set(names), count)
        troubles.append(f"{len(names):,} of {count:,} pictures, {count - len(names):,} missing{f', first {absent}' if absent else ''}")
    bar = tqdm(names, f"looking at {folder}", unit="image", disable=not progress, leave=False)
    broken = [name for name in bar if _is_broken(place / name)]
    if broken:
        troubles.append(f"{len(broken):,} pictures are empty or cut off: {_listed(broken)}")
    if troubles:
        return Finding(folder, f"{'; '.join(troubles)}; they belong into {place}, see {layout.home}", False)
    return Finding(folder, f"{len(names):,} pictures", True)


def _first_absent(layout: Layout, names: set[str], count: int) -> str | None:
    for form in layout.numbered:
        expected = [form.format(number) for number in range(1, count + 1)]
        if not names or not names.isdisjoint(expected):
            return next(name for name in expected if name not in names)
    return None


def _is_broken(path: Path) -> bool:
    """Whether a JPEG is cut off, by its first and last bytes; decoded only where those look wrong."""
    try:
        with path.open("rb") as file:
            begin = file.read(2)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            if begin == b"\xff\xd8" and b"\xff\xd9" in file.read():
                return False
        check_image(str(path))
    except (KposeError, OSError):
        return True
    return False


def _check_annotations(layout: Layout, root: Path, name: str, split: Split) -> Finding:
    path = split.find(root)
    if path is None:
        others = f" (or {' or '.join(split.annotations[1:])})" if split.annotations[1:] else ""
        return Finding(split.annotations[0], f"no such file{others}; it belongs into {root}, see {layout.home}", False)
    part = str(path.relative_to(root))
    size = path.stat().st_size
    if path.suffix == ".json":
        with path.open("rb") as file:
            file.seek(max(0, size - 64))
            if not file.read().rstrip().endswith((b"]", b"}")):
                return Finding(part, f"empty or cut off after {size:,} bytes; fetch it again from {layout.home}", False)
    elif path.suffix == ".mat":
        try:
            shapes = array_shapes(path)
        except KposeError as error:
            return Finding(part, str(error), False)
        people = shapes["joints"][-1] if len(shapes.get("joints", ())) == 3 else None
        if split.file_people is not None and people != split.file_people:
            return Finding(part, f"{'no' if people is None else f'{people:,}'} people of {split.file_people:,}; see {layout.home}", False)
    return Finding(part, f"{size:,} bytes", True)


def _listed(names: Collection[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(islice(names, _NAMED)) + more
