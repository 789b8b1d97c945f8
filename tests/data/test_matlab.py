from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from kpose.data import matlab
from kpose.data.matlab import array_shapes, as_list, field, read_arrays, read_variable
from kpose.errors import KposeError


@pytest.fixture
def joints_file(tmp_path: Path) -> Path:
    """3x14x4 numbers, packed."""
    path = tmp_path / "joints.mat"
    scipy.io.savemat(path, {"joints": np.arange(168.0).reshape(3, 14, 4), "note": "text"}, do_compression=True)
    return path


def test_numbers_come_back_in_their_shape(joints_file: Path) -> None:
    arrays = read_arrays(joints_file, {"joints": (3, 14, None)})
    assert list(arrays) == ["joints"]
    np.testing.assert_array_equal(arrays["joints"], np.arange(168.0).reshape(3, 14, 4))
    assert array_shapes(joints_file)["joints"] == (3, 14, 4)


def test_a_last_length_of_one_is_given_back(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "one.mat", {"joints": np.ones((3, 14), np.uint8)})
    found = read_arrays(tmp_path / "one.mat", {"joints": (3, 14, None)})["joints"]
    assert (found.shape, found.dtype) == ((3, 14, 1), np.float64)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"joints": (14, 3, None)}, "'joints' is 3x14x4, expected 14x3xN"),
        ({"joints": (3, 14)}, "'joints' is 3x14x4, expected 3x14"),
        ({"joints": (3, 14, 4, None, None)}, "expected 3x14x4xNxN"),
        ({"points": (3, 14)}, "has no variable 'points'; it holds joints, note"),
        ({"note": (None,)}, "'note' holds no numbers"),
    ],
)
def test_other_content_is_refused(joints_file: Path, shapes: dict[str, Any], message: str) -> None:
    with pytest.raises(KposeError) as error:
        read_arrays(joints_file, shapes)
    assert message in str(error.value) and "joints.mat" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no MATLAB file"),
        (b"PK\x03\x04 a zip file" * 20, "is no MATLAB file"),
        (b"\x80\x04\x95 a pickle" * 20, "is no MATLAB file"),
        (b"MATLAB 7.3 MAT-file" + bytes(600), "is a MATLAB 7.3 file; load it in MATLAB or Octave and save it with the option -v7"),
    ],
)
def test_what_is_no_matlab_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.mat"
    path.write_bytes(content)
    for read in (array_shapes, lambda file: read_arrays(file, {}), lambda file: read_variable(file, "x")):
        with pytest.raises(KposeError, match=message):
            read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KposeError, match="cannot read .*gone.mat: No such file"):
        read_arrays(tmp_path / "gone.mat", {})


@given(share=st.floats(0, 0.999))
def test_a_file_that_is_cut_off_anywhere_is_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    folder = tmp_path_factory.mktemp("cut")
    scipy.io.savemat(folder / "whole.mat", {"joints": np.random.default_rng(1).normal(size=(3, 14, 4))}, do_compression=True)
    whole = (folder / "whole.mat").read_bytes()
    (folder / "cut.mat").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(KposeError, match=r"cut.mat"):
        read_arrays(folder / "cut.mat", {"joints": (3, 14, None)})


def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab, "LARGEST_UNPACKED_BYTES", 1 << 20)
    path = tmp_path / "bomb.mat"
    scipy.io.savemat(path, {"joints": np.zeros((3, 14, 4000))}, do_compression=True)
    assert path.stat().st_size < 10_000
    with pytest.raises(KposeError, match="unpacks to more than"):
        array_shapes(path)


def test_a_large_file_is_refused(joints_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab, "LARGEST_FILE_BYTES", 100)
    with pytest.raises(KposeError, match="is larger than"):
        array_shapes(joints_file)


def test_absurd_lengths_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "absurd.mat"
    scipy.io.savemat(path, {"joints": np.ones((3, 14, 4))})
    content = path.read_bytes()
    lengths = struct.pack("<3i", 3, 14, 4)
    assert content.count(lengths) == 1
    path.write_bytes(content.replace(lengths, struct.pack("<3i", 2**30, 2**30, 2**30)))
    with pytest.raises(KposeError, match="claims to have 1073741824x1073741824x1073741824 numbers, of which 168 are there"):
        read_arrays(path, {"joints": (None, None, None)})
    path.write_bytes(content.replace(lengths, struct.pack("<3i", -3, 14, 4)))
    with pytest.raises(KposeError, match=r"has an array of the lengths \(-3, 14, 4\)"):
        read_arrays(path, {"joints": (None, None, None)})


def test_damaged_packing_is_refused(joints_file: Path) -> None:
    content = bytearray(joints_file.read_bytes())
    content[140:160] = bytes(20)
    joints_file.write_bytes(content)
    with pytest.raises(KposeError, match="joints.mat"):
        read_arrays(joints_file, {"joints": (3, 14, None)})


def test_a_packed_element_may_not_end_early(tmp_path: Path) -> None:
    path = tmp_path / "early.mat"
    scipy.io.savemat(path, {"joints": np.ones((3, 14, 4))})
    inner = path.read_bytes()[128:]
    packed = zlib.compress(inner[:100])
    path.write_bytes(path.read_bytes()[:128] + struct.pack("<2I", 15, len(packed)) + packed)
    with pytest.raises(KposeError, match="is cut off"):
        read_arrays(path, {"joints": (3, 14, None)})


def test_structures_are_read_with_their_quirks(tmp_path: Path) -> None:
    people = np.empty(2, dtype=[("name", object), ("age", object)])
    people[0], people[1] = ("Ada", 36.0), (np.zeros((0, 0)), np.zeros((0, 0)))
    scipy.io.savemat(tmp_path / "s.mat", {"group": {"people": people, "one": {"x": 3.0}}})
    group = read_variable(tmp_path / "s.mat", "group")
    ada, nobody = as_list(field(group, "people"))
    assert (field(ada, "name"), field(ada, "age"), field(nobody, "name"), field(nobody, "gone")) == ("Ada", 36, None, None)
    assert [field(one, "x") for one in as_list(field(group, "one"))] == [3]
    assert as_list(field(group, "gone")) == []
    with pytest.raises(KposeError, match="has no variable 'team'; it holds group"):
        read_variable(tmp_path / "s.mat", "team")


@given(changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_gives_numbers_or_one_line(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, int]]) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    people = np.empty((1, 2), dtype=[("name", object), ("place", object)])
    people[0, :] = [("Ada", np.arange(3.0)), ("Bob", np.zeros((0, 0)))]
    scipy.io.savemat(folder / "x.mat", {"people": people, "joints": np.arange(30.0).reshape(3, 2, 5)})
    content = bytearray((folder / "x.mat").read_bytes())
    for share, value in changes:
        content[128 + int(share * (len(content) - 128))] = value
    (folder / "x.mat").write_bytes(content)
    for read in (lambda path: read_arrays(path, {"joints": (3, 2, None)}), lambda path: read_variable(path, "people"), array_shapes):
        refusal = "x.mat"
        try:
            read(folder / "x.mat")
        except KposeError as error:
            refusal = str(error)
        assert "x.mat" in refusal and "\n" not in refusal


@pytest.mark.parametrize(
    "file", ["lsp/joints.mat", "lspet/joints.mat", "mpii/detections_our_format.mat", "mpii/predictions_hourglass_8stack.mat"]
)
def test_real_files_hold_what_scipy_reads(shared_data: Path, file: str) -> None:
    expected = {name: value for name, value in scipy.io.loadmat(shared_data / file).items() if not name.startswith("__")}
    shapes = array_shapes(shared_data / file)
    assert shapes == {name: value.shape for name, value in expected.items()}
    numeric = {name: shape for name, shape in shapes.items() if expected[name].dtype != object}
    for name, value in read_arrays(shared_data / file, numeric).items():
        np.testing.assert_array_equal(value, expected[name])
    for name in shapes.keys() - numeric.keys():
        assert as_list(read_variable(shared_data / file, name)) == [str(cell.item()) for cell in expected[name].ravel()]
