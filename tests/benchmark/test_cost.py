"""The cost model's arithmetic, by hand, and its prediction of files, which is exact enough to compare with what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest

import kpose.training.fit
from kpose.benchmark import cost
from kpose.benchmark.cost import Costs, benchmark_cost, format_prediction, predict
from kpose.config import Config, parse_config
from kpose.data.datasets import training_instances
from kpose.data.synthetic import write_synthetic_people
from kpose.data.tfrecords import write_tfrecords
from kpose.errors import KposeError

# A step of 10 people takes 2 s and 3 CPU seconds; a core makes 20 people a second, so a batch takes half a CPU second.
COSTS = Costs(
    step_seconds=2.0,
    step_cpu_seconds=3.0,
    people_per_cpu_second=20.0,
    batch_size=10,
    picture_bytes=100_000.0,
    parameters=1_000_000,
    joints=17,
    accelerated=False,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("people")
    write_synthetic_people(folder, 8, seed=3, split="train2017", image_size=(120, 120), processes=1, progress=False)
    train = [{"annotations": f"{folder}/annotations/person_keypoints_train2017.json", "images": f"{folder}/train2017"}]
    return parse_config({"model": {"input_size": [64, 64]}, "data": {"train": train}, "training": {"batch_size": 4, "epochs": 3}})


def tiny(name: str, num_keypoints: int, input_size: tuple[int, int], **_: Any) -> keras.Model:
    inputs = keras.Input((*input_size, 3))
    return keras.Model(inputs, keras.layers.Conv2D(num_keypoints, 3, strides=4, padding="same")(inputs), name=name)


@pytest.fixture
def _tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "build_model", tiny)
    monkeypatch.setattr(kpose.training.fit, "build_model", tiny)


def test_on_cpu_data_and_network_share_the_cores():
    assert COSTS.seconds_per_step(cores=2) == pytest.approx(2.0 * (1 + 0.5 / 3.0))


def test_an_accelerator_waits_for_data_only_if_the_cores_are_too_few():
    accelerated = replace(COSTS, accelerated=True, step_seconds=0.1)
    assert accelerated.seconds_per_step(cores=1) == pytest.approx(0.5)
    assert accelerated.seconds_per_step(cores=4) == pytest.approx(0.125)
    assert accelerated.seconds_per_step(cores=8) == pytest.approx(0.1)


def test_a_whole_training(config: Config):
    prediction = predict(COSTS, config, people=1005, pictures=500, cores=2)
    assert prediction.steps == 3 * 100, "what does not fill a batch comes first in the next epoch"
    assert prediction.hours == pytest.approx(300 * COSTS.seconds_per_step(2) / 3600)
    assert prediction.record_bytes == pytest.approx(500 * 100_330 + 1005 * 4 * 59)


def test_the_tables_say_what_a_user_asks_first(config: Config):
    text = format_prediction(COSTS, predict(COSTS, config, 150_000, 57_000, 2), config, 2)
    assert "| data | 20 people a second for each core |" in text
    assert "45000 steps (3 epochs), 29.2 hours on 2 CPU cores" in text
    assert "| pictures | 5.70 GB (57000 of them) |" in text
    assert "| checkpoint with optimizer | 12 MB |" in text
    assert "| to feed 1000 people a second | 50 cores for data, 100 MB a second from files |" in text


def test_records_are_as_large_as_predicted(config: Config, tmp_path: Path):
    people = training_instances(config)
    files = [people.image_files[index] for index in sorted(set(people.image_index.tolist()))]
    costs = replace(COSTS, picture_bytes=sum(Path(file).stat().st_size for file in files) / len(files))
    manifest = write_tfrecords(people, tmp_path, progress=False)
    written = sum(path.stat().st_size for path in manifest.parent.glob("*.tfrecord"))
    # These pictures are small: what is not picture is a tenth of it, and off by the length of a path.
    assert written == pytest.approx(costs.record_bytes(len(people), len(files)), rel=0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("_tiny_network")
def test_the_check_trains_and_writes_and_compares(config: Config, capsys: pytest.CaptureFixture[str]):
    prediction = benchmark_cost(config, people=1000, check_steps=2)
    assert prediction.people == 1000 and prediction.pictures == 8
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("checked: 2 steps predicted ")
    predicted, written = (int(line.split(word)[1].split()[0]) for word in ("records predicted ", "have "))
    assert written == pytest.approx(predicted, rel=0.02)


@pytest.mark.parametrize("name", ["people", "pictures", "cores"])
def test_nothing_is_refused(config: Config, name: str):
    with pytest.raises(KposeError, match=f"{name} must be at least 1, found 0"):
        benchmark_cost(config, **{name: 0})
