"""Pictures: poses and boxes on images, heatmaps over crops, contact sheets, training curves.

Images are `(H, W, 3)` uint8 RGB, in and out; what is drawn lands on a copy. Pixel centres are at integer coordinates. The left side of
a body is blue, its right side orange (told apart by readers with any kind of colour vision), its middle white.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from kpose.errors import KposeError
from kpose.files import read_number_table, replacing
from kpose.geometry import Alignment, heatmap_stride
from kpose.skeletons import Skeleton

Colour = tuple[int, int, int]

LEFT: Colour = (48, 156, 255)
RIGHT: Colour = (255, 138, 20)
MIDDLE: Colour = (250, 250, 250)
_OUTLINE: Colour = (22, 22, 28)
_BOX: Colour = (250, 222, 80)
_FAULT: Colour = (230, 20, 40)
_PAPER: Colour = (255, 255, 255)
_INK: Colour = (40, 40, 46)

# Bits behind the binary point in the coordinates that OpenCV draws at.
_SHIFT = 4
# Lines as wide as this fraction of the person are neither lost on a large figure nor cover a small one.
_LINE_WIDTH = 0.013
_FONT = cv2.FONT_HERSHEY_DUPLEX


def joint_colours(skeleton: Skeleton) -> list[Colour]:
    """The colour of each joint: `LEFT`, `RIGHT` or `MIDDLE`."""
    colours = [MIDDLE] * skeleton.num_joints
    for left, right in skeleton.left_right_pairs:
        colours[skeleton.index(left)], colours[skeleton.index(right)] = LEFT, RIGHT
    return colours


def draw_pose(image: np.ndarray, keypoints: np.ndarray, skeleton: Skeleton, minimum_score: float = 0.0) -> np.ndarray:
    """Draw one pose.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        keypoints: `(K, 3)` x, y in the image frame, and either a visibility or a score. Whole numbers alone are visibilities: 0 is not
            drawn, 1 (hidden) is drawn hollow. Points outside the image or NaN do no harm.
        skeleton: which joints they are.
        minimum_score: joints below it are not drawn.

    Returns:
        A copy of the image with the pose on it.

    Raises:
        KposeError: when the image or the number of joints does not fit.
    """
    return draw_poses(image, [keypoints], skeleton, minimum_score)


def draw_poses(image: np.ndarray, poses: Sequence[np.ndarray] | np.ndarray, skeleton: Skeleton, minimum_score: float = 0.0) -> np.ndarray:
    """Draw several poses, the largest first, so that small people are not covered.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        poses: any number of `(K, 3)` keypoints, as `draw_pose` takes them.
        skeleton: which joints they are.
        minimum_score: joints below it are not drawn.

    Raises:
        KposeError: when the image or the number of joints does not fit.
    """
    drawn = _checked_image(image).copy()
    checked = [_checked_keypoints(keypoints, skeleton) for keypoints in poses]
    people = [(keypoints, _joints_to_draw(keypoints, drawn, minimum_score)) for keypoints in checked]
    for keypoints, present in sorted(people, key=lambda person: -_extent(*person)):
        _draw_person(drawn, keypoints, present, skeleton)
    return drawn


def _draw_person(image: np.ndarray, keypoints: np.ndarray, present: np.ndarray, skeleton: Skeleton) -> None:
    """Draw on the image itself: first the dark outline of everything, then the colours."""
    colours = joint_colours(skeleton)
    hidden = (keypoints[:, 2] == 1) if np.all(keypoints[:, 2] == np.round(keypoints[:, 2])) else np.zeros(len(keypoints), bool)
    width = min(max(_LINE_WIDTH * _extent(keypoints, present), 1.1), 0.02 * max(image.shape[:2]) + 1)
    outline, radius = max(0.4, 0.3 * width), 1.15 * width
    limbs = [(a, b) for a, b in skeleton.limb_indices if present[a] and present[b]]
    for a, b in limbs:
        _bar(image, _OUTLINE, keypoints[a], keypoints[b], width + 2 * outline)
    for a, b in limbs:
        sides = {colours[a], colours[b]} - {MIDDLE}
        _bar(image, sides.pop() if len(sides) == 1 else MIDDLE, keypoints[a], keypoints[b], width)
    for joint in np.flatnonzero(present):
        _disc(image, _OUTLINE, keypoints[joint], radius + outline)
        _disc(image, colours[joint], keypoints[joint], radius)
        if hidden[joint]:
            _disc(image, _OUTLINE, keypoints[joint], 0.6 * radius)


def draw_box(image: np.ndarray, box: np.ndarray | Sequence[float], label: str = "") -> np.ndarray:
    """Draw a box.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        box: x, y, width, height in the image frame: it holds the pixels from x to x + width - 1.
        label: a word to put on its upper edge, such as a score.

    Raises:
        KposeError: when the image is none, or the box has not four numbers.
    """
    drawn = _checked_image(image).copy()
    values = np.asarray(box, float)
    if values.shape != (4,):
        raise KposeError(f"a box to draw is x, y, width, height; found {np.asarray(box).tolist()!r}")
    x, y, width, height = values
    corners = np.array([(x, y), (x + width - 1, y), (x + width - 1, y + height - 1), (x, y + height - 1)])
    if not _drawable(corners, drawn).all():
        return drawn
    thickness = max(1, round(max(image.shape[:2]) / 500))
    for colour, wide in ((_OUTLINE, thickness + 2), (_BOX, thickness)):
        cv2.polylines(drawn, [_fixed(corners)], True, colour, wide, cv2.LINE_AA, _SHIFT)
    if label:
        scale = 0.4 * max(1.0, thickness * 0.8)
        (wide, high), below = cv2.getTextSize(label, _FONT, scale, 1)
        left = int(np.clip(x, 0, max(0, drawn.shape[1] - wide - 6)))
        top = int(np.clip(y - high - below - 3, 0, max(0, drawn.shape[0] - high - below - 3)))
        cv2.rectangle(drawn, (left, top), (left + wide + 5, top + high + below + 2), _BOX, -1)
        cv2.putText(drawn, label, (left + 3, top + high + 2), _FONT, scale, _INK, 1, cv2.LINE_AA)
    return drawn


def draw_heatmaps(image: np.ndarray, heatmaps: np.ndarray, skeleton: Skeleton, alignment: Alignment = "classic") -> np.ndarray:
    """Lay the heatmaps of all joints over their crop, in the colour of each joint's side.

    Args:
        image: the crop, `(H, W, 3)` uint8 RGB.
        heatmaps: `(h, w, K)` of about 0 to 1, in the heatmap frame.
        skeleton: which joints they are.
        alignment: how the heatmap frame lies on the crop frame.

    Returns:
        A copy of the crop, darkened where nothing is expected, glowing where joints are.

    Raises:
        KposeError: when the image or the heatmaps do not fit.
    """
    image = _checked_image(image)
    heatmaps = _checked_heatmaps(heatmaps, skeleton)
    drawn = image.astype(np.float32) * 0.55
    sides = np.array([(LEFT, MIDDLE, RIGHT).index(colour) for colour in joint_colours(skeleton)])
    for side, colour in enumerate((LEFT, MIDDLE, RIGHT)):
        if not np.any(sides == side):
            continue
        opacity = _over_crop(heatmaps[..., sides == side].max(-1), image, alignment)[..., None]
        # The very peak is brightened towards white, so that it stays visible among the glow of its neighbours.
        glow = np.array(colour, np.float32) * (1 - 0.6 * opacity**3) + 255 * 0.6 * opacity**3
        drawn += opacity * (glow - drawn)
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)


def draw_heatmap_grid(
    image: np.ndarray, heatmaps: np.ndarray, skeleton: Skeleton, columns: int = 6, alignment: Alignment = "classic"
) -> np.ndarray:
    """A contact sheet with the crop under the heatmap of one joint at a time. Arguments and errors as for `draw_heatmaps`."""
    image = _checked_image(image)
    heatmaps = _checked_heatmaps(heatmaps, skeleton)
    cells = []
    for joint in range(skeleton.num_joints):
        opacity = _over_crop(heatmaps[..., joint], image, alignment)
        tinted = cv2.applyColorMap((opacity * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float32)
        cells.append(np.clip(0.45 * image + 0.75 * tinted, 0, 255).astype(np.uint8))
    peaks = np.nanmax(heatmaps.reshape(-1, skeleton.num_joints), axis=0)
    titles = [f"{name} {peak:.2f}" for name, peak in zip(skeleton.joint_names, peaks, strict=True)]
    return contact_sheet(cells, columns, titles)


def contact_sheet(images: Sequence[np.ndarray], columns: int = 6, titles: Sequence[str] | None = None, gap: int = 8) -> np.ndarray:
    """Images side by side in rows, each centred in a cell of the largest one's size, on white.

    Args:
        images: `(H, W, 3)` uint8 RGB of any sizes.
        columns: cells in a row; fewer if there are fewer images.
        titles: a line above each image, shortened where it is too wide.
        gap: pixels between cells and around them.

    Raises:
        KposeError: when there are no images, or not one title for each.
    """
    cells = [_checked_image(image) for image in images]
    if not cells or columns < 1 or gap < 0:
        raise KposeError(
            f"a contact sheet needs at least one image, one column and no negative gap; got {len(cells)} images, {columns=}, {gap=}"
        )
    if titles is not None and len(titles) != len(cells):
        raise KposeError(f"a contact sheet of {len(cells)} images needs as many titles, got {len(titles)}")
    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    height, width = (max(cell.shape[axis] for cell in cells) for axis in (0, 1))
    banner = 0 if titles is None else 20
    sheet = np.full((gap + rows * (banner + height + gap), gap + columns * (width + gap), 3), _PAPER, np.uint8)
    for position, cell in enumerate(cells):
        row, column = divmod(position, columns)
        left, top = gap + column * (width + gap), gap + row * (banner + height + gap)
        if titles is not None:
            cv2.putText(sheet, _shortened(titles[position], width), (left, top + 14), _FONT, 0.42, _INK, 1, cv2.LINE_AA)
        left += (width - cell.shape[1]) // 2
        top += banner + (height - cell.shape[0]) // 2
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return sheet


def mark_joints(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Ring joints in the colour of faults.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        points: `(n, 2)` x, y in the image frame; what is outside or NaN does no harm.

    Returns:
        A copy of the image with the rings on it.

    Raises:
        KposeError: when the image is none.
    """
    drawn = _checked_image(image).copy()
    radius = max(8, round(0.03 * max(drawn.shape[:2])))
    values = np.asarray(points, np.float64).reshape(-1, 2)
    for point in values[_drawable(values, drawn)]:
        x, y = _fixed(point).tolist()
        for colour, wide in ((_PAPER, 3), (_FAULT, 2)):
            cv2.circle(drawn, (x, y), radius << _SHIFT, colour, wide, cv2.LINE_AA, _SHIFT)
    return drawn


def add_caption(image: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """The image with lines of text on white beneath it, wrapped at its width.

    Raises:
        KposeError: when the image is none.
    """
    image = _checked_image(image)
    wrapped: list[str] = []
    for line in lines:
        current = ""
        for word in line.split():
            longer = f"{current} {word}".strip()
            if current and cv2.getTextSize(longer, _FONT, 0.42, 1)[0][0] > image.shape[1]:
                wrapped.append(current)
                longer = word
            current = longer
        wrapped.append(_shortened(current, image.shape[1]))
    caption = np.full((18 * len(wrapped) + 4, image.shape[1], 3), _PAPER, np.uint8)
    for row, text in enumerate(wrapped):
        cv2.putText(caption, text, (0, 18 * row + 14), _FONT, 0.42, _INK, 1, cv2.LINE_AA)
    return np.concatenate([image, caption])


def draw_training_curve(history: str | Path | Sequence[Mapping[str, float]], path: str | Path, metric: str = "AP") -> Path:
    """Plot the loss (left axis) and, where there is one, the validation score (right axis) over the epochs; the best one is marked.

    Args:
        history: a CSV file with the columns `epoch`, `loss` and perhaps `metric`, or its rows; a score may be missing in any of them.
        path: the picture to write; its suffix decides the format.
        metric: which score.

    Returns:
        `path`.

    Raises:
        KposeError: when the history cannot be read or has no loss, or the picture cannot be written.
    """
    # Slow to import, and of use here alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    source = str(history) if isinstance(history, (str, Path)) else "the history"
    rows = read_number_table(history) if isinstance(history, (str, Path)) else list(history)
    losses = [(row["epoch"], row["loss"]) for row in rows if "epoch" in row and "loss" in row]
    scores = [(row["epoch"], row[metric]) for row in rows if "epoch" in row and math.isfinite(row.get(metric, math.nan))]
    if not losses:
        raise KposeError(f"{source} has no row with 'epoch' and 'loss'; nothing to plot")

    def hexadecimal(colour: Colour) -> str:
        return "#{:02x}{:02x}{:02x}".format(*colour)

    ink, blue, orange = hexadecimal(_INK), "#1f6fb2", "#d9680c"
    figure = Figure(figsize=(7.2, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(*zip(*losses, strict=True), color=blue, linewidth=1.8, marker="o" if len(losses) < 3 else None)
    axes.set_xlabel("epoch", color=ink)
    axes.set_ylabel("training loss", color=blue)
    positive = [loss for _, loss in losses if loss > 0]
    if len(positive) == len(losses) and max(positive) > 20 * min(positive):
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", color="#e8e8ec")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", colors=blue)
    if scores:
        right = axes.twinx()
        right.plot(*zip(*scores, strict=True), color=orange, linewidth=1.8, marker="o", markersize=3.5)
        epoch, best = max(scores, key=lambda score: score[1])
        right.plot([epoch], [best], marker="*", markersize=14, color=orange, markeredgecolor="white", zorder=5)
        early = epoch <= (losses[0][0] + losses[-1][0]) / 2
        right.annotate(
            f"best {metric} {best:.3f} (epoch {epoch:g})",
            (epoch, best),
            xytext=(8 if early else -8, 9),
            textcoords="offset points",
            ha="left" if early else "right",
            color=orange,
            weight="bold",
        )
        right.set_ylabel(f"validation {metric}", color=orange)
        right.set_ylim(0, max(1.15 * best, 0.05))
        right.spines[["top", "left"]].set_visible(False)
        right.tick_params(axis="y", colors=orange)
    path = Path(path)
    picture = io.BytesIO()
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".svg", ".pdf"):
        raise KposeError(f"cannot write a curve as {path.name!r}; use the suffix .png, .jpg, .svg or .pdf")
    figure.savefig(picture, format=path.suffix[1:].lower())
    return _write(path, picture.getvalue())


def write_image(path: str | Path, image: np.ndarray) -> Path:
    """Write a picture whole or not at all: PNG or JPEG, by its suffix. Missing folders are made.

    Args:
        path: ends in .png, .jpg or .jpeg.
        image: `(H, W, 3)` uint8 RGB.

    Returns:
        `path`.

    Raises:
        KposeError: when the suffix is another one, the image is none, or the folder cannot be written.
    """
    path = Path(path)
    options = {".png": [], ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95]}.get(path.suffix.lower())
    if options is None:
        raise KposeError(f"cannot write a picture as {path.name!r}; use the suffix .png or .jpg")
    encoded, content = cv2.imencode(path.suffix.lower(), _checked_image(image)[..., ::-1], options)
    if not encoded:
        raise KposeError(f"cannot encode a picture of {image.shape[0]} x {image.shape[1]} pixels for {path}; write a smaller one or a PNG")
    return _write(path, content.tobytes())


def _write(path: Path, content: bytes) -> Path:
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def _checked_image(image: np.ndarray) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise KposeError(f"an image to draw on is a uint8 RGB array of shape (H, W, 3), found {found}")
    return np.ascontiguousarray(image)


def _checked_keypoints(keypoints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    values = np.asarray(keypoints, np.float64)
    if values.shape != (skeleton.num_joints, 3):
        raise KposeError(f"a pose of skeleton {skeleton.name!r} has the shape ({skeleton.num_joints}, 3), found {values.shape}")
    return values


def _checked_heatmaps(heatmaps: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    values = np.asarray(heatmaps, np.float32)
    if values.ndim != 3 or values.shape[2] != skeleton.num_joints or not values.size:
        raise KposeError(f"heatmaps of skeleton {skeleton.name!r} have the shape (h, w, {skeleton.num_joints}), found {values.shape}")
    return np.nan_to_num(values)


def _over_crop(heatmap: np.ndarray, crop: np.ndarray, alignment: Alignment) -> np.ndarray:
    """An `(h, w)` heatmap as `(H, W)` opacities of 0 to 1 in the crop frame."""
    height, width = crop.shape[:2]
    stride_x, stride_y = heatmap_stride((height, width), (heatmap.shape[0], heatmap.shape[1]), alignment)
    to_crop = np.array([[stride_x, 0, 0], [0, stride_y, 0]], np.float64)
    return np.clip(cv2.warpAffine(heatmap, to_crop, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), 0, 1)


def _joints_to_draw(keypoints: np.ndarray, image: np.ndarray, minimum_score: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return _drawable(keypoints[:, :2], image) & (keypoints[:, 2] > 0) & (keypoints[:, 2] >= minimum_score)


def _drawable(points: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Which `(n, 2)` points are finite and near enough to the image for OpenCV's fixed-point numbers."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.all(np.abs(points) < 8 * max(image.shape[:2]), axis=1))


def _extent(keypoints: np.ndarray, present: np.ndarray) -> float:
    """The longer side of the box around the joints to draw, in pixels."""
    return float(np.ptp(keypoints[present, :2], axis=0).max()) if present.any() else 0.0


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def _bar(image: np.ndarray, colour: Colour, a: np.ndarray, b: np.ndarray, width: float) -> None:
    """An antialiased straight line of any fraction of a pixel in width; OpenCV's own are whole pixels wide."""
    direction = (b - a)[:2]
    length = float(np.hypot(*direction))
    if length < 1e-6:
        return
    across = np.array([-direction[1], direction[0]]) * (width / 2 / length)
    corners = np.stack([a[:2] + across, b[:2] + across, b[:2] - across, a[:2] - across])
    cv2.fillConvexPoly(image, _fixed(corners), colour, cv2.LINE_AA, _SHIFT)


def _disc(image: np.ndarray, colour: Colour, centre: np.ndarray, radius: float) -> None:
    x, y = _fixed(centre[:2]).tolist()
    cv2.circle(image, (x, y), round(radius * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)


def _shortened(text: str, width: int) -> str:
    """The text, cut to what fits into `width` pixels of a title."""
    while len(text) > 1 and cv2.getTextSize(text, _FONT, 0.42, 1)[0][0] > width:
        text = text[:-1]
    return text
