"""From images to poses."""

from kpose.inference.batch import BatchSummary, predict_batch
from kpose.inference.batch_job import BatchSettings
from kpose.inference.folder import PredictionSummary, predict_folder, read_boxes
from kpose.inference.images import decode_image, read_image
from kpose.inference.predictor import Pose, PoseEstimator
from kpose.inference.refinement import Refinement
from kpose.inference.smoothing import PoseSmoother
from kpose.inference.test_time import Member, PoseTest, compile_forward, predict_heatmaps
from kpose.inference.tracking import PoseTracker
from kpose.inference.video import TrackedPose, VideoPoses, VideoSummary, predict_video

__all__ = [
    "BatchSettings",
    "BatchSummary",
    "Member",
    "Pose",
    "PoseEstimator",
    "PoseSmoother",
    "PoseTest",
    "PoseTracker",
    "PredictionSummary",
    "Refinement",
    "TrackedPose",
    "VideoPoses",
    "VideoSummary",
    "compile_forward",
    "decode_image",
    "predict_batch",
    "predict_folder",
    "predict_heatmaps",
    "predict_video",
    "read_boxes",
    "read_image",
]
