"""The report on the TFLite files of a network, by a tiny one and drawn people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kpose.benchmark import benchmark_export
from kpose.benchmark.export import format_report
from kpose.checkpoint import save_model
from kpose.config import Config, parse_config
from kpose.data.synthetic import write_synthetic_people
from kpose.errors import KposeError
from kpose.export import TFLiteNetwork
from tests.export.conftest import card_of, tiny_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    save_model(tiny_network(), folder / "tiny.keras", card_of())
    return folder


@pytest.fixture(scope="module")
def config(folder) -> Config:
    drawn = write_synthetic_people(folder, 5, image_size=(120, 120), processes=1, progress=False)
    people = {"annotations": str(drawn.annotation_file), "images": str(drawn.image_folder)}
    return parse_config({"model": {"input_size": [64, 48]}, "data": {"train": [people], "validation": [people]}})


@pytest.fixture(scope="module")
def report(folder, config) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        # A GPU has its own test, and takes its time.
        patch.setattr("kpose.benchmark.export.missing_driver", lambda: "not asked for")
        return benchmark_export(config, folder / "tiny.keras", folder, ["fp32", "int8"], samples=5, rounds=1, resamples=10)


def test_fp32_scores_what_keras_scores_and_int8_nearly(report):
    scores = {one["file"]: one for one in report["scores"]}
    assert list(scores) == ["keras", "fp32", "int8"]
    assert scores["fp32"]["metrics"] == pytest.approx(scores["keras"]["metrics"], abs=1e-6, nan_ok=True)
    assert scores["fp32"]["mean_oks"] == pytest.approx(scores["keras"]["mean_oks"], abs=1e-5)
    assert scores["keras"]["differences"] is None and scores["fp32"]["differences"]["AP"]["value"] == pytest.approx(0, abs=1e-6)
    assert abs(scores["int8"]["mean_oks"] - scores["keras"]["mean_oks"]) < 0.1


def test_every_file_is_described(report, folder):
    plain, small = report["files"]
    assert plain["relative_rms"] < 1e-5 < small["relative_rms"] < 0.1
    for described in (plain, small):
        path = folder / described["file"]
        assert path.stat().st_size == described["bytes"]
        assert TFLiteNetwork(path).card.input_size == (64, 48)
        assert described["left_to_cpu"] == [] and described["cpu_partitions"] >= 1
        assert [entry["threads"] for entry in described["milliseconds"]] == [1, 2]
    assert small["conversion"]["samples"]["number"] == 5 and small["conversion"]["ranges"] in small["conversion"]["range_errors"]


def test_the_report_is_written_and_readable(report, folder):
    written = json.loads((folder / "export.json").read_text())
    assert written["files"][0]["sha256"] == report["files"][0]["sha256"]
    tables = (folder / "export.md").read_text()
    assert tables == format_report(written)
    assert "| int8 |" in tables and "not asked for" in tables


def test_a_precision_that_there_is_not_is_refused_at_once(config, folder):
    with pytest.raises(KposeError, match="no precision 'int4'"):
        benchmark_export(config, folder / "tiny.keras", folder / "other", ["fp32", "int4"])
    assert not (folder / "other").exists()
