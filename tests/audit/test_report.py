"""An audit from files to files."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from kpose.audit import KINDS, Finding, audit, print_audit, set_of_files, sets_of_config, write_audit
from kpose.audit.sheet import audit_sheet, worst_people
from kpose.cli import main
from kpose.config import parse_config
from kpose.errors import KposeError
from kpose.skeletons import LSP_14
from tests.audit.conftest import bodies


@pytest.fixture
def dataset(tmp_path):
    """150 people with a skeleton of their own; one has a limb too long, one is annotated twice, two pictures are equal."""
    keypoints = bodies(150)
    knee = LSP_14.index("left_knee")
    keypoints[3, LSP_14.index("left_ankle"), :2] = keypoints[3, knee, :2] + 900
    images = list(range(150))
    images[9], keypoints[9, :, :2] = images[8], keypoints[8, :, :2] + 0.3
    (tmp_path / "images").mkdir()
    for number in range(150):
        picture = np.full((24, 24, 3), 80, np.uint8)
        picture[:2, :2] = 200 if number in (20, 21) else number
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), picture)
    skeleton = LSP_14.to_dict() | {"name": "mine"}
    (tmp_path / "mine.yaml").write_text(json.dumps(skeleton))
    low, high = keypoints[..., :2].min(axis=1), keypoints[..., :2].max(axis=1)
    content = {
        "categories": [{"id": 1, "name": "person", "keypoints": list(LSP_14.joint_names)}],
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(150)],
        "annotations": [
            {
                "id": number + 1,
                "image_id": images[number],
                "category_id": 1,
                "bbox": [*low[number].tolist(), *(high - low)[number].tolist()],
                "area": float(np.prod((high - low)[number])),
                "keypoints": keypoints[number].ravel().tolist(),
                "num_keypoints": 14,
            }
            for number in range(150)
        ],
    }
    (tmp_path / "people.json").write_text(json.dumps(content))
    return tmp_path


def files_of(folder):
    return {"annotations": str(folder / "people.json"), "images": str(folder / "images")}


def test_every_fault_is_in_the_report(dataset, capsys):
    result = audit([set_of_files(*files_of(dataset).values(), skeleton=str(dataset / "mine.yaml"), progress=False)], progress=False)
    by_kind = {kind: [finding for finding in result.findings if finding.kind == kind] for kind in KINDS}
    assert [finding.annotation for finding in by_kind["impossible_limb"]] == [4]
    assert [finding.annotation for finding in by_kind["duplicate_person"]] == [9]
    assert [finding.image[-6:] for finding in by_kind["repeated_picture"]] == ["21.png"]
    assert result.serious
    print_audit(result)
    printed = capsys.readouterr().out
    assert "impossible_limb" in printed and "annotation 4" in printed

    written = write_audit(result, dataset / "out", people=4, progress=False)
    assert [path.name for path in written] == ["audit.json", "sheet.jpg"]
    report = json.loads((dataset / "out" / "audit.json").read_text())
    assert report["counts"]["impossible_limb"] == 1
    assert len(report["findings"]) == len(result.findings)
    assert {"kind", "dataset", "annotation", "image", "joints", "measure", "text"} == set(report["findings"][0])
    assert cv2.imread(str(dataset / "out" / "sheet.jpg")).shape[0] > 200


def test_only_the_kinds_that_are_asked_for_are_reported(dataset):
    audited = set_of_files(*files_of(dataset).values(), skeleton=str(dataset / "mine.yaml"), progress=False)
    assert {finding.kind for finding in audit([audited], kinds=["duplicate_person"], progress=False).findings} == {"duplicate_person"}
    with pytest.raises(KposeError, match="no kind of finding 'leaks'; did you mean 'leak'"):
        audit([audited], kinds=["leaks"], progress=False)


def test_all_sets_of_a_configuration_take_part_and_pictures_in_both_are_leaks(dataset):
    config = parse_config({"skeleton": str(dataset / "mine.yaml"), "data": {"train": [files_of(dataset)], "validation": files_of(dataset)}})
    sets = sets_of_config(config, progress=False)
    assert [(audited.name, audited.validation) for audited in sets] == [("train coco", False), ("validation coco", True)]
    leaks = audit(sets, kinds=["leak"], progress=False).findings
    assert len(leaks) == 149  # the picture of the one who was drawn into another has nobody
    with pytest.raises(KposeError, match="no dataset"):
        sets_of_config(parse_config({}))


def test_of_each_kind_the_worst_come_first():
    findings = [
        Finding(kind, "train", measure, "", person=person)
        for kind, measure, person in [
            ("impossible_limb", 3, 0),
            ("impossible_limb", 9, 1),
            ("swapped_sides", 0.4, 2),
            ("swapped_sides", 0.9, 1),
        ]
    ]
    chosen = [group[0].person for group in worst_people([*findings, Finding("leak", "train", 2, "")], count=3)]
    assert chosen[0] == 1
    assert sorted(chosen) == [0, 1, 2]
    assert audit_sheet([], [Finding("leak", "train", 2, "")], progress=False) is None


def test_the_command_ends_with_where_the_files_went_and_strict_with_status_1(dataset, capsys):
    words = ["audit", "--annotations", str(dataset / "people.json"), "--images", str(dataset / "images")]
    words += ["--skeleton", str(dataset / "mine.yaml"), "--output", str(dataset / "out"), "--people", "2"]
    assert main(words) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert str(dataset / "out") in last
    assert main([*words, "--strict"]) == 1
    assert main([*words, "--kinds", "few_joints", "--strict"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audit"], "--config"),
        (["audit", "--annotations", "people.json"], "--images"),
        (["audit", "--annotations", "absent.json", "--images", "."], "absent.json"),
    ],
)
def test_what_is_missing_is_said_in_one_line(words, message, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
