"""Durable runs whose workflow's code has changed while they waited."""

from typing import Any

import pytest
from durable import only, runner_on
from workflows import Workflow, step
from workflows.events import Event, HumanResponseEvent, StartEvent, StopEvent

from llama_index_hitl import Approve, Approved, Review
from llama_index_hitl.errors import IncompatibleSnapshot, StaleRequest
from llama_index_hitl.migrations import Migration
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import Store
from llama_index_hitl.stores.protocol import RunStatus
from llama_index_hitl.testing import ManualClock


class Archived(HumanResponseEvent):
    where: str


def letter(name: str, **fields: Any) -> type[Event]:
    """Return an event class of this module, as an older or newer version of it has it."""
    body = {"__annotations__": {n: type(v) for n, v in fields.items()}, "__module__": __name__}
    return type(name, (Event,), {**body, **fields, "__qualname__": name})


def version(kind: type[Event], *, gate: str = "legal", number: str | None = None) -> Workflow:
    """Return a workflow as one version of the code has it."""

    async def write(self, ev):  # type: ignore[no-untyped-def]
        return kind()

    async def publish(self, ev):  # type: ignore[no-untyped-def]
        return StopEvent(result=ev.subject.model_dump())

    write.__qualname__, publish.__qualname__ = "Letters.write", "Letters.publish"
    write.__annotations__ = {"ev": StartEvent, "return": kind}
    publish.__annotations__ = {"ev": Approved, "return": StopEvent}
    body: dict[str, Any] = {
        "write": step(write),
        "publish": step(publish),
        gate: Review(kind),
        "__module__": __name__,
        "snapshot_version": number,
    }
    cls: type[Workflow] = type("Letters", (Workflow,), body)
    return cls(timeout=None)


OLD = letter("Letter", text="Dear Sir")
WIDER = letter("Letter", text="Dear Sir", copies=1)
NARROWER = letter("Letter", words=2)
RENAMED = letter("Missive", text="Dear Sir")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def on(store: Store, clock: ManualClock, workflow: Workflow, *migrations: Migration) -> Runner:
    return runner_on(store, clock=clock, workflows={"letters": workflow}, migrations=migrations)


async def test_promise_10_changed_code_is_noticed_before_an_answer_is_consumed(
    store: Store, clock: ManualClock
) -> None:
    old = on(store, clock, version(OLD))
    run = await old.start("letters")
    record = await only(old, run.run_id)
    await old.answer(record.request_id, Approve(), by="alice")
    for changed, said in (
        (version(OLD, gate="counsel"), "legal_gate"),
        (version(RENAMED), "Missive"),
        (version(NARROWER), "text"),
        (version(WIDER), "copies"),
    ):
        new = on(store, clock, changed)
        with pytest.raises(IncompatibleSnapshot, match=said) as refused:
            await new.advance(run.run_id)
        assert refused.value.differences
        (check,) = await new.check()
        assert (check.verdict, check.differences) == (
            "needs_migration",
            refused.value.differences,
        )
        assert not await new.recover()
    assert len(await store.messages(run.run_id)) == 1
    assert (await old.advance(run.run_id)).status is RunStatus.FINISHED


async def test_what_is_only_added_is_no_change(store: Store, clock: ManualClock) -> None:
    run = await on(store, clock, version(OLD)).start("letters")
    more = version(OLD)

    @step(workflow=type(more))
    async def archive(ev: Archived) -> None:
        """A step that the old code did not have, for an event that it did not have."""

    new = on(store, clock, more)
    assert [check.verdict for check in await new.check()] == ["resumes"]
    record = await only(new, run.run_id)
    await new.answer(record.request_id, Approve(), by="alice")
    after = await new.advance(run.run_id)
    assert after.status is RunStatus.FINISHED, after.error


@pytest.mark.parametrize(
    ("changed", "migration"),
    [
        (
            version(OLD, gate="counsel"),
            Migration("letters", rename_steps={"legal_gate": "counsel_gate"}),
        ),
        (version(RENAMED), Migration("letters", rename_events={"Letter": "Missive"})),
    ],
    ids=["renamed gate", "renamed event"],
)
async def test_a_migration_makes_an_answered_run_go_on(
    store: Store, clock: ManualClock, changed: Workflow, migration: Migration
) -> None:
    old = on(store, clock, version(OLD))
    run = await old.start("letters")
    record = await only(old, run.run_id)
    await old.answer(record.request_id, Approve(), by="alice")
    new = on(store, clock, changed, migration)
    assert [check.verdict for check in await new.check()] == ["migrates"]
    assert (await new.advance(run.run_id)).status is RunStatus.FINISHED
    assert (await new.result(run.run_id))["text"] == "Dear Sir"


async def test_an_answer_to_what_a_migration_has_changed_is_asked_for_again(
    store: Store, clock: ManualClock
) -> None:
    old = on(store, clock, version(OLD))
    run = await old.start("letters")
    record = await only(old, run.run_id)
    await old.answer(record.request_id, Approve(), by="alice")
    new = on(
        store,
        clock,
        version(NARROWER, number="2"),
        Migration(
            "letters",
            to_version="2",
            change_fields={"Letter": lambda fields: {"words": len(fields["text"].split())}},
        ),
    )
    assert (await new.advance(run.run_id)).status is RunStatus.WAITING
    shown = await only(new, run.run_id)
    assert shown.request_id == record.request_id
    assert shown.request.subject.data == {"words": 2}
    assert not shown.answers
    with pytest.raises(StaleRequest):
        await new.answer(record.request_id, Approve(), by="bob", digest=record.request.digest)
    await new.answer(shown.request_id, Approve(), by="bob", digest=shown.request.digest)
    assert (await new.advance(run.run_id)).status is RunStatus.FINISHED
