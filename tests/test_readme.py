"""The README and the guides say only what works: their links lead somewhere, their commands are accepted, their Python compiles."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml

from kpose.cli import make_parser
from kpose.config import load_config
from kpose.skeletons import Skeleton

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


def indented(text: str) -> list[str]:
    """Its indented blocks of code."""
    blocks = re.findall(r"(?:^ {4,}\S.*\n(?:\n(?= {4,}\S))?)+", text, flags=re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in blocks]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_commands_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    commands = re.findall(r"^ *python scripts/(\w+)\.py (.*?)(?:  #.*)?$", README, flags=re.MULTILINE)
    assert len(commands) >= 3
    for script, words in commands:
        assert (REPOSITORY / "scripts" / f"{script}.py").is_file()
        verb = {"inspect_data": "inspect"}.get(script, script.replace("_", "-"))
        options = make_parser().parse_args([verb, *shlex.split(words)])
        assert "config" not in options or load_config(options.config, options.overrides)


# Those of published rows: tests/test_recipes.py.
OWN_RUNS = sorted(path for folder in ("mixed", "synthetic") for path in (REPOSITORY / "configs" / folder).glob("*.yaml"))


@pytest.mark.parametrize("path", OWN_RUNS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_commands_in_the_head_of_a_configuration_are_its_own(path: Path) -> None:
    head = "\n".join(itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()))
    for name in re.findall(r"configs/\S+\.yaml", head):
        assert (REPOSITORY / name) == path
    for weights in re.findall(r"--weights (\S+)/best\.keras", head):
        assert Path(weights) == load_config(path).output


def test_python_compiles() -> None:
    programs = [block for block in indented(README) if re.search(r"^(import|from) ", block, flags=re.MULTILINE)]
    assert programs
    for program in programs:
        compile(program, "README.md", "exec")


def test_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_skeleton_of_the_guide_is_valid() -> None:
    block = next(block for block in indented(README) if "joint_names" in block)
    assert Skeleton.from_dict(yaml.safe_load(block)).num_joints == 4
