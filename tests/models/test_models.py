"""Networks by name."""

from __future__ import annotations

import pytest

from kpose.errors import KposeError
from kpose.models import BUILDERS, build_model, list_models


def test_every_name_builds_what_it_says():
    assert list_models() == sorted(BUILDERS)
    for name in list_models():
        model = build_model(name, num_keypoints=14, input_size=(64, 64))
        assert model.name == name
        assert model.output_shape == (None, 16, 16, 14)


def test_unknown_name_names_the_nearest():
    with pytest.raises(KposeError, match="no network is called 'lite_mobilenetv3'; did you mean 'lite_mobilenet_v3'"):
        build_model("lite_mobilenetv3")
