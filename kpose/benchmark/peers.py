"""Our networks beside what people would use instead of them: the same people, the same score, the same interpreter.

Everybody is asked for the people of the same boxes, and the answers go the same way to the same score; what differs is the crop, which is
each network's own, and the joints that make up a person's score. MoveNet, which was made for one person a picture, gets the square round
the box, grown by 1.25, and all of its joints count.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from kpose import geometry
from kpose.benchmark.latency import milliseconds_in_turns, network_alone
from kpose.checkpoint import ModelCard, load_model
from kpose.config import Config
from kpose.data import Instances, ValidationSet, validation_sets
from kpose.errors import KposeError
from kpose.evaluation.bootstrap import CONFIDENCE, RESAMPLES, Bootstrap, Interval, OksScorer, PckScorer, bootstrap
from kpose.evaluation.coco import person_category
from kpose.evaluation.metrics import metric_of, truth_of
from kpose.evaluation.prediction import Predictions, predict_instances, view_batches
from kpose.evaluation.protocol import file_hash, has_ground_truth_boxes, library_versions, metrics_for_json
from kpose.evaluation.scoring import score_predictions
from kpose.files import replacing, write_json
from kpose.inference.detector import PersonDetector, read_as_annotated, write_detections
from kpose.inference.movenet import BOX_PADDING, MoveNet
from kpose.inference.test_time import Member, PoseTest, compile_forward, preparation_from_card
from kpose.models import build_model, count
from kpose.skeletons import Skeleton, get_skeleton
from kpose.weights.pretrained import find_checkpoint

THREADS = (1, 2)
REPORT, TABLES = "peers.json", "peers.md"
# AP ranks boxes: doubtful ones cost little, and are somebody now and then.
LOWEST_BOX_SCORE = 0.05
# A person's score is the mean of the joints above it, so for MoveNet that of all: on COCO train2017 Lightning and Thunder score higher so
# than with heatmap networks' 0.2 (AP +1.0 and +1.0 with annotated boxes, +0.5 and +1.1 with detected ones).
MOVENET_KEYPOINT_THRESHOLD = 0.0

Predict = Callable[[Instances, bool], Predictions]
Boxes = Literal["annotated", "detected"]


@dataclass(frozen=True)
class Peer:
    """A network that takes part.

    Attributes:
        name: what tables call it.
        file: where it is.
        skeleton: its joints.
        predict: what it says about people, without or with their mirror images.
        keypoint_threshold: its joints with a greater score make up a person's score.
        card: what kpose knows of it.
        person: for TFLite files, from a number of threads to a call that does one person, from the picture to the keypoints, unmirrored.
    """

    name: str
    file: Path
    skeleton: Skeleton
    predict: Predict
    keypoint_threshold: float
    card: ModelCard | None = None
    person: Callable[[int, np.ndarray, np.ndarray], Callable[[], object]] | None = None

    def costs(self) -> tuple[int, int] | tuple[None, None]:
        """Trainable parameters and multiply-adds for one person, where its card says how it is built."""
        if self.card is None:
            return None, None
        return count(build_model(self.card.name, self.skeleton.num_joints, self.card.input_size, **self.card.options))


@dataclass(frozen=True)
class PeerScore:
    """What one of them scores on one set.

    Attributes:
        peer: its name.
        flip: whether the mirror image was looked at, too.
        set: name of the validation set.
        boxes: where people were looked for.
        protocol: name of the score.
        logged: the metrics that count, the first one first.
        metrics: by name.
        bootstrap: how sure they are.
        joints: a figure for each joint: with annotated boxes the mean similarity (OKS of this joint alone), or its PCK.
        mean_oks: of a set with OKS and annotated boxes, the mean over its people of their OKS; else None.
    """

    peer: str
    flip: bool
    set: str
    boxes: Boxes
    protocol: str
    logged: tuple[str, ...]
    metrics: dict[str, float]
    bootstrap: Bootstrap
    joints: dict[str, float]
    mean_oks: float | None = None


def benchmark_peers(
    config: Config,
    weights: Sequence[str | Path] = (),
    tflite: Sequence[str | Path] = (),
    movenet: Sequence[str | Path] = (),
    detector: str | Path | None = None,
    output: str | Path = "peers",
    rounds: int = 5,
    resamples: int = RESAMPLES,
) -> list[PeerScore]:
    """Score networks on the configuration's validation sets, and measure how fast their TFLite files are.

    Each is scored on the crop alone, and averaged with its mirror image (kpose's networks as heatmaps, MoveNet, whose answers are points,
    as points). Differences are those to the first MoveNet, as it was asked the same way. The folder gets `peers.json`, `peers.md` with the
    tables and, with a detector, its boxes.

    Args:
        config: the sets (OKS AP or PCK), their skeleton and `evaluation`; crops are each network's own.
        weights: `.keras` files of kpose, or names of networks that come with it.
        tflite: `.tflite` files of kpose.
        movenet: MoveNet's `.tflite` files.
        detector: a `.tflite` file of a person detector: OKS sets are also scored with its boxes.
        output: the folder.
        rounds: how often each file's speed is measured, in turns; 0: not at all.
        resamples: of the bootstrap.

    Raises:
        KposeError: when there is no network, one cannot be read or has other joints, a set has another score or no annotated boxes.
    """
    output = Path(output)
    peers = _open_peers(config, weights, tflite, movenet)
    sets = validation_sets(config)
    for validation in sets:
        _check_set(validation)
    if detector is not None:
        sets += _detected_sets(config, sets, PersonDetector(detector, LOWEST_BOX_SCORE), output)
    scores = []
    with tqdm(total=2 * len(peers) * len(sets), desc="scoring", unit=" scores", leave=False) as bar:
        for peer in peers:
            for flip in (False, True):
                for validation in sets:
                    bar.set_postfix_str(f"{peer.name} on {validation.name}")
                    scores.append(score_peer(peer, flip, validation, config, resamples))
                    bar.update()
    speeds = _speeds(peers, sets[0].instances, rounds)
    reference = next((peer.name for peer in peers[len(weights) + len(tflite) :]), None)
    report = _report(peers, sets, scores, speeds, reference, rounds, resamples, detector)
    write_json(report, output / REPORT, indent=2)
    tables = format_report(report)
    with replacing(output / TABLES) as partial:
        partial.write_text(tables, encoding="utf-8")
    print(tables)
    print(f"{len(peers)} networks on {len(sets)} sets: {TABLES} and {REPORT} in {output}")
    return scores


# --- who takes part ------------------------------------------------------------------------------------------------------------------


def _open_peers(config: Config, weights: Sequence[str | Path], tflite: Sequence[str | Path], movenet: Sequence[str | Path]) -> list[Peer]:
    weights = [find_checkpoint(file) for file in weights]
    files = [Path(file) for file in (*weights, *tflite, *movenet)]
    if not files:
        raise KposeError("no network given; name .keras files (--weights), TFLite files (--tflite) or MoveNet's (--movenet)")
    names = dict(zip(files, _names(files), strict=True))
    if len(set(names.values())) < len(files):
        raise KposeError(f"a file is given twice: {', '.join(map(str, files))}")
    peers = [keras_peer(names[Path(file)], Path(file), config) for file in weights]
    peers += [tflite_peer(names[Path(file)], Path(file), config) for file in tflite]
    peers += [_movenet_peer(names[Path(file)], Path(file)) for file in movenet]
    wanted = get_skeleton(config.skeleton)
    for peer in peers:
        if peer.skeleton.joint_names != wanted.joint_names:
            raise KposeError(
                f"{peer.file} has the joints of skeleton {peer.skeleton.name!r}, the configuration those of {wanted.name!r}; "
                "compare networks of the same joints"
            )
    return peers


def _names(files: Sequence[Path]) -> list[str]:
    """Names of files without what they have in common: `last` is `small/last` where there is another."""
    for depth in range(1, max(len(file.parts) for file in files) + 1):
        names = ["/".join([*file.parts[-depth:-1], file.stem]) for file in files]
        if len(set(names)) == len(files):
            break
    return names


def keras_peer(name: str, file: Path, config: Config) -> Peer:
    """A `.keras` file of kpose as a network that takes part.

    Raises:
        KposeError: see `load_model`.
    """
    evaluation = config.evaluation
    model = load_model(file)
    skeleton = model.card.make_skeleton()
    member = Member(compile_forward(model, evaluation.batch_size), preparation_from_card(model, model.card, skeleton))
    test = PoseTest((member,), skeleton, shift_heatmap=evaluation.shift_heatmap)
    return Peer(name, file, skeleton, _predict_by(test, evaluation.batch_size), evaluation.keypoint_threshold, model.card)


def tflite_peer(name: str, file: Path, config: Config) -> Peer:
    """A TFLite file of kpose as a network that takes part.

    Raises:
        KposeError: see `TFLiteRunner`.
    """
    from kpose.export import TFLiteRunner

    evaluation = config.evaluation
    runner = TFLiteRunner(file, threads=max(THREADS), shift_heatmap=evaluation.shift_heatmap)

    def person(threads: int, image: np.ndarray, box: np.ndarray) -> Callable[[], object]:
        estimator = TFLiteRunner(file, threads=threads, flip=False)
        return lambda: estimator(image, [box])

    predict = _predict_by(runner.test, evaluation.batch_size)
    return Peer(name, file, runner.skeleton, predict, evaluation.keypoint_threshold, runner.cards[0], person)


def _predict_by(test: PoseTest, batch_size: int) -> Predict:
    def predict(people: Instances, flip: bool) -> Predictions:
        asked = replace(test, flip=flip)
        return predict_instances(asked, people, view_batches(asked, people, batch_size))

    return predict


def _movenet_peer(name: str, file: Path) -> Peer:
    network = MoveNet(file, max(THREADS))

    def predict(people: Instances, flip: bool) -> Predictions:
        found = np.zeros((len(people), network.skeleton.num_joints, 3), np.float32)
        order = np.argsort(people.image_index, kind="stable")
        shown, image = -1, np.zeros((0, 0, 3), np.uint8)
        for index in tqdm(order, desc="predicting", unit=" people", leave=False):
            if people.image_index[index] != shown:
                shown = people.image_index[index]
                image = read_as_annotated(people.image_files[shown])
            views = [network(image, people.boxes[index], mirrored=mirrored) for mirrored in ((False, True) if flip else (False,))]
            found[index] = np.mean(views, axis=0)
        _, sizes = geometry.fit_box_to_aspect(people.boxes, network.input_size, BOX_PADDING)
        return Predictions(found, sizes.prod(axis=-1).astype(np.float64))

    def person(threads: int, image: np.ndarray, box: np.ndarray) -> Callable[[], object]:
        single = MoveNet(file, threads)
        return lambda: single(image, box)

    return Peer(name, file, network.skeleton, predict, MOVENET_KEYPOINT_THRESHOLD, person=person)


# --- scores --------------------------------------------------------------------------------------------------------------------------


def _check_set(validation: ValidationSet) -> None:
    metric = metric_of(validation.dataset)
    if metric.title not in ("OKS AP", "PCK@0.2"):
        raise KposeError(f"{validation.name}: peers are compared by OKS AP and PCK@0.2, its score is {metric.title}; leave it out")
    if validation.dataset.detections is not None:
        raise KposeError(
            f"{validation.name}: leave out its 'detections'; give --detector, whose boxes are scored beside the annotated ones"
        )
    metric.require(validation)


def _detected_sets(config: Config, sets: Sequence[ValidationSet], detector: PersonDetector, output: Path) -> list[ValidationSet]:
    """The OKS sets with a detector's boxes."""
    found = []
    for validation in sets:
        if validation.dataset.format != "coco" or metric_of(validation.dataset).title != "OKS AP":
            continue
        path = output / f"{validation.name}_detections.json"
        write_detections(detector, validation.instances, path, person_category(truth_of(validation)))
        entry = validation.dataset.model_copy(update={"detections": path})
        data = config.data.model_copy(update={"validation": [entry]})
        found += validation_sets(config.model_copy(update={"data": data}))
    return found


def score_peer(peer: Peer, flip: bool, validation: ValidationSet, config: Config, resamples: int) -> PeerScore:
    """What a network scores on a set, without or with the mirror images, and how sure that is.

    Raises:
        KposeError: when a picture cannot be read, or see `score_predictions`.
    """
    people, metric = validation.instances, metric_of(validation.dataset)
    evaluation = config.evaluation.model_copy(update={"keypoint_threshold": peer.keypoint_threshold})
    score = score_predictions(peer.predict(people, flip), validation, evaluation)
    boxes: Boxes = "annotated" if has_ground_truth_boxes(people) else "detected"
    scorer: OksScorer | PckScorer
    joints: dict[str, float] = {}
    mean: float | None = None
    if metric.title == "OKS AP":
        scorer = OksScorer(score.results, truth_of(validation), people.skeleton, people.image_ids)
        if boxes == "annotated":
            joints = joint_similarities(score.raw.keypoints, validation)
            mean = mean_oks(score.raw.keypoints, validation)
    else:
        missing = (people.keypoints[..., 2] == 0) | ~validation.mapping.known
        scorer = PckScorer(
            people.image_ids[people.image_index],
            score.raw.keypoints[..., :2],
            people.keypoints[..., :2],
            missing,
            skeleton=people.skeleton,
        )
        joints = {joint: score.metrics[joint] for joint in people.skeleton.joint_names}
    drawn = bootstrap(scorer, resamples, config.seed)
    return PeerScore(peer.name, flip, validation.name, boxes, metric.title, metric.logged, score.metrics, drawn, joints, mean)


def joint_similarities(keypoints: np.ndarray, validation: ValidationSet) -> dict[str, float]:
    """The mean OKS of each joint alone, of annotated people: 1 where it is always hit, NaN where it is never annotated.

    Args:
        keypoints: `(N, K, 2 or more)` x, y in the image frame, of the people of the set in its order.
        validation: the set, whose skeleton has sigmas.
    """
    similarity, counted = _similarities(keypoints, validation)
    with np.errstate(invalid="ignore"):
        means = similarity.sum(axis=0) / counted.sum(axis=0)
    return dict(zip(validation.instances.skeleton.joint_names, means.tolist(), strict=True))


def mean_oks(keypoints: np.ndarray, validation: ValidationSet) -> float:
    """The mean OKS of annotated people; see `joint_similarities`. NaN where nobody has an annotated joint."""
    similarity, counted = _similarities(keypoints, validation)
    annotated = counted.any(axis=1)
    people = similarity[annotated].sum(axis=1) / counted[annotated].sum(axis=1)
    return float(people.mean()) if len(people) else float("nan")


def _similarities(keypoints: np.ndarray, validation: ValidationSet) -> tuple[np.ndarray, np.ndarray]:
    """`(N, K)` each: the OKS of each joint alone, 0 where it is not annotated, and whether it is."""
    people = validation.instances
    variances = (2.0 * np.array(people.skeleton.oks_sigmas, np.float64)) ** 2
    difference = np.asarray(keypoints[..., :2], np.float64) - people.keypoints[..., :2]
    exponent = (difference**2).sum(axis=-1) / variances / (people.areas[:, None].astype(np.float64) + np.spacing(1)) / 2
    counted = (people.keypoints[..., 2] > 0) & validation.mapping.known
    return np.where(counted, np.exp(-exponent), 0.0), counted


# --- speed ---------------------------------------------------------------------------------------------------------------------------


def _speeds(peers: Sequence[Peer], people: Instances, rounds: int) -> dict[tuple[str, int, str], list[float]]:
    """Milliseconds of each round by name, threads, and `network` (alone) or `person` (crop, network, keypoints); TFLite files alone."""
    if not rounds:
        return {}
    image = read_as_annotated(people.image_files[people.image_index[0]])
    calls: dict[tuple[str, int, str], Callable[[], object]] = {}
    for peer in peers:
        if peer.person is not None:
            for threads in THREADS:
                calls[peer.name, threads, "network"] = network_alone(peer.file, threads)
                calls[peer.name, threads, "person"] = peer.person(threads, image, people.boxes[0])
    return milliseconds_in_turns(calls, rounds)


# --- report --------------------------------------------------------------------------------------------------------------------------


def _report(
    peers: Sequence[Peer],
    sets: Sequence[ValidationSet],
    scores: Sequence[PeerScore],
    speeds: dict[tuple[str, int, str], list[float]],
    reference: str | None,
    rounds: int,
    resamples: int,
    detector: str | Path | None,
) -> dict[str, Any]:
    """Everything as plain values for JSON; files are named without their folders."""
    references = {(one.set, one.boxes, one.flip): one for one in scores if one.peer == reference}
    return {
        "reference": reference,
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": scores[0].bootstrap.seed,
        "detector": {"file": Path(detector).name, "sha256": file_hash(detector)} if detector is not None else None,
        "sets": [
            {
                "name": validation.name,
                "boxes": "annotated" if has_ground_truth_boxes(validation.instances) else "detected",
                "protocol": metric_of(validation.dataset).title,
                "images": len(validation.instances.image_files),
                "people": len(validation.instances),
            }
            for validation in sets
        ],
        "networks": [_describe(peer, speeds) for peer in peers],
        "scores": [_score_for_json(one, references.get((one.set, one.boxes, one.flip))) for one in scores],
        "rounds": rounds,
        "machine": f"{os.cpu_count()} CPU threads, {platform.machine()}",
        "versions": library_versions() | ({"ai-edge-litert": version("ai-edge-litert")} if find_spec("ai_edge_litert") else {}),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _describe(peer: Peer, speeds: dict[tuple[str, int, str], list[float]]) -> dict[str, Any]:
    parameters, multiply_adds = peer.costs()
    return {
        "name": peer.name,
        "file": peer.file.name,
        "sha256": file_hash(peer.file),
        "keypoint_threshold": peer.keypoint_threshold,
        "bytes": peer.file.stat().st_size,
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "milliseconds": [
            {"threads": threads, "of": part, "median": statistics.median(times), "rounds": times}
            for (name, threads, part), times in speeds.items()
            if name == peer.name
        ],
    }


def _score_for_json(one: PeerScore, reference: PeerScore | None) -> dict[str, Any]:
    compared = reference is not None and reference.peer != one.peer
    return {
        "network": one.peer,
        "flip": one.flip,
        "set": one.set,
        "boxes": one.boxes,
        "protocol": one.protocol,
        "metrics": metrics_for_json(one.metrics),
        "intervals": {name: interval_for_json(one.bootstrap.interval(name)) for name in one.logged},
        "differences": {name: interval_for_json(one.bootstrap.difference(reference.bootstrap, name)) for name in one.logged}
        if compared and reference is not None
        else None,
        "joints": metrics_for_json(one.joints),
    }


def interval_for_json(interval: Interval) -> dict[str, float | None]:
    """An interval as plain values."""
    return metrics_for_json({"value": interval.value, "low": interval.low, "high": interval.high})


def format_report(report: dict[str, Any]) -> str:
    """A report as Markdown tables; AP and OKS in percent, as PCK is."""
    sections = []
    for described in report["sets"]:
        scores = [one for one in report["scores"] if (one["set"], one["boxes"]) == (described["name"], described["boxes"])]
        head = f"{described['name']}, {described['boxes']} boxes: {described['images']} images, {described['people']} "
        head += "people" if described["boxes"] == "annotated" else "boxes"
        sections.append(f"### {head}\n\n{_score_table(scores, report['reference'])}")
        if scores[0]["joints"]:
            what = "mean OKS" if described["protocol"] == "OKS AP" else described["protocol"]
            sections.append(f"{what} of each joint, %:\n\n{_joint_table(scores)}")
    share = f"{100 * report['confidence']:g} %"
    sections.append(
        f"In brackets: {share} percentile intervals of {report['resamples']} bootstrap resamples of the images, seed {report['seed']}; "
        "differences are on the same resamples, network against reference with the same flip."
    )
    rules = ", ".join(f"{one['name']} {one['keypoint_threshold']:g}" for one in report["networks"])
    sections.append(f"A person's score is the mean score of the joints above a threshold, times the box's: {rules}.")
    sections.append(f"### Files\n\n{_file_table(report)}")
    if any(one["milliseconds"] for one in report["networks"]):
        sections.append(
            f"LiteRT {report['versions']['ai-edge-litert']}, {report['machine']}; median of {report['rounds']} rounds in turns; "
            "person: crop, network and keypoints, no flip."
        )
    return "\n\n".join(sections) + "\n"


def _score_table(scores: Sequence[dict[str, Any]], reference: str | None) -> str:
    logged = list(scores[0]["intervals"])
    factor = 1.0 if scores[0]["protocol"].startswith("PCK") else 100.0
    main, *others = logged
    rows = [["network", "flip", f"{main}", *others] + ([f"{main} - {reference}"] if reference else [])]
    for one in scores:
        row = [one["network"], "yes" if one["flip"] else "no", format_interval(one["intervals"][main], factor)]
        row += [format_number(one["metrics"][name], factor) for name in others]
        if reference:
            row.append(format_interval(one["differences"][main], factor, "+") if one["differences"] else "")
        rows.append(row)
    return markdown_table(rows)


def _joint_table(scores: Sequence[dict[str, Any]]) -> str:
    factor = 1.0 if scores[0]["protocol"].startswith("PCK") else 100.0
    joints = [joint for joint in scores[0]["joints"] if any(one["joints"][joint] is not None for one in scores)]
    rows = [["joint", *(f"{one['network']}{', flip' if one['flip'] else ''}" for one in scores)]]
    rows += [[joint.replace("_", " "), *(format_number(one["joints"][joint], factor) for one in scores)] for joint in joints]
    return markdown_table(rows)


def _file_table(report: dict[str, Any]) -> str:
    kinds = [(threads, part) for threads in THREADS for part in ("network", "person")]
    kinds = kinds if any(one["milliseconds"] for one in report["networks"]) else []
    rows = [["network", "file", "MB", "parameters, M", "multiply-adds, 10^9"]]
    rows[0] += [f"{part}, {threads} thread{'s' if threads > 1 else ''}, ms" for threads, part in kinds]
    for one in report["networks"]:
        times = {(entry["threads"], entry["of"]): entry["median"] for entry in one["milliseconds"]}
        costs = [format_number(one["parameters"], 1e-6, digits=2), format_number(one["multiply_adds"], 1e-9, digits=3)]
        rows.append(
            [one["name"], one["file"], f"{one['bytes'] / 1e6:.1f}", *costs, *(format_number(times.get(kind), 1.0) for kind in kinds)]
        )
    return markdown_table(rows)


def format_number(value: float | None, factor: float, sign: str = "", digits: int = 1) -> str:
    """A value times a factor, or a dash."""
    return "-" if value is None else f"{factor * value:{sign}.{digits}f}"


def format_interval(interval: dict[str, float | None], factor: float, sign: str = "") -> str:
    """A value with the ends of its interval, times a factor."""
    value, low, high = (format_number(interval[name], factor, sign) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, the first one its head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
