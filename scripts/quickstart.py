"""kpose in a few minutes: draw people, train on them, score, predict, and look at the result (`make quickstart`).

    python scripts/quickstart.py [--output quickstart]

Every step is the public command or function that real data takes too; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from kpose.start_up import import_tensorflow_quietly

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "synthetic" / "lite_mobilenet_v3_128x96.yaml"
TRAIN_IMAGES, VALIDATION_IMAGES, PREDICTED_IMAGES = 2000, 150, 8
IMAGE_SIZE = ((192, 256), (192, 256))
# Around what docs/results.md reports: arithmetic differs a little from machine to machine, and training amplifies it.
EXPECTED = {"AP": (0.20, 0.42), "AP50": (0.60, 0.95)}


def main() -> int:
    """Run the steps; returns 1 when the score lies below the expected range."""
    parser = argparse.ArgumentParser(description="Generate people, train, evaluate, predict and draw: the whole of kpose in a few minutes.")
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=Path("quickstart"), help="default: %(default)s")
    output = parser.parse_args().output
    import_tensorflow_quietly()

    from kpose.config import load_config
    from kpose.data.synthetic import write_synthetic_people
    from kpose.evaluation import evaluate_checkpoint
    from kpose.inference import PoseEstimator, predict_folder, read_boxes
    from kpose.training import train

    start = time.monotonic()
    data = output / "data"
    print("1/4 drawing people", flush=True)
    write_synthetic_people(data, TRAIN_IMAGES, seed=0, split="train2017", simple=True, image_size=IMAGE_SIZE)
    write_synthetic_people(data, VALIDATION_IMAGES, seed=1, split="val2017", simple=True, image_size=IMAGE_SIZE)

    config = load_config(
        CONFIG,
        [
            f"data.train.0.annotations={data}/annotations/person_keypoints_train2017.json",
            f"data.train.0.images={data}/train2017",
            f"data.validation.annotations={data}/annotations/person_keypoints_val2017.json",
            f"data.validation.images={data}/val2017",
            f"output={output}/training",
        ],
    )
    print("2/4 training", flush=True)
    for former in (config.output, output / "evaluation", output / "predictions"):
        shutil.rmtree(former, ignore_errors=True)
    train(config)

    print("3/4 evaluating", flush=True)
    weights = config.output / "best.keras"
    (score,) = evaluate_checkpoint(config, weights, output / "evaluation").values()
    metrics = score.metrics

    print("4/4 predicting", flush=True)
    photos = output / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    for photo in sorted((data / "val2017").iterdir())[:PREDICTED_IMAGES]:
        (photos / photo.name).write_bytes(photo.read_bytes())
    boxes = read_boxes(data / "annotations" / "person_keypoints_val2017.json")
    predict_folder(PoseEstimator.from_pretrained(weights), photos, boxes, output / "predictions")

    minutes = (time.monotonic() - start) / 60
    print(f"\nDone in {minutes:.1f} min. Look at {output}/predictions/ and {config.output}/curve.png")
    print(f"{'':8}{'reached':>9}{'expected':>18}")
    for name, (low, high) in EXPECTED.items():
        print(f"{name:8}{metrics[name]:9.3f}{f'{low:.2f} to {high:.2f}':>18}")
    return 0 if all(metrics[name] >= low for name, (low, _) in EXPECTED.items()) else 1


if __name__ == "__main__":
    from kpose.errors import KposeError

    try:
        sys.exit(main())
    except KposeError as error:
        sys.exit(f"kpose: {error}")
