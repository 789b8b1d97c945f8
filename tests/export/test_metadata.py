from __future__ import annotations

import struct

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.checkpoint import LARGEST_CARD_BYTES
from kpose.errors import KposeError
from kpose.export import read_tflite_card
from kpose.export.metadata import METADATA_NAME, attach_card, pack
from tests.export.conftest import card_of


@pytest.fixture(scope="module")
def content(files) -> bytes:
    return files["fp32"].read_bytes()


def spoilt(content: bytes, change) -> bytes:
    model = schema.ModelT.InitFromPackedBuf(content)
    change(model)
    return pack(model, content)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_file_says_what_it_is(files, network, precision):
    assert read_tflite_card(files[precision]) == network.card
    model = schema.ModelT.InitFromPackedBuf(files[precision].read_bytes())
    description = model.description.decode()
    assert description.startswith(f"lite_mobilenet_v3, {precision}: one person's crop, 64 x 48 RGB in 0..255, to heatmaps of 17 joints.")
    assert description.endswith("Licence: of the test")
    (signature,) = model.signatureDefs
    assert [(entry.name, entry.tensorIndex) for entry in signature.inputs] == [(b"image", model.subgraphs[0].inputs[0])]
    assert [(entry.name, entry.tensorIndex) for entry in signature.outputs] == [(b"heatmaps", model.subgraphs[0].outputs[0])]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_weights_are_inside_of_the_flatbuffer_and_aligned(files, precision):
    content = files[precision].read_bytes()
    model = schema.Model.GetRootAs(content)
    sizes = []
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        assert buffer.Offset() == buffer.Size() == 0
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0
            sizes.append(buffer.DataLength())
    assert max(sizes) > 500


def test_a_new_card_replaces_the_former_one(content, tmp_path):
    path = tmp_path / "again.tflite"
    card = card_of(data={"box_padding": 1.5})
    path.write_bytes(attach_card(content, card, "again"))
    assert read_tflite_card(path) == card
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    assert [entry.name for entry in model.metadata].count(METADATA_NAME.encode()) == 1


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_file_gives_a_card_or_one_line(content, tmp_path_factory, data):
    damaged = bytearray(content)
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    for _ in range(data.draw(st.integers(0, 4))):
        # Where the tables are, rather than the weights.
        place = data.draw(st.one_of(st.integers(0, 400), st.integers(0, len(content) - 4)))
        damaged[place : place + 4] = data.draw(st.sampled_from([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0"]))
    path = tmp_path_factory.getbasetemp() / "damaged.tflite"
    path.write_bytes(damaged)
    try:
        read_tflite_card(path)
        message = str(path)
    except KposeError as refusal:
        message = str(refusal)
    assert "\n" not in message and str(path) in message


def _claim_size(model) -> None:
    for entry in model.metadata:
        if entry.name == METADATA_NAME.encode():
            model.buffers[entry.buffer].data = np.full(LARGEST_CARD_BYTES + 1, ord(" "), np.uint8)


def _point_nowhere(model) -> None:
    for entry in model.metadata:
        entry.buffer = 1 << 30


def _crowd(model) -> None:
    model.metadata = [schema.MetadataT() for _ in range(1000)]


def _spoil_card(model) -> None:
    for entry in model.metadata:
        model.buffers[entry.buffer].data = np.frombuffer(b'{"name": 3}', np.uint8)


def _forget(model) -> None:
    model.metadata = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_forget, r"has no card of kpose inside; make it with kpose convert"),
        (_crowd, r"claims 1000 entries of metadata.*file refused"),
        (_point_nowhere, r"its kpose_card is in buffer 1073741824 of"),
        (_claim_size, r"its kpose_card claims 1048577 bytes.*file refused"),
        (_spoil_card, r"its card is not valid: name: "),
    ],
)
def test_a_hostile_file_is_refused_before_it_costs_anything(content, tmp_path, change, message):
    path = tmp_path / "hostile.tflite"
    path.write_bytes(spoilt(content, change))
    with pytest.raises(KposeError, match=message) as refusal:
        read_tflite_card(path)
    assert "\n" not in str(refusal.value)


def test_a_length_beyond_the_file_is_refused(content, tmp_path):
    model = schema.Model.GetRootAs(content)
    number = next(
        model.Metadata(place).Buffer() for place in range(model.MetadataLength()) if model.Metadata(place).Name() == METADATA_NAME.encode()
    )
    table = model.Buffers(number)._tab
    start = table.Vector(table.Offset(4)) - 4
    path = tmp_path / "long.tflite"
    for length in (0xFFFFFFFF, LARGEST_CARD_BYTES):
        path.write_bytes(content[:start] + struct.pack("<I", length) + content[start + 4 :])
        with pytest.raises(KposeError, match=r"file refused|is damaged|not valid"):
            read_tflite_card(path)


@pytest.mark.parametrize(("content", "message"), [(b"", "not a TFLite file"), (b"PK\3\4" * 9, "not a TFLite file"), (None, "cannot read")])
def test_what_is_no_tflite_file_is_refused(tmp_path, content, message):
    path = tmp_path / "other.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KposeError, match=message):
        read_tflite_card(path)


def test_a_published_file_has_no_card(shared_models):
    with pytest.raises(KposeError, match="has no card of kpose inside"):
        read_tflite_card(shared_models / "movenet_lightning_fp16.tflite")
