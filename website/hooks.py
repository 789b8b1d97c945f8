"""What MkDocs asks for while it builds the site: pages that are not in docs/, the navigation, and links that leave docs/.

The pages of docs/ are written for whoever reads them in the repository, with links to files beside docs/. On the site each of those files
becomes a page of its own, so that nothing leads outside and no address of a repository has to be known.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website import api_reference, command_reference, configuration_reference, licence_ledger, links

REPOSITORY = Path(__file__).resolve().parents[1]
GENERATED = {
    "reference/configuration.md": configuration_reference.page,
    "reference/commands.md": command_reference.page,
    "licences.md": licence_ledger.page,
} | {f"reference/api/{module}.md": functools.partial(api_reference.page, module) for module in api_reference.MODULES}
# In the order in which somebody new wants them; others follow by name.
GUIDES = [
    "pretrained",
    "demo",
    "models",
    "datasets",
    "custom-data",
    "joint-training",
    "recipes",
    "scaling",
    "cost-model",
    "gpu-elsewhere",
    "comparing-scores",
    "detectors",
    "batch-inference",
    "serving",
    "phone",
]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation: all pages of docs/, so that a new one cannot be forgotten."""
    docs = REPOSITORY / "docs"

    def pages(folder: str, first: list[str] | None = None) -> list[str]:
        names = sorted(path.stem for path in (docs / folder).glob("*.md"))
        order = [name for name in first or [] if name in names]
        return [f"{folder}/{name}.md" for name in order + [name for name in names if name not in order]]

    notebooks = [links.address_of(path) for path in links.linked_files(REPOSITORY) if path.suffix == ".ipynb"]
    config.nav = [
        {"Start": ["index.md", "architecture.md"]},
        {"Guides": [*pages("guides", GUIDES), {"Notebooks": notebooks}]},
        {
            "Reference": [
                "reference/configuration.md",
                "reference/commands.md",
                {"Python": [f"reference/api/{module}.md" for module in api_reference.MODULES]},
                "licences.md",
            ]
        },
        {"Results": ["results.md", "model_table.md", {"Model cards": pages("model_cards")}, {"Benchmarks": pages("benchmarks")}]},
        {"Decisions": pages("decisions", ["README"])},
    ]
    config.watch += [str(REPOSITORY / name) for name in ("README.md", "kpose", "website")]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the start page, the references, and the files beside docs/ that pages link to."""
    files.append(File.generated(config, "index.md", content=(REPOSITORY / "README.md").read_text(encoding="utf-8")))
    for address, make in GENERATED.items():
        files.append(File.generated(config, address, content=make()))
    for path in links.linked_files(REPOSITORY):
        address = links.address_of(path)
        if links.is_page(path):
            files.append(File.generated(config, address, content=links.page_of(REPOSITORY, path)))
        else:
            files.append(File.generated(config, address, abs_src_path=str(REPOSITORY / path)))
    # They are read where a link leads to them; the navigation would drown in them.
    for file in files:
        if file.src_uri.startswith(links.FOLDER):
            file.inclusion = type(file.inclusion).NOT_IN_NAV
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where the files are on the site."""
    source: Any = links.source_of(page.file.src_uri)
    return markdown if source is None else links.rewritten(REPOSITORY, source, markdown)
