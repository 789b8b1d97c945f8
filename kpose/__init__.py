"""kpose: top-down 2D human pose estimation in Keras. A person box in, keypoints out."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kpose.checkpoint import ModelCard, load_model, save_model
    from kpose.config import load_config
    from kpose.errors import KposeError
    from kpose.inference import PoseEstimator
    from kpose.models import build_model, count, list_models
    from kpose.skeletons import Skeleton, get_skeleton
    from kpose.weights.pretrained import list_pretrained, pretrained_path

try:
    __version__ = version("kpose")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"

# TensorFlow takes seconds to import: names that need it are looked up when they are first used.
_HOMES = {
    "KposeError": "kpose.errors",
    "ModelCard": "kpose.checkpoint",
    "PoseEstimator": "kpose.inference",
    "Skeleton": "kpose.skeletons",
    "build_model": "kpose.models",
    "count": "kpose.models",
    "get_skeleton": "kpose.skeletons",
    "list_models": "kpose.models",
    "list_pretrained": "kpose.weights.pretrained",
    "load_config": "kpose.config",
    "load_model": "kpose.checkpoint",
    "pretrained_path": "kpose.weights.pretrained",
    "save_model": "kpose.checkpoint",
}
_SUBPACKAGES = ("codecs", "data", "evaluation", "export", "geometry", "inference", "losses", "models", "training", "visualize", "weights")

__all__ = [
    "KposeError",
    "ModelCard",
    "PoseEstimator",
    "Skeleton",
    "build_model",
    "count",
    "get_skeleton",
    "list_models",
    "list_pretrained",
    "load_config",
    "load_model",
    "pretrained_path",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _SUBPACKAGES:
        return import_module(f"kpose.{name}")
    raise AttributeError(f"module 'kpose' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_SUBPACKAGES, "__version__"]
