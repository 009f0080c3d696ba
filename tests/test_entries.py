"""What is written into the audit trail of what happened."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies import answers, brief, requests

from llama_index_hitl import _entries
from llama_index_hitl._entries import edit_details, redacted
from llama_index_hitl.audit import AuditKind, chained, export, read, verify
from llama_index_hitl.errors import InvalidAnswer, NotAllowed, RunEnded
from llama_index_hitl.lifecycle import (
    Command,
    close,
    decide_without_person,
    open_record,
    take_answer,
)
from llama_index_hitl.models import (
    Answer,
    Approve,
    Delegate,
    Edit,
    Reject,
    Reviewer,
    ReviewPolicy,
    ReviewRequest,
    Revise,
    RuleResult,
    Subject,
)

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = T0 + timedelta(hours=1)
ALL = ("approve", "reject", "revise", "edit")


def request(**changes):
    draft = Subject(type="Draft", data={"text": "one\ntwo", "amount": 5})
    values = {"request_id": "gate-1", "gate": "legal", "title": "A draft", "created_at": T0}
    return ReviewRequest(**{**values, "subject": draft, "allowed": ALL, **changes})


def answer_to(asked, decision, by="ann", **more):
    return Answer.to(asked, decision, by=by, at=LATER, **more)


def entry_of(decision, asked=None, **more):
    asked = asked or request()
    answer = answer_to(asked, decision, **more)
    return _entries.answered("run-1", take_answer(open_record(asked), answer), answer)


def said_by(entry):
    """Everything in an entry but its details."""
    return (
        entry.kind, entry.run_id, entry.at, entry.request_id, entry.actor, entry.role,
        entry.channel, entry.digest, entry.reason,
    )  # fmt: skip


def test_a_request_that_is_opened():
    asked = request(
        requester="rex", policy=ReviewPolicy(reviewers=["ann"], deadline=LATER), supersedes="gate-0"
    )
    entry = _entries.opened("run-1", open_record(asked))
    assert said_by(entry) == (
        "opened", "run-1", T0, "gate-1", "rex", None, None, asked.digest, "",
    )  # fmt: skip
    assert entry.details == {
        "title": "A draft",
        "gate": "legal",
        "revision": 1,
        "reviewers": ["ann"],
        "deadline": LATER.isoformat(),
        "supersedes": "gate-0",
    }


def test_an_answer():
    ann = Reviewer(id="ann", roles=["legal", "tech"])
    entry = entry_of(Approve(comment="fine"), by=ann, role="legal", channel="web")
    assert said_by(entry) == (
        "answered", "run-1", LATER, "gate-1", "ann", "legal", "web", request().digest, "fine",
    )  # fmt: skip
    assert entry.details == {
        "decision": {"kind": "approve", "comment": "fine"},
        "roles": ["legal", "tech"],
        "status": "approved",
    }


def test_the_reason_to_send_something_back_is_the_feedback():
    entry = entry_of(Revise(feedback="shorter", comment="sorry"))
    assert entry.reason == "shorter"
    assert entry.details["decision"]["comment"] == "sorry"
    assert entry.details["status"] == "revised"


def test_an_edit_shows_what_it_changes():
    entry = entry_of(Edit(subject={"text": "one\nthree", "amount": 5}))
    assert entry.details["diff"] == (
        "--- text\n+++ text\n@@ -1,2 +1,2 @@\n one\n-two\n+three"
    )  # fmt: skip
    assert entry.details["decision"]["subject"] == {"text": "one\nthree", "amount": 5}


def test_an_edit_of_several_fields_shows_them_all():
    found = edit_details(request(), {"text": "one\ntwo", "amount": 6, "new": True})
    assert found["diff"] == (
        "--- amount\n+++ amount\n@@ -1 +1 @@\n-5\n+6\n--- new\n+++ new\n@@ -0,0 +1 @@\n+true"
    )


def test_an_edit_that_changes_nothing_shows_nothing():
    assert edit_details(request(), request().subject.data) == {"diff": ""}


def test_an_edit_that_is_too_long_is_not_compared():
    huge = "\n".join(str(line % 199) for line in range(100_000))
    found = edit_details(request(), {"text": huge})
    assert found == {"diff": "(too long to compare; the decision holds every value)"}


def test_a_vote_that_is_handed_over_leaves_the_request_open():
    asked = request(policy=ReviewPolicy(reviewers=["ann", "bob"]), allowed=("approve", "delegate"))
    entry = entry_of(Delegate(to="zoe", comment="away"), asked)
    assert (entry.actor, entry.reason, entry.details["status"]) == ("ann", "away", "open")
    assert entry.details["decision"]["to"] == "zoe"


def test_a_rule_that_decided():
    asked = request(rule=RuleResult(verdict="reject", rule="limit", reason="over 100"))
    rule = Reviewer(id="rule:limit", kind="rule")
    record = decide_without_person(open_record(asked), answer_to(asked, Reject(), by=rule))
    entry = _entries.rule_decided("run-1", record)
    assert said_by(entry) == (
        "rule_decided", "run-1", LATER, "gate-1", "rule:limit", None, "api", asked.digest,
        "over 100",
    )  # fmt: skip
    assert entry.details["status"] == "rejected"


def test_a_request_that_is_closed_by_other_means():
    record = close(
        open_record(request()), Command.SUPERSEDE, at=LATER, reason="A new draft.",
        superseded_by="gate-2",
    )  # fmt: skip
    entry = _entries.closed("run-1", record, AuditKind.SUPERSEDED, LATER)
    assert said_by(entry) == (
        "superseded", "run-1", LATER, "gate-1", None, None, None, request().digest, "A new draft.",
    )  # fmt: skip
    assert entry.details == {"status": "superseded", "superseded_by": "gate-2"}


def test_who_withdrew_a_request_and_why():
    record = close(open_record(request()), Command.WITHDRAW, at=LATER, reason="")
    entry = _entries.closed(
        "run-1", record, AuditKind.WITHDRAWN, LATER, "no longer needed", actor="rex"
    )
    assert (entry.actor, entry.reason) == ("rex", "no longer needed")


def test_an_answer_that_is_refused():
    error = InvalidAnswer("gate-1", [])
    entry = _entries.refused(
        "run-1", "gate-1", error, at=LATER, actor="eve", channel="web", digest="d" * 64
    )
    assert said_by(entry) == (
        "refused", "run-1", LATER, "gate-1", "eve", None, "web", "d" * 64, str(error),
    )  # fmt: skip
    assert entry.details == {"code": "invalid_answer"}


def test_an_error_without_a_code_is_told_by_its_name():
    entry = _entries.refused(
        "run-1", "gate-1", RunEnded("run-1", status="finished", wanted="answered"), at=LATER
    )
    assert entry.details == {"code": "RunEnded"}


@pytest.mark.parametrize("hostile", ["", " ", "x" * 201, "a\nb", "a\x00", "\ud800", "\x1b[31m"])
def test_a_refusal_is_written_down_whatever_came_in(hostile):
    entry = _entries.refused(
        "run-1", hostile, NotAllowed("gate-1", by=hostile, reason="no"), at=LATER, actor=hostile
    )
    assert (entry.request_id, entry.actor) == (None, None)
    shown = hostile.encode(errors="replace").decode()[:200]
    assert entry.details.get("unfit") == {"request_id": shown, "actor": shown}
    row = chained(None, entry)
    assert read(export([row])) == [row]


@brief
@given(st.text(st.characters(codec=None, exclude_categories=())), st.text())
def test_every_refusal_makes_an_entry(request_id, words):
    entry = _entries.refused(
        "run-1", request_id, NotAllowed("gate-1", by=words, reason=words), at=LATER, actor=words
    )
    assert entry.kind is AuditKind.REFUSED


def test_what_happens_to_a_run():
    entry = _entries.run_event(
        AuditKind.FAILED, "run-1", T0, reason="x" * 1_000_001 + "\ud800", details={"type": "Boom"}
    )
    assert said_by(entry)[:5] == ("failed", "run-1", T0, None, None)
    assert entry.reason == "x" * 1_000_000
    assert entry.details == {"type": "Boom"}
    started = _entries.run_event(AuditKind.STARTED, "run-1", T0, actor="rex")
    assert (started.actor, started.reason, started.details) == ("rex", "", {})


def test_what_happens_to_an_effect():
    entry = _entries.effect_event(
        AuditKind.EFFECT_SETTLED, "run-1", "gate-1:pay", T0, actor="ops", reason="it was paid"
    )
    assert said_by(entry) == (
        "effect_settled", "run-1", T0, None, "ops", None, None, None, "it was paid",
    )  # fmt: skip
    assert entry.details == {"effect": "gate-1:pay"}


# --------------------------------------------------------------------------- redaction


def without_amounts(kind, data):
    """Changes what it is given, as hooks do."""
    assert kind is AuditKind.ANSWERED
    data["details"].pop("diff")
    data["details"]["decision"]["subject"].pop("amount")
    data["reason"] = ""
    return data


def test_what_is_redacted_before_it_is_chained_leaves_a_whole_chain():
    asked = request()
    record = open_record(asked)
    edit = entry_of(Edit(subject={"text": "t", "amount": 9}, comment="9 euros"), asked)
    rows = [chained(None, _entries.opened("run-1", record))]
    rows.append(chained(rows[-1], redacted(edit, without_amounts)))
    rows.append(chained(rows[-1], _entries.run_event(AuditKind.FINISHED, "run-1", LATER)))
    assert verify(rows) == ()
    assert "9" not in rows[1].entry.reason
    assert rows[1].entry.details["decision"] == {
        "kind": "edit", "comment": "9 euros", "subject": {"text": "t"},
    }  # fmt: skip
    assert edit.details["decision"]["subject"] == {"text": "t", "amount": 9}  # as it was


def test_what_a_redaction_does_not_give_back_is_gone_and_nothing_else_changes():
    edit = entry_of(Edit(subject={"text": "t"}, comment="why"))
    left = redacted(edit, lambda kind, data: {"actor": "mallory"})
    assert (left.reason, left.details) == ("", {})
    assert said_by(left)[:-1] == said_by(edit)[:-1]


def test_a_redaction_that_gives_back_nonsense_is_refused():
    with pytest.raises(ValidationError, match="details"):
        redacted(entry_of(Approve()), lambda kind, data: {"details": "none"})


@brief
@given(requests(), answers())
def test_every_request_and_every_answer_makes_an_entry_that_survives(asked, answer):
    record = open_record(asked)
    first = chained(None, _entries.opened("run-1", record))
    answered = record.model_copy(update={"answers": (answer,)})
    second = chained(first, _entries.answered("run-1", answered, answer))
    third = chained(second, _entries.rule_decided("run-1", answered))
    rows = read(export([first, second, third]))
    assert rows == [first, second, third]
    assert verify(rows) == ()
