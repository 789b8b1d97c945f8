"""Whether a training on several replicas is the one on a single device: the same small network, trained thrice in processes of their own.

`kpose doctor --distributed` tells what `compare_strategies` finds.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kpose.config import Config, dump_config, load_config, parse_config
from kpose.errors import KposeError

STEPS = 10
PREDICTIONS = "predictions.npz"
# Sums over replicas are in another order than those over a batch; float32 has 7 digits.
LARGEST_DIFFERENCE = 1e-5
_LIMIT_SECONDS = 900
# One device, then what is to agree with it.
_STRATEGIES: dict[str, dict[str, Any]] = {
    "one replica": {},
    "two replicas": {"strategy": "mirrored", "devices": ["CPU:0", "CPU:1"]},
    "two workers": {"strategy": "multi_worker"},
}


@dataclass(frozen=True)
class Agreement:
    """How far a training is from that on one device, with the same seed and the same people in a step.

    Attributes:
        name: what it ran on.
        weights: the largest difference of a weight after the last step.
        pixels: the largest distance of a predicted joint of the validation people.
        scores: the largest difference of a metric.
    """

    name: str
    weights: float
    pixels: float
    scores: float

    @property
    def holds(self) -> bool:
        """Whether it is the same training, up to the order of sums."""
        return self.weights <= LARGEST_DIFFERENCE and self.pixels <= 1e-2 and self.scores <= 1e-6


def compare_strategies(folder: str | Path | None = None) -> Iterator[Agreement]:
    """Train a small network for ten steps on one device, on two replicas and with two workers, all on this machine's processor.

    Args:
        folder: where people and trainings go; default: a temporary one.

    Yields:
        Of each but the first how far it is from the first.

    Raises:
        KposeError: when one of them fails, with the last line it printed.
    """
    from kpose.data.synthetic import write_synthetic_people

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(folder or temporary)
        for seed, split in enumerate(("train2017", "val2017")):
            write_synthetic_people(root, 5, seed=seed, split=split, image_size=(96, 96), simple=True, processes=1, progress=False)
        outputs = {}
        for name, distribution in _STRATEGIES.items():
            config = _config(root, root / name.replace(" ", "_"), distribution)
            _run(config, workers=2 if name == "two workers" else 1)
            outputs[name] = config.output
        expected = _outcome(outputs.pop("one replica"))
        for name, output in outputs.items():
            yield _compare(name, _outcome(output), expected)


def small_network(name: str, num_keypoints: int, input_size: tuple[int, int], **options: Any) -> Any:
    """A network that is compiled in a second, with the normalisation that makes replicas differ where it is not synchronised."""
    import keras

    from kpose.models.layers import BatchNormalization

    images = keras.Input((*input_size, 3))
    # A bias ahead of normalisation has a gradient of rounding errors alone, which Adam makes steps of.
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(images)
    x = keras.layers.ReLU()(BatchNormalization()(x))
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(images, keras.layers.Conv2D(num_keypoints, 3, padding="same", dtype="float32")(x), name=name)


def _config(people: Path, output: Path, distribution: dict[str, Any]) -> Config:
    splits = ("train2017", "val2017")
    train, validation = (
        {"annotations": f"{people}/annotations/person_keypoints_{split}.json", "images": f"{people}/{split}", "protocol": "pck_box"}
        for split in splits
    )
    return parse_config(
        {
            "model": {"input_size": [64, 48]},
            "data": {"train": [train], "validation": validation},
            "training": {
                "epochs": 2,
                "steps_per_epoch": STEPS // 2,
                "batch_size": 8,
                "learning_rate": 3e-3,
                "warmup_steps": 0,
                "synchronized_batch_norm": True,
                "gradient_clipping": 0.05,
                "weight_averaging": 0.9,
            },
            # The last batch is not full, and cannot be divided.
            "evaluation": {"batch_size": 4},
            "distribution": distribution,
            "output": str(output),
        }
    )


def _run(config: Config, workers: int) -> None:
    """Train in processes of their own: a process can set up devices and workers only once."""
    config.output.mkdir(parents=True)
    settings = config.output / "settings.yaml"
    settings.write_text(dump_config(config), encoding="utf-8")
    addresses = _free_addresses(workers)
    processes = []
    for worker in range(workers):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        environment.pop("TF_CONFIG", None)
        if workers > 1:
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}})
        log = (config.output / f"worker-{worker}.log").open("w+", encoding="utf-8")
        command = [sys.executable, "-m", "kpose.training.agreement", str(settings)]
        processes.append((subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT), log))
    try:
        for process, _ in processes:
            process.wait(_LIMIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise KposeError(f"training on {config.output.name.replace('_', ' ')} did not end within {_LIMIT_SECONDS} s") from error
    finally:
        for process, _ in processes:
            process.kill()
            process.wait()
        lines = []
        for process, log in processes:
            log.seek(0)
            lines += log.read().splitlines()[-1:] if process.returncode else []
            log.close()
    if lines:
        raise KposeError(f"training on {config.output.name.replace('_', ' ')} failed: {lines[0][:300]}")


def _free_addresses(number: int) -> list[str]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(number)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    return addresses


def _outcome(output: Path) -> tuple[list[np.ndarray], np.ndarray, dict[str, float]]:
    from kpose.checkpoint import load_model
    from kpose.evaluation.raw import read_raw_predictions
    from kpose.files import read_number_table

    weights = load_model(output / "last.keras").get_weights()
    row = read_number_table(output / "training.csv")[-1]
    return weights, read_raw_predictions(output / PREDICTIONS).keypoints, {"loss": row["loss"], "PCK": row["PCK"]}


def _compare(name: str, found: Any, expected: Any) -> Agreement:
    (weights, keypoints, scores), (other_weights, other_keypoints, other_scores) = found, expected
    return Agreement(
        name,
        max(float(np.abs(one - other).max()) for one, other in zip(weights, other_weights, strict=True)),
        float(np.abs(keypoints - other_keypoints)[..., :2].max()),
        max(abs(scores[metric] - other_scores[metric]) for metric in other_scores),
    )


def _train_and_evaluate(settings: str) -> None:
    """What each of the processes does."""
    from kpose.data import validation_sets
    from kpose.evaluation import evaluate
    from kpose.evaluation.raw import write_raw_predictions
    from kpose.training import train

    config = load_config(settings)
    result = train(config, build=small_network)
    if result.metrics:  # the chief's
        score = evaluate(result.model, validation_sets(config)[0], config, progress=False)
        write_raw_predictions(score.raw, config.output / PREDICTIONS)


if __name__ == "__main__":
    _train_and_evaluate(sys.argv[1])
