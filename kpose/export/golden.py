"""Golden vectors: small photos, boxes, and what every runner must make of them, in a folder that any language reads.

The format and the mathematics of each step are described in `tflite/golden/README.md`, from which alone a runner can be written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import tensorflow as tf

from kpose import geometry
from kpose.checkpoint import load_model
from kpose.codecs import GaussianCodec
from kpose.data.crops import Preparation, sample_crop
from kpose.errors import KposeError
from kpose.files import replacing
from kpose.inference.test_time import Forward, compile_forward
from kpose.models import build_model
from kpose.weights.pretrained import find_checkpoint

Decoding = Literal["argmax", "quarter_offset", "dark"]
DECODINGS: tuple[Decoding, ...] = get_args(Decoding)
INDEX = "golden.txt"
TITLE = "kpose golden vectors 1"
# Of a crop every third row and column is kept, in 256ths of a grey level; of heatmaps everything, in 16384ths, which float32 holds exactly.
CROP_STEP = 3
CROP_UNIT = 256
HEATMAP_UNIT = 16384
_STRIDE = 4


@dataclass(frozen=True)
class Case:
    """One person.

    Attributes:
        name: of the case, and of its files.
        photo: name of the file, without its ending.
        box: x, y, width, height in the photo.
        padding: factor by which the box is grown.
        alignment: how photo, crop and heatmap correspond.
        sigma: standard deviation of the taught Gaussians, heatmap pixels: DARK's kernel depends on it.
        input_size: height and width of the crop.
        source: of the heatmaps: the network's for this crop, or drawn ones with maxima where decoders differ.
    """

    name: str
    photo: str
    box: tuple[float, float, float, float]
    padding: float
    alignment: geometry.Alignment
    sigma: float
    input_size: geometry.Size
    source: Literal["network", "drawn"] = "network"

    @property
    def heatmap_size(self) -> geometry.Size:
        """Height and width of the heatmaps."""
        return self.input_size[0] // _STRIDE, self.input_size[1] // _STRIDE

    def codec(self, decoding: Decoding) -> GaussianCodec:
        """The codec with one of the three decodings."""
        return GaussianCodec(self.input_size, self.heatmap_size, self.sigma, self.alignment, decoding=decoding)

    @property
    def matrix(self) -> np.ndarray:
        """`(2, 3)` float64, from the photo to the crop."""
        preparation = Preparation(self.codec("argmax"), self.padding)
        return preparation.views(np.array([self.box], np.float64))[0, 0]

    def crop(self, photo: np.ndarray) -> np.ndarray:
        """`(H, W, 3)` float32 in 0..255."""
        # As `PoseEstimator` does it: of the photo only the part that the crop shows.
        y, x, height, width = geometry.visible_region(self.matrix, self.input_size, np.array(photo.shape[:2]))
        moved = tf.constant(geometry.translate_source(self.matrix, np.array([x, y])), tf.float32)
        return sample_crop(tf.constant(photo[y : y + height, x : x + width]), moved, self.input_size).numpy()

    def keypoints(self, heatmaps: np.ndarray, decoding: Decoding) -> np.ndarray:
        """`(K, 3)` float64 x, y in the photo, and the score, of heatmaps `(h, w, K)`."""
        return geometry.transform_points(self.codec(decoding).decode(heatmaps), geometry.invert_affine(self.matrix))


_LARGE, _SMALL = (256, 192), (128, 96)
_WOMAN = (16.0, 38.0, 52.0, 122.0)
CASES = (
    Case("unbiased_large", "ceremony", _WOMAN, 1.25, "unbiased", 2.0, _LARGE),
    Case("classic_large", "astronaut", (4.5, 3.0, 98.0, 141.0), 1.25, "classic", 2.0, _LARGE),
    Case("unbiased_small", "camera", (1.0, 15.0, 75.0, 113.0), 1.25, "unbiased", 2.0, _SMALL),
    Case("classic_small", "ceremony", (108.0, 36.0, 56.0, 124.0), 1.0, "classic", 2.0, _SMALL),
    Case("leaves_left_and_below", "astronaut", (-40.25, 60.5, 120.0, 140.0), 1.25, "unbiased", 2.0, _SMALL),
    Case("leaves_above_and_right", "ceremony", (120.0, -30.0, 100.0, 70.0), 1.5, "classic", 2.0, _SMALL),
    Case("tiny_box", "camera", (97.25, 41.5, 1.5, 0.5), 1.25, "unbiased", 2.0, _SMALL),
    Case("drawn_sigma_1", "camera", (30.0, 20.0, 40.0, 20.0), 1.25, "classic", 1.0, _SMALL, "drawn"),
    Case("drawn_sigma_1_5", "camera", (30.0, 20.0, 20.0, 60.0), 1.25, "unbiased", 1.5, _SMALL, "drawn"),
    Case("drawn_sigma_2", "ceremony", _WOMAN, 1.25, "classic", 2.0, _SMALL, "drawn"),
    Case("drawn_sigma_3", "ceremony", _WOMAN, 1.25, "unbiased", 3.0, _SMALL, "drawn"),
)
# Of a photo's width and height; `kpose.inference.predictor.check_boxes` refuses them too.
REFUSED_BOXES = {
    "no_width": (40.0, 10.0, 0.0, 50.0),
    "no_height": (40.0, 10.0, 50.0, 0.0),
    "negative_width": (40.0, 10.0, -20.0, 50.0),
    "not_a_number": (float("nan"), 10.0, 20.0, 50.0),
    "infinite": (0.0, 0.0, float("inf"), 50.0),
    "right_of_the_photo": (180.0, 10.0, 20.0, 50.0),
    "below_the_photo": (10.0, 160.0, 20.0, 50.0),
    "left_of_the_photo": (-20.0, 10.0, 20.0, 50.0),
    "above_the_photo": (10.0, -50.0, 20.0, 50.0),
}
# Width and height: raw files do not say.
PHOTO_SIZES = {"astronaut": (144, 144), "camera": (128, 128), "ceremony": (180, 160)}


def read_photo(folder: Path, name: str) -> np.ndarray:
    """A photo of the folder, `(H, W, 3)` uint8 RGB.

    Raises:
        KposeError: when it is missing or of another size.
    """
    width, height = PHOTO_SIZES[name]
    path = folder / f"{name}.rgb"
    try:
        values = np.fromfile(path, np.uint8)
    except OSError as error:
        raise KposeError(f"cannot read {path}: {error.strerror}; golden vectors are made of the photos in their folder") from error
    if values.size != width * height * 3:
        raise KposeError(f"{path} has {values.size} bytes, expected {width} x {height} x 3")
    return values.reshape(height, width, 3)


def drawn_heatmaps(size: geometry.Size, sigma: float, joints: int) -> np.ndarray:
    """`(h, w, joints)` float32: maxima in the middle, on and near every edge; ties; maps without any maximum."""
    height, width = size
    places = [(9.3, 12.8), (11.5, 14.49), (0, 9), (1.2, 9), (2, 9.4), (width - 1, 9), (width - 2, 8.6), (width - 3, 9.2)]
    places += [(8, 0), (8.2, 1), (7.7, 2), (8, height - 1), (8.4, height - 2), (8, height - 3)]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    maps = np.zeros((height, width, joints), np.float32)
    for joint, (center_x, center_y) in enumerate(places[:joints]):
        maps[..., joint] = (0.95 - 0.02 * joint) * np.exp(-((x - center_x) ** 2 + (y - center_y) ** 2) / (2 * sigma**2))
    maps[..., -1] = -0.25  # nothing above 0
    maps[10:14, 7:12, -2] = 0.5  # many equal maxima: the first counts
    maps[..., -3] = np.random.default_rng(0).normal(0, 0.01, size)  # noise alone
    return maps


class GoldenNetwork:
    """A trained network at any input size: all of it is convolutional, its weights do not depend on it.

    Args:
        source: a checkpoint, or the name of a network that comes with kpose.

    Raises:
        KposeError: when there is no such network, or its codec is none of Gaussian heatmaps.
    """

    def __init__(self, source: str | Path) -> None:
        self.path = find_checkpoint(source)
        self._model = load_model(self.path)
        self._forwards: dict[tuple[int, ...], Forward] = {}
        self.card = self._model.card
        if self.card.codec.name != "gaussian":
            raise KposeError(f"{self.path} has the codec {self.card.codec.name!r}; golden vectors are for Gaussian heatmaps")

    @property
    def sha256(self) -> str:
        """Of its file."""
        return sha256_of(self.path)

    def heatmaps(self, crop: np.ndarray) -> np.ndarray:
        """`(h, w, K)` float32 of a crop `(H, W, 3)` in 0..255."""
        size = crop.shape[:2]
        if size not in self._forwards:
            model = build_model(self.card.name, self.card.make_skeleton().num_joints, size, **self.card.options)
            model.set_weights(self._model.get_weights())
            self._forwards[size] = compile_forward(model, 1)
        mean, std = np.asarray(self.card.mean, np.float32), np.asarray(self.card.std, np.float32)
        return np.asarray(self._forwards[size]((crop[None] / np.float32(255) - mean) / std)[0])


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_golden_vectors(source: str | Path, folder: str | Path) -> Path:
    """Write the expected values beside the photos in a folder.

    Args:
        source: the network, a checkpoint or the name of one that comes with kpose.
        folder: holds the photos of `PHOTO_SIZES` as raw RGB.

    Returns:
        The index that was written.

    Raises:
        KposeError: when photo or network are refused, heatmaps reach beyond what the format holds, or a file cannot be written.
    """
    folder = Path(folder)
    network = GoldenNetwork(source)
    joints = network.card.make_skeleton().num_joints
    lines = [TITLE, f"network {network.path.name.replace(' ', '_')} {network.sha256}", f"joints {joints}", ""]
    for case in CASES:
        crop = case.crop(read_photo(folder, case.photo))
        heatmaps = network.heatmaps(crop) if case.source == "network" else drawn_heatmaps(case.heatmap_size, case.sigma, joints)
        _write(folder / f"{case.name}.crop", pack_crop(crop))
        _write(folder / f"{case.name}.heatmaps", packed := pack_heatmaps(heatmaps, case.name))
        lines += [*_described(case, unpack_heatmaps(packed)), ""]
    photo = next(iter(PHOTO_SIZES))
    lines += [f"refused {name} {_photo(photo)} {_numbers(np.array(box))}" for name, box in REFUSED_BOXES.items()]
    index = folder / INDEX
    with replacing(index) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="ascii")
    return index


def _described(case: Case, heatmaps: np.ndarray) -> Iterator[str]:
    (height, width), (rows, columns) = case.input_size, case.heatmap_size
    yield f"case {case.name}"
    yield f"photo {_photo(case.photo)}"
    yield f"box {_numbers(np.array(case.box))}"
    yield f"padding {case.padding!r}"
    yield f"alignment {case.alignment}"
    yield f"sigma {case.sigma!r}"
    yield f"input {height} {width}"
    yield f"heatmaps {case.source} {rows} {columns}"
    yield f"affine {_numbers(case.matrix)}"
    for decoding in DECODINGS:
        yield f"{decoding} {_numbers(case.keypoints(heatmaps, decoding))}"


def pack_crop(crop: np.ndarray) -> np.ndarray:
    """What is stored of a crop `(H, W, 3)`: little-endian uint16."""
    return np.rint(crop[::CROP_STEP, ::CROP_STEP].astype(np.float64) * CROP_UNIT).astype("<u2")


def pack_heatmaps(heatmaps: np.ndarray, name: str) -> np.ndarray:
    """Heatmaps `(h, w, K)` as little-endian int16.

    Raises:
        KposeError: when they hold values beyond 2, or none that are numbers.
    """
    if not (np.abs(heatmaps) < np.iinfo(np.int16).max / HEATMAP_UNIT).all():
        raise KposeError(f"the heatmaps of case {name} hold values beyond 2 or not finite; expected Gaussians of height 1")
    return np.rint(heatmaps.astype(np.float64) * HEATMAP_UNIT).astype("<i2")


def unpack_heatmaps(packed: np.ndarray) -> np.ndarray:
    """The float32 heatmaps that are stored, exactly."""
    return packed.astype(np.float32) / np.float32(HEATMAP_UNIT)


def _write(path: Path, values: np.ndarray) -> None:
    with replacing(path) as partial:
        partial.write_bytes(values.tobytes())


def _photo(name: str) -> str:
    width, height = PHOTO_SIZES[name]
    return f"{name}.rgb {width} {height}"


def _numbers(values: np.ndarray) -> str:
    # C and Kotlin both read these spellings.
    special = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return " ".join(special.get(text, text) for text in (f"{value + 0.0:.10g}" for value in values.ravel()))


def read_index(folder: str | Path) -> dict[str, dict[str, list[str]]]:
    """The index of a folder of golden vectors: by case (and `""` for what precedes them) the words of each line by their first."""
    cases: dict[str, dict[str, list[str]]] = {"": {}}
    current = cases[""]
    for line in (Path(folder) / INDEX).read_text(encoding="ascii").splitlines()[1:]:
        key, *words = line.split() or [""]
        if key == "case":
            current = cases[words[0]] = {}
        elif key == "refused":
            cases[""][f"refused {words[0]}"] = words[1:]
        elif key:
            current[key] = words
    return cases
