"""Standing approvals in a store: given with an answer, used once each, listed, revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from durable import kinds
from grants import NOON, Bank, asked, grant_by_answer, runner_on, transfer
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import (
    Approve,
    Question,
    Reject,
    Reviewer,
    ask,
)
from llama_index_hitl._grantbook import StoredGrants
from llama_index_hitl.audit import AuditKind, verify
from llama_index_hitl.authorizers import Action
from llama_index_hitl.errors import (
    AlreadyAnswered,
    InvalidAnswer,
    InvalidGrant,
    NotAllowed,
    UnknownGrant,
)
from llama_index_hitl.grants import GuardedCall
from llama_index_hitl.models import GrantOffer, GrantTerms
from llama_index_hitl.stores import Commit, GrantQuery, MemoryStore, Store
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.testing.faults import Fault, FaultyStore, Point

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def bank() -> Iterator[type[Bank]]:
    Bank.done, Bank.then = [], None
    yield Bank
    Bank.done, Bank.then = [], None


# --------------------------------------------------------------------------- giving


async def test_an_approval_with_a_grant_lets_later_calls_happen_without_asking(
    store: Store,
) -> None:
    runner = runner_on(store)
    assert await transfer(runner, "first") is None
    request_id = await asked(runner, "first")
    terms = GrantTerms(at_most={"amount": 500}, until=NOON + DAY)
    await runner.answer(request_id, Approve(grant=terms), by="ann")

    (grant,) = await runner_on(store).grants.list()
    assert grant.workflow == "bank"
    assert (grant.tool, grant.agent, grant.version) == ("transfer", "teller", "v1")
    assert (grant.owner, grant.run_id, grant.request_id) == ("ann", "first", request_id)
    assert (grant.terms, grant.granted_at, grant.used) == (terms, NOON, 0)
    assert grant.arguments == {"amount": 50, "to": "Bob"}

    assert await transfer(runner_on(store), "second", 500) == grant.grant_id
    assert await transfer(runner, "third", 501) is None
    assert (await runner.grants.get(grant.grant_id)).used == 1
    assert Bank.done == ["second"]  # the first was not told yet
    await runner.advance("first")
    assert await runner.result("first") == "approved"


async def test_the_grant_and_its_use_are_on_record(store: Store) -> None:
    runner = runner_on(store)
    grant = await grant_by_answer(runner, in_total={"amount": "99.5"}, uses=3)
    await transfer(runner, "second", 49.25)
    rows = await runner.history("first")
    assert kinds(rows) == ["started", "opened", "answered", "granted"]
    given = rows[-1].entry
    assert (given.actor, given.request_id) == ("ann", grant.request_id)
    assert given.details["grant"] == grant.grant_id
    assert given.details["terms"]["in_total"] == {"amount": "99.5"}
    assert kinds(await runner.history("second")) == ["started", "grant_used", "finished"]
    used = (await runner.history("second"))[1].entry
    assert used.actor == f"rule:grant:{grant.grant_id}"
    assert used.details == {
        "grant": grant.grant_id,
        "owner": "ann",
        "agent": "teller",
        "tool": "transfer",
        "key": "second",
        "used": 1,
        "spent": {"amount": "49.25"},
    }


async def test_what_must_not_be_on_record_is_left_out_there_too() -> None:
    def without_amounts(kind: Any, data: Any) -> Any:
        hidden = ("terms", "spent") if str(kind).startswith("grant") else ()
        details = {k: v for k, v in data.get("details", {}).items() if k not in hidden}
        return {**data, "details": details}

    runner = runner_on(MemoryStore(), redact=without_amounts)
    grant = await grant_by_answer(runner, in_total={"amount": 99})
    await transfer(runner, "second", 49)
    await runner.grants.revoke(grant.grant_id, by="ann", reason="enough")
    entries = [r.entry for key in ("first", "second") for r in await runner.history(key)]
    about = {e.kind: e.details for e in entries if e.kind.startswith("grant")}
    assert set(about) == {"granted", "grant_used", "grant_revoked"}
    assert not any(details.keys() & {"terms", "spent"} for details in about.values())


async def test_the_same_answer_again_gives_no_second_grant(store: Store) -> None:
    runner = runner_on(store)
    await grant_by_answer(runner, uses=1)
    request_id = (await runner.grants.list()).items[0].request_id
    assert request_id is not None
    first = await runner.answer(request_id, Approve(grant=GrantTerms(uses=1)), by="ann")
    assert first == await runner.answer(request_id, Approve(grant=GrantTerms(uses=1)), by="ann")
    with pytest.raises(AlreadyAnswered):
        await runner.answer(request_id, Approve(grant=GrantTerms(uses=2)), by="ann")
    assert len(await runner.grants.list()) == 1
    assert kinds(await runner.history("first")).count("granted") == 1


async def test_a_crash_before_the_answer_is_stored_leaves_no_grant_and_after_it_one(
    store: Store,
) -> None:
    runner = runner_on(store)
    await transfer(runner, "first")
    request_id = await asked(runner, "first")
    terms = Approve(grant=GrantTerms())
    for when, left in (("before", 0), ("after", 1)):
        faulty = runner_on(FaultyStore(store, at=Point.ANSWER, when=when))  # type: ignore[arg-type]
        with pytest.raises(Fault):
            await faulty.answer(request_id, terms, by="ann")
        assert len(await runner.grants.list()) == left
    await runner.answer(request_id, terms, by="ann")
    assert len(await runner.grants.list()) == 1


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"until": NOON}, "grant.until"),
        ({"until": NOON - SECOND}, "grant.until"),
        ({"at_most": {"amount": 49}}, "grant.at_most.amount"),
        ({"at_most": {"amnt": 500}}, "grant.at_most.amnt"),
        ({"at_most": {"to": 500}}, "grant.at_most.to"),
        ({"in_total": {"amount": 49}}, "grant.in_total.amount"),
        ({"in_total": {"amount": 0}}, "grant.in_total.amount"),
        ({"in_total": {"amount": -1}}, "grant.in_total.amount"),
    ],
)
async def test_terms_that_cannot_be_are_refused_by_name_and_the_request_stays_open(
    terms: dict[str, Any], field: str
) -> None:
    runner = runner_on(MemoryStore())
    await transfer(runner, "first")
    request_id = await asked(runner, "first")
    with pytest.raises(InvalidAnswer) as caught:
        await runner.answer(request_id, Approve(grant=GrantTerms(**terms)), by="ann")
    assert field in {problem.field for problem in caught.value.problems}
    assert len(await runner.grants.list(active=False)) == 0
    assert await asked(runner, "first") == request_id


async def test_only_who_may_grant_can_give_one_with_an_answer() -> None:
    class OnlyChiefsGrant:
        async def authorize(self, by: Reviewer, action: Action, **_about: Any) -> Reviewer:
            if action in (Action.GRANT, Action.REVOKE) and by.id != "chief":
                raise NotAllowed("it", by=by.id, reason="only the chief does that")
            return by

    runner = runner_on(MemoryStore(), authorizer=OnlyChiefsGrant())
    await transfer(runner, "first")
    request_id = await asked(runner, "first")
    with pytest.raises(NotAllowed):
        await runner.answer(request_id, Approve(grant=GrantTerms()), by="ann")
    await runner.answer(request_id, Approve(grant=GrantTerms()), by="chief")
    (grant,) = await runner.grants.list()
    with pytest.raises(NotAllowed):
        await runner.grants.revoke(grant.grant_id, by="ann")
    with pytest.raises(NotAllowed):
        await give(runner, by="ann")
    assert len(await runner.grants.list()) == 1


async def test_a_rejection_gives_nothing() -> None:
    runner = runner_on(MemoryStore())
    await transfer(runner, "first")
    await runner.answer(await asked(runner, "first"), Reject(), by="ann")
    assert len(await runner.grants.list(active=False)) == 0


# --------------------------------------------------------------------------- using


@pytest.mark.parametrize(
    "differs",
    [
        {"agent": "clerk"},
        {"agent": ""},
        {"tool": "withdraw"},
        {"version": "v2"},
        {"workflow": "other bank"},
    ],
    ids=str,
)
async def test_a_grant_holds_for_its_agent_tool_version_and_workflow_only(
    differs: dict[str, str],
) -> None:
    runner = runner_on(MemoryStore())
    await grant_by_answer(runner)
    assert await transfer(runner, "second", **differs) is None
    assert await transfer(runner, "third") is not None


@pytest.mark.parametrize("amount", [True, "1", 1.0, 2])
async def test_the_same_arguments_are_the_same_in_kind(amount: Any) -> None:
    runner = runner_on(MemoryStore())
    await grant_by_answer(runner, amount=1, arguments="same")
    assert await transfer(runner, "second", amount) is None
    assert await transfer(runner, "third", 1) is not None


async def test_a_grant_ends_at_its_instant(store: Store) -> None:
    clock = ManualClock(NOON)
    runner = runner_on(store, clock)
    await grant_by_answer(runner, until=NOON + DAY)
    clock.advance(DAY - SECOND)
    assert await transfer(runner, "second") is not None
    clock.advance(SECOND)
    assert await transfer(runner, "third") is None
    assert len(await runner.grants.list()) == 0
    (grant,) = await runner.grants.list(active=False)
    assert runner.grants.state_of(grant) == "expired"


async def test_a_grant_that_is_revoked_while_a_run_is_parked_covers_nothing_in_it(
    store: Store,
) -> None:
    runner = runner_on(store)
    grant = await grant_by_answer(runner)
    for key in ("before", "after"):
        assert await transfer(runner, key, first="Ready?") is None
        await runner.answer(await asked(runner, key), Approve(), by="ann")
    await runner.advance("before")
    await runner.grants.revoke(grant.grant_id, by="ann")
    await runner_on(store).advance("after")
    assert await runner.result("before") == grant.grant_id
    (record,) = await runner.pending(run_id="after")
    assert record.request.title == "Transfer?"


async def test_of_many_uses_at_once_only_as_many_get_it_as_are_left(store: Store) -> None:
    runner = runner_on(store)
    grant = await grant_by_answer(runner, uses=2, in_total={"amount": 1000})
    runners = [runner_on(store) for _ in range(6)]
    found = await asyncio.gather(
        *(transfer(each, f"at once {number}") for number, each in enumerate(runners))
    )
    assert [f for f in found if f] == [grant.grant_id] * 2
    kept = await runner.grants.get(grant.grant_id)
    assert (kept.used, kept.spent) == (2, {"amount": 100})
    assert runner.grants.state_of(kept) == "used_up"


async def test_a_use_is_counted_once_over_crashes(store: Store) -> None:
    clock = ManualClock(NOON)
    runner = runner_on(store, clock)
    grant = await grant_by_answer(runner, uses=2)
    for when, used in (("before", 0), ("after", 1)):
        faulty = FaultyStore(store, at=Point.EFFECT_DONE, when=when)  # type: ignore[arg-type]
        run = await runner_on(faulty, clock).start(  # type: ignore[arg-type]
            "bank", run_id=f"killed {when}", inputs={"amount": 5, "key": f"killed {when}"}
        )
        assert run.status == "failed"
        assert (await runner.grants.get(grant.grant_id)).used == used
    assert Bank.done == []
    await runner.grants.revoke(grant.grant_id, by="ann")
    await runner.retry("killed after", by="ann")  # it was covered before that
    assert await runner.result("killed after") == grant.grant_id
    assert (await runner.retry("killed before", by="ann")).status == "waiting"
    assert (await runner.grants.get(grant.grant_id)).used == 1
    assert kinds(await runner.history("killed after")).count("grant_used") == 1


async def test_a_replay_with_other_arguments_is_not_covered_by_the_use_before() -> None:
    store = MemoryStore()
    runner = runner_on(store)
    grant = await grant_by_answer(runner, at_most={"amount": 100})
    assert await transfer(runner, "second") == grant.grant_id
    book = Book(runner, "second")
    assert (await book.use(50, key="second")).used == 1
    assert await book.use(51, key="second") is None
    assert await Book(runner, "another run").use(50, key="second") is None
    assert (await runner.grants.get(grant.grant_id)).used == 1


@pytest.mark.parametrize(
    "amount", [[[[]]] * 3 + [object()], float("nan"), 10**5_000], ids=["object", "NaN", "huge"]
)
async def test_a_call_that_nobody_could_know_again_is_not_covered(amount: Any) -> None:
    runner = runner_on(MemoryStore())
    grant = await give(runner)
    call = GuardedCall.model_construct(
        tool="transfer", version="v1", agent="teller", arguments={"amount": amount}
    )
    assert await Book(runner, "run").use_call(call, key="hostile") is None
    assert (await runner.grants.get(grant.grant_id)).used == 0


async def test_what_lapses_first_is_used_first() -> None:
    runner = runner_on(MemoryStore())
    terms = {
        "for ever": GrantTerms(),
        "a day": GrantTerms(until=NOON + DAY, uses=1),
        "two days": GrantTerms(until=NOON + 2 * DAY, uses=1),
        "for ever, but not much": GrantTerms(at_most={"amount": 1}, uses=1),
        "for ever, but the same": GrantTerms(arguments="same", uses=1),
    }
    arguments = {"amount": 1, "to": "Bob"}
    given = {
        (await give(runner, terms=terms[name], arguments=arguments)).grant_id: name
        for name in terms
    }
    book = Book(runner, "run")
    found = [await book.use(1, key=f"{number}") for number in range(6)]
    assert [given[grant.grant_id] for grant in found] == [
        "a day",
        "two days",
        "for ever, but the same",
        "for ever, but not much",
        "for ever",
        "for ever",
    ]


class Book:
    """The grants in a runner's store, as a step of a run finds them."""

    def __init__(self, runner: Any, run_id: str) -> None:
        self._book = StoredGrants(
            runner.store, runner._outbox, run_id, workflow="bank", owner="me", clock=runner.clock
        )

    async def use(self, amount: Any, *, key: str) -> Any:
        arguments = {"amount": amount, "to": "Bob"}
        call = GuardedCall(tool="transfer", version="v1", agent="teller", arguments=arguments)
        return await self.use_call(call, key=key)

    async def use_call(self, call: GuardedCall, *, key: str) -> Any:
        return await self._book.use(call, key=key)


# --------------------------------------------------------------------------- managing


async def give(runner: Any, by: Any = "ann", **given: Any) -> Any:
    values = {"workflow": "bank", "tool": "transfer", "version": "v1", "agent": "teller", **given}
    return await runner.grants.give(**{"terms": GrantTerms(), **values}, by=by)


async def test_a_grant_can_be_given_without_a_request_and_has_a_trail_of_its_own(
    store: Store,
) -> None:
    runner = runner_on(store)
    grant = await give(runner, terms=GrantTerms(at_most={"amount": 50}))
    assert (grant.owner, grant.run_id, grant.request_id) == ("ann", "", None)
    assert await transfer(runner, "first") == grant.grant_id
    await runner.grants.revoke(grant.grant_id, by="bob", reason="enough")
    rows = await runner.history(grant.grant_id)
    assert kinds(rows) == ["granted", "grant_revoked"]
    assert not verify(rows)
    assert await transfer(runner, "second") is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"terms": GrantTerms(until=NOON)}, "until"),
        ({"terms": GrantTerms(arguments="same")}, "arguments"),
        ({"terms": GrantTerms(in_total={"amount": 0})}, "in_total.amount"),
        ({"terms": GrantTerms(at_most={"x": 1}), "arguments": {"amount": 1}}, "at_most.x"),
        ({"by": Reviewer(id="rule:nightly", kind="rule")}, "by"),
        ({"tool": "x" * 1001}, "tool"),
    ],
)
async def test_what_cannot_be_given_is_refused_by_name(given: dict[str, Any], field: str) -> None:
    runner = runner_on(MemoryStore())
    with pytest.raises(InvalidGrant) as caught:
        await give(runner, **given)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert len(await runner.grants.list(active=False)) == 0


async def test_revoking_twice_changes_nothing_and_says_who_was_first(store: Store) -> None:
    clock = ManualClock(NOON)
    runner = runner_on(store, clock)
    grant = await grant_by_answer(runner)
    first = await runner.grants.revoke(grant.grant_id, by="bob", reason="No more.")
    assert (first.revoked_at, first.revoked_by, first.revoked_because) == (NOON, "bob", "No more.")
    clock.advance(DAY)
    assert await runner.grants.revoke(grant.grant_id, by="cat") == first
    assert await runner.grants.get(grant.grant_id) == first
    assert runner.grants.state_of(first) == "revoked"
    rows = await runner.history("first")
    assert kinds(rows).count("grant_revoked") == 1
    assert (rows[-1].entry.actor, rows[-1].entry.reason) == ("bob", "No more.")
    assert rows[-1].entry.kind is AuditKind.GRANT_REVOKED


async def test_a_grant_that_is_not_there_is_named() -> None:
    runner = runner_on(MemoryStore())
    with pytest.raises(UnknownGrant, match="grant-x"):
        await runner.grants.get("grant-x")
    with pytest.raises(UnknownGrant, match="grant-x"):
        await runner.grants.revoke("grant-x", by="ann")


async def test_grants_are_listed_in_pages_by_what_they_are_about(store: Store) -> None:
    clock = ManualClock(NOON)
    runner = runner_on(store, clock)
    for number in range(3):
        await give(runner, by=f"owner {number}", tool=f"tool {number}", agent="")
        clock.advance(SECOND)
    first = await runner.grants.list(limit=2)
    rest = await runner.grants.list(limit=2, after=first.after)
    assert [g.tool for g in (*first, *rest)] == ["tool 2", "tool 1", "tool 0"]
    assert rest.after is None
    assert [g.tool for g in await runner.grants.list(owner="owner 1")] == ["tool 1"]
    assert [g.tool for g in await runner.grants.list(tool="tool 0")] == ["tool 0"]
    assert len(await runner.grants.list(agent="teller")) == 0
    assert len(await runner.grants.list(agent="", workflow="bank")) == 3
    assert len(await store.grants(GrantQuery(request_id="none"))) == 0


# --------------------------------------------------------------------------- approvals that fail

OFFER = GrantOffer(tool="transfer", agent="teller", version="v1")


async def test_a_grant_goes_with_the_approval_that_the_workflow_refuses(store: Store) -> None:
    runner = runner_on(store)
    given = await grant_by_answer(runner, uses=9)
    (message,) = await store.messages("first")
    # As if the run had come to ask something else than what was approved.
    stale = replace(message, payload={**message.payload, "digest": "of something else"})
    await store.commit(Commit(applied=(message.message_id,), messages=(stale,)))
    assert (await runner.advance("first")).status == "waiting"
    gone = await runner.grants.get(given.grant_id)
    assert (gone.revoked_at, gone.revoked_by) == (NOON, "rule:run")
    assert kinds(await runner.history("first")) == [
        "started",
        "opened",
        "answered",
        "granted",
        "refused",
        "grant_revoked",
        "reopened",
    ]
    assert await transfer(runner, "second") is None
    # It is open again, and can be approved with another grant.
    request_id = await asked(runner, "first")
    assert request_id == given.request_id
    await runner.answer(request_id, Approve(grant=GrantTerms(uses=9)), by="ann")
    await runner.advance("first")
    assert await runner.result("first") == "approved"
    (grant,) = await runner.grants.list()
    assert grant.grant_id != given.grant_id


class First(Event):
    pass


class Second(Event):
    pass


class Hasty(Workflow):
    """Asks twice at once, and ends when the first one is answered."""

    meanwhile: ClassVar[Any] = None

    @step
    async def both(self, ctx: Context, ev: StartEvent) -> First | Second | None:
        ctx.send_event(First())
        ctx.send_event(Second())
        return None

    @step
    async def first(self, ctx: Context, ev: First) -> StopEvent:
        await ask(ctx, Question(title="First"))
        await type(self).meanwhile()
        return StopEvent(result="ended")

    @step
    async def second(self, ctx: Context, ev: Second) -> StopEvent:
        await ask(ctx, Question(title="Second", grantable=OFFER))
        return StopEvent(result="second")


async def test_a_grant_goes_with_an_approval_that_comes_when_the_run_has_gone_on(
    store: Store,
) -> None:
    runner = runner_on(store, workflows={"hasty": Hasty(timeout=None)})
    await runner.start("hasty", run_id="run")
    open_now = {r.request.title: r.request_id for r in await runner.pending(run_id="run")}
    assert set(open_now) == {"First", "Second"}

    async def meanwhile() -> None:
        approval = Approve(grant=GrantTerms())
        await runner_on(store).answer(open_now["Second"], approval, by="ann")
        assert len(await runner.grants.list()) == 1

    Hasty.meanwhile = meanwhile
    await runner.answer(open_now["First"], Approve(), by="ann")
    await runner.advance("run")
    assert await runner.result("run") == "ended"
    (grant,) = await runner.grants.list(active=False)
    assert runner.grants.state_of(grant) == "revoked"
    assert grant.revoked_because == "the run has ended"
    said = kinds(await runner.history("run"))
    assert said.index("granted") < said.index("grant_revoked")
