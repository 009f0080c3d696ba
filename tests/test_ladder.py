"""What happens as time passes: on paper, and at a gate; and questions that are taken back."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import date, timedelta
from typing import Any

import pytest
from flows import (
    Draft,
    LegalApproved,
    Live,
    SetClock,
    asked,
    codes,
    drafts,
    made,
    of_kind,
    person,
    statuses,
    transfers,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies import T0, brief, requests, thorough
from workflows import Context, Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import (
    Abstain,
    Answer,
    AnswerRefused,
    Approve,
    Approved,
    Delegate,
    Edit,
    Escalate,
    Expire,
    Expired,
    Reject,
    Rejected,
    Remind,
    RequestStatus,
    Review,
    ReviewDeadlineEvent,
    Reviewer,
    ReviewRefusedEvent,
    ReviewRequest,
    ReviewRequestEvent,
    ReviewUpdatedEvent,
    ReviewWithdrawEvent,
    Revise,
    Revision,
    Rung,
    Widen,
    WorkingHours,
)
from llama_index_hitl.errors import InvalidTransition, NotAllowed, RequestExpired
from llama_index_hitl.lifecycle import (
    next_due,
    open_record,
    pass_time,
    take_answer,
    widest_policy,
    withdraw,
)
from llama_index_hitl.models import (
    DecisionKind,
    ReviewPolicy,
    Subject,
    closing_rung,
)
from llama_index_hitl.policies import tally

Start = Callable[..., Live]
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
OPEN = RequestStatus.OPEN


def rungs(actions, start=T0):
    """Return a ladder of actions at so many hours after the question."""
    return tuple(Rung(at=start + n * HOUR, action=action) for n, action in actions.items())


def question(actions, *, policy=None, **fields):
    """Return the record of a request with a ladder that has just been asked."""
    ladder = rungs(actions)
    closing = closing_rung(ladder)
    policy = policy or ReviewPolicy(reviewers=("ann",))
    timed = {} if closing is None else {"on_deadline": closing.action}
    return open_record(
        ReviewRequest(
            request_id="r",
            title="Pay?",
            subject=Subject(type="Invoice", data={"amount": 5}),
            created_at=T0,
            ladder=ladder,
            policy=policy.model_copy(update={"deadline": closing and closing.at}),
            **{"allowed": tuple(k for k in DecisionKind if k != "respond"), **timed, **fields},
            escalate_to=("role:chief",),
        )
    )


def take(record, who, decision, *, hours=0.0, roles=()):
    by, at = Reviewer(id=who, roles=roles), T0 + hours * HOUR
    return take_answer(record, Answer.to(record.request, decision, by=by, at=at))


def at_hour(record, hours):
    return pass_time(record, T0 + hours * HOUR)[0]


FULL = {4: Remind(), 24: Widen("role:legal"), 48: Escalate("role:chief"), 96: Expire()}


# --------------------------------------------------------------------------- what a ladder can be


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ({0: Remind()}, "must follow the question"),
        ({-1: Remind()}, "must follow the question"),
        ({2: Remind(), 1: Expire()}, "must follow the question and each other"),
        ({1: Expire(), 2: Remind()}, "nothing can come behind"),
        ({1: Reject(), 2: Expire()}, "nothing can come behind"),
        ({1: Escalate("x"), 2: Expire(), 3: Remind()}, "nothing can come behind"),
    ],
)
def test_a_ladder_that_cannot_be_climbed_is_refused(actions, words):
    with pytest.raises(ValidationError, match=words):
        question(actions)


def test_two_rungs_at_one_instant_are_refused():
    twice = (Rung(at=T0 + HOUR, action=Remind()), Rung(at=T0 + HOUR, action=Remind()))
    with pytest.raises(ValidationError, match="each other in time"):
        ReviewRequest(request_id="r", title="?", created_at=T0, ladder=twice)


@pytest.mark.parametrize("action", [Approve(), {"kind": "approve"}, {"kind": "yes"}, "expire"])
def test_silence_is_never_consent(action):
    with pytest.raises(ValidationError):
        Rung(at=T0, action=action)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"policy": ReviewPolicy(deadline=T0 + HOUR)},
        {"policy": ReviewPolicy(deadline=T0 + 2 * HOUR), "on_deadline": Expire()},
        {"on_deadline": Reject()},
    ],
)
def test_a_ladder_and_a_deadline_that_disagree_are_refused(said):
    ladder = rungs({1: Remind(), 2: Reject()})
    with pytest.raises(ValidationError, match="must be those of the ladder's first rung"):
        ReviewRequest(request_id="r", title="?", created_at=T0, ladder=ladder, **said)


def test_a_deadline_beside_a_ladder_that_closes_nothing_is_refused():
    with pytest.raises(ValidationError, match=r"first rung that closes .*there is none"):
        ReviewRequest(
            request_id="r",
            title="?",
            created_at=T0,
            ladder=rungs({1: Remind()}),
            policy=ReviewPolicy(deadline=T0 + 2 * HOUR),
        )


@pytest.mark.parametrize("actions", [{1: Escalate()}, {1: Escalate("x"), 2: Escalate()}])
def test_somebody_must_be_there_to_escalate_to(actions):
    ladder = rungs(actions)
    with pytest.raises(ValidationError, match="needs somebody to escalate to"):
        ReviewRequest(
            request_id="r",
            title="?",
            created_at=T0,
            ladder=ladder,
            policy=ReviewPolicy(deadline=ladder[0].at),
            on_deadline=ladder[0].action,
        )


def test_nobody_is_added_where_all_must_approve():
    everyone = ReviewPolicy(reviewers=("ann", "bob"), approvals="all")
    with pytest.raises(ValidationError, match="approvals='all' cannot go with"):
        question({1: Widen("cid"), 2: Expire()}, policy=everyone)
    # Behind an escalation one approval is enough.
    assert question({1: Escalate("x"), 2: Widen("cid")}, policy=everyone).status is OPEN


@pytest.mark.parametrize("to", [(), "", [" "]])
def test_a_rung_that_widens_names_somebody(to):
    with pytest.raises(ValidationError):
        Widen(to)


def test_a_rung_that_widens_takes_one_entry_or_several_by_position():
    assert Widen("role:legal") == Widen(["role:legal"]) == Widen(to=("role:legal",))


@pytest.mark.parametrize("action", [Expire(), Reject(comment="silence"), Escalate()])
def test_a_deadline_without_a_ladder_is_a_ladder_of_one(action):
    due = T0 + HOUR
    bare = ReviewRequest(
        request_id="r",
        title="Pay?",
        created_at=T0,
        policy=ReviewPolicy(deadline=due),
        on_deadline=action,
        escalate_to=("role:chief",),
    )
    assert bare.rungs == (Rung(at=due, action=action),)
    record = open_record(bare)
    assert next_due(record) == due
    assert pass_time(record, due)[0].status is not OPEN


def test_a_request_without_a_deadline_has_no_rungs():
    record = question({})
    assert (record.request.rungs, next_due(record)) == ((), None)
    assert pass_time(record, T0 + 999 * DAY) == (record, ())


# --------------------------------------------------------------------------- passing time


def test_nothing_happens_before_its_time():
    record = question(FULL)
    same, passed = pass_time(record, T0 + 4 * HOUR - MICROSECOND)
    assert same is record
    assert passed == ()
    assert next_due(record) == T0 + 4 * HOUR


def test_a_reminder_changes_nothing_but_is_counted():
    record, passed = pass_time(question(FULL), T0 + 4 * HOUR)
    assert [rung.action for rung in passed] == [Remind()]
    assert record == question(FULL).model_copy(update={"rungs_passed": 1})
    assert next_due(record) == T0 + 24 * HOUR


def test_widening_asks_more_people_and_those_before_still_may_answer():
    record = at_hour(question(FULL), 24)
    assert record.policy.reviewers == ("ann", "role:legal")
    assert record.request.policy.reviewers == ("ann",)
    assert take(record, "eve", Approve(), hours=25, roles=("legal",)).status is not OPEN
    assert take(record, "ann", Approve(), hours=25).status is not OPEN


@pytest.mark.parametrize(
    ("before", "to", "after"),
    [
        (("ann",), ("ann",), ("ann",)),
        (("ann",), ("bob", "ann", "bob"), ("ann", "bob")),
        (("role:legal", "ann"), ("role:legal", "role:tech"), ("role:legal", "ann", "role:tech")),
        ((), ("bob",), ()),
    ],
)
def test_nobody_is_named_twice_and_where_anyone_may_answer_nobody_is(before, to, after):
    record = question({1: Widen(to)}, policy=ReviewPolicy(reviewers=before))
    assert at_hour(record, 1).policy.reviewers == after


def test_who_is_barred_stays_so_however_many_are_asked():
    policy = ReviewPolicy(reviewers=("ann",), barred={"bob": "wrote it"})
    record = at_hour(question({1: Widen("bob")}, policy=policy), 1)
    with pytest.raises(NotAllowed, match="wrote it"):
        take(record, "bob", Approve(), hours=2)


def test_who_has_delegated_has_no_vote_when_more_are_asked():
    record = take(question({1: Widen(["ann", "zoe"])}), "ann", Delegate(to="zoe"))
    record = at_hour(record, 1)
    with pytest.raises(NotAllowed, match="delegated to zoe"):
        take(record, "ann", Approve(), hours=2)
    assert take(record, "zoe", Approve(), hours=2).status is RequestStatus.APPROVED


@pytest.mark.parametrize(
    ("action", "status"),
    [
        (Escalate("role:chief"), RequestStatus.ESCALATED),
        (Reject(comment="silence"), RequestStatus.REJECTED),
    ],
)
def test_time_decides_at_the_instant_of_the_rung_however_late_it_is_noticed(action, status):
    record = at_hour(question({1: Remind(), 2: action}), 999)
    assert (record.status, record.closed_at, record.rungs_passed) == (status, T0 + 2 * HOUR, 2)
    (answer,) = record.answers
    assert (answer.by, answer.channel) == (Reviewer(id="rule:deadline", kind="rule"), "rule")
    assert (answer.decision, answer.at) == (action, T0 + 2 * HOUR)
    assert record.outcome.decided_by == ("rule:deadline",)


def test_expired_is_not_rejected():
    record = at_hour(question({2: Expire()}), 3)
    assert (record.status, record.answers) == (RequestStatus.EXPIRED, ())
    assert record.closed_at == T0 + 2 * HOUR


def test_after_days_of_downtime_rungs_are_passed_in_order_up_to_the_one_that_closes():
    record, passed = pass_time(question(FULL), T0 + 999 * DAY)
    assert passed == record.request.ladder[:3]
    assert record.status is RequestStatus.ESCALATED
    assert record.policy.reviewers == ("ann", "role:legal")
    assert next_due(record) is None


def test_nothing_more_happens_to_a_closed_request():
    record = take(question(FULL), "ann", Approve())
    assert next_due(record) is None
    assert pass_time(record, T0 + 999 * DAY) == (record, ())


# --------------------------------------------------------------------------- time and answers


def test_an_answer_counts_for_whoever_is_asked_by_then_though_nobody_kept_the_time():
    record = take(question(FULL), "eve", Approve(), hours=24, roles=("legal",))
    assert record.status is RequestStatus.APPROVED
    assert record.rungs_passed == 2
    with pytest.raises(NotAllowed):
        take(question(FULL), "eve", Approve(), hours=23.9, roles=("legal",))


def test_a_vote_that_leaves_it_open_has_passed_what_was_due():
    policy = ReviewPolicy(reviewers=("ann", "bob"), approvals=2)
    record = take(question(FULL, policy=policy), "ann", Approve(), hours=5)
    assert (record.status, record.rungs_passed) == (OPEN, 1)


def test_an_answer_that_is_refused_passes_nothing():
    record = question(FULL)
    with pytest.raises(NotAllowed):
        take(record, "eve", Approve(), hours=30)
    assert record.rungs_passed == 0


def test_an_answer_at_the_deadline_is_late():
    with pytest.raises(RequestExpired):
        take(question(FULL), "ann", Approve(), hours=48)
    assert take(question(FULL), "ann", Approve(), hours=47.9).status is RequestStatus.APPROVED


def test_approvals_are_within_reach_as_long_as_more_people_will_be_asked():
    policy = ReviewPolicy(reviewers=("ann", "bob"), approvals=2)
    record = take(question({24: Widen("cid")}, policy=policy), "ann", Abstain())
    assert record.status is OPEN
    record = take(record, "bob", Approve(), hours=1)
    assert take(record, "cid", Approve(), hours=24).outcome.decided_by == ("bob", "cid")
    # Those who are asked only after an escalation do not count.
    record = question({24: Escalate("role:chief"), 25: Widen("cid")}, policy=policy)
    assert take(record, "ann", Abstain()).status is RequestStatus.NO_QUORUM
    # And when all have been asked, nobody is left to hope for.
    record = question({24: Widen("cid")}, policy=policy)
    for who in ("ann", "bob"):
        record = take(record, who, Abstain())
    assert record.status is RequestStatus.NO_QUORUM


# --------------------------------------------------------------------------- properties

steps = st.lists(st.timedeltas(timedelta(0), timedelta(days=120)), max_size=6)


@thorough
@given(requests(), st.timedeltas(timedelta(0), timedelta(days=400)))
def test_passing_time_twice_is_passing_it_once(request, after):
    now = request.created_at + after
    record, _ = pass_time(open_record(request), now)
    again, passed = pass_time(record, now)
    assert again is record
    assert passed == ()
    due = next_due(record)
    assert due is None or due > now


@thorough
@given(requests(), steps)
def test_many_small_steps_come_to_what_one_big_step_does(request, steps):
    now, record, passed = request.created_at, open_record(request), ()
    for more in steps:
        now += more
        record, rungs = pass_time(record, now)
        passed += rungs
    assert (record, passed) == pass_time(open_record(request), now)


@brief
@given(requests(), steps)
def test_time_never_approves_and_never_adds_to_what_was_asked(request, steps):
    record, passed = pass_time(open_record(request), request.created_at + sum(steps, timedelta()))
    assert record.request is request
    assert record.status in {
        OPEN,
        RequestStatus.ESCALATED,
        RequestStatus.REJECTED,
        RequestStatus.EXPIRED,
    }
    assert record.rungs_passed == len(passed)
    assert set(record.policy.reviewers) >= set(request.policy.reviewers)
    assert passed == request.rungs[: len(passed)]
    assert type(record).model_validate_json(record.model_dump_json()) == record


PEOPLE = ("ann", "bob", "cid", "dee")
DECISIONS = [Approve(), Reject(), Abstain(), Delegate(to="dee"), Edit(subject={"amount": 1})]
quiet_ladders = st.dictionaries(
    st.integers(1, 20),
    st.sampled_from([Remind(), Widen("bob"), Widen(["cid", "bob"]), Widen("role:legal")]),
    max_size=4,
)
ends = st.none() | st.sampled_from([Expire(), Reject(), Escalate("role:chief")])


@st.composite
def histories(draw):
    """A question, and what befalls it, in order of time: answers, and sweeps (None)."""
    quiet, end = draw(quiet_ladders), draw(ends)
    actions = {n: quiet[n] for n in sorted(quiet)} | ({} if end is None else {21: end})
    policy = ReviewPolicy(
        reviewers=draw(st.sampled_from([(), ("ann",), ("ann", "role:legal")])),
        approvals=draw(st.integers(1, 1)),
        rejections=draw(st.integers(1, 2)),
    )
    if policy.reviewers != ("ann",):
        policy = policy.model_copy(update={"approvals": draw(st.integers(1, 3))})
    moments = sorted(draw(st.lists(st.floats(0, 25), max_size=7)))
    said = st.none() | st.tuples(st.sampled_from(PEOPLE), st.sampled_from(DECISIONS))
    return question(actions, policy=policy), [(moment, draw(said)) for moment in moments]


def told(record, moment, said):
    """Return the record after an answer or a sweep; the very same one, if nothing came of it."""
    if said is None:
        return at_hour(record, moment)
    who, decision = said
    try:
        return take(record, who, decision, hours=moment, roles=("legal",) if who == "cid" else ())
    except AnswerRefused:
        return record


@thorough
@given(histories())
def test_the_same_answers_come_to_the_same_whether_or_not_somebody_keeps_the_time(history):
    asked_first, events = history
    swept = unswept = asked_first
    for moment, said in events:
        swept = told(swept, moment, said)
        if said is not None:
            unswept = told(unswept, moment, said)
    assert at_hour(swept, 30) == at_hour(unswept, 30)


@brief
@given(histories())
def test_what_the_record_says_is_what_its_answers_come_to(history):
    record, events = history
    for moment, said in events:
        record = told(record, moment, said)
    if record.status is OPEN:
        counted = tally(record.answers, widest_policy(record), T0)
        assert record.outcome == counted


# --------------------------------------------------------------------------- taken back


def test_a_question_that_is_taken_back_is_closed_and_nobody_has_decided():
    record = withdraw(question(FULL), by=person("bob"), at=T0 + HOUR, reason="paid already")
    assert (record.status, record.closed_at) == (RequestStatus.WITHDRAWN, T0 + HOUR)
    assert record.outcome.reason == "bob withdrew it: paid already"
    assert (record.outcome.decided_by, record.answers) == ((), ())
    assert withdraw(question(FULL), by=person("bob"), at=T0).outcome.reason == "bob withdrew it."


def test_what_is_decided_cannot_be_taken_back():
    with pytest.raises(InvalidTransition):
        withdraw(take(question(FULL), "ann", Reject()), by=person("bob"), at=T0)


# --------------------------------------------------------------------------- at a gate

LADDER = {
    4 * HOUR: Remind(),
    DAY: Widen("role:legal"),
    2 * DAY: Escalate("role:chief"),
    4 * DAY: Expire(),
}


def due(event: ReviewRequestEvent, clock: SetClock) -> ReviewDeadlineEvent:
    return ReviewDeadlineEvent(request_id=event.request_id, at=clock.now)


async def test_a_gate_asks_with_the_instants_of_its_ladder(start: Start):
    clock = SetClock()
    live = start(drafts(reviewers=["erin"], clock=clock, ladder=LADDER))
    (event,) = await live.open()
    request = event.request
    assert request.ladder == tuple(Rung(at=clock.now + d, action=a) for d, a in LADDER.items())
    assert (request.deadline, request.on_deadline) == (clock.now + 2 * DAY, Escalate("role:chief"))


async def test_a_ladder_may_be_written_in_any_order_and_given_by_a_function(start: Start):
    clock = SetClock()

    async def ladder(flow: Workflow, event: Draft) -> dict[timedelta, Any]:
        return {DAY: Expire(), HOUR: Remind()} if event.text == "AI" else {}

    live = start(drafts(clock=clock, ladder=ladder))
    (event,) = await live.open()
    assert [rung.action for rung in event.request.ladder] == [Remind(), Expire()]
    (other,) = await start(drafts(clock=clock, ladder=ladder), topic="x").open()
    assert (other.request.ladder, other.request.deadline) == ((), None)
    clock.advance(days=1)
    await live.tell(due(event, clock))
    assert type(await live.result()) is Expired


async def test_a_function_cannot_make_silence_consent(start: Start):
    live = start(drafts(ladder=lambda flow, event: {HOUR: Approve()}))
    with suppress(ValidationError):
        await live.open()
    with pytest.raises(ValidationError, match="'approve' found"):
        await live.handler


async def test_a_deadline_is_a_ladder_of_one(start: Start):
    clock = SetClock()
    (event,) = await start(drafts(deadline=HOUR, on_deadline=Reject(), clock=clock)).open()
    assert event.request.ladder == (Rung(at=clock.now + HOUR, action=Reject()),)


async def test_reminders_and_wider_audiences_are_told_and_kept(start: Start):
    clock = SetClock()
    live = start(drafts(reviewers=["erin"], clock=clock, ladder=LADDER))
    (event,) = await live.open()
    clock.advance(hours=3)
    assert codes(await live.tell(due(event, clock))) == ["stale_request"]
    clock.advance(hours=1)
    (update,) = of_kind(await live.tell(due(event, clock)), ReviewUpdatedEvent)
    assert (update.record.rungs_passed, update.record.status) == (1, OPEN)
    assert codes(await live.tell(due(event, clock))) == ["stale_request"]
    answer = event.answer(Approve(), by=person("eve", "legal"), at=clock.now)
    assert codes(await live.tell(answer)) == ["not_allowed"]
    clock.advance(hours=20)
    (update,) = of_kind(await live.tell(due(event, clock)), ReviewUpdatedEvent)
    assert update.record.policy.reviewers == ("erin", "role:legal")
    await live.tell(event.answer(Approve(), by=person("eve", "legal"), at=clock.now))
    approved = await live.result()
    assert type(approved) is Approved
    assert approved.record.policy.reviewers == ("erin", "role:legal")


async def test_whoever_keeps_the_time_says_what_it_is(start: Start):
    clock = SetClock()
    begin = clock.now
    options: dict[str, Any] = {"deadline": DAY, "on_deadline": Escalate("chief")}
    live = start(drafts(reviewers=["erin"], clock=clock, **options))
    (event,) = await live.open()
    # The clock of the gate stands still.
    time = ReviewDeadlineEvent(request_id=event.request_id, at=begin + 3 * DAY)
    (event,) = asked(await live.tell(time))
    assert event.request.deadline == begin + 4 * DAY
    live = start(drafts(reviewers=["erin"], clock=clock, ladder=LADDER))
    (event,) = await live.open()
    # And now it is ahead: what has not been told yet has not happened.
    clock.advance(days=9)
    time = ReviewDeadlineEvent(request_id=event.request_id, at=begin + DAY)
    (update,) = of_kind(await live.tell(time), ReviewUpdatedEvent)
    assert (update.record.status, update.record.rungs_passed) == (OPEN, 2)


async def test_a_wider_audience_counts_though_nobody_kept_the_time(start: Start):
    clock = SetClock()
    live = start(drafts(reviewers=["erin"], clock=clock, ladder=LADDER))
    (event,) = await live.open()
    clock.advance(days=1)
    await live.tell(event.answer(Approve(), by=person("eve", "legal"), at=clock.now))
    assert type(await live.result()) is Approved


async def test_a_gate_does_not_give_up_as_long_as_more_people_will_be_asked(start: Start):
    clock = SetClock()
    flow = drafts(
        reviewers=["erin"],
        requester=lambda flow, event: "erin",
        bar_requester=True,
        clock=clock,
        ladder={HOUR: Widen("max")},
    )
    live = start(flow)
    (event,) = await live.open()
    clock.advance(hours=1)
    await live.tell(event.answer(Approve(), by="max", at=clock.now))
    assert type(await live.result()) is Approved


async def test_the_rungs_behind_an_escalation_are_for_the_request_that_follows(start: Start):
    clock = SetClock()
    begin = clock.now
    live = start(drafts(reviewers=["erin"], clock=clock, ladder=LADDER))
    (first,) = await live.open()
    clock.advance(days=2, hours=5)
    events = await live.tell(due(first, clock))
    (second,) = asked(events)
    (update,) = of_kind(events, ReviewUpdatedEvent)
    assert (update.record.status, update.record.rungs_passed) == (RequestStatus.ESCALATED, 3)
    assert update.record.closed_at == begin + 2 * DAY
    request = second.request
    assert (request.level, request.policy.reviewers) == (1, ("role:chief",))
    assert request.ladder == (Rung(at=begin + 4 * DAY, action=Expire()),)
    assert request.deadline == begin + 4 * DAY
    clock.advance(days=2)
    await live.tell(due(second, clock))
    expired = await live.result()
    assert type(expired) is Expired
    assert [record.status for record in expired.earlier] == [RequestStatus.ESCALATED]


async def test_a_ladder_may_escalate_more_than_once(start: Start):
    clock = SetClock()
    ladder = {HOUR: Escalate("lead"), 2 * HOUR: Escalate("chief"), 3 * HOUR: Reject()}
    live = start(drafts(reviewers=["erin"], clock=clock, ladder=ladder))
    (event,) = await live.open()
    for level, person_asked in ((1, "lead"), (2, "chief")):
        clock.advance(hours=1)
        (event,) = asked(await live.tell(due(event, clock)))
        assert (event.request.level, event.request.policy.reviewers) == (level, (person_asked,))
    clock.advance(hours=1)
    await live.tell(due(event, clock))
    assert type(await live.result()) is Rejected


async def test_a_ladder_that_ends_with_an_escalation_leaves_no_deadline(start: Start):
    clock = SetClock()
    live = start(drafts(reviewers=["erin"], clock=clock, ladder={HOUR: Escalate("chief")}))
    (event,) = await live.open()
    clock.advance(hours=1)
    (event,) = asked(await live.tell(due(event, clock)))
    assert (event.request.ladder, event.request.deadline) == ((), None)
    await live.tell(event.answer(Approve(), by="chief", at=clock.now + 999 * DAY))
    assert type(await live.result()) is Approved


async def test_after_days_of_downtime_nobody_is_asked_what_has_expired_since(start: Start):
    clock = SetClock()
    begin = clock.now
    live = start(drafts(reviewers=["erin"], clock=clock, ladder=LADDER))
    (event,) = await live.open()
    clock.advance(days=30)
    events = await live.tell(due(event, clock))
    assert asked(events) == []
    assert statuses(events) == ["escalated", "expired"]
    expired = await live.result()
    assert type(expired) is Expired
    assert (expired.request.level, expired.record.closed_at) == (1, begin + 4 * DAY)


async def test_after_days_of_downtime_what_is_due_of_the_next_request_is_not_lost(start: Start):
    clock = SetClock()
    begin = clock.now
    ladder = {HOUR: Escalate("chief"), DAY: Widen("role:board"), 9 * DAY: Expire()}
    live = start(drafts(reviewers=["erin"], clock=clock, ladder=ladder))
    (event,) = await live.open()
    clock.advance(days=2)
    (event,) = asked(await live.tell(due(event, clock)))
    assert [rung.at - begin for rung in event.request.ladder] == [DAY, 9 * DAY]
    await live.tell(event.answer(Approve(), by=person("b", "board"), at=clock.now))
    assert type(await live.result()) is Approved


@pytest.mark.parametrize(
    ("ladder", "left"),
    [
        # Up to the rung that would have escalated, it has been done; what is behind it stays.
        (LADDER, [(4 * DAY, Expire())]),
        ({DAY: Escalate("a"), 2 * DAY: Escalate("b")}, [(2 * DAY, Escalate("b"))]),
        ({DAY: Remind(), 2 * DAY: Escalate("a")}, []),
        # Nobody is let in below whom it was passed up to.
        ({HOUR: Widen("x"), 2 * DAY: Widen("y"), 4 * DAY: Expire()}, [(4 * DAY, Expire())]),
        (
            {HOUR: Remind(), DAY: Remind(), 4 * DAY: Reject()},
            [(DAY, Remind()), (4 * DAY, Reject())],
        ),
    ],
)
async def test_a_person_who_escalates_leaves_what_is_ahead(
    start: Start, ladder: dict[timedelta, Any], left: list[tuple[timedelta, Any]]
):
    clock = SetClock()
    begin = clock.now
    live = start(drafts(reviewers=["erin"], escalate_to=["boss"], clock=clock, ladder=ladder))
    (first,) = await live.open()
    clock.advance(hours=6)
    (second,) = asked(await live.tell(first.answer(Escalate(), by="erin", at=clock.now)))
    assert [(rung.at - begin, rung.action) for rung in second.request.ladder] == left
    assert second.request.policy.reviewers == ("boss",)


async def test_an_escalation_of_a_person_that_is_delivered_late_takes_effect_when_it_was_made(
    start: Start,
):
    clock = SetClock()
    begin = clock.now
    ladder = {DAY: Reject()}
    live = start(drafts(reviewers=["erin"], escalate_to=["boss"], clock=clock, ladder=ladder))
    (first,) = await live.open()
    clock.advance(days=3)
    events = await live.tell(first.answer(Escalate(), by="erin", at=begin + HOUR))
    assert statuses(events) == ["escalated", "rejected"]
    assert type(await live.result()) is Rejected


async def test_an_edit_begins_the_ladder_anew(start: Start):
    clock = SetClock()
    begin = clock.now
    live = start(
        drafts(
            reviewers=["erin", "max", "ann"], quorum=2, editable=True, clock=clock, ladder=LADDER
        )
    )
    (first,) = await live.open()
    clock.advance(hours=6)
    await live.tell(due(first, clock))
    edit = first.answer(Edit(subject={"text": "better"}), by="erin", at=clock.now)
    (second,) = asked(await live.tell(edit))
    moved = [(rung.at - begin - 6 * HOUR, rung.action) for rung in second.request.ladder]
    assert moved == list(LADDER.items())
    assert second.request.deadline == clock.now + 2 * DAY


async def test_a_revised_draft_has_a_ladder_of_its_own(start: Start):
    clock = SetClock()

    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent | Revision) -> Draft:
            return Draft(text="x")

        review = Review(Draft, revise=Revision, clock=clock, ladder=LADDER)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev)

    live = start(made(Flow))
    (first,) = await live.open()
    clock.advance(hours=6)
    revise = first.answer(Revise(feedback="shorter"), by="erin", at=clock.now)
    (second,) = asked(await live.tell(revise))
    assert [rung.at - clock.now for rung in second.request.ladder] == list(LADDER)


# --------------------------------------------------------------------------- working hours

# The clock of these tests begins on Tuesday, 1 January 2030, at midnight.
OFFICE = WorkingHours(time_zone="UTC")


async def test_only_working_time_counts_where_a_gate_says_so(start: Start):
    clock = SetClock()
    ladder = {2 * HOUR: Remind(), OFFICE.day: Escalate("chief"), 4 * OFFICE.day: Expire()}
    live = start(drafts(clock=clock, ladder=ladder, calendar=OFFICE))
    (event,) = await live.open()
    shown = [f"{rung.at:%a %H}" for rung in event.request.ladder]
    assert shown == ["Tue 11", "Tue 17", "Fri 17"]


async def test_a_deadline_counts_working_time_too_and_so_does_what_follows(start: Start):
    clock = SetClock()
    live = start(
        drafts(
            reviewers=["erin"],
            deadline=2 * OFFICE.day,
            on_deadline=Escalate("chief"),
            calendar=OFFICE,
            clock=clock,
        )
    )
    clock.advance(days=2, hours=15)  # Thursday
    (first,) = await live.open()
    assert f"{first.request.deadline:%a %H}" == "Mon 15"
    clock.advance(days=4)
    (second,) = asked(await live.tell(due(first, clock)))
    assert f"{second.request.deadline:%a %H}" == "Wed 15"


@pytest.mark.parametrize(
    ("holidays", "expected"), [((), "Mon 11, Mon 17"), ((date(2030, 1, 7),), "Tue 11, Tue 17")]
)
async def test_an_edit_gives_as_much_working_time_again(start: Start, holidays, expected):
    clock = SetClock()
    clock.advance(days=2, hours=14)  # Thursday
    office = OFFICE.model_copy(update={"holidays": frozenset(holidays)})
    ladder = {2 * HOUR: Remind(), OFFICE.day: Expire()}
    live = start(drafts(quorum=2, editable=True, clock=clock, ladder=ladder, calendar=office))
    (first,) = await live.open()
    clock.advance(days=1, hours=3)  # Friday at the end of work
    edit = first.answer(Edit(subject={"text": "better"}), by="erin", at=first.request.created_at)
    (second,) = asked(await live.tell(edit))
    remind, expire = second.request.ladder
    assert f"{remind.at:%a %H}, {expire.at:%a %H}" == expected


async def test_a_holiday_that_is_added_later_leaves_a_ladder_that_can_be_climbed(start: Start):
    clock = SetClock()
    clock.advance(hours=9)
    ladder = {HOUR: Remind(), 2 * HOUR: Remind(), 3 * HOUR: Expire()}
    options: dict[str, Any] = {"quorum": 2, "editable": True, "clock": clock, "ladder": ladder}
    offices = [OFFICE, OFFICE.model_copy(update={"holidays": frozenset({clock.now.date()})})]
    before, after = (drafts(calendar=office, **options) for office in offices)
    live = start(before)
    (first,) = await live.open()
    live.make = after
    await live.restore()
    edit = first.answer(Edit(subject={"text": "better"}), by="erin", at=clock.now)
    (second,) = asked(await live.tell(edit))
    instants = [rung.at for rung in second.request.ladder]
    assert instants == sorted(set(instants))


# --------------------------------------------------------------------------- the store and the gate


@brief
@given(histories())
def test_the_gate_comes_to_the_record_that_a_store_comes_to(history):
    """What a store has taken, in its order, makes the gate's record equal to the store's."""
    shape, events = history
    asyncio.run(_compare(shape, events))


async def _compare(shape: Any, events: list[Any]) -> None:
    clock, policy = SetClock(), shape.request.policy
    live = Live(
        drafts(
            reviewers=policy.reviewers,
            quorum=policy.approvals,
            rejections=policy.rejections,
            editable=True,
            abstainable=True,
            delegable=True,
            rejected=None,
            clock=clock,
            ladder={rung.at - T0: rung.action for rung in shape.request.ladder},
        )
    )
    try:
        (event,) = await live.open()
        record = open_record(event.request)
        for moment, said in events:
            at = event.request.created_at + moment * HOUR
            clock.now = max(clock.now, at)
            before, sent = record, _message(event, said, at)
            if isinstance(sent, ReviewDeadlineEvent):
                record, _ = pass_time(record, at)
            else:
                record = _stored(record, sent.answer)
            if record is before:
                continue
            updates = of_kind(await live.tell(sent), ReviewUpdatedEvent)
            kept = [u.record for u in updates if u.request_id == event.request_id][-1]
            assert kept.model_copy(update={"superseded_by": None}) == record
    finally:
        await live.close()


def _message(event: ReviewRequestEvent, said: Any, at: Any) -> Any:
    if said is None:
        return ReviewDeadlineEvent(request_id=event.request_id, at=at)
    who, decision = said
    if isinstance(decision, Edit):
        decision = Edit(subject={"text": "better"})
    return event.answer(decision, by=person(who, *(["legal"] if who == "cid" else [])), at=at)


def _stored(record: Any, answer: Answer) -> Any:
    try:
        return take_answer(record, answer)
    except AnswerRefused:
        return record


# --------------------------------------------------------------------------- taking a question back


def taking_back(event: ReviewRequestEvent, clock: SetClock, **more: Any) -> ReviewWithdrawEvent:
    return ReviewWithdrawEvent(request_id=event.request_id, by=person("bob"), at=clock.now, **more)


async def test_a_question_that_is_taken_back_ends_as_rejected_and_lets_nothing_happen(start: Start):
    clock = SetClock()
    flow = drafts(clock=clock)
    live = start(flow)
    (event,) = await live.open()
    events = await live.tell(taking_back(event, clock, reason="paid already"))
    assert statuses(events) == ["withdrawn"]
    rejected = await live.result()
    assert type(rejected) is Rejected
    assert rejected.outcome.reason == "bob withdrew it: paid already"
    assert (rejected.record.closed_at, flow.published) == (clock.now, [])


async def test_taking_one_question_back_leaves_the_others_open(start: Start):
    flow = transfers(3)
    live = start(flow)
    first, second, third = await live.open()
    clock = SetClock()
    await live.tell(taking_back(second, clock))
    late = await live.tell(second.answer(Approve(), by="erin", at=clock.now))
    (refused,) = of_kind(late, ReviewRefusedEvent)
    assert (refused.code, "it is withdrawn" in refused.reason) == ("stale_request", True)
    assert codes(await live.tell(taking_back(second, clock))) == ["stale_request"]
    for event in (first, third):
        await live.tell(event.answer(Approve(), by="erin"))
    assert await live.result() == {"payee 0": True, "payee 1": False, "payee 2": True}


async def test_what_is_decided_cannot_be_taken_back_from_a_gate(start: Start):
    live = start(transfers(2))
    first, _ = await live.open()
    await live.tell(first.answer(Approve(), by="erin"))
    assert codes(await live.tell(taking_back(first, SetClock()))) == ["already_answered"]


async def test_the_name_of_a_field_of_a_withdrawal_is_not_guessed():
    with pytest.raises(ValidationError, match="by"):
        ReviewWithdrawEvent(request_id="r")
    with pytest.raises(ValidationError, match="timezone"):
        ReviewWithdrawEvent(request_id="r", by=person("bob"), at="2030-01-01T00:00:00")


# --------------------------------------------------------------------------- renamed gates


class _Flow(Workflow):
    """The steps around two gates, whatever they are called."""

    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft(text="x")

    @step
    async def publish(self, ctx: Context, ev: Approved) -> StopEvent:
        return StopEvent(result=ev)


class Before(_Flow):
    legal = Review(Draft, approved=LegalApproved)
    editor = Review(LegalApproved)


class After(_Flow):
    counsel = Review(Draft, approved=LegalApproved)
    editor = Review(LegalApproved)


class Swapped(_Flow):
    """The old name now is another gate's, which is asked later."""

    counsel = Review(Draft, approved=LegalApproved)
    legal = Review(LegalApproved)


@pytest.mark.parametrize(
    ("after", "names"),
    [
        (After, {"legal_gate": "counsel_gate"}),
        (Swapped, {"legal_gate": "counsel_gate", "editor_gate": "legal_gate"}),
    ],
)
async def test_a_gate_that_was_renamed_takes_the_answers_to_what_it_has_asked(
    start_here: Start, after: type[Workflow], names: dict[str, str]
):
    live = start_here(made(Before))
    (first,) = await live.open()
    assert first.request_id.startswith("legal-")
    await live.migrate(made(after), names)
    events = await live.tell(first.answer(Approve(), by="erin"))
    (second,) = asked(events)
    assert (codes(events), statuses(events)) == ([], ["approved"])
    # A late answer to it is refused by the same gate, once, with the name of who was first.
    events = await live.tell(first.answer(Reject(), by="max"))
    assert codes(events) == ["already_answered"]
    forged = ReviewDeadlineEvent(request_id="legal-0123456789abcdef")
    assert codes(await live.tell(forged)) == ["unknown_request"]
    assert codes(await live.tell(forged, forged)) == ["unknown_request"] * 2
    await live.tell(second.answer(Approve(), by="erin"))
    assert type(await live.result()) is Approved
