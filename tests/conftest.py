"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# TensorFlow's start-up chatter hides the lines of a failing test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# No deadline for a single example: how busy the machine is, is not what a property test is about.
settings.register_profile("kpose", deadline=None)
settings.load_profile("kpose")

REPOSITORY = Path(__file__).resolve().parents[1]


def _folder_beside_repository(name: str) -> Path:
    folder = REPOSITORY.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"needs the annotated photos or weights in {folder}, which are not distributed with kpose")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real annotated people beside the checkout; the test is skipped where they are absent."""
    return _folder_beside_repository("data")


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Published weights beside the checkout; the test is skipped where they are absent."""
    return _folder_beside_repository("models")
