"""What figures and things look like: fabrics, skin, hair, clothes."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

# Side of a texture tile; a power of two, so that a bit mask wraps an index.
TILE = 64


def random_colour(rng: np.random.Generator, saturation: float = 1.0) -> np.ndarray:
    """`(3,)` float32 RGB of 0 to 255: greys and muted tones are as common as bright ones, as in clothes and rooms."""
    hue, value = rng.random(), rng.uniform(0.12, 1.0)
    return np.array(colorsys.hsv_to_rgb(hue, saturation * rng.beta(1.0, 1.6), value), np.float32) * 255


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int) -> np.ndarray:
    """`(height, width)` float32 of about -1 to 1: random grids of `cells`, 2 `cells`, 4 `cells` ... per side, each half as strong."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        side = cells << octave
        grid = rng.random((min(side, height) + 1, min(side, width) + 1), dtype=np.float32) * 2 - 1
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR) * np.float32(0.5**octave)
    return total


def random_fabric(rng: np.random.Generator, plainness: float = 0.4) -> np.ndarray:
    """A `(3, TILE, TILE)` float32 texture: plain, striped, plaid, dotted or mottled; `plainness` is the chance of the first."""
    first, second = random_colour(rng), random_colour(rng)
    kind = str(rng.choice(("along", "across", "plaid", "dots", "mottled"), p=(0.2, 0.28, 0.2, 0.12, 0.2)))
    if rng.random() < plainness:
        return first[:, None, None] + np.float32(6) * rng.standard_normal((TILE, TILE), dtype=np.float32)
    ramp = np.arange(TILE)
    bands = ((ramp * int(rng.choice((2, 4, 8))) // (TILE // 2)) % 2 if rng.random() < 0.7 else ramp % 32 < 6).astype(np.float32)
    if kind == "across":
        mix = np.tile(bands[:, None], (1, TILE))
    elif kind == "along":
        mix = np.tile(bands[None], (TILE, 1))
    elif kind == "plaid":
        mix = 0.5 * (bands[:, None] + bands[None])
    elif kind == "dots":
        centred = ramp % 16 - 7.5
        mix = (np.hypot(centred[:, None], centred[None]) < rng.uniform(3, 6)).astype(np.float32)
    else:
        mix = (smooth_noise(rng, TILE, TILE, 6, 2) > 0).astype(np.float32)
    return first[:, None, None] + mix.astype(np.float32) * (second - first)[:, None, None]


@dataclass(frozen=True)
class Outfit:
    """Colours are `(3,)` float32 RGB of 0 to 255; fabrics are textures of `random_fabric`.

    Attributes:
        sleeve, trouser_leg: how much of an arm and of a leg is covered, 0 (bare) to 2 (both segments).
        looseness: thickness of clothed limbs relative to the body.
        hair_style: `bald`, `short`, `long`, `bun` or `cap`.
        fabric_scale: side of a texture tile in statures.
    """

    skin: np.ndarray
    hair: np.ndarray
    eyes: np.ndarray
    cap: np.ndarray
    shirt: np.ndarray
    trousers: np.ndarray
    shoes: np.ndarray
    badge: np.ndarray
    sleeve: float
    trouser_leg: float
    looseness: float
    hair_style: str
    skirt: bool
    backpack: bool
    glasses: bool
    fabric_scale: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Outfit:
        """Clothes, skin and hair of a random person."""
        # Along the line from the palest to the darkest skin, with a little hue to either side.
        darkness = rng.beta(1.1, 1.3)
        skin = np.array([248, 214, 188]) * (1 - darkness) + np.array([76, 48, 36]) * darkness + rng.normal(0, 5, 3)
        hairs = ((25, 20, 18), (60, 40, 28), (105, 70, 40), (205, 170, 110), (150, 70, 35), (170, 168, 165), (235, 230, 225))
        shirt = random_fabric(rng)
        return cls(
            skin=np.clip(skin, 20, 255).astype(np.float32),
            hair=np.clip(np.array(hairs[rng.choice(7, p=(0.28, 0.24, 0.16, 0.13, 0.07, 0.07, 0.05))]) + rng.normal(0, 8, 3), 5, 250).astype(
                np.float32
            ),
            eyes=np.array(((50, 32, 20), (40, 70, 120), (60, 90, 50))[rng.integers(3)], np.float32),
            cap=random_colour(rng),
            shirt=shirt,
            trousers=shirt if rng.random() < 0.08 else random_fabric(rng, plainness=0.7),
            shoes=random_colour(rng),
            badge=random_colour(rng),
            sleeve=float(rng.choice((0.1, rng.uniform(0.4, 0.9), rng.uniform(1.5, 2.0)), p=(0.15, 0.4, 0.45))),
            trouser_leg=float(rng.choice((rng.uniform(0.3, 0.95), rng.uniform(1.4, 2.0)), p=(0.3, 0.7))),
            looseness=float(rng.uniform(1.02, 1.3)),
            hair_style=str(rng.choice(("bald", "short", "long", "bun", "cap"), p=(0.08, 0.42, 0.25, 0.1, 0.15))),
            skirt=bool(rng.random() < 0.14),
            backpack=bool(rng.random() < 0.08),
            glasses=bool(rng.random() < 0.12),
            fabric_scale=float(rng.uniform(0.15, 0.35)),
        )
