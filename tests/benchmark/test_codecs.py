"""What the table of encode-decode errors says."""

from __future__ import annotations

import numpy as np
import pytest

from kpose.benchmark import benchmark_codecs
from kpose.benchmark.codecs import measure_codec, published_codecs
from kpose.codecs import GaussianCodec
from kpose.errors import KposeError


def test_the_table_has_the_errors_that_the_codecs_promise(capsys: pytest.CaptureFixture[str]) -> None:
    measured = {one.name: one.errors for one in benchmark_codecs([(128, 128)], joints=400)}
    assert list(measured) == list(published_codecs((128, 128)))
    printed = capsys.readouterr().out
    assert "| 128x128 | UDP | 0.00 / 0.00 (" in printed and "400 random joints, seed 0" in printed
    # Rounding: in x and y up to 2 crop pixels, uniform, so 4 x 0.3826 (the mean distance of a square from its centre).
    mean, most, _, anywhere = measured["classic"]["plain"]
    assert mean == pytest.approx(4 * 0.3826, rel=0.1) and 2.5 < most <= anywhere <= 2 * np.sqrt(2) + 1e-3
    # One crop pixel to the right remains of a mirrored crop under classic alignment, half of it in the mean; offsets and UDP lose nothing.
    mirrored = {name: [errors[way][0] for way in ("plain", "mirrored", "flip test")] for name, errors in measured.items()}
    np.testing.assert_allclose(mirrored["DARK"], [0, 1, 0.5], atol=0.01)
    np.testing.assert_allclose(mirrored["UDP"], [0, 0, 0], atol=0.01)
    np.testing.assert_allclose(mirrored["offset"], [mirrored["offset"][0]] * 3, atol=0.01)
    for errors in measured.values():
        np.testing.assert_allclose(errors["turned"], errors["plain"], atol=0.06)


def test_the_seed_decides() -> None:
    codec = GaussianCodec((128, 128), (32, 32))
    assert measure_codec(codec, 256, 1) == measure_codec(codec, 256, 1) != measure_codec(codec, 256, 2)


@pytest.mark.parametrize(
    ("size", "joints", "message"),
    [((254, 192), 256, "input size 254x192 does not fit"), ((64, 64), 256, "96 or more"), ((128, 128), 3, "cannot measure 3 joints")],
)
def test_what_cannot_be_measured_is_refused(size, joints, message) -> None:
    with pytest.raises(KposeError, match=message):
        benchmark_codecs([size], joints)
