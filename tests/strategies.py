"""Hypothesis strategies for the values of a review; every value they make is valid."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import settings
from hypothesis import strategies as st

from llama_index_hitl.models import (
    Abstain,
    Answer,
    Approve,
    DecisionKind,
    Delegate,
    Edit,
    Escalate,
    Evidence,
    Expire,
    Feedback,
    Reject,
    Remind,
    Respond,
    Reviewer,
    ReviewPolicy,
    ReviewRequest,
    Revise,
    RuleResult,
    RuleVerdict,
    Rung,
    StageApproval,
    Subject,
    Widen,
    closing_rung,
)

thorough = settings(max_examples=120, deadline=None)
"""For comparisons with an oracle; no limit per example, as machines are slow at times."""

brief = settings(max_examples=40, deadline=None)
"""For everything else."""

T0 = datetime(2025, 3, 1, 12, tzinfo=UTC)

identifiers = st.text("abcxyzÄß日0189-_.@", min_size=1, max_size=12)
lines = st.text(max_size=30)
texts = st.text(max_size=60)
words = st.text("abcxyz, .!\n", min_size=1, max_size=40).filter(str.strip)
finite_floats = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite_floats | lines,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(lines, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(lines, json_values, max_size=4)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=offsets)  # noqa: DTZ001


def tuples_of(elements, *, min_size=0, max_size=3, unique=False):
    return st.lists(elements, min_size=min_size, max_size=max_size, unique=unique).map(tuple)


reviewers = st.builds(
    Reviewer,
    id=identifiers,
    roles=tuples_of(identifiers),
    name=st.none() | lines,
    kind=st.sampled_from(["human", "rule"]),
)

comments = st.none() | texts
decisions = st.one_of(
    st.builds(Approve, comment=comments),
    st.builds(Reject, comment=comments),
    st.builds(Revise, feedback=words, comment=comments),
    st.builds(Edit, subject=json_objects, comment=comments),
    st.builds(Respond, response=json_values, comment=comments),
    st.builds(Escalate, to=tuples_of(identifiers), comment=comments),
    st.builds(Delegate, to=identifiers, comment=comments),
    st.builds(Abstain, comment=comments),
)


@st.composite
def answers(draw, decisions=decisions):
    by = draw(reviewers)
    return Answer(
        request_id=draw(identifiers),
        digest=draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        decision=draw(decisions),
        by=by,
        role=draw(st.sampled_from([None, *by.roles])),
        channel=draw(identifiers),
        at=draw(instants),
    )


@st.composite
def policies(draw):
    persons = draw(tuples_of(identifiers, max_size=4, unique=True))
    roles = draw(tuples_of(identifiers.map(lambda name: f"role:{name}"), max_size=2))
    per_role = draw(st.dictionaries(identifiers, st.integers(1, 3), max_size=2))
    most = len(persons) if persons and not roles and not per_role else 5
    counts = st.integers(1, most)
    return ReviewPolicy(
        reviewers=(*persons, *roles),
        approvals=draw(counts | st.just("all") if persons and not roles else counts),
        per_role=per_role,
        rejections=draw(st.integers(1, 3)),
        veto_roles=draw(tuples_of(identifiers)),
        barred=draw(st.dictionaries(identifiers, lines, max_size=2)),
        second_person_for_edit=draw(st.booleans()),
        deadline=draw(st.none() | instants),
    )


subjects = st.builds(Subject, type=lines, data=json_objects, json_schema=json_objects)
evidence = st.builds(
    Evidence,
    title=lines,
    body=texts,
    source=st.none() | lines,
    score=st.none() | finite_floats,
)
feedback = st.builds(Feedback, revision=st.integers(1, 9), by=identifiers, at=instants, text=texts)
stage_approvals = st.builds(
    StageApproval,
    stage=identifiers,
    request_id=identifiers,
    answers=tuples_of(answers(), max_size=2),
)
rule_results = st.builds(
    RuleResult, verdict=st.sampled_from(RuleVerdict), rule=identifiers, reason=texts
)
deadline_actions = st.one_of(
    st.just(Expire()),
    st.builds(Reject, comment=comments),
    st.builds(Escalate, to=tuples_of(identifiers), comment=comments),
)


final_actions = st.one_of(st.just(Expire()), st.builds(Reject, comment=comments))
spans = st.timedeltas(timedelta(microseconds=1), timedelta(days=200))


@st.composite
def ladders(draw, start):
    """Ladders that can be climbed from an instant on: several escalations, at most one end."""
    people = tuples_of(identifiers, min_size=1)
    steps = st.just(Remind()) | st.builds(Widen, people) | st.builds(Escalate, people)
    actions = draw(st.lists(steps, max_size=4))
    actions += draw(st.lists(final_actions, min_size=not actions, max_size=1))
    instants = sorted(draw(st.sets(spans, min_size=len(actions), max_size=len(actions))))
    return tuple(
        Rung(at=start + after, action=action)
        for after, action in zip(instants, actions, strict=True)
    )


@st.composite
def requests(draw):
    allowed = draw(tuples_of(st.sampled_from(DecisionKind), min_size=1, max_size=8, unique=True))
    editable, answerable = DecisionKind.EDIT in allowed, DecisionKind.RESPOND in allowed
    on_deadline = draw(deadline_actions)
    created_at, policy, ladder = draw(instants), draw(policies()), ()
    if policy.deadline is not None:
        later = created_at + draw(st.timedeltas(timedelta(seconds=1), timedelta(days=999)))
        policy = policy.model_copy(update={"deadline": later})
    elif policy.approvals != "all" and draw(st.booleans()):
        ladder = draw(ladders(created_at))
        if (closing := closing_rung(ladder)) is not None:
            policy = policy.model_copy(update={"deadline": closing.at})
            on_deadline = closing.action
    chiefs_needed = DecisionKind.ESCALATE in allowed or on_deadline.kind == "escalate"
    return ReviewRequest(
        request_id=draw(identifiers),
        run_id=draw(lines),
        workflow=draw(lines),
        gate=draw(identifiers),
        stage=draw(st.none() | identifiers),
        title=draw(lines),
        body=draw(texts),
        subject=draw(subjects if editable else st.none() | subjects),
        evidence=draw(tuples_of(evidence, max_size=2)),
        previous=draw(st.none() | subjects),
        feedback=draw(tuples_of(feedback, max_size=2)),
        allowed=allowed,
        response_schema=draw(json_objects if answerable else st.none() | json_objects),
        policy=policy,
        escalate_to=draw(tuples_of(identifiers, min_size=chiefs_needed)),
        on_deadline=on_deadline,
        ladder=ladder,
        requester=draw(st.none() | identifiers),
        created_at=created_at,
        revision=draw(st.integers(1, 99)),
        sent_back=draw(st.integers(0, 99)),
        max_revisions=draw(st.none() | st.integers(0, 9)),
        level=draw(st.integers(0, 5)),
        supersedes=draw(st.none() | identifiers),
        rule=draw(st.none() | rule_results),
        approvals=draw(tuples_of(stage_approvals, max_size=2)),
        priority=draw(st.sampled_from(["low", "normal", "high", "urgent"])),
        tags=draw(tuples_of(identifiers)),
    )


# --------------------------------------------------------------------------- votes

PEOPLE = ("ann", "bob", "cid", "dee", "eve")
ROLES = ("legal", "finance", "tech")

staffs = st.fixed_dictionaries(
    {person: tuples_of(st.sampled_from(ROLES), max_size=3, unique=True) for person in PEOPLE}
)
"""Who holds which roles."""

plain_votes = st.sampled_from([Approve(), Reject(), Abstain()])
any_vote = st.sampled_from(
    [
        Approve(),
        Reject(),
        Abstain(),
        Edit(subject={"amount": 1}),
        Revise(feedback="shorter"),
        Respond(response="yes"),
        Escalate(to="role:chief"),
        Delegate(to="zoe"),
    ]
)


def vote(person, decision, *, roles=(), role=None, minutes=0, request_id="r", digest="d"):
    return Answer(
        request_id=request_id,
        digest=digest,
        decision=decision,
        by=Reviewer(id=person, roles=roles),
        role=role,
        at=T0 + timedelta(minutes=minutes),
    )


@st.composite
def ballots(draw, votes=plain_votes, people=PEOPLE, max_size=7):
    """Answers to one request, in order; people may answer more than once."""
    staff = draw(staffs)
    cast = []
    for person in draw(st.lists(st.sampled_from(people), max_size=max_size)):
        role = draw(st.sampled_from([None, *staff[person]]))
        minutes = draw(st.integers(0, 10))
        decision = draw(votes)
        cast.append(vote(person, decision, roles=staff[person], role=role, minutes=minutes))
    return cast


@st.composite
def voting_policies(draw, deadline=None, *, per_role=None, by_id=False):
    """Policies over PEOPLE and ROLES; `by_id` names at least one person, and no roles."""
    persons = draw(tuples_of(st.sampled_from(PEOPLE), min_size=by_id, max_size=5, unique=True))
    role_entries = st.sampled_from([(), ("role:legal",), ("role:tech", "role:finance")])
    roles = () if by_id else draw(role_entries)
    seats = st.dictionaries(st.sampled_from(ROLES), st.integers(1, 2), max_size=3)
    by_role = draw(seats if per_role is None else per_role)
    most = len(persons) if persons and not roles and not by_role else 4
    counts = st.integers(1, most)
    return ReviewPolicy(
        reviewers=(*persons, *roles),
        approvals=draw(counts | st.just("all") if persons and not roles else counts),
        per_role=by_role,
        rejections=draw(st.integers(1, 3)),
        veto_roles=draw(tuples_of(st.sampled_from(ROLES), max_size=1)),
        barred=dict.fromkeys(draw(tuples_of(st.sampled_from(PEOPLE), max_size=2)), "wrote it"),
        second_person_for_edit=draw(st.booleans()),
        deadline=None if deadline is None else draw(deadline),
    )
