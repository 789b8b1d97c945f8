"""Paints a posed figure: shaded solids in pixels, antialiased, with a depth buffer that says which joints one can see.

The two solids, a tapered elliptic capsule (limbs, trunk) and an ellipsoid (the head), are drawn from far to near. Where they
penetrate each other the depth buffer decides. Points are `(3,)`: image x, image y, nearness, all in pixels, centres at integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kpose.data.synthetic.figure import HEAD_RADII, Camera, Figure
from kpose.data.synthetic.outfit import TILE, Outfit
from kpose.skeletons import COCO_17

Pair = tuple[float, float]

# How far, in statures, the surface in front of a joint may lie before the joint counts as hidden: the thickness of its own part.
_DEPTH_OF_FLESH = {
    **{"nose": 0.02, "eye": 0.02, "ear": 0.025, "shoulder": 0.10, "elbow": 0.055, "wrist": 0.045},
    **{"hip": 0.125, "knee": 0.075, "ankle": 0.06},
}


class Canvas:
    """An image to paint one figure on, and what the figure covers.

    Attributes:
        planes: `(3, H, W)` float32 RGB of 0 to 255, painted in place; one plane per channel, because scattered pixels of a plane are quick
            to reach.
        coverage: `(H, W)` float32, how much of each pixel the figure covers.
        depth: `(H, W)` float32, nearness of the figure's surface; -inf where it is not.
    """

    def __init__(self, planes: np.ndarray, light: np.ndarray, ambient: float) -> None:
        self.planes = planes
        self.coverage = np.zeros(planes.shape[1:], np.float32)
        self.depth = np.full(planes.shape[1:], -np.inf, np.float32)
        self._positions = np.arange(self.coverage.size).reshape(self.coverage.shape)
        self._light: tuple[float, float, float] = tuple(light.tolist())
        self._ambient = ambient

    def region(self, x0: float, y0: float, x1: float, y1: float) -> Region | None:
        """The part of the image from one corner to another; None where nothing of it is in the image."""
        height, width = self.planes.shape[1:]
        left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
        right, bottom = min(width, math.ceil(x1) + 1), min(height, math.ceil(y1) + 1)
        if left >= right or top >= bottom:
            return None
        columns, rows = (np.arange(*ends, dtype=np.float32) for ends in ((left, right), (top, bottom)))
        return Region(columns, rows[:, None], self._positions[top:bottom, left:right].reshape(-1))

    def light_along(self, x: float, y: float, z: float) -> float:
        """How much of the light falls along a direction: x (right), y (down), z (to the viewer)."""
        return x * self._light[0] + y * self._light[1] + z * self._light[2]

    def light_on(self, normal: np.ndarray) -> np.ndarray:
        """The cosine between the light and `(3, n)` unit normals."""
        return np.array(self._light, np.float32) @ normal

    def brightness(self, facing: np.ndarray) -> np.ndarray:
        """Of a surface, from the cosine between its normal and the light."""
        return self._ambient + (1.08 - self._ambient) * np.maximum(facing, 0)

    def blend(self, pixels: np.ndarray, colour: np.ndarray, alpha: np.ndarray, depth: np.ndarray) -> None:
        """Lay `(3, n)` colours with the opacity `alpha` over `n` pixels, where they are nearer than what the figure has there.

        `pixels` are positions in the flattened image.
        """
        coverage, nearest = self.coverage.reshape(-1), self.depth.reshape(-1)
        before = nearest.take(pixels)
        alpha = alpha * (depth >= before)
        for plane, paint in zip(self.planes.reshape(3, -1), colour, strict=True):
            below = plane.take(pixels)
            plane[pixels] = below + alpha * (paint - below)
        coverage[pixels] = np.maximum(coverage.take(pixels), alpha)
        nearest[pixels] = np.where(alpha > 0.5, depth, before)


@dataclass(frozen=True)
class Region:
    """A rectangle of the image: `(w,)` columns and `(h, 1)` rows as coordinates, `(h w,)` positions in the flattened image."""

    columns: np.ndarray
    rows: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class Capsule:
    """A tapered solid around the segment from `start` to `end`, in pixels.

    Attributes:
        radii: half the width in the image at both ends.
        caps: how far the rounded ends reach beyond the segment.
        bulge: added to the radius midway.
        depths: half the thickness towards the viewer at both ends.
        colour: `(3,)`, where no texture covers it.
        texture: `(3, TILE, TILE)` of the covered part, if any; `texels` of it to a pixel.
        covered: the fraction of the length, from the start, that the texture covers.
    """

    start: np.ndarray
    end: np.ndarray
    radii: Pair
    caps: Pair
    depths: Pair
    colour: np.ndarray
    texture: np.ndarray | None = None
    texels: float = 1.0
    covered: float = 1.0
    bulge: float = 0.0

    @property
    def nearness(self) -> float:
        """Of its middle, for the order of painting."""
        return float(self.start[2] + self.end[2]) / 2

    def paint(self, canvas: Canvas) -> None:
        """Draw it on the canvas."""
        reach = max(*self.radii, *self.caps) + abs(self.bulge) + 1
        (x0, y0, z0), (x1, y1, z1) = self.start.tolist(), self.end.tolist()
        found = canvas.region(min(x0, x1) - reach, min(y0, y1) - reach, max(x0, x1) + reach, max(y0, y1) + reach)
        if found is None:
            return
        length = max(math.hypot(x1 - x0, y1 - y0), 1e-3)
        ax, ay = ((x1 - x0) / length, (y1 - y0) / length) if length > 1e-3 else (0.0, 1.0)
        dx, dy = found.columns - x0, found.rows - y0
        across = (dy * ax - dx * ay).reshape(-1)
        chosen = np.flatnonzero(np.abs(across) < reach)
        across, along = across.take(chosen), (dx * ax + dy * ay).reshape(-1).take(chosen)
        t = np.minimum(np.maximum(along * (1 / length), 0), 1)
        (r0, r1), (c0, c1), (d0, d1) = self.radii, self.caps, self.depths
        radius = r0 + (r1 - r0) * t
        if self.bulge:
            radius += 4 * self.bulge * t * (1 - t)
        # Beyond the ends the solid goes on as half an ellipse: the radius wide, the cap long.
        beyond = along - t * length
        if (c0, c1) != (r0, r1):
            beyond *= np.where(beyond < 0, np.float32(r0 / c0), np.float32(r1 / c1))
        alpha = np.minimum(np.maximum(radius + 0.5 - np.sqrt(across * across + beyond * beyond), 0), 1)
        side, forward = across / radius, beyond / radius
        height = np.sqrt(np.maximum(1 - side * side - forward * forward, 0))
        facing = side * canvas.light_along(-ay, ax, 0) + forward * canvas.light_along(ax, ay, 0) + height * canvas.light_along(0, 0, 1)
        colour = self.colour[:, None]
        if self.texture is not None and self.covered > 0:
            # The offset makes the truncation of the cast a rounding down; it is a multiple of the tile.
            row, column = ((each * self.texels + 64 * TILE).astype(np.int32) & (TILE - 1) for each in (along, across))
            texel = row * TILE + column
            textured = self.texture.reshape(3, -1).take(texel, axis=1)
            colour = textured if self.covered >= 1 else np.where(t < self.covered, textured, colour)
        depth = z0 + (z1 - z0) * t + (d0 + (d1 - d0) * t) * height
        canvas.blend(found.positions[chosen], colour * canvas.brightness(facing), alpha, depth)


@dataclass(frozen=True)
class Ellipsoid:
    """A solid with three half-axes: `axes` holds their directions in its columns, `radii` their lengths, in pixels.

    `colour_at` is given `(3, n)` surface points in units of the radii along the axes, and gives `(3, n)` colours.
    """

    centre: np.ndarray
    axes: np.ndarray
    radii: np.ndarray
    colour_at: Callable[[np.ndarray], np.ndarray]

    @property
    def nearness(self) -> float:
        """Of its centre, for the order of painting."""
        return float(self.centre[2])

    def paint(self, canvas: Canvas) -> None:
        """Draw it on the canvas by casting a ray through every pixel."""
        reach = float(self.radii.max()) + 1
        x, y, z = self.centre.tolist()
        found = canvas.region(x - reach, y - reach, x + reach, y + reach)
        if found is None:
            return
        to_sphere = (self.axes.T / self.radii[:, None]).astype(np.float32)
        dx, dy = found.columns - x, found.rows - y
        ray = to_sphere[:, 2:]
        steepness = float(ray[:, 0] @ ray[:, 0])
        on_plane = (to_sphere[:, 0, None, None] * dx + to_sphere[:, 1, None, None] * dy).reshape(3, -1)
        middle = ray[:, 0] @ on_plane / steepness
        from_rim = 1 - (on_plane * on_plane).sum(0) + steepness * middle * middle
        alpha = (1 - np.sqrt(np.maximum(1 - from_rim, 0))) * float(self.radii.min()) + 0.5
        chosen = np.flatnonzero(alpha > 0)
        depth = np.sqrt(np.maximum(from_rim[chosen], 0) / steepness) - middle[chosen]
        surface = on_plane[:, chosen] + ray * depth
        normal = (self.axes / self.radii).astype(np.float32) @ surface
        normal /= np.sqrt((normal * normal).sum(0)) + 1e-6
        colour = self.colour_at(surface) * canvas.brightness(canvas.light_on(normal))
        canvas.blend(found.positions[chosen], colour, np.minimum(alpha[chosen], 1), depth + z)


# Parts of the face: centre on the unit sphere (x negated for the right side), half width and half height, all in head radii.
_EYE, _BROW, _MOUTH = (0.40, 0.08), (0.40, 0.30), (0.0, -0.50)


def _face(outfit: Outfit, soft: float) -> Callable[[np.ndarray], np.ndarray]:
    """Colours of a head: hair down to the hairline, brows, eyes and mouth in front. `soft` is a pixel in head radii."""
    lips = outfit.skin * np.array([0.78, 0.52, 0.52], np.float32)
    cover = outfit.cap if outfit.hair_style == "cap" else outfit.hair

    def colour_at(surface: np.ndarray) -> np.ndarray:
        x, y, z = surface
        colour = np.tile(outfit.skin[:, None], (1, x.size))

        def lay(paint: np.ndarray, centre: Pair, half: Pair, both_sides: bool = True) -> None:
            horizontal = ((np.abs(x) if both_sides else x) - centre[0]) / half[0]
            vertical = (y - centre[1]) / half[1]
            alpha = np.clip((1 - np.sqrt(horizontal * horizontal + vertical * vertical)) * min(half) / soft + 0.5, 0, 1) * (z > 0)
            colour[...] += alpha * (paint[:, None] - colour)

        lay(np.array([240, 240, 236], np.float32), _EYE, (0.19, 0.12))
        lay(outfit.eyes, _EYE, (0.10, 0.11))
        lay(outfit.hair * 0.8, _BROW, (0.22, 0.06))
        lay(lips, _MOUTH, (0.30, 0.085), both_sides=False)
        if outfit.glasses:
            ring = np.hypot(np.abs(x) - _EYE[0], (y - _EYE[1]) * 1.1)
            colour[:, (np.abs(ring - 0.30) < max(0.05, soft / 2)) & (z > 0)] = 25
        if outfit.hair_style != "bald":
            # High on the forehead, over the ears, down to the nape.
            hairline = 0.08 + 0.50 * z + (0.1 * (z < 0.2) if outfit.hair_style == "cap" else 0.0)
            hair = np.clip((y - hairline) / soft + 0.5, 0, 1)
            colour += hair * (cover[:, None] - colour)
        return colour

    return colour_at


def _solids(figure: Figure, camera: Camera, outfit: Outfit) -> list[Capsule | Ellipsoid]:
    """The parts of a dressed figure in the image."""
    size, girth = figure.proportions, figure.proportions.girth
    texels = TILE / (outfit.fabric_scale * camera.scale)
    skin, shirt, trousers = outfit.skin, outfit.shirt, outfit.trousers
    pixel = {name: camera.project(point) for name, point in figure.points.items()}
    scales = {name: camera.scale_at(point) for name, point in figure.points.items()}
    # Directions of the camera: image y points down.
    flip = np.array([[1.0], [-1.0], [1.0]])
    solids: list[Capsule | Ellipsoid] = []

    def limb(
        a: str, b: str, radii: Pair, colour: np.ndarray, texture: np.ndarray | None = None, covered: float = 0.0, bulge: float = 0.0
    ) -> None:
        thick = outfit.looseness if covered > 0.5 else 1.0
        ends = (radii[0] * thick * scales[a], radii[1] * thick * scales[b])
        solids.append(Capsule(pixel[a], pixel[b], ends, ends, ends, colour, texture, texels, covered, bulge * scales[a]))

    def trunk(
        start: np.ndarray, end: np.ndarray, axes: np.ndarray, widths: Pair, depths: Pair, rounding: Pair, texture: np.ndarray
    ) -> None:
        """A capsule of elliptic cross-section: what the viewer sees of its width and depth depends on how it is turned."""
        from_, to = camera.project(start), camera.project(end)
        lateral, _, forward = (flip * axes).T
        along = (to - from_) * (1, 1, 0)
        along /= max(float(np.hypot(along[0], along[1])), 1e-6)
        scale = (camera.scale_at(start), camera.scale_at(end))

        def extent(direction: np.ndarray, extra: Pair = (0.0, 0.0)) -> Pair:
            across, deep = float(direction @ lateral), float(direction @ forward)
            first, second = (scale[i] * (math.hypot(widths[i] * across, depths[i] * deep) + extra[i]) for i in (0, 1))
            return first, second

        perpendicular, to_viewer = np.array([-along[1], along[0], 0.0]), np.array([0.0, 0.0, 1.0])
        solids.append(Capsule(from_, to, extent(perpendicular), extent(along, rounding), extent(to_viewer), skin, texture, texels))

    loose = outfit.looseness
    for side in ("left", "right"):
        limb(f"{side}_heel", f"{side}_toe", (0.026, 0.019), outfit.shoes)
        leg = outfit.trouser_leg
        limb(f"{side}_hip", f"{side}_knee", (0.061 * girth, 0.040 * girth), skin, trousers, leg, 0.004)
        limb(f"{side}_knee", f"{side}_ankle", (0.038 * girth, 0.024 * girth), skin, trousers, leg - 1, 0.006 * girth)
        arm = outfit.sleeve
        limb(f"{side}_shoulder", f"{side}_elbow", (0.037 * girth, 0.027 * girth), skin, shirt, arm, 0.002)
        limb(f"{side}_elbow", f"{side}_wrist", (0.026 * girth, 0.018 * girth), skin, shirt, arm - 1, 0.003 * girth)
        limb(f"{side}_wrist", f"{side}_hand", (0.017, 0.016), skin, bulge=0.008)

    chest, waist, pelvis = (figure.points[name] for name in ("chest", "waist", "pelvis"))
    shoulders, hips = size.shoulder_width * 0.46, size.hip_width * 0.5 + 0.040 * girth
    around_waist, deep = 0.082 * girth**1.3 * loose**0.5, 0.064 * girth**1.3 * loose**0.5
    trunk(chest, waist, figure.chest_axes, (shoulders, around_waist), (0.062 * girth, deep), (0.025, 0.03), shirt)
    trunk(waist, pelvis, figure.pelvis_axes, (around_waist, hips), (deep, 0.072 * girth), (0.03, 0.01), shirt)
    trunk(0.35 * waist + 0.65 * pelvis, pelvis, figure.pelvis_axes, (hips, hips), (0.075 * girth,) * 2, (0.005, 0.035), trousers)
    if outfit.skirt:
        hem = (figure.points["left_knee"] + figure.points["right_knee"]) * 0.5
        spread = float(np.linalg.norm(figure.points["left_knee"] - figure.points["right_knee"])) / 2
        trunk(
            pelvis, 0.2 * pelvis + 0.8 * hem, figure.pelvis_axes, (hips, 0.8 * spread + 0.08), (0.08 * girth, 0.10), (0.02, 0.012), trousers
        )

    def solid_at(place: np.ndarray, radius: float, colour: np.ndarray, to: np.ndarray | None = None, end: float | None = None) -> None:
        other = place if to is None else to
        ends = (radius * camera.scale_at(place), (radius if end is None else end) * camera.scale_at(other))
        solids.append(Capsule(camera.project(place), camera.project(other), ends, ends, ends, colour))

    if outfit.backpack:
        back = -0.10 * girth * figure.chest_axes[:, 2]
        solid_at(0.9 * chest + 0.1 * waist + back, 0.075, outfit.shoes, waist + back, 0.085)
    # A neckline of bare skin and a badge: only a person seen from the front shows them.
    front = figure.chest_axes @ np.array([0.0, 0.0, 0.048 * girth])
    solid_at(chest + 0.02 * figure.chest_axes[:, 1] + 0.6 * front, 0.026, skin, 0.88 * chest + 0.12 * waist + front, 0.010)
    solid_at(0.72 * chest + 0.28 * waist + figure.chest_axes @ np.array([0.04, 0, 0.045 * girth]), 0.018, outfit.badge)

    head, axes = figure.points["head"], figure.head_axes
    radii = HEAD_RADII * size.head
    solid_at(chest - 0.01 * figure.chest_axes[:, 1], 0.036 * girth**0.5, skin, head - axes @ np.array([0, 0.5 * radii[1], 0.012]), 0.034)
    head_scale = camera.scale_at(head)
    face = _face(outfit, soft=1 / float(head_scale * radii[0]))
    solids.append(Ellipsoid(camera.project(head), flip * axes, radii * head_scale, face))
    solid_at(
        head + axes @ (radii * (0, -0.02, 0.93)), 0.007 * size.head, outfit.skin * 1.05, figure.points["nose"] * 0.97 + head * 0.03, 0.010
    )
    for side in ("left", "right"):
        ear = figure.points[f"{side}_ear"]
        solid_at(ear + axes @ np.array([0, 0.012, 0]), 0.011 * size.head, skin, ear - axes @ np.array([0, 0.010, 0]), 0.008 * size.head)
    if outfit.hair_style == "long":
        fall = head + axes @ (radii * (0, -0.1, -0.55))
        solid_at(fall, 0.052 * size.head, outfit.hair, fall + axes @ (radii * (0, -1.5, -0.15)), 0.038 * size.head)
    elif outfit.hair_style == "bun":
        solid_at(head + axes @ (radii * (0, 0.65, -1.0)), 0.030 * size.head, outfit.hair)
    elif outfit.hair_style == "cap":
        brim = head + axes @ (radii * (0, 0.62, 0.75))
        solid_at(brim, 0.030 * size.head, outfit.cap * 0.85, brim + axes @ (radii * (0, -0.05, 0.65)), 0.022 * size.head)
    return solids


def paint_figure(canvas: Canvas, figure: Figure, camera: Camera, outfit: Outfit) -> np.ndarray:
    """Paint one figure on a canvas that no other figure has been painted on.

    Returns:
        `(17, 3)` float64 keypoints in the order of `COCO_17`: image x, image y, and 2 where the joint can be seen, 1 where another part of
        the figure hides it, 0 outside the image.
    """
    for solid in sorted(_solids(figure, camera, outfit), key=lambda solid: solid.nearness):
        solid.paint(canvas)
    keypoints = np.zeros((COCO_17.num_joints, 3))
    height, width = canvas.planes.shape[1:]
    for joint, name in enumerate(COCO_17.joint_names):
        x, y, nearness = camera.project(figure.points[name])
        column, row = round(x), round(y)
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            continue
        hidden = canvas.depth[row, column] > nearness + _DEPTH_OF_FLESH[name.removeprefix("left_").removeprefix("right_")] * camera.scale
        keypoints[joint] = x, y, 1 if hidden else 2
    return keypoints
