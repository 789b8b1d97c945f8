"""One network in every precision: what its TFLite files score, how far their heatmaps are off, how long they take, and where they run.

All are asked for the same people as the network in Keras, each crop once, unmirrored, as a phone asks.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np

from kpose.benchmark.latency import milliseconds_in_turns, network_alone
from kpose.benchmark.peers import (
    THREADS,
    PeerScore,
    format_interval,
    format_number,
    interval_for_json,
    keras_peer,
    markdown_table,
    score_peer,
    tflite_peer,
)
from kpose.checkpoint import load_model
from kpose.config import Config
from kpose.data import ValidationSet, validation_sets
from kpose.evaluation.bootstrap import CONFIDENCE, RESAMPLES
from kpose.evaluation.metrics import metric_of
from kpose.evaluation.protocol import file_hash, library_versions, metrics_for_json
from kpose.export import TFLiteNetwork, convert_tflite, delegate_findings, operation_counts, sample_crops
from kpose.export.accelerator import accelerator_output, missing_driver
from kpose.export.quantisation import relative_rms
from kpose.export.samples import crops_of
from kpose.export.tflite import Precision, check_conversion, keras_heatmaps
from kpose.files import replacing, write_json
from kpose.inference.litert import open_interpreter
from kpose.weights.pretrained import find_checkpoint

REPORT, TABLES = "export.json", "export.md"
KERAS = "keras"
# People of the validation set on whom heatmaps are compared, and how many of them on a GPU, which may be one in software.
_COMPARED, _ON_GPU = 64, 2
_WORST_LAYERS = 10


def benchmark_export(
    config: Config,
    weights: str | Path,
    output: str | Path = "export",
    precisions: Sequence[Precision] = (),
    samples: int = 128,
    rounds: int = 5,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Convert a network in every precision and report on the files.

    The folder gets the files, `<network>_<precision>.tflite`, `export.json`, and `export.md` with its tables.

    Args:
        config: of the network: training people for the ranges of int8, validation sets, `evaluation`.
        weights: the `.keras` file, or the name of a network that comes with kpose.
        output: the folder.
        precisions: those of `convert_tflite`; by default all.
        samples: how many training people set the ranges of int8.
        rounds: how often each file's speed is measured, in turns; 0: not at all.
        resamples: of the bootstrap, for the intervals of the scores.

    Returns:
        The report, as in `export.json`.

    Raises:
        KposeError: when the network cannot be read or converted, or a set has no annotated boxes or another score than OKS AP and PCK.
    """
    output, checkpoint = Path(output), find_checkpoint(weights)
    wanted: Sequence[Precision] = precisions or get_args(Precision)
    files = {precision: output / f"{checkpoint.stem}_{precision}.tflite" for precision in wanted}
    for precision, path in files.items():
        check_conversion(path, precision, has_samples=True)
    sets = validation_sets(config)
    for validation in sets:
        metric_of(validation.dataset).require(validation)
    model = load_model(checkpoint)
    crops, source = sample_crops(config, samples), "training people of the configuration, chosen with seed 0"
    conversions = {precision: convert_tflite(model, path, precision, crops, samples_source=source) for precision, path in files.items()}
    peers = [keras_peer(KERAS, checkpoint, config), *(tflite_peer(precision, path, config) for precision, path in files.items())]
    scores = [score_peer(peer, False, validation, config, resamples) for validation in sets for peer in peers]
    shown = crops_of(sets[0].instances, config, _COMPARED)
    expected = keras_heatmaps(model, model.card, shown.astype(np.float32))
    times = _times(files, rounds)
    no_driver = missing_driver()
    report = {
        "network": model.card.name,
        "checkpoint": {"file": checkpoint.name, "sha256": file_hash(checkpoint), "bytes": checkpoint.stat().st_size},
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": config.seed,
        "compared_crops": len(shown),
        "sets": [_set_for_json(validation) for validation in sets],
        "files": [
            _describe(precision, path, shown, expected, times, no_driver)
            | {"conversion": conversions[precision].record.model_dump(), "layer_errors": conversions[precision].layer_errors}
            for precision, path in files.items()
        ],
        "scores": [_score_for_json(one, next(other for other in scores if other.set == one.set)) for one in scores],
        "rounds": rounds,
        "gpu": no_driver or "LiteRT's WebGPU accelerator alone",
        "machine": f"{os.cpu_count()} CPU threads, {platform.machine()}",
        "versions": library_versions() | {name: version(name) for name in ("ai-edge-litert", "ai-edge-quantizer")},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(report, output / REPORT, indent=2)
    tables = format_report(report)
    with replacing(output / TABLES) as partial:
        partial.write_text(tables, encoding="utf-8")
    print(tables)
    print(f"{len(files)} files of {checkpoint.name} on {len(sets)} sets: {TABLES} and {REPORT} in {output}")
    return report


def _times(files: Mapping[Precision, Path], rounds: int) -> dict[tuple[str, int], list[float]]:
    """Milliseconds of each round by precision and threads."""
    if not rounds:
        return {}
    calls: dict[tuple[str, int], Callable[[], object]] = {
        (precision, threads): network_alone(path, threads) for precision, path in files.items() for threads in THREADS
    }
    return milliseconds_in_turns(calls, rounds)


def _describe(
    precision: str,
    path: Path,
    crops: np.ndarray,
    expected: np.ndarray,
    times: dict[tuple[str, int], list[float]],
    no_driver: str | None,
) -> dict[str, Any]:
    found = TFLiteNetwork(path)(crops)
    counts, findings = operation_counts(path), delegate_findings(path)
    nodes = open_interpreter(path, 1, "the network of its card")._get_ops_details()
    return {
        "precision": precision,
        "file": path.name,
        "sha256": file_hash(path),
        "bytes": path.stat().st_size,
        "relative_rms": relative_rms(found, expected),
        "largest_difference": float(np.abs(found - expected).max() / np.ptp(expected)),
        "milliseconds": [
            {"threads": threads, "median": statistics.median(measured), "rounds": measured}
            for (name, threads), measured in times.items()
            if name == precision
        ],
        "operations": [{"kind": kind, "version": number, "count": count} for (kind, number), count in sorted(counts.items())],
        "left_to_cpu": [{"kind": one.operation, "output": one.output, "reason": one.reason} for one in findings],
        "cpu_partitions": sum(node["op_name"] == "DELEGATE" for node in nodes),
        "gpu_difference": None if no_driver else _gpu_difference(path, crops[:_ON_GPU], found[:_ON_GPU]),
    }


def _gpu_difference(path: Path, crops: np.ndarray, on_cpu: np.ndarray) -> float:
    return float(np.abs(accelerator_output(path, crops) - on_cpu).max() / np.ptp(on_cpu))


def _set_for_json(validation: ValidationSet) -> dict[str, Any]:
    people = validation.instances
    protocol = metric_of(validation.dataset).title
    return {"name": validation.name, "protocol": protocol, "images": len(people.image_files), "people": len(people)}


def _score_for_json(one: PeerScore, reference: PeerScore) -> dict[str, Any]:
    return {
        "file": one.peer,
        "set": one.set,
        "metrics": metrics_for_json(one.metrics),
        "mean_oks": one.mean_oks,
        "intervals": {name: interval_for_json(one.bootstrap.interval(name)) for name in one.logged},
        "differences": {name: interval_for_json(one.bootstrap.difference(reference.bootstrap, name)) for name in one.logged}
        if one is not reference
        else None,
    }


def format_report(report: dict[str, Any]) -> str:
    """A report as Markdown tables; AP, AR and OKS in percent, as PCK is."""
    sections = [f"### {report['checkpoint']['file']}\n\n{_file_table(report)}"]
    sections.append(
        f"Heatmaps against Keras' on {report['compared_crops']} people of {report['sets'][0]['name']}: root mean square of the difference "
        "over that of the heatmaps, and the largest difference over their range. GPU: operations that the delegate takes, and, run on the "
        f"GPU alone, the largest difference from the CPU ({report['gpu']}). CPU: partitions that XNNPACK takes."
    )
    if report["rounds"]:
        sections.append(
            f"LiteRT {report['versions']['ai-edge-litert']}, {report['machine']}; median of {report['rounds']} rounds in turns."
        )
    sections += [_layer_table(one) for one in report["files"] if one["layer_errors"]]
    for described in report["sets"]:
        scores = [one for one in report["scores"] if one["set"] == described["name"]]
        head = f"{described['name']}, annotated boxes, unmirrored: {described['images']} images, {described['people']} people"
        sections.append(f"### {head}\n\n{_score_table(scores, described['protocol'])}")
    share = f"{100 * report['confidence']:g} %"
    sections.append(f"In brackets: {share} percentile intervals of {report['resamples']} bootstrap resamples of the images.")
    return "\n\n".join(sections) + "\n"


def _file_table(report: dict[str, Any]) -> str:
    rows = [
        [
            "file",
            "MB",
            "rms",
            "largest",
            *(f"{threads} thread{'s' if threads > 1 else ''}, ms" for threads in THREADS),
            "GPU",
            "CPU",
            "ranges",
        ]
    ]
    for one in report["files"]:
        times = {entry["threads"]: entry["median"] for entry in one["milliseconds"]}
        total = sum(entry["count"] for entry in one["operations"])
        gpu = f"{total - len(one['left_to_cpu'])} of {total}"
        if one["gpu_difference"] is not None:
            gpu += f", {one['gpu_difference']:.1e}"
        row = [one["precision"], f"{one['bytes'] / 1e6:.2f}", f"{one['relative_rms']:.2e}", f"{one['largest_difference']:.2e}"]
        row += [format_number(times.get(threads), 1.0) for threads in THREADS]
        rows.append([*row, gpu, str(one["cpu_partitions"]), one["conversion"]["ranges"] or "-"])
    return markdown_table(rows)


def _layer_table(described: dict[str, Any]) -> str:
    """Where the error comes in, and what is left of it in the heatmaps."""
    errors = described["layer_errors"]
    worst = sorted(errors, key=errors.__getitem__, reverse=True)[:_WORST_LAYERS]
    rows = [["tensor", "error"], *([name, f"{errors[name]:.3f}"] for name in worst)]
    head = f"{described['precision']}, the {len(worst)} of {len(errors)} tensors that are furthest from the float network's (relative rms)"
    return f"### {head}\n\n{markdown_table(rows)}"


def _score_table(scores: Sequence[dict[str, Any]], protocol: str) -> str:
    factor = 1.0 if protocol.startswith("PCK") else 100.0
    main, *others = scores[0]["intervals"]
    rows = [["file", main, f"{main} - Keras", *others, "mean OKS"]]
    for one in scores:
        row = [one["file"], format_interval(one["intervals"][main], factor)]
        row.append(format_interval(one["differences"][main], factor, "+") if one["differences"] else "")
        row += [format_number(one["metrics"][name], factor) for name in others]
        rows.append([*row, format_number(one["mean_oks"], 100.0)])
    return markdown_table(rows)
