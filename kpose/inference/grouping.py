"""Pictures, gathered until they fill the network's batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

# Name, `(H, W, 3)` uint8 RGB, and boxes `(n, 4)`; None: the people are still to be found.
NamedPicture = tuple[str, np.ndarray, np.ndarray | None]

# Decoded pictures that wait for a batch to fill, in pixels.
_WAITING_PIXELS = 50_000_000


def group_pictures(pictures: Iterable[NamedPicture], batch_size: int) -> Iterator[list[NamedPicture]]:
    """Pictures in their order, as many at a time as fill the network's batch or the memory set aside for them."""
    waiting: list[NamedPicture] = []
    people = pixels = 0
    for picture in pictures:
        _, image, boxes = picture
        waiting.append(picture)
        people += 1 if boxes is None else len(boxes)
        pixels += image.shape[0] * image.shape[1]
        if people >= batch_size or pixels >= _WAITING_PIXELS:
            yield waiting
            waiting, people, pixels = [], 0, 0
    if waiting:
        yield waiting
