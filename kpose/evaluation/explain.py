"""Why two scores differ: `kpose evaluate --explain A B`.

Every factor that differs (box source, flip test, decoding, suppression, ...) is switched from A's setting to B's, one after the other and
in a fixed order, and the variant is scored after each switch. A factor's share is the difference that its switch makes, so the shares add
up to the whole difference. What is left at the end, between the variant that has all of B's settings and the score that B reports, belongs
to nothing that a protocol card can set: library versions, numerical noise.

Factors act together, so a share depends on the order. The order here is that of the way from the photo to the score, and each factor is
also switched on the way back from B to A: where both figures of a factor agree, the order does not matter for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from kpose.checkpoint import read_card
from kpose.config import Config, DatasetConfig
from kpose.data import Instances, ValidationSet, validation_sets
from kpose.data.joint_mapping import JointMapping
from kpose.errors import KposeError
from kpose.evaluation.attribution import Explanation, Row, walk
from kpose.evaluation.coco import person_category
from kpose.evaluation.metrics import Metric, metric_of, truth_of
from kpose.evaluation.prediction import load_networks, pose_test, predict_instances, view_batches
from kpose.evaluation.protocol import HashedFile, ProtocolCard, UsedBoxes, file_hash, library_versions, read_protocol_card
from kpose.evaluation.raw import RAW_PREDICTIONS, RawPredictions, read_raw_predictions
from kpose.evaluation.result_lists import explain_result_lists
from kpose.evaluation.scoring import PROTOCOL, RESULTS
from kpose.files import read_json
from kpose.skeletons import COCO_17, Skeleton, get_skeleton

TOGETHER = "together: needs the network"
UNEXPLAINED = "not explained"

# Formats whose file is the truth as it is, see `truth_of`; of others the people must be read.
COMPARED_WITH_FILE = ("coco", "crowdpose", "tfrecord")


def explain_scores(
    first: str | Path,
    second: str | Path,
    *,
    annotations: str | Path | None = None,
    config: Config | None = None,
    weights: Sequence[str | Path] = (),
    detections: Sequence[str | Path] = (),
) -> Explanation:
    """Attribute the difference between two scores.

    Args:
        first: A: a folder that `kpose evaluate` wrote, its `protocol.json`, or a COCO result list.
        second: B, likewise.
        annotations: the file that was scored against; by default that validation set of `config` whose hash the cards name.
        config: where pictures and annotations are, to run networks again; of result lists the skeleton (by default COCO's).
        weights: checkpoints of A and B, recognised by their hash; with `config`, factors that need the network are switched one by one.
        detections: person boxes of A and B, recognised by their hash; those of `config` need not be named again.

    Raises:
        KposeError: when a file is missing or damaged, the scores are of different people or kinds, or a needed file is not given.
    """
    sources = [_find(Path(first)), _find(Path(second))]
    if all(is_card for _, is_card in sources):
        paths = [path for path, _ in sources]
        return _explain_cards(paths, annotations, config, weights, detections)
    if weights or detections:
        raise KposeError("--weights and --detections need two protocol cards; result lists do not say how they were made")
    lists = [path.parent / RESULTS if is_card else path for path, is_card in sources]
    if annotations is None and config is not None and len(config.data.validation) == 1:
        annotations = config.data.validation[0].annotations
    if annotations is None:
        raise KposeError("result lists do not name what they were scored against; give --annotations FILE")
    return explain_result_lists(lists[0], lists[1], annotations, COCO_17 if config is None else get_skeleton(config.skeleton))


def _find(path: Path) -> tuple[Path, bool]:
    """The file that is meant, and whether it is a protocol card."""
    if path.is_dir():
        for name in (PROTOCOL, RESULTS):
            if (path / name).is_file():
                return path / name, name == PROTOCOL
        raise KposeError(f"{path} holds neither {PROTOCOL} nor {RESULTS}; is it a folder that `kpose evaluate` wrote?")
    if not path.is_file():
        raise KposeError(f"there is no {path}; give a folder that `kpose evaluate` wrote, its {PROTOCOL}, or a result list")
    return path, not isinstance(read_json(path), list)


def _printable(text: str) -> str:
    """Text of a file, fit for a line of a table."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _short_file(file: str, sha256: str) -> str:
    return f"{_printable(file)} ({sha256[:8]})"


@dataclass(frozen=True)
class _Factor:
    """One thing that cards may differ in: what is compared, and how it is shown."""

    name: str
    setting: Callable[[ProtocolCard], Any]
    show: Callable[[ProtocolCard], str]
    needs_network: bool = True


def _show_boxes(card: ProtocolCard) -> str:
    boxes = card.boxes
    if boxes.source == "ground truth":
        return "annotated"
    at_least = f", score >= {boxes.minimum_score:g}" if boxes.minimum_score else ""
    return f"{_short_file(boxes.file, boxes.sha256)}{at_least}"


def _show_networks(card: ProtocolCard) -> str:
    shown = " + ".join(
        f"{_printable(network.name)} {network.input_size[0]}x{network.input_size[1]}, "
        f"{_short_file(network.weights.file, network.weights.sha256)}"
        for network in card.networks
    )
    return f"{shown}, mean of {card.test.ensemble}" if card.test.ensemble else shown


def _show_flip(card: ProtocolCard) -> str:
    return ("on, shifted by a pixel" if card.test.shift_heatmap else "on") if card.test.flip else "off"


def _show_views(card: ProtocolCard) -> str:
    rotations, scales = (", ".join(f"{value:g}" for value in values) for values in (card.test.rotations, card.test.scales))
    return f"rotations {rotations}; scales {scales}"


def _show_threshold(value: float | None) -> str:
    return "off" if value is None else f"{value:g}"


# In the order of the way from the photo to the score. A factor may only depend on settings of its own, so that any can be switched alone:
# the shift belongs to the flip test, and what a network was built and trained for (input size, alignment, encoding) to the network.
FACTORS = (
    _Factor("box source", lambda card: (card.boxes.source, card.boxes.sha256, card.boxes.minimum_score), _show_boxes),
    _Factor("box padding", lambda card: card.boxes.padding, lambda card: f"{card.boxes.padding:g}"),
    _Factor("network", lambda card: ([network.weights.sha256 for network in card.networks], card.test.ensemble), _show_networks),
    _Factor("flip test", lambda card: (card.test.flip, card.test.shift_heatmap), _show_flip),
    _Factor("views", lambda card: (card.test.rotations, card.test.scales), _show_views),
    _Factor("decoding", lambda card: card.test.codec.decoding, lambda card: card.test.codec.decoding),
    _Factor(
        "OKS suppression",
        lambda card: card.test.oks_suppression_threshold,
        lambda card: _show_threshold(card.test.oks_suppression_threshold),
        needs_network=False,
    ),
    _Factor(
        "keypoint threshold",
        lambda card: card.test.keypoint_threshold,
        lambda card: _show_threshold(card.test.keypoint_threshold),
        needs_network=False,
    ),
    _Factor(
        "box rescoring",
        lambda card: card.test.box_rescoring,
        lambda card: "on" if card.test.box_rescoring else "off",
        needs_network=False,
    ),
)


def _explain_cards(
    paths: Sequence[Path],
    annotations: str | Path | None,
    config: Config | None,
    weights: Sequence[str | Path],
    detections: Sequence[str | Path],
) -> Explanation:
    cards = [read_protocol_card(path) for path in paths]
    metric = _require_comparable(cards, paths)
    reported = [_reported(card, metric.logged[0], path) for card, path in zip(cards, paths, strict=True)]
    if weights and config is None:
        raise KposeError("--weights alone cannot run a network; give --config FILE too, which says where the pictures are")
    factors = [factor for factor in FACTORS if factor.setting(cards[0]) != factor.setting(cards[1])]
    joint = [] if weights else [factor for factor in factors if factor.needs_network]
    alone = [factor for factor in factors if factor not in joint]
    names = [TOGETHER] * bool(joint) + [factor.name for factor in alone]

    if weights:
        assert config is not None
        dataset = _dataset_of(cards[0], annotations, config)
        score: Callable[[frozenset[str]], float] = _NetworkVariants(cards, metric, config, dataset, weights, detections).score
    elif metric.title.endswith("AP"):
        score = _SavedVariants(cards, paths, metric, _dataset_of(cards[0], annotations, config), config, bool(joint)).score
    else:
        # Neither suppression nor score rule matter to a share of correct joints: all that differs is the networks' doing.
        def score(switched: frozenset[str]) -> float:
            return reported[TOGETHER in switched]

    score = functools.cache(score)
    start, end = score(frozenset()), score(frozenset(names))
    steps = walk(names, score)
    rows = [Row("A scored again", "reported", "here", reported[0], start)] * (reported[0] != start)
    rows += [Row(factor.name, factor.show(cards[0]), factor.show(cards[1])) for factor in joint]
    shown = {factor.name: (factor.show(cards[0]), factor.show(cards[1])) for factor in alone}
    rows += [Row.of(step, shown.get(step.factor, ("", ""))) for step in steps]
    here = library_versions()
    versions = {name: [_printable(card.versions.get(name, "unknown")) for card in cards] for name in here}
    rows += [Row(name, pair[0], pair[1]) for name, pair in versions.items() if pair[0] != pair[1]]
    rows.append(Row(UNEXPLAINED, "", "", end, reported[1]))
    notes = []
    if joint:
        notes.append(f"{TOGETHER}: give --config FILE and --weights FILE (of both) to switch its factors one by one.")
    for name, pair in versions.items():
        if set(pair) != {here[name]}:
            notes.append(f"{name}: scored again here with {here[name]}, A with {pair[0]}, B with {pair[1]}.")
    return Explanation(str(paths[0]), str(paths[1]), metric.logged[0], tuple(rows), tuple(notes))


def _require_comparable(cards: Sequence[ProtocolCard], paths: Sequence[Path]) -> Metric:
    """The score of both cards.

    Raises:
        KposeError: when they are scores of other people, or other scores.
    """
    first, second = cards
    if first.protocol != second.protocol:
        raise KposeError(f"{paths[0]} is {first.protocol}, {paths[1]} is {second.protocol}: different scores cannot be compared")
    mine, others = first.dataset.annotations, second.dataset.annotations
    if mine.sha256 != others.sha256:
        raise KposeError(
            f"{paths[0]} was scored against {_short_file(mine.file, mine.sha256)}, {paths[1]} against "
            f"{_short_file(others.file, others.sha256)}: scores of different datasets cannot be compared"
        )
    for name in type(first.dataset).model_fields:
        one, other = getattr(first.dataset, name), getattr(second.dataset, name)
        if name != "annotations" and one != other:
            raise KposeError(
                f"{paths[0]} and {paths[1]} are not scores of the same people: dataset.{name} is {_printable(str(one))[:60]} and "
                f"{_printable(str(other))[:60]}"
            )
    for protocol in get_args(get_args(DatasetConfig.model_fields["protocol"].annotation)[0]):
        metric = metric_of(DatasetConfig(protocol=protocol))
        if metric.title == first.protocol:
            return metric
    raise KposeError(f"{paths[0]}: unknown protocol {_printable(first.protocol)!r}; it was written by another version of kpose")


def _reported(card: ProtocolCard, metric: str, path: Path) -> float:
    value = card.metrics.get(metric)
    if value is None:
        raise KposeError(f"{path} reports no {metric}; evaluate that checkpoint again")
    return value


def _dataset_of(card: ProtocolCard, annotations: str | Path | None, config: Config | None) -> DatasetConfig:
    """The scored set, with its place on this machine.

    Raises:
        KposeError: when it is not known, or the file is another one.
    """
    wanted = card.dataset.annotations
    called = _short_file(wanted.file, wanted.sha256)
    dataset = DatasetConfig(annotations=annotations)
    if annotations is not None:
        if file_hash(annotations) != wanted.sha256:
            raise KposeError(f"{annotations} is not the file that was scored against, {called}: their hashes differ")
    elif config is None:
        raise KposeError(f"the cards name {called} without its folder; give --annotations FILE, or --config FILE")
    if config is not None:
        known = [
            entry for entry in config.data.validation if entry.annotations is not None and file_hash(entry.annotations) == wanted.sha256
        ]
        if known:
            dataset = known[0]
        elif annotations is None:
            raise KposeError(f"the configuration has no validation set with {called}; set data.validation, or give --annotations FILE")
    return dataset.model_copy(
        update={
            "format": card.dataset.format,
            "include": card.dataset.include,
            "exclude": card.dataset.exclude,
            "people": card.dataset.people_range,
            "detections": None,
        }
    )


def _cards_of(cards: Sequence[ProtocolCard], switched: frozenset[str]) -> dict[str, ProtocolCard]:
    """By factor: the card whose setting a variant has."""
    return {factor.name: cards[factor.name in switched] for factor in FACTORS}


def _score(raw: RawPredictions, source: dict[str, ProtocolCard], validation: ValidationSet, truth: dict[str, Any], metric: Metric) -> float:
    """The score of raw predictions under the suppression and score rule of a variant."""
    results = raw.results(
        source["OKS suppression"].test.oks_suppression_threshold,
        source["keypoint threshold"].test.keypoint_threshold,
        source["box rescoring"].test.box_rescoring,
        validation,
        person_category(truth),
    )
    return metric.compute(raw.keypoints, results, truth, validation)[metric.logged[0]]


class _SavedVariants:
    """Scores between two cards from their saved raw predictions, without any network."""

    def __init__(
        self,
        cards: Sequence[ProtocolCard],
        paths: Sequence[Path],
        metric: Metric,
        dataset: DatasetConfig,
        config: Config | None,
        both: bool,
    ) -> None:
        self.cards, self.metric = cards, metric
        files = [path.parent / RAW_PREDICTIONS for path in paths[: 1 + both]]
        self.raw = [read_raw_predictions(file) for file in files]
        scored = cards[0].dataset
        for raw, file in zip(self.raw, files, strict=True):
            if raw.keypoints.shape[1] != len(scored.joint_names):
                raise KposeError(f"{file} has {raw.keypoints.shape[1]} joints a person, its card {len(scored.joint_names)}; evaluate again")
            if set(raw.scored_images.tolist()) != set(self.raw[0].scored_images.tolist()):
                raise KposeError(f"{file} is of other images than {files[0]}; scores of different images cannot be compared")
        if scored.people_range is not None or scored.format not in COMPARED_WITH_FILE:
            if config is None:
                raise KposeError(f"people of format {scored.format!r}, or some of a file, must be read to be found; give --config FILE")
            self.validation = _validation_set(config, dataset)
        else:
            skeleton = Skeleton(scored.skeleton, scored.joint_names, oks_sigmas=scored.oks_sigmas)
            network = Skeleton("scored joints", tuple(joint for joint in scored.joint_names if joint not in scored.joints_left_out))
            mapping = JointMapping(skeleton, network)
            self.validation = ValidationSet(dataset.format, dataset, _nobody(skeleton, self.raw[0].scored_images, dataset), mapping)
        self.truth = truth_of(self.validation)

    def score(self, switched: frozenset[str]) -> float:
        """Of a variant, see `walk`."""
        raw = self.raw[TOGETHER in switched]
        return _score(raw, _cards_of(self.cards, switched), self.validation, self.truth, self.metric)


def _nobody(skeleton: Skeleton, images: np.ndarray, dataset: DatasetConfig) -> Instances:
    """The scored images, without people: who is to be found stands in the annotation file."""
    return Instances(
        skeleton=skeleton,
        image_files=tuple(map(str, images)),
        image_ids=images,
        image_sizes=np.zeros((len(images), 2), np.int32),
        image_index=np.zeros(0, np.int32),
        ids=np.zeros(0, np.int64),
        boxes=np.zeros((0, 4), np.float32),
        keypoints=np.zeros((0, skeleton.num_joints, 3), np.float32),
        areas=np.zeros(0, np.float32),
        box_scores=np.zeros(0, np.float32),
        annotation_file=dataset.annotations,
    )


class _NetworkVariants:
    """Scores between two cards by running the networks again."""

    def __init__(
        self,
        cards: Sequence[ProtocolCard],
        metric: Metric,
        config: Config,
        dataset: DatasetConfig,
        weights: Sequence[str | Path],
        detections: Sequence[str | Path],
    ) -> None:
        self.cards, self.metric, self.config, self.dataset = cards, metric, config, dataset
        configured = [entry.detections for entry in config.data.validation if entry.detections is not None]
        self.weights, self.detections = _by_hash(weights), _by_hash([*detections, *configured])
        # Whatever is missing is told before the first network runs.
        for card in cards:
            for network in card.networks:
                _given(self.weights, network.weights, "--weights")
            if card.boxes.source == "detections":
                _given(self.detections, HashedFile(file=card.boxes.file, sha256=card.boxes.sha256), "--detections")
        self._predict = functools.cache(self._predict_anew)
        self._people = functools.cache(self._read_people)
        self._models: dict[tuple[Path, ...], list[Any]] = {}

    def score(self, switched: frozenset[str]) -> float:
        """Of a variant, see `walk`."""
        network_factors = frozenset(factor.name for factor in FACTORS if factor.needs_network)
        raw, validation, truth = self._predict(switched & network_factors)
        return _score(raw, _cards_of(self.cards, switched), validation, truth, self.metric)

    def _predict_anew(self, switched: frozenset[str]) -> tuple[RawPredictions, ValidationSet, dict[str, Any]]:
        source = _cards_of(self.cards, switched)
        boxes, views = source["box source"].boxes, source["views"].test
        networks, flip = source["network"], source["flip test"].test
        files = [_given(self.weights, network.weights, "--weights") for network in networks.networks]
        detected = boxes.source == "detections"
        evaluation = self.config.evaluation.model_copy(
            update={
                "flip": flip.flip,
                "shift_heatmap": flip.shift_heatmap,
                "rotations": list(views.rotations),
                "scales": list(views.scales),
                "ensemble": networks.test.ensemble or "positions",
            }
        )
        # What a network was made for stands in its checkpoint; the decoding of its maps is a choice of the test.
        made_for = read_card(files[0])
        model = self.config.model.model_copy(update={"name": made_for.name, "input_size": made_for.input_size, "options": made_for.options})
        data = self.config.data.model_copy(update={"box_padding": made_for.box_padding, "mean": made_for.mean, "std": made_for.std})
        codec = made_for.codec.model_copy(update={"decoding": source["decoding"].test.codec.decoding})
        config = self.config.model_copy(update={"model": model, "data": data, "codec": codec, "evaluation": evaluation})
        models = self._load(config, files)
        padded = data.model_copy(update={"box_padding": source["box padding"].boxes.padding})
        test = pose_test(config.model_copy(update={"data": padded}), models)
        validation = self._people(boxes if detected else None)
        batches = view_batches(test, validation.instances, evaluation.batch_size)
        raw = RawPredictions.of(predict_instances(test, validation.instances, batches), validation)
        return raw, validation, truth_of(validation)

    def _load(self, config: Config, files: Sequence[Path]) -> list[Any]:
        """The networks, read once for all variants that share them."""
        if tuple(files) not in self._models:
            self._models[tuple(files)] = load_networks(config, files)
        return self._models[tuple(files)]

    def _read_people(self, boxes: UsedBoxes | None) -> ValidationSet:
        """The people of a set, at annotated or at detected boxes."""
        changes = (
            {"detections": None}
            if boxes is None
            else {"detections": self.detections[boxes.sha256], "minimum_box_score": boxes.minimum_score}
        )
        return _validation_set(self.config, self.dataset.model_copy(update=changes))


def _validation_set(config: Config, dataset: DatasetConfig) -> ValidationSet:
    return validation_sets(config.model_copy(update={"data": config.data.model_copy(update={"validation": [dataset]})}))[0]


def _by_hash(paths: Sequence[str | Path]) -> dict[str, Path]:
    return {file_hash(path): Path(path) for path in paths}


def _given(files: dict[str, Path], wanted: HashedFile, option: str) -> Path:
    if wanted.sha256 not in files:
        given = ", ".join(_short_file(path.name, sha256) for sha256, path in files.items()) or "none"
        raise KposeError(f"needs {_short_file(wanted.file, wanted.sha256)}; give it with {option} (given: {given})")
    return files[wanted.sha256]
