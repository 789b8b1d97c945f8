from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from kpose.data.lsp import read_lsp, read_lspet
from kpose.errors import KposeError
from kpose.skeletons import LSP_14

JOINTS = LSP_14.num_joints
Write = Callable[..., tuple[Path, Path]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes `joints.mat` from people `(N, 14, 3)` in the order of axes of a set, and empty files in place of pictures."""

    def make(people: np.ndarray, axes: tuple[int, int, int], digits: int = 4, missing: tuple[int, ...] = ()) -> tuple[Path, Path]:
        images = tmp_path / "images"
        images.mkdir(exist_ok=True)
        for number in set(range(1, len(people) + 1)) - set(missing):
            (images / f"im{number:0{digits}d}.jpg").touch()
        scipy.io.savemat(tmp_path / "joints.mat", {"joints": people.transpose(axes)})
        return tmp_path / "joints.mat", images

    return make


LSP, LSPET = (2, 1, 0), (1, 2, 0)


def people_of(count: int, flag: float) -> np.ndarray:
    people = np.random.default_rng(3).uniform(20, 150, (count, JOINTS, 3))
    people[..., 2] = flag
    return people


def test_in_lsp_the_flag_hides_a_joint_and_pixels_count_from_one(write: Write) -> None:
    people = people_of(3, flag=0)
    people[1, 4, 2] = 1
    found = read_lsp(*write(people, LSP))
    np.testing.assert_allclose(found.keypoints[..., :2], people[..., :2] - 1, rtol=1e-6)
    assert found.keypoints[1, 4, 2] == 1
    assert (found.keypoints[..., 2] == 2).sum() == 3 * JOINTS - 1
    low, high = found.keypoints[:, :, :2].min(axis=1), found.keypoints[:, :, :2].max(axis=1)
    np.testing.assert_allclose(found.boxes, np.concatenate([low, high - low], axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.areas, found.boxes[:, 2] * found.boxes[:, 3], rtol=1e-5)
    assert found.ids.tolist() == found.image_ids.tolist() == [1, 2, 3]


def test_in_lspet_the_flag_shows_a_joint_and_what_is_not_annotated_counts_for_nothing(write: Write) -> None:
    people = people_of(2, flag=1)
    people[0, 3] = [-900, 5000, 0]
    people[1, 5, :2] = np.nan
    people[1, 5, 2] = 0
    found = read_lspet(*write(people, LSPET))
    assert found.keypoints[0, 3].tolist() == found.keypoints[1, 5].tolist() == [0, 0, 0]
    rest = np.delete(people[0, :, :2], 3, axis=0)
    np.testing.assert_allclose(found.boxes[0], [*rest.min(axis=0), *(rest.max(axis=0) - rest.min(axis=0))], rtol=1e-5)
    np.testing.assert_allclose(np.delete(found.keypoints[0], 3, axis=0)[:, :2], rest, rtol=1e-6)
    assert set(found.keypoints[..., 2].ravel()) == {0, 2}


def test_people_whose_joints_span_no_box_are_left_out(write: Write) -> None:
    people = people_of(4, flag=1)
    people[0, :, 2] = 0
    people[1, 1:, 2] = 0
    people[2, :, 0] = 70
    found = read_lspet(*write(people, LSPET, missing=(1, 2, 3)))
    assert found.ids.tolist() == [4]
    assert found.notes[0].endswith("3 people left out: their annotated joints span no box")


@pytest.mark.parametrize("digits", [4, 5])
@pytest.mark.parametrize(("read", "axes", "flag"), [(read_lsp, LSP, 0), (read_lspet, LSPET, 1)])
def test_numbers_in_the_names_may_have_four_or_five_digits(write: Write, read: Any, axes: Any, flag: float, digits: int) -> None:
    found = read(*write(people_of(2, flag), axes, digits))
    assert [Path(file).name for file in found.image_files] == [f"im{number:0{digits}d}.jpg" for number in (1, 2)]


def test_a_single_person_is_read_although_matlab_drops_the_last_length(write: Write, tmp_path: Path) -> None:
    _, images = write(people_of(1, 0), LSP)
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": people_of(1, 0)[0].T})
    assert len(read_lsp(tmp_path / "joints.mat", images)) == 1


def test_people_are_chosen_by_their_place_in_the_file(write: Write) -> None:
    people = people_of(6, flag=1)
    people[0, :, 2] = 0  # left out, and yet counted
    paths = write(people, LSPET, missing=(1, 2))
    assert read_lspet(*paths, people=(2, 4)).ids.tolist() == [3, 4]
    assert read_lspet(*paths, partial=True).ids.tolist() == [3, 4, 5, 6]
    with pytest.raises(KposeError, match=r"has 6 people: 'people' is \[4, 7\]"):
        read_lspet(*paths, people=(4, 7))
    with pytest.raises(KposeError, match="1 image that it lists is missing, first .*im0002.jpg"):
        read_lspet(*paths)


def spoilt(place: tuple[int, ...], value: float) -> np.ndarray:
    people = people_of(3, flag=1)
    people[place] = value
    return people


@pytest.mark.parametrize(
    ("people", "message"),
    [
        (spoilt((1, 2, 2), 2), "person 1 has the flag 2 for right_hip, expected 0 or 1"),
        (spoilt((1, 2, 2), np.nan), "person 1 has the flag nan for right_hip"),
        (spoilt((2, 13, 0), np.inf), "person 2 has head_top at inf, "),
        (spoilt((0, 0, 1), -1e7), "person 0 has right_ankle at .*, -1e\\+07"),
    ],
)
def test_bad_joints_are_refused_in_one_line(write: Write, people: np.ndarray, message: str) -> None:
    with pytest.raises(KposeError, match=message) as error:
        read_lspet(*write(people, LSPET))
    assert "\n" not in str(error.value)


def test_files_of_the_other_set_and_of_another_shape_are_told_apart(write: Write) -> None:
    with pytest.raises(KposeError, match="'joints' is 14x3xN, the form of format 'lspet'; set 'format' to it"):
        read_lsp(*write(people_of(2, 1), LSPET))
    with pytest.raises(KposeError, match="'joints' is 3x14xN, the form of format 'lsp'"):
        read_lspet(*write(people_of(2, 0), LSP))
    with pytest.raises(KposeError, match="'joints' is 14x2x3, expected 14x3xN"):
        read_lspet(*write(people_of(2, 1), (1, 0, 2)))


# --- real files ----------------------------------------------------------------------------------------------------------------------


def test_all_people_of_the_extended_set_are_read(shared_data: Path) -> None:
    people = read_lspet(shared_data / "lspet/joints.mat", shared_data / "lspet/images")
    assert (len(people), people.notes) == (9500, ())
    assert (people.keypoints[..., 2] > 0).sum() == 117_002
    assert (people.boxes[:, 2:] > 0).all()
    last = read_lspet(shared_data / "lspet/joints.mat", shared_data / "lspet/images", people=(9000, 9500))
    assert [Path(last.image_files[place]).name for place in (0, -1)] == ["im09001.jpg", "im09500.jpg"]
    np.testing.assert_array_equal(last.keypoints, people.keypoints[9000:])


def test_left_and_right_are_the_persons_own(shared_data: Path) -> None:
    # im04037 (a jump) and im07912 (a split in the air) face the camera: what is the person's right lies on the picture's left.
    people = read_lspet(shared_data / "lspet/joints.mat", shared_data / "lspet/images", people=(4036, 7912))
    for number in (4037, 7912):
        (keypoints,) = people.keypoints[people.ids == number]
        for joint in ("shoulder", "hip", "ankle"):
            assert keypoints[LSP_14.index(f"right_{joint}"), 0] < keypoints[LSP_14.index(f"left_{joint}"), 0]


@pytest.fixture
def lsp_pictures(tmp_path: Path) -> Path:
    """Empty files in place of the pictures, which are not at hand."""
    folder = tmp_path / "lsp"
    folder.mkdir()
    for number in range(1, 2001):
        (folder / f"im{number:04d}.jpg").touch()
    return folder


def test_all_people_of_lsp_are_read(shared_data: Path, lsp_pictures: Path) -> None:
    people = read_lsp(shared_data / "lsp/joints.mat", lsp_pictures)
    assert len(people) == 2000
    assert ((people.keypoints[..., 2] == 1).sum(), (people.keypoints[..., 2] == 2).sum()) == (2044, 25956)
    # A head is hardly ever hidden: the flag cannot mean "visible".
    assert (people.keypoints[:, LSP_14.index("head_top"), 2] == 1).mean() < 0.01
    assert [len(read_lsp(shared_data / "lsp/joints.mat", lsp_pictures, people=part)) for part in ((0, 1000), (1000, 2000))] == [1000] * 2


def test_coordinates_of_lsp_count_from_one(shared_data: Path, lsp_pictures: Path) -> None:
    people = read_lsp(shared_data / "lsp/joints.mat", lsp_pictures, people=(0, 60))
    # Pictures were clicked on at another scale s, at whole pixels n. With MATLAB's resizing, from 1, y is s (n - 0.5) + 0.5. The scales
    # that were found by looking for the grid that the joints lie on, over several people each:
    for person, scale in ((0, 0.7558268201), (6, 1.1365149995), (12, 1.3195878030), (17, 0.8523861527)):
        y = people.keypoints[person, :, 1].astype(np.float64) + 1
        clicks = (y - 0.5) / scale + 0.5
        from_zero = (y + 0.5) / scale - 0.5
        assert np.abs(clicks - clicks.round()).max() < 1e-3
        assert np.abs(from_zero - from_zero.round()).max() > 0.05
