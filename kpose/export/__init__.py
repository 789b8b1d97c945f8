"""Trained networks as TFLite files, and those files on the desk."""

from kpose.export.delegate import delegate_findings, operation_counts
from kpose.export.metadata import ConversionRecord, read_tflite_card, read_tflite_record
from kpose.export.runner import TFLiteDecodingNetwork, TFLiteNetwork, TFLiteRunner
from kpose.export.samples import sample_crops, training_crops
from kpose.export.tflite import Conversion, check_conversion, convert_tflite

__all__ = [
    "Conversion",
    "ConversionRecord",
    "TFLiteDecodingNetwork",
    "TFLiteNetwork",
    "TFLiteRunner",
    "check_conversion",
    "convert_tflite",
    "delegate_findings",
    "operation_counts",
    "read_tflite_card",
    "read_tflite_record",
    "sample_crops",
    "training_crops",
]
