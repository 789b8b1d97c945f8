from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from kpose.errors import KposeError
from kpose.npz_files import read_npz


def npz(**values) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **values)
    return stream.getvalue()


def with_header(header: bytes) -> bytes:
    """An .npz whose one member claims what `header` says and holds four bytes."""
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(4)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", member)
    return stream.getvalue()


def read(path, largest_bytes=1 << 20):
    return read_npz(path, largest_bytes, missing=f"there is no {path}; write it", remedy="write it again")


@given(
    value=arrays(st.sampled_from(["<i8", "<f4", ">f8", "<u2"]), array_shapes(min_dims=0, min_side=0), fill=st.just(1)), order=st.booleans()
)
def test_what_was_written_comes_back(tmp_path_factory, value, order):
    path = tmp_path_factory.mktemp("npz") / "file.npz"
    path.write_bytes(npz(a=np.asfortranarray(value) if order else value, b=np.arange(3)))
    found = read(path)
    assert found["a"].dtype == value.dtype
    np.testing.assert_array_equal(found["a"], value)
    np.testing.assert_array_equal(found["b"], [0, 1, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no .npz file of plain numbers"),
        (b"PK\x03\x04 cut off", "no .npz file of plain numbers"),
        (npz(a=np.arange(100.0))[:-40], "no .npz file of plain numbers"),
        (npz(a=np.array([{}], dtype=object)), "claims"),
        (npz(a=np.array(["text"])), "claims"),
        (with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,)}\n"), r"claims \(99999999999,\) of float32"),
        (with_header(b"__import__('os')\n"), "no .npz file of plain numbers"),
        (with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}\n"), r"claims \(-1,\)"),
        (npz(a=np.zeros(1 << 18)), "unpacks to more than 1 MiB"),
    ],
)
def test_what_is_no_plain_array_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "file.npz"
    path.write_bytes(content)
    with pytest.raises(KposeError, match=message) as refusal:
        read(path)
    assert str(refusal.value).startswith(str(path))
    assert str(refusal.value).endswith("; write it again")
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_told_in_the_callers_words(tmp_path):
    with pytest.raises(KposeError, match=r"there is no .*file\.npz; write it"):
        read(tmp_path / "file.npz")
