"""The outbox and the notifiers that it tells."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import brief
from webhook_server import Reply, WebhookServer

from llama_index_hitl import notifiers as notifiers_module
from llama_index_hitl.errors import (
    Conflict,
    NoticeRefused,
    NotifierError,
    NotifyFailed,
    StoreError,
)
from llama_index_hitl.notifiers import (
    LogNotifier,
    WebhookNotifier,
    backoff,
    deliver,
    new_webhook_secret,
    verify_webhook,
)
from llama_index_hitl.stores.protocol import Commit, Notice, NoticeKind
from llama_index_hitl.testing import ManualClock

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def notice(notice_id="n-1", **changes):
    values = {"kind": NoticeKind.OPENED, "run_id": "run-1", "at": NOW, "due": NOW}
    return Notice(**{"notice_id": notice_id, **values, "payload": {"title": "A"}, **changes})


class Outbox:
    """The part of a store that an outbox needs, in a dict."""

    def __init__(self, *notices):
        self.rows = {n.notice_id: replace(n, revision=1) for n in notices}
        self.failing = None  # called before a commit
        self.after_reading = None  # awaited before the notices are given out

    async def notices(self, now, *, limit=100):
        due = sorted((n for n in self.rows.values() if n.due <= now), key=lambda n: n.due)[:limit]
        if self.after_reading is not None:
            await self.after_reading()
        return due

    async def commit(self, commit):
        if self.failing is not None:
            self.failing(commit)
        for row in commit.notices:
            stored = self.rows.get(row.notice_id)
            if (stored.revision if stored else 0) != row.revision:
                raise Conflict(f"{row.notice_id} is not as it was read.")
        for row in commit.notices:
            self.rows[row.notice_id] = replace(row, revision=row.revision + 1)
        for notice_id in commit.told:
            self.rows.pop(notice_id, None)


class Recorder:
    """Keeps what it was told, and does what it was given, one thing each time, before that."""

    def __init__(self, *todo, name="recorder"):
        self.name = name
        self.told = []
        self.todo = list(todo)

    async def notify(self, notice):
        step = self.todo.pop(0) if self.todo else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            await step()
        self.told.append(notice)

    @property
    def ids(self):
        return [notice.notice_id for notice in self.told]


@pytest.fixture
def clock():
    return ManualClock(NOW)


# --------------------------------------------------------------------------- one notifier


async def test_what_is_due_is_told_and_taken_out(clock):
    later = notice("n-2", due=NOW + timedelta(seconds=1))
    store, told = Outbox(notice(), later), Recorder()
    assert await deliver(store, [told], clock=clock) == 1
    assert told.told == [replace(notice(), due=told.told[0].due, revision=2)]
    assert list(store.rows) == ["n-2"]
    assert await deliver(store, [told], clock=clock) == 0
    clock.advance(seconds=1)
    assert await deliver(store, [told], clock=clock) == 1
    assert (told.ids, store.rows) == (["n-1", "n-2"], {})


async def test_what_failed_is_told_again_after_the_back_off_and_the_log_says_so(clock, caplog):
    store, told = Outbox(notice()), Recorder(NotifyFailed("no"), ValueError("two\nlines"))
    for attempts in (1, 2):
        assert await deliver(store, [told], clock=clock) == 0
        row = store.rows["n-1"]
        assert (row.attempts, row.due) == (attempts, clock() + backoff(attempts))
        clock.advance(backoff(attempts) - timedelta(microseconds=1))
        assert await deliver(store, [told], clock=clock) == 0  # not before its time
        clock.advance(microseconds=1)
    assert told.told == []
    assert await deliver(store, [told], clock=clock) == 1
    assert told.ids == ["n-1"]
    first, second = caplog.messages
    again = (NOW + backoff(1)).isoformat()
    assert first == (
        "recorder could not be told notice 'n-1' (opened, run 'run-1') "
        f"(attempt 1, again at {again}): NotifyFailed: 'no'"
    )
    assert "attempt 2" in second
    assert second.endswith(r"ValueError: 'two\nlines'")


async def test_a_notice_is_never_dropped(clock):
    store, told = Outbox(notice()), Recorder(*[NotifyFailed("no")] * 200)
    for _ in range(200):
        assert await deliver(store, [told], clock=clock) == 0
        clock.advance(days=1)
    assert store.rows["n-1"].attempts == 200
    assert await deliver(store, [told], clock=clock) == 1


async def test_a_receiver_that_asks_for_more_time_gets_it(clock):
    wait = timedelta(hours=3)
    store, told = Outbox(notice()), Recorder(NotifyFailed("busy", retry_after=wait))
    await deliver(store, [told], clock=clock)
    assert store.rows["n-1"].due == NOW + wait


async def test_nobody_can_ask_for_more_than_a_day(clock):
    store, told = Outbox(notice()), Recorder(NotifyFailed("never", retry_after=timedelta.max))
    await deliver(store, [told], clock=clock)
    assert store.rows["n-1"].due == NOW + timedelta(days=1)


async def test_a_receiver_that_asks_for_less_time_than_the_back_off_does_not_get_it(clock):
    told = Recorder(NotifyFailed("busy", retry_after=timedelta()))
    store = Outbox(notice(attempts=3))
    await deliver(store, [told], clock=clock)
    assert store.rows["n-1"].due == NOW + backoff(4)


async def test_what_is_refused_for_good_is_not_told_again(clock, caplog):
    store, told = Outbox(notice()), Recorder(NoticeRefused("gone"))
    assert await deliver(store, [told], clock=clock) == 1
    assert store.rows == {}
    (said,) = caplog.messages
    assert said == (
        "recorder refused notice 'n-1' (opened, run 'run-1') for good: NoticeRefused: 'gone'"
    )


async def test_one_that_takes_too_long_has_failed(clock):
    store, told = Outbox(notice()), Recorder(asyncio.Event().wait)
    assert await deliver(store, [told], clock=clock, patience=timedelta(milliseconds=50)) == 0
    assert store.rows["n-1"].attempts == 1


async def test_nobody_to_tell_leaves_the_notices_for_those_who_have_somebody(clock):
    store = Outbox(notice())
    assert await deliver(store, [], clock=clock) == 0
    assert store.rows == {"n-1": notice(revision=1)}


async def test_no_more_than_the_limit_are_taken_the_longest_overdue_first(clock):
    rows = [notice(f"n-{n}", due=NOW - timedelta(minutes=n)) for n in range(5)]
    store, told = Outbox(*rows), Recorder()
    assert await deliver(store, [told], clock=clock, limit=2) == 2
    assert told.ids == ["n-4", "n-3"]


async def test_one_that_fails_does_not_hold_the_others_up(clock):
    async def fail():
        raise NotifyFailed("no")

    store, told = Outbox(*(notice(f"n-{n}") for n in range(3))), Recorder(None, fail, None)
    assert await deliver(store, [told], clock=clock) == 2
    assert (told.ids, list(store.rows)) == (["n-0", "n-2"], ["n-1"])


# --------------------------------------------------------------------------- several notifiers


async def test_who_was_told_is_not_told_again_for_anothers_sake(clock):
    store = Outbox(notice())
    good, bad = Recorder(name="good"), Recorder(NotifyFailed("1"), ValueError("2"), name="bad")
    for attempts in (1, 2):
        assert await deliver(store, [good, bad], clock=clock) == 0
        clock.advance(backoff(attempts))
    assert await deliver(store, [bad, good], clock=clock) == 1
    assert (good.ids, bad.ids, store.rows) == (["n-1"], ["n-1"], {})
    assert bad.told[0].payload == {"title": "A"}


async def test_both_may_fail_and_recover_one_after_the_other(clock):
    store = Outbox(notice())
    one = Recorder(NotifyFailed("1"), name="one")
    two = Recorder(NotifyFailed("1"), NotifyFailed("2"), name="two")
    for attempts, told in enumerate([([], []), (["n-1"], []), (["n-1"], ["n-1"])], 1):
        await deliver(store, [one, two], clock=clock)
        assert (one.ids, two.ids) == told
        clock.advance(backoff(attempts))
    assert store.rows == {}


async def test_who_refused_for_good_is_not_asked_again_for_anothers_sake(clock):
    store = Outbox(notice())
    gone = Recorder(NoticeRefused("gone"), name="gone")
    bad = Recorder(NotifyFailed("1"), name="bad")
    await deliver(store, [gone, bad], clock=clock)
    clock.advance(backoff(1))
    assert await deliver(store, [gone, bad], clock=clock) == 1
    assert (gone.ids, bad.ids) == ([], ["n-1"])


async def test_a_notifier_that_is_new_is_told_what_still_waits(clock):
    store = Outbox(notice())
    good, bad, new = Recorder(name="good"), Recorder(NotifyFailed("1"), name="bad"), Recorder()
    await deliver(store, [good, bad], clock=clock)
    clock.advance(backoff(1))
    assert await deliver(store, [good, new], clock=clock) == 1
    assert (good.ids, new.ids) == (["n-1"], ["n-1"])


async def test_two_notifiers_of_one_name_are_refused_before_anybody_is_told(clock):
    store, one, other = Outbox(notice()), Recorder(), Recorder()
    with pytest.raises(NotifierError, match="Several notifiers are called 'recorder'"):
        await deliver(store, [one, other], clock=clock)
    assert (one.told, other.told, store.rows["n-1"].revision) == ([], [], 1)


# --------------------------------------------------------------------------- several processes


async def test_of_two_that_find_the_same_notice_one_tells_it(clock):
    store = Outbox(*(notice(f"n-{n}") for n in range(5)))
    both_have_read = asyncio.Barrier(2)
    store.after_reading = both_have_read.wait
    one, other = Recorder(), Recorder()
    told = await asyncio.gather(
        deliver(store, [one], clock=clock), deliver(store, [other], clock=clock)
    )
    assert sum(told) == 5
    assert sorted(one.ids + other.ids) == [f"n-{n}" for n in range(5)]


async def test_while_one_tells_a_notice_another_does_not_find_it(clock):
    store, other = Outbox(notice()), Recorder()
    seen = []

    async def meanwhile():
        clock.advance(minutes=1)  # what one notifier may take
        seen.append(await deliver(store, [other], clock=clock))

    slow = Recorder(meanwhile)
    assert await deliver(store, [slow], clock=clock) == 1
    assert (slow.ids, other.ids, seen) == (["n-1"], [], [0])


async def test_what_was_told_and_could_not_be_taken_out_is_told_again(clock):
    store, told = Outbox(notice()), Recorder()

    def fail(commit):
        if commit.told:
            raise StoreError("no disk")

    store.failing = fail
    with pytest.raises(StoreError, match="no disk"):
        await deliver(store, [told], clock=clock)
    store.failing = None
    clock.advance(minutes=2)
    assert await deliver(store, [told], clock=clock) == 1
    assert told.ids == ["n-1", "n-1"]


async def test_who_took_longer_than_the_claim_leaves_the_notice_to_the_other(clock):
    store = Outbox(notice())

    async def overtaken():
        clock.advance(minutes=5)
        assert await deliver(store, [Recorder(NotifyFailed("other"))], clock=clock) == 0
        raise NotifyFailed("mine")

    assert await deliver(store, [Recorder(overtaken)], clock=clock) == 0
    row = store.rows["n-1"]
    assert (row.attempts, row.due) == (1, clock() + backoff(1))


async def test_what_a_process_had_claimed_when_it_ended_is_told_when_the_claim_ends(clock):
    store, begun, told = Outbox(notice()), asyncio.Event(), Recorder()

    async def forever():
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(deliver(store, [Recorder(forever)], clock=clock))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.rows["n-1"].attempts == 0
    clock.advance(timedelta(minutes=2) - timedelta(microseconds=1))
    assert await deliver(store, [told], clock=clock) == 0
    clock.advance(microseconds=1)
    assert await deliver(store, [told], clock=clock) == 1
    assert told.ids == ["n-1"]


@brief
@given(st.lists(st.lists(st.booleans(), max_size=4), min_size=1, max_size=4), st.integers(1, 5))
def test_every_notifier_is_told_everything_in_the_end_and_once_if_nobody_dies(plans, notices):
    async def run():
        clock = ManualClock(NOW)
        store = Outbox(*(notice(f"n-{n}") for n in range(notices)))
        tellers = [
            Recorder(*(NotifyFailed("no") if fails else None for fails in plan), name=str(place))
            for place, plan in enumerate(plans)
        ]
        rounds = 0
        while store.rows:
            await deliver(store, tellers, clock=clock)
            clock.advance(days=1)
            rounds += 1
        assert rounds <= 1 + max(sum(plan) for plan in plans)
        for teller in tellers:
            assert sorted(teller.ids) == [f"n-{n}" for n in range(notices)]

    asyncio.run(run())


# --------------------------------------------------------------------------- back-off


def test_the_back_off_grows_fourfold_up_to_a_day():
    seconds = [backoff(attempts).total_seconds() for attempts in range(1, 11)]
    assert seconds == [5, 20, 80, 320, 1_280, 5_120, 20_480, 81_920, 86_400, 86_400]
    assert backoff(10**9) == timedelta(days=1)


# --------------------------------------------------------------------------- the log


async def test_a_notice_is_one_line_of_the_log(caplog):
    caplog.set_level(logging.INFO)
    await LogNotifier().notify(notice(request_id="gate-1", payload={"secret": "hunter2"}))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("llama_index_hitl.notices", logging.INFO)
    assert record.getMessage() == (
        'hitl.opened notice_id="n-1" run_id="run-1" request_id="gate-1" '
        'at="2026-01-01T12:00:00+00:00"'
    )


async def test_a_notice_about_a_run_says_that_no_request_is_meant(caplog):
    caplog.set_level(logging.INFO)
    await LogNotifier().notify(notice(kind=NoticeKind.FINISHED))
    assert 'hitl.finished notice_id="n-1" run_id="run-1" request_id=null' in caplog.text


@pytest.mark.parametrize(
    "hostile",
    ['a"\nhitl.finished notice_id="x"', "a\r\n", "\u2028", "\x85", "\x1b[2J", "%s %d", "ß"],
)
async def test_nothing_in_an_id_can_forge_a_line(caplog, hostile):
    caplog.set_level(logging.INFO)
    await LogNotifier().notify(notice(hostile, request_id=hostile, run_id=hostile))
    (message,) = caplog.messages
    assert len(message.splitlines()) == 1
    assert message.isascii()
    assert message.isprintable()
    assert message.count(" at=") == 1


async def test_the_logger_the_level_and_the_name_may_be_chosen(caplog):
    mine = logging.getLogger("mine")
    notifier = LogNotifier(mine, level=logging.WARNING, name="audit log")
    await notifier.notify(notice())
    assert notifier.name == "audit log"
    assert [(r.name, r.levelname) for r in caplog.records] == [("mine", "WARNING")]


# --------------------------------------------------------------------------- both together


async def test_a_webhook_that_fails_is_sent_again_by_the_outbox_with_the_same_id(clock):
    secret = new_webhook_secret()
    store = Outbox(notice(payload={"title": "Prüfung"}))
    with WebhookServer(Reply(500), Reply(503, {"Retry-After": "60"}), Reply(200)) as server:
        notifier = WebhookNotifier(server.url, secret, clock=clock)
        assert await deliver(store, [notifier], clock=clock) == 0
        clock.advance(backoff(1))
        assert await deliver(store, [notifier], clock=clock) == 0
        assert store.rows["n-1"].due == clock() + timedelta(seconds=60)
        clock.advance(seconds=60)
        assert await deliver(store, [notifier], clock=clock) == 1
    assert [got.headers["webhook-id"] for got in server.received] == ["n-1"] * 3
    assert len({got.body for got in server.received}) == 1
    last = server.received[-1]
    message = verify_webhook(last.body, last.headers, secret, now=clock())
    assert message["data"]["payload"] == {"title": "Prüfung"}


async def test_a_webhook_that_is_gone_is_given_up(clock):
    store = Outbox(notice())
    with WebhookServer(Reply(410)) as server:
        notifier = WebhookNotifier(server.url, new_webhook_secret(), clock=clock)
        assert await deliver(store, [notifier, LogNotifier()], clock=clock) == 1
    assert store.rows == {}


async def test_a_server_that_is_silent_costs_one_time_limit_for_all_notices_together(clock):
    silent = Reply(200, silent_before="status")
    store, told = Outbox(*(notice(f"n-{n}") for n in range(20))), Recorder()
    with WebhookServer(*[silent] * 20) as server:
        notifier = WebhookNotifier(
            server.url, new_webhook_secret(), clock=clock, timeout=timedelta(seconds=1)
        )
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert await deliver(store, [notifier, told], clock=clock) == 0
        assert loop.time() - begun < 10  # one after the other: 20
    assert len(told.ids) == len(store.rows) == 20


def test_the_public_names_are_sorted_and_documented():
    assert notifiers_module.__all__ == sorted(notifiers_module.__all__)
    for name in notifiers_module.__all__:
        assert getattr(notifiers_module, name).__doc__, name
        assert f"`{name}`" in notifiers_module.__doc__


def test_the_outbox_of_this_test_refuses_what_is_not_as_it_was_read():
    async def run():
        store = Outbox(notice())
        await store.commit(Commit(notices=(notice(revision=1),)))
        with pytest.raises(Conflict):
            await store.commit(Commit(notices=(notice(revision=1),)))
        with suppress(Conflict):
            await store.commit(Commit(notices=(notice(),)))
        assert store.rows["n-1"].revision == 2

    asyncio.run(run())
