"""Several replicas train what one does; what cannot be set up is told in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kpose.training.fit
from kpose.checkpoint import load_model
from kpose.cli import main
from kpose.config import dump_config, parse_config
from kpose.data import training_data
from kpose.errors import KposeError
from kpose.training import make_schedule, train
from kpose.training.agreement import Agreement, _free_addresses, compare_strategies
from kpose.training.distribution import Workplace, describe, make_workplace, shared_batch
from tests.training.tiny_training import assert_equal_weights, tiny_config, tiny_network


class FourReplicas:
    num_replicas_in_sync = 4


FOUR = Workplace(FourReplicas())  # type: ignore[arg-type]


def training(**settings: Any) -> Any:
    return parse_config({"training": settings})


@pytest.mark.slow
def test_replicas_and_workers_train_what_one_device_does(tmp_path: Path) -> None:
    """Weights within 1e-5 after ten steps; predictions, loss and score too, with a last batch that cannot be divided."""
    found = list(compare_strategies(tmp_path))
    assert [agreement.name for agreement in found] == ["two replicas", "two workers"]
    assert all(agreement.holds for agreement in found), found
    start = load_model(tmp_path / "one_replica" / "last.keras")
    assert all(np.abs(weight).max() > 0 for weight in start.get_weights()), "there is something to compare"
    names = {path.name for path in (tmp_path / "two_workers").iterdir()}
    assert names == {*(path.name for path in (tmp_path / "one_replica").iterdir()), "worker-1.log"}


def test_a_difference_is_seen() -> None:
    assert Agreement("", 9e-6, 0.0, 0.0).holds
    for worse in (Agreement("", 2e-5, 0.0, 0.0), Agreement("", 0.0, 0.5, 0.0), Agreement("", 0.0, 0.0, 0.01)):
        assert not worse.holds


# `scripts/train.py` on one of two machines, with a network that is compiled in a second; one of them is asked to end in its eighth step.
WORKER = """
import os, runpy, signal, sys
import kpose.training.callbacks, kpose.training.fit
from tests.training.tiny_training import tiny_network
kpose.training.fit.build_model = tiny_network
def ask_to_end(self, batch, logs=None):
    if self._epoch == 1 and batch == 2 and self.workplace.worker == 1:
        os.kill(os.getpid(), signal.SIGTERM)
kpose.training.callbacks.States.on_train_batch_begin = ask_to_end
sys.argv = ["train.py", "--config", sys.argv[1]]
runpy.run_path("scripts/train.py", run_name="__main__")
"""


@pytest.mark.slow
def test_when_one_worker_is_asked_to_end_all_do_and_one_device_goes_on(
    people: Path, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kpose.training.fit, "build_model", tiny_network)
    options = {"norm": False, "dropout": False}
    # Five steps of four people, twice; nothing is written within an epoch but on request.
    schedule = {"steps_per_epoch": 5, "epochs": 2, "save_every_minutes": 60}
    config, alone = (
        tiny_config(people, tmp_path / name, options=options, training=schedule, distribution={"strategy": strategy})
        for name, strategy in (("together", "multi_worker"), ("alone", "single"))
    )
    settings = tmp_path / "together.yaml"
    settings.write_text(dump_config(config))
    addresses = _free_addresses(2)
    workers = []
    for worker in range(2):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}}
        environment = os.environ | {"PYTHONPATH": str(repository), "TF_CONFIG": json.dumps(cluster), "CUDA_VISIBLE_DEVICES": "-1"}
        command = [sys.executable, "-c", WORKER, str(settings)]
        workers.append(
            subprocess.Popen(command, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    outputs = [worker.communicate(timeout=600)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [128 + signal.SIGTERM] * 2, outputs
    assert all("kpose: asked to end after step 8; the state is in" in output for output in outputs)
    assert "epoch 1/2" in outputs[0] and "epoch 1/2" not in outputs[1], "the first one tells how it goes"
    resumed = train(config.model_copy(update={"distribution": alone.distribution}), resume=True)
    assert_equal_weights(resumed.model, train(alone).model, tolerance=1e-5)


def test_each_worker_reads_its_share_of_each_batch(people: Path, tmp_path: Path) -> None:
    config = tiny_config(people, tmp_path, training={"batch_size": 6})
    whole = [batch[0] for batch in training_data(config, start_step=3).dataset.take(4).as_numpy_iterator()]
    shares = [[batch[0] for batch in training_data(config, None, 3, worker, 3).dataset.take(4).as_numpy_iterator()] for worker in range(3)]
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([share[step] for share in shares]), batch)


def test_a_broken_picture_is_named_by_the_worker_whose_it_is(people: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for picture in (people / "train2017").iterdir():
        (folder / picture.name).write_bytes(picture.read_bytes())
    broken = sorted(folder.iterdir())[2]
    broken.write_bytes(b"\xff\xd8\xff no picture")
    config = tiny_config(people, tmp_path, training={"batch_size": 6})
    part = config.data.train[0].model_copy(update={"images": folder})
    config = config.model_copy(update={"data": config.data.model_copy(update={"train": [part]})})
    named = set()
    for worker in range(3):
        data = training_data(config, None, 0, worker, 3)
        list(data.dataset.take(4).as_numpy_iterator())
        named |= {Path(file).name for file in data.skipped.first}
    assert named == {broken.name}


def test_the_batch_is_that_of_all_replicas_or_of_each() -> None:
    assert shared_batch(training(batch_size=64), FOUR).training.batch_size == 64
    each = shared_batch(training(batch_size=64, batch_size_of="each_replica", accumulation_steps=2), FOUR)
    assert each.training.batch_size == 256
    assert shared_batch(each, FOUR) == each, "said once"
    assert describe(each, FOUR).endswith("256 people a step, 64 on each of 4 replicas, 32 at a time")


def test_the_rate_grows_with_the_batch_only_when_told() -> None:
    def rates(**settings: Any) -> list[float]:
        schedule = make_schedule(training(batch_size=256, learning_rate=1e-3, warmup_steps=10, **settings), 100)
        return [float(schedule(step)) for step in (0, 50, 17_500)]

    assert rates(learning_rate_batch_size=64) == pytest.approx([4 * rate for rate in rates()])
    descents = {"schedule": "restarts", "lowest_learning_rate": 1e-5}
    assert rates(learning_rate_batch_size=64, **descents) == pytest.approx([4 * rate for rate in rates(**descents)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"batch_size": 30},
            "training.batch_size is 30, which cannot be divided among 4 replicas in 1 accumulation steps each; make it a m",
        ),
        ({"batch_size": 36, "accumulation_steps": 2}, "make it a multiple of 8"),
        ({"jit_compile": True, "synchronized_batch_norm": True}, "jit_compile and training.synchronized_batch_norm exclude one another"),
        ({"accumulation_steps": 2, "synchronized_batch_norm": True}, "accumulation_steps and training.synchronized_batch_norm exclude"),
    ],
)
def test_batches_and_settings_that_replicas_cannot_take_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(KposeError, match=message):
        shared_batch(training(**settings), FOUR)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (None, "needs the environment variable TF_CONFIG"),
        ("{", "TF_CONFIG is not understood"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG has no 'task'"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "TF_CONFIG is not understood"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}', "the jobs worker, ps"),
    ],
)
def test_workers_that_are_not_described_are_refused(variable: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if variable:
        monkeypatch.setenv("TF_CONFIG", variable)
    with pytest.raises(KposeError, match=message):
        make_workplace(parse_config({"distribution": {"strategy": "multi_worker"}}).distribution)


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(KposeError, match=r"this machine has no GPU:98, GPU:99"):
        make_workplace(parse_config({"distribution": {"strategy": "mirrored", "devices": ["GPU:98", "GPU:99"]}}).distribution)


def test_a_processor_cannot_be_divided_once_tensorflow_runs() -> None:
    keras.ops.zeros(1)
    with pytest.raises(KposeError, match="must be set up before TensorFlow is used; start a new process"):
        make_workplace(parse_config({"distribution": {"strategy": "mirrored", "devices": ["CPU:0", "CPU:1"]}}).distribution)


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        ({"devices": ["GPU:0"]}, "strategy 'single' ignores it"),
        ({"strategy": "mirrored", "tpu": "mine"}, "strategy 'mirrored' ignores it"),
        ({"strategy": "mirrored", "devices": ["GPU:0", "CPU:1"]}, "expected different devices of one kind"),
        ({"strategy": "mirrored", "devices": ["GPU:0", "GPU:0"]}, "expected different devices of one kind"),
        ({"strategy": "mirrored", "devices": ["gpu0"]}, "expected different devices of one kind"),
        ({"strategy": "central_storage"}, "input should be 'single', 'mirrored', 'multi_worker' or 'tpu'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(distribution: dict[str, Any], message: str) -> None:
    with pytest.raises(KposeError, match=message):
        parse_config({"distribution": distribution})


def test_the_doctor_tells_of_a_difference(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [Agreement("two replicas", 2e-6, 0.0, 0.0), Agreement("two workers", 0.5, 3.0, 0.1)]
    monkeypatch.setattr("kpose.training.agreement.compare_strategies", lambda: iter(found))
    assert main(["doctor", "--quick", "--distributed"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("fine   two replicas: after 10 steps the weights differ from those of one replica by 2e-06") for line in lines
    )
    assert any(line.startswith("fault  two workers: after 10 steps the weights differ") for line in lines)
