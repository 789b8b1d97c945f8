"""Scores, computed as the field computes them."""

from kpose.evaluation.aic import aic_map
from kpose.evaluation.coco import coco_ap, coco_results, write_results
from kpose.evaluation.crowdpose import crowdpose_ap
from kpose.evaluation.explain import explain_scores
from kpose.evaluation.pck import pck, torso_diameters
from kpose.evaluation.pckh import pckh, pckh_of_head_sizes
from kpose.evaluation.prediction import Predictions, pose_test, predict_instances, view_batches
from kpose.evaluation.protocol import protocol_card
from kpose.evaluation.raw import RawPredictions, read_raw_predictions, write_raw_predictions
from kpose.evaluation.result_lists import explain_result_lists
from kpose.evaluation.scoring import Score, evaluate, evaluate_checkpoint, score_predictions
from kpose.inference.suppression import oks_nms, oks_similarity, rescore

__all__ = [
    "Predictions",
    "RawPredictions",
    "Score",
    "aic_map",
    "coco_ap",
    "coco_results",
    "crowdpose_ap",
    "evaluate",
    "evaluate_checkpoint",
    "explain_result_lists",
    "explain_scores",
    "oks_nms",
    "oks_similarity",
    "pck",
    "pckh",
    "pckh_of_head_sizes",
    "pose_test",
    "predict_instances",
    "protocol_card",
    "read_raw_predictions",
    "rescore",
    "score_predictions",
    "torso_diameters",
    "view_batches",
    "write_raw_predictions",
    "write_results",
]
