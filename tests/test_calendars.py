"""Working hours, against a model that looks at every minute."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies import brief, thorough

from llama_index_hitl import WorkingHours

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BERLIN = WorkingHours(time_zone="Europe/Berlin")

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Nuuk",
    "America/Sao_Paulo",  # changed its clocks at midnight
    "Asia/Beirut",
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # changes them by half an hour
    "Pacific/Apia",  # left out 30 December 2011
]
CHANGES = [
    datetime(2026, 3, 28, tzinfo=UTC),
    datetime(2026, 10, 24, tzinfo=UTC),
    datetime(2026, 3, 7, tzinfo=UTC),
    datetime(2026, 10, 31, tzinfo=UTC),
    datetime(2025, 3, 28, tzinfo=UTC),
    datetime(2018, 11, 3, tzinfo=UTC),
    datetime(2026, 4, 4, tzinfo=UTC),
    datetime(2011, 12, 29, tzinfo=UTC),
]


def berlin(day, clock_time):
    """Return an instant as a clock in Berlin shows it in 2026."""
    shown = datetime.fromisoformat(f"2026-{day}T{clock_time}")
    return shown.replace(tzinfo=ZoneInfo("Europe/Berlin"))


# --------------------------------------------------------------------------- cases


@pytest.mark.parametrize(
    ("start", "hours", "expected"),
    [
        (("03-02", "10:00"), 3, ("03-02", "13:00")),
        (("03-02", "06:00"), 1, ("03-02", "10:00")),
        (("03-02", "16:00"), 1, ("03-02", "17:00")),
        (("03-02", "16:00"), 2, ("03-03", "10:00")),
        (("03-02", "17:00"), 2, ("03-03", "11:00")),
        (("03-02", "23:00"), 8, ("03-03", "17:00")),
        (("03-06", "16:00"), 2, ("03-09", "10:00")),  # over a weekend
        (("03-07", "12:00"), 1, ("03-09", "10:00")),  # from a weekend on
        (("03-27", "16:00"), 2, ("03-30", "10:00")),  # the clocks are put forward on the 29th
        (("10-23", "16:00"), 2, ("10-26", "10:00")),  # and back on the 25th
        (("03-02", "09:00"), 40, ("03-06", "17:00")),
        (("03-02", "09:00"), 41, ("03-09", "10:00")),
    ],
)
def test_only_working_time_counts(start, hours, expected):
    assert BERLIN.after(berlin(*start), hours * HOUR) == berlin(*expected)
    assert BERLIN.between(berlin(*start), berlin(*expected)) == hours * HOUR


def test_nobody_works_on_a_holiday():
    days_off = {date(2026, 12, 24), date(2026, 12, 25)}  # a Thursday and a Friday
    office = WorkingHours(time_zone="Europe/Berlin", holidays=days_off)
    start = berlin("12-23", "16:00")
    assert office.after(start, 2 * HOUR) == berlin("12-28", "10:00")
    assert BERLIN.after(start, 2 * HOUR) == berlin("12-24", "10:00")


def test_a_holiday_is_one_where_the_clocks_of_the_place_show_it():
    office = WorkingHours(time_zone="Pacific/Auckland", holidays={date(2026, 3, 3)})
    # The third of March there, while it still is the second in Greenwich.
    start = datetime(2026, 3, 2, 21, tzinfo=UTC)
    assert office.after(start, HOUR) == datetime(2026, 3, 3, 21, tzinfo=UTC)


@pytest.mark.parametrize(("day", "hours"), [("03-29", 23), ("10-25", 25), ("03-30", 24)])
def test_a_day_on_which_the_clocks_change_is_as_long_as_it_is(day, hours):
    around_the_clock = WorkingHours(
        time_zone="Europe/Berlin", days=range(7), start=time(0), end=time(0)
    )
    start = berlin(day, "00:00")
    assert around_the_clock.between(start, (start + timedelta(days=1))) == hours * HOUR


@pytest.mark.parametrize(
    ("day", "start", "end", "minutes"),
    [
        ("03-29", time(2, 30), time(4), 30),  # 02:30 is not shown: it is 03:30
        ("03-29", time(1), time(2, 30), 90),
        ("03-29", time(2, 30), time(3, 15), 0),
        ("10-25", time(2, 30), time(4), 150),  # 02:30 is shown twice: it is the first one
        ("10-25", time(1), time(2, 30), 90),
    ],
)
def test_a_time_that_is_shown_never_or_twice_is_read_as_before_the_change(day, start, end, minutes):
    night = WorkingHours(time_zone="Europe/Berlin", days=["sun"], start=start, end=end)
    midnight = berlin(day, "00:00")
    assert night.between(midnight, midnight + timedelta(days=1)) == minutes * MINUTE


def test_no_working_time_is_counted_twice_where_the_clocks_skip_the_end_of_a_day():
    # In Nuuk 22:59 on 29 March 2025 was followed by midnight: 23:30 is read as 00:30 of the 30th.
    late = WorkingHours(time_zone="America/Nuuk", days=range(7), start=time(0), end=time(23, 30))
    start = datetime(2025, 3, 29, 2, tzinfo=UTC)
    assert late.between(start, start + timedelta(days=1)) == 24 * HOUR


def test_working_time_that_ends_after_midnight_is_found_from_there():
    late = WorkingHours(time_zone="America/Nuuk", days=["sat"], end=time(23, 30))
    start = datetime(2025, 3, 30, 0, 15, tzinfo=ZoneInfo("America/Nuuk"))
    assert late.after(start, 15 * MINUTE) == start + 15 * MINUTE


@pytest.mark.parametrize(
    ("days", "following"), [(range(7), (2011, 12, 31)), ([3, 4], (2012, 1, 5))]
)
def test_a_day_that_a_country_left_out_has_no_working_time(days, following):
    apia = ZoneInfo("Pacific/Apia")
    office = WorkingHours(time_zone="Pacific/Apia", days=days)
    # Five hours are left on Thursday the 29th; Friday the 30th was left out.
    start = datetime(2011, 12, 29, 12, tzinfo=apia)
    assert office.after(start, 6 * HOUR) == datetime(*following, 10, tzinfo=apia)


def test_the_result_is_in_utc():
    assert BERLIN.after(berlin("03-02", "10:00"), HOUR).tzinfo is UTC
    assert BERLIN.after(berlin("03-02", "10:00"), timedelta(0)).tzinfo is UTC


def test_no_time_at_all_is_where_one_starts_working_or_not():
    sunday = berlin("03-01", "12:00")
    assert BERLIN.after(sunday, timedelta(0)) == sunday


def test_a_working_day_is_the_time_that_is_worked_on_it():
    assert BERLIN.day == 8 * HOUR
    assert WorkingHours(time_zone="UTC", start=time(18), end=time(0)).day == 6 * HOUR
    monday = berlin("03-02", "09:00")
    assert BERLIN.after(monday, 2 * BERLIN.day) == berlin("03-03", "17:00")
    # Two days and nights are six days of eight hours: from one Monday to the next.
    assert BERLIN.after(monday, timedelta(days=2)) == berlin("03-09", "17:00")


def test_from_later_to_earlier_there_is_no_working_time():
    assert BERLIN.between(berlin("03-03", "10:00"), berlin("03-02", "10:00")) == timedelta(0)


@pytest.mark.parametrize("days", [["mon", "WED", " Friday "], ["monday", 2, 4], (0, 2, 4)])
def test_days_have_names_and_numbers(days):
    assert WorkingHours(time_zone="UTC", days=days).days == (0, 2, 4)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"time_zone": "Berlin"}, "is no time zone"),
        ({"time_zone": ""}, "is no time zone"),
        ({"time_zone": "../etc/passwd"}, "is no time zone"),
        ({"days": ["day"]}, "is no day of the week"),
        ({"days": ["mo"]}, "is no day of the week"),
        ({"days": ["monk"]}, "is no day of the week"),
        ({"days": [7]}, "less than or equal to 6"),
        ({"days": []}, "at least 1"),
        ({"start": time(9), "end": time(9)}, "must end after it starts"),
        ({"start": time(22), "end": time(6)}, "must end after it starts"),
        ({"start": time(9, tzinfo=UTC)}, "without a time zone"),
        ({"holiday": ()}, "not permitted"),
    ],
)
def test_hours_that_cannot_be_are_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        WorkingHours(**{"time_zone": "UTC", **wrong})


def test_time_does_not_run_backwards_and_has_a_zone():
    with pytest.raises(ValueError, match="backwards"):
        BERLIN.after(berlin("03-02", "10:00"), -MINUTE)
    naive = datetime(2026, 3, 2)  # noqa: DTZ001
    for count in (
        lambda: BERLIN.after(naive, HOUR),
        lambda: BERLIN.between(naive, berlin("03-02", "10:00")),
        lambda: BERLIN.between(berlin("03-02", "10:00"), naive),
    ):
        with pytest.raises(ValueError, match="no time zone"):
            count()


def test_what_would_be_after_the_end_of_time_is_an_error():
    with pytest.raises(OverflowError):
        BERLIN.after(datetime(9999, 12, 1, tzinfo=UTC), timedelta(days=30))


# --------------------------------------------------------------------------- the slow model

times = st.times().map(lambda t: t.replace(second=0, microsecond=0))
near_changes = st.sampled_from(CHANGES).flatmap(
    lambda around: st.integers(0, 4 * 1440).map(lambda minutes: around + minutes * MINUTE)
)
any_minute = st.datetimes(datetime(2012, 1, 1), datetime(2029, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(second=0, microsecond=0)
)
starts = near_changes | any_minute


@st.composite
def hours(draw):
    start, end = draw(st.tuples(times, times | st.just(time(0))).filter(lambda p: p[0] != p[1]))
    if end != time(0) and end < start:
        start, end = end, start
    return WorkingHours(
        time_zone=draw(st.sampled_from(ZONES)),
        days=sorted(draw(st.sets(st.integers(0, 6), min_size=1))),
        start=start,
        end=end,
    )


@st.composite
def with_holidays(draw, around):
    """Hours with some holidays near an instant."""
    found = draw(hours())
    offsets = draw(st.sets(st.integers(-2, 9), max_size=4))
    holidays = frozenset(around.date() + timedelta(days=n) for n in offsets)
    return found.model_copy(update={"holidays": holidays})


def is_worked(office, minute):
    """Say what a person with a clock and a calendar of the place says."""
    there = minute.astimezone(ZoneInfo(office.time_zone))
    within = office.start <= there.time() and (office.end == time(0) or there.time() < office.end)
    return there.weekday() in office.days and there.date() not in office.holidays and within


def is_plain(office, minute):
    """Tell whether the clocks show the start and the end of work once on that day."""
    zone = ZoneInfo(office.time_zone)
    day = minute.astimezone(zone).date()
    for shown in (office.start, office.end):
        first, second = (datetime.combine(day, shown, zone).replace(fold=n) for n in (0, 1))
        if first.utcoffset() != second.utcoffset():
            return False
    return True


@thorough
@given(st.data())
def test_after_so_many_minutes_of_work_is_what_counting_minutes_comes_to(data):
    start = data.draw(starts)
    office = data.draw(with_holidays(start))
    longest = 2 * (office.day // MINUTE)
    wanted = data.draw(st.integers(1, longest))
    minute, worked = start, 0
    while worked < wanted:
        worked += is_worked(office, minute)
        minute += MINUTE
    assume(all(is_plain(office, start + n * HOUR) for n in range((minute - start) // HOUR + 1)))
    assume(is_plain(office, minute))
    assert office.after(start, wanted * MINUTE) == minute
    assert office.between(start, minute) == wanted * MINUTE


@thorough
@given(st.data())
def test_the_work_between_two_instants_is_what_counting_minutes_comes_to(data):
    start = data.draw(starts)
    office = data.draw(with_holidays(start))
    span = data.draw(st.integers(0, 8 * 1440))
    minutes = [start + n * MINUTE for n in range(span)]
    assume(all(is_plain(office, minute) for minute in [*minutes[::60], start + span * MINUTE]))
    worked = sum(is_worked(office, minute) for minute in minutes)
    assert office.between(start, start + span * MINUTE) == worked * MINUTE


# --------------------------------------------------------------------------- at any instant

instants = starts.flatmap(
    lambda start: st.timedeltas(timedelta(0), timedelta(days=3)).map(lambda more: start + more)
)
durations = st.timedeltas(timedelta(0), timedelta(days=4))


@brief
@given(hours(), instants, durations)
@example(BERLIN, berlin("03-29", "02:30"), 8 * HOUR)
def test_between_takes_back_what_after_has_added(office, start, duration):
    assert office.between(start, office.after(start, duration)) == duration


@brief
@given(hours(), instants, durations, durations)
def test_two_waits_are_one_wait_of_both(office, start, first, second):
    at_once = office.after(start, first + second)
    assert office.after(office.after(start, first), second) == at_once


@brief
@given(hours(), instants, durations)
def test_it_takes_at_least_as_long_as_it_takes(office, start, duration):
    assert office.after(start, duration) - start >= duration


@brief
@given(hours(), instants, durations, st.integers(-14, 14))
def test_the_zone_in_which_an_instant_is_given_changes_nothing(office, start, duration, offset):
    elsewhere = start.astimezone(timezone(timedelta(hours=offset)))
    assert office.after(elsewhere, duration) == office.after(start, duration)


@brief
@given(hours())
def test_hours_survive_json(office):
    assert WorkingHours.model_validate_json(office.model_dump_json()) == office
