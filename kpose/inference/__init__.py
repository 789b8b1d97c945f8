"""From images to poses."""

from kpose.inference.folder import PredictionSummary, predict_folder, read_boxes
from kpose.inference.images import read_image
from kpose.inference.predictor import Pose, PoseEstimator
from kpose.inference.refinement import Refinement
from kpose.inference.test_time import Member, PoseTest, compile_forward, predict_heatmaps

__all__ = [
    "Member",
    "Pose",
    "PoseEstimator",
    "PoseTest",
    "PredictionSummary",
    "Refinement",
    "compile_forward",
    "predict_folder",
    "predict_heatmaps",
    "read_boxes",
    "read_image",
]
