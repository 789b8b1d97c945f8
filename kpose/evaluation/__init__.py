"""Scores, computed as the field computes them."""

from kpose.evaluation.coco import coco_ap, coco_results, write_results
from kpose.evaluation.protocol import protocol_card
from kpose.evaluation.scoring import Predictions, Score, evaluate, evaluate_checkpoint, predict_instances, score_predictions
from kpose.evaluation.suppression import oks_nms, oks_similarity, rescore

__all__ = [
    "Predictions",
    "Score",
    "coco_ap",
    "coco_results",
    "evaluate",
    "evaluate_checkpoint",
    "oks_nms",
    "oks_similarity",
    "predict_instances",
    "protocol_card",
    "rescore",
    "score_predictions",
    "write_results",
]
