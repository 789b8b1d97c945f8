"""Composes one picture: a background, things, people one behind the other, and what a camera does to it all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from kpose.data.synthetic.figure import Camera, Figure, Proportions, build_figure, rotation, sample_pose
from kpose.data.synthetic.outfit import TILE, Outfit, random_colour, random_fabric, smooth_noise
from kpose.data.synthetic.painter import Canvas, paint_figure

# Bits behind the binary point in the coordinates that OpenCV draws at.
_SHIFT = 4
# A hidden joint farther outside the visible part, in fractions of the box's longer side, is not annotated: nobody could place it.
_FARTHEST_HIDDEN = 0.1
# Nor are the hidden joints of somebody of whom less than this fraction is to be seen.
_LEAST_SEEN = 0.2
# How often a person is moved who would stand in front of, or behind, another too exactly.
_PLACEMENTS = 4


@dataclass(frozen=True)
class Person:
    """Ground truth in the image frame.

    Attributes:
        keypoints: `(17, 3)` float64 in the order of `COCO_17`; visibility 2 visible, 1 hidden, 0 (and x = y = 0) not annotated.
        box: `(4,)` x, y, width, height of the pixels that show the person.
        area: how many pixels those are.
    """

    keypoints: np.ndarray
    box: np.ndarray
    area: int


@dataclass(frozen=True)
class Scene:
    """A picture, `(H, W, 3)` uint8 RGB, and everybody to be seen in it."""

    image: np.ndarray
    people: tuple[Person, ...]


def _fixed(*points: tuple[float, float]) -> np.ndarray:
    """Points as OpenCV's fixed-point integers, pixel centres at integers."""
    return np.round(np.array(points) * (1 << _SHIFT)).astype(np.int32)


def _fill(image: np.ndarray, colour: np.ndarray | int, *corners: tuple[float, float]) -> None:
    """Fill an antialiased polygon in a uint8 image of one or three channels."""
    cv2.fillPoly(image, [_fixed(*corners)], np.asarray(colour, float).reshape(-1).tolist(), cv2.LINE_AA, _SHIFT)


def _rectangle(image: np.ndarray, colour: np.ndarray | int, left: float, top: float, right: float, bottom: float) -> None:
    _fill(image, colour, (left, top), (right, top), (right, bottom), (left, bottom))


def _disc(image: np.ndarray, colour: np.ndarray | int, x: float, y: float, radius: float) -> None:
    centre = _fixed((x, y))[0].tolist()
    cv2.circle(image, centre, round(radius * (1 << _SHIFT)), np.asarray(colour, float).reshape(-1).tolist(), -1, cv2.LINE_AA, _SHIFT)


# --- backgrounds: (height, width, 3) uint8 ---


def _gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    corners = np.stack([random_colour(rng) for _ in range(4)]).reshape(2, 2, 3)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 255).astype(np.uint8)


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    mix = smooth_noise(rng, height, width, int(rng.choice((2, 4, 8))), int(rng.integers(2, 6)))
    levels = cv2.convertScaleAbs(np.clip(0.5 + mix * rng.uniform(0.3, 1.2), 0, 1), alpha=255)
    ramp = np.linspace(random_colour(rng), random_colour(rng), 256).astype(np.uint8)
    return cv2.LUT(cv2.merge([levels] * 3), ramp[:, None])


def _pattern(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Wallpaper, bricks, planks: a fabric over the whole image, turned and scaled."""
    tile = np.ascontiguousarray(random_fabric(rng).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    angle, zoom = float(rng.choice((0, 90, rng.uniform(0, 180)))), float(rng.uniform(0.5, 2.5))
    # Enough tiles to cover the image, whichever way they are turned about its centre.
    repeats = math.ceil(math.hypot(height, width) / (zoom * TILE)) + 1
    surface = np.tile(tile, (repeats, repeats, 1))
    side = repeats * TILE
    turned = cv2.getRotationMatrix2D((side / 2, side / 2), angle, zoom)
    centred = turned + np.array([[0, 0, (width - side) / 2], [0, 0, (height - side) / 2]])
    return cv2.warpAffine(surface, centred, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _room(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A wall, a tiled floor towards a vanishing point, windows and pictures."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = random_colour(rng, 0.5)
    horizon = rng.uniform(0.45, 0.85) * height
    for _ in range(rng.integers(0, 5)):
        left, top = rng.uniform(0, 0.9) * width, rng.uniform(-0.1, 0.5) * height
        wide, high = rng.uniform(0.06, 0.35) * width, rng.uniform(0.08, 0.5) * height
        _rectangle(image, random_colour(rng), left, top, left + wide, top + high)
        _rectangle(image, random_colour(rng), left + 3, top + 3, left + wide - 3, top + high - 3)
    _rectangle(image, random_colour(rng, 0.6), -1, horizon, width, height)
    line, vanishing = random_colour(rng, 0.4), rng.uniform(0, 1) * width
    for bottom in np.arange(-2 * width, 3 * width, rng.uniform(0.15, 0.5) * width):
        start = vanishing + 0.25 * (bottom - vanishing)
        _fill(image, line, (start, horizon), (start + 1, horizon), (bottom + 3, height), (bottom, height))
    for row in horizon + (height - horizon) * np.linspace(0, 1, int(rng.integers(3, 9))) ** 1.7:
        _rectangle(image, line, -1, row, width, row + 1)
    return image


def _street(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A sky, houses with rows of windows, a ground."""
    image = _gradient(rng, height, width)
    ground = rng.uniform(0.5, 0.9) * height
    left = rng.uniform(-0.2, 0) * width
    while left < width:
        wide, top = rng.uniform(0.1, 0.35) * width, rng.uniform(-0.1, 0.8) * ground
        _rectangle(image, random_colour(rng, 0.5), left, top, left + wide, ground)
        pane, glass = max(4.0, wide / rng.integers(3, 7)), random_colour(rng)
        for x in np.arange(left + pane / 3, left + wide - pane / 2, pane):
            for y in np.arange(top + pane / 2, ground - pane, 1.4 * pane):
                _rectangle(image, glass, x, y, x + pane / 2, y + 0.7 * pane)
        left += wide
    _rectangle(image, random_colour(rng, 0.5), -1, ground, width, height)
    return image


def _foliage(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Overlapping blobs: leaves, gravel, a crowd out of focus."""
    image = _gradient(rng, height, width)
    base, size = random_colour(rng), rng.uniform(0.02, 0.1) * width
    for x, y, radius, tone in rng.random((int(rng.integers(40, 160)), 4)):
        _disc(image, np.clip(base * (0.4 + tone), 0, 255), x * width, y * height, size * (0.3 + radius))
    return image


_BACKGROUNDS: tuple[Callable[[np.random.Generator, int, int], np.ndarray], ...] = (_gradient, _clouds, _pattern, _room, _street, _foliage)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """`(3, height, width)` float32: one of the kinds, with stains and grain so that no surface is quite even."""
    image = _BACKGROUNDS[rng.choice(len(_BACKGROUNDS), p=(0.1, 0.2, 0.15, 0.25, 0.15, 0.15))](rng, height, width)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.8, 3.0)))
    planes = np.stack(cv2.split(image)).astype(np.float32)
    planes += np.float32(rng.uniform(0, 25)) * smooth_noise(rng, height, width, 4, 3)
    return planes


# --- things: a mask each, drawn into a (height, width) uint8 image ---


def _crate(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    half, high, slant = size * rng.uniform(0.3, 0.6), size * rng.uniform(0.3, 0.7), size * rng.uniform(-0.15, 0.15)
    _fill(mask, 255, (x - half, y - high), (x + half, y - high + slant), (x + half, y + high), (x - half, y + high))


def _table(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    half, high, thick = size * rng.uniform(0.5, 0.9), size * rng.uniform(0.3, 0.5), max(2.0, 0.07 * size)
    _rectangle(mask, 255, x - half, y - high, x + half, y - high + thick)
    for leg in (x - 0.9 * half, x + 0.8 * half):
        _rectangle(mask, 255, leg, y - high, leg + thick, y + high)


def _pole(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    """A post, a pipe, a branch; as thick as a limb, so that not every long thing is one."""
    angle, half, thick = (
        rng.normal(0, 0.35) + np.pi / 2 * (rng.random() < 0.35),
        size * rng.uniform(0.4, 1.3),
        size * rng.uniform(0.03, 0.12),
    )
    dx, dy = half * np.sin(angle), half * np.cos(angle)
    cv2.line(
        mask, _fixed((x - dx, y - dy))[0].tolist(), _fixed((x + dx, y + dy))[0].tolist(), 255, max(1, round(thick)), cv2.LINE_AA, _SHIFT
    )


def _plant(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    for angle in rng.uniform(-1.3, 1.3, int(rng.integers(5, 11))):
        long, wide = size * rng.uniform(0.4, 0.9), size * rng.uniform(0.04, 0.10)
        tip = (x + long * np.sin(angle), y - long * np.cos(angle))
        bend = (x + 0.5 * long * np.sin(angle * 0.6), y - 0.5 * long * np.cos(angle * 0.6))
        _fill(mask, 255, (x, y), (bend[0] - wide, bend[1] - wide), tip, (bend[0] + wide, bend[1] + wide))
    _rectangle(mask, 255, x - 0.15 * size, y, x + 0.15 * size, y + 0.35 * size)


def _ball(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    _disc(mask, 255, x, y, size * rng.uniform(0.12, 0.4))


def _fence(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    step, thick, high = size * rng.uniform(0.18, 0.35), max(1.5, size * rng.uniform(0.02, 0.05)), size * rng.uniform(0.2, 0.5)
    for post in range(-3, 4):
        _rectangle(mask, 255, x + post * step, y - high, x + post * step + thick, y + high)
    for rail in (-0.8, 0.5):
        _rectangle(mask, 255, x - 3.3 * step, y + rail * high, x + 3.3 * step, y + rail * high + thick)


_THINGS = (_crate, _table, _pole, _plant, _ball, _fence)


def _lay_thing(
    rng: np.random.Generator,
    planes: np.ndarray,
    centre: tuple[float, float],
    size: float,
    thing: Callable[[np.random.Generator, np.ndarray, float, float, float], None] | None = None,
) -> np.ndarray:
    """Paint a thing on `(3, H, W)` float32 planes, in place; gives its `(H, W)` float32 coverage."""
    mask = np.zeros(planes.shape[1:], np.uint8)
    (thing or _THINGS[rng.integers(len(_THINGS))])(rng, mask, *centre, size)
    coverage = mask.astype(np.float32) * np.float32(1 / 255)
    x, y, w, h = cv2.boundingRect(mask)
    if w and h:
        texture = random_fabric(rng)
        zoom = rng.uniform(0.4, 1.6)
        columns, rows = ((np.arange(count) * zoom).astype(int) & (TILE - 1) for count in (w, h))
        surface = texture[:, rows][:, :, columns] * np.linspace(rng.uniform(0.7, 1.1), rng.uniform(0.5, 1), w, dtype=np.float32)
        target = planes[:, y : y + h, x : x + w]
        target += coverage[y : y + h, x : x + w] * (surface - target)
    return coverage


# --- people ---


def _place(rng: np.random.Generator, figure: Figure, height: int, width: int, stature: float) -> tuple[Camera, np.ndarray]:
    """A camera that puts the figure somewhere into the image, now and then partly out of it; and its `(2, 2)` corners there."""
    camera = Camera(stature, (0.0, 0.0), distance=float(rng.uniform(3.5, 9.0)))
    spots = np.stack([camera.project(point)[:2] for point in figure.points.values()])
    low, high = spots.min(0) - 0.05 * stature, spots.max(0) + 0.05 * stature
    size = np.array([width, height])
    # Inside where it fits; a share of the overhang otherwise, and a nudge across the border for one in four.
    slack = size - (high - low)
    corner = np.where(slack > 0, slack * rng.random(2), slack * rng.uniform(0.1, 0.9, 2))
    if rng.random() < 0.25:
        corner += rng.normal(0, 0.15, 2) * stature
    x, y = corner - low
    return Camera(stature, (float(x), float(y)), camera.distance), np.stack([corner, corner + high - low])


def _overlap(corners: np.ndarray, other: np.ndarray) -> float:
    """The area that two boxes, `(2, 2)` corners each, share; relative to the smaller one."""
    shared = np.maximum(np.minimum(corners[1], other[1]) - np.maximum(corners[0], other[0]), 0).prod()
    return float(shared / min(np.ptp(corners, axis=0).prod(), np.ptp(other, axis=0).prod()))


def _heading(rng: np.random.Generator, simple: bool) -> float:
    """Degrees about the vertical: half of the people (all, in a simple scene) roughly face the camera; the others face anywhere."""
    return float(rng.normal(0, 35) if simple or rng.random() < 0.5 else rng.uniform(-180, 180))


def _shadow(planes: np.ndarray, figure: Figure, camera: Camera, strength: float) -> None:
    """Darken the ground under the figure."""
    feet = np.stack([camera.project(figure.points[name])[:2] for name in ("left_ankle", "right_ankle", "left_toe", "right_toe")])
    centre, reach = feet.mean(0), np.ptp(feet, axis=0) / 2 + camera.scale * np.array([0.12, 0.03])
    mask = np.zeros(planes.shape[1:], np.uint8)
    box = (_fixed(tuple(centre))[0].tolist(), _fixed(tuple(reach))[0].tolist())
    cv2.ellipse(mask, box[0], box[1], 0, 0, 360, 255, -1, cv2.LINE_AA, _SHIFT)
    x, y, w, h = cv2.boundingRect(mask)
    if w and h:
        planes[:, y : y + h, x : x + w] *= 1 - np.float32(strength / 255) * mask[y : y + h, x : x + w]


def _ground_truth(keypoints: np.ndarray, remaining: np.ndarray, drawn_area: int) -> Person | None:
    """What an annotator would note of a person of whom `remaining`, `(H, W)` float32 coverage, is still to be seen."""
    visible = remaining > 0.5
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    if not len(rows):
        return None
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    box = np.array([left, top, right - left, bottom - top], float)
    area = int(visible.sum())
    margin = _FARTHEST_HIDDEN * max(box[2:])
    annotated = keypoints.copy()
    for joint, (x, y, visibility) in enumerate(keypoints):
        if visibility == 2 and not visible[round(y), round(x)]:
            annotated[joint, 2] = 1
        near = left - margin <= x <= right + margin and top - margin <= y <= bottom + margin
        if annotated[joint, 2] == 1 and (not near or area < _LEAST_SEEN * drawn_area):
            annotated[joint] = 0
    return Person(annotated, box, area)


def _photograph(rng: np.random.Generator, planes: np.ndarray) -> np.ndarray:
    """Lens and sensor: blur, contrast, brightness, colour cast, noise. `(3, H, W)` float32 in, `(H, W, 3)` uint8 out."""
    image = cv2.merge([cv2.convertScaleAbs(plane) for plane in np.maximum(planes, 0)])
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.2)))
    if rng.random() < 0.08:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    gain, offset = rng.uniform(0.7, 1.2) * rng.uniform(0.9, 1.1, 3), rng.normal(0, 15)
    tones = np.clip((np.arange(256)[:, None] - 128) * gain + 128 + offset, 0, 255)
    image = cv2.LUT(image, np.rint(tones).astype(np.uint8)[:, None])
    # The sum of two even distributions is near enough to a normal one.
    strength = int(rng.integers(1, 14))
    grain = rng.integers(-strength, strength + 1, (2, *planes.shape[1:]), dtype=np.int8).sum(0, dtype=np.int16)
    return cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U)


def compose_scene(rng: np.random.Generator, height: int, width: int, num_people: int | None = None, simple: bool = False) -> Scene:
    """A random picture of `height` x `width` pixels.

    Args:
        rng: decides everything: equal generators give equal pictures.
        height: of the picture, in pixels.
        width: likewise.
        num_people: how many to draw; one to three, by chance, if None. Somebody wholly hidden behind others is not in the result.
        simple: one person alone who stands or walks, facing the camera, with nothing in front.
    """
    planes = _background(rng, height, width)
    for _ in range(rng.integers(0, 6)):
        _lay_thing(rng, planes, (rng.uniform(0, width), rng.uniform(0.2, 1) * height), rng.uniform(0.1, 0.45) * height)
    light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.9, 0.1), rng.uniform(0.4, 1.0)])
    light, ambient, pitch = light / np.linalg.norm(light), rng.uniform(0.35, 0.7), rng.normal(6, 8)
    if num_people is None:
        num_people = 1 if simple else int(rng.choice((1, 2, 3), p=(0.45, 0.35, 0.2)))
    # The tallest is nearest and painted last.
    statures = np.sort(np.clip(np.exp(rng.normal(np.log(0.75), 0.28, num_people)), 0.35, 1.5)) * min(height, 1.3 * width)
    painted: list[tuple[np.ndarray, np.ndarray, int]] = []
    taken: list[np.ndarray] = []

    def hide(coverage: np.ndarray) -> None:
        for _, remaining, _ in painted:
            remaining *= 1 - coverage

    for stature in statures:
        figure = build_figure(Proportions.sample(rng), sample_pose(rng, simple))
        figure = figure.turned(rotation(z=rng.normal(0, 4)) @ rotation(x=pitch) @ rotation(y=_heading(rng, simple)))
        for _ in range(_PLACEMENTS):
            camera, corners = _place(rng, figure, height, width, float(stature))
            if max((_overlap(corners, other) for other in taken), default=0.0) < rng.uniform(0.1, 0.7):
                break
        taken.append(corners)
        if rng.random() < 0.5:
            _shadow(planes, figure, camera, rng.uniform(0.2, 0.6))
        if figure.sitting and rng.random() < 0.8:
            x, y, _ = camera.project(figure.points["pelvis"])
            hide(_lay_thing(rng, planes, (float(x), float(y + 0.26 * stature)), 0.45 * float(stature), _crate))
        canvas = Canvas(planes, light, ambient)
        keypoints = paint_figure(canvas, figure, camera, Outfit.sample(rng))
        hide(canvas.coverage)
        painted.append((keypoints, canvas.coverage, int((canvas.coverage > 0.5).sum())))
        if not simple and rng.random() < 0.22:
            x, y, _ = camera.project(figure.points["pelvis"])
            spot = (float(x + rng.normal(0, 0.25) * stature), float(y + rng.uniform(-0.1, 0.5) * stature))
            hide(_lay_thing(rng, planes, spot, float(stature * rng.uniform(0.2, 0.5))))
    people = (_ground_truth(*each) for each in painted)
    return Scene(_photograph(rng, planes), tuple(person for person in people if person is not None))
