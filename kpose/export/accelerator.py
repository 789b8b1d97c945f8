"""TFLite files on LiteRT's WebGPU accelerator, which runs on Vulkan. It takes more operations than TFLite's GPU delegate.

Without a GPU a driver that computes on the CPU does; `scripts/fetch_software_vulkan.sh` fetches one. Vulkan is looked for where the
system's loader looks for libraries, or in the folder that the environment variable `KPOSE_VULKAN` names.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from kpose.errors import KposeError

VULKAN_FOLDER = "KPOSE_VULKAN"
_SECONDS = 900


def accelerator_output(path: str | Path, crops: np.ndarray) -> np.ndarray:
    """What a file gives on the GPU alone: nothing is left to the CPU.

    It runs in a process of its own, for a driver that fails may end the process.

    Args:
        path: of a TFLite file with a signature, see `kpose.export.convert_tflite`.
        crops: `(N, H, W, 3)` in 0..255.

    Returns:
        `(N, ...)` float32, in full precision.

    Raises:
        KposeError: when LiteRT or a Vulkan driver is missing, the file cannot be read, or is not wholly compiled for the GPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "crops.npy"), Path(folder, "found.npy")
        np.save(given, crops)
        process = _in_a_process(str(Path(path).resolve()), str(given), str(found))
        if process.returncode or not found.is_file():
            lines = [line for line in process.stderr.splitlines() if "rror" in line] or process.stderr.splitlines() or ["no message"]
            raise KposeError(
                f"{path} does not run wholly on the GPU (exit status {process.returncode}): {lines[-1].strip()[:200]}; "
                "kpose convert --gate names the operations"
            )
        return np.load(found, allow_pickle=False)


def missing_driver() -> str | None:
    """Why nothing can be run on a GPU here, in a few words; None where it can.

    Raises:
        KposeError: when the driver does not answer.
    """
    process = _in_a_process()
    lines = process.stdout.split()
    if process.returncode == 0 and lines and lines[-1].isdigit() and int(lines[-1]):
        return None
    return f"no Vulkan driver found; run scripts/fetch_software_vulkan.sh FOLDER and set {VULKAN_FOLDER} to the folder"


def vulkan_environment() -> dict[str, str]:
    """The environment of a process that is to find the driver in the folder that `KPOSE_VULKAN` names, if it names one."""
    environment = dict(os.environ)
    if folder := environment.get(VULKAN_FOLDER):
        # Read by the dynamic linker when a process begins, and no later.
        folder = str(Path(folder).resolve())
        environment["LD_LIBRARY_PATH"] = os.pathsep.join([folder, *filter(None, [environment.get("LD_LIBRARY_PATH")])])
    return environment


def _in_a_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs this file; by itself, for the package would load TensorFlow, which it has no use for."""
    environment = vulkan_environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, [environment.get("PYTHONPATH")])])
    try:
        # -P: the files beside this one are no modules of their own.
        command = [sys.executable, "-P", __file__, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise KposeError(f"the GPU has not answered within {_SECONDS} seconds") from error


def _run(path: str, given: str, found: str) -> None:
    """What the other process does."""
    try:
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.gpu_options import GpuOptions
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        from ai_edge_litert.options import Options
    except ImportError as error:
        raise KposeError("the GPU needs LiteRT, which is not installed; run: pip install 'kpose[lite]'") from error
    # With the CPU beside it everything would count as accelerated.
    options = Options(hardware_accelerators=HardwareAccelerator.GPU, gpu_options=GpuOptions(enforce_f32=True))
    model = CompiledModel.from_file(path, options=options)
    if not model.is_fully_accelerated():
        raise KposeError("an error: not all operations are on the GPU")
    key = model.get_signature_by_index(0)["key"]
    (image,), (output,) = (tuple(details(key).values()) for details in (model.get_input_tensor_details, model.get_output_tensor_details))
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    answers = []
    for crop in np.load(given, allow_pickle=False):
        values = np.rint(crop.astype(np.float32) - 128) if image["dtype"] == "int8" else crop
        inputs[0].write(np.ascontiguousarray(values[None], image["dtype"]))
        model.run_by_index(0, inputs, outputs)
        answers.append(np.array(outputs[0].read(int(np.prod(output["shape"])), np.float32)).reshape(output["shape"][1:]))
    np.save(found, np.stack(answers))


class _InstanceInfo(ctypes.Structure):
    """VkInstanceCreateInfo."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    )


def _count_devices() -> int:
    """How many devices Vulkan has."""
    try:
        find = ctypes.CDLL("libvulkan.so.1").vkGetInstanceProcAddr
    except (OSError, AttributeError):
        return 0
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
    address = find(None, b"vkCreateInstance")
    instance, count = ctypes.c_void_p(), ctypes.c_uint32()
    create = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(address)
    if create(ctypes.byref(_InstanceInfo(type=1)), None, ctypes.byref(instance)):
        return 0
    enumerate_devices = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
        find(instance, b"vkEnumeratePhysicalDevices")
    )
    return 0 if enumerate_devices(instance, ctypes.byref(count), None) else count.value


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(_count_devices())
    else:
        _run(*sys.argv[1:])
