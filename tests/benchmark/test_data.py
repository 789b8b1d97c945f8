"""What the benchmark of the pipeline reports; how fast anything is, is no matter of tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kpose.benchmark import data
from kpose.benchmark.data import CEILING, UNCHANGED, USUAL, Stage, benchmark_data
from kpose.config import Config, parse_config
from kpose.data.synthetic import write_synthetic_people
from kpose.errors import KposeError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    write_synthetic_people(folder, 4, seed=3, split="train2017", image_size=(120, 120), processes=1, progress=False)
    return folder


def make_config(folder: Path, **sections: Any) -> Config:
    train = [{"annotations": f"{folder}/annotations/person_keypoints_train2017.json", "images": f"{folder}/train2017"}]
    off = {"half_body_probability": 0, "scale": 0, "rotation_degrees": 0}
    values = {"model": {"input_size": [64, 64]}, "data": {"train": train}, "augmentation": off, "training": {"batch_size": 128}}
    return parse_config(values | sections)


def test_stages_stand_beside_the_ceiling_and_the_usual_loader(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    # Measured in the order of their making: 100 images a second, 50, 33 ...; twice as many for each second of CPU time.
    order: list[int] = []

    def speed(batches: Any, *_: Any, **__: Any) -> data.Speed:
        number = order.index(id(batches)) if id(batches) in order else len(order)
        order.extend([id(batches)] if number == len(order) else [])
        next(iter(batches))
        return data.Speed(100.0 / (number + 1), 200.0 / (number + 1))

    monkeypatch.setattr(data, "_speed", speed)
    stages = benchmark_data(make_config(folder), repeats=2)
    assert [stage.name for stage in stages] == [CEILING, "read + decode, what the crop shows", "+ warp", UNCHANGED, "+ flip", USUAL]
    assert stages[0].ratio == 1.0 and stages[1].ratio == 0.5 and stages[1].core_ratio == 0.5
    printed = capsys.readouterr().out
    assert f"| {CEILING} | 100 | 1.00 | 200 | 1.00 |" in printed
    assert "a core gives 1.20 times as many images" in printed and "at equal augmentation ('+ flip')" in printed


def test_a_speed_counts_batches_and_cpu_time():
    speed = data._speed(iter(range(1000)), batch=64, seconds=0.0001)
    assert speed.images_per_second > 0 and speed.images_per_cpu_second > 0


def test_without_a_usual_loader_the_stages_are_measured_all_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(data, "_speed", lambda *_, **__: data.Speed(1.0, 1.0))
    stages = benchmark_data(make_config(folder, codec={"alignment": "unbiased"}), repeats=1)
    assert USUAL not in [stage.name for stage in stages]
    assert "not compared with the usual loader: the OpenCV loader makes Gaussians" in capsys.readouterr().out


def test_no_repeat_is_refused(folder: Path):
    with pytest.raises(KposeError, match="0 repeats"):
        benchmark_data(make_config(folder), repeats=0)


def test_columns_of_the_table():
    rows = data.format_table([Stage("one", 10.0, 5.0, 0.5, 0.25)]).splitlines()
    assert rows[2] == "| one | 10 | 0.50 | 5 | 0.25 |" and len({row.count("|") for row in rows}) == 1
