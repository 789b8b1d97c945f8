"""What may be wrong with an installation, and the remedy: `kpose doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from kpose.errors import KposeError

Verdict = Literal["fine", "note", "fault"]

# What kpose needs, then what it can do without.
_NEEDED = ("tensorflow", "keras", "numpy", "opencv-python-headless", "pycocotools", "h5py", "pydantic", "matplotlib", "safetensors")
_EXTRAS = {"ai-edge-litert": "lite", "ai-edge-quantizer": "lite", "torch": "torch"}
# Distributions that all bring the module `cv2` and overwrite one another.
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
_LEAST_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        subject: what was looked at.
        verdict: `fine`; `note` where something works, but less than it could; `fault` where something does not.
        detail: what was found.
        remedy: what to do, empty where nothing is to be done.
    """

    subject: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def examine(self_test: bool = True, distributed: bool = False) -> Iterator[Finding]:
    """Look at the installation.

    Args:
        self_test: also train a network of a few layers on drawn people and find the joints of one with it, about 10 seconds.
        distributed: also train one on two replicas and with two workers, and compare with one device, about a minute.

    Yields:
        The findings, one after the other; a check that fails in a way nobody thought of is a fault, not the end.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [_python, _packages, _opencv, _backend, _devices, _litert, _pretrained, _folders]
    checks += [_train_and_predict] * self_test + [_distributed] * distributed
    for check in checks:
        try:
            yield from check()
        except Exception as error:
            yield Finding(check.__name__.strip("_").replace("_", " "), "fault", f"{type(error).__name__}: {_first_line(error)}")


def report(self_test: bool = True, distributed: bool = False) -> int:
    """Print what `examine` finds; the arguments are its.

    Returns:
        How many faults there are.
    """
    faults = 0
    for finding in examine(self_test, distributed):
        faults += finding.verdict == "fault"
        print(f"{finding.verdict:5}  {finding.subject}: {finding.detail}", flush=True)
        if finding.remedy:
            print(f"       -> {finding.remedy}", flush=True)
    print(f"{faults} faults" if faults != 1 else "1 fault")
    return faults


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("Python", "fault", found, "kpose runs on Python 3.11 to 3.13; make an environment of one of these")
    else:
        yield Finding("Python", "fine", found)


def _packages() -> Iterator[Finding]:
    yield Finding("kpose", "fine", f"{metadata.version('kpose')} in {Path(__file__).parent}")
    for name in _NEEDED:
        version = _version(name)
        if version is None:
            yield Finding(name, "fault", "not installed", f"pip install {name}")
        else:
            yield Finding(name, "fine", version)
    for name, extra in _EXTRAS.items():
        version = _version(name)
        remedy = "" if version else f"for what needs it: pip install 'kpose[{extra}]'"
        yield Finding(name, "fine" if version else "note", version or "not installed", remedy)


def _opencv() -> Iterator[Finding]:
    installed = {name: version for name in _OPENCV if (version := _version(name))}
    listed = ", ".join(f"{name} {version}" for name, version in installed.items())
    if len(installed) > 1:
        remedy = f"pip uninstall -y {' '.join(installed)} && pip install opencv-python-headless"
        yield Finding("OpenCV", "fault", f"{listed} overwrite one another", remedy)
        return
    import cv2

    yield Finding("OpenCV", "fine", f"module cv2 {cv2.__version__} of {listed or 'no distribution'}")


def _backend() -> Iterator[Finding]:
    import keras

    name = keras.backend.backend()
    if name == "tensorflow":
        yield Finding("Keras backend", "fine", name)
    else:
        remedy = "unset KERAS_BACKEND, or set it to tensorflow; only kpose train-on-crops runs on others"
        yield Finding("Keras backend", "fault", name, remedy)


def _devices() -> Iterator[Finding]:
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if devices:
        names = (tf.config.experimental.get_device_details(device).get("device_name", device.name) for device in devices)
        yield Finding("GPU", "fine", ", ".join(map(str, names)))
        return
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    if not driver:
        yield Finding("GPU", "note", "none: no NVIDIA driver is installed; training and inference run on the processor")
    elif hidden is not None and not hidden.strip("-1, "):
        yield Finding("GPU", "note", f"none: CUDA_VISIBLE_DEVICES={hidden!r} hides them", "unset CUDA_VISIBLE_DEVICES")
    elif not tf.test.is_built_with_cuda():
        yield Finding("GPU", "fault", "a driver is there, but this TensorFlow was built without CUDA", "pip install 'tensorflow[and-cuda]'")
    else:
        wanted = tf.sysconfig.get_build_info()
        versions = f"CUDA {wanted.get('cuda_version', '?')} and cuDNN {wanted.get('cudnn_version', '?')}"
        detail = f"a driver is there, but TensorFlow does not find the libraries of {versions}"
        yield Finding("GPU", "fault", detail, "pip install 'tensorflow[and-cuda]'; nvidia-smi shows whether the driver works")


def _litert() -> Iterator[Finding]:
    import tensorflow as tf

    if _version("ai-edge-litert") is None:
        yield Finding("TFLite", "note", "files can be neither written nor run", "pip install 'kpose[lite]'")
        return
    from ai_edge_litert.interpreter import Interpreter

    function = tf.function(lambda x: tf.nn.relu(x), input_signature=[tf.TensorSpec([1, 4])], autograph=False)
    content = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()]).convert()
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.invoke()
    yield Finding("TFLite", "fine", "the converter writes a file and LiteRT runs it")


def _pretrained() -> Iterator[Finding]:
    from kpose.weights.pretrained import list_pretrained, pretrained_path

    names = list_pretrained()
    for name in names:
        pretrained_path(name)  # its hash
    if names:
        yield Finding("trained networks", "fine", ", ".join(names))
    else:
        yield Finding("trained networks", "note", "none comes with this copy", "give --weights wherever a network is needed")


def _folders() -> Iterator[Finding]:
    for name, folder in (("working folder", Path.cwd()), ("temporary folder", Path(tempfile.gettempdir()))):
        try:
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                file.write(b"kpose")
        except OSError as error:
            yield Finding(name, "fault", f"{folder} cannot be written to: {error.strerror}", "go to a folder of your own, or set TMPDIR")
            continue
        free = shutil.disk_usage(folder).free
        detail = f"{folder}, {free / 1e9:.1f} GB free"
        if free < _LEAST_FREE_BYTES:
            yield Finding(name, "note", detail, "a training writes checkpoints of about 50 MB; make room")
        else:
            yield Finding(name, "fine", detail)


def _train_and_predict() -> Iterator[Finding]:
    import keras
    import numpy as np

    from kpose.checkpoint import ModelCard
    from kpose.config import parse_config
    from kpose.data import training_data
    from kpose.data.synthetic import write_synthetic_people
    from kpose.inference import PoseEstimator, read_image
    from kpose.training import make_loss

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic_people(folder, 8, image_size=(96, 96), simple=True, processes=1, progress=False)
        pictures = {"annotations": f"{folder}/annotations/person_keypoints_train2017.json", "images": f"{folder}/train2017"}
        config = parse_config({"model": {"input_size": [64, 48]}, "data": {"train": [pictures]}, "training": {"batch_size": 8}})
        images = keras.Input((64, 48, 3))
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(images)
        x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
        model = keras.Model(images, keras.layers.Conv2D(17, 3, padding="same")(x), name="self_test")
        model.compile(keras.optimizers.Adam(3e-3), make_loss(config, model), jit_compile=False)
        history = model.fit(training_data(config, model).dataset, epochs=2, steps_per_epoch=20, verbose=0)
        first, last = history.history["loss"]
        picture = read_image(next(Path(folder, "train2017").iterdir()))
        (pose,) = PoseEstimator(model, ModelCard.from_config(config), refinement=None)(picture)[0]
    if not last < first or not np.isfinite(pose.keypoints).all():
        raise KposeError(f"the loss went from {first:.2g} to {last:.2g}; {len(pose.keypoints)} joints")
    seconds = time.monotonic() - start
    yield Finding("self-test", "fine", f"trained, the loss fell from {first:.2g} to {last:.2g}, and predicted, in {seconds:.0f} s")


def _distributed() -> Iterator[Finding]:
    from kpose.training.agreement import LARGEST_DIFFERENCE, STEPS, compare_strategies

    for found in compare_strategies():
        detail = (
            f"after {STEPS} steps the weights differ from those of one replica by {found.weights:.1g} at most, predicted joints by "
            f"{found.pixels:.1g} px, scores by {found.scores:.1g}"
        )
        if found.holds:
            yield Finding(found.name, "fine", detail)
        else:
            yield Finding(found.name, "fault", detail, f"more than {LARGEST_DIFFERENCE:g} is no matter of rounding; do not use it here")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]
