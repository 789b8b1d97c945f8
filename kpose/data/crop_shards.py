"""Crop shards: what augmentation can show of each training person as a small JPEG.

For training where there are neither the photos nor TensorFlow.

    write_crop_shards(config, "data/crops")        # where the photos are
    crops = read_crop_shards("data/crops")         # elsewhere: NumPy, and one of OpenCV, Pillow and torchvision
    pixels = crops.decode()

A folder holds `crops-000.npz`, `crops-001.npz`, ... of plain numbers and, written last, `crops.json`: the configuration, the skeleton, the
datasets with their shares, and the SHA-256 of each shard.

A person's *region* is that part of the photo that a crop can show: the padded box at the crop's aspect ratio, `REACH` times as large, made
a square because a turned crop is as wide as it is high, as far as it lies in the photo. The *region frame* is the image frame less the
region's upper left corner; keypoints and boxes are in it. The region is stored *shrunk* where it is larger than `side`, by area averaging,
never enlarged: `stored = (region + 0.5) * shrink - 0.5`. A region that is the whole of a small photo is that photo's own file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kpose import geometry
from kpose.errors import KposeError
from kpose.files import read_json, write_json
from kpose.npz_files import read_npz
from kpose.skeletons import Skeleton, get_skeleton
from kpose.weight_files import save_arrays

if TYPE_CHECKING:
    from kpose.config import Config
    from kpose.data.instances import Instances

FORMAT = "kpose crops 1"
MANIFEST = "crops.json"
# Recipes enlarge the region 1.35 times at most; the rest is for what a turn shows. docs/guides/gpu-elsewhere.md has measurements.
REACH = 1.6
# So that a shard travels along with a checkout where there is a limit on both together.
SHARD_BYTES = 48 << 20
LARGEST_SHARD_BYTES = 60 << 20
# A header of a few bytes may claim any size.
LARGEST_SIDE = 4096
# Pixels are counted in 32 bits where they are looked up.
MOST_PIXELS = 2**31 - 1
# Of a person beside the JPEG and the keypoints, and of the columns' headers: a little more than there are.
_PERSON_BYTES, _HEADER_BYTES = 64, 1 << 14
_JPEG = [0xFF, 0xD8, 0xFF]

_COLUMNS: dict[str, tuple[str, int]] = {  # kind of number, dimensions
    "jpegs": ("u", 1),
    "offsets": ("i", 1),
    "keypoints": ("f", 3),
    "boxes": ("f", 2),
    "shrink": ("f", 2),
    "sizes": ("i", 2),
    "dataset": ("i", 1),
}


@dataclass(frozen=True)
class CropDataset:
    """Where people come from.

    Attributes:
        name: what the configuration calls it.
        people: how many there are.
        weight: their share of the samples, beside the other datasets' weights.
    """

    name: str
    people: int
    weight: float


@dataclass(frozen=True, eq=False)
class CropPixels:
    """Decoded crops, one after the other without any gap.

    Attributes:
        pixels: `(P, 3)` uint8 RGB: crop after crop, row after row.
        first: `(N,)` int64, where each crop begins in `pixels`.
        sizes: `(N, 2)` int32 height and width.
    """

    pixels: np.ndarray
    first: np.ndarray
    sizes: np.ndarray

    def picture(self, person: int) -> np.ndarray:
        """`(H, W, 3)` uint8 of one person."""
        height, width = self.sizes[person]
        return self.pixels[self.first[person] :][: height * width].reshape(height, width, 3)


@dataclass(frozen=True, eq=False)
class CropShards:
    """People of a folder of shards, by column.

    Attributes:
        skeleton: meaning of the keypoints.
        settings: the configuration that they were written for, as plain values, defaults included.
        datasets: where they come from.
        jpegs: a buffer for each shard.
        shard: `(N,)` int32, the buffer of each person; `begin`, `end`: `(N,)` int64, the JPEG in it.
        keypoints: `(N, K, 3)` float32 x, y, visibility, region frame.
        boxes: `(N, 4)` float32 x, y, width, height, region frame.
        shrink: `(N, 2)` float32 in x and y: `stored = (region + 0.5) * shrink - 0.5`.
        sizes: `(N, 2)` int32 height and width of the stored crop.
        dataset: `(N,)` int32, a position in `datasets`; ascending.
        digest: SHA-256 of the manifest.
    """

    skeleton: Skeleton
    settings: dict[str, Any]
    datasets: tuple[CropDataset, ...]
    jpegs: tuple[np.ndarray, ...]
    shard: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray
    shrink: np.ndarray
    sizes: np.ndarray
    dataset: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.dataset)

    def decode(self, threads: int | None = None) -> CropPixels:
        """Decode all crops, in parallel.

        Args:
            threads: default: one for each processor.

        Raises:
            KposeError: when no decoder is installed, a picture is damaged or of another size than `sizes`, or there are too many pixels.
        """
        decode = jpeg_decoder()
        counts = self.sizes.astype(np.int64).prod(axis=1)
        if counts.sum() > MOST_PIXELS:
            raise KposeError(f"the crops have {counts.sum()} pixels, more than {MOST_PIXELS}; write them with a smaller --side")
        first = np.cumsum(counts) - counts
        pixels = np.empty((int(counts.sum()), 3), np.uint8)

        def load(people: Sequence[int]) -> None:
            for person in people:
                content = self.jpegs[self.shard[person]][self.begin[person] : self.end[person]]
                picture, size = decode(content), tuple(self.sizes[person])
                if picture is None or picture.shape != (*size, 3):
                    raise KposeError(f"the crop of person {person} is damaged: no JPEG of {size[1]} x {size[0]}; write the shards anew")
                pixels[first[person] : first[person] + counts[person]] = picture.reshape(-1, 3)

        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for _ in pool.map(load, np.array_split(np.arange(len(self)), max(len(self) // 64, 1))):
                pass
        return CropPixels(pixels, first, self.sizes)


def jpeg_decoder() -> Callable[[np.ndarray], np.ndarray | None]:
    """A function from the bytes of a JPEG, uint8, to `(H, W, 3)` uint8 RGB: OpenCV, Pillow or torchvision, whichever is installed.

    Raises:
        KposeError: when none is.
    """
    for make in (_opencv_decoder, _pillow_decoder, _torchvision_decoder):
        try:
            return make()
        except ImportError:
            continue
    raise KposeError("nothing that decodes JPEG is installed; install opencv-python-headless, pillow or torchvision")


def _opencv_decoder() -> Callable[[np.ndarray], np.ndarray | None]:
    import cv2

    return lambda content: cv2.imdecode(content, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def _pillow_decoder() -> Callable[[np.ndarray], np.ndarray | None]:
    import io

    from PIL import Image, UnidentifiedImageError

    def decode(content: np.ndarray) -> np.ndarray | None:
        try:
            with Image.open(io.BytesIO(content.tobytes()), formats=["JPEG"]) as picture:
                return np.asarray(picture.convert("RGB"))
        except (UnidentifiedImageError, OSError):
            return None

    return decode


def _torchvision_decoder() -> Callable[[np.ndarray], np.ndarray | None]:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg  # type: ignore[import-not-found,unused-ignore]

    def decode(content: np.ndarray) -> np.ndarray | None:
        try:
            return decode_jpeg(torch.from_numpy(content.copy()), ImageReadMode.RGB).permute(1, 2, 0).numpy()
        except RuntimeError:
            return None

    return decode


# --- reading -------------------------------------------------------------------------------------------------------------------------


def read_crop_shards(folder: str | Path) -> CropShards:
    """The people of a folder of shards; pictures stay encoded.

    Raises:
        KposeError: when a file is missing, damaged, of another version, or not what the manifest says.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise KposeError(f"there are no crops in {folder}: {MANIFEST} is missing; write them with `kpose prepare-data crops`")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise KposeError(f"{path} is no manifest of the format {FORMAT!r}; write the crops anew")
    try:
        skeleton = Skeleton.from_dict(manifest["skeleton"], str(path))
        datasets = tuple(CropDataset(str(entry["name"]), int(entry["people"]), float(entry["weight"])) for entry in manifest["datasets"])
        entries = [(str(entry["file"]), str(entry["sha256"]), int(entry["people"])) for entry in manifest["shards"]]
        settings = dict(manifest["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise KposeError(f"{path} is damaged: {type(error).__name__} {error}; write the crops anew") from error
    if not entries or any(not 0 < entry.weight < np.inf or entry.people < 1 for entry in datasets):
        raise KposeError(f"{path} is damaged: no people, or a share that is none; write the crops anew")

    def read(entry: tuple[str, str, int]) -> dict[str, np.ndarray]:
        return _read_shard(folder, *entry, skeleton.num_joints, len(datasets))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        shards = list(pool.map(read, entries))
    joined = {name: np.concatenate([shard[name] for shard in shards]) for name in ("keypoints", "boxes", "shrink", "sizes", "dataset")}
    order = np.argsort(joined["dataset"], kind="stable")
    found = np.bincount(joined["dataset"], minlength=len(datasets))
    if found.tolist() != [entry.people for entry in datasets]:
        raise KposeError(f"{path} counts other people than its shards hold; write the crops anew")
    return CropShards(
        skeleton=skeleton,
        settings=settings,
        datasets=datasets,
        jpegs=tuple(shard["jpegs"] for shard in shards),
        shard=np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard["dataset"]) for shard in shards])[order],
        begin=np.concatenate([shard["offsets"][:-1] for shard in shards])[order],
        end=np.concatenate([shard["offsets"][1:] for shard in shards])[order],
        **{name: column[order] for name, column in joined.items()},
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _read_shard(folder: Path, name: str, sha256: str, people: int, joints: int, datasets: int) -> dict[str, np.ndarray]:
    """One shard, checked against its manifest and against itself."""
    path, remedy = folder / name, "copy or write the shards anew"
    if name != Path(name).name or not name.endswith(".npz"):
        raise KposeError(f"{folder / MANIFEST} names the shard {name!r}, which is no .npz file of its folder")
    if not path.is_file():
        raise KposeError(f"the shard {path} is missing; {remedy}")
    if path.stat().st_size > LARGEST_SHARD_BYTES:
        raise KposeError(f"{path} is larger than {LARGEST_SHARD_BYTES >> 20} MiB, file refused; {remedy}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise KposeError(f"{path} is not the shard that {MANIFEST} describes: its SHA-256 differs; {remedy}")
    shard = read_npz(path, LARGEST_SHARD_BYTES, missing=f"the shard {path} is missing; {remedy}", remedy=remedy)
    shapes = {"keypoints": (people, joints, 3), "boxes": (people, 4), "shrink": (people, 2), "sizes": (people, 2), "dataset": (people,)}
    shapes |= {"offsets": (people + 1,)}
    fits = set(shard) == set(_COLUMNS) and all(
        shard[column].dtype.kind == kind
        and shard[column].ndim == dimensions
        and shard[column].shape == shapes.get(column, shard[column].shape)
        for column, (kind, dimensions) in _COLUMNS.items()
    )
    if not fits:
        raise KposeError(f"{path} has other columns than a shard of {people} people with {joints} joints; {remedy}")
    offsets, sizes, dataset = shard["offsets"], shard["sizes"], shard["dataset"]
    inside = offsets[0] == 0 and offsets[-1] == len(shard["jpegs"]) and (np.diff(offsets) > 0).all()
    inside &= bool((sizes > 0).all() and (sizes <= LARGEST_SIDE).all() and (dataset >= 0).all() and (dataset < datasets).all())
    inside &= bool((shard["shrink"] > 0).all() and np.isfinite(shard["boxes"]).all())
    if not inside:
        raise KposeError(f"{path} is damaged: values out of range; {remedy}")
    return shard


# --- writing -------------------------------------------------------------------------------------------------------------------------


def write_crop_shards(
    config: Config, folder: str | Path, *, side: int = 384, quality: int = 95, shard_bytes: int = SHARD_BYTES, threads: int | None = None
) -> CropShards:
    """Write the training people of a configuration as shards.

    A picture that cannot be read is left out with its people, and counted, as in training.

    Args:
        config: datasets, their shares, crop and augmentation.
        folder: to write to; made if it is missing.
        side: of the stored crops' longer side, at most.
        quality: of the JPEGs, 1 to 100.
        shard_bytes: of a shard, at most.
        threads: default: one for each processor.

    Returns:
        What was written, read back.

    Raises:
        KposeError: when a setting or a dataset is refused, the folder holds crops already, nobody is left, or it cannot be written.
    """
    from kpose.data.datasets import label_of, training_sets
    from kpose.data.instances import Instances

    folder = Path(folder)
    if not 32 <= side <= LARGEST_SIDE:
        raise KposeError(f"side is {side}; crops can be 32 to {LARGEST_SIDE} pixels high or wide")
    if not 1 <= quality <= 100:
        raise KposeError(f"quality is {quality}; a JPEG's is from 1 to 100")
    if not 1 << 16 <= shard_bytes <= LARGEST_SHARD_BYTES:
        raise KposeError(f"shards of {shard_bytes} bytes are not possible: 64 KiB to {LARGEST_SHARD_BYTES >> 20} MiB are")
    if (folder / MANIFEST).exists():
        raise KposeError(f"{folder} already holds crops; give another folder, or delete it")
    if any(entry.format == "tfrecord" for entry in config.data.train):
        raise KposeError("'data.train' is TFRecord shards; give the datasets that they were written from")
    sets = training_sets(config)
    skeleton = get_skeleton(config.skeleton)
    shards: list[dict[str, Any]] = []
    datasets: list[CropDataset] = []
    pending: list[dict[str, Any]] = []
    left_out = 0

    def flush() -> None:
        if not pending:
            return
        path = folder / f"crops-{len(shards):03d}.npz"
        save_arrays(path, _columns_of(pending, skeleton.num_joints))
        shards.append({"file": path.name, "people": len(pending), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
        pending.clear()

    position = filled = 0
    for number, entry in enumerate(config.data.train):
        part = sets.parts[position]
        assert isinstance(part, Instances)
        people = 0
        for person in _cut_people(part, config, side, quality, threads):
            if person is None:
                left_out += 1
                continue
            size = len(person["jpeg"]) + skeleton.num_joints * 12 + _PERSON_BYTES
            if filled + size > shard_bytes - _HEADER_BYTES:
                flush()
                filled = 0
            pending.append({**person, "dataset": number})
            filled += size
            people += 1
        if not people:
            raise KposeError(f"not a single picture of {label_of(entry)} can be read; check 'images'")
        # Without weights everybody comes equally often, so that a dataset's share is its size.
        weight = sets.weights[position] if sets.weights else float(people * entry.repeat)
        datasets.append(CropDataset(label_of(entry), people, weight))
        position += entry.repeat
    flush()
    manifest = {
        "format": FORMAT,
        "skeleton": skeleton.to_dict(),
        "side": side,
        "quality": quality,
        "datasets": [{"name": entry.name, "people": entry.people, "weight": entry.weight} for entry in datasets],
        "shards": shards,
        "settings": config.model_dump(mode="json"),
    }
    write_json(manifest, folder / MANIFEST, indent=1)
    written = read_crop_shards(folder)
    size = sum((folder / shard["file"]).stat().st_size for shard in shards)
    note = f", {left_out} left out because their picture cannot be read or does not show them" if left_out else ""
    print(f"{len(written)} people in {len(shards)} shards of {size / 2**20:.0f} MiB together: {folder}{note}")
    return written


def regions(boxes: np.ndarray, image_sizes: np.ndarray, crop_size: geometry.Size, padding: float) -> np.ndarray:
    """The part of the photo that is stored for each person.

    Args:
        boxes: `(n, 4)` x, y, width, height, image frame.
        image_sizes: `(n, 2)` height and width of the photos.
        crop_size: height and width of the crop.
        padding: of the boxes, as in training.

    Returns:
        `(n, 4)` int64 x, y, width, height; width or height is 0 or less where the photo does not show the person.
    """
    center, size = geometry.fit_box_to_aspect(boxes.astype(np.float64), crop_size, padding * REACH)
    half = size.max(axis=1, keepdims=True) / 2
    start = np.maximum(np.floor(center - half), 0)
    stop = np.minimum(np.ceil(center + half) + 1, image_sizes[:, ::-1])
    return np.concatenate([start, stop - start], axis=1).astype(np.int64)


def _cut_people(people: Instances, config: Config, side: int, quality: int, threads: int | None) -> Iterator[dict[str, Any] | None]:
    """The record of each person, picture by picture; None for those who cannot be had."""
    import cv2

    def cut(image: int) -> list[dict[str, Any] | None]:
        chosen = np.flatnonzero(people.image_index == image)
        try:
            content = np.fromfile(people.image_files[image], np.uint8)
        except OSError:
            content = np.empty(0, np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if len(content) else None
        if picture is None:
            return [None] * len(chosen)
        sizes = np.broadcast_to(picture.shape[:2], (len(chosen), 2))
        parts = regions(people.boxes[chosen], sizes, config.model.input_size, config.data.box_padding)
        return [record(content, picture, part, person) for person, part in zip(chosen, parts, strict=True)]

    def record(content: np.ndarray, picture: np.ndarray, part: np.ndarray, person: np.integer) -> dict[str, Any] | None:
        x, y, width, height = (int(value) for value in part)
        if min(width, height) < 1:
            return None
        factor = min(1.0, side / max(width, height))
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        if size == picture.shape[1::-1] and content[:3].tolist() == _JPEG:
            jpeg = content  # the whole photo, as it is: not encoded a second time
        else:
            region = picture[y : y + height, x : x + width]
            if factor < 1:
                region = cv2.resize(region, size, interpolation=cv2.INTER_AREA)
            jpeg = cv2.imencode(".jpg", region, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].ravel()
        box, keypoints, offset = people.boxes[person], people.keypoints[person], np.array([x, y], np.float32)
        return {
            "jpeg": jpeg,
            "keypoints": np.concatenate([keypoints[:, :2] - offset, keypoints[:, 2:]], axis=1),
            "box": np.concatenate([box[:2] - offset, box[2:]]),
            "shrink": np.array(size, np.float64) / (width, height),
            "size": size[::-1],
        }

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        images = np.unique(people.image_index)
        # A few hundred pictures ahead at most: the records of all of them need not fit into memory.
        for block in np.array_split(images, max(len(images) // 256, 1)):
            for records in pool.map(cut, block):
                yield from records


def _columns_of(people: Sequence[dict[str, Any]], joints: int) -> dict[str, np.ndarray]:
    lengths = [len(person["jpeg"]) for person in people]
    return {
        "jpegs": np.concatenate([person["jpeg"] for person in people]),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "keypoints": np.stack([person["keypoints"] for person in people]).astype(np.float32).reshape(-1, joints, 3),
        "boxes": np.stack([person["box"] for person in people]).astype(np.float32),
        "shrink": np.stack([person["shrink"] for person in people]).astype(np.float32),
        "sizes": np.array([person["size"] for person in people], np.int32),
        "dataset": np.array([person["dataset"] for person in people], np.int32),
    }


def describe(crops: CropShards) -> str:
    """One line: how many people of which datasets, and their shares."""
    total = sum(entry.weight for entry in crops.datasets)
    parts = [f"{entry.people} of {entry.name} ({entry.weight / total:.1%})" for entry in crops.datasets]
    return f"{len(crops)} people: {', '.join(parts)}"
