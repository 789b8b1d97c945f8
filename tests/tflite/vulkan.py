"""Vulkan in software for the programs that the tests start: `make test-gpu` fetches it, KPOSE_VULKAN names its folder."""

from __future__ import annotations

import os
from pathlib import Path


def vulkan_environment() -> dict[str, str]:
    """The environment in which a program finds the library that KPOSE_VULKAN names; as it is where nothing is named."""
    folder = os.environ.get("KPOSE_VULKAN")
    if not folder:
        return dict(os.environ)
    if not (Path(folder) / "libvulkan.so.1").is_file():
        raise FileNotFoundError(f"KPOSE_VULKAN is {folder}, where there is no libvulkan.so.1")
    # Read by the dynamic linker when a process begins, and no later.
    places = [str(Path(folder).resolve()), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(places)}


def has_vulkan() -> bool:
    """Whether KPOSE_VULKAN names a folder. A system's own library says nothing: often there is no driver behind it."""
    return bool(os.environ.get("KPOSE_VULKAN"))
