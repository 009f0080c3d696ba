"""The audit trail: what was written stays as it was, or it shows."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import brief, identifiers, instants, json_objects, texts, thorough

from llama_index_hitl.audit import (
    AuditEntry,
    AuditKind,
    AuditRow,
    AuditSeal,
    chained,
    export,
    read,
    seal_of,
    verify,
)
from llama_index_hitl.errors import AuditUnreadable

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)


def trail_of(entries):
    rows = []
    for entry in entries:
        rows.append(chained(rows[-1] if rows else None, entry))
    return rows


def example(run_id="run-1", length=5):
    """Rows whose kinds and requests tell them apart."""
    kinds = list(AuditKind)
    return trail_of(
        AuditEntry(
            kind=kinds[place % len(kinds)],
            run_id=run_id,
            at=T0 + timedelta(minutes=place),
            request_id=f"gate-{place}",
        )
        for place in range(1, length + 1)
    )


def name_of(row):
    return f"row {row.number} ({row.entry.kind.value}, request {row.entry.request_id!r})"


def retold(row, **changes):
    """The row with another content and the same hash."""
    return row.model_copy(update={"entry": row.entry.model_copy(update=changes)})


def forged(row, **changes):
    """The row with another content and the hash that fits it."""
    changed = retold(row, **changes)
    return changed.model_copy(update={"hash": changed.actual_hash()})


@st.composite
def entries(draw):
    return AuditEntry(
        kind=draw(st.sampled_from(AuditKind)),
        run_id="run-1",
        at=draw(instants),
        request_id=draw(st.none() | identifiers),
        actor=draw(st.none() | identifiers),
        role=draw(st.none() | identifiers),
        channel=draw(st.none() | identifiers),
        digest=draw(st.none() | identifiers),
        reason=draw(texts),
        details=draw(json_objects),
    )


def rich_trails(min_size=1):
    return st.lists(entries(), min_size=min_size, max_size=4).map(trail_of)


plain_entries = st.builds(
    AuditEntry,
    kind=st.sampled_from(AuditKind),
    run_id=st.just("run-1"),
    at=st.just(T0),
    request_id=st.none() | st.sampled_from(["gate-1", "gate-2"]),
)


def trails(min_size=1):
    return st.lists(plain_entries, min_size=min_size, max_size=8).map(trail_of)


# --------------------------------------------------------------------------- whole trails


@brief
@given(rich_trails())
def test_nothing_is_wrong_with_a_trail_that_nobody_touched(rows):
    assert verify(rows) == ()
    assert verify(rows, run_id="run-1", seal=seal_of(rows)) == ()


@brief
@given(rich_trails())
def test_an_exported_trail_reads_back_the_same_and_verifies(rows):
    lines = list(export(rows))
    assert all(line.endswith("\n") and line.isascii() and "\n" not in line[:-1] for line in lines)
    back = read(lines)
    assert back == rows
    assert verify(back, seal=seal_of(rows)) == ()
    assert list(export(back)) == lines


def test_an_export_is_one_row_a_line_with_sorted_keys():
    (line, *_) = export(example())
    assert line.startswith('{"entry":{"actor":null,"at":"2026-01-01T12:01:00Z","channel":null,')
    assert list(json.loads(line)) == ["entry", "hash", "number", "previous"]


def test_an_export_goes_through_a_file(tmp_path):
    path = tmp_path / "trail.jsonl"
    rows = trail_of([AuditEntry(kind="started", run_id="r", at=T0, reason="a\u2028b\r\nc\x85d")])
    with path.open("w", encoding="utf-8") as file:
        file.writelines(export(rows))
    with path.open(encoding="utf-8") as file:
        assert read(file) == rows


@brief
@given(entries(), st.integers(-14 * 60, 14 * 60))
def test_the_time_zone_in_which_a_store_gives_a_row_back_does_not_matter(entry, minutes):
    row = chained(None, entry)
    elsewhere = row.entry.at.astimezone(timezone(timedelta(minutes=minutes)))
    stored = row.model_dump(mode="json")
    stored["entry"]["at"] = elsewhere.isoformat()
    assert verify([AuditRow.model_validate(stored)]) == ()
    assert chained(None, AuditEntry.model_validate({**dict(entry), "at": elsewhere})) == row


def test_an_instant_that_utc_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="out of range in UTC"):
        AuditEntry(kind="started", run_id="r", at="0001-01-01T00:00:00+14:00")


def test_the_hash_of_a_row_does_not_change_between_releases():
    (row,) = example(length=1)
    assert row.hash == "f213212b1b790c1973371e3f63176e33bcc929f515c86c41cd9d195dc04a5fce"


# --------------------------------------------------------------------------- what was done to it

other_words = {
    "kind": st.sampled_from(AuditKind),
    "at": instants.map(lambda at: at.astimezone(UTC)),
    "request_id": st.none() | identifiers,
    "actor": st.none() | identifiers,
    "role": st.none() | identifiers,
    "channel": st.none() | identifiers,
    "digest": st.none() | identifiers,
    "reason": texts,
    "details": json_objects,
}


@st.composite
def changes(draw, rows):
    """A row and other content for it."""
    row = draw(st.sampled_from(rows))
    field = draw(st.sampled_from(sorted(other_words)))
    value = draw(other_words[field].filter(lambda new: not same(new, getattr(row.entry, field))))
    return row, {field: value}


def same(one, other):
    """Tell whether both are the same JSON; by == alone True is 1."""
    return json.dumps(one, default=str, sort_keys=True) == json.dumps(
        other, default=str, sort_keys=True
    )


@brief
@given(st.data(), rich_trails())
def test_a_changed_row_is_found_and_named(data, rows):
    row, change = data.draw(changes(rows))
    touched = retold(row, **change)
    rows[row.number - 1] = touched
    (problem,) = verify(rows)
    assert problem == f"{touched} was changed: it does not fit its hash"


@brief
@given(st.data(), rich_trails(min_size=2))
def test_a_changed_row_with_a_new_hash_is_found_by_the_row_behind_it(data, rows):
    row, change = data.draw(changes(rows[:-1]))
    touched = forged(row, **change)
    rows[row.number - 1] = touched
    (problem,) = verify(rows)
    assert problem == (
        f"{touched} and {rows[row.number]} do not fit together: one of them was replaced"
    )


@thorough
@given(st.data(), trails())
def test_a_changed_hash_is_found_and_only_that_row_is_named(data, rows):
    row = data.draw(st.sampled_from(rows))
    rows[row.number - 1] = row.model_copy(update={"hash": data.draw(identifiers)})
    assert verify(rows) == (f"{row} was changed: it does not fit its hash",)


@thorough
@given(st.data(), trails(min_size=2))
def test_a_removed_row_is_found_and_numbered(data, rows):
    row = data.draw(st.sampled_from(rows[:-1]))
    rows.remove(row)
    assert verify(rows) == (f"row {row.number} is missing before {rows[row.number - 1]}",)


@thorough
@given(st.data(), trails(min_size=2))
def test_two_rows_that_changed_places_are_both_named_and_no_other(data, rows):
    first, second = sorted(data.draw(st.sets(st.sampled_from(range(len(rows))), min_size=2)))[:2]
    one, other = rows[first], rows[second]
    rows[first], rows[second] = other, one
    assert set(verify(rows)) == {
        f"{one} stands where row {other.number} belongs",
        f"{other} stands where row {one.number} belongs",
    }


@thorough
@given(st.data(), trails())
def test_a_doubled_row_is_found_and_named(data, rows):
    row = data.draw(st.sampled_from(rows))
    rows.insert(data.draw(st.integers(row.number, len(rows))), row)
    assert verify(rows) == (f"there are 2 rows with the number {row.number}: {row} and {row}",)


@thorough
@given(st.data(), trails(), plain_entries)
def test_a_row_that_was_put_in_is_found_and_named(data, rows, entry):
    place = data.draw(st.integers(0, len(rows) - 1))
    intruder = chained(rows[place - 1] if place else None, entry)
    rows.insert(place, intruder)
    problems = verify(rows)
    assert f"there are 2 rows with the number {place + 1}: {intruder} and {rows[place + 1]}" in (
        problems
    )


@thorough
@given(st.data(), trails(), plain_entries)
def test_a_row_of_another_run_is_found_and_named(data, rows, entry):
    stranger = chained(None, entry.model_copy(update={"run_id": "run-2"}))
    rows.insert(data.draw(st.integers(0, len(rows))), stranger)
    assert verify(rows, run_id="run-1") == (f"{stranger} belongs to run 'run-2'",)


def test_the_run_is_that_of_most_rows_where_it_is_not_said():
    rows = [*example("run-2", 1), *example("run-1", 3)]
    assert verify(rows) == (f"{name_of(rows[0])} belongs to run 'run-2'",)


def test_a_row_that_was_moved_to_another_run_is_missing_in_its_own():
    rows = example()
    rows[2] = moved = forged(rows[2], run_id="run-2")
    assert verify(rows) == (
        f"{name_of(moved)} belongs to run 'run-2'",
        f"row 3 is missing before {name_of(rows[3])}",
    )


def test_several_rows_that_are_missing_are_named_together():
    rows = example()
    assert verify([rows[0], rows[4]]) == (f"rows 2 to 4 are missing before {name_of(rows[4])}",)


def test_a_removal_that_was_covered_up_with_new_numbers_is_found():
    rows = example()
    renumbered = [row.model_copy(update={"number": row.number - 1}) for row in rows[2:]]
    renumbered = [row.model_copy(update={"hash": row.actual_hash()}) for row in renumbered]
    problems = verify([rows[0], *renumbered])
    assert f"{name_of(rows[0])} and {name_of(renumbered[0])} do not fit together" in problems[0]


def test_a_trail_whose_beginning_was_cut_off_and_renumbered_is_found():
    rows = example()
    first = rows[1].model_copy(update={"number": 1})
    first = first.model_copy(update={"hash": first.actual_hash()})
    assert verify([first]) == (f"{name_of(first)} says that another one stood before it",)


def test_a_huge_number_is_a_gap_like_any_other():
    (row,) = example(length=1)
    far = row.model_copy(update={"number": 10**30})
    assert verify([far])[-1] == f"rows 1 to {10**30 - 1} are missing before {name_of(far)}"


def test_a_trail_without_rows_is_not_whole():
    assert verify([]) == ("there is no row",)
    assert verify([], run_id="run-1") == ("there is no row of run 'run-1'",)


def test_everything_that_was_done_is_told_at_once():
    rows = example()
    rows[0], rows[4] = retold(rows[0], actor="mallory"), rows[3]
    (stranger,) = example("run-2", 1)
    assert verify([*rows, stranger]) == (
        f"{name_of(rows[0])} was changed: it does not fit its hash",
        f"{name_of(stranger)} belongs to run 'run-2'",
        f"there are 2 rows with the number 4: {name_of(rows[3])} and {name_of(rows[3])}",
    )


# --------------------------------------------------------------------------- seals


def test_there_is_nothing_to_seal_in_a_trail_without_rows():
    assert seal_of([]) is None


def test_a_seal_says_the_run_and_its_last_row():
    rows = example()
    seal = seal_of(rows)
    assert seal == AuditSeal(run_id="run-1", number=5, hash=rows[4].hash)
    assert AuditSeal.model_validate_json(seal.model_dump_json()) == seal


@brief
@given(st.data(), trails(min_size=2))
def test_rows_that_are_missing_at_the_end_show_against_a_seal_only(data, rows):
    left = data.draw(st.integers(1, len(rows) - 1))
    assert verify(rows[:left]) == ()
    (problem,) = verify(rows[:left], seal=seal_of(rows))
    assert (
        problem == f"the rows after row {left} are missing: the trail was sealed at row {len(rows)}"
    )


def test_a_trail_without_rows_shows_against_a_seal():
    assert verify([], seal=seal_of(example())) == (
        "there is no row of run 'run-1'",
        "the rows after row 0 are missing: the trail was sealed at row 5",
    )


@brief
@given(st.data(), rich_trails())
def test_a_trail_that_was_made_anew_shows_against_a_seal_only(data, rows):
    row, change = data.draw(changes(rows))
    told = [r.entry for r in rows]
    told[row.number - 1] = retold(row, **change).entry
    anew = trail_of(told)
    assert verify(anew) == ()
    (problem,) = verify(anew, seal=seal_of(rows))
    assert problem.startswith(f"{anew[-1]} is not the one that was sealed")


@brief
@given(trails(), st.lists(plain_entries, max_size=3))
def test_a_trail_may_grow_after_it_was_sealed(rows, more):
    grown = trail_of([*(row.entry for row in rows), *more])
    assert verify(grown, seal=seal_of(rows)) == ()


# --------------------------------------------------------------------------- hostile lines

LINE = next(iter(export(example(length=1))))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (LINE[:40], "Unterminated string|Expecting"),
        ("not JSON", "Expecting value"),
        ("[]", "AuditRow"),
        ("null", "AuditRow"),
        (LINE.replace('"opened"', '"ajar"'), "entry.kind: Input should be 'started'"),
        (LINE.replace('"number":1', '"number":0'), "number: Input should be greater"),
        (LINE.replace('"number":1', '"number":1' + "0" * 9_999), "digits"),
        (LINE.replace('"number":1', '"number":1e999'), "number: "),
        (LINE.replace('"number":1', '"number":1,"number":1'), "a key stands there twice"),
        (LINE.replace('"number":1', '"number":1,"more":2'), "more: Extra inputs"),
        (LINE.replace('"reason":""', f'"reason":"{"x" * 1_000_001}"'), "entry.reason: String"),
        (LINE.replace('"reason":""', '"reason":"\\ud800"'), "entry.reason: "),
        (LINE.replace('"details":{}', '"details":{"n":NaN}'), "entry.details: "),
        (LINE.replace('"details":{}', f'"details":{{"n":{"[" * 9_999}'), "nested too deeply"),
        (LINE.replace("2026-01-01T12:01:00Z", "0001-01-01T00:00:00+14:00"), "out of range in UTC"),
        (LINE.replace("2026-01-01T12:01:00Z", "2026-01-01T12:01:00"), "entry.at: "),
    ],
    ids=range(16),
)
def test_a_line_that_is_no_row_is_refused_with_its_number(line, reason):
    assert line != LINE
    with pytest.raises(AuditUnreadable, match=reason) as caught:
        read([LINE, "\n", line])
    assert caught.value.line == 3
    assert str(caught.value).startswith("Line 3 of the audit trail cannot be read: ")
    assert len(str(caught.value)) < 1_000


@thorough
@given(st.data())
def test_a_line_that_was_cut_anywhere_is_refused(data):
    cut = data.draw(st.integers(1, len(LINE) - 2))
    with pytest.raises(AuditUnreadable):
        read([LINE[:cut]])


@brief
@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_no_line_at_all_raises_anything_else(line):
    with suppress(AuditUnreadable):
        read([line])


def test_deep_details_that_can_be_written_can_be_read():
    deep = {}
    for _ in range(250):
        deep = {"in": deep}
    rows = trail_of([AuditEntry(kind="started", run_id="r", at=T0, details=deep)])
    assert read(export(rows)) == rows


def test_what_was_read_from_a_touched_export_is_found():
    lines = list(export(example()))
    lines[2] = lines[2].replace("gate-3", "gate-9")
    (problem,) = verify(read(lines))
    assert problem == "row 3 (refused, request 'gate-9') was changed: it does not fit its hash"
