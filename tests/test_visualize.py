"""Pictures: what is drawn lands where it should, in the colour it should, and faulty input does no harm."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.errors import KposeError
from kpose.skeletons import COCO_17, MPII_16, SKELETONS, Skeleton
from kpose.visualize import (
    LEFT,
    MIDDLE,
    RIGHT,
    add_caption,
    contact_sheet,
    draw_box,
    draw_heatmap_grid,
    draw_heatmaps,
    draw_pose,
    draw_poses,
    draw_training_curve,
    joint_colours,
    mark_joints,
    write_image,
)

ARMS = Skeleton(
    name="arms",
    joint_names=("neck", "left_hand", "right_hand"),
    left_right_pairs=(("left_hand", "right_hand"),),
    limbs=(("neck", "left_hand"), ("neck", "right_hand")),
)


def grey(height: int = 100, width: int = 161) -> np.ndarray:
    return np.full((height, width, 3), 120, np.uint8)


def arms(visibility: float = 2) -> np.ndarray:
    """Somebody who faces the camera: the left hand is on the right of the image."""
    return np.array([(80, 30, visibility), (130, 70, visibility), (30, 70, visibility)], float)


# --- poses ---


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_sides_have_colours_of_their_own(skeleton):
    colours = joint_colours(skeleton)
    for left, right in skeleton.left_right_pairs:
        assert (colours[skeleton.index(left)], colours[skeleton.index(right)]) == (LEFT, RIGHT)
    assert len({LEFT, RIGHT, MIDDLE}) == 3


def test_limbs_and_joints_land_on_their_pixels_in_the_colour_of_their_side():
    image = grey()
    drawn = draw_pose(image, arms(), ARMS)
    assert np.all(image == 120)
    for x, y, colour in ((130, 70, LEFT), (30, 70, RIGHT), (80, 30, MIDDLE), (105, 50, LEFT), (55, 50, RIGHT)):
        assert tuple(drawn[y, x]) == colour
    assert np.all(drawn[90:] == 120)


def test_a_mirrored_pose_is_the_mirrored_drawing_with_the_colours_swapped():
    mirrored = arms()
    mirrored[:, 0] = 160 - mirrored[:, 0]
    swapped = mirrored[ARMS.flip_permutation]
    assert np.array_equal(draw_pose(grey(), swapped, ARMS)[50, 55], np.array(RIGHT))
    plain, mirror = draw_pose(grey(), arms(), ARMS), draw_pose(grey(), mirrored, ARMS)
    assert np.abs(plain[:, ::-1].astype(int) - mirror).mean() < 0.5
    assert tuple(mirror[50, 55]) == LEFT


def test_hidden_joints_are_hollow_and_absent_ones_are_not_drawn():
    hidden, absent = arms(), arms()
    hidden[1, 2], absent[1, 2] = 1, 0
    assert tuple(draw_pose(grey(), arms(), ARMS)[70, 130]) == LEFT
    assert max(draw_pose(grey(), hidden, ARMS)[70, 130]) < 60
    assert np.all(draw_pose(grey(), absent, ARMS)[:, 90:] == 120)


def test_joints_below_the_minimum_score_are_not_drawn():
    keypoints = arms(0.9)
    keypoints[1, 2] = 0.2
    drawn = draw_pose(grey(), keypoints, ARMS, minimum_score=0.3)
    assert np.all(drawn[:, 90:] == 120)
    assert tuple(drawn[70, 30]) == RIGHT


def test_lines_grow_with_the_person():
    def painted(scale: float) -> float:
        image = np.full((800, 800, 3), 120, np.uint8)
        keypoints = arms() * (scale, scale, 1)
        return float((draw_pose(image, keypoints, ARMS) != 120).any(-1).sum() / scale)

    assert painted(5) > 2 * painted(1)


@given(
    st.lists(
        st.tuples(
            *[st.floats(allow_nan=True, allow_infinity=True) | st.floats(-300, 300)] * 2, st.sampled_from((0, 1, 2, 0.5, float("nan")))
        ),
        min_size=3,
        max_size=3,
    )
)
@settings(max_examples=80, deadline=None)
def test_no_point_however_far_or_broken_stops_a_drawing(points):
    assert draw_pose(grey(), np.array(points, float), ARMS).shape == (100, 161, 3)


def test_a_limb_to_a_joint_outside_the_image_is_drawn_up_to_the_border():
    keypoints = arms()
    keypoints[1, :2] = (230, 30)
    assert tuple(draw_pose(grey(), keypoints, ARMS)[30, 158]) == LEFT


def test_nobody_to_draw_leaves_the_image_as_it_is():
    assert np.array_equal(draw_poses(grey(), [], ARMS), grey())
    assert np.array_equal(draw_poses(grey(), np.zeros((0, 3, 3)), ARMS), grey())
    assert np.array_equal(draw_pose(grey(), np.full((3, 3), np.nan), ARMS), grey())


def test_a_small_person_is_drawn_over_a_large_one():
    small = np.array([(80, 48, 2), (88, 50, 2), (72, 50, 2)], float)
    large = np.array([(80, 50, 2), (159, 50, 2), (1, 50, 2)], float)
    for poses in ([small, large], [large, small]):
        assert np.array_equal(draw_poses(grey(), poses, ARMS), draw_pose(draw_pose(grey(), large, ARMS), small, ARMS))


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), "photo.jpg"])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(KposeError, match="uint8 RGB"):
        draw_pose(image, arms(), ARMS)


def test_a_pose_of_another_skeleton_is_refused():
    with pytest.raises(KposeError, match=r"'mpii_16' has the shape \(16, 3\), found \(17, 3\)"):
        draw_pose(grey(), np.zeros((17, 3)), MPII_16)


# --- boxes ---


def test_a_box_runs_through_its_outermost_pixels():
    drawn = draw_box(grey(), (20, 30, 50, 40))
    edges = (drawn != 120).any(-1)
    for x, y in ((20, 50), (69, 50), (40, 30), (40, 69)):
        assert edges[y, x]
    assert not edges[50, 45] and not edges[50, 15] and not edges[50, 75]


@pytest.mark.parametrize("box", [(-50, -50, 500, 500), (150, 90, 100, 100), (np.nan, 0, 1, 1), (1e30, 0, 1, 1), (5, 5, 0, 0)])
def test_boxes_beyond_the_image_do_no_harm(box):
    assert draw_box(grey(), box, label="0.93").shape == grey().shape


def test_a_box_of_three_numbers_is_refused():
    with pytest.raises(KposeError, match="x, y, width, height"):
        draw_box(grey(), (1, 2, 3))


# --- heatmaps ---


@pytest.mark.parametrize(("alignment", "expected"), [("classic", (80, 40)), ("unbiased", (81.3, 40.6))])
def test_a_peak_glows_at_its_place_in_the_crop_in_the_colour_of_its_side(alignment, expected):
    heatmaps = np.zeros((64, 48, 17), np.float32)
    rows, columns = np.mgrid[:64, :48]
    heatmaps[..., COCO_17.index("left_wrist")] = np.exp(-((columns - 20) ** 2 + (rows - 10) ** 2) / 8)
    crop = np.full((256, 192, 3), 60, np.uint8)
    glow = draw_heatmaps(crop, heatmaps, COCO_17, alignment).astype(float)
    weight = glow[..., 2] - glow[-1, -1, 2]
    rows, columns = np.mgrid[:256, :192]
    assert (np.average(columns, weights=weight), np.average(rows, weights=weight)) == pytest.approx(expected, abs=0.3)
    peak = glow[40, 80]
    assert peak[2] > peak[1] > peak[0]
    assert np.all(glow[-1, -1] < 60)


def test_the_grid_shows_each_joint_in_a_cell_of_its_own():
    heatmaps = np.zeros((16, 12, 3), np.float32)
    heatmaps[8, 6, 1] = 1
    sheet = draw_heatmap_grid(np.zeros((64, 48, 3), np.uint8), heatmaps, ARMS, columns=3).astype(int)
    brightness = [sheet[28:-8, 8 + 56 * cell : 56 + 56 * cell].sum() for cell in range(3)]
    assert brightness[1] > brightness[0] == brightness[2]


def test_heatmaps_of_another_skeleton_are_refused():
    with pytest.raises(KposeError, match=r"\(h, w, 3\), found \(16, 12, 17\)"):
        draw_heatmaps(grey(), np.zeros((16, 12, 17)), ARMS)


# --- contact sheets ---


def test_a_contact_sheet_puts_images_in_rows_centred_in_their_cells():
    images = [np.full((20, 30, 3), 10, np.uint8), np.full((10, 40, 3), 20, np.uint8), np.full((20, 40, 3), 30, np.uint8)]
    sheet = contact_sheet(images, columns=2, gap=4)
    assert sheet.shape == (4 + 2 * 24, 4 + 2 * 44, 3)
    assert np.all(sheet[4:24, 9:39] == 10) and np.all(sheet[4:24, 4:9] == 255)
    assert np.all(sheet[9:19, 48:88] == 20) and np.all(sheet[28:48, 4:44] == 30)
    assert np.all(sheet[28:48, 48:88] == 255)


def test_titles_stay_above_their_own_image():
    images = [np.full((20, 60, 3), 10, np.uint8)] * 2
    sheet = contact_sheet(images, columns=2, titles=["a very long title that does not fit", ""], gap=4)
    assert sheet.shape == (4 + 44, 4 + 128, 3)
    assert np.any(sheet[4:24, 4:64] < 200)
    assert np.all(sheet[4:24, 68:] == 255)
    assert np.all(sheet[24:44, 4:64] == 10)


@pytest.mark.parametrize(("images", "arguments"), [([], {}), ([grey()], {"columns": 0}), ([grey()], {"titles": ["a", "b"]})])
def test_a_sheet_that_cannot_be_laid_out_is_refused(images, arguments):
    with pytest.raises(KposeError, match="contact sheet"):
        contact_sheet(images, **arguments)


# --- files ---


@pytest.mark.parametrize("name", ["picture.png", "picture.JPG", "new/folder/picture.jpeg"])
def test_a_picture_is_written_in_the_right_colours_and_nothing_else_stays(tmp_path, name):
    image = np.zeros((32, 48, 3), np.uint8)
    image[..., 0] = 200
    path = write_image(tmp_path / name, image)
    read = cv2.imread(str(path))[..., ::-1]
    assert np.abs(read.astype(int) - image).max() <= 3
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["picture.gif", "picture", "picture.png.txt"])
def test_an_unknown_suffix_is_named(tmp_path, name):
    with pytest.raises(KposeError, match=r"use the suffix \.png or \.jpg"):
        write_image(tmp_path / name, grey())
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named_and_what_was_there_stays(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(KposeError, match=r"cannot write .*picture\.png"):
        write_image(tmp_path / "file" / "picture.png", grey())
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(KposeError, match=r"cannot write .*folder\.png"):
        write_image(tmp_path / "folder.png", grey())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_training_curve_from_rows_and_from_a_file_is_the_same_picture(tmp_path):
    rows = [{"epoch": epoch, "loss": 1 / epoch, **({"AP": 0.1 * epoch} if epoch % 2 == 0 else {})} for epoch in range(1, 6)]
    lines = ["epoch,loss,AP", *(f"{row['epoch']},{row['loss']!r},{row.get('AP', '')!r}".replace("''", "") for row in rows)]
    (tmp_path / "training.csv").write_text("\n".join(lines))
    first = draw_training_curve(rows, tmp_path / "rows.png")
    second = draw_training_curve(tmp_path / "training.csv", tmp_path / "file.png")
    assert np.array_equal(cv2.imread(str(first)), cv2.imread(str(second)))
    no_score = draw_training_curve([{"epoch": 1, "loss": 0.5}], tmp_path / "one.png")
    assert not np.array_equal(cv2.imread(str(first)), cv2.imread(str(no_score)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.png", "one.png", "rows.png", "training.csv"]


@pytest.mark.parametrize(
    ("content", "said"),
    [("epoch,AP\n1,0.5\n", "'epoch' and 'loss'"), ("epoch,loss\n1,many\n", "not a table of numbers"), ("", "'epoch' and 'loss'")],
)
def test_a_history_without_a_loss_is_refused(tmp_path, content, said):
    path = tmp_path / "training.csv"
    path.write_text(content)
    with pytest.raises(KposeError, match=said):
        draw_training_curve(path, tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


def test_a_missing_history_and_a_strange_suffix_are_named(tmp_path):
    with pytest.raises(KposeError, match=r"cannot read .*absent\.csv"):
        draw_training_curve(tmp_path / "absent.csv", tmp_path / "curve.png")
    with pytest.raises(KposeError, match=r"'curve\.exe'"):
        draw_training_curve([{"epoch": 1, "loss": 1.0}], tmp_path / "curve.exe")


# --- faults ---


def test_a_ring_stands_around_the_joint_and_leaves_it_visible():
    image = grey()
    drawn = mark_joints(image, np.array([[80, 60], [np.nan, 3], [1e9, -1e9]]))
    assert np.all(image == 120) and np.all(drawn[60, 80] == 120)
    changed = np.argwhere((drawn != 120).any(axis=2)) - [60, 80]
    distance = np.hypot(*changed.T)
    assert distance.min() > 3 and distance.max() < 14
    assert np.array_equal(mark_joints(image, np.zeros((0, 2))), image)


def test_a_caption_is_wrapped_beneath_the_picture():
    image = grey()
    one, long = add_caption(image, ["one"]), add_caption(image, ["a line that is far too long for the width of the picture"])
    assert np.array_equal(one[: image.shape[0]], image)
    assert one.shape[1] == long.shape[1] == image.shape[1] and long.shape[0] > one.shape[0] > image.shape[0]
    assert (one[image.shape[0] :] < 100).any()
