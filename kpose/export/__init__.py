"""Trained networks as TFLite files, and those files on the desk; and as SavedModels for TensorFlow Serving."""

from kpose.export.delegate import delegate_findings, operation_counts
from kpose.export.metadata import ConversionRecord, read_tflite_card, read_tflite_record
from kpose.export.runner import TFLiteDecodingNetwork, TFLiteNetwork, TFLiteRunner
from kpose.export.samples import sample_crops, training_crops
from kpose.export.saved_model import ServingExport, export_saved_model
from kpose.export.tflite import Conversion, check_conversion, convert_tflite

__all__ = [
    "Conversion",
    "ConversionRecord",
    "ServingExport",
    "TFLiteDecodingNetwork",
    "TFLiteNetwork",
    "TFLiteRunner",
    "check_conversion",
    "convert_tflite",
    "delegate_findings",
    "export_saved_model",
    "operation_counts",
    "read_tflite_card",
    "read_tflite_record",
    "sample_crops",
    "training_crops",
]
