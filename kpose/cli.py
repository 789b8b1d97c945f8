"""The command line: `kpose VERB`, which `scripts/VERB.py` also call.

Each verb is one function here: it reads its arguments, calls the package, and ends with a line that says what came out and where it
went. Bad input ends with one line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kpose.errors import KposeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: those after the program's name; by default the process's.

    Returns:
        The exit status: 0, 2 for bad input, 130 for an interrupt.
    """
    # TensorFlow's start-up lines would bury those that matter; an explicit setting wins.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    options = make_parser().parse_args(arguments)
    try:
        options.run(options)
    except KposeError as error:
        print(f"kpose: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kpose: interrupted; files written so far are whole", file=sys.stderr)
        return 130
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    import kpose

    parser = argparse.ArgumentParser(prog="kpose", description="Top-down human pose estimation in Keras: a person box in, keypoints out.")
    parser.add_argument("--version", action="version", version=f"kpose {kpose.__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for add in (_add_train, _add_evaluate, _add_predict, _add_inspect, _add_prepare_data, _add_import_weights, _add_benchmark):
        add(verbs)
    return parser


def _add_verb(verbs: argparse._SubParsersAction, name: str, run: object, help: str, example: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name, help=help, description=help, epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _add_config(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument("--config", metavar="FILE", required=required, help="YAML file of the experiment, such as those in configs/")
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", default=[], help="settings that replace those of the file, such as training.epochs=10"
    )


# --- train ---------------------------------------------------------------------------------------------------------------------------


def _add_train(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "train",
        _train,
        "Train a network; checkpoints, log, curve and score go to the configuration's output folder.",
        "kpose train --config configs/coco/lite_mobilenet_v3_256x192.yaml training.batch_size=32",
    )
    _add_config(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the output folder's last checkpoint")


def _train(options: argparse.Namespace) -> None:
    from kpose.config import load_config
    from kpose.training import train

    train(load_config(options.config, options.overrides), resume=options.resume)


# --- evaluate ------------------------------------------------------------------------------------------------------------------------


def _add_evaluate(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "evaluate",
        _evaluate,
        "Score a checkpoint on the configuration's validation set: AP, AP50, AP75, APM, APL, AR through pycocotools.",
        "kpose evaluate --config configs/coco/lite_mobilenet_v3_256x192.yaml --weights runs/lite/best.keras",
    )
    _add_config(parser)
    parser.add_argument("--weights", metavar="FILE", required=True, help="the .keras checkpoint to score")
    parser.add_argument(
        "--output", metavar="FOLDER", help="where results (COCO format), score and protocol card go; default: beside the checkpoint"
    )


def _evaluate(options: argparse.Namespace) -> None:
    from kpose.config import load_config
    from kpose.evaluation import evaluate_checkpoint

    config = load_config(options.config, options.overrides)
    output = Path(options.output) if options.output else Path(options.weights).parent / "evaluation"
    evaluate_checkpoint(config, Path(options.weights), output)


# --- predict -------------------------------------------------------------------------------------------------------------------------


def _add_predict(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "predict",
        _predict,
        "Find the joints of people in photos; annotated pictures and predictions.json go to the output folder.",
        "kpose predict photo.jpg --weights runs/lite/best.keras --whole-image",
    )
    parser.add_argument("source", metavar="PHOTO_OR_FOLDER", help="a picture, or a folder of them (searched with its subfolders)")
    parser.add_argument("--weights", metavar="FILE", required=True, help="the .keras checkpoint to use")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--boxes", metavar="FILE", help="JSON of person boxes: {file name: [[x, y, width, height], ...]}, or COCO annotations with bbox"
    )
    where.add_argument("--whole-image", action="store_true", help="take each picture as one person's box; the default")
    parser.add_argument("--output", metavar="FOLDER", default="predictions", help="default: %(default)s")
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="skip the mirrored second pass: twice as fast, less exact")
    parser.add_argument(
        "--minimum-score", metavar="SCORE", type=float, default=0.2, help="joints below it are not drawn; default: %(default)s"
    )


def _predict(options: argparse.Namespace) -> None:
    from kpose.inference import PoseEstimator, predict_folder, read_boxes

    estimator = PoseEstimator.from_pretrained(options.weights, flip=options.flip)
    boxes = read_boxes(options.boxes) if options.boxes else None
    predict_folder(estimator, options.source, boxes, Path(options.output), minimum_score=options.minimum_score)


# --- inspect -------------------------------------------------------------------------------------------------------------------------


def _add_inspect(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "inspect",
        _inspect,
        "Draw a contact sheet of what the loader really feeds: crops, keypoints and heatmaps after augmentation.",
        "kpose inspect --config configs/coco/lite_mobilenet_v3_256x192.yaml --output sheet.png",
    )
    _add_config(parser)
    parser.add_argument("--output", metavar="FILE", default="inspection.png", help="the picture to write; default: %(default)s")
    parser.add_argument("--samples", metavar="N", type=int, default=24, help="how many samples to draw; default: %(default)s")


def _inspect(options: argparse.Namespace) -> None:
    from kpose.config import load_config
    from kpose.data.inspection import inspection_sheet
    from kpose.visualize import write_image

    sheet = inspection_sheet(load_config(options.config, options.overrides), options.samples)
    write_image(options.output, sheet)
    print(f"{options.samples} samples as the loader feeds them: {options.output}")


# --- prepare-data --------------------------------------------------------------------------------------------------------------------


def _add_prepare_data(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "prepare-data",
        help="Write a dataset: synthetic people, or TFRecord shards of a configuration's people.",
        description="Write a dataset: synthetic people, or TFRecord shards of a configuration's people.",
    )
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    synthetic = _add_verb(
        kinds,
        "synthetic",
        _prepare_synthetic,
        "Draw synthetic people in the COCO layout: ROOT/annotations, ROOT/train2017, ROOT/val2017.",
        "kpose prepare-data synthetic data/synthetic --train 1500 --validation 150",
    )
    synthetic.add_argument("root", metavar="ROOT", help="folder to write to")
    synthetic.add_argument("--train", metavar="N", type=int, default=1500, help="training images; default: %(default)s")
    synthetic.add_argument("--validation", metavar="N", type=int, default=150, help="validation images; default: %(default)s")
    synthetic.add_argument("--simple", action="store_true", help="one standing person a picture, facing the camera: easier to learn")
    synthetic.add_argument("--seed", metavar="N", type=int, default=0, help="default: %(default)s")
    records = _add_verb(
        kinds,
        "tfrecords",
        _prepare_records,
        "Write the training people of a configuration as TFRecord shards.",
        "kpose prepare-data tfrecords --config configs/coco/lite_mobilenet_v3_256x192.yaml --output data/records",
    )
    _add_config(records)
    records.add_argument("--output", metavar="FOLDER", required=True, help="where the shards go")
    records.add_argument("--shards", metavar="N", type=int, default=16, help="number of files; default: %(default)s")


def _prepare_synthetic(options: argparse.Namespace) -> None:
    from kpose.data.synthetic import write_synthetic_people

    # The validation set differs in its seed, never in its kind.
    write_synthetic_people(options.root, options.train, seed=2 * options.seed, split="train2017", simple=options.simple)
    write_synthetic_people(options.root, options.validation, seed=2 * options.seed + 1, split="val2017", simple=options.simple)


def _prepare_records(options: argparse.Namespace) -> None:
    from kpose.config import load_config
    from kpose.data import training_instances
    from kpose.data.tfrecords import write_tfrecords

    write_tfrecords(training_instances(load_config(options.config, options.overrides)), options.output, shards=options.shards)


# --- import-weights ------------------------------------------------------------------------------------------------------------------


def _add_import_weights(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "import-weights",
        _import_weights,
        "Turn a published PyTorch checkpoint into a .keras file; nothing in it is executed, and every tensor must find its place.",
        "kpose import-weights pose_hrnet_w32_256x192.pth --model hrnet_w32 --output hrnet_w32_256x192.keras",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the .pth, .tar or .safetensors file")
    parser.add_argument("--model", metavar="NAME", required=True, help="the network, such as hrnet_w32")
    parser.add_argument("--output", metavar="FILE", required=True, help="the .keras file to write")
    parser.add_argument("--skeleton", metavar="NAME_OR_FILE", default="coco_17", help="the joints it knows; default: %(default)s")
    parser.add_argument(
        "--input-size", metavar=("HEIGHT", "WIDTH"), nargs=2, type=int, default=[256, 192], help="of its crops; default: 256 192"
    )
    parser.add_argument("--option", metavar="KEY=VALUE", action="append", default=[], help="an option of the network; may be repeated")
    parser.add_argument("--trunk-only", action="store_true", help="leave the head fresh: for a trunk trained on ImageNet or other joints")
    parser.add_argument("--licence", metavar="TEXT", default="", help="of the weights; travels inside of the file")
    parser.add_argument("--report", action="store_true", help="list every tensor, where it went, and both shapes")


def _import_weights(options: argparse.Namespace) -> None:
    from kpose.config import parse_options
    from kpose.weights.convert import import_checkpoint

    report = import_checkpoint(
        options.checkpoint,
        options.model,
        options.output,
        skeleton=options.skeleton,
        input_size=tuple(options.input_size),
        options=parse_options(options.option),
        trunk_only=options.trunk_only,
        licence=options.licence,
    )
    if options.report:
        print(report)


# --- benchmark -----------------------------------------------------------------------------------------------------------------------


def _add_benchmark(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser("benchmark", help="Measure speed.", description="Measure speed.")
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    data = _add_verb(
        kinds,
        "data",
        _benchmark_data,
        "Images a second of the training pipeline, stage by stage, against plain JPEG decoding of the same files.",
        "kpose benchmark data --config configs/coco/lite_mobilenet_v3_256x192.yaml",
    )
    _add_config(data)
    models = _add_verb(
        kinds,
        "models",
        _benchmark_models,
        "Milliseconds a network takes for one person, beside its size and its multiply-adds.",
        "kpose benchmark models lite_mobilenet_v3 hrnet_w32",
    )
    models.add_argument("names", metavar="NAME", nargs="*", help="networks; default: all of them")
    models.add_argument(
        "--input-size", metavar=("HEIGHT", "WIDTH"), nargs=2, type=int, default=[256, 192], help="of the crop; default: 256 192"
    )


def _benchmark_models(options: argparse.Namespace) -> None:
    from kpose.benchmark import benchmark_models

    benchmark_models(options.names, tuple(options.input_size))


def _benchmark_data(options: argparse.Namespace) -> None:
    from kpose.benchmark import benchmark_data
    from kpose.config import load_config

    benchmark_data(load_config(options.config, options.overrides))


if __name__ == "__main__":
    sys.exit(main())
