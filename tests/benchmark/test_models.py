"""What the benchmark of the networks reports; how fast they are is no matter of tests."""

from __future__ import annotations

import keras
import pytest

from kpose.benchmark import models
from kpose.inference.test_time import compile_forward


def tiny(name: str, *_: object) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Conv2D(2, 3, name="heatmaps")(inputs), name=name)


def test_a_network_is_measured_beside_the_yardstick():
    latency = models.measure(tiny("one"), compile_forward(tiny("other"), 1), seconds=0.0, turns=2)
    assert latency.name == "one" and latency.parameters == 56 and latency.multiply_adds == 54 * 36
    assert latency.milliseconds > 0 and latency.ratio > 0


def test_networks_are_listed_the_fastest_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(models, "build_model", tiny)
    measured = models.benchmark_models(["first", "second", models.YARDSTICK], (8, 8), seconds=0.0, turns=1)
    assert {latency.name for latency in measured} == {"first", "second", models.YARDSTICK}
    assert [latency.ratio for latency in measured] == sorted(latency.ratio for latency in measured)
    printed = capsys.readouterr().out
    assert "| `first` | 0.00 | 0.000 |" in printed and "8x8, 17 joints" in printed
