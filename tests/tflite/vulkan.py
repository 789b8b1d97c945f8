"""Vulkan in software for the programs that the tests start: `make test-gpu` fetches it, KPOSE_VULKAN names its folder."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

LIBRARY = "libvulkan.so.1"


def vulkan_environment() -> dict[str, str]:
    """The environment in which a program finds the library that KPOSE_VULKAN names; as it is where nothing is named."""
    folder = os.environ.get("KPOSE_VULKAN")
    if not folder:
        return dict(os.environ)
    # Read by the dynamic linker when a process begins, and no later.
    places = [str(Path(folder).resolve()), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(places)}


def has_vulkan() -> bool:
    """Whether such a program finds a library."""
    if folder := os.environ.get("KPOSE_VULKAN"):
        return (Path(folder) / LIBRARY).is_file()
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True
