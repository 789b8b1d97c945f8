"""From images to poses."""

from kpose.inference.test_time import compile_forward, predict_heatmaps

__all__ = ["compile_forward", "predict_heatmaps"]
