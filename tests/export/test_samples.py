from __future__ import annotations

import numpy as np
import pytest

from kpose.config import parse_config
from kpose.data.synthetic import write_synthetic_people
from kpose.errors import KposeError
from kpose.export import sample_crops
from kpose.export.samples import drawn_crops


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    drawn = write_synthetic_people(tmp_path_factory.mktemp("people"), 6, image_size=(120, 120), processes=1, progress=False)
    people = {"annotations": str(drawn.annotation_file), "images": str(drawn.image_folder)}
    return parse_config({"model": {"input_size": [64, 48]}, "data": {"train": [people]}})


def test_sample_crops_are_pictures_of_training_people(config):
    crops = sample_crops(config, 4)
    assert crops.shape == (4, 64, 48, 3) and crops.dtype == np.uint8
    assert crops.std() > 10
    assert np.array_equal(crops, sample_crops(config, 4))
    assert not np.array_equal(crops, sample_crops(config, 4, seed=1))


def test_there_are_no_more_crops_than_people(config):
    few = sample_crops(config, 1000)
    assert 6 <= len(few) < 30
    assert len({crop.tobytes() for crop in few}) == len(few)


def test_crops_of_nobody_are_refused(config):
    with pytest.raises(KposeError, match="at least 1, found 0"):
        sample_crops(config, 0)
    with pytest.raises(KposeError, match="no dataset given"):
        sample_crops(parse_config({}), 4)


def test_drawn_crops_differ_and_repeat():
    crops = drawn_crops((64, 48), 3)
    assert crops.shape == (3, 64, 48, 3) and crops.dtype == np.uint8
    assert len({crop.tobytes() for crop in crops}) == 3
    assert np.array_equal(crops, drawn_crops((64, 48), 3))
