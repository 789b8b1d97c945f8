from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kpose.config import Config, parse_config
from kpose.data.inspection import inspection_sheet
from kpose.errors import KposeError
from kpose.skeletons import Skeleton


@pytest.fixture
def config(make_dataset: Callable[..., tuple[Path, Path]], tmp_path: Path, cross: Skeleton) -> Config:
    """Three people of a skeleton of their own."""
    skeleton = tmp_path / "cross.yaml"
    skeleton.write_text(json.dumps(cross.to_dict()))
    annotations, images = make_dataset(3)
    return parse_config(
        {
            "skeleton": str(skeleton),
            "model": {"input_size": [64, 48]},
            "data": {"train": [{"annotations": str(annotations), "images": str(images)}]},
        }
    )


def test_the_sheet_shows_crops_in_colour_beside_their_heatmaps(config: Config) -> None:
    sheet = inspection_sheet(config, samples=5, columns=3)
    assert sheet.dtype == "uint8" and sheet.shape[1] > 3 * 2 * 48 and sheet.shape[0] > 2 * 64
    # Red, green and blue dots of the pictures are on it: the normalisation was undone.
    assert all((sheet[..., channel].astype(int) - sheet[..., (channel + 1) % 3] > 150).any() for channel in range(3))


def test_no_sample_is_no_sheet(config: Config) -> None:
    with pytest.raises(KposeError, match="cannot draw 0 samples"):
        inspection_sheet(config, samples=0)
