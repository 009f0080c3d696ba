"""Who may answer, and what answers come to: properties against oracles, and cases by hand."""

from datetime import timedelta
from itertools import permutations, product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import (
    PEOPLE,
    ROLES,
    T0,
    any_vote,
    ballots,
    brief,
    plain_votes,
    thorough,
    vote,
    voting_policies,
)

from llama_index_hitl.models import (
    Abstain,
    Approve,
    Delegate,
    Edit,
    Escalate,
    Reject,
    RequestStatus,
    Respond,
    Reviewer,
    ReviewPolicy,
    Revise,
)
from llama_index_hitl.policies import approvals_needed, tally, why_not_allowed

OPEN = RequestStatus.OPEN
APPROVED = RequestStatus.APPROVED
REJECTED = RequestStatus.REJECTED
NO_QUORUM = RequestStatus.NO_QUORUM
EXPIRED = RequestStatus.EXPIRED

LATER = T0 + timedelta(days=1)
deadlines = st.none() | st.integers(0, 10).map(lambda minutes: T0 + timedelta(minutes=minutes))
moments = st.integers(0, 12).map(lambda minutes: T0 + timedelta(minutes=minutes))


# --------------------------------------------------------------------------- an oracle
# Written without a look at the code under test: it tries everything.


def may_vote(policy, person, roles):
    if person in policy.barred:
        return False
    entries = [person, *(f"role:{role}" for role in roles)]
    return not policy.reviewers or any(entry in policy.reviewers for entry in entries)


def seats_can_be_filled(policy, holders):
    """Try every way to put the approvers on the seats; holders maps a person to their roles."""
    seats = [role for role, count in policy.per_role.items() for _ in range(count)]
    return any(
        all(role in holders[person] for role, person in zip(seats, seated, strict=True))
        for seated in permutations(holders, len(seats))
    )


def is_approved(policy, holders):
    if policy.per_role:
        return seats_can_be_filled(policy, holders)
    if policy.approvals == "all":
        wanted = set(policy.reviewers) - set(policy.barred)
        return bool(wanted) and wanted <= set(holders)
    return len(holders) >= policy.approvals


def could_be_approved(policy, holders, voted):
    """Try every way in which those who have not voted could still approve."""
    if not policy.reviewers or any(entry.startswith("role:") for entry in policy.reviewers):
        return True  # there may always be somebody else
    left = [p for p in policy.reviewers if p not in voted and p not in policy.barred]
    choices = [None, *(policy.per_role or ["any"])]
    return any(
        is_approved(
            policy,
            holders | {p: {role} for p, role in zip(left, chosen, strict=True) if role is not None},
        )
        for chosen in product(choices, repeat=len(left))
    )


def expected_status(answers, policy):
    """Say what approvals, rejections and abstentions come to."""
    holders, voted, rejections = {}, set(), 0
    unreachable = NO_QUORUM if not could_be_approved(policy, holders, voted) else OPEN
    for answer in answers:
        person, roles = answer.by.id, answer.by.roles
        if person in voted or not may_vote(policy, person, roles):
            continue
        voted.add(person)
        if answer.decision == Approve():
            holders[person] = {answer.role} if answer.role else set(roles)
        if answer.decision == Reject():
            rejections += 1
            if rejections >= policy.rejections or set(roles) & set(policy.veto_roles):
                return REJECTED
        if is_approved(policy, holders):
            return APPROVED
        if not could_be_approved(policy, holders, voted):
            return NO_QUORUM
    return unreachable


# --------------------------------------------------------------------------- properties


@thorough
@given(answers=ballots(), policy=voting_policies())
def test_votes_come_to_what_trying_everything_says(answers, policy):
    assert tally(answers, policy, LATER).status is expected_status(answers, policy)


@thorough
@given(
    answers=ballots(votes=st.just(Approve())),
    policy=voting_policies(
        per_role=st.dictionaries(st.sampled_from(ROLES), st.integers(1, 2), min_size=1, max_size=3)
    ),
)
def test_one_person_never_fills_two_seats(answers, policy):
    assert tally(answers, policy, LATER).status is expected_status(answers, policy)


@thorough
@given(
    answers=ballots(),
    policy=voting_policies(by_id=True),
)
def test_no_quorum_is_said_exactly_when_nobody_left_could_approve(answers, policy):
    assert tally(answers, policy, LATER).status is expected_status(answers, policy)


@brief
@given(answers=ballots(any_vote), policy=voting_policies(deadlines), now=moments)
def test_the_same_answers_always_come_to_the_same(answers, policy, now):
    assert tally(answers, policy, now) == tally(iter(answers), policy.model_copy(), now)


@brief
@given(answers=ballots(any_vote), policy=voting_policies(deadlines), now=moments)
def test_once_decided_further_answers_change_nothing(answers, policy, now):
    outcomes = [tally(answers[:count], policy, now) for count in range(len(answers) + 1)]
    # Nothing yet to be counted, or out of time: both are about what is not there.
    first = next((o for o in outcomes[1:] if o.status not in (OPEN, EXPIRED)), None)
    if first is not None and outcomes[0].status is not NO_QUORUM:
        assert set(outcomes[outcomes.index(first) :]) == {first}


@brief
@given(
    answers=ballots(any_vote),
    policy=voting_policies(deadlines),
    now=moments,
    again=any_vote,
    data=st.data(),
)
def test_a_second_vote_of_a_person_changes_nothing(answers, policy, now, again, data):
    assume(answers)
    first = data.draw(st.integers(0, len(answers) - 1))
    place = data.draw(st.integers(first + 1, len(answers)))
    second = answers[first].model_copy(update={"decision": again})
    more = [*answers[:place], second, *answers[place:]]
    assert tally(more, policy, now) == tally(answers, policy, now)


@brief
@given(
    answers=ballots(any_vote),
    policy=voting_policies(deadlines),
    now=moments,
    decision=any_vote,
    roles=st.sets(st.sampled_from(ROLES)).map(tuple),
    data=st.data(),
)
def test_a_barred_reviewer_changes_nothing(answers, policy, now, decision, roles, data):
    policy = policy.model_copy(update={"barred": {**policy.barred, "zed": "wrote it"}})
    place = data.draw(st.integers(0, len(answers)))
    more = [*answers[:place], vote("zed", decision, roles=roles), *answers[place:]]
    assert tally(more, policy, now) == tally(answers, policy, now)


@brief
@given(
    answers=ballots(any_vote),
    policy=voting_policies(deadlines).filter(lambda p: p.reviewers),
    now=moments,
    decision=any_vote,
    data=st.data(),
)
def test_an_outsider_changes_nothing(answers, policy, now, decision, data):
    place = data.draw(st.integers(0, len(answers)))
    more = [*answers[:place], vote("zed", decision, roles=["intern"]), *answers[place:]]
    assert tally(more, policy, now) == tally(answers, policy, now)


@brief
@given(
    answers=ballots(any_vote),
    policy=voting_policies(moments),
    now=moments,
    decision=any_vote,
    late_by=st.sampled_from([timedelta(0), timedelta(microseconds=1), timedelta(days=9)]),
    data=st.data(),
)
def test_a_late_answer_changes_nothing(answers, policy, now, decision, late_by, data):
    place = data.draw(st.integers(0, len(answers)))
    late = vote(data.draw(st.sampled_from(PEOPLE)), decision, roles=ROLES)
    late = late.model_copy(update={"at": policy.deadline + late_by})
    assert tally([*answers[:place], late, *answers[place:]], policy, now) == tally(
        answers, policy, now
    )


@brief
@given(answers=ballots(any_vote), policy=voting_policies(deadlines), now=moments)
def test_it_expires_if_and_only_if_the_deadline_has_come_undecided(answers, policy, now):
    before = T0 - timedelta(days=1)
    undecided = tally(answers, policy, before).status in (OPEN, NO_QUORUM)
    due = policy.deadline is not None and now >= policy.deadline
    status = tally(answers, policy, now).status
    assert (status is EXPIRED) <= due
    assert (due and tally(answers, policy, before).status is OPEN) <= (status is EXPIRED)
    assert (status is EXPIRED) <= undecided


@brief
@given(answers=ballots(st.just(Abstain())), policy=voting_policies())
def test_abstentions_never_approve(answers, policy):
    assert tally(answers, policy, LATER).status in (OPEN, NO_QUORUM)


@brief
@given(answers=ballots(), policy=voting_policies(), person=st.sampled_from(PEOPLE))
def test_one_more_abstention_never_approves(answers, policy, person):
    assume(tally(answers, policy, LATER).status is not APPROVED)
    more = [*answers, vote(person, Abstain(), roles=ROLES)]
    assert tally(more, policy, LATER).status is not APPROVED


@brief
@given(answers=ballots(any_vote), policy=voting_policies(deadlines), now=moments)
def test_approved_means_enough_different_people_who_may_and_did_approve(answers, policy, now):
    outcome = tally(answers, policy, now)
    if outcome.status is APPROVED:
        approvers = {
            a.by.id
            for a in answers
            if a.decision.kind in ("approve", "edit")
            and may_vote(policy, a.by.id, a.by.roles)
            and (policy.deadline is None or a.at < policy.deadline)
        }
        assert len(approvers) >= outcome.needed >= 1
        assert len(set(outcome.decided_by)) == len(outcome.decided_by) == outcome.approvals
        assert set(outcome.decided_by) <= approvers


@brief
@given(
    answers=ballots(any_vote.filter(lambda d: d.kind not in ("approve", "edit"))),
    policy=voting_policies(deadlines),
    now=moments,
)
def test_nothing_but_an_approval_or_an_edit_approves(answers, policy, now):
    assert tally(answers, policy, now).status is not APPROVED


@brief
@given(needed=st.integers(1, 5), data=st.data())
def test_one_rejection_before_approval_rejects(needed, data):
    before = data.draw(st.integers(0, needed - 1))
    after = data.draw(st.lists(plain_votes, max_size=4))
    answers = [vote(f"p{n}", Approve()) for n in range(before)]
    answers.append(vote("ann", Reject()))
    answers += [vote(f"q{n}", decision) for n, decision in enumerate(after)]
    outcome = tally(answers, ReviewPolicy(approvals=needed), LATER)
    assert (outcome.status, outcome.decided_by) == (REJECTED, ("ann",))


# --------------------------------------------------------------------------- cases by hand


def test_one_approval_is_enough_by_default():
    outcome = tally([vote("ann", Approve())], ReviewPolicy(), LATER)
    assert (outcome.status, outcome.decided_by) == (APPROVED, ("ann",))


def test_the_outcome_counts_every_kind_of_vote():
    policy = ReviewPolicy(approvals=3, rejections=2)
    cast = [vote("ann", Approve()), vote("bob", Reject()), vote("cid", Abstain())]
    outcome = tally(cast, policy, LATER)
    counts = (outcome.approvals, outcome.needed, outcome.rejections, outcome.abstentions)
    assert (outcome.status, *counts) == (OPEN, 1, 3, 1, 1)


def test_deciders_are_named_in_the_order_of_their_answers():
    cast = [vote("eve", Approve()), vote("cid", Abstain()), vote("ann", Approve())]
    assert tally(cast, ReviewPolicy(approvals=2), LATER).decided_by == ("eve", "ann")


def test_a_veto_role_rejects_alone():
    policy = ReviewPolicy(approvals=2, rejections=3, veto_roles=("legal",))
    assert tally([vote("ann", Reject(), roles=["legal"])], policy, LATER).status is REJECTED


def test_without_the_veto_role_one_rejection_of_three_does_not_reject():
    policy = ReviewPolicy(approvals=2, rejections=3, veto_roles=("legal",))
    assert tally([vote("ann", Reject(), roles=["tech"])], policy, LATER).status is OPEN


def test_a_veto_holds_in_whatever_role_the_person_answers():
    policy = ReviewPolicy(approvals=2, rejections=3, veto_roles=("legal",))
    cast = [vote("ann", Reject(), roles=["tech", "legal"], role="tech")]
    assert tally(cast, policy, LATER).status is REJECTED


def test_enough_rejections_reject():
    policy = ReviewPolicy(approvals=3, rejections=2)
    cast = [vote("ann", Reject()), vote("bob", Approve()), vote("cid", Reject())]
    outcome = tally(cast, policy, LATER)
    assert (outcome.status, outcome.decided_by) == (REJECTED, ("ann", "cid"))


@pytest.mark.parametrize(
    ("decision", "status"),
    [
        (Revise(feedback="shorter"), RequestStatus.REVISED),
        (Respond(response=1), RequestStatus.RESPONDED),
        (Escalate("role:chief"), RequestStatus.ESCALATED),
        (Edit(subject={}), RequestStatus.EDITED),
    ],
)
def test_in_a_quorum_one_such_decision_closes_the_request(decision, status):
    policy = ReviewPolicy(approvals=3, rejections=3)
    outcome = tally([vote("ann", Approve()), vote("bob", decision)], policy, LATER)
    assert (outcome.status, outcome.decided_by) == (status, ("bob",))


def test_an_edit_approves_where_one_person_is_enough():
    assert tally([vote("ann", Edit(subject={}))], ReviewPolicy(), LATER).status is APPROVED


def test_an_edit_is_asked_anew_where_a_second_person_must_see_it():
    policy = ReviewPolicy(second_person_for_edit=True)
    assert tally([vote("ann", Edit(subject={}))], policy, LATER).status is RequestStatus.EDITED


def test_an_edit_is_asked_anew_where_roles_must_approve():
    policy = ReviewPolicy(per_role={"legal": 1})
    cast = [vote("ann", Edit(subject={}), roles=["legal"])]
    assert tally(cast, policy, LATER).status is RequestStatus.EDITED


def test_all_means_every_reviewer():
    policy = ReviewPolicy(reviewers=("ann", "bob"), approvals="all")
    assert tally([vote("ann", Approve())], policy, LATER).status is OPEN
    both = [vote("ann", Approve()), vote("bob", Approve())]
    assert tally(both, policy, LATER).status is APPROVED


def test_all_does_not_wait_for_a_barred_reviewer():
    policy = ReviewPolicy(reviewers=("ann", "bob"), approvals="all", barred={"bob": "wrote it"})
    assert approvals_needed(policy) == 1
    assert tally([vote("ann", Approve())], policy, LATER).status is APPROVED


def test_all_with_everybody_barred_can_not_be_reached():
    policy = ReviewPolicy(reviewers=("ann",), approvals="all", barred={"ann": "wrote it"})
    assert tally([], policy, LATER).status is NO_QUORUM


def test_a_reviewer_named_twice_counts_once():
    policy = ReviewPolicy(reviewers=("ann", "bob", "ann"), approvals="all")
    assert approvals_needed(policy) == 2


def test_an_abstention_makes_all_impossible():
    policy = ReviewPolicy(reviewers=("ann", "bob"), approvals="all")
    assert tally([vote("ann", Abstain())], policy, LATER).status is NO_QUORUM


def test_roles_that_those_left_may_hold_keep_the_request_open():
    policy = ReviewPolicy(reviewers=("ann", "bob", "cid"), per_role={"legal": 1, "tech": 1})
    cast = [vote("ann", Approve(), roles=["finance"])]
    assert tally(cast, policy, LATER).status is OPEN


def test_roles_that_nobody_left_can_fill_end_the_request():
    policy = ReviewPolicy(reviewers=("ann", "bob"), per_role={"legal": 1})
    cast = [vote("ann", Approve(), roles=["tech"]), vote("bob", Abstain(), roles=["legal"])]
    assert tally(cast, policy, LATER).status is NO_QUORUM


def test_who_holds_both_roles_makes_room_for_who_holds_one():
    policy = ReviewPolicy(per_role={"legal": 1, "tech": 1})
    cast = [
        vote("ann", Approve(), roles=["legal", "tech"]),
        vote("bob", Approve(), roles=["legal"]),
    ]
    assert tally(cast, policy, LATER).status is APPROVED


def test_who_holds_both_roles_fills_one_of_them():
    policy = ReviewPolicy(per_role={"legal": 1, "tech": 1})
    cast = [vote("ann", Approve(), roles=["legal", "tech"])]
    assert tally(cast, policy, LATER).status is OPEN


def test_a_stated_role_is_the_only_one_that_counts():
    policy = ReviewPolicy(per_role={"legal": 1})
    cast = [vote("ann", Approve(), roles=["legal", "tech"], role="tech")]
    assert tally(cast, policy, LATER).status is OPEN


def test_a_delegation_is_no_vote():
    outcome = tally([vote("ann", Delegate(to="bob"))], ReviewPolicy(), LATER)
    counts = (outcome.approvals, outcome.rejections, outcome.abstentions)
    assert (outcome.status, *counts) == (OPEN, 0, 0, 0)


DUE = ReviewPolicy(deadline=T0 + timedelta(minutes=5))


@pytest.mark.parametrize(
    ("offset", "status"),
    [
        (timedelta(microseconds=-1), APPROVED),
        (timedelta(0), OPEN),
        (timedelta(microseconds=1), OPEN),
    ],
)
def test_an_answer_at_the_deadline_is_late(offset, status):
    answer = vote("ann", Approve()).model_copy(update={"at": DUE.deadline + offset})
    assert tally([answer], DUE, T0).status is status


@pytest.mark.parametrize(
    ("offset", "status"),
    [
        (timedelta(microseconds=-1), OPEN),
        (timedelta(0), EXPIRED),
        (timedelta(microseconds=1), EXPIRED),
    ],
)
def test_an_undecided_request_expires_at_the_deadline(offset, status):
    assert tally([], DUE, DUE.deadline + offset).status is status


def test_an_answer_in_time_counts_after_the_deadline():
    assert tally([vote("ann", Approve(), minutes=4)], DUE, LATER).status is APPROVED


@pytest.mark.parametrize(
    ("entries", "person", "roles", "reason"),
    [
        ((), "ann", (), None),
        (("ann",), "ann", (), None),
        (("role:legal",), "ann", ("legal",), None),
        (("role:legal", "ann"), "ann", (), None),
        (("bob",), "ann", (), "the request is for bob"),
        (("role:legal",), "ann", ("tech",), "the request is for role:legal"),
        (("legal",), "ann", ("legal",), "the request is for legal"),
        (("role:legal",), "legal", (), "the request is for role:legal"),
    ],
)
def test_who_may_answer(entries, person, roles, reason):
    policy = ReviewPolicy(reviewers=entries)
    assert why_not_allowed(policy, Reviewer(id=person, roles=roles)) == reason


@pytest.mark.parametrize("reason", ["wrote it", ""])
def test_a_barred_person_may_not_answer_even_if_named(reason):
    policy = ReviewPolicy(reviewers=("ann", "role:legal"), barred={"ann": reason})
    assert why_not_allowed(policy, Reviewer(id="ann", roles=["legal"])) == reason


@pytest.mark.parametrize(
    ("policy", "needed"),
    [
        (ReviewPolicy(), 1),
        (ReviewPolicy(approvals=3), 3),
        (ReviewPolicy(approvals=3, per_role={"legal": 2, "tech": 2}), 4),
        (ReviewPolicy(reviewers=("ann", "bob", "cid"), approvals="all"), 3),
        (ReviewPolicy(reviewers=("ann",), approvals="all", barred={"ann": ""}), 1),
    ],
)
def test_how_many_approvals_are_needed(policy, needed):
    assert approvals_needed(policy) == needed
