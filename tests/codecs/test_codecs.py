"""Codecs by configuration."""

from __future__ import annotations

import re

import pytest

import kpose.codecs
from kpose.codecs import GaussianCodec, OffsetCodec, make_codec, make_codecs, maps_per_joint
from kpose.config import CodecConfig
from kpose.errors import KposeError
from kpose.yaml_files import parse_yaml

SIZES = ((256, 192), (64, 48))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, GaussianCodec(*SIZES)),
        ({"sigma": 3}, GaussianCodec(*SIZES, sigma=3.0)),
        ({"center": "exact", "decoding": "dark"}, GaussianCodec(*SIZES, center="exact", decoding="dark")),
        ({"name": "offset"}, OffsetCodec(*SIZES)),
        ({"name": "offset", "radius": 3, "alignment": "unbiased"}, OffsetCodec(*SIZES, radius=3.0, alignment="unbiased")),
        ({"stage_spread": [2.0, 1.5]}, GaussianCodec(*SIZES, sigma=3.0)),  # the last output is decoded
        ({"name": "offset", "stage_spread": [2.0, 0.5]}, OffsetCodec(*SIZES, radius=2.0)),
    ],
)
def test_a_configuration_makes_its_codec(settings, expected):
    config = CodecConfig(**settings)
    assert make_codec(config, *SIZES) == expected
    assert maps_per_joint(config) == expected.maps_per_joint


def test_udp_is_what_the_documentation_says():
    block = re.search(r"\n( +codec:\n(?: +\w+: \w+\n)+)", kpose.codecs.__doc__).group(1)
    config = CodecConfig(**parse_yaml(block, "the documentation")["codec"])
    assert make_codec(config, *SIZES) == GaussianCodec(*SIZES, alignment="unbiased", center="exact", decoding="dark")


@pytest.mark.parametrize(("settings", "width"), [({}, "sigma"), ({"name": "offset"}, "radius")])
def test_each_output_has_a_codec_of_its_own(settings, width):
    coarse, fine = make_codecs(CodecConfig(**settings, stage_spread=[1.5, 1.0]), SIZES[0], [(32, 24), (64, 48)])
    assert (coarse.heatmap_size, fine.heatmap_size) == ((32, 24), (64, 48))
    assert getattr(coarse, width) == 1.5 * getattr(fine, width)
    alike = make_codecs(CodecConfig(**settings), SIZES[0], [(64, 48)] * 3)
    assert len(alike) == 3 and len(set(alike)) == 1


def test_a_spread_for_another_number_of_outputs_is_refused():
    with pytest.raises(KposeError, match=r"^codec.stage_spread has 3 values, but the network 2 outputs; give one value for each output$"):
        make_codecs(CodecConfig(stage_spread=[2, 1.5, 1]), SIZES[0], [(64, 48)] * 2)
