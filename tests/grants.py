"""A workflow whose one tool is guarded and can be approved for good; for the tests of grants."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import BaseModel
from workflows import Context, Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import Approve, Question, ask
from llama_index_hitl._grantbook import present_book
from llama_index_hitl._ledger import recalled, remembered_from_now_on
from llama_index_hitl.grants import Grant, GuardedCall
from llama_index_hitl.models import GrantOffer, GrantTerms
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import Store
from llama_index_hitl.testing import ManualClock

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Transfer(BaseModel):
    amount: int | float | bool | str
    to: str = "Bob"


class Bank(Workflow):
    """Transfers money: where a grant covers it at once, otherwise when somebody approves."""

    done: ClassVar[list[str]] = []
    then: ClassVar[Any] = None
    """What happens behind the use of a grant, such as a crash."""

    @step
    async def transfer(self, ctx: Context, ev: StartEvent) -> StopEvent:
        agent, version = ev.get("agent", "teller"), ev.get("version", "v1")
        transfer = Transfer(amount=ev.amount)
        call = GuardedCall(
            tool=ev.get("tool", "transfer"),
            version=version,
            agent=agent,
            arguments=transfer.model_dump(mode="json"),
        )
        if ev.get("first"):
            await ask(ctx, Question(title=ev.first), key="first")
        used = await self._used(ctx, call, ev.key)
        if used is not None:
            if type(self).then is not None:
                await type(self).then()
            type(self).done.append(ev.key)
            return StopEvent(result=used)
        offer = GrantOffer(tool=call.tool, agent=agent, version=version)
        question = Question(title="Transfer?", subject=transfer, grantable=offer)
        said = await ask(ctx, question)
        if said.approved:
            type(self).done.append(ev.key)
        return StopEvent(result="approved" if said.approved else "refused")

    async def _used(self, ctx: Context, call: GuardedCall, key: str) -> str | None:
        """Ask the book once, before a person is asked: their own approval must not cover this."""
        if recalled(ctx, "asked") is not None:
            return None
        book = present_book()
        grant = None if book is None else await book.use(call, key=key)
        if grant is None:
            remembered_from_now_on(ctx, "asked", {})
        return None if grant is None else grant.grant_id


def runner_on(store: Store, clock: ManualClock | None = None, **options: Any) -> Runner:
    """Return a runner as a fresh process would make it."""
    clock = clock or ManualClock(NOON)
    workflows = {"bank": Bank(timeout=None), "other bank": Bank(timeout=None)}
    return Runner(store, options.pop("workflows", workflows), clock=clock, **options)


def workflows() -> dict[str, Workflow]:
    """Return the workflows of a user of the command line."""
    return {"bank": Bank(timeout=None)}


async def transfer(runner: Runner, key: str, amount: Any = 50, **inputs: Any) -> Any:
    """Start a transfer; return the id of the grant that covered it, or None: somebody is asked."""
    workflow = inputs.pop("workflow", "bank")
    run = await runner.start(workflow, run_id=key, inputs={"amount": amount, "key": key, **inputs})
    return await runner.result(run.run_id) if run.status == "finished" else None


async def asked(runner: Runner, key: str) -> str:
    """Return the id of the request that a transfer waits for."""
    (record,) = await runner.pending(run_id=key)
    return record.request_id


async def grant_by_answer(
    runner: Runner, key: str = "first", amount: Any = 50, *, by: str = "ann", **terms: Any
) -> Grant:
    """Let somebody approve a transfer, and others like it from then on."""
    assert await transfer(runner, key, amount) is None
    request_id = await asked(runner, key)
    await runner.answer(request_id, Approve(grant=GrantTerms(**terms)), by=by)
    (grant,) = [g for g in await runner.grants.list() if g.request_id == request_id]
    return grant
