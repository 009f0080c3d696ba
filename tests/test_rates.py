"""Rates and their intervals, against published and independently computed values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import brief

from llama_index_hitl.rates import Rate


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0000),
        (5, 10, 0.2366, 0.7634),
    ],
)
def test_the_interval_is_the_one_of_wilson(count, of, low, high):
    assert Rate(count, of).interval == pytest.approx((low, high), abs=5e-5)


@brief
@given(st.data(), st.integers(1, 10**9))
def test_the_interval_holds_the_share_and_mirrors_that_of_the_others(data, of):
    count = data.draw(st.integers(0, of))
    low, high = Rate(count, of).interval
    assert 0 <= low <= count / of <= high <= 1
    assert Rate(of - count, of).interval == pytest.approx((1 - high, 1 - low), abs=1e-12)
    # The bounds are where the share is just as far away as 95 % allow.
    for bound in (low, high):
        if 0 < bound < 1:
            deviations = abs(count / of - bound) / (bound * (1 - bound) / of) ** 0.5
            assert deviations == pytest.approx(1.959964, rel=1e-3)


@pytest.mark.parametrize(("count", "of"), [(0, 0), (-1, 5), (6, 5)])
def test_what_is_no_rate_is_refused(count, of):
    with pytest.raises(ValueError, match="no rate"):
        Rate(count, of)


def test_a_rate_reads_as_words():
    assert str(Rate(2, 40)) == "5.0% (95% interval: 1.4% to 16.5%)"
