"""A headless Chromium for the tests that look at pages; they are skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """Playwright's browser on the Chromium that `KPOSE_CHROMIUM` names, or the first one of `NAMES` that is installed."""
    path = os.environ.get("KPOSE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("needs a Chromium: install the package chromium, or let KPOSE_CHROMIUM name its program")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'kpose[test]'")
    # Chromium's sandbox does not start for root, nor in most containers; it is shown pages of this repository alone.
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", *arguments])
        try:
            yield browser
        finally:
            browser.close()
