"""The generated pages are complete: each setting, each command, each pin."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from kpose.cli import make_parser
from kpose.config import Config, _all_keys
from kpose.weights import list_pretrained
from website import command_reference, configuration_reference, licence_ledger
from website.configuration_reference import _kind


def test_each_setting_is_listed_with_its_values_default_and_meaning():
    listed = {setting.key.replace("[]", ""): setting for section in configuration_reference.sections() for setting in section.settings}
    assert set(listed) == set(_all_keys())
    assert [key for key, setting in listed.items() if not (setting.kind and setting.default and setting.description)] == []
    page = configuration_reference.page()
    for setting in listed:
        assert re.search(rf"^\| `{re.escape(setting)}` \|", page.replace("[]", ""), flags=re.MULTILINE), setting


def test_each_section_says_what_it_is_about():
    assert all(section.description for section in configuration_reference.sections())


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("training.epochs", "integer (greater than 0)", "210"),
        ("training.learning_rate", "number (greater than 0)", "0.0005"),
        ("model.input_size", "[integer (greater than 0), integer (greater than 0)]", "[256, 192]"),
        ("loss.weighting", "`none`, `x`, `2x`, `x^2`, `e^x`", "x"),
        ("model.trunk_weights", "path or null", "null"),
        ("evaluation.scales", "list of: number (greater than 0) (length at least 1)", "[1.0]"),
        ("evaluation.flip", "true or false", "true"),
        ("data.train[].rename", "text: text, ...", "{}"),
        ("seed", "integer (at least 0, less than 2147483648)", "0"),
    ],
)
def test_values_and_defaults_are_those_of_the_source(key, kind, default):
    found = {setting.key: setting for section in configuration_reference.sections() for setting in section.settings}[key]
    assert (found.kind, found.default) == (kind, default)


def test_a_default_is_what_a_file_may_say():
    from kpose.yaml_files import parse_yaml

    for section in configuration_reference.sections():
        for setting in section.settings:
            value = Config() if "[]" not in setting.key else None
            for part in setting.key.split(".") if value else []:
                value = getattr(value, part)
            read = parse_yaml(setting.default, "the page")
            if value is not None:
                assert read == (list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value), setting.key


def test_kinds_that_are_nested_are_told_in_words():
    assert _kind(list[Annotated[float, Field(ge=0, lt=1)]]) == "list of: number (at least 0, less than 1)"
    assert _kind(dict[str, list[str | int]]) == "text: list of: text or integer, ..."
    assert _kind(Literal["a", "b"] | None) == "`a`, `b` or null"


def words_of_commands(parser: argparse.ArgumentParser, words: str = "kpose") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield words, parser
    for action in parser._actions:
        for name, child in (action.choices or {}).items() if isinstance(action, argparse._SubParsersAction) else ():
            yield from words_of_commands(child, f"{words} {name}")


def test_each_command_is_listed_with_all_of_its_options(monkeypatch):
    # Whatever terminal the site is built in.
    monkeypatch.setenv("COLUMNS", "40")
    page = command_reference.page()
    sections = dict(re.findall(r"^###? (kpose[^\n]*)\n\n```text\n(.*?)\n```$", page, flags=re.MULTILINE | re.DOTALL))
    expected = dict(words_of_commands(make_parser()))
    assert list(sections) == list(expected)
    for words, parser in expected.items():
        for option in parser._option_string_actions:
            assert option in sections[words], (words, option)


def test_each_pin_is_listed_and_its_licence_known_and_accepted(repository):
    found = licence_ledger.packages()
    pins = (repository / "constraints.txt").read_text().split()
    assert sorted(f"{package.name}=={package.version}" for package in found) == sorted(pins)
    installed = [package for package in found if package.licence != licence_ledger.NOT_INSTALLED]
    assert {package.name for package in installed} >= {package.name for package in found if package.use == "core"}
    strange = {
        package.name: package.licence for package in installed if not set(licence_ledger.parts(package.licence)) <= licence_ledger.ACCEPTED
    }
    assert strange == {}
    assert all(package.licence for package in installed)


def test_the_core_is_told_from_the_rest():
    uses = {package.name: package.use for package in licence_ledger.packages()}
    assert (uses["tensorflow"], uses["starlette"], uses["pytest"], uses["six"]) == ("core", "extra demo", "extra test", "indirect")


@pytest.mark.parametrize(
    ("name", "licence"), [("tensorflow", "Apache-2.0"), ("numpy", "BSD-3-Clause"), ("namex", "Apache-2.0"), ("certifi", "MPL-2.0")]
)
def test_licences_are_found_wherever_packages_keep_them(name, licence):
    assert licence in licence_ledger.parts(licence_ledger.licence_of(name))


def test_a_package_that_is_absent_is_said_to_be():
    assert licence_ledger.licence_of("no-such-package-anywhere") == licence_ledger.NOT_INSTALLED


def test_weights_and_data_sets_are_listed():
    page = licence_ledger.page()
    for name in list_pretrained():
        assert f"| `{name}` | " in page
    for name, home, _ in licence_ledger.DATA_SETS:
        assert f"[{name}]({home})" in page
