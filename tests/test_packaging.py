"""What a user relies on before any code runs: versions, bounds, pins, and the pages that explain them."""

from __future__ import annotations

import os
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import kpose

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = [
    requirement
    for lines in PROJECT["optional-dependencies"].values()
    for requirement in map(Requirement, lines)
    if requirement.name != PROJECT["name"]
]
DECIDED = [
    "tensorflow",
    "keras",
    "tensorflow-addons",
    "tf-models-official",
    "numpy",
    "opencv-python",
    "mkdocs-material",
    "pycocotools",
    "safetensors",
    "scipy",
    "starlette",
    "torch",
]


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


def test_installed_version_is_the_one_of_the_project():
    try:
        installed = metadata.version("kpose")
    except metadata.PackageNotFoundError:
        pytest.skip("kpose is not installed here; `make test` installs it")
    assert kpose.__version__ == installed == PROJECT["version"]


def test_python_versions_named_in_the_classifiers_are_those_allowed():
    allowed = Requirement(f"python{PROJECT['requires-python']}").specifier
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)}
    assert named == {f"3.{minor}" for minor in range(20) if allowed.contains(f"3.{minor}")}


@pytest.mark.parametrize("requirement", CORE + EXTRAS, ids=lambda requirement: requirement.name)
def test_every_dependency_is_bounded_below(requirement: Requirement):
    assert any(bound.operator == ">=" for bound in requirement.specifier)


@pytest.mark.parametrize("requirement", CORE, ids=lambda requirement: requirement.name)
def test_every_core_dependency_is_bounded_above(requirement: Requirement):
    assert any(bound.operator == "<" for bound in requirement.specifier)


# The builds of torch differ by machine; the Model Garden wants an older TensorFlow, apache-beam another protobuf than is tested.
PINNED = [requirement for requirement in CORE + EXTRAS if requirement.name not in ("torch", "tf-models-official", "apache-beam")]


@pytest.mark.parametrize("requirement", PINNED, ids=lambda requirement: requirement.name)
def test_every_dependency_is_pinned_within_its_bounds(requirement: Requirement, pins: dict[str, Version]):
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_constraints_hold_nothing_but_names_and_versions():
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line


def test_heavy_packages_stay_out_of_the_core():
    heavy = {"torch", "tf-models-official", "tensorflow-addons", "tf-keras", "opencv-python"}
    assert not heavy & {requirement.name for requirement in CORE}


def test_continuous_integration_runs_the_tests_with_the_tools_it_can_get():
    script = REPOSITORY / ".ci" / "run"
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    first, place, *fetched, test, last = commands
    assert (first, place) == ("set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."')
    assert (test, last) == ("make test", "exec make test-beam")
    # Where a tool cannot be had its tests skip; nothing else may fail unseen.
    assert all(re.fullmatch(r"(make|scripts)\S* [^|]+ && export KPOSE_\w+=\S+ \|\| echo \"no .*\"", line) for line in fetched)
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("package", DECIDED)
def test_every_package_that_was_decided_on_has_a_page(package: str):
    decisions = REPOSITORY / "docs" / "decisions"
    assert (decisions / f"{package}.md").read_text().startswith(f"# {package}\n")


def test_the_index_links_every_decision():
    decisions = REPOSITORY / "docs" / "decisions"
    index = (decisions / "README.md").read_text()
    assert [page.name for page in sorted(decisions.glob("*.md")) if page.name != "README.md" and f"({page.name})" not in index] == []
