"""What the benchmark of the score reports; how fast it is, is no matter of tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kpose.benchmark import benchmark_scoring
from kpose.benchmark.scoring import synthetic_results
from kpose.errors import KposeError


@pytest.fixture
def annotations() -> dict:
    keypoints = np.stack([np.linspace(10, 190, 17), np.linspace(20, 280, 17), np.full(17, 2)], axis=-1)
    person = {"id": 1, "image_id": 5, "category_id": 3, "bbox": [0, 0, 200, 300], "area": 30000.0, "iscrowd": 0}
    person |= {"keypoints": keypoints.ravel().tolist(), "num_keypoints": 17}
    return {"images": [{"id": 5}, {"id": 6}], "categories": [{"id": 3, "name": "person"}], "annotations": [person]}


def test_both_score_the_same_results(annotations: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(annotations))
    measured = benchmark_scoring(path, results_per_image=6, turns=2)
    assert measured.difference == 0
    assert 0 < measured.score["AP"] <= 1
    assert measured.kpose > 0 and measured.pycocotools > 0
    printed = capsys.readouterr().out
    assert "| `kpose.evaluation.coco_ap` |" in printed
    assert "2 images, 1 people with keypoints, 12 results; median of 2 turns" in printed
    assert path.read_text() == json.dumps(annotations)


def test_every_image_gets_its_results(annotations: dict) -> None:
    results = synthetic_results(annotations, 4)
    assert [result["image_id"] for result in results] == [5] * 4 + [6] * 4
    assert {result["category_id"] for result in results} == {3}
    assert results == synthetic_results(annotations, 4) != synthetic_results(annotations, 4, seed=1)


@pytest.mark.parametrize(("results", "turns"), [(0, 1), (1, 0)])
def test_nothing_to_measure_is_refused(annotations: dict, tmp_path: Path, results: int, turns: int) -> None:
    with pytest.raises(KposeError, match="at least one"):
        benchmark_scoring(tmp_path / "gone.json", results, turns)


@pytest.mark.parametrize("content", ["[]", "{}", '{"categories": [{"id": 1}], "images": [{}], "annotations": []}'])
def test_what_is_no_annotation_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(content)
    with pytest.raises(KposeError):
        benchmark_scoring(path)
