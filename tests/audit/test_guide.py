"""The guide to data of one's own says only what works."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from kpose.audit import KINDS, SERIOUS
from kpose.cli import make_parser
from kpose.config import parse_config
from kpose.skeletons import Skeleton


@pytest.fixture
def guide(repository: Path) -> str:
    return (repository / "docs/guides/custom-data.md").read_text(encoding="utf-8")


def test_its_skeleton_annotation_and_configuration_are_valid(guide: str) -> None:
    skeleton, config = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", guide, flags=re.DOTALL))
    legs = Skeleton.from_dict(skeleton)
    content = json.loads(re.findall(r"```json\n(.*?)```", guide, flags=re.DOTALL)[0])
    assert content["categories"][0]["keypoints"] == list(legs.joint_names)
    assert len(content["annotations"][0]["keypoints"]) == 3 * legs.num_joints
    assert parse_config(config).skeleton == "legs.yaml"


def test_its_commands_are_accepted(guide: str) -> None:
    commands = re.findall(r"^ {4}kpose (.*)$", guide, flags=re.MULTILINE)
    assert {command.split()[0] for command in commands} == {"prepare-data", "audit", "inspect", "train", "evaluate"}
    for command in commands:
        assert make_parser().parse_args(command.split()).run


def test_it_explains_every_kind_of_finding(guide: str) -> None:
    explained = dict(re.findall(r"^\| `(\w+)` \|.*\| (serious|) ?\|$", guide, flags=re.MULTILINE))
    assert explained == {kind: "serious" if kind in SERIOUS else "" for kind in KINDS}
