"""The native runner of tflite/native, compiled and run."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from kpose.checkpoint import ModelCard
from kpose.export import TFLiteRunner, convert_tflite, read_tflite_card
from kpose.export.accelerator import VULKAN_FOLDER, vulkan_environment
from kpose.export.golden import read_index, read_photo
from kpose.export.metadata import attach_card, pack
from kpose.export.samples import drawn_crops
from tests.export.conftest import SIZE, card_of, tiny_network

LITERT = Path(importlib.util.find_spec("ai_edge_litert").origin).with_name("libLiteRt.so")
BOXES = [(16, 38, 52, 122), (-20.5, -30.25, 90, 120), (150, 100, 60, 90), (97.25, 41.5, 1.5, 0.5)]
# How cards may ask for heatmaps to be decoded, and crops to be cut.
CODECS = {
    "classic": {"codec": {"decoding": "quarter_offset"}},
    "unbiased": {"codec": {"alignment": "unbiased", "center": "exact", "decoding": "dark"}},
    "argmax": {"codec": {"decoding": "argmax", "sigma": 1.5}, "data": {"box_padding": 1.5}},
}
# Where no driver is found.
NO_GPU = {"VK_DRIVER_FILES": os.devnull, "VK_ICD_FILENAMES": os.devnull, "LD_LIBRARY_PATH": ""}

pytestmark = pytest.mark.skipif(not LITERT.is_file(), reason=f"needs LiteRT's library, {LITERT}")


def build(repository: Path, folder: Path, *settings: str) -> Path:
    if shutil.which("g++") is None or shutil.which("make") is None:
        pytest.skip("needs g++ and make")
    command = ["make", "--silent", "--directory", str(repository / "tflite" / "native"), f"BUILD={folder}", *settings]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0 and "warning" not in made.stderr, made.stderr
    return folder / "pose_runner"


@pytest.fixture(scope="module")
def program(repository, tmp_path_factory) -> Path:
    return build(repository, tmp_path_factory.mktemp("native"), "CXXFLAGS=-O0")


@pytest.fixture(scope="module")
def sanitized_program(repository, tmp_path_factory) -> Path:
    """Ends with a report instead of reading beyond an array or counting beyond an integer."""
    folder = tmp_path_factory.mktemp("sanitized")
    (folder / "probe.cpp").write_text("int main() {}")
    probe = ["g++", "-fsanitize=address,undefined", str(folder / "probe.cpp"), "-o", str(folder / "probe")]
    if shutil.which("g++") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs g++ with its sanitizers")
    return build(repository, folder, "CXXFLAGS=-O1", "SANITIZE=1")


@pytest.fixture(scope="module")
def golden(repository) -> Path:
    return repository / "tflite" / "golden"


@pytest.fixture(scope="module")
def photo(golden, tmp_path_factory) -> Path:
    """180 x 160 pixels of people."""
    path = tmp_path_factory.mktemp("photo") / "ceremony.ppm"
    path.write_bytes(b"P6 # of people\n180 160\n255\n" + read_photo(golden, "ceremony").tobytes())
    return path


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[str, Path]:
    """A small network, by precision."""
    folder, model = tmp_path_factory.mktemp("networks"), tiny_network()
    paths = {precision: folder / f"{precision}.tflite" for precision in ("fp32", "fp16", "int8")}
    for precision, path in paths.items():
        convert_tflite(model, path, precision, drawn_crops(SIZE, 12), card=card_of())
    return paths


def call(program: Path, *arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    # Leaks of LiteRT's own are none of ours.
    variables = {**vulkan_environment(), "KPOSE_LITERT": str(LITERT), "ASAN_OPTIONS": "detect_leaks=0", **(environment or {})}
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, env=variables, timeout=600)


def keypoints_of(program: Path, model: Path, photo: Path, box, *options: object) -> np.ndarray:
    """`(K, 3)`."""
    done = call(program, model, photo, *box, "--accelerator", "cpu", *options)
    assert done.returncode == 0, done.stderr
    return np.array([[joint["x"], joint["y"], joint["score"]] for joint in json.loads(done.stdout)["keypoints"]])


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal; LiteRT's own lines may precede it."""
    assert done.returncode == 2 and not done.stdout, (done.returncode, done.stdout, done.stderr)
    return done.stderr.strip().splitlines()[-1].removeprefix("pose_runner: ")


def with_card(model: Path, path: Path, card: ModelCard) -> Path:
    path.write_bytes(attach_card(model.read_bytes(), card, ""))
    return path


def with_card_text(model: Path, path: Path, text: bytes) -> Path:
    content = model.read_bytes()
    changed = schema.ModelT.InitFromPackedBuf(content)
    (entry,) = (entry for entry in changed.metadata if entry.name == b"kpose_card")
    changed.buffers[entry.buffer].data = np.frombuffer(text, np.uint8)
    path.write_bytes(pack(changed, content))
    return path


def test_gives_the_golden_vectors(program, golden):
    done = call(program, "--golden", golden)
    lines = done.stdout.splitlines()
    index = read_index(golden)
    assert done.returncode == 0 and all(line.startswith("right ") for line in lines)
    assert len(lines) == sum(1 for name in index if name) + sum(1 for key in index[""] if key.startswith("refused"))


@pytest.mark.parametrize("change", ["affine", "quarter_offset", "crop", "heatmaps"])
def test_notices_what_differs_from_the_golden_vectors(program, golden, tmp_path, change):
    folder = tmp_path / "golden"
    shutil.copytree(golden, folder)
    if change in ("crop", "heatmaps"):
        path = folder / f"tiny_box.{change}"
        values = bytearray(path.read_bytes())
        values[len(values) // 2 | 1] ^= 0x7F
        path.write_bytes(values)
    else:
        text = (folder / "golden.txt").read_text()
        before, case, after = text.partition("case tiny_box\n")
        changed = re.sub(rf"(?m)^{change} (\S+)", lambda match: f"{change} {float(match[1]) + 0.1}", after, count=1)
        (folder / "golden.txt").write_text(before + case + changed)
    done = call(program, "--golden", folder)
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("WRONG")] == ["WRONG tiny_box"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("codec", CODECS)
def test_finds_what_python_finds(program, networks, golden, photo, tmp_path, precision, codec):
    model = with_card(networks[precision], tmp_path / "model.tflite", card_of(**CODECS[codec]))
    expected = TFLiteRunner(model, threads=1, flip=False)(read_photo(golden, "ceremony"), BOXES)[0]
    for box, pose in zip(BOXES, expected, strict=True):
        np.testing.assert_allclose(keypoints_of(program, model, photo, box), pose.keypoints, atol=0.01)


def test_raw_photos_threads_and_repetitions(program, networks, golden, photo):
    model, box = networks["fp32"], BOXES[0]
    raw = keypoints_of(program, model, golden / "ceremony.rgb", box, "--size", "180x160", "--threads", 1)
    np.testing.assert_array_equal(raw, keypoints_of(program, model, photo, box))
    done = call(program, model, photo, *box, "--accelerator", "cpu", "--repeat", 3)
    assert json.loads(done.stdout)["median_milliseconds"] > 0 and json.loads(done.stdout)["accelerator"] == "cpu"


def test_shows_the_card(program, networks):
    done = call(program, networks["int8"], "--card", "--accelerator", "cpu")
    assert ModelCard.model_validate_json(done.stdout) == read_tflite_card(networks["int8"])


def test_without_a_gpu_it_runs_on_the_cpu_and_says_so(program, networks, photo):
    done = call(program, networks["fp32"], photo, *BOXES[0], environment=NO_GPU)
    assert done.returncode == 0 and json.loads(done.stdout)["accelerator"] == "cpu"
    assert done.stderr.strip().splitlines()[-1].startswith("pose_runner: on the CPU, not the GPU: LiteRT cannot run it on a GPU here")
    alone = call(program, networks["fp32"], photo, *BOXES[0], "--accelerator", "gpu", environment=NO_GPU)
    assert "LiteRT cannot run it on a GPU here" in refusal(alone)


# A system's own library says nothing: often there is no driver behind it.
@pytest.mark.skipif(
    VULKAN_FOLDER not in os.environ, reason="needs a Vulkan driver: `make test-gpu` fetches one, KPOSE_VULKAN names its folder"
)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_gpu_finds_what_the_cpu_finds(program, networks, photo, precision):
    done = call(program, networks[precision], photo, *BOXES[0], "--accelerator", "gpu")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["accelerator"] == "gpu"
    found = np.array([[joint["x"], joint["y"], joint["score"]] for joint in answer["keypoints"]])
    expected = keypoints_of(program, networks[precision], photo, BOXES[0])
    # The two processors round integers each in its own way.
    assert np.abs(found - expected)[:, 2].max() < (0.1 if precision == "int8" else 2e-3) * np.ptp(expected[:, 2])
    if precision != "int8":
        np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=0.01)


@pytest.mark.slow
def test_the_network_of_the_golden_vectors_gives_them(program, repository, golden, tmp_path):
    name, _ = read_index(golden)[""]["network"]
    candidates = [repository / "kpose" / "weights" / "released" / name]
    checkpoint = next((path for path in candidates if path.is_file()), None)
    if checkpoint is None:
        pytest.skip(f"needs {name}, the network of the golden heatmaps")
    # The largest difference, and its root mean square relative to the heatmaps'.
    for precision, largest in {"fp32": 5e-4, "fp16": 0.02}.items():
        convert_tflite(checkpoint, tmp_path / "model.tflite", precision)
        keras.utils.clear_session()
        done = call(program, tmp_path / "model.tflite", "--golden", golden, "--accelerator", "cpu")
        assert done.returncode == 0, done.stdout + done.stderr
        differences = [float(text) for text in re.findall(r"heatmaps (\S+) \(rms", done.stdout)]
        assert differences and max(differences) < largest


def test_networks_that_cannot_be_run_are_refused(program, networks, photo, tmp_path):
    model, path, box = networks["fp32"], tmp_path / "bad.tflite", BOXES[0]

    def answer(path: Path) -> str:
        return refusal(call(program, path, photo, *box, "--accelerator", "cpu"))

    assert "cannot open it: No such file" in answer(tmp_path / "gone.tflite")
    assert "cannot read it" in answer(tmp_path) or "not a file" in answer(tmp_path)
    path.write_bytes(b"")
    assert "not a TFLite file" in answer(path)
    path.write_bytes(b"GIF89a" * 100)
    assert "not a TFLite file" in answer(path)
    content = model.read_bytes()
    for kept in (0.02, 0.5, 0.98):
        path.write_bytes(content[: int(kept * len(content))])
        assert "damaged" in answer(path)
    changed = schema.ModelT.InitFromPackedBuf(content)
    changed.metadata = []
    path.write_bytes(pack(changed, content))
    assert "no card of kpose inside; make the file with kpose convert" in answer(path)

    assert "its input is (1, 64, 48, 3), but its card says (1, 96, 96, 3)" in answer(with_card(model, path, card_of((96, 96))))
    assert "its output is (1, 16, 12, 17), but its card has 16 joints" in answer(with_card(model, path, card_of(skeleton="mpii_16")))
    assert 'encoded as "offset"; this runner decodes' in answer(with_card(model, path, card_of(codec={"name": "offset"})))


def damaged_card(**changes) -> bytes:
    return json.dumps(json.loads(card_of().model_dump_json()) | changes).encode()


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        (b"", "not valid JSON: no value at byte 0"),
        (b"{", "not valid JSON: no string"),
        (b"[" * 100000, "not valid JSON: nested too deep"),
        (b'{"a": "\\ud800"}', "not valid JSON: half of a surrogate pair"),
        (b'{"a": "c\xa4assic"}', "not valid JSON: text that is not UTF-8 at byte 8"),
        ('{"a": "h\N{GREEK SMALL LETTER ALPHA}\N{SNOWMAN}\N{GRINNING FACE}"'.encode(), "not valid JSON: no '}' at byte 18"),
        (b'{"a": "\xed\xa0\x80"}', "not valid JSON: text that is not UTF-8 at byte 7"),
        (b'{"a": "\xf0\x9f\x98', "not valid JSON: text that is not UTF-8 at byte 7"),
        (b'{"a": 1e999}', "is not a number"),
        (b"[1, 2]", "no valid 'input_size'"),
        (damaged_card(input_size=[64.5, 48]), "'input_size' must be two whole numbers from 1 to 8192"),
        (damaged_card(input_size=[1 << 40, 48]), "'input_size' must be two whole numbers from 1 to 8192"),
        (damaged_card(box_padding=-1), "'box_padding' must be greater than 0"),
        (damaged_card(codec={"name": "gaussian"}), "no valid 'sigma'"),
        (damaged_card(codec={**json.loads(card_of().codec.model_dump_json()), "sigma": 1e300}), "greater than any heatmap"),
        (damaged_card(codec={**json.loads(card_of().codec.model_dump_json()), "alignment": "x"}), "unknown 'alignment'"),
        (damaged_card(skeleton={"joint_names": []}), "has no joints"),
        (damaged_card(skeleton={"joint_names": [1]}), "no valid 'joint_names'"),
    ],
)
def test_cards_that_cannot_be_used_are_refused(program, networks, photo, tmp_path, card, problem):
    path = with_card_text(networks["fp32"], tmp_path / "bad.tflite", card)
    assert problem in refusal(call(program, path, photo, *BOXES[0], "--accelerator", "cpu"))


def test_photos_boxes_and_options_that_cannot_be_used_are_refused(program, networks, photo, golden, tmp_path):
    model, bad, box = networks["fp32"], tmp_path / "bad.ppm", BOXES[0]

    def answer(*arguments: object) -> str:
        return refusal(call(program, *arguments, "--accelerator", "cpu"))

    assert "cannot read" in answer(model, tmp_path / "gone.ppm", *box)
    for content, problem in {
        b"P5 2 2 255 ....": "no binary PPM picture",
        b"P6 180 160 255\n" + bytes(1000): "has 1000 bytes of pixels; 180 x 160 RGB pixels are 86400",
        b"P6 99999999 9999999 255\n": "claims 99999999 x 9999999 pixels",
        b"P6 0 10 255\n": "claims 0 x 10 pixels",
        b"P6 2 2 65535\n" + bytes(24): "has not 8 bits a channel",
        b"P6": "its head has no size",
    }.items():
        bad.write_bytes(content)
        assert problem in answer(model, bad, *box)
    assert "has 86400 bytes of pixels; 180 x 161" in answer(model, golden / "ceremony.rgb", *box, "--size", "180x161")
    assert "has no area" in answer(model, photo, 10, 10, 0, 20)
    assert "lies outside of the photo of 180 x 160 pixels" in answer(model, photo, 180, 10, 20, 20)
    assert "'nan' is not a number" in answer(model, photo, "nan", 10, 20, 20)
    assert "expected a network, a photo and the four numbers of a box" in answer(model, photo, 1, 2, 3)
    assert "--threads must be a whole number from 1 to 256, found 0" in answer(model, photo, *box, "--threads", 0)
    assert "there is no option --speed" in answer(model, photo, *box, "--speed", 3)
    assert "cannot open LiteRT" in answer(model, photo, *box, "--litert", tmp_path / "gone.so")
    assert "has no function LiteRtCreateEnvironment" in answer(model, photo, *box, "--litert", program.with_name("libpose_runner.so"))
    (tmp_path / "golden.txt").write_text("kpose golden vectors 2\n")
    assert "does not begin with 'kpose golden vectors 1'" in answer("--golden", tmp_path)


def test_an_answer_that_cannot_be_written_is_an_error(program):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(program), "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr == "pose_runner: cannot write to the standard output\n"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_random_damage_never_ends_in_a_crash(sanitized_program, networks, photo, tmp_path, precision):
    rng = np.random.default_rng(0)
    content = np.frombuffer(networks[precision].read_bytes(), np.uint8)
    for attempt in range(60):
        spoilt = content.copy()
        if attempt % 3 == 0:
            spoilt = spoilt[: rng.integers(len(spoilt))]
        else:
            # The tables are at the beginning and, of files that the quantiser wrote, at the end; the weights are between.
            places = rng.integers(0, 600 if attempt % 3 == 1 else len(spoilt), rng.integers(1, 40))
            spoilt[places] = rng.integers(0, 256, len(places))
        path = tmp_path / "spoilt.tflite"
        path.write_bytes(spoilt.tobytes())
        done = call(sanitized_program, path, photo, *BOXES[0], "--accelerator", "cpu")
        assert done.returncode in (0, 2), done.stderr
        assert done.returncode == 0 or done.stderr.strip().splitlines()[-1].startswith("pose_runner: ")


@pytest.mark.slow
def test_the_sanitized_program_does_the_same(sanitized_program, networks, golden, photo):
    assert call(sanitized_program, "--golden", golden).returncode == 0
    expected = TFLiteRunner(networks["fp32"], threads=1, flip=False)(read_photo(golden, "ceremony"), BOXES)[0]
    for box, pose in zip(BOXES, expected, strict=True):
        np.testing.assert_allclose(keypoints_of(sanitized_program, networks["fp32"], photo, box), pose.keypoints, atol=0.01)


class Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("input_height", "input_width", "heatmap_height", "heatmap_width", "joints")]


def test_the_c_interface(program, networks, golden, tmp_path):
    """As another language calls it."""
    library = ctypes.CDLL(str(program.with_name("libpose_runner.so")))
    library.pose_runner_create.restype = ctypes.c_void_p
    for name in ("accelerator", "fallback_reason", "card", "joint_name", "last_error"):
        getattr(library, f"pose_runner_{name}").restype = ctypes.c_char_p
    library.pose_runner_sizes.restype = Sizes
    floats = np.ctypeslib.ndpointer(np.float32, flags="C")

    def create(model: Path, threads: int = 1) -> ctypes.c_void_p:
        return ctypes.c_void_p(library.pose_runner_create(str(model).encode(), str(LITERT).encode(), threads, 1))

    assert not create(tmp_path / "gone.tflite")
    assert b"gone.tflite: cannot open it" in library.pose_runner_last_error()
    assert not create(networks["fp32"], threads=0)
    assert library.pose_runner_last_error() == b"threads must be at least 1, found 0"

    card = card_of(**CODECS["unbiased"])
    model = with_card(networks["fp32"], tmp_path / "model.tflite", card)
    runner = create(model)
    assert runner and library.pose_runner_accelerator(runner) == b"cpu" and library.pose_runner_fallback_reason(runner) == b""
    assert ModelCard.model_validate_json(library.pose_runner_card(runner)) == card
    sizes = library.pose_runner_sizes(runner)
    assert [getattr(sizes, name) for name, _ in Sizes._fields_] == [*SIZE, SIZE[0] // 4, SIZE[1] // 4, 17]
    assert [library.pose_runner_joint_name(runner, joint) for joint in (0, 16, 17, -1)] == [b"nose", b"right_ankle", None, None]

    image = read_photo(golden, "ceremony")
    (pose,) = TFLiteRunner(model, threads=1, flip=False)(image, BOXES[:1])[0]
    height, width = image.shape[:2]
    # Rows further apart than they are long, as cameras give them.
    padded = np.full((height, 3 * width + 20), 77, np.uint8)
    padded[:, : 3 * width] = image.reshape(height, -1)
    box = np.array(BOXES[0], np.float32)
    photo = (padded.ctypes.data_as(ctypes.c_void_p), width, height, ctypes.c_int64(padded.strides[0]), box.ctypes.data_as(ctypes.c_void_p))
    whole, parts, in_crop = (np.zeros((17, 3), np.float32) for _ in range(3))
    crop, matrix = np.zeros((*SIZE, 3), np.float32), np.zeros((2, 3))
    heatmaps = np.zeros((SIZE[0] // 4, SIZE[1] // 4, 17), np.float32)
    library.pose_runner_run.argtypes = [ctypes.c_void_p, floats, floats]

    assert library.pose_runner_estimate(runner, *photo, whole.ctypes.data_as(ctypes.c_void_p)) == 0
    np.testing.assert_allclose(whole, pose.keypoints, atol=0.01)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (crop, matrix, heatmaps, parts, in_crop)]
    assert library.pose_runner_crop(runner, *photo, pointers[0], pointers[1]) == 0
    assert library.pose_runner_run(runner, crop, heatmaps) == 0
    assert library.pose_runner_decode(runner, pointers[2], pointers[1], pointers[3]) == 0
    np.testing.assert_array_equal(parts, whole)
    assert library.pose_runner_decode(runner, pointers[2], None, pointers[4]) == 0
    np.testing.assert_allclose(in_crop[:, :2], whole[:, :2] @ matrix[:, :2].T + matrix[:, 2], atol=1e-3)

    narrow = (*photo[:3], ctypes.c_int64(3 * width - 1), photo[4])
    assert library.pose_runner_estimate(runner, *narrow, pointers[3]) != 0
    assert library.pose_runner_last_error() == b"the photo's rows are 539 bytes apart, less than 180 RGB pixels take"
    library.pose_runner_destroy(runner)
    library.pose_runner_destroy(None)
