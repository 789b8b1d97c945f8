"""An audit from beginning to end: read, check, print, write."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kpose.audit.duplicates import check_people, check_pictures
from kpose.audit.findings import KINDS, SERIOUS, AuditedSet, Finding
from kpose.audit.people import check_flags, check_limbs, check_places, check_sides, side_verdicts
from kpose.audit.repeated import JointSigma, sigmas_between, sigmas_within, yaml_lines
from kpose.audit.sheet import audit_sheet
from kpose.audit.sides import MINIMUM_PEOPLE
from kpose.config import Config, DatasetConfig
from kpose.data.datasets import label_of
from kpose.data.instances import Instances
from kpose.data.readers import read_dataset
from kpose.errors import KposeError, did_you_mean
from kpose.files import write_json
from kpose.skeletons import Skeleton, get_skeleton
from kpose.visualize import write_image

REPORT, SHEET = "audit.json", "sheet.jpg"


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        sets: what was looked at.
        findings: all of them, by kind in the order of `KINDS`, the worst first.
        sigmas: estimates from repeated annotations by set; only sets that have enough of them.
        notes: what could not be checked, and what the readers left out.
    """

    sets: tuple[AuditedSet, ...]
    findings: tuple[Finding, ...]
    sigmas: dict[str, list[JointSigma]]
    notes: tuple[str, ...]

    @property
    def serious(self) -> bool:
        """Whether anything was found that makes a training or a score wrong."""
        return any(finding.kind in SERIOUS for finding in self.findings)


def sets_of_config(config: Config, progress: bool = True) -> list[AuditedSet]:
    """All training and validation sets of a configuration, each once, with the annotated people and not the detected ones.

    Raises:
        KposeError: when there is none, or one is refused; TFRecord shards are.
    """
    skeleton = get_skeleton(config.skeleton)
    entries = [(entry, False) for entry in config.data.train] + [(entry, True) for entry in config.data.validation]
    if not entries:
        raise KposeError("the configuration has no dataset; list one under 'data.train' or 'data.validation'")
    sets: list[AuditedSet] = []
    for entry, validation in entries:
        role = "validation" if validation else "train"
        name = f"{role} {label_of(entry)}"
        same = sum(other.name.split(" #")[0] == name for other in sets)
        sets.append(AuditedSet(f"{name} #{same + 1}" if same else name, _read(entry, skeleton, progress), validation))
    return sets


def set_of_files(
    annotations: str | Path, images: str | Path, skeleton: str = "coco_17", form: str = "coco", progress: bool = True
) -> AuditedSet:
    """One dataset given by its files.

    Args:
        annotations: the dataset's own file.
        images: the folder of its pictures.
        skeleton: name, or path of a YAML; formats other than `coco` have their own.
        form: as `format` of a dataset in a configuration.
        progress: show a progress bar on large files.

    Raises:
        KposeError: when the files are refused.
    """
    from kpose.config import parse_config

    values = {"format": form, "annotations": str(annotations), "images": str(images)}
    config = parse_config({"skeleton": skeleton, "data": {"train": [values]}}, source="the command line")
    return AuditedSet(Path(annotations).name, _read(config.data.train[0], get_skeleton(skeleton), progress))


def _read(entry: DatasetConfig, skeleton: Skeleton, progress: bool) -> Instances:
    annotated = entry.model_copy(update={"detections": None, "minimum_box_score": 0.0})
    return read_dataset(annotated, skeleton, for_training=True, progress=progress)


def audit(
    sets: Sequence[AuditedSet], repeated: Instances | None = None, kinds: Sequence[str] = tuple(KINDS), progress: bool = True
) -> Audit:
    """Run all checks.

    Args:
        sets: what to look at; left and right are learned from all sets of a skeleton together.
        repeated: a second annotation of the only set, for its sigmas.
        kinds: of findings to report.
        progress: show progress bars.

    Raises:
        KposeError: when a kind is unknown, or the repeated annotation does not fit.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise KposeError(f"there is no kind of finding {kind!r}{did_you_mean(kind, KINDS, otherwise=', '.join(KINDS))}")
    if repeated is not None and len(sets) != 1:
        raise KposeError(f"a repeated annotation belongs to one set, {len(sets)} are given; audit that one by its files")
    notes = [note for audited in sets for note in audited.people.notes]
    findings: list[Finding] = []
    if "swapped_sides" in kinds:
        verdicts = side_verdicts(sets)
        findings += check_sides(sets, verdicts)
        for audited, verdict in zip(sets, verdicts, strict=True):
            if verdict is None:
                reason = f"fewer than {MINIMUM_PEOPLE} people" if audited.people.skeleton.left_right_pairs else "no left-right pairs"
                notes.append(f"{audited.name}: left and right cannot be judged, there are {reason}")
    findings += check_limbs(sets)
    sigmas = {}
    for audited in sets:
        findings += [*check_places(audited), *check_flags(audited), *check_people(audited)]
        estimates = sigmas_between(audited.people, repeated) if repeated is not None else sigmas_within(audited.people)
        if estimates:
            sigmas[audited.name] = estimates
        unknown = int((audited.people.image_sizes == 0).any(axis=1).sum())
        if unknown and "outside_image" in kinds:
            notes.append(f"{audited.name}: {unknown} pictures of unknown size; joints outside of them are not noticed")
    if {"leak", "repeated_picture"} & set(kinds):
        findings += check_pictures(sets, progress)
    order = {kind: position for position, kind in enumerate(KINDS)}
    wanted = sorted((finding for finding in findings if finding.kind in kinds), key=lambda f: (order[f.kind], -f.measure))
    return Audit(tuple(sets), tuple(wanted), sigmas, tuple(notes))


def print_audit(result: Audit, examples: int = 3) -> None:
    """A summary: counts per kind, the worst few of each, sigmas."""
    for note in result.notes:
        print(note)
    people = sum(len(audited.people) for audited in result.sets)
    counts = Counter(finding.kind for finding in result.findings)
    print(f"{'finding':<20}{'count':>8}{'of people':>11}  meaning")
    for kind, meaning in KINDS.items():
        if not counts[kind]:
            continue
        concerned = len({(f.dataset, f.person) for f in result.findings if f.kind == kind and f.person is not None})
        share = f"{concerned / people:.2%}" if concerned else ""
        print(f"{kind:<20}{counts[kind]:>8}{share:>11}  {'serious: ' if kind in SERIOUS else ''}{meaning}")
        for finding in [f for f in result.findings if f.kind == kind][:examples]:
            where = [f"annotation {finding.annotation}" if finding.annotation is not None else "", os.path.basename(finding.image or "")]
            print(f"    {', '.join([finding.dataset, *filter(None, where)])}: {finding.text}")
    if not counts:
        print("nothing found")
    for audited in result.sets:
        estimates = result.sigmas.get(audited.name)
        if estimates is None:
            continue
        print(f"OKS sigmas of {audited.name}, from repeated annotations (95 % interval, pairs, gross mistakes left out):")
        for estimate in estimates:
            interval = f"{estimate.low:.4f} to {estimate.high:.4f}"
            print(f"    {estimate.joint:<20}{estimate.sigma:.4f}  {interval}  {estimate.pairs:>6}  {estimate.gross:>4}")
        print(f"for the skeleton YAML:\n    {yaml_lines(estimates, audited.people.skeleton)}")


def write_audit(result: Audit, folder: str | Path, people: int = 24, progress: bool = True) -> list[Path]:
    """Write `audit.json` and, where a finding is about a person, `sheet.jpg` with the worst of them.

    Returns:
        The files that were written.

    Raises:
        KposeError: when the folder cannot be written.
    """
    folder = Path(folder)
    content = {
        "sets": [
            {
                "name": audited.name,
                "people": len(audited.people),
                "images": len(audited.people.image_files),
                "validation": audited.validation,
            }
            for audited in result.sets
        ],
        "counts": dict(Counter(finding.kind for finding in result.findings)),
        "notes": list(result.notes),
        "oks_sigmas": {name: [asdict(estimate) for estimate in estimates] for name, estimates in result.sigmas.items()},
        "findings": [finding.to_dict() for finding in result.findings],
    }
    written = [write_json(content, folder / REPORT, indent=1)]
    sheet = audit_sheet(result.sets, result.findings, people, progress) if people else None
    if sheet is not None:
        written.append(write_image(folder / SHEET, sheet))
    return written
