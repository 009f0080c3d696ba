"""The life of a request: the table, and how answers are taken or refused."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import PEOPLE, ROLES, T0, any_vote, brief, voting_policies

from llama_index_hitl.errors import (
    AlreadyAnswered,
    AnswerRefused,
    InvalidAnswer,
    InvalidTransition,
    NotAllowed,
    RequestExpired,
    StaleRequest,
    UnknownRequest,
)
from llama_index_hitl.lifecycle import (
    TRANSITIONS,
    Command,
    close,
    decide_without_person,
    next_status,
    open_record,
    take_answer,
)
from llama_index_hitl.models import (
    Abstain,
    Answer,
    Approve,
    DecisionKind,
    Delegate,
    Edit,
    Escalate,
    Reject,
    RequestStatus,
    Respond,
    Reviewer,
    ReviewPolicy,
    ReviewRecord,
    ReviewRequest,
    Revise,
    RuleResult,
    RuleVerdict,
    Subject,
)
from llama_index_hitl.policies import tally

OPEN = RequestStatus.OPEN
FINAL = [status for status in RequestStatus if status is not OPEN]
MICROSECOND = timedelta(microseconds=1)


def asked(policy=None, **fields):
    """Return the record of a request that allows everything and has just been asked."""
    return open_record(
        ReviewRequest(
            request_id="r",
            title="Pay the invoice?",
            subject=Subject(type="Invoice", data={"amount": 500}),
            response_schema={},
            escalate_to=("role:chief", "max"),
            allowed=tuple(DecisionKind),
            policy=policy or ReviewPolicy(),
            created_at=T0,
            **fields,
        )
    )


def reply(record, person, decision, *, at=T0, roles=(), role=None):
    by = Reviewer(id=person, roles=roles)
    return Answer.to(record.request, decision, by=by, at=at, role=role)


def take(record, person, decision, **details):
    return take_answer(record, reply(record, person, decision, **details))


def can_be_approved(policy):
    return tally((), policy, T0).status is OPEN


QUORUM = ReviewPolicy(approvals=2, rejections=2)
DUE = T0 + timedelta(hours=1)
TIMED = ReviewPolicy(deadline=DUE)


# --------------------------------------------------------------------------- the table


@pytest.mark.parametrize("command", Command)
@pytest.mark.parametrize("status", RequestStatus)
def test_a_command_follows_the_table_or_is_refused(status, command):
    if command in TRANSITIONS[status]:
        assert next_status(status, command) is TRANSITIONS[status][command]
        return
    with pytest.raises(InvalidTransition) as caught:
        next_status(status, command)
    assert (caught.value.status, caught.value.command) == (status, command)


def test_the_table_speaks_of_every_status():
    assert set(TRANSITIONS) == set(RequestStatus)


@pytest.mark.parametrize("status", FINAL)
def test_a_final_status_has_no_way_out(status):
    assert not TRANSITIONS[status]


def test_every_status_can_be_reached():
    assert set(TRANSITIONS[OPEN].values()) == set(RequestStatus)


def test_every_command_can_happen_to_an_open_request():
    assert set(TRANSITIONS[OPEN]) == set(Command)


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        TRANSITIONS[RequestStatus.REJECTED][Command.APPROVE] = RequestStatus.APPROVED


# --------------------------------------------------------------------------- asking


def test_a_new_request_is_open_and_unanswered():
    record = asked(QUORUM)
    assert (record.status, record.answers, record.closed_at) == (OPEN, (), None)
    assert (record.outcome.approvals, record.outcome.needed) == (0, 2)


def test_a_new_request_starts_with_the_policy_that_it_shows():
    assert asked(QUORUM).policy == QUORUM


# --------------------------------------------------------------------------- taking answers


@pytest.mark.parametrize(
    ("decision", "status"),
    [
        (Approve(), RequestStatus.APPROVED),
        (Reject(), RequestStatus.REJECTED),
        (Revise(feedback="shorter"), RequestStatus.REVISED),
        (Edit(subject={"amount": 5}), RequestStatus.APPROVED),
        (Respond(response="blue"), RequestStatus.RESPONDED),
        (Escalate("max"), RequestStatus.ESCALATED),
        (Escalate(), RequestStatus.ESCALATED),
        (Abstain(), OPEN),
        (Delegate(to="bob"), OPEN),
    ],
)
def test_what_one_decision_does_to_a_request(decision, status):
    record = take(asked(), "ann", decision)
    assert record.status is status


def test_a_closed_request_says_when_it_was_closed():
    at = T0 + timedelta(minutes=3)
    assert take(asked(), "ann", Approve(), at=at).closed_at == at


def test_an_undecided_request_is_not_closed():
    assert take(asked(QUORUM), "ann", Approve()).closed_at is None


def test_an_edit_in_a_quorum_is_asked_anew():
    assert take(asked(QUORUM), "ann", Edit(subject={})).status is RequestStatus.EDITED


def test_a_quorum_that_cannot_be_reached_gives_up():
    policy = ReviewPolicy(reviewers=("ann", "bob"), approvals="all")
    assert take(asked(policy), "ann", Abstain()).status is RequestStatus.NO_QUORUM


def test_answers_are_kept_in_the_order_in_which_they_were_taken():
    record = take(take(asked(QUORUM), "bob", Approve(), at=DUE), "ann", Approve(), at=T0)
    assert [answer.by.id for answer in record.answers] == ["bob", "ann"]


def test_taking_an_answer_leaves_the_record_as_it_was():
    record = asked(QUORUM)
    before = record.model_dump_json()
    take(take(record, "ann", Delegate(to="zoe")), "zoe", Approve())
    assert record.model_dump_json() == before


@brief
@given(policy=voting_policies().filter(can_be_approved), data=st.data())
def test_after_any_answers_the_record_says_what_its_answers_come_to(policy, data):
    record = asked(policy)
    for _ in range(data.draw(st.integers(0, 7))):
        person = data.draw(st.sampled_from([*PEOPLE, "zoe"]))
        decision = data.draw(any_vote)
        before, dump = record, record.model_dump_json()
        try:
            record = take(record, person, decision, roles=data.draw(st.sampled_from([(), ROLES])))
        except AnswerRefused:
            assert before.model_dump_json() == dump
            continue
        assert before.model_dump_json() == dump
        assert record is before or record.status in TRANSITIONS[before.status].values()
        assert record.outcome == tally(record.answers, record.policy, T0)
        assert ReviewRecord.model_validate_json(record.model_dump_json()) == record


@brief
@given(first=any_vote, again=any_vote)
def test_an_answer_taken_twice_is_taken_once_and_another_is_refused(first, again):
    record = take(asked(QUORUM), "ann", first)
    if again == first:
        assert take(record, "ann", again) is record
        return
    with pytest.raises((AlreadyAnswered, NotAllowed)):
        take(record, "ann", again)


def test_the_same_answer_again_returns_the_very_same_record():
    record = take(asked(), "ann", Approve(comment="fine"))
    assert take(record, "ann", Approve(comment="fine"), at=DUE) is record


def test_the_same_answer_again_returns_the_very_same_record_while_others_are_awaited():
    record = take(asked(QUORUM), "ann", Approve())
    assert take(record, "ann", Approve()) is record


def test_the_same_answer_after_the_deadline_still_returns_the_record():
    record = take(asked(TIMED), "ann", Approve())
    assert take(record, "ann", Approve(), at=DUE + timedelta(days=9)) is record


def test_another_role_makes_nobody_another_person():
    record = take(asked(QUORUM), "ann", Approve(), roles=["legal"])
    with pytest.raises(AlreadyAnswered):
        take(record, "ann", Reject(), roles=["tech"])


def test_the_same_decision_of_somebody_else_is_another_answer():
    record = take(asked(), "ann", Approve())
    with pytest.raises(AlreadyAnswered):
        take(record, "bob", Approve())


def test_another_comment_makes_another_answer():
    record = take(asked(), "ann", Approve())
    with pytest.raises(AlreadyAnswered):
        take(record, "ann", Approve(comment="on second thoughts"))


@pytest.mark.parametrize(("first", "second"), [(True, 1), (0, False), (1, 1.0)])
def test_values_that_python_calls_equal_are_different_answers(first, second):
    record = take(asked(), "ann", Respond(response=first))
    with pytest.raises(AlreadyAnswered):
        take(record, "ann", Respond(response=second))


def test_the_order_of_keys_makes_no_other_answer():
    record = take(asked(), "ann", Edit(subject={"a": 1, "b": 2}))
    assert take(record, "ann", Edit(subject={"b": 2, "a": 1})) is record


# --------------------------------------------------------------------------- refusing answers


def test_a_decided_request_refuses_a_different_answer_and_names_who_and_when():
    at = T0 + timedelta(minutes=7)
    record = take(asked(), "ann", Approve(), at=at)
    with pytest.raises(AlreadyAnswered) as caught:
        take(record, "bob", Reject())
    assert (caught.value.by, caught.value.at) == ("ann", at)
    assert caught.value.status is RequestStatus.APPROVED
    assert "ann" in str(caught.value)
    assert at.isoformat() in str(caught.value)


def test_a_second_vote_is_refused_and_the_first_is_named():
    at = T0 + timedelta(minutes=7)
    record = take(take(asked(QUORUM), "ann", Approve(), at=at), "bob", Abstain())
    with pytest.raises(AlreadyAnswered) as caught:
        take(record, "ann", Reject())
    assert (caught.value.by, caught.value.at, caught.value.status) == ("ann", at, OPEN)


def test_an_answer_to_another_request_is_refused():
    record = asked()
    answer = reply(record, "ann", Approve()).model_copy(update={"request_id": "other"})
    with pytest.raises(UnknownRequest, match="'other'"):
        take_answer(record, answer)


def test_an_answer_to_other_content_is_refused():
    record = asked()
    answer = reply(record, "ann", Approve()).model_copy(update={"digest": "0" * 64})
    with pytest.raises(StaleRequest, match="digest"):
        take_answer(record, answer)


def test_an_answer_to_an_earlier_draft_with_the_same_id_is_refused():
    earlier, record = asked(body="Pay 5 euros."), asked(body="Pay 500 euros.")
    with pytest.raises(StaleRequest, match="digest"):
        take_answer(record, reply(earlier, "ann", Approve()))


def test_an_answer_from_before_the_question_is_refused():
    with pytest.raises(StaleRequest, match="before the question"):
        take(asked(), "ann", Approve(), at=T0 - MICROSECOND)


def test_an_answer_at_the_instant_of_the_question_is_taken():
    assert take(asked(), "ann", Approve(), at=T0).status is RequestStatus.APPROVED


@pytest.mark.parametrize("late", [timedelta(0), MICROSECOND, timedelta(days=9)])
def test_an_answer_at_or_after_the_deadline_is_refused(late):
    with pytest.raises(RequestExpired) as caught:
        take(asked(TIMED), "ann", Approve(), at=DUE + late)
    assert caught.value.deadline == DUE


def test_an_answer_one_microsecond_before_the_deadline_is_taken():
    record = take(asked(TIMED), "ann", Approve(), at=DUE - MICROSECOND)
    assert record.status is RequestStatus.APPROVED


def test_a_stranger_is_refused():
    with pytest.raises(NotAllowed, match="for ann, role:legal") as caught:
        take(asked(ReviewPolicy(reviewers=("ann", "role:legal"))), "bob", Approve(), roles=["tech"])
    assert caught.value.by == "bob"


def test_a_barred_reviewer_is_refused_with_the_reason():
    policy = ReviewPolicy(reviewers=("ann", "bob"), barred={"ann": "wrote it"})
    with pytest.raises(NotAllowed, match="wrote it"):
        take(asked(policy), "ann", Approve())


@pytest.mark.parametrize(
    "decision",
    [
        Revise(feedback="shorter"),
        Edit(subject={}),
        Respond(response=1),
        Escalate("max"),
        Delegate(to="bob"),
        Abstain(),
    ],
    ids=lambda decision: decision.kind,
)
def test_a_decision_that_is_not_allowed_is_refused(decision):
    record = open_record(ReviewRequest(request_id="r", title="Pay?", created_at=T0))
    with pytest.raises(InvalidAnswer, match="allowed: approve, reject") as caught:
        take(record, "ann", decision)
    assert [problem.field for problem in caught.value.problems] == ["decision"]


def test_approving_is_refused_where_it_is_not_allowed():
    request = ReviewRequest(
        request_id="r", title="Colour?", created_at=T0, allowed=("respond",), response_schema={}
    )
    with pytest.raises(InvalidAnswer, match="'approve' is not allowed"):
        take(open_record(request), "ann", Approve())


@pytest.mark.parametrize("to", ["eve", "role:legal", "chief", ("max", "eve")])
def test_escalating_to_somebody_whom_the_request_does_not_name_is_refused(to):
    with pytest.raises(InvalidAnswer, match="cannot escalate to") as caught:
        take(asked(), "ann", Escalate(to))
    assert [problem.field for problem in caught.value.problems] == ["to"]


def test_a_refused_answer_can_be_corrected():
    record = asked()
    with pytest.raises(InvalidAnswer):
        take(record, "ann", Escalate("eve"))
    assert take(record, "ann", Escalate("max")).status is RequestStatus.ESCALATED


# --------------------------------------------------------------------------- delegation

PAIR = ReviewPolicy(reviewers=("ann", "bob"), approvals="all", rejections=2)


def test_a_delegation_lets_the_new_person_vote():
    record = take(asked(PAIR), "ann", Delegate(to="zoe"))
    record = take(take(record, "zoe", Approve()), "bob", Approve())
    assert (record.status, record.outcome.decided_by) == (RequestStatus.APPROVED, ("zoe", "bob"))


def test_a_delegation_keeps_the_votes_so_far():
    record = take(take(asked(PAIR), "bob", Approve()), "ann", Delegate(to="zoe"))
    assert (record.outcome.approvals, record.status) == (1, OPEN)
    assert take(record, "zoe", Approve()).status is RequestStatus.APPROVED


def test_a_delegation_leaves_what_was_asked_as_it_was():
    record = asked(PAIR)
    assert take(record, "ann", Delegate(to="zoe")).request is record.request


def test_who_delegated_has_no_vote_left():
    record = take(asked(PAIR), "ann", Delegate(to="zoe"))
    with pytest.raises(NotAllowed, match="delegated to zoe"):
        take(record, "ann", Approve())


def test_who_delegated_has_no_vote_left_by_role_either():
    record = take(
        asked(ReviewPolicy(reviewers=("role:legal",))), "ann", Delegate(to="zoe"), roles=["legal"]
    )
    with pytest.raises(NotAllowed, match="delegated to zoe"):
        take(record, "ann", Approve(), roles=["legal"])


def test_the_same_delegation_again_returns_the_very_same_record():
    record = take(asked(PAIR), "ann", Delegate(to="zoe"))
    assert take(record, "ann", Delegate(to="zoe")) is record


def test_where_a_role_is_asked_a_delegation_adds_one_person():
    record = take(
        asked(ReviewPolicy(reviewers=("role:legal",))), "ann", Delegate(to="zoe"), roles=["legal"]
    )
    assert take(record, "zoe", Approve()).status is RequestStatus.APPROVED
    assert take(record, "bob", Approve(), roles=["legal"]).status is RequestStatus.APPROVED


def test_where_anybody_may_answer_a_delegation_locks_nobody_else_out():
    record = take(asked(), "ann", Delegate(to="zoe"))
    assert take(record, "bob", Approve()).status is RequestStatus.APPROVED


def test_a_delegated_vote_can_be_delegated_again():
    record = take(asked(PAIR), "ann", Delegate(to="zoe"))
    record = take(record, "zoe", Delegate(to="yan"))
    with pytest.raises(NotAllowed):
        take(record, "zoe", Approve())
    record = take(take(record, "yan", Approve()), "bob", Approve())
    assert record.outcome.decided_by == ("yan", "bob")


def test_a_chain_of_delegations_is_no_circle():
    record = take(asked(PAIR), "ann", Delegate(to="zoe"))
    with pytest.raises(InvalidAnswer, match="ann may not answer: delegated to zoe"):
        take(record, "zoe", Delegate(to="ann"))


@pytest.mark.parametrize(
    ("to", "problem"),
    [
        ("ann", "oneself"),
        (" ann ", "oneself"),
        ("role:legal", "not to a role"),
        ("dee", "dee may not answer: wrote it"),
        ("bob", "bob has a vote of their own"),
    ],
)
def test_a_delegation_that_cannot_be_is_refused(to, problem):
    policy = PAIR.model_copy(update={"barred": {"dee": "wrote it"}})
    with pytest.raises(InvalidAnswer, match=problem) as caught:
        take(asked(policy), "ann", Delegate(to=to))
    assert [problem.field for problem in caught.value.problems] == ["to"]


def test_a_delegation_to_somebody_who_has_voted_is_refused():
    policy = ReviewPolicy(reviewers=("role:legal",), approvals=2)
    record = take(asked(policy), "bob", Approve(), roles=["legal"])
    with pytest.raises(InvalidAnswer, match="bob has a vote of their own"):
        take(record, "ann", Delegate(to="bob"), roles=["legal"])


def test_who_has_voted_cannot_delegate():
    record = take(asked(PAIR), "ann", Approve())
    with pytest.raises(AlreadyAnswered):
        take(record, "ann", Delegate(to="zoe"))


def test_a_stranger_cannot_delegate():
    with pytest.raises(NotAllowed):
        take(asked(PAIR), "eve", Delegate(to="zoe"))


def test_a_late_delegation_is_refused():
    with pytest.raises(RequestExpired):
        take(asked(TIMED), "ann", Delegate(to="zoe"), at=DUE)


# --------------------------------------------------------------------------- closing


CLOSING = (Command.EXPIRE, Command.GIVE_UP, Command.SUPERSEDE, Command.WITHDRAW)


@pytest.mark.parametrize("command", CLOSING)
def test_an_open_request_can_be_closed(command):
    record = close(asked(), command, at=DUE, reason="It is moot.")
    assert record.status is TRANSITIONS[OPEN][command]
    assert (record.closed_at, record.outcome.reason) == (DUE, "It is moot.")


@pytest.mark.parametrize("command", [c for c in Command if c not in CLOSING])
def test_no_other_command_closes_a_request(command):
    with pytest.raises(InvalidTransition):
        close(asked(), command, at=DUE, reason="")


@pytest.mark.parametrize("command", CLOSING)
def test_a_decided_request_cannot_be_closed_again(command):
    with pytest.raises(InvalidTransition):
        close(take(asked(), "ann", Approve()), command, at=DUE, reason="")


def test_closing_keeps_the_votes_so_far():
    record = close(
        take(asked(QUORUM), "ann", Approve()), Command.WITHDRAW, at=DUE, reason="It is moot."
    )
    assert (len(record.answers), record.outcome.approvals) == (1, 1)


@pytest.mark.parametrize(
    ("command", "policy", "details", "error", "words"),
    [
        (Command.EXPIRE, TIMED, {}, RequestExpired, "expired at"),
        (Command.SUPERSEDE, QUORUM, {"superseded_by": "r2"}, StaleRequest, "r2 has taken"),
        (Command.SUPERSEDE, QUORUM, {}, StaleRequest, "it is superseded"),
        (Command.WITHDRAW, QUORUM, {}, StaleRequest, "it is withdrawn"),
    ],
)
@pytest.mark.parametrize("voted", [False, True])
def test_a_closed_request_says_why_it_takes_no_answer(
    command, policy, details, error, words, voted
):
    record = asked(policy)
    if voted:
        record = take(record, "ann", Abstain())
    record = close(record, command, at=DUE, reason="It is moot.", **details)
    with pytest.raises(error, match=words):
        take(record, "bob", Approve())


def test_a_closed_request_still_knows_an_answer_that_it_took():
    record = close(
        take(asked(QUORUM), "ann", Approve()), Command.WITHDRAW, at=DUE, reason="It is moot."
    )
    assert take(record, "ann", Approve()) is record


# --------------------------------------------------------------------------- without a person


def ruled(verdict):
    return asked(rule=RuleResult(verdict=verdict, rule="small amounts"))


def ruling(record, decision, kind="rule"):
    by = Reviewer(id="rule:small amounts" if kind == "rule" else "ann", kind=kind)
    return Answer.to(record.request, decision, by=by, at=T0, channel="rule")


@pytest.mark.parametrize(
    ("decision", "status"),
    [
        (Approve(comment="It is small."), RequestStatus.APPROVED),
        (Reject(comment="It is small."), RequestStatus.REJECTED),
        (Escalate("max", comment="It is small."), RequestStatus.ESCALATED),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_a_rule_decides_on_the_record(decision, status):
    record = ruled(RuleVerdict.APPROVE)
    decided = decide_without_person(record, ruling(record, decision))
    assert (decided.status, decided.closed_at) == (status, T0)
    assert decided.answers[-1].by.kind == "rule"
    assert decided.outcome.decided_by == ("rule:small amounts",)
    assert decided.outcome.reason == "It is small."


@pytest.mark.parametrize("verdict", [RuleVerdict.ASK, RuleVerdict.REJECT])
def test_no_rule_approves_unless_its_verdict_was_to_approve(verdict):
    record = ruled(verdict)
    with pytest.raises(InvalidTransition):
        decide_without_person(record, ruling(record, Approve()))


def test_no_rule_approves_what_no_rule_was_asked_about():
    with pytest.raises(InvalidTransition):
        decide_without_person(asked(), ruling(asked(), Approve()))


@pytest.mark.parametrize(
    "decision",
    [
        Edit(subject={}),
        Respond(response=1),
        Revise(feedback="x"),
        Delegate(to="bob"),
        Abstain(),
    ],
    ids=lambda decision: decision.kind,
)
def test_no_rule_decides_otherwise(decision):
    record = ruled(RuleVerdict.APPROVE)
    with pytest.raises(InvalidTransition):
        decide_without_person(record, ruling(record, decision))


def test_no_person_passes_for_a_rule():
    record = ruled(RuleVerdict.APPROVE)
    with pytest.raises(InvalidTransition):
        decide_without_person(record, ruling(record, Approve(), kind="human"))


def test_no_rule_decides_what_is_decided():
    record = take(ruled(RuleVerdict.APPROVE), "ann", Reject())
    with pytest.raises(InvalidTransition):
        decide_without_person(record, ruling(record, Approve()))


def test_nobody_but_a_rule_inside_can_answer_as_a_rule():
    answer = Answer.to(asked().request, Approve(), by=Reviewer(id="rule:easy", kind="rule"), at=T0)
    with pytest.raises(NotAllowed, match="a rule decides before anybody is asked"):
        take_answer(asked(), answer)


@pytest.mark.parametrize("change", [{"request_id": "other"}, {"digest": "0" * 64}])
def test_a_rule_decides_on_its_own_request_only(change):
    record = asked(rule=RuleResult(verdict=RuleVerdict.APPROVE, rule="easy"))
    answer = ruling(record, Approve()).model_copy(update=change)
    with pytest.raises(StaleRequest, match="another one"):
        decide_without_person(record, answer)


@pytest.mark.parametrize("deadline", [T0, T0 - MICROSECOND])
def test_a_deadline_is_after_the_question(deadline):
    with pytest.raises(ValueError, match="deadline must be after"):
        asked(ReviewPolicy(deadline=deadline))
