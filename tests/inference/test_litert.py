"""TFLite files from outside: opened, or refused in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kpose.errors import KposeError
from kpose.inference.litert import LARGEST_FILE_BYTES, open_interpreter
from tests.inference.tiny_tflite import write_tflite

pytest.importorskip("ai_edge_litert", reason="needs LiteRT, of the extra `lite`")


@pytest.fixture(scope="module")
def doubling(tmp_path_factory) -> Path:
    """A file that doubles a picture of 4 x 6 pixels."""
    return write_tflite(tmp_path_factory.mktemp("tflite") / "doubling.tflite", lambda images: images * 2.0, (1, 4, 6, 3), tf.float32)


def test_it_runs(doubling):
    interpreter = open_interpreter(doubling, 1, "a network", inputs=[(1, 4, None, 3)], outputs=[(1, 4, 6, 3)])
    picture = np.random.default_rng(0).random((1, 4, 6, 3), np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    assert interpreter.get_tensor(interpreter.get_output_details()[0]["index"]) == pytest.approx(2 * picture)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("inputs", [(1, 4, 5, 3)]),
        ("inputs", [(1, 4, 6)]),
        ("inputs", [(1, 4, 6, 3), (1,)]),
        ("inputs", []),
        ("outputs", [(None, None, 7, None)]),
        ("outputs", [(1, 4, 6, 3, None)]),
    ],
)
def test_another_network_is_refused(doubling, kind, shapes):
    with pytest.raises(KposeError, match=rf"{kind} \[\(1, 4, 6, 3\)\], a doubler has .*another network"):
        open_interpreter(doubling, 1, "a doubler", **{kind: shapes})


@pytest.mark.parametrize("cut", [8, 100, -4], ids=["head alone", "begun", "nearly whole"])
def test_a_cut_off_file_is_refused(doubling, tmp_path, cut):
    path = tmp_path / "cut.tflite"
    path.write_bytes(doubling.read_bytes()[:cut])
    with pytest.raises(KposeError, match=r"cut\.tflite is damaged"):
        open_interpreter(path, 1, "a network")


@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_file_is_refused_or_runs(doubling, tmp_path, seed):
    """Whatever its bytes say, the process lives."""
    random = np.random.default_rng(seed)
    content = bytearray(doubling.read_bytes())
    for place in random.integers(8, len(content), 30):
        content[place] = random.integers(256)
    path = tmp_path / "damaged.tflite"
    path.write_bytes(bytes(content))
    with pytest.raises(KposeError, match=r"damaged\.tflite (is damaged|has inputs)"):
        open_interpreter(path, 1, "a network", inputs=[(1, 4, 6, 3)])


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x1c\0\0\0PK\x03\x04 a zip file"])
def test_what_is_no_tflite_file_is_refused(tmp_path, content):
    path = tmp_path / "other.tflite"
    path.write_bytes(content)
    with pytest.raises(KposeError, match="is not a TFLite file; expected a network"):
        open_interpreter(path, 1, "a network")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(KposeError, match=r"cannot read .*gone\.tflite: No such file"):
        open_interpreter(tmp_path / "gone.tflite", 1, "a network")


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "huge.tflite"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE_BYTES + 1)  # takes no room on the disk
    with pytest.raises(KposeError, match="more than any network"):
        open_interpreter(path, 1, "a network")


def test_without_litert_the_extra_is_named(doubling, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(KposeError, match=r"pip install 'kpose\[lite\]'"):
        open_interpreter(doubling, 1, "a network")
