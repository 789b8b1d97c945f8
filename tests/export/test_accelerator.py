"""On LiteRT's GPU accelerator, by whatever Vulkan there is: `make test-gpu` brings a driver in software."""

from __future__ import annotations

import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.export import TFLiteNetwork, convert_tflite, delegate_findings
from kpose.export.accelerator import accelerator_output, missing_driver
from kpose.export.samples import drawn_crops
from kpose.models import build_model
from tests.export.conftest import card_of, give_weights

SIZE = (64, 64)


@pytest.fixture(scope="module")
def driver() -> None:
    if reason := missing_driver():
        pytest.skip(reason)


def test_without_a_driver_it_says_how_to_get_one(monkeypatch, tmp_path):
    (tmp_path / "libvulkan.so.1").write_bytes(b"no library")
    monkeypatch.setenv("KPOSE_VULKAN", str(tmp_path))
    assert "scripts/fetch_software_vulkan.sh" in missing_driver()


@pytest.mark.slow
def test_the_lightweight_network_is_wholly_on_the_gpu(driver, tmp_path):
    """And says what it says on the CPU. With noise for weights rounding would grow; these are a trained network's in kind, not in value."""
    model, card = give_weights(build_model("lite_mobilenet_v3", 17, SIZE)), card_of(SIZE)
    path, crops = tmp_path / "pose.tflite", drawn_crops(SIZE, 2)
    convert_tflite(model, path, "fp32", card=card)
    assert not delegate_findings(path)
    expected = TFLiteNetwork(path)(crops)
    assert np.abs(accelerator_output(path, crops) - expected).max() < 1e-4 * np.ptp(expected)


@pytest.mark.slow
def test_what_does_not_run_is_refused_in_one_line(driver, files, tmp_path):
    """The process that tries it may end as it likes."""
    content, path = files["fp32"].read_bytes(), tmp_path / "short.tflite"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(KposeError, match="does not run wholly on the GPU") as refusal:
        accelerator_output(path, drawn_crops((64, 48), 1))
    assert "\n" not in str(refusal.value)
