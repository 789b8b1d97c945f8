"""People to train on, for every test of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from kpose.data.synthetic import write_synthetic_people


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six synthetic people for training, six for the score, in COCO's layout; not to be changed."""
    folder = tmp_path_factory.mktemp("people")
    for seed, split in enumerate(("train2017", "val2017")):
        write_synthetic_people(folder, 6, seed=seed, split=split, image_size=(120, 120), processes=1, progress=False)
    return folder
