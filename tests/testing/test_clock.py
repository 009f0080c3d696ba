from datetime import UTC, datetime, timedelta, timezone

import pytest

from llama_index_hitl.testing import ManualClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_it_stands_still():
    clock = ManualClock()
    assert clock() == clock() == NOON


def test_it_starts_where_it_is_told_to():
    tokyo = datetime(2030, 2, 3, tzinfo=timezone(timedelta(hours=9)))
    assert ManualClock(tokyo)() == tokyo
    assert ManualClock(tokyo)().utcoffset() == timedelta(hours=9)


def test_two_clocks_are_moved_apart():
    one, other = ManualClock(), ManualClock()
    one.advance(days=1)
    assert one() - other() == timedelta(days=1)


@pytest.mark.parametrize(
    ("arguments", "parts", "moved"),
    [
        ((timedelta(days=2),), {}, timedelta(days=2)),
        ((), {"days": 2, "hours": 1}, timedelta(days=2, hours=1)),
        ((), {"microseconds": 1}, timedelta(microseconds=1)),
        ((timedelta(days=1),), {"hours": 1}, timedelta(days=1, hours=1)),
        ((timedelta(0),), {}, timedelta(0)),
        ((), {}, timedelta(0)),
    ],
    ids=["timedelta", "parts", "the least", "both", "nothing", "no arguments"],
)
def test_it_moves_on(arguments, parts, moved):
    clock = ManualClock()
    clock.advance(*arguments, **parts)
    assert clock() == NOON + moved


def test_moves_add_up():
    clock = ManualClock()
    for _ in range(3):
        clock.advance(hours=8)
    assert clock() == NOON + timedelta(days=1)


@pytest.mark.parametrize("back", [timedelta(seconds=-1), timedelta(days=1, hours=-25)])
def test_it_does_not_go_backwards(back):
    clock = ManualClock()
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(back)
    assert clock() == NOON


def test_a_time_without_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        ManualClock(datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


def test_an_unknown_part_is_refused():
    with pytest.raises(TypeError, match="dais"):
        ManualClock().advance(dais=1)
