"""PyTorch's files are read without PyTorch, and nothing in them is executed."""

from __future__ import annotations

import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kpose.errors import KposeError
from kpose.weights.torch_checkpoint import read_torch_checkpoint
from tests.weights.torch_files import TorchPickler, write_stream, write_zip

WEIGHT = np.arange(24, dtype="float32").reshape(2, 3, 4)
COUNTER = np.array([7], "int64")


WRITERS = pytest.mark.parametrize("write", [write_zip, write_stream])


@WRITERS
@pytest.mark.parametrize("wrapped", [lambda state: state, lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}])
def test_the_tensors_of_a_state_dictionary_come_out(tmp_path, write, wrapped):
    tensors = read_torch_checkpoint(write(tmp_path / "model.pth", wrapped({"conv.weight": WEIGHT, "conv.bias": WEIGHT[0, 0]})))
    assert list(tensors) == ["conv.weight", "conv.bias"]
    np.testing.assert_array_equal(tensors["conv.weight"], WEIGHT)
    np.testing.assert_array_equal(tensors["conv.bias"], WEIGHT[0, 0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_floating_point_comes_out_as_float32_and_integers_as_they_are(tmp_path, dtype):
    values = WEIGHT.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    tensors = read_torch_checkpoint(write_zip(tmp_path / "model.pth", {"weight": values, "steps": COUNTER}))
    assert tensors["weight"].dtype == "float32" and tensors["steps"].dtype == "int64"
    np.testing.assert_array_equal(tensors["weight"], WEIGHT)


class TestWithPyTorch:
    """What PyTorch itself writes."""

    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch", reason="needs the extra 'torch'")

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
    def test_a_trainings_checkpoint(self, torch, tmp_path, zipped):
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
        optimizer = torch.optim.Adam(network.parameters())
        state = {"epoch": 5, "state_dict": network.state_dict(), "optimizer": optimizer.state_dict(), "meta": np.random.default_rng(1)}
        torch.save(state, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
        tensors = read_torch_checkpoint(tmp_path / "model.pth")
        assert list(tensors) == list(network.state_dict())
        for name, value in network.state_dict().items():
            np.testing.assert_array_equal(tensors[name], value.numpy())

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
    def test_views_parameters_and_half_precision(self, torch, tmp_path, zipped):
        block = torch.arange(60.0).reshape(3, 4, 5)
        state = {
            "transposed": block.permute(2, 0, 1),
            "part": block[1, 1:3],
            "parameter": torch.nn.Parameter(block),
            "half": block.half(),
            "bfloat16": block.bfloat16(),
            "scalar": torch.tensor(3.0),
            "empty": torch.zeros(0, 3),
        }
        torch.save(state, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
        tensors = read_torch_checkpoint(tmp_path / "model.pth")
        for name, value in state.items():
            np.testing.assert_array_equal(tensors[name], value.detach().float().numpy(), err_msg=name)


def test_safetensors(tmp_path):
    from safetensors.numpy import save_file

    save_file({"conv.weight": WEIGHT, "half": WEIGHT.astype("float16"), "steps": COUNTER}, tmp_path / "model.safetensors")
    tensors = read_torch_checkpoint(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(tensors["conv.weight"], WEIGHT)
    np.testing.assert_array_equal(tensors["half"], WEIGHT)
    assert tensors["half"].dtype == "float32" and tensors["steps"].tolist() == [7]


class Hostile:
    """Runs a command when it is unpickled by the book."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@WRITERS
def test_a_hostile_pickle_does_not_execute(tmp_path, write):
    mark = tmp_path / "executed"
    tensors = read_torch_checkpoint(write(tmp_path / "model.pth", {"weight": WEIGHT, "trap": Hostile(f"touch {mark}")}))
    assert list(tensors) == ["weight"]
    assert not mark.exists()


@pytest.mark.parametrize(
    "program",
    [
        b'cbuiltins\neval\n(S\'open("{mark}", "w")\'\ntR.',
        b"(S'touch {mark}'\nios\nsystem\n.",
        b"ctorch._utils\n_rebuild_tensor_v2\n}S'__code__'\ncos\nsystem\nsb.",
        b"cbuiltins\n__import__\n(S'os'\ntRS'system'\n(S'touch {mark}'\ntR.",
        b"cfunctools\npartial\n(cos\nsystem\nS'touch {mark}'\ntR(tR.",
    ],
)
def test_no_opcode_reaches_a_function(tmp_path, program):
    mark = tmp_path / "executed"
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program.replace(b"{mark}", str(mark).encode()))
    with pytest.raises(KposeError):
        read_torch_checkpoint(tmp_path / "model.pth")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (25,), (1,)), (1, (24,), (1,)), (0, (1 << 40,), (0,)), (-1, (2,), (1,)), (0, (2, 3), (1,)), (0, (2,), (24,)), (0, (2,), (-1,))],
)
def test_a_tensor_cannot_claim_what_its_storage_does_not_have(tmp_path, offset, shape, strides):
    class Liar(TorchPickler):
        def save_array(self, array):
            self.blocks["0"] = array.tobytes()
            self.write_tensor(array, "0", offset, shape, strides)

        dispatch = TorchPickler.dispatch | {np.ndarray: save_array}

    with pytest.raises(KposeError, match="claims elements that its storage 0 does not have"):
        read_torch_checkpoint(write_zip(tmp_path / "model.pth", {"weight": WEIGHT}, Liar))


@given(array=arrays.arrays("float32", arrays.array_shapes(min_dims=0, max_dims=4), elements=st.floats(width=32, allow_nan=False)))
def test_any_array_comes_back(tmp_path_factory, array):
    path = write_zip(tmp_path_factory.mktemp("array") / "model.pth", {"weight": array})
    np.testing.assert_array_equal(read_torch_checkpoint(path)["weight"], array)


@WRITERS
@given(cut=st.floats(0.0, 0.99))
def test_a_truncated_file_is_one_clear_line(tmp_path_factory, write, cut):
    path = write(tmp_path_factory.mktemp("cut") / "model.pth", {"weight": WEIGHT, "bias": WEIGHT[0]})
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(KposeError, match=r"model\.pth") as error:
        read_torch_checkpoint(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.pth", b"not a checkpoint", "damaged or no PyTorch checkpoint"),
        ("model.pth", pickle.dumps({"weight": 3}), "does not begin as one"),
        ("model.safetensors", b"\xff" * 64, "damaged or no PyTorch checkpoint"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KposeError, match=message):
        read_torch_checkpoint(tmp_path / name)


def test_a_zip_file_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(KposeError, match=r"no data\.pkl"):
        read_torch_checkpoint(tmp_path / "model.pth")


def test_a_program_is_refused(tmp_path):
    path = write_zip(tmp_path / "model.pth", {"weight": WEIGHT})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    with pytest.raises(KposeError, match="TorchScript program; save the network's state_dict"):
        read_torch_checkpoint(path)


def test_a_checkpoint_without_tensors_is_refused(tmp_path):
    with pytest.raises(KposeError, match="holds no state dictionary"):
        read_torch_checkpoint(write_zip(tmp_path / "model.pth", {"epoch": 3}))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(KposeError, match=r"there is no checkpoint .*model\.pth"):
        read_torch_checkpoint(tmp_path / "model.pth")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("kpose.weights.torch_checkpoint.LARGEST_FILE_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "model.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 100_000)
    with pytest.raises(KposeError, match="unpacks to more than"):
        read_torch_checkpoint(tmp_path / "model.pth")
