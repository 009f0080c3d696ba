"""A bank account, both ways to build it: what is played in processes that are killed, too."""

from datetime import timedelta
from typing import Any

from durable import NOON
from workflows import Workflow

from llama_index_hitl import Approve
from llama_index_hitl._demo_banking import Bank, Banking, banking_agent
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores.protocol import RunStatus, Store
from llama_index_hitl.testing import ManualClock, ScriptedLLM, ToolCall
from llama_index_hitl.testing.faults import reach

WAYS = ("plan", "tools")

Wanted = list[dict[str, Any]]
"""Actions as the model of either way names them."""


def transfer(amount: float, recipient: str = "Alice", **claims: Any) -> dict[str, Any]:
    return {"kind": "transfer", "amount": amount, "recipient": recipient, **claims}


def deposit(amount: float) -> dict[str, Any]:
    return {"kind": "deposit", "amount": amount}


BALANCE = {"kind": "check_balance"}


def said(way: str, wanted: Wanted) -> list[Any]:
    """Return what the model says: a plan, or a tool call after the other and a word at the end."""
    if way == "plan":
        return [{"actions": wanted}]
    names = {"check_balance": "get_balance"}
    calls = [
        ToolCall(
            name=names.get(action["kind"], action["kind"]),
            arguments={name: value for name, value in action.items() if name != "kind"},
        )
        for action in wanted
    ]
    return [*calls, "That is all."]


def flow_of(way: str, bank: Bank, llm: Any, **options: Any) -> Workflow:
    if way == "plan":
        return Banking(bank=bank, llm=llm, show="each", **options)
    return banking_agent(bank, llm)


def start_of(way: str) -> dict[str, Any]:
    return {"request" if way == "plan" else "user_msg": "Do what is to be done."}


class ReachingBank(Bank):
    """Can be killed right after the money has moved."""

    def _move(self, *movement: Any) -> str:
        moved = super()._move(*movement)
        reach("after the money has moved")
        return moved


async def transferred(store: Store, way: str, place: str, run_id: str, later: str = "0") -> Any:
    """Start, approve, transfer, end; played again it looks first what is there already."""
    clock = ManualClock(NOON + timedelta(hours=float(later)))
    bank = ReachingBank(place)
    runner = Runner(store, {"bank": flow_of(way, bank, model_of(way))}, clock=clock)
    await runner.start("bank", run_id=run_id, inputs=start_of(way))
    await runner.recover()
    for record in await runner.pending(run_id=run_id):
        await runner.answer(record.request_id, Approve(), by="erin")
    run = await runner.get_run(run_id)
    if run.status is RunStatus.WAITING:
        run = await runner.advance(run_id)
    return [str(run.status), str(bank.balance), len(bank.movements)]


def model_of(way: str) -> ScriptedLLM:
    """Return a model that wants a look and one transfer of 500, whichever process asks it."""
    replies = said(way, [BALANCE, transfer(500)])

    def reply(messages: list[Any]) -> Any:
        return replies[sum(message.role.value == "tool" for message in messages)]

    return ScriptedLLM(reply=reply)
