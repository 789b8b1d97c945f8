"""The command line: `kpose VERB`, which `scripts/VERB.py` also call.

Each verb is one function here: it reads its arguments, calls the package, and ends with a line that says what came out and where it
went. Bad input ends with one line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kpose.errors import KposeError
from kpose.start_up import import_tensorflow_quietly

if TYPE_CHECKING:
    from kpose.inference.detector import Detector
    from kpose.inference.listed_detections import ListedDetections


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: those after the program's name; by default the process's.

    Returns:
        The exit status: 0, 1 for what `audit --strict` or `convert --gate` refuses or `doctor` finds, 2 for bad input, 130 for an
        interrupt, 143 for a training that SIGTERM ended.
    """
    options = make_parser().parse_args(arguments)
    import_tensorflow_quietly()
    try:
        status = options.run(options)
    except KposeError as error:
        print(f"kpose: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kpose: interrupted; files written so far are whole", file=sys.stderr)
        return 130
    return status or 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    import kpose

    parser = argparse.ArgumentParser(prog="kpose", description="Top-down human pose estimation in Keras: a person box in, keypoints out.")
    parser.add_argument("--version", action="version", version=f"kpose {kpose.__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for add in (
        _add_train,
        _add_train_on_crops,
        _add_evaluate,
        _add_predict,
        _add_predict_batch,
        _add_demo,
        _add_inspect,
        _add_audit,
        _add_prepare_data,
        _add_import_weights,
        _add_convert,
        _add_export,
        _add_benchmark,
        _add_doctor,
    ):
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


def _add_beam(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--beam",
        metavar="OPTIONS",
        nargs="?",
        const="",
        help="run on Apache Beam (kpose[beam]) with these options of its runner in one quoted text, such as "
        "--beam='--runner=FlinkRunner --flink_master=host:8081'; without any, on this machine",
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
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest state in the output folder, wherever the training was cut off"
    )
    parser.add_argument("--profile", action="store_true", help="record a few steps for TensorBoard's profiler, into the output folder")


def _train(options: argparse.Namespace) -> int:
    from kpose.config import load_config
    from kpose.training import Preempted, train

    try:
        train(load_config(options.config, options.overrides), resume=options.resume, profile=options.profile)
    except Preempted as error:
        print(f"kpose: {error}", file=sys.stderr)
        return 128 + signal.SIGTERM
    return 0


# --- train-on-crops ------------------------------------------------------------------------------------------------------------------


def _add_train_on_crops(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "train-on-crops",
        _train_on_crops,
        "Train on crop shards alone (prepare-data crops), on the backend that KERAS_BACKEND names: jax, torch or tensorflow. For a machine "
        "with a GPU that has neither TensorFlow nor the photos; import-weights brings the weights back.",
        "kpose train-on-crops --crops data/crops --output runs/elsewhere --initial-weights last.keras training.batch_size=256",
    )
    parser.add_argument("--crops", metavar="FOLDER", required=True, help="that prepare-data crops wrote")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", default=[], help="settings that replace those of the crops")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="where weights, optimizer, state and log go")
    parser.add_argument("--config", metavar="FILE", help="take the settings of this YAML file instead; needs pydantic")
    parser.add_argument("--initial-weights", metavar="FILE", help="start from these: .npz, .weights.h5 or .keras; default: fresh ones")
    parser.add_argument("--minutes", metavar="M", type=float, help="stop after so many minutes; --resume goes on from there")
    parser.add_argument("--checkpoint-minutes", metavar="N", type=float, default=3.0, help="between checkpoints; default: %(default)s")
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16; weights and loss stay float32")
    parser.add_argument("--resume", action="store_true", help="go on from the output folder's state")


def _train_on_crops(options: argparse.Namespace) -> None:
    from kpose.training.crops import train_on_crops

    config = None
    if options.config:
        from kpose.config import load_config

        config = load_config(options.config, options.overrides)
    train_on_crops(
        options.crops,
        options.output,
        options.overrides,
        config=config,
        initial_weights=options.initial_weights,
        minutes=options.minutes,
        checkpoint_minutes=options.checkpoint_minutes,
        bfloat16=options.bfloat16,
        resume=options.resume,
    )


# --- evaluate ------------------------------------------------------------------------------------------------------------------------


def _add_evaluate(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "evaluate",
        _evaluate,
        "Score a checkpoint on the configuration's validation sets, each by its dataset's protocol: OKS AP, PCKh, PCK, CrowdPose AP. "
        "With --explain: say why two scores differ.",
        "kpose evaluate --config configs/coco/lite_mobilenet_v3_256x192.yaml --weights runs/lite/best.keras",
    )
    _add_config(parser, required=False)
    parser.add_argument(
        "--weights", metavar="FILE", nargs="+", default=[], help="the .keras checkpoint to score; several are scored as an ensemble"
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="where results (COCO format), score and protocol card go, or explain.json; default: beside the checkpoint, or nowhere",
    )
    parser.add_argument(
        "--explain",
        metavar=("A", "B"),
        nargs=2,
        help="attribute the difference between two scores to box source, flip, decoding, suppression, score rule, versions; each is a "
        "folder that this verb wrote, its protocol.json, or a COCO result list. --config and the --weights of both let networks run again",
    )
    parser.add_argument("--annotations", metavar="FILE", help="with --explain: what was scored against; default: that of the configuration")
    parser.add_argument(
        "--detections",
        metavar="FILE",
        nargs="+",
        default=[],
        help="with --explain: person boxes of A and B, if they are not the configuration's",
    )


def _evaluate(options: argparse.Namespace) -> None:
    from kpose.config import load_config
    from kpose.evaluation import evaluate_checkpoint, explain_scores
    from kpose.files import write_json

    # Settings that stand behind the files look like files to argparse.
    settings = [word for word in options.weights if re.match(r"[\w.]+=", word)]
    weights = [Path(word) for word in options.weights if word not in settings]
    config = load_config(options.config, options.overrides + settings) if options.config else None
    if options.explain:
        found = explain_scores(
            *options.explain, annotations=options.annotations, config=config, weights=weights, detections=options.detections
        )
        print(found.table())
        if options.output:
            path = write_json(found.to_dict(), Path(options.output) / "explain.json", indent=2)
            print(f"\nwritten to {path}")
        return
    if settings and not weights:
        raise KposeError("--weights names no checkpoint")
    if config is None or not weights:
        raise KposeError("give --config FILE and --weights FILE to score a checkpoint, or --explain A B to compare two scores")
    for option in ("annotations", "detections"):
        if getattr(options, option):
            raise KposeError(f"--{option} goes with --explain; what a checkpoint is scored on stands in the configuration, data.validation")
    output = Path(options.output) if options.output else weights[0].parent / "evaluation"
    evaluate_checkpoint(config, weights, output)


# --- predict -------------------------------------------------------------------------------------------------------------------------


def _add_predict(verbs: argparse._SubParsersAction) -> None:
    from kpose.weights.pretrained import DEFAULT

    parser = _add_verb(
        verbs,
        "predict",
        _predict,
        "Find the joints of people in photos, a video or before a camera; annotated pictures and what was found as JSON go to the output "
        "folder. Without boxes or a detector it is one person.",
        "kpose predict photo.jpg",
    )
    parser.add_argument(
        "source",
        metavar="PHOTO|FOLDER|VIDEO|CAMERA",
        help="a picture, or a folder of them (searched with its subfolders); a video; or the number of a camera, such as 0",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE_OR_NAME",
        nargs="+",
        default=[DEFAULT],
        help="a .keras checkpoint, or the name of a network that comes with kpose; several answer together, as an ensemble; "
        f"default: {DEFAULT}",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--detector",
        metavar="FILE_OR_FOLDER",
        help="finds everybody: a TFLite person detector with detection post-processing, such as EfficientDet-Lite0; a SavedModel as the "
        "TensorFlow Model Garden exports it; or, for pictures, a JSON file of detections (COCO results)",
    )
    where.add_argument(
        "--boxes",
        metavar="FILE",
        help="pictures: JSON of person boxes: {file name: [[x, y, width, height], ...]}, COCO annotations with bbox, or COCO "
        "detections, of which those with a score of 0.5 or more count",
    )
    where.add_argument(
        "--whole-image",
        action="store_true",
        help="pictures: take each as one person's box; default: find the box from the joints, in passes",
    )
    _add_person_class(parser)
    parser.add_argument("--output", metavar="FOLDER", default="predictions", help="default: %(default)s")
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="skip the mirrored second pass: twice as fast, less exact")
    parser.add_argument(
        "--minimum-score", metavar="SCORE", type=float, default=0.2, help="joints below it are not drawn; default: %(default)s"
    )
    parser.add_argument(
        "--detect-every",
        metavar="N",
        type=int,
        default=10,
        help="video: frames from one look of the detector to the next; in between people are followed; default: %(default)s",
    )
    parser.add_argument("--no-smoothing", dest="smoothing", action="store_false", help="video: leave the joints as they are found")
    parser.add_argument("--frames", metavar="N", type=int, help="video: at most so many; default: all, of a camera until Ctrl-C")


def _add_person_class(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--person-class",
        metavar="N",
        type=int,
        help="number of the class person in the detector; default: 0 in TFLite files, 1 in all others",
    )


def _person_class(options: argparse.Namespace) -> int | None:
    if options.person_class is not None and not options.detector:
        raise KposeError("--person-class goes with --detector")
    return options.person_class


def _open_detector(options: argparse.Namespace) -> Detector | ListedDetections | None:
    from kpose.inference.detector_files import open_detector

    person_class = _person_class(options)
    return open_detector(options.detector, person_class) if options.detector else None


def _predict(options: argparse.Namespace) -> None:
    from kpose.inference import PoseEstimator, Refinement, VideoPoses, predict_folder, predict_video, read_boxes
    from kpose.inference.listed_detections import ListedDetections
    from kpose.inference.video import SUFFIXES

    camera = options.source.isascii() and options.source.isdigit()
    video = camera or Path(options.source).suffix.lower() in SUFFIXES
    if video and (options.boxes or options.whole_image):
        raise KposeError("--boxes and --whole-image are for pictures; a video takes --detector FILE, or shows one person")
    if options.frames is not None and options.frames < 1:
        raise KposeError(f"--frames must be at least 1, found {options.frames}")
    boxes = read_boxes(options.boxes) if options.boxes else None
    detector = _open_detector(options)
    if video and isinstance(detector, ListedDetections):
        raise KposeError(f"{options.detector} lists detections in pictures; a video needs a detector that looks, or shows one person")
    refinement = None if options.whole_image else Refinement()
    estimator = PoseEstimator.from_pretrained(options.weights, flip=options.flip, refinement=refinement, detector=detector)
    if video:
        poses = VideoPoses(estimator, detect_every=options.detect_every, smoothing=options.smoothing)
        source = int(options.source) if camera else options.source
        predict_video(poses, source, Path(options.output), minimum_score=options.minimum_score, frames=options.frames)
    else:
        predict_folder(estimator, options.source, boxes, Path(options.output), minimum_score=options.minimum_score)


# --- predict-batch -------------------------------------------------------------------------------------------------------------------


def _add_predict_batch(verbs: argparse._SubParsersAction) -> None:
    from kpose.weights.pretrained import DEFAULT

    parser = _add_verb(
        verbs,
        "predict-batch",
        _predict_batch,
        "Find the joints of people in very many pictures, into sharded files of JSON lines or Parquet: each picture once, whatever is "
        "killed on the way. On several processes, or on Apache Beam.",
        "kpose predict-batch photos --output poses --workers 2",
    )
    parser.add_argument(
        "source",
        metavar="FOLDER|PATTERN",
        help="a folder (searched with its subfolders), a pattern of pictures, or one of TFRecord shards; gs:// and the like too",
    )
    parser.add_argument("--output", metavar="FOLDER", required=True, help="of its own; gs:// and the like too")
    parser.add_argument(
        "--weights",
        metavar="FILE_OR_NAME",
        nargs="+",
        default=[DEFAULT],
        help="a .keras checkpoint, or the name of a network that comes with kpose; several answer together, as an ensemble; "
        f"default: {DEFAULT}",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--detector",
        metavar="FILE|FOLDER",
        help="finds everybody: a TFLite person detector with detection post-processing, or the folder of a SavedModel",
    )
    where.add_argument(
        "--boxes", metavar="FILE", help="JSON of person boxes, as predict takes it; pictures that it does not name show nobody"
    )
    where.add_argument(
        "--whole-image",
        action="store_true",
        help="take each picture as one person's box; default: records have boxes, otherwise it is found from the joints, in passes",
    )
    _add_person_class(parser)
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="skip the mirrored second pass: twice as fast, less exact")
    parser.add_argument("--batch-size", metavar="N", type=int, default=32, help="crops at once; default: %(default)s")
    parser.add_argument(
        "--format",
        metavar="NAME",
        choices=["jsonl", "parquet"],
        default="jsonl",
        help="of the shards: jsonl or parquet; default: %(default)s",
    )
    parser.add_argument("--shard-size", metavar="N", type=int, default=1000, help="pictures in a shard; default: %(default)s")
    parser.add_argument("--workers", metavar="N", type=int, help="processes on this machine; default: one for each core, 8 at most")
    parser.add_argument("--resume", action="store_true", help="do what an earlier run left undone")
    _add_beam(parser)


def _predict_batch(options: argparse.Namespace) -> None:
    from kpose.inference import BatchSettings, predict_batch, read_boxes

    if options.beam is not None and options.workers is not None:
        raise KposeError("--workers is for one machine; with --beam the runner's own options say how many there are")
    settings = BatchSettings(
        weights=tuple(options.weights),
        detector=options.detector,
        person_class=_person_class(options),
        whole_image=options.whole_image,
        flip=options.flip,
        form=options.format,
        batch_size=options.batch_size,
    )
    predict_batch(
        options.source,
        options.output,
        settings,
        read_boxes(options.boxes) if options.boxes else None,
        shard_size=options.shard_size,
        workers=options.workers,
        resume=options.resume,
        beam=None if options.beam is None else shlex.split(options.beam),
    )


# --- demo ----------------------------------------------------------------------------------------------------------------------------


def _add_demo(verbs: argparse._SubParsersAction) -> None:
    from kpose.weights.pretrained import DEFAULT

    parser = _add_verb(
        verbs,
        "demo",
        _demo,
        "A web page of this machine to drop a photo on or to show the camera: it draws the joints that the network finds. Needs the extra "
        "kpose[demo].",
        "kpose demo --detector efficientdet_lite0.tflite",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE_OR_NAME",
        nargs="+",
        default=[DEFAULT],
        help=f"as for predict: a .keras checkpoint or the name of a network that comes with kpose; default: {DEFAULT}",
    )
    parser.add_argument(
        "--detector",
        metavar="FILE_OR_FOLDER",
        help="finds everybody: a TFLite person detector, or the folder of a SavedModel; default: one person a picture",
    )
    _add_person_class(parser)
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="skip the mirrored second pass: twice as fast, less exact")
    parser.add_argument("--port", metavar="N", type=int, default=8000, help="0: any that is free; default: %(default)s")
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="to listen at; default: %(default)s, which other machines cannot reach"
    )
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a further name or address that browsers may call it by, such as this machine's name behind a proxy; may be repeated",
    )


def _demo(options: argparse.Namespace) -> None:
    from kpose.demo import serve
    from kpose.inference import PoseEstimator
    from kpose.inference.listed_detections import ListedDetections

    detector = _open_detector(options)
    if isinstance(detector, ListedDetections):
        raise KposeError(f"{options.detector} lists detections in pictures; the page needs a detector that looks, or shows one person")
    estimator = PoseEstimator.from_pretrained(options.weights, flip=options.flip, detector=detector)
    serve(estimator, ", ".join(Path(name).name for name in options.weights), options.host, options.port, options.allow_host)


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


# --- audit ---------------------------------------------------------------------------------------------------------------------------


def _add_audit(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "audit",
        _audit,
        "Find faulty annotations: exchanged sides, impossible limbs, duplicates, leaks; estimate OKS sigmas from repeated annotations.",
        "kpose audit --config configs/coco/lite_mobilenet_v3_256x192.yaml --output audit",
    )
    _add_config(parser, required=False)
    parser.add_argument("--annotations", metavar="FILE", help="instead of --config: the annotation file of one dataset")
    parser.add_argument("--images", metavar="FOLDER", help="with --annotations: its pictures")
    parser.add_argument("--skeleton", metavar="NAME_OR_FILE", default="coco_17", help="with --annotations: its joints; default %(default)s")
    parser.add_argument("--format", metavar="NAME", default="coco", help="with --annotations: of the file; default: %(default)s")
    parser.add_argument("--repeated", metavar="FILE", help="with --annotations: a second annotation of the pictures, for the OKS sigmas")
    parser.add_argument("--kinds", metavar="KIND", nargs="+", help="report these kinds of findings alone, such as swapped_sides")
    parser.add_argument("--people", metavar="N", type=int, default=24, help="how many to draw on the contact sheet; default: %(default)s")
    parser.add_argument("--output", metavar="FOLDER", default="audit", help="where audit.json and sheet.jpg go; default: %(default)s")
    parser.add_argument("--strict", action="store_true", help="end with exit status 1 if anything serious is found")


def _audit(options: argparse.Namespace) -> int:
    from kpose.audit import KINDS, audit, print_audit, set_of_files, sets_of_config, write_audit
    from kpose.config import load_config

    if (options.config is None) == (options.annotations is None):
        raise KposeError("give either --config FILE, or --annotations FILE with --images FOLDER")
    repeated = None
    if options.config is not None:
        for name in ("images", "repeated"):
            if getattr(options, name):
                raise KposeError(f"--{name} goes with --annotations; a configuration names its own files")
        sets = sets_of_config(load_config(options.config, options.overrides))
    else:
        if options.images is None:
            raise KposeError("--annotations needs --images, the folder of its pictures")
        sets = [set_of_files(options.annotations, options.images, options.skeleton, options.format)]
        if options.repeated:
            repeated = set_of_files(options.repeated, options.images, options.skeleton, options.format).people
    result = audit(sets, repeated, options.kinds or tuple(KINDS))
    print_audit(result)
    written = write_audit(result, options.output, options.people)
    people = sum(len(audited.people) for audited in sets)
    print(f"{len(result.findings)} findings on {people} people: {', '.join(map(str, written))}")
    return int(options.strict and result.serious)


# --- prepare-data --------------------------------------------------------------------------------------------------------------------


def _add_prepare_data(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "prepare-data",
        help="Check a download and write it as TFRecord shards; or draw synthetic people.",
        description="Check a download and write it as TFRecord shards; or draw synthetic people.",
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
    records.add_argument("--workers", metavar="N", type=int, help="shards written at once; default: one for each processor")
    _add_beam(records)
    crops = _add_verb(
        kinds,
        "crops",
        _prepare_crops,
        "Write what augmentation can show of each training person of a configuration as JPEG shards, for train-on-crops.",
        "kpose prepare-data crops --config configs/mixed/lite_mobilenet_v3_256x192.yaml --output data/crops",
    )
    _add_config(crops)
    crops.add_argument("--output", metavar="FOLDER", required=True, help="where the shards go")
    crops.add_argument("--side", metavar="PIXELS", type=int, default=384, help="of a crop's longer side, at most; default: %(default)s")
    crops.add_argument("--quality", metavar="Q", type=int, default=95, help="of the JPEGs, 1 to 100; default: %(default)s")
    crops.add_argument("--shard-size", metavar="MIB", type=int, default=48, help="of a shard, at most; default: %(default)s")
    labels = _add_verb(
        kinds,
        "pseudo-labels",
        _prepare_pseudo_labels,
        "Fill joints that a dataset lacks by a network that knows them, take out annotations that it contradicts; COCO-style JSON.",
        "kpose prepare-data pseudo-labels --format lspet --annotations data/lspet/joints.mat --images data/lspet/images --people 0 9000 "
        "--teacher data/models/movenet_thunder_fp16.tflite --output data/lspet_coco_17.json",
    )
    labels.add_argument("--format", metavar="NAME", default="coco", help="of the annotation; default: %(default)s")
    labels.add_argument("--annotations", metavar="FILE", required=True, help="the dataset's own file")
    labels.add_argument("--images", metavar="FOLDER", required=True, help="its pictures; the new file's names are relative to it")
    labels.add_argument("--skeleton", metavar="NAME_OR_FILE", default="coco_17", help="format coco: its joints; default: %(default)s")
    labels.add_argument("--people", metavar=("FROM", "TO"), nargs=2, type=int, help="only those from .. up to; default: all")
    labels.add_argument("--teacher", metavar="FILE", required=True, help="the .tflite file of MoveNet, single pose (Lightning or Thunder)")
    labels.add_argument("--output", metavar="FILE", required=True, help="the .json to write")
    labels.add_argument("--sheet", metavar="FILE", help="also draw some of the changed people: annotation, teacher, result")
    for name, example in _DATASET_EXAMPLES.items():
        dataset = _add_verb(
            kinds,
            name,
            _prepare_dataset,
            f"Check that a download of {name} is complete, say what is missing and where it belongs, and write a split as TFRecord shards.",
            f"kpose prepare-data {name} {example}",
        )
        dataset.add_argument("root", metavar="ROOT", help="the folder that the dataset was unpacked to, see docs/guides/datasets.md")
        dataset.add_argument("--output", metavar="FOLDER", help="where the shards go; without it the download is only checked")
        dataset.add_argument("--shards", metavar="N", type=int, default=16, help="number of files; default: %(default)s")
        dataset.add_argument("--split", metavar="NAME", default="train", help="which part to write; default: %(default)s")
        dataset.add_argument("--partial", action="store_true", help="write what is there although the download is incomplete")
        dataset.set_defaults(dataset=name)


_DATASET_EXAMPLES = {
    "coco": "data/coco --output data/records --shards 64",
    "mpii": "data/mpii --output data/records --split val",
    "lsp": "data/lsp --output data/records --split test",
    "lspet": "data/lspet --output data/records",
    "aic": "data/aic --output data/records --shards 64",
    "crowdpose": "data/crowdpose --output data/records",
}


def _prepare_dataset(options: argparse.Namespace) -> None:
    from kpose.data.layouts import LAYOUTS, prepare_dataset

    prepare_dataset(LAYOUTS[options.dataset], options.root, options.output, options.split, shards=options.shards, partial=options.partial)


def _prepare_synthetic(options: argparse.Namespace) -> None:
    from kpose.data.synthetic import write_synthetic_people

    # The validation set differs in its seed, never in its kind.
    write_synthetic_people(options.root, options.train, seed=2 * options.seed, split="train2017", simple=options.simple)
    write_synthetic_people(options.root, options.validation, seed=2 * options.seed + 1, split="val2017", simple=options.simple)


def _prepare_crops(options: argparse.Namespace) -> None:
    from kpose.config import load_config
    from kpose.data.crop_shards import write_crop_shards

    write_crop_shards(
        load_config(options.config, options.overrides),
        options.output,
        side=options.side,
        quality=options.quality,
        shard_bytes=options.shard_size << 20,
    )


def _prepare_records(options: argparse.Namespace) -> None:
    from kpose.config import load_config
    from kpose.data import training_instances
    from kpose.data.tfrecords import write_tfrecords

    if options.beam is not None and options.workers is not None:
        raise KposeError("--workers is for one machine; with --beam the runner's own options say how many there are")
    people = training_instances(load_config(options.config, options.overrides))
    if options.beam is not None:
        from kpose.data.beam_tfrecords import write_tfrecords_with_beam

        write_tfrecords_with_beam(people, options.output, shards=options.shards, options=shlex.split(options.beam))
    else:
        write_tfrecords(people, options.output, shards=options.shards, workers=options.workers)


def _prepare_pseudo_labels(options: argparse.Namespace) -> None:
    from kpose.config import parse_config
    from kpose.data import read_dataset
    from kpose.data.pseudo_labels import write_pseudo_labels
    from kpose.inference.movenet import MoveNet
    from kpose.skeletons import get_skeleton

    # First what fails at once, then what takes its time.
    teachers = [MoveNet(options.teacher, threads=1) for _ in range(os.cpu_count() or 1)]
    dataset = {key: getattr(options, key) for key in ("format", "annotations", "images", "people")}
    config = parse_config({"skeleton": options.skeleton, "data": {"train": [dataset]}}, source="the command line")
    people = read_dataset(config.data.train[0], get_skeleton(config.skeleton), for_training=True)
    write_pseudo_labels(people, options.images, teachers, options.output, options.sheet)


# --- import-weights ------------------------------------------------------------------------------------------------------------------


def _add_import_weights(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "import-weights",
        _import_weights,
        "Turn a published PyTorch checkpoint, or what train-on-crops left, into a .keras file; nothing in it is executed, and every tensor "
        "must find its place.",
        "kpose import-weights pose_hrnet_w32_256x192.pth --model hrnet_w32 --output hrnet_w32_256x192.keras",
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="the .pth, .tar or .safetensors file; or the output folder of train-on-crops"
    )
    parser.add_argument("--model", metavar="NAME", help="of a published checkpoint the network, such as hrnet_w32")
    parser.add_argument("--config", dest="trained_for", metavar="FILE", help="of a single .npz or .weights.h5: what it was trained for")
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
    if options.trained_for or Path(options.checkpoint).is_dir():
        from kpose.config import load_config
        from kpose.weights.trained import import_trained

        if options.model:
            raise KposeError("--model is for published checkpoints; what was trained on crops says itself what it is")
        import_trained(options.checkpoint, options.output, load_config(options.trained_for) if options.trained_for else None)
        return
    if not options.model:
        raise KposeError("give --model NAME, the network of the published checkpoint")
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


# --- convert -------------------------------------------------------------------------------------------------------------------------


def _add_convert(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "convert",
        _convert,
        "Write a trained network as a TFLite file of built-in operations, which takes RGB in 0..255 and has the network's card inside.",
        "kpose convert runs/lite/best.keras --precision int8 --config configs/coco/lite_mobilenet_v3_256x192.yaml --output pose.tflite",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the .keras file, or the name of a network that comes with kpose")
    parser.add_argument(
        "--precision", metavar="NAME", default="fp32", help="fp32, fp16, dynamic, int8 or int8-float-io; default: %(default)s"
    )
    parser.add_argument("--output", metavar="FILE", required=True, help="the .tflite file to write")
    parser.add_argument(
        "--input",
        metavar="TYPE",
        dest="inputs",
        help="of the picture: uint8 or float; default: float, with int8 int8, 128 less than 0..255",
    )
    parser.add_argument(
        "--decode", action="store_true", help="decode inside of the graph: x, y in pixels of the crop, and a score, instead of heatmaps"
    )
    parser.add_argument(
        "--keep-float", metavar="auto", help="with int8, leave those operations in float that lose most; tries each by itself, for minutes"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file whose training people set the ranges of int8 and are compared with Keras; int8 needs it"
    )
    parser.add_argument("--samples", metavar="N", type=int, default=128, help="how many of those people; default: %(default)s")
    parser.add_argument(
        "--train",
        metavar="STEPS",
        type=int,
        help="with int8, quantisation-aware training on the configuration's people for so many steps: for when int8 loses too much",
    )
    parser.add_argument(
        "--gate",
        action="store_true",
        help="list the file's operations; exit status 1 where the GPU delegate leaves one to the CPU, and why",
    )


def _convert(options: argparse.Namespace) -> int:
    from kpose.checkpoint import read_card
    from kpose.config import load_config
    from kpose.export import check_conversion, convert_tflite, sample_crops, training_crops

    trained = options.train is not None
    # Before the people are read and cut out.
    check_conversion(options.output, options.precision, options.config is not None, options.inputs, options.keep_float, trained)
    config = load_config(options.config) if options.config else None
    samples = sample_crops(config, options.samples) if config else None
    batches = training_crops(config, read_card(options.checkpoint)) if config and trained else None
    conversion = convert_tflite(
        options.checkpoint,
        options.output,
        options.precision,
        samples,
        inputs=options.inputs,
        decode=options.decode,
        keep_float=options.keep_float,
        samples_source=f"training people of {Path(options.config).name}, chosen with seed 0" if options.config else "",
        training_batches=batches,
        training_steps=options.train or 0,
    )
    left = _report_operations(options.output) if options.gate else 0
    print(conversion.summary)
    return 1 if left else 0


def _report_operations(path: str) -> int:
    """Print which operations a TFLite file has, and return how many of them a GPU leaves to the CPU."""
    from kpose.export import delegate_findings, operation_counts

    counts, findings = operation_counts(path), delegate_findings(path)
    for (kind, version), number in sorted(counts.items()):
        print(f"{number:5} {kind} version {version}")
    for finding in findings:
        print(f"CPU: {finding}")
    print(f"GPU delegate: {counts.total() - len(findings)} of {counts.total()} operations")
    return len(findings)


# --- export --------------------------------------------------------------------------------------------------------------------------


def _add_export(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "export",
        _export,
        "Write a trained network as a SavedModel for TensorFlow Serving: encoded pictures and boxes in, keypoints out; a new version each "
        "time. See docs/guides/serving.md.",
        "kpose export runs/lite/best.keras models/pose",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the .keras file, or the name of a network that comes with kpose")
    parser.add_argument("output", metavar="OUTPUT_DIR", help="folder of the served model; the version is a subfolder of it")
    parser.add_argument("--version", metavar="N", type=int, help="of the model, not there yet; default: 1 more than the greatest there is")
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="skip the mirrored second pass: twice as fast, less exact")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=32, help="crops in the network at once, mirrored ones counted; default: %(default)s"
    )
    parser.add_argument(
        "--largest-megapixels",
        metavar="N",
        type=float,
        default=25.0,
        help="pictures that claim more are refused before they are decoded; default: %(default)s",
    )
    parser.add_argument(
        "--no-warm-up", dest="warm_up", action="store_false", help="write no warm-up requests; those need the extra kpose[serving]"
    )


def _export(options: argparse.Namespace) -> None:
    from kpose.export import export_saved_model

    if not 0 < options.largest_megapixels <= 1000:
        raise KposeError(f"--largest-megapixels must be above 0, at most 1000, found {options.largest_megapixels:g}")
    exported = export_saved_model(
        options.checkpoint,
        options.output,
        options.version,
        flip=options.flip,
        batch_size=options.batch_size,
        largest_pixels=max(1, int(1e6 * options.largest_megapixels)),
        warm_up=options.warm_up,
    )
    print(exported.summary)


# --- benchmark -----------------------------------------------------------------------------------------------------------------------


def _add_benchmark(verbs: argparse._SubParsersAction) -> None:
    words = "Measure speed, what encodings lose, and networks beside others."
    parser = verbs.add_parser("benchmark", help=words, description=words)
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    data = _add_verb(
        kinds,
        "data",
        _benchmark_data,
        "Images a second of the training pipeline, stage by stage, against plain JPEG decoding of the same files and a loader in OpenCV.",
        "kpose benchmark data --config configs/coco/lite_mobilenet_v3_256x192.yaml",
    )
    _add_config(data)
    data.add_argument("--repeats", metavar="N", type=int, default=5, help="of all stages in turn; default: %(default)s")
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
    training = _add_verb(
        kinds,
        "training",
        _benchmark_training,
        "Milliseconds and memory of a training step, beside inference, beside Keras' own batch normalisation, and above what the machine's "
        "arithmetic and memory allow.",
        "kpose benchmark training lite_mobilenet_v3 hrnet_w32 --batch-size 8",
    )
    training.add_argument("names", metavar="NAME", nargs="*", default=["lite_mobilenet_v3"], help="networks; default: lite_mobilenet_v3")
    training.add_argument(
        "--input-size", metavar=("HEIGHT", "WIDTH"), nargs=2, type=int, default=[256, 192], help="of the crop; default: 256 192"
    )
    training.add_argument("--batch-size", metavar="N", type=int, default=16, help="people in a step; default: %(default)s")
    training.add_argument("--rounds", metavar="N", type=int, default=5, help="turns of each; default: %(default)s")
    training.add_argument("--no-memory", dest="memory", action="store_false", help="leave out peak memory, which takes further processes")
    training.add_argument("--cpu-time", action="store_true", help="count the CPU time of all threads: for a machine that others use too")
    cost = _add_verb(
        kinds,
        "cost",
        _benchmark_cost,
        "What a training will cost: hours, cores, bytes, predicted from what one step and one core do on this machine. A sample of the "
        "training set is enough; --people and --pictures say how large the whole is.",
        "kpose benchmark cost --config configs/coco/lite_mobilenet_v3_256x192.yaml --people 149813 --pictures 57000",
    )
    _add_config(cost)
    cost.add_argument("--people", metavar="N", type=int, help="in the whole training set; default: those of the configuration")
    cost.add_argument("--pictures", metavar="N", type=int, help="they are in; likewise")
    cost.add_argument("--cores", metavar="N", type=int, help="CPU cores that make data; default: those of this machine")
    cost.add_argument(
        "--check",
        metavar="STEPS",
        type=int,
        default=0,
        help="then train twice so many steps and write TFRecords, and say how far off it was",
    )
    scoring = _add_verb(
        kinds,
        "scoring",
        _benchmark_scoring,
        "Seconds that the COCO score of synthetic results takes, beside pycocotools' own time for the same files.",
        "kpose benchmark scoring data/coco/annotations/person_keypoints_val2017.json",
    )
    scoring.add_argument("annotations", metavar="FILE", help="COCO-style JSON of people with 17 joints, .gz too")
    scoring.add_argument("--results-per-image", metavar="N", type=int, default=20, help="default: %(default)s")
    scoring.add_argument("--turns", metavar="N", type=int, default=3, help="how often both are measured; default: %(default)s")
    codecs = _add_verb(
        kinds,
        "codecs",
        _benchmark_codecs,
        "How far keypoints come back from their own maps, for every codec: plainly, mirrored, turned.",
        "kpose benchmark codecs",
    )
    codecs.add_argument(
        "--input-size",
        metavar=("HEIGHT", "WIDTH"),
        nargs=2,
        type=int,
        action="append",
        default=[],
        help="of the crop; may be repeated; default: 256 192, 384 288 and 256 256",
    )
    codecs.add_argument("--joints", metavar="N", type=int, default=2048, help="random joints; default: %(default)s")
    peers = _add_verb(
        kinds,
        "peers",
        _benchmark_peers,
        "Score kpose's networks and MoveNet on the same people, say how sure the differences are, and time their TFLite files.",
        "kpose benchmark peers --config configs/pretrained/lite_mobilenet_v3_128x96.yaml --weights runs/lite/last.keras "
        "--movenet movenet_lightning.tflite",
    )
    _add_config(peers)
    peers.add_argument("--weights", metavar="FILE", nargs="+", default=[], help=".keras checkpoints, each by itself")
    peers.add_argument("--tflite", metavar="FILE", nargs="+", default=[], help="TFLite files of kpose")
    peers.add_argument("--movenet", metavar="FILE", nargs="+", default=[], help="MoveNet's TFLite files; differences are to the first one")
    peers.add_argument("--detector", metavar="FILE", help="a TFLite person detector: score its boxes beside the annotated ones")
    peers.add_argument("--output", metavar="FOLDER", default="peers", help="where tables and figures go; default: %(default)s")
    peers.add_argument("--rounds", metavar="N", type=int, default=5, help="turns of the timing; 0: none; default: %(default)s")
    peers.add_argument("--resamples", metavar="N", type=int, default=2000, help="of the images, for the intervals; default: %(default)s")

    export = _add_verb(
        kinds,
        "export",
        _benchmark_export,
        "Convert a network in every precision, and say what each file scores beside Keras, how far its heatmaps are off, how long it takes "
        "and what of it a GPU takes.",
        "kpose benchmark export --config configs/pretrained/lite_mobilenet_v3_256x192.yaml --weights lite_mobilenet_v3_256x192 "
        "--output runs/export",
    )
    _add_config(export)
    export.add_argument("--weights", metavar="CHECKPOINT", required=True, help="the .keras file, or the name of a network of kpose")
    export.add_argument("--output", metavar="FOLDER", default="export", help="where files and report go; default: %(default)s")
    export.add_argument("--precision", metavar="NAME", nargs="+", default=[], help="of the files; default: all")
    export.add_argument(
        "--samples", metavar="N", type=int, default=128, help="training people for the ranges of int8; default: %(default)s"
    )
    export.add_argument("--rounds", metavar="N", type=int, default=5, help="turns of the timing; 0: none; default: %(default)s")
    export.add_argument("--resamples", metavar="N", type=int, default=2000, help="of the images, for the intervals; default: %(default)s")
    serving = _add_verb(
        kinds,
        "serving",
        _benchmark_serving,
        "Requests a second, latency, errors and memory of a served SavedModel under load, beside the network and the JPEG decoder alone.",
        "kpose benchmark serving models/pose --images photos",
    )
    serving.add_argument("folder", metavar="FOLDER", help="that kpose export wrote; its greatest version is served")
    serving.add_argument("--images", metavar="FOLDER", required=True, help="JPEG files to send, each with its whole as a person's box")
    serving.add_argument(
        "--clients", metavar="N", type=int, nargs="+", default=[1, 4, 16], help="that ask at the same time, a load each; default: 1 4 16"
    )
    serving.add_argument("--people", metavar="N", type=int, default=1, help="boxes in a request; default: %(default)s")
    serving.add_argument("--seconds", metavar="S", type=float, default=20.0, help="of each load; default: %(default)s")
    serving.add_argument(
        "--address", metavar="HOST:PORT", help="gRPC, of a server that serves the same model; default: a stand-in in Python is started"
    )
    serving.add_argument("--name", metavar="NAME", default="pose", help="of the model there; default: %(default)s")


def _benchmark_serving(options: argparse.Namespace) -> None:
    from kpose.benchmark import benchmark_serving

    benchmark_serving(
        options.folder,
        options.images,
        clients=options.clients,
        people=options.people,
        seconds=options.seconds,
        address=options.address,
        name=options.name,
    )


def _benchmark_export(options: argparse.Namespace) -> None:
    from kpose.benchmark import benchmark_export
    from kpose.config import load_config

    benchmark_export(
        load_config(options.config, options.overrides),
        options.weights,
        options.output,
        options.precision,
        samples=options.samples,
        rounds=options.rounds,
        resamples=options.resamples,
    )


def _benchmark_peers(options: argparse.Namespace) -> None:
    from kpose.benchmark import benchmark_peers
    from kpose.config import load_config

    benchmark_peers(
        load_config(options.config, options.overrides),
        options.weights,
        options.tflite,
        options.movenet,
        options.detector,
        options.output,
        rounds=options.rounds,
        resamples=options.resamples,
    )


def _benchmark_codecs(options: argparse.Namespace) -> None:
    from kpose.benchmark import benchmark_codecs

    benchmark_codecs([tuple(size) for size in options.input_size], options.joints)


def _benchmark_scoring(options: argparse.Namespace) -> None:
    from kpose.benchmark import benchmark_scoring

    benchmark_scoring(options.annotations, options.results_per_image, options.turns)


def _benchmark_cost(options: argparse.Namespace) -> None:
    from kpose.benchmark import benchmark_cost
    from kpose.config import load_config

    benchmark_cost(
        load_config(options.config, options.overrides),
        people=options.people,
        pictures=options.pictures,
        cores=options.cores,
        check_steps=options.check,
    )


def _benchmark_training(options: argparse.Namespace) -> None:
    from kpose.benchmark import benchmark_training

    benchmark_training(
        options.names, tuple(options.input_size), options.batch_size, options.rounds, memory=options.memory, cpu_time=options.cpu_time
    )


def _benchmark_models(options: argparse.Namespace) -> None:
    from kpose.benchmark import benchmark_models

    benchmark_models(options.names, tuple(options.input_size))


def _benchmark_data(options: argparse.Namespace) -> None:
    from kpose.benchmark import benchmark_data
    from kpose.config import load_config

    benchmark_data(load_config(options.config, options.overrides), repeats=options.repeats)


# --- doctor --------------------------------------------------------------------------------------------------------------------------


def _add_doctor(verbs: argparse._SubParsersAction) -> None:
    parser = _add_verb(
        verbs,
        "doctor",
        _doctor,
        "Look at the installation: versions, why no GPU is seen, OpenCVs that overwrite one another, TFLite, folders; then train and "
        "predict for ten seconds. Exit status 1 where there is a fault.",
        "kpose doctor",
    )
    parser.add_argument("--quick", action="store_true", help="do not train and predict")
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="also train on two replicas and with two workers, and compare with one device, about a minute",
    )


def _doctor(options: argparse.Namespace) -> int:
    from kpose.doctor import report

    return int(report(not options.quick, options.distributed) > 0)


if __name__ == "__main__":
    sys.exit(main())
