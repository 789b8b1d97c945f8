"""What is lost between a keypoint and its maps: the encode-decode error of every codec, with maps that a perfect network would give.

Random joints in random crops of a photo, of a fixed seed. Errors are distances in pixels of the crop, the network's input:

* plain: photo -> crop -> maps -> crop;
* mirrored: maps of the crop with its columns reversed, brought back by `Codec.unmirror`;
* flip test: the mean of those and the plain maps, which is what networks are scored with;
* turned: the crop is cut out turned by up to 45 degrees and scaled, the joint is brought back to the photo, and the distance there is
  counted in pixels of the crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from kpose import geometry
from kpose.codecs import Codec, make_codec
from kpose.config import CodecConfig
from kpose.errors import KposeError

# Joints so many heatmap pixels from the edge are in the middle: no codec's error depends on the edge there.
MIDDLE = 10.0
# So many that some are in the middle.
FEWEST_JOINTS = 256
SIZES = ((256, 192), (384, 288), (256, 256))


@dataclass(frozen=True)
class CodecError:
    """The error of a codec at one input size, in crop pixels.

    Attributes:
        name: of the codec.
        input_size: height and width of the crop.
        errors: by way (plain, mirrored, flip test, turned): mean and maximum in the middle of the crop, mean and maximum in all of it.
    """

    name: str
    input_size: geometry.Size
    errors: dict[str, tuple[float, float, float, float]]


def published_codecs(input_size: geometry.Size) -> dict[str, CodecConfig]:
    """The encodings that are compared; sigma as HRNet's, 2 at 256 pixels and 3 at 384."""
    sigma = 3.0 if input_size[0] >= 384 else 2.0
    return {
        "classic, maximum": CodecConfig(sigma=sigma, decoding="argmax"),
        "classic": CodecConfig(sigma=sigma),
        "classic, decoded by DARK": CodecConfig(sigma=sigma, decoding="dark"),
        "exact centre": CodecConfig(sigma=sigma, center="exact"),
        "DARK": CodecConfig(sigma=sigma, center="exact", decoding="dark"),
        "unbiased": CodecConfig(sigma=sigma, alignment="unbiased"),
        "UDP": CodecConfig(sigma=sigma, alignment="unbiased", center="exact", decoding="dark"),
        "offset": CodecConfig(name="offset"),
        "offset, unbiased": CodecConfig(name="offset", alignment="unbiased"),
    }


def benchmark_codecs(input_sizes: Sequence[geometry.Size] = (), joints: int = 2048, seed: int = 0) -> list[CodecError]:
    """Measure and print the codecs.

    Args:
        input_sizes: heights and widths of crops, multiples of 4, for heatmaps have a quarter of them; none: the published ones.
        joints: how many random joints.
        seed: of the joints and crops.

    Returns:
        One for each codec and size, in the order of the table.

    Raises:
        KposeError: when a size is no multiple of 4 or too small to have a middle, or too few joints are asked for.
    """
    smallest = 4 * int(2 * MIDDLE + 4)
    for size in input_sizes:
        if any(side % 4 or side < smallest for side in size):
            raise KposeError(f"input size {size[0]}x{size[1]} does not fit: sides must be multiples of 4, {smallest} or more")
    if joints < FEWEST_JOINTS:
        raise KposeError(f"cannot measure {joints} joints; ask for {FEWEST_JOINTS} or more")
    cases = [(name, config, size) for size in input_sizes or SIZES for name, config in published_codecs(size).items()]
    measured = []
    for name, config, size in tqdm(cases, desc="measuring", unit="codec", leave=False):
        codec = make_codec(config, size, (size[0] // 4, size[1] // 4))
        measured.append(CodecError(name, size, measure_codec(codec, joints, seed)))
    print(format_errors(measured))
    print(
        f"\n{joints} random joints, seed {seed}; distances in crop pixels: mean / maximum of joints at least {MIDDLE:g} heatmap pixels "
        "from the edge (of joints anywhere in the crop)"
    )
    return measured


def measure_codec(codec: Codec, joints: int, seed: int) -> dict[str, tuple[float, float, float, float]]:
    """The errors of a codec by way, see `CodecError`."""
    random = np.random.default_rng(seed)
    size = np.array(codec.heatmap_size[::-1])
    points = np.concatenate([random.uniform(0, 1, (joints, 2)) * (size - 1), np.full((joints, 1), 2.0)], axis=-1)
    middle = ((points[:, :2] >= MIDDLE) & (points[:, :2] <= size - 1 - MIDDLE)).all(axis=-1)
    keypoints = geometry.heatmap_to_crop(points, codec.input_size, codec.heatmap_size, codec.alignment)
    in_mirror = keypoints * (-1, 1, 1) + (codec.input_size[1] - 1, 0, 0)
    # A turned crop is a place in a photo of its own for each joint.
    centers, widths = random.uniform(0, 1000, (joints, 2)), random.uniform(50, 800, joints)
    regions = np.stack([widths, widths * codec.input_size[0] / codec.input_size[1]], axis=-1)
    matrices = geometry.crop_matrix(centers, regions, codec.input_size, random.uniform(-45, 45, joints), alignment=codec.alignment)
    to_photo = geometry.invert_affine(matrices)
    in_photo = geometry.transform_points(keypoints[:, None], to_photo)
    photo_pixels = 1 / np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2])))

    parts: dict[str, list[np.ndarray]] = {"plain": [], "mirrored": [], "flip test": [], "turned": []}
    for part in np.array_split(np.arange(joints), -(-joints // 256)):
        maps = _encode(codec, keypoints[part, None])
        back = codec.unmirror(_encode(codec, in_mirror[part, None]), np.arange(1))
        for way, answer in (("plain", maps), ("mirrored", back), ("flip test", 0.5 * (maps + back))):
            parts[way].append(codec.decode(answer)[:, 0, :2] - keypoints[part, :2])
        turned = codec.decode(_encode(codec, geometry.transform_points(in_photo[part], matrices[part])))
        found = geometry.transform_points(turned, to_photo[part])[:, 0, :2]
        parts["turned"].append((found - in_photo[part, 0, :2]) / photo_pixels[part, None])
    errors = {}
    for way, differences in parts.items():
        distance = np.linalg.norm(np.concatenate(differences), axis=-1)
        inner = distance[middle]
        errors[way] = (float(inner.mean()), float(inner.max()), float(distance.mean()), float(distance.max()))
    return errors


def _encode(codec: Codec, keypoints: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    return np.asarray(codec.encode(tf.constant(keypoints, tf.float32))[0])


def format_errors(measured: Sequence[CodecError]) -> str:
    """The errors as a Markdown table."""
    ways = list(measured[0].errors)
    rows = [f"| input | codec | {' | '.join(ways)} |", f"|---|---|{'---|' * len(ways)}"]
    for one in measured:
        cells = ["{:.2f} / {:.2f} ({:.2f} / {:.2f})".format(*one.errors[way]) for way in ways]
        rows.append(f"| {one.input_size[0]}x{one.input_size[1]} | {one.name} | {' | '.join(cells)} |")
    return "\n".join(rows)
