"""The values: closed, frozen, bound by a digest, and the same after a trip through JSON."""

import copy
import inspect
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from strategies import T0, answers, brief, decisions, policies, requests, reviewers

from llama_index_hitl import models
from llama_index_hitl.models import (
    Abstain,
    Answer,
    Approve,
    Decision,
    DecisionKind,
    Delegate,
    Edit,
    Escalate,
    Evidence,
    Expire,
    Feedback,
    GrantOffer,
    GrantTerms,
    Outcome,
    Reject,
    Remind,
    RequestStatus,
    Respond,
    Reviewer,
    ReviewPolicy,
    ReviewRecord,
    ReviewRequest,
    Revise,
    RuleResult,
    RuleVerdict,
    Rung,
    SpotCheck,
    StageApproval,
    Subject,
    Value,
    Widen,
    digest_of,
)

GOLDEN = Path(__file__).parent / "golden"
DECISION = TypeAdapter(Decision)
NOT_JSON = [float("nan"), float("inf"), float("-inf"), "half a character: \ud83d"]

INVOICE = Subject(type="Invoice", data={"amount": 500, "lines": [{"text": "paper"}]})
DESK = Answer(
    request_id="desk-1",
    digest="d",
    decision=Approve(),
    by=Reviewer(id="cid", roles=["desk"]),
    at=T0,
)
REQUEST = ReviewRequest(
    request_id="legal-1",
    run_id="run-1",
    workflow="Payments",
    gate="legal",
    stage="law",
    title="Pay the invoice?",
    body="It is due.",
    subject=INVOICE,
    evidence=(Evidence(title="Contract", body="§ 5", source="drive", score=0.5),),
    previous=Subject(type="Invoice", data={"amount": 600}),
    feedback=(Feedback(revision=1, by="ann", at=T0, text="too much"),),
    allowed=tuple(DecisionKind),
    response_schema={"type": "string"},
    policy=ReviewPolicy(
        reviewers=("ann", "role:legal"),
        per_role={"legal": 2},
        veto_roles=("legal",),
        barred={"bob": "wrote it"},
        deadline=T0 + timedelta(days=1),
    ),
    escalate_to=("role:chief",),
    on_deadline=Escalate("role:chief"),
    requester="bob",
    created_at=T0,
    revision=2,
    sent_back=1,
    max_revisions=3,
    level=1,
    supersedes="legal-0",
    rule=RuleResult(verdict=RuleVerdict.ASK, rule="large", reason="amount 500 is above 100"),
    approvals=(StageApproval(stage="desk", request_id="desk-1", answers=(DESK,)),),
    priority="high",
    tags=("invoice",),
)
ANSWER = Answer.to(
    REQUEST,
    Revise(feedback="cheaper", comment="really"),
    by=Reviewer(id="ann", roles=("legal",), name="Ann"),
    at=T0,
    role="legal",
    channel="web",
)
RECORD = ReviewRecord(
    request=REQUEST, policy=REQUEST.policy, outcome=Outcome(status=RequestStatus.OPEN)
)
VALUES = [
    REQUEST,
    ANSWER,
    ANSWER.by,
    INVOICE,
    REQUEST.policy,
    REQUEST.rule,
    *REQUEST.evidence,
    *REQUEST.feedback,
    *REQUEST.approvals,
    Outcome(status=RequestStatus.OPEN),
    RECORD,
    Expire(),
    Remind(),
    Widen("role:legal"),
    Rung(at=T0, action=Widen("role:legal")),
    Approve(comment="ok"),
    Reject(),
    Revise(feedback="shorter"),
    Edit(subject={"amount": 5}),
    Respond(response=[1, "two"]),
    Escalate("role:chief"),
    Delegate(to="bob"),
    Abstain(),
    GrantTerms(arguments="same", at_most={"amount": "500"}, until=T0, uses=3),
    GrantOffer(tool="transfer", agent="teller", version="v"),
    SpotCheck(right=False, by="ann", at=T0, comment="too much"),
]
each_value = pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)


def ask(**fields):
    return ReviewRequest(request_id="r", title="Pay?", created_at=T0, **fields)


# --------------------------------------------------------------------------- every value


def test_no_value_is_forgotten_here():
    public = {
        cls
        for _, cls in inspect.getmembers(models, inspect.isclass)
        if issubclass(cls, Value) and cls is not Value and not cls.__name__.startswith("_")
    }
    assert {type(value) for value in VALUES} == public


@each_value
def test_an_unknown_field_is_refused(value):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        type(value)(**value.model_dump(), surprise=1)


@each_value
def test_an_unknown_field_in_json_is_refused(value):
    raw = json.dumps({**value.model_dump(mode="json"), "surprise": 1})
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        type(value).model_validate_json(raw)


@each_value
def test_no_field_can_be_set(value):
    for name in type(value).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(value, name, getattr(value, name))


@each_value
def test_json_brings_back_the_same_value(value):
    assert type(value).model_validate_json(value.model_dump_json()) == value


@each_value
def test_what_python_dumps_it_also_takes(value):
    assert type(value).model_validate(value.model_dump()) == value


@pytest.mark.parametrize("value", NOT_JSON, ids=repr)
@pytest.mark.parametrize(
    "make",
    [
        lambda value: Respond(response=value),
        lambda value: Respond(response={"deep": [value]}),
        lambda value: Edit(subject={"amount": value}),
        lambda value: Subject(type="Invoice", data={"amount": value}),
        lambda value: Subject(type="Invoice", data={}, json_schema={"default": value}),
        lambda value: ask(response_schema={"default": value}),
        lambda value: Evidence(title="Score", score=value),
    ],
)
def test_what_json_cannot_hold_is_refused(make, value):
    with pytest.raises(ValidationError):
        make(value)


# --------------------------------------------------------------------------- round trips


@brief
@given(requests())
def test_json_brings_back_the_same_request(request):
    restored = ReviewRequest.model_validate_json(request.model_dump_json())
    assert restored == request
    assert restored.model_dump_json() == request.model_dump_json()


@brief
@given(answers())
def test_json_brings_back_the_same_answer(answer):
    restored = Answer.model_validate_json(answer.model_dump_json())
    assert restored == answer
    assert restored.same_as(answer)
    assert restored.model_dump_json() == answer.model_dump_json()


@brief
@given(policies())
def test_json_brings_back_the_same_policy(policy):
    assert ReviewPolicy.model_validate_json(policy.model_dump_json()) == policy


@brief
@given(decisions)
def test_the_kind_alone_says_which_decision_it_is(decision):
    restored = DECISION.validate_json(decision.model_dump_json())
    assert type(restored) is type(decision)
    assert restored == decision


@brief
@given(
    st.dictionaries(
        st.sampled_from(["kind", "to", "self", "cls", "comment", "subject", "x"]),
        st.sampled_from(["approve", "escalate", "revise", "edit", "", "self"])
        | st.none()
        | st.integers()
        | st.lists(st.text(max_size=3), max_size=2),
    )
)
def test_whatever_comes_in_is_a_decision_or_a_validation_error(raw):
    try:
        decision = DECISION.validate_python(raw)
    except ValidationError:
        return
    assert decision.kind == raw["kind"]


@pytest.mark.parametrize("kind", DecisionKind)
@pytest.mark.parametrize("name", ["self", "cls", "data", "__init__", "model_config"])
def test_a_field_that_is_named_like_something_of_pythons_is_unknown(kind, name):
    raw = next(v for v in VALUES if getattr(v, "kind", None) == kind).model_dump(mode="json")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        DECISION.validate_json(json.dumps({**raw, name: 1}))


# --------------------------------------------------------------------------- the digest

CHANGED = {
    "request_id": "legal-2",
    "run_id": "run-2",
    "workflow": "Refunds",
    "gate": "desk",
    "stage": None,
    "title": "Pay the invoice",
    "body": "It is due!",
    "subject": {"type": "Invoice", "data": {"amount": 5000}, "json_schema": {}},
    "evidence": [],
    "previous": None,
    "feedback": [],
    "allowed": ["approve"],
    "response_schema": {"type": "number"},
    "policy": {"reviewers": ["eve"]},
    "escalate_to": ["eve"],
    "on_deadline": {"kind": "expire"},
    "ladder": [
        {"at": "2025-03-02T12:00:00Z", "action": {"kind": "escalate", "to": ["role:chief"]}}
    ],
    "path": ["Parent.delegate"],
    "grantable": {"tool": "transfer", "agent": "teller", "version": "v"},
    "requester": "eve",
    "created_at": "2025-03-01T12:00:01Z",
    "revision": 1,
    "sent_back": 0,
    "max_revisions": None,
    "level": 0,
    "supersedes": None,
    "rule": None,
    "approvals": [],
    "priority": "low",
    "tags": ["invoice", "urgent"],
}


@pytest.mark.parametrize(
    "name", sorted(ReviewRequest.model_fields.keys() - {"schema_version", "digest"})
)
def test_a_changed_field_no_longer_fits_the_digest(name):
    raw = {**REQUEST.model_dump(mode="json"), name: CHANGED[name]}
    with pytest.raises(ValidationError, match="the digest of request"):
        ReviewRequest.model_validate(raw)


@pytest.mark.parametrize("digest", ["0" * 64, REQUEST.digest.upper(), REQUEST.digest[:-1], " "])
def test_a_changed_digest_is_refused(digest):
    raw = {**REQUEST.model_dump(mode="json"), "digest": digest}
    with pytest.raises(ValidationError, match="does not match"):
        ReviewRequest.model_validate_json(json.dumps(raw))


def leaves_of(value, path=()):
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else None
    )
    if items is None:
        yield path
        return
    for key, item in items:
        yield from leaves_of(item, (*path, key))


def changed(value):
    """Return another value, of the same type where there is one."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1 if value + 1 != value else 0
        case str():
            return value + "x"
        case _:
            return "x"


@brief
@given(request=requests(), data=st.data())
def test_a_change_anywhere_in_the_json_is_noticed(request, data):
    raw = request.model_dump(mode="json")
    *way, last = data.draw(st.sampled_from(list(leaves_of(raw))))
    place = raw
    for key in way:
        place = place[key]
    place[last] = changed(place[last])
    with pytest.raises(ValidationError):
        ReviewRequest.model_validate(raw)


def test_the_digest_is_sha_256_over_canonical_json():
    shown = REQUEST.model_dump(mode="json", exclude={"digest"})
    assert REQUEST.digest == digest_of(shown)
    assert len(REQUEST.digest) == 64


def test_the_digest_is_the_same_in_every_process():
    # A literal: requests stored by an earlier version must fit this one.
    expected = "4b12564ba8344d191c82cc500017c21887ae57ff2cd79203f3afc1500a4f50d5"
    assert digest_of({"b": [1, 2.5, None], "a": "ä"}) == expected


def test_the_digest_does_not_depend_on_the_order_of_keys():
    assert ask(subject=Subject(type="T", data={"a": 1, "b": 2})).digest == (
        ask(subject=Subject(type="T", data={"b": 2, "a": 1})).digest
    )


def test_different_requests_have_different_digests():
    assert ask().digest != ask(body="?").digest


def test_a_copy_with_other_content_is_refused_when_it_is_read():
    forged = REQUEST.model_copy(update={"body": "It is a present."})
    with pytest.raises(ValidationError, match="does not match"):
        ReviewRequest.model_validate_json(forged.model_dump_json())


def test_a_record_with_a_forged_request_is_refused():
    raw = RECORD.model_dump(mode="json")
    raw["request"]["subject"]["data"]["amount"] = 5000
    with pytest.raises(ValidationError, match="does not match"):
        ReviewRecord.model_validate(raw)


def test_what_the_caller_changes_later_does_not_change_the_request():
    data = {"lines": [{"text": "paper"}]}
    request = ask(subject=Subject(type="Invoice", data=data))
    before = copy.deepcopy(request)
    data["lines"][0]["text"] = "gold"
    data["lines"].append({"text": "more"})
    assert request == before


# --------------------------------------------------------------------------- answers


def test_an_answer_to_a_request_carries_its_id_and_digest():
    assert (ANSWER.request_id, ANSWER.digest) == (REQUEST.request_id, REQUEST.digest)


def test_a_plain_id_stands_for_a_person_without_roles():
    assert Answer.to(REQUEST, Approve(), by="ann", at=T0).by == Reviewer(id="ann")


def test_a_role_that_is_not_held_is_refused():
    with pytest.raises(ValidationError, match="ann does not hold the role 'tech'"):
        Answer.to(REQUEST, Approve(), by=Reviewer(id="ann", roles=["legal"]), at=T0, role="tech")


def test_who_holds_no_role_cannot_answer_in_one():
    with pytest.raises(ValidationError, match="holds: none"):
        Answer.to(REQUEST, Approve(), by="ann", at=T0, role="legal")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"at": T0 + timedelta(days=1)}, True),
        ({"channel": "console"}, True),
        ({"role": None}, True),
        ({"by": Reviewer(id="ann")}, True),
        ({"request_id": "legal-2"}, False),
        ({"by": Reviewer(id="bob")}, False),
        ({"decision": Revise(feedback="cheaper")}, False),
        ({"decision": Approve(comment="really")}, False),
    ],
)
def test_which_answers_say_the_same(change, same):
    assert ANSWER.same_as(ANSWER.model_copy(update=change)) is same


def test_answers_that_differ_in_the_kind_of_a_value_do_not_say_the_same():
    yes, one = (Answer.to(REQUEST, Respond(response=v), by="ann", at=T0) for v in (True, 1))
    assert not yes.same_as(one)


def test_the_comment_of_an_answer_is_that_of_its_decision():
    assert ANSWER.comment == "really"


# --------------------------------------------------------------------------- decisions


@pytest.mark.parametrize("to", ["role:chief", ["role:chief"], ("role:chief",)], ids=repr)
def test_escalate_takes_one_entry_or_several_by_position(to):
    assert Escalate(to).to == ("role:chief",)
    assert Escalate(to=to).to == ("role:chief",)


def test_escalate_takes_nobody_in_particular():
    assert Escalate().to == ()


@pytest.mark.parametrize("feedback", ["", " ", "\n\t "], ids=repr)
def test_blank_feedback_is_refused(feedback):
    with pytest.raises(ValidationError, match="at least 1 character"):
        Revise(feedback=feedback)


def test_feedback_is_needed():
    with pytest.raises(ValidationError, match="feedback"):
        Revise.model_validate({})


@pytest.mark.parametrize("make", [lambda: Delegate(to=" "), lambda: Escalate(" ")])
def test_a_blank_name_is_refused(make):
    with pytest.raises(ValidationError, match="at least 1 character"):
        make()


@pytest.mark.parametrize("raw", [{}, {"kind": "yes"}, {"kind": None}, "approve", None, True])
def test_nothing_but_a_known_kind_is_a_decision(raw):
    with pytest.raises(ValidationError):
        DECISION.validate_python(raw)


def test_every_kind_of_decision_has_a_model():
    kinds = {value.kind for value in VALUES if hasattr(value, "kind")}
    assert set(DecisionKind) <= kinds


@pytest.mark.parametrize("action", [Approve(), {"kind": "approve"}], ids=repr)
def test_silence_is_never_consent(action):
    with pytest.raises(ValidationError, match="'approve' found"):
        ask(on_deadline=action)


@pytest.mark.parametrize(
    "action", [Edit(subject={}), Respond(response=1), Delegate(to="bob"), Abstain()]
)
def test_nothing_else_happens_at_a_deadline(action):
    with pytest.raises(ValidationError, match="on_deadline"):
        ask(on_deadline=action)


def test_a_model_may_be_given_where_its_values_are_meant():
    place = Evidence(title="Bern", score=1)
    written = place.model_dump(mode="json")
    assert Edit(subject=place) == Edit(subject=written)
    assert Respond(response=place) == Respond(response=written)


def test_who_approved_a_stage_are_those_who_approved_or_edited():
    cast = [Approve(), Abstain(), Edit(subject={}), Reject(), Delegate(to="zoe")]
    answers = tuple(
        Answer.to(REQUEST, decision, by=f"p{n}", at=T0) for n, decision in enumerate(cast)
    )
    stage = StageApproval(stage="law", request_id=REQUEST.request_id, answers=answers)
    assert stage.approvers == ("p0", "p2")


# --------------------------------------------------------------------------- requests and policies

NAIVE = datetime(2025, 3, 1)  # noqa: DTZ001


@pytest.mark.parametrize(
    "make",
    [
        lambda: Answer.to(REQUEST, Approve(), by="ann", at=NAIVE),
        lambda: ReviewRequest(request_id="r", title="Pay?", created_at=NAIVE),
        lambda: ReviewPolicy(deadline=NAIVE),
        lambda: Feedback(revision=1, by="ann", at=NAIVE, text="x"),
        lambda: ReviewRecord.model_validate({**RECORD.model_dump(), "closed_at": NAIVE}),
    ],
)
def test_an_instant_without_a_time_zone_is_refused(make):
    with pytest.raises(ValidationError, match="timezone"):
        make()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"allowed": ()}, "at least one decision"),
        ({"allowed": ("respond",)}, "response_schema"),
        ({"allowed": ("edit",)}, "without a subject"),
        ({"allowed": ("escalate",)}, "escalate_to"),
        ({"on_deadline": Escalate()}, "somebody to escalate to"),
        ({"allowed": ("yes",)}, "allowed"),
        ({"revision": 0}, "revision"),
        ({"sent_back": -1}, "sent_back"),
        ({"max_revisions": -1}, "max_revisions"),
        ({"level": -1}, "level"),
        ({"priority": "soon"}, "priority"),
        ({"schema_version": 2}, "schema_version"),
        ({"gate": " "}, "gate"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        ask(**fields)


def test_a_request_can_be_approved_or_rejected_by_default():
    assert ask().allowed == (DecisionKind.APPROVE, DecisionKind.REJECT)


def test_the_deadline_of_a_request_is_that_of_its_policy():
    assert (ask().deadline, REQUEST.deadline) == (None, T0 + timedelta(days=1))


@pytest.mark.parametrize("entries", [(), ("role:legal",), ("ann", "role:legal")], ids=repr)
def test_all_approvals_of_a_role_are_refused(entries):
    with pytest.raises(ValidationError, match="approvals='all' needs reviewers that are persons"):
        ReviewPolicy(reviewers=entries, approvals="all")


@pytest.mark.parametrize(
    ("entries", "approvals"), [(("ann",), 2), (("ann", "ann"), 2), (("ann", "bob"), 3)]
)
def test_more_approvals_than_persons_are_refused(entries, approvals):
    with pytest.raises(ValidationError, match="approvals cannot come from"):
        ReviewPolicy(reviewers=entries, approvals=approvals)


@pytest.mark.parametrize("entries", [(), ("role:legal",), ("ann", "role:legal")], ids=repr)
def test_nobody_knows_how_many_hold_a_role(entries):
    assert ReviewPolicy(reviewers=entries, approvals=9).approvals == 9


@pytest.mark.parametrize(
    "fields",
    [
        {"approvals": 0},
        {"approvals": -1},
        {"approvals": "some"},
        {"rejections": 0},
        {"per_role": {"legal": 0}},
        {"reviewers": ("",)},
    ],
    ids=repr,
)
def test_a_policy_without_a_threshold_is_refused(fields):
    with pytest.raises(ValidationError):
        ReviewPolicy(**fields)


@pytest.mark.parametrize(
    "fields", [{"veto_roles": ("role:legal",)}, {"per_role": {"role:legal": 1}}], ids=repr
)
def test_a_role_with_a_prefix_where_it_would_match_nobody_is_refused(fields):
    with pytest.raises(ValidationError, match="without 'role:'"):
        ReviewPolicy(**fields)


@pytest.mark.parametrize(
    "fields", [{"id": "role:legal"}, {"id": " role:legal"}, {"id": "ann", "roles": ["role:legal"]}]
)
def test_no_person_passes_for_a_role(fields):
    with pytest.raises(ValidationError, match="without 'role:'"):
        Reviewer(**fields)


@pytest.mark.parametrize(
    ("policy", "single"),
    [
        (ReviewPolicy(), True),
        (ReviewPolicy(approvals=2), False),
        (ReviewPolicy(per_role={"legal": 1}), False),
        (ReviewPolicy(reviewers=("ann",), approvals="all"), False),
    ],
)
def test_when_one_approval_of_one_person_is_enough(policy, single):
    assert policy.single is single


@brief
@given(reviewers)
def test_names_are_kept_without_the_blanks_around_them(reviewer):
    padded = Reviewer.model_validate({**reviewer.model_dump(), "id": f"  {reviewer.id}\n"})
    assert padded == reviewer


# --------------------------------------------------------------------------- the schemas


def schema_of(model):
    return json.dumps(model.model_json_schema(), indent=2, sort_keys=True, ensure_ascii=False)


SCHEMAS = {"review_request": ReviewRequest, "answer": Answer}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_is_the_one_that_front_ends_and_stored_data_rely_on(name):
    pinned = (GOLDEN / f"{name}.schema.json").read_text(encoding="utf-8").rstrip("\n")
    assert schema_of(SCHEMAS[name]) == pinned, (
        f"The JSON schema of {SCHEMAS[name].__name__} has changed. Stored requests and other "
        "programs rely on it: undo the change, or raise schema_version, say in the models how the "
        "older version is read, and write the new schema with `python tests/test_models.py`."
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_another_version_of_the_schema_is_refused(name):
    value = {"review_request": REQUEST, "answer": ANSWER}[name]
    raw = {**value.model_dump(mode="json"), "schema_version": 2}
    with pytest.raises(ValidationError, match="schema_version"):
        type(value).model_validate(raw)


if __name__ == "__main__":
    for name, model in SCHEMAS.items():
        (GOLDEN / f"{name}.schema.json").write_text(schema_of(model) + "\n", encoding="utf-8")
