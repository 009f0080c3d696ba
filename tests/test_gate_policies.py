"""Deadlines, escalation, delegation, edits, separation of duties, and rules in place of people."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from flows import (
    Draft,
    LegalApproved,
    Live,
    Note,
    SetClock,
    a_moment,
    asked,
    codes,
    drafts,
    made,
    of_kind,
    person,
    stages,
    statuses,
)
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import (
    Abstain,
    Approve,
    Approved,
    Delegate,
    Edit,
    Escalate,
    Expire,
    Expired,
    Reject,
    Rejected,
    Respond,
    Responded,
    Review,
    ReviewDeadlineEvent,
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewUpdatedEvent,
)
from llama_index_hitl.errors import GateError, MissingApprovals
from llama_index_hitl.models import RuleResult, RuleVerdict
from llama_index_hitl.rules import Rule, always, first_match, never, threshold

Start = Callable[..., Live]
HOUR = timedelta(hours=1)


def due(event: ReviewRequestEvent, clock: SetClock) -> ReviewDeadlineEvent:
    """Return what whoever keeps the time sends."""
    return ReviewDeadlineEvent(request_id=event.request_id, at=clock.now)


# --------------------------------------------------------------------------- deadlines


async def test_a_deadline_before_its_time_is_refused(start: Start):
    clock = SetClock()
    live = start(drafts(deadline=HOUR, clock=clock))
    (request,) = await live.open()
    clock.advance(minutes=59)
    assert codes(await live.tell(due(request, clock))) == ["stale_request"]
    await live.tell(request.answer(Approve(), by="erin", at=clock.now))
    assert type(await live.result()) is Approved


async def test_a_missed_deadline_ends_the_run_with_an_outcome_of_its_own(start: Start):
    clock = SetClock()
    flow = drafts(deadline=HOUR, clock=clock)
    live = start(flow)
    (request,) = await live.open()
    clock.advance(hours=1)
    await live.tell(due(request, clock))
    expired = await live.result()
    assert type(expired) is Expired
    assert expired.outcome.status.value == "expired"
    assert expired.record.closed_at == clock.now
    assert expired.subject == Draft(text="AI")
    assert flow.published == []


class Late(Expired):
    """Nobody decided in time."""


class Leave(StopEvent):
    """An end of one's own."""


async def test_a_missed_deadline_goes_to_the_step_that_takes_it(start: Start):
    clock = SetClock()

    class Flow(drafts(deadline=HOUR, clock=clock, expired=Late)):
        @step
        async def late(self, ev: Late) -> StopEvent:
            return StopEvent(result=f"too late for {ev.subject.text}")

    live = start(Flow)
    (request,) = await live.open()
    clock.advance(days=30)
    await live.tell(due(request, clock))
    assert await live.result() == "too late for AI"


async def test_a_deadline_may_reject(start: Start):
    clock = SetClock()
    live = start(drafts(deadline=HOUR, clock=clock, on_deadline=Reject(comment="silence")))
    (request,) = await live.open()
    clock.advance(hours=2)
    await live.tell(due(request, clock))
    rejected = await live.result()
    assert type(rejected) is Rejected
    (answer,) = rejected.answers
    assert (answer.by.kind, answer.by.id, answer.comment) == ("rule", "rule:deadline", "silence")
    # However late somebody has noticed.
    assert answer.at == rejected.record.closed_at == rejected.request.deadline


@pytest.mark.parametrize(
    "options",
    [
        {"on_deadline": Escalate(["role:chief"])},
        {"on_deadline": Escalate(), "escalate_to": ["role:chief"]},
        # People cannot escalate here; the deadline can.
        {
            "on_deadline": Escalate(),
            "escalate_to": ["role:chief"],
            "decisions": ["approve", "reject"],
        },
    ],
)
async def test_a_deadline_may_escalate_and_then_expires(start: Start, options: dict[str, Any]):
    clock = SetClock()
    live = start(drafts(reviewers=["erin"], deadline=HOUR, clock=clock, **options))
    (first,) = await live.open()
    clock.advance(hours=2)
    events = await live.tell(due(first, clock))
    (second,) = asked(events)
    assert statuses(events) == ["escalated"]
    request = second.request
    assert (request.level, request.supersedes) == (1, first.request_id)
    assert request.policy.reviewers == ("role:chief",)
    assert request.subject == first.request.subject
    # As much time as there was at first, from now on.
    assert request.deadline == clock.now + HOUR
    assert codes(await live.tell(second.answer(Approve(), by="erin", at=clock.now))) == (
        ["not_allowed"]
    )
    assert codes(await live.tell(due(first, clock))) == ["already_answered"]
    clock.advance(hours=1)
    await live.tell(due(second, clock))
    assert type(await live.result()) is Expired


async def test_an_escalated_request_can_be_approved_in_time(start: Start):
    clock = SetClock()
    live = start(
        drafts(
            reviewers=["a", "b"], quorum=2, deadline=HOUR, clock=clock, on_deadline=Escalate("c")
        )
    )
    (first,) = await live.open()
    await live.tell(first.answer(Approve(), by="a", at=clock.now))
    clock.advance(hours=1)
    (second,) = asked(await live.tell(due(first, clock)))
    await live.tell(second.answer(Approve(), by="c", at=clock.now))
    assert (await live.result()).outcome.decided_by == ("c",)


async def test_an_answer_after_the_deadline_is_late_whatever_it_says(start: Start):
    clock = SetClock()
    flow = drafts(deadline=HOUR, clock=clock)
    live = start(flow)
    (request,) = await live.open()
    clock.advance(hours=1)
    await live.tell(due(request, clock))
    result = await live.result()
    live.send(request.answer(Approve(), by="erin", at=clock.now - timedelta(minutes=30)))
    await a_moment()
    assert await live.result() is result
    assert flow.published == []


async def test_a_late_answer_is_refused_where_the_run_goes_on(start: Start):
    clock = SetClock()

    class Flow(drafts(deadline=HOUR, clock=clock, expired=Late)):
        @step
        async def late(self, ev: Late) -> None: ...

    live = start(lambda: Flow(disable_validation=True))
    (request,) = await live.open()
    clock.advance(hours=1)
    await live.tell(due(request, clock))
    for at in (clock.now, clock.now - timedelta(minutes=30)):
        (refused,) = of_kind(
            await live.tell(request.answer(Approve(), by="erin", at=at)), ReviewRefusedEvent
        )
        assert refused.code in ("expired", "stale_request")
        assert "expired" in refused.reason
    assert Flow.published == []


async def test_a_late_answer_brings_the_deadline_about(start: Start):
    clock = SetClock()
    flow = drafts(deadline=HOUR, clock=clock)
    live = start(flow)
    (request,) = await live.open()
    clock.advance(hours=3)
    events = await live.tell(request.answer(Approve(), by="erin", at=clock.now))
    assert codes(events) == ["expired"]
    assert type(await live.result()) is Expired
    assert flow.published == []


async def test_an_answer_that_only_says_that_it_is_late_does_not_end_the_time_of_others(
    start: Start,
):
    clock = SetClock()
    live = start(drafts(deadline=HOUR, clock=clock))
    (request,) = await live.open()
    events = await live.tell(request.answer(Approve(), by="m", at=clock.now + 2 * HOUR))
    assert codes(events) == ["expired"]
    await live.tell(request.answer(Approve(), by="erin", at=clock.now))
    assert type(await live.result()) is Approved


async def test_a_deadline_after_the_decision_changes_nothing(start: Start):
    clock = SetClock()

    class Flow(drafts(deadline=HOUR, clock=clock, rejected=Rejected)):
        @step
        async def keep(self, ev: Rejected) -> None: ...

    live = start(lambda: Flow(disable_validation=True))
    (request,) = await live.open()
    await live.tell(request.answer(Reject(), by="erin", at=clock.now))
    clock.advance(hours=2)
    assert codes(await live.tell(due(request, clock))) == ["already_answered"]


async def test_the_time_comes_from_the_clock_of_the_workflow(start: Start):
    clock = SetClock()

    class Flow(drafts(deadline=HOUR)):
        pass

    Flow.clock = staticmethod(clock)
    live = start(Flow)
    (request,) = await live.open()
    assert request.request.created_at == clock.now
    assert request.request.deadline == clock.now + HOUR


# --------------------------------------------------------------------------- escalation


async def test_people_escalate_to_whom_the_gate_names(start: Start):
    live = start(drafts(reviewers=["erin"], escalate_to=["chief", "role:board"]))
    (first,) = await live.open()
    events = await live.tell(first.answer(Escalate(comment="above me"), by="erin"))
    (second,) = asked(events)
    (update,) = of_kind(events, ReviewUpdatedEvent)
    assert update.outcome.status.value == "escalated"
    assert update.record.superseded_by == second.request_id
    assert update.record.answers[0].comment == "above me"
    assert second.request.policy.reviewers == ("chief", "role:board")
    assert second.request.level == 1
    await live.tell(second.answer(Approve(), by=person("bo", "board")))
    approved = await live.result()
    assert approved.outcome.decided_by == ("bo",)
    # The escalation stays on record with what came of it.
    assert [record.request for record in approved.earlier] == [first.request]
    assert [a.by.id for record in approved.earlier for a in record.answers] == ["erin"]


async def test_people_escalate_to_some_of_those_and_to_nobody_else(start: Start):
    live = start(drafts(reviewers=["erin"], escalate_to=["chief", "role:board"]))
    (first,) = await live.open()
    for strangers in (["mallory"], ["chief", "mallory"], ["erin"], ["role:chief"]):
        events = await live.tell(first.answer(Escalate(strangers), by="erin"))
        (refused,) = of_kind(events, ReviewRefusedEvent)
        assert (refused.code, refused.problems[0].field) == ("invalid_answer", "to")
    (second,) = asked(await live.tell(first.answer(Escalate("chief"), by="erin")))
    assert second.request.policy.reviewers == ("chief",)
    events = await live.tell(
        second.answer(Approve(), by=person("bo", "board")), second.answer(Approve(), by="erin")
    )
    assert codes(events) == ["not_allowed", "not_allowed"]
    await live.tell(second.answer(Approve(), by="chief"))
    assert live.ended


async def test_people_escalate_once(start: Start):
    live = start(drafts(escalate_to=["chief", "board"]))
    (first,) = await live.open()
    (second,) = asked(await live.tell(first.answer(Escalate("chief"), by="erin")))
    assert "escalate" not in second.request.allowed
    events = await live.tell(second.answer(Escalate("board"), by="chief"))
    assert codes(events) == ["invalid_answer"]
    assert asked(events) == []


async def test_an_answer_to_a_request_that_was_escalated_is_refused(start: Start):
    live = start(drafts(reviewers=["erin", "frank"], escalate_to="chief"))
    (first,) = await live.open()
    await live.tell(first.answer(Escalate(), by="erin"))
    assert codes(await live.tell(first.answer(Approve(), by="frank"))) == ["already_answered"]
    assert not live.ended


# --------------------------------------------------------------------------- delegation


async def test_a_vote_is_handed_to_somebody_else_and_the_votes_so_far_stay(start: Start):
    live = start(drafts(reviewers=["a", "b"], quorum=2, delegable=True))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="a"))
    events = await live.tell(request.answer(Delegate(to="deputy"), by="b"))
    assert statuses(events) == ["open"]
    assert asked(events) == []
    (refused,) = of_kind(await live.tell(request.answer(Approve(), by="b")), ReviewRefusedEvent)
    assert (refused.code, "delegated to deputy" in refused.reason) == ("not_allowed", True)
    await live.tell(request.answer(Approve(), by="deputy"))
    approved = await live.result()
    assert approved.outcome.decided_by == ("a", "deputy")
    assert [a.decision.kind for a in approved.answers] == ["approve", "delegate", "approve"]


@pytest.mark.parametrize("to", ["b", "role:legal", "a", "rita"])
async def test_a_vote_cannot_be_handed_to_just_anybody(start: Start, to: str):
    live = start(
        drafts(reviewers=["a", "b"], quorum=2, delegable=True, requester="rita", bar_requester=True)
    )
    (request,) = await live.open()
    (refused,) = of_kind(
        await live.tell(request.answer(Delegate(to=to), by="a")), ReviewRefusedEvent
    )
    assert (refused.code, refused.problems[0].field) == ("invalid_answer", "to")


async def test_a_stranger_has_no_vote_to_hand_over(start: Start):
    live = start(drafts(reviewers=["a"], delegable=True))
    (request,) = await live.open()
    events = await live.tell(request.answer(Delegate(to="friend"), by="mallory"))
    assert codes(events) == ["not_allowed"]
    assert codes(await live.tell(request.answer(Approve(), by="friend"))) == ["not_allowed"]


# --------------------------------------------------------------------------- edits


async def test_an_edit_that_needs_a_second_person_is_asked_about_anew(start: Start):
    live = start(drafts(editable=True, second_person_for_edit=True))
    (first,) = await live.open()
    events = await live.tell(first.answer(Edit(subject={"text": "mine"}), by="erin"))
    (second,) = asked(events)
    assert statuses(events) == ["edited"]
    request = second.request
    assert request.subject.data == {"text": "mine"}
    assert request.previous == first.request.subject
    assert (request.revision, request.supersedes) == (2, first.request_id)
    (refused,) = of_kind(await live.tell(second.answer(Approve(), by="erin")), ReviewRefusedEvent)
    assert (refused.code, "edited it" in refused.reason) == ("not_allowed", True)
    await live.tell(second.answer(Approve(), by="frank"))
    assert (await live.result()).subject == Draft(text="mine")


async def test_two_who_edit_in_turn_both_need_somebody_else(start: Start):
    live = start(drafts(editable=True, second_person_for_edit=True))
    (first,) = await live.open()
    (second,) = asked(await live.tell(first.answer(Edit(subject={"text": "1"}), by="erin")))
    (third,) = asked(await live.tell(second.answer(Edit(subject={"text": "2"}), by="frank")))
    events = await live.tell(
        third.answer(Approve(), by="erin"), third.answer(Approve(), by="frank")
    )
    assert codes(events) == ["not_allowed", "not_allowed"]
    await live.tell(third.answer(Approve(), by="gina"))
    assert (await live.result()).subject == Draft(text="2")


async def test_an_edit_in_a_vote_asks_everybody_anew(start: Start):
    live = start(drafts(editable=True, reviewers=["a", "b", "c"], quorum=2))
    (first,) = await live.open()
    await live.tell(first.answer(Approve(), by="a"))
    (second,) = asked(await live.tell(first.answer(Edit(subject={"text": "mine"}), by="b")))
    # An approval of what it was before is none of what it is now.
    assert statuses(await live.tell(second.answer(Approve(), by="b"))) == ["open"]
    await live.tell(second.answer(Approve(), by="a"))
    assert (await live.result()).outcome.decided_by == ("b", "a")


async def test_an_edit_of_one_person_passes_at_once(start: Start):
    live = start(drafts(editable=True))
    (request,) = await live.open()
    events = await live.tell(request.answer(Edit(subject={"text": "mine"}), by="erin"))
    assert (asked(events), statuses(events)) == ([], ["approved"])
    assert (await live.result()).subject == Draft(text="mine")


async def test_an_edit_that_changes_nothing_is_an_approval(start: Start):
    live = start(drafts(editable=True))
    (request,) = await live.open()
    await live.tell(request.answer(Edit(subject=request.request.subject.data), by="erin"))
    approved = await live.result()
    assert approved.proposed == approved.edited == {"text": "AI"}


# --------------------------------------------------------------------------- separation of duties


async def test_whoever_approved_an_earlier_stage_is_barred_from_the_next(start: Start):
    live = start(stages(distinct_from="legal"))
    (legal,) = await live.open()
    (editor,) = asked(await live.tell(legal.answer(Approve(), by="erin")))
    (refused,) = of_kind(await live.tell(editor.answer(Approve(), by="erin")), ReviewRefusedEvent)
    assert (refused.code, "legal" in refused.reason) == ("not_allowed", True)
    await live.tell(editor.answer(Approve(), by="frank"))
    assert live.ended


async def test_stages_that_are_not_named_bar_nobody(start: Start):
    live = start(stages())
    (legal,) = await live.open()
    (editor,) = asked(await live.tell(legal.answer(Approve(), by="erin")))
    await live.tell(editor.answer(Approve(), by="erin"))
    assert live.ended


async def test_whoever_edited_in_an_earlier_stage_is_barred_from_the_next(start: Start):
    class Flow(stages(distinct_from="legal")):
        pass

    class Editable(Flow):
        legal = Flow.legal.replace(editable=True)

    live = start(Editable)
    (legal,) = await live.open()
    (editor,) = asked(await live.tell(legal.answer(Edit(subject={"text": "mine"}), by="erin")))
    assert codes(await live.tell(editor.answer(Approve(), by="erin"))) == ["not_allowed"]


async def test_whoever_edited_is_barred_even_if_somebody_else_approved_the_edit(start: Start):
    class Flow(stages(distinct_from="legal")):
        pass

    class Editable(Flow):
        legal = Flow.legal.replace(editable=True, second_person_for_edit=True)

    live = start(Editable)
    (legal,) = await live.open()
    (again,) = asked(await live.tell(legal.answer(Edit(subject={"text": "mine"}), by="erin")))
    (editor,) = asked(await live.tell(again.answer(Approve(), by="frank")))
    events = await live.tell(
        editor.answer(Approve(), by="frank"), editor.answer(Approve(), by="erin")
    )
    assert codes(events) == ["not_allowed", "not_allowed"]


class Typeset(Event):
    """An event between two stages; it carries the approvals along."""

    text: str


def through(*, carry: bool) -> type[Workflow]:
    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        legal = Review(Draft, approved=LegalApproved)

        @step
        async def typeset(self, ev: LegalApproved) -> Typeset:
            chain = {"approvals": ev.approvals} if carry else {}
            return Typeset(text=ev.subject.text.upper(), **chain)

        editor = Review(Typeset, distinct_from=["legal"], editable=True)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev)

    return made(Flow)


async def test_an_event_of_ones_own_carries_the_approvals_to_the_next_stage(start: Start):
    live = start(through(carry=True))
    (legal,) = await live.open()
    (editor,) = asked(await live.tell(legal.answer(Approve(), by="lena")))
    # The chain is for the gate; it is neither shown nor edited.
    assert editor.request.subject.data == {"text": "X"}
    assert [a.stage for a in editor.request.approvals] == ["legal"]
    assert codes(await live.tell(editor.answer(Approve(), by="lena"))) == ["not_allowed"]
    await live.tell(editor.answer(Edit(subject={"text": "Y"}), by="erin"))
    approved = await live.result()
    assert [(a.stage, a.approvers) for a in approved.approvals] == [
        ("legal", ("lena",)),
        ("editor", ("erin",)),
    ]


async def test_a_chain_that_is_cut_is_an_error_and_not_a_hole(start: Start):
    live = start(through(carry=False))
    (legal,) = await live.open()
    events = await live.tell(legal.answer(Approve(), by="lena"))
    assert asked(events) == []
    with pytest.raises(MissingApprovals) as raised:
        await live.result()
    assert (raised.value.gate, raised.value.stages) == ("editor", ("legal",))
    assert "approvals=event.approvals" in str(raised.value)


async def test_the_requester_may_be_barred(start: Start):
    live = start(drafts(requester=lambda flow, ev: "rita", bar_requester=True))
    (request,) = await live.open()
    (refused,) = of_kind(await live.tell(request.answer(Approve(), by="rita")), ReviewRefusedEvent)
    assert (refused.code, "requests it" in refused.reason) == ("not_allowed", True)
    await live.tell(request.answer(Approve(), by="erin"))
    assert (await live.result()).request.requester == "rita"


async def test_a_requester_to_bar_has_to_be_known(start_here: Start):
    with pytest.raises(GateError, match="needs requester="):
        Review(Draft, bar_requester=True)
    live = start_here(drafts(requester=lambda flow, ev: None, bar_requester=True))
    await live.pause()
    with pytest.raises(GateError, match="gave none"):
        await live.result()


async def test_a_barred_requester_stays_barred_after_an_escalation_and_an_edit(start: Start):
    live = start(
        drafts(
            requester="rita",
            bar_requester=True,
            escalate_to=["rita", "chief"],
            editable=True,
            second_person_for_edit=True,
        )
    )
    (first,) = await live.open()
    (second,) = asked(await live.tell(first.answer(Edit(subject={"text": "y"}), by="erin")))
    (third,) = asked(await live.tell(second.answer(Escalate(), by="frank")))
    assert codes(await live.tell(third.answer(Approve(), by="rita"))) == ["not_allowed"]
    await live.tell(third.answer(Approve(), by="chief"))
    assert live.ended


# --------------------------------------------------------------------------- rules


async def test_a_rule_that_approves_passes_without_a_person(start: Start):
    flow = drafts(when=never())
    live = start(flow)
    await live.pause()
    approved = await live.result()
    assert asked(live.seen) == []
    assert statuses(live.seen) == ["approved"]
    assert approved.subject == Draft(text="AI")
    assert approved.answers[0].by.kind == "rule"
    assert approved.effect_key == approved.request.request_id
    assert approved.request.rule.verdict is RuleVerdict.APPROVE


async def test_a_rule_that_rejects_stops_it_without_a_person(start: Start):
    flow = drafts(when=always("reject", reason="not today"))
    live = start(flow)
    await live.pause()
    rejected = await live.result()
    assert type(rejected) is Rejected
    assert rejected.feedback == "not today"
    assert rejected.answers[0].by.id == "rule:always reject"
    assert flow.published == []


async def test_a_rule_that_asks_is_on_the_request(start: Start):
    live = start(drafts(when=always("ask", reason="it is new")))
    (request,) = await live.open()
    assert request.request.rule == RuleResult(
        verdict=RuleVerdict.ASK, rule="always ask", reason="it is new"
    )
    await live.tell(request.answer(Approve(), by="erin"))
    approved = await live.result()
    assert [a.by.kind for a in approved.answers] == ["human"]
    assert approved.request.rule.reason == "it is new"


def raising(_: Any) -> RuleResult | None:
    raise KeyError("no such field")


def choosing_nothing(workflow: Any, event: Any) -> Any:
    return None


def choosing_badly(workflow: Any, event: Any) -> Any:
    raise KeyError("no such rule")


async def choosing_late(workflow: Any, event: Any) -> Rule:
    return always("ask", reason="chosen late")


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        (Rule("broken", raising), "raised KeyError"),
        (Rule("odd", lambda _: "approve"), "instead of a RuleResult"),
        (Rule("true", lambda _: True), "instead of a RuleResult"),
        (threshold("amount", above=1), "has no field 'amount'"),
        (first_match(threshold("text", above=1, then="approve")), "must be a number"),
        (first_match(always("ask", reason="first"), never()), "first"),
        (choosing_badly, "raised KeyError"),
        (choosing_late, "chosen late"),
        (lambda flow, ev: True, "a Rule is needed, not True"),
        (lambda flow, ev: "approve", "a Rule is needed, not 'approve'"),
    ],
)
async def test_in_doubt_a_person_is_asked(start_here: Start, when: Any, reason: str):
    flow = drafts(when=when)
    live = start_here(flow)
    (request,) = await live.open()
    assert request.request.rule.verdict is RuleVerdict.ASK
    assert reason in request.request.rule.reason
    assert flow.published == []


async def test_no_rule_asks_too(start: Start):
    live = start(drafts(when=choosing_nothing))
    (request,) = await live.open()
    assert request.request.rule is None


async def test_a_rule_sees_the_subject_and_may_be_chosen_by_the_workflow(start: Start):
    class Flow(Workflow):
        words = 2

        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text=ev.topic)

        def rule(self, ev: Draft) -> Rule:
            short = len(ev.text.split()) <= self.words
            return never() if short else always("reject")

        review = Review(Draft, when=lambda flow, ev: flow.rule(ev))

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result="published")

    for topic, passes in (("two words", True), ("these are three", False)):
        live = start(made(Flow), topic=topic)
        await live.pause()
        assert (await live.result() == "published") is passes


async def test_a_rule_is_evaluated_once_and_never_again(start: Start):
    calls: list[Any] = []

    def counting(subject: Any) -> RuleResult:
        calls.append(subject)
        # Whoever asks again gets a yes.
        verdict = RuleVerdict.ASK if len(calls) == 1 else RuleVerdict.APPROVE
        return RuleResult(verdict=verdict, rule="counting", reason=str(len(calls)))

    live = start(drafts(when=Rule("counting", counting), quorum=2, escalate_to="c", delegable=True))
    (first,) = await live.open()
    await live.tell(first.answer(Approve(), by="a"))
    await live.tell(first.answer(Delegate(to="d"), by="b"))
    await live.tell(first.answer(Abstain(), by="e"))
    (second,) = asked(await live.tell(first.answer(Escalate(), by="d")))
    assert second.request.rule == first.request.rule
    await live.tell(second.answer(Reject(), by="c"))
    assert (await live.result()).request.rule.reason == "1"
    assert len(calls) == 1


async def test_a_rule_that_approves_counts_as_the_approver_of_its_stage(start: Start):
    class Flow(stages(distinct_from="legal")):
        pass

    class Ruled(Flow):
        legal = Flow.legal.replace(when=never())

    live = start(Ruled)
    (editor,) = await live.open()
    assert [a.approvers for a in editor.request.approvals] == [("rule:never",)]
    await live.tell(editor.answer(Approve(), by="erin"))
    assert live.ended


async def test_a_rule_may_answer_for_people_where_a_response_was_wanted(start: Start):
    """Nothing hangs: an approval is routed although the gate itself asks for a response."""

    class Flow(Workflow):
        got: ClassVar[list[Event]] = []

        @step
        async def pose(self, ev: StartEvent) -> Draft:
            return Draft(text="How good?")

        grade = Review(
            Draft,
            response=Note,
            responded=Responded,
            when=lambda flow, ev: never() if flow.easy else None,
        )

        @step
        async def use(self, ev: Responded | Approved) -> StopEvent:
            return StopEvent(result=type(ev).__name__)

    class Easy(Flow):
        easy = True

    class Hard(Flow):
        easy = False

    easy, hard = start(made(Easy)), start(made(Hard))
    await easy.pause()
    assert await easy.result() == "Approved"
    (request,) = await hard.open()
    await hard.tell(request.answer(Respond(response={"grade": 1}), by="erin"))
    assert await hard.result() == "Responded"


def test_expiring_is_what_happens_at_a_deadline_unless_the_gate_says_otherwise():
    assert Review(Draft).on_deadline == Expire()
    assert Leave().result is None
