"""Who is called when; how fast anything is, is no matter of tests."""

from __future__ import annotations

import pytest

from kpose.benchmark.latency import milliseconds_in_turns, network_alone


def test_calls_take_turns():
    called: list[str] = []
    calls = {name: lambda name=name: called.append(name) for name in "abc"}
    measured = milliseconds_in_turns(calls, rounds=2, seconds=0.0, progress=False)
    # Once to warm up, once to be measured.
    assert called == list("aabbcc" * 2)
    assert set(measured) == {"a", "b", "c"} and all(len(times) == 2 and min(times) >= 0 for times in measured.values())


def test_a_network_runs_alone(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="needs LiteRT, of the extra `lite`")
    import tensorflow as tf

    from tests.inference.tiny_tflite import write_tflite

    path = write_tflite(tmp_path / "network.tflite", lambda images: tf.cast(images, tf.float32) * 2.0, (1, 4, 6, 3))
    network_alone(path, 1)()
