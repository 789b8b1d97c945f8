"""Scores, computed as the field computes them."""

from kpose.evaluation.coco import coco_ap, coco_results, write_results
from kpose.evaluation.suppression import oks_nms, oks_similarity, rescore

__all__ = ["coco_ap", "coco_results", "oks_nms", "oks_similarity", "rescore", "write_results"]
