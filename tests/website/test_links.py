from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest

from website import links

NOTEBOOK = json.dumps(
    {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "[guide](../docs/guides/a.md)"]},
            {
                "cell_type": "code",
                "source": ["print(1)"],
                "outputs": [
                    {"output_type": "stream", "name": "stdout", "text": ["1\n"]},
                    {"output_type": "display_data", "data": {"image/png": "QUJD\n", "text/plain": ["<Figure>"]}},
                ],
            },
        ]
    }
)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository whose pages lead out of docs/ and on from there."""
    files = {
        "README.md": "[notebook](notebooks/n.ipynb) [guide](docs/guides/a.md#part) [licence](LICENSE) ![picture](docs/pictures/p.png) [web](https://example.org/docs)",
        "LICENSE": "words",
        "docs/guides/a.md": "[home](../../README.md) [code](../../kpose/m.py) [folder](../../native) [here](#part)",
        "docs/pictures/p.png": "",
        "kpose/m.py": "x = 1",
        "native/README.md": "[header](runner.h) [data](../data.bin) [up](../docs/guides/a.md)",
        "native/runner.h": "int x;",
        "data.bin": "",
        "alone.py": "nobody leads here",
        "notebooks/n.ipynb": NOTEBOOK,
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_all_that_pages_lead_to_is_found_and_nothing_else(small):
    assert [str(path) for path in links.linked_files(small)] == [
        "LICENSE",
        "data.bin",
        "kpose/m.py",
        "native/README.md",
        "native/runner.h",
        "notebooks/n.ipynb",
    ]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (
            "README.md",
            "[notebook](repository/notebooks/n.ipynb.md) [guide](guides/a.md#part) [licence](repository/LICENSE.md) "
            "![picture](pictures/p.png) [web](https://example.org/docs)",
        ),
        (
            "docs/guides/a.md",
            "[home](../index.md) [code](../repository/kpose/m.py.md) [folder](../repository/native/README.md) [here](#part)",
        ),
        ("native/README.md", "[header](runner.h.md) [data](../data.bin) [up](../../guides/a.md)"),
    ],
)
def test_links_lead_to_where_the_files_are_on_the_site(small, page, expected):
    assert links.rewritten(small, PurePosixPath(page), (small / page).read_text()) == expected


def test_a_link_to_nothing_or_out_of_the_repository_is_left_for_mkdocs_to_judge(small):
    text = "[gone](gone.md) [out](../../etc/passwd) [root](/etc/passwd)"
    assert links.rewritten(small, PurePosixPath("README.md"), text) == text


def test_code_becomes_a_page_that_the_search_leaves_out(small):
    page = links.page_of(small, PurePosixPath("kpose/m.py"))
    assert "search: {exclude: true}" in page and "# kpose/m.py" in page and "`````python\nx = 1\n`````" in page


def test_a_notebook_becomes_a_page_of_its_text_code_and_pictures(small):
    page = links.page_of(small, PurePosixPath("notebooks/n.ipynb"))
    assert page.split("\n\n") == [
        "# Title\n[guide](../docs/guides/a.md)",
        "`````python\nprint(1)\n`````",
        "`````text\n1\n`````",
        '<img alt="what the code above draws" src="data:image/png;base64,QUJD">\n',
    ]
    assert "(../../guides/a.md)" in links.rewritten(small, PurePosixPath("notebooks/n.ipynb"), page)


@pytest.mark.parametrize("page", ["README.md", "docs/guides/a.md", "native/README.md", "notebooks/n.ipynb"])
def test_a_page_of_the_site_knows_the_file_it_was_made_of(page):
    assert links.source_of(links.address_of(PurePosixPath(page))) == PurePosixPath(page)


def test_the_page_of_a_source_file_has_no_links_of_its_own(small):
    assert links.source_of(links.address_of(PurePosixPath("kpose/m.py"))) is None
