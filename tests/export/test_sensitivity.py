from __future__ import annotations

import numpy as np
import pytest

from kpose.export import TFLiteNetwork, convert_tflite, read_tflite_record
from kpose.export.inference_network import equalising_scales, inference_network
from kpose.export.metadata import attach_card
from kpose.export.quantisation import best_ranges
from kpose.export.sensitivity import sensitive_operations
from kpose.export.tflite import _built_in_operations
from tests.export.conftest import keras_heatmaps


@pytest.fixture(scope="module")
def content(network, crops) -> bytes:
    plain = inference_network(network, network.card)
    equalised = inference_network(network, network.card, equalising_scales(plain, crops))
    return attach_card(_built_in_operations(equalised, half_precision=False), network.card, "")


def test_finds_the_operation_whose_range_is_far_too_wide(content, crops):
    _, ranges, _ = best_ranges(content, crops)
    spoilt = next(name for name in ranges if "first_add" in name)
    found = sensitive_operations(content, ranges | {spoilt: (0.0, 40 * ranges[spoilt][1])}, crops[:4], progress=False)
    assert next(iter(found.errors)) == spoilt and found.kept[0] == spoilt and len(found.kept) > 1
    assert found.after < 0.7 * found.before
    assert found.errors["heatmaps"] < 0.1


@pytest.mark.slow
def test_kept_operations_stay_in_float_and_the_file_says_which(network, crops, files, tmp_path):
    path = tmp_path / "pose.tflite"
    result = convert_tflite(network, path, "int8", crops, keep_float="auto")
    kept = read_tflite_record(path).kept_float
    assert kept == result.record.kept_float and kept
    assert result.summary.endswith(f"; {len(kept)} operations in float")
    expected = keras_heatmaps(network, network.card, crops)
    errors = [np.sqrt(np.mean((TFLiteNetwork(file)(crops) - expected) ** 2)) for file in (path, files["int8"])]
    assert errors[0] < errors[1]
