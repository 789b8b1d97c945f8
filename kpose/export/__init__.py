"""Trained networks as TFLite files, and those files on the desk."""

from kpose.export.metadata import read_tflite_card
from kpose.export.runner import TFLiteNetwork, TFLiteRunner
from kpose.export.samples import sample_crops
from kpose.export.tflite import Conversion, check_conversion, convert_tflite

__all__ = [
    "Conversion",
    "TFLiteNetwork",
    "TFLiteRunner",
    "check_conversion",
    "convert_tflite",
    "read_tflite_card",
    "sample_crops",
]
