"""The Kotlin library of `tflite/android`, compiled by the Kotlin compiler and run on the desktop JVM.

What a machine may lack, and where it comes from:

* Java: Debian's `openjdk-17-jdk-headless`, or any JDK from 17 on;
* the Kotlin compiler, JUnit and Android's classes: `make android-tools`, which needs no rights on the machine. KPOSE_DEBIAN_ROOT names
  the folder of the last two where they are not installed: `.venv/android`;
* a GPU: `make test-gpu` fetches one in software. KPOSE_VULKAN names its folder: `.venv/vulkan`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from kpose.export import TFLiteRunner, convert_tflite
from kpose.export.accelerator import VULKAN_FOLDER, vulkan_environment
from kpose.inference.refinement import Refinement
from tests.export.conftest import SIZE, card_of, tiny_network

TFLITE = Path(__file__).resolve().parents[2] / "tflite"
ANDROID, NATIVE, GOLDEN = TFLITE / "android", TFLITE / "native", TFLITE / "golden"
POSE = ANDROID / "pose" / "src"
COMPILER = "run_kotlin_kernel"  # what kotlin-jupyter-kernel installs


def require(condition: object, need: str) -> None:
    if not condition:
        pytest.skip(f"needs {need}; see the head of {Path(__file__).name}")


def debian_file(name: str, package: str) -> Path:
    path = Path(os.environ.get("KPOSE_DEBIAN_ROOT", "/")) / name
    require(path.is_file(), f"/{name} of Debian's {package}")
    return path


def run(*command: str | Path, refused: bool = False) -> str:
    """What a program that must succeed prints; or what one that must refuse its input says."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, env=vulkan_environment())
    assert done.returncode == (2 if refused else 0), f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stderr if refused else done.stdout


def class_path(*jars: Path) -> str:
    return os.pathsep.join(map(str, jars))


def package_folder(name: str) -> Path | None:
    """The folder of an installed Python package, which is not imported."""
    spec = importlib.util.find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


@pytest.fixture(scope="session")
def standard_library() -> Path:
    """Kotlin's own classes, without which nothing runs."""
    require(shutil.which("java"), "Java (openjdk-17-jdk-headless)")
    compiler = package_folder(COMPILER)
    require(compiler, "the Kotlin compiler (kotlin-jupyter-kernel)")
    (library,) = (compiler / "jars").glob("kotlin-stdlib-[0-9]*.jar")
    return library


def compile_kotlin(target: Path, sources: list[Path], library: Path, *class_paths: Path, options: tuple[str, ...] = ()) -> Path:
    files = [file for source in sources for file in ([source] if source.is_file() else sorted(source.rglob("*.kt")))]
    # One compilation is over before Java's better optimiser pays.
    java = ["java", "-XX:TieredStopAtLevel=1", "-cp", str(library.parent / "*")]
    # -Werror: what the compiler warns of, such as something unused or deprecated, is an error.
    settings = ["-no-stdlib", "-no-reflect", "-jvm-target", "11", "-Werror", *options]
    compiler = [*java, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", *settings]
    run(*compiler, "-classpath", class_path(library, *class_paths), "-d", target, *files)
    return target


@pytest.fixture(scope="session")
def library(standard_library, tmp_path_factory) -> Path:
    """The library, compiled."""
    return compile_kotlin(tmp_path_factory.mktemp("kotlin") / "pose.jar", [POSE / "main"], standard_library)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder of TFLite files with weights that were made up."""
    folder = tmp_path_factory.mktemp("models")
    network, card = tiny_network(), card_of()
    for precision in ("fp32", "int8"):
        crops = np.random.default_rng(0).uniform(0, 255, (4, *SIZE, 3)).astype(np.float32)
        convert_tflite(network, folder / f"{precision}.tflite", precision, crops, card=card)
    return folder


def test_passes_its_own_tests(library, standard_library, models, tmp_path):
    """The golden vectors and what a network needs around it: pose/src/test."""
    require((GOLDEN / "golden.txt").is_file(), "the golden vectors in tflite/golden")
    junit = [debian_file(f"usr/share/java/{name}.jar", "junit4") for name in ("junit4", "hamcrest-all")]
    tests = compile_kotlin(
        tmp_path / "tests.jar", [POSE / "test"], standard_library, library, *junit, options=(f"-Xfriend-paths={library}",)
    )
    classes = [f"org.kpose.pose.{file.stem}" for file in sorted((POSE / "test").rglob("*Test.kt"))]
    assert len(classes) > 5
    settings = [f"-Dkpose.golden={GOLDEN}", f"-Dkpose.models={models}"]
    printed = run("java", *settings, "-cp", class_path(library, tests, standard_library, *junit), "org.junit.runner.JUnitCore", *classes)
    assert f"OK ({sum(file.read_text().count('@Test') for file in (POSE / 'test').rglob('*Test.kt'))} tests)" in printed


def test_needs_nothing_that_android_lacks(standard_library, tmp_path):
    """The library, and the view that draws over the camera's picture, against Android's own classes instead of a JDK's."""
    android = debian_file("usr/lib/android-sdk/platforms/android-23/android.jar", "android-sdk-platform-23")
    view = ANDROID / "app" / "src" / "main" / "kotlin" / "org" / "kpose" / "app" / "OverlayView.kt"
    compile_kotlin(tmp_path / "android.jar", [POSE / "main", view], standard_library, android, options=("-no-jdk",))


@pytest.fixture(scope="session")
def desktop(library, standard_library, tmp_path_factory):
    """Runs a command of `tflite/android/desktop` on a network; gives what it prints."""
    lite_rt = package_folder("ai_edge_litert")
    require(lite_rt and (lite_rt / "libLiteRt.so").is_file(), "LiteRT's library (ai-edge-litert)")
    require((NATIVE / "pose_runner.h").is_file(), "the native runner in tflite/native")
    require(all(map(shutil.which, ("gcc", "make", "javac"))), "gcc, make and a JDK (openjdk-17-jdk-headless)")
    folder = tmp_path_factory.mktemp("desktop")
    run("make", "-s", "-C", NATIVE, f"BUILD={folder}", folder / "libpose_runner.so")
    headers = Path(shutil.which("javac")).resolve().parents[1] / "include"
    includes = [f"-I{path}" for path in (NATIVE, headers, headers / "linux")]
    link = [f"-L{folder}", "-lpose_runner", "-Wl,-rpath,$ORIGIN"]
    bridge = folder / "libdesktop_network.so"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    run("gcc", "-shared", "-fPIC", *warnings, *includes, ANDROID / "desktop" / "desktop_network.c", "-o", bridge, *link)
    program = compile_kotlin(folder / "desktop.jar", [ANDROID / "desktop"], standard_library, library)

    def command(model: Path, *arguments: str | Path, refused: bool = False) -> str:
        jars = class_path(program, library, standard_library)
        return run(
            "java",
            "-cp",
            jars,
            "org.kpose.pose.desktop.DesktopPoseKt",
            bridge,
            lite_rt / "libLiteRt.so",
            model,
            *arguments,
            refused=refused,
        )

    return command


def people(printed: str, joints: int = 17) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Keypoints, box and score of each person that was printed."""
    lines = [np.array(line.split(), float) for line in printed.splitlines()]
    assert len(lines) % (joints + 1) == 0
    return [
        (np.stack(lines[start + 1 : start + 1 + joints]), lines[start][:4], lines[start][4]) for start in range(0, len(lines), joints + 1)
    ]


def picture(path: Path, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).integers(0, 255, (120, 160, 3), np.uint8)
    cv2.imwrite(str(path), cv2.GaussianBlur(noise, (5, 5), 0))
    return path


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("flip", [False, True], ids=["as it is", "flip test"])
def test_finds_what_python_finds(desktop, models, tmp_path, precision, flip):
    model, photo = models / f"{precision}.tflite", picture(tmp_path / "photo.png")
    box = [-20, 10, 90, 100]
    (expected,) = TFLiteRunner(model, threads=1, flip=flip)(photo, [box])
    ((keypoints, _, score),) = people(desktop(model, "find", photo, *box, *(["flip"] if flip else [])))
    # Crops are equal to the bit, and LiteRT is the same: what is left is the rounding of what is printed.
    np.testing.assert_allclose(keypoints, expected[0].keypoints, atol=1e-3)
    assert score == pytest.approx(expected[0].score, abs=1e-4)


def test_follows_the_box_that_python_would_follow(desktop, models, tmp_path):
    model = models / "fp32.tflite"
    photos = [picture(tmp_path / f"{number}.png", number) for number in range(3)]
    runner, refinement = TFLiteRunner(model, threads=1, flip=False), Refinement()
    whole = np.array([0, 0, 160, 120], np.float32)
    box = whole
    for photo, (keypoints, found_in, _) in zip(photos, people(desktop(model, "track", *photos)), strict=True):
        np.testing.assert_allclose(found_in, box, atol=0.01)
        ((expected,),) = runner(photo, [box])
        np.testing.assert_allclose(keypoints, expected.keypoints, atol=0.01)
        following = refinement.next_box(expected.keypoints, whole)
        box = whole if following is None else following


def test_says_in_one_line_what_is_wrong(desktop, models, tmp_path):
    photo = picture(tmp_path / "photo.png")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes((models / "fp32.tflite").read_bytes()[:1000])
    for model, box, part in ((damaged, [1, 1, 9, 9], "damaged.tflite is damaged"), (models / "fp32.tflite", [1, 1, 0, 9], "has no area")):
        assert part in desktop(model, "find", photo, *box, refused=True).splitlines()[-1]


@pytest.mark.slow
def test_the_receipt_of_the_golden_network(desktop, tmp_path):
    """The network that the golden heatmaps are of, by way of the same code that runs on a phone."""
    require((GOLDEN / "golden.txt").is_file(), "the golden vectors in tflite/golden")
    digest = (GOLDEN / "golden.txt").read_text().split("network ")[1].split()[1]
    checkpoints = TFLITE.parent.glob("kpose/weights/released/*.keras")
    golden = [file for file in checkpoints if hashlib.sha256(file.read_bytes()).hexdigest() == digest]
    require(golden, "the checkpoint that the golden vectors are of")
    model, report = tmp_path / "pose.tflite", tmp_path / "receipt.json"
    convert_tflite(golden[0], model, "fp32")
    assert "parity and latency receipt" in desktop(model, "receipt", GOLDEN, 3, report)
    receipt = json.loads(report.read_text())
    assert receipt["crop_difference"] < 0.1
    assert max(receipt["decoding_difference"].values()) < 0.01
    cpu, gpu = receipt["places"]
    assert cpu["cases"] >= 1
    assert cpu["difference_from_golden"] < 5e-4
    assert cpu["keypoint_difference"] < 0.01
    assert cpu["median_milliseconds"] > 0
    if VULKAN_FOLDER in os.environ:
        assert gpu["ran_at"] == "gpu" and gpu["cases"] == cpu["cases"]
        assert gpu["difference_from_first"] < 1e-3
    else:
        assert gpu["failure"] is None or "on a GPU here" in gpu["failure"]
