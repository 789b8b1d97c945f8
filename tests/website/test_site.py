"""The site as it was built: every page there, every link right, nothing asked of other hosts."""

from __future__ import annotations

import importlib
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.chromium import chromium
from website.api_reference import MODULES
from website.hooks import GENERATED


class Page(HTMLParser):
    """What a page of HTML leads to, what it loads, and the places in it that others may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.anchors |= {value for name in ("id", "name") if (value := values.get(name))}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(values["href"])
        elif values.get("src"):
            self.loaded.append(values["src"])


@cache
def read(path: Path) -> Page:
    return Page(path)


def test_every_page_of_the_documentation_is_there(site, repository):
    for path in (repository / "docs").rglob("*.md"):
        name = path.relative_to(repository / "docs").with_suffix(".html")
        assert (site / (name.with_name("index.html") if name.name == "README.html" else name)).is_file(), name
    for address in GENERATED:
        assert (site / address).with_suffix(".html").is_file()


def test_links_lead_to_pages_and_places_that_exist(site):
    pages = [path for path in site.rglob("*.html") if path.name != "404.html"]
    assert len(pages) > 100
    broken = []
    for path in pages:
        for link in read(path).links:
            if urlsplit(link).scheme:
                continue
            target = (path.parent / unquote(urlsplit(link).path)).resolve() if urlsplit(link).path else path
            target = target / "index.html" if target.is_dir() else target
            place = unquote(urlsplit(link).fragment)
            if not target.is_file() or (place and target.suffix == ".html" and place not in read(target).anchors | {"__skip"}):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site):
    for path in site.rglob("*.html"):
        if path.name == "404.html":  # of a server; its addresses begin at the root
            continue
        for address in read(path).loaded:
            if address.startswith("data:"):
                continue
            assert not urlsplit(address).scheme and not urlsplit(address).netloc, f"{path}: {address}"
            assert (path.parent / unquote(urlsplit(address).path)).is_file(), f"{path}: {address}"


def test_files_beside_the_documentation_are_pages_of_their_own(site):
    recipe = (site / "repository" / "configs" / "coco" / "hrnet_w32_256x192.yaml.html").read_text(encoding="utf-8")
    assert "simple_baseline" not in recipe and "hrnet_w32" in recipe
    # A page in the repository leads there, and one from there on.
    recipes = read(site / "guides" / "recipes.html").links
    assert "../repository/configs/coco/hrnet_w32_256x192.yaml.html" in recipes
    assert "../native/index.html" in read(site / "repository" / "tflite" / "android" / "index.html").links


@pytest.mark.parametrize("module", MODULES)
def test_every_class_and_function_that_a_module_offers_is_explained(site, module):
    anchors = read(site / "reference" / "api" / f"{module}.html").anchors
    imported = importlib.import_module(module)
    names = getattr(imported, "__all__", [name for name in vars(imported) if not name.startswith("_")])
    offered = [name for name in names if callable(value := getattr(imported, name)) and getattr(value, "__module__", "").startswith(module)]
    # A function that is called as its file is stands under both names.
    assert offered
    assert [name for name in offered if not {f"{module}.{name}", f"{module}.{name}.{name}"} & anchors] == []


def test_headings_have_the_anchors_of_a_repository(site):
    assert "the-network-in-the-box" in read(site / "results.html").anchors


@pytest.mark.slow  # a browser
def test_the_search_works_without_a_server(site):
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.wait_for_selector(".md-search__input")
        page.keyboard.press("s")
        page.keyboard.type("heatmap weighting")
        page.wait_for_selector(".md-search-result__meta:has-text('matching document')")
        titles = page.locator(".md-search-result__article h1, .md-search-result__article h2").all_inner_texts()
    assert any(re.search("heatmap", title, flags=re.IGNORECASE) for title in titles)
    assert [address for address in asked if address.startswith("http")] == []
