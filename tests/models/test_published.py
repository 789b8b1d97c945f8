"""The table of published sizes names networks that exist, and compares as it says."""

from __future__ import annotations

import pytest

from kpose.models import BUILDERS, published
from kpose.models.counting import CONVENTIONS


@pytest.mark.parametrize("row", published.ROWS, ids=lambda row: f"{row.network}-{row.input_size[0]}")
def test_rows_are_of_networks_that_exist_and_figures_as_printed(row):
    assert row.network in BUILDERS and row.convention in CONVENTIONS
    assert all(float(printed) > 0 for printed in (row.parameters, row.multiply_adds) if printed is not None)
    assert row.num_keypoints == (16 if row.input_size == (256, 256) else 17)


def test_every_network_has_a_row():
    assert {row.network for row in published.ROWS} == set(BUILDERS)


def test_a_row_is_compared_in_its_own_units():
    row = published.Row("the lightweight network", "lite_mobilenet_v3", (256, 192), "mmpose", "3.1", "0.58")
    comparison = published.compare(row)
    assert comparison.parameters == pytest.approx(3.077882) and comparison.multiply_adds == pytest.approx(0.5800, abs=1e-4)
    assert comparison.true_multiply_adds == pytest.approx(0.5590, abs=1e-4)
    assert comparison.parameter_difference == pytest.approx(-0.71, abs=0.01)
    assert comparison.multiply_add_difference == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize(
    ("built", "printed", "same"), [(3.078, "3.1", True), (0.266, "0.27", True), (26.8, "26", False), (0.2, "0.20", True)]
)
def test_figures_are_compared_to_the_last_printed_digit(built, printed, same):
    assert published.rounds_to(built, printed) is same
