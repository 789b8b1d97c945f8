from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpose.evaluation.attribution import Explanation, Row, walk

FACTORS = ("boxes", "flip", "decoding", "suppression")


@st.composite
def scores(draw):
    """A score for every subset of some factors."""
    factors = FACTORS[: draw(st.integers(1, len(FACTORS)))]
    subsets = [frozenset(subset) for size in range(len(factors) + 1) for subset in itertools.combinations(factors, size)]
    return factors, {subset: draw(st.floats(0, 1)) for subset in subsets}


@given(scores())
def test_shares_add_up_to_the_whole_difference_both_ways(drawn):
    factors, table = drawn
    steps = walk(factors, table.__getitem__)
    whole = table[frozenset(factors)] - table[frozenset()]
    assert [step.factor for step in steps] == list(factors)
    assert (steps[0].before, steps[-1].after) == (table[frozenset()], table[frozenset(factors)])
    assert all(one.after == other.before for one, other in itertools.pairwise(steps))
    assert sum(step.after - step.before for step in steps) == pytest.approx(whole, abs=1e-12)
    assert sum(step.reverse for step in steps) == pytest.approx(whole, abs=1e-12)


@given(scores())
def test_exchanging_both_exchanges_the_ways(drawn):
    factors, table = drawn
    steps = walk(factors, table.__getitem__)
    exchanged = walk(factors, lambda switched: table[frozenset(factors) - switched])
    for step, other in zip(steps, exchanged, strict=True):
        assert other.after - other.before == pytest.approx(-step.reverse, abs=1e-12)
        assert other.reverse == pytest.approx(step.before - step.after, abs=1e-12)


def test_factors_that_do_not_act_together_have_the_same_share_both_ways():
    shares = {"boxes": 0.1, "flip": -0.02, "decoding": 0.004}
    for step in walk(tuple(shares), lambda switched: 0.5 + sum(shares[factor] for factor in switched)):
        assert step.after - step.before == pytest.approx(shares[step.factor])
        assert step.reverse == pytest.approx(shares[step.factor])


def test_no_variant_is_scored_twice():
    asked = []

    def score(switched):
        asked.append(switched)
        return 0.5

    walk(FACTORS, score)
    assert len(asked) == len(set(asked)) == 2 * len(FACTORS)


def explanation(*rows: Row) -> Explanation:
    return Explanation("a", "b", "AP", rows, ("A note.",))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_printed_differences_add_up_as_printed(values):
    rows = [
        Row(f"factor {place}", "x", "y", before, after, after - before) for place, (before, after) in enumerate(itertools.pairwise(values))
    ]
    table = explanation(*rows).table()
    printed = [float(line.split()[-1]) for line in table.splitlines() if re.match(r"factor \d|all ", line)]
    assert sum(printed[:-1]) == pytest.approx(printed[-1], abs=1e-9)


def test_columns_are_aligned_and_rows_without_figures_stay_empty():
    table = explanation(
        Row("flip test", "on", "off"), Row("together", before=0.5, after=0.25, reverse=-0.25), Row("not explained", before=0.25, after=0.25)
    ).table()
    lines = table.splitlines()
    assert [line for line in lines if line.startswith("flip test")] == ["flip test      on  off"]
    assert [line.split() for line in lines if line.startswith("together")] == [["together", "0.5000", "0.2500", "-0.2500"]]
    edges = {line.index(" 0.2500") + 7 for line in lines if line.startswith("together")}
    assert edges == {line.rindex(" 0.2500") + 7 for line in lines if line.startswith(("not", "all"))} == {lines[4].index("after") + 5}
    assert lines[-1] == "A note."


@pytest.mark.parametrize(("reverse", "shown"), [(-0.0996, False), (-0.0994, True)])
def test_the_way_back_is_shown_where_the_order_matters(reverse, shown):
    table = explanation(Row("flip test", "on", "off", 0.5, 0.4, reverse)).table()
    assert ("B to A" in table) is shown
    assert (f"{reverse:+.4f}" in table) is shown


def test_json_holds_every_figure():
    values = explanation(Row("flip test", "on", "off"), Row("together", before=0.5, after=0.25, reverse=-0.2)).to_dict()
    assert (values["before"], values["after"], values["difference"]) == (0.5, 0.25, -0.25)
    assert values["rows"][0]["difference"] is None
    assert values["rows"][1] == {
        "factor": "together", "first": "", "second": "", "before": 0.5, "after": 0.25, "reverse": -0.2, "difference": -0.25
    }  # fmt: skip
