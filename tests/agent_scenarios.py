"""An agent that pays, played in processes that are killed; see `crash_scenarios`."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from crash_scenarios import append
from durable import NOON
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from llama_index_hitl import Approve, Reject
from llama_index_hitl.agents import require_approval
from llama_index_hitl.effects import OnDoubt
from llama_index_hitl.rules import first_match, never, threshold
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores.protocol import RunStatus, Store
from llama_index_hitl.testing import ManualClock, ScriptedLLM, ToolCall
from llama_index_hitl.testing.faults import reach


def transfer(ledger: str, to: str, amount: int) -> str:
    """Pay somebody: a line in a file stands for the money that moves."""
    reach("before the money has moved")
    append(ledger, f"paid {to}")
    reach("after the money has moved")
    return f"{to} got {amount}"


def reply_to(ledger: str, messages: list[ChatMessage]) -> Any:
    """Pay three, one of them without asking; then say what came of it."""
    append(f"{ledger}.model", "asked")
    results = [str(m.content).partition("\n")[0] for m in messages if m.role is MessageRole.TOOL]
    if results:
        return "; ".join(sorted(results))
    amounts = {"ann": 500, "bob": 600, "cleo": 5}
    return [
        ToolCall(name="transfer", arguments={"ledger": ledger, "to": to, "amount": amount}, id=to)
        for to, amount in amounts.items()
    ]


def runner_on(store: Store, ledger: str, *, hours: float = 0, on_doubt: OnDoubt = "ask") -> Runner:
    """Return a runner as a new process makes it."""
    clock = ManualClock(NOON + timedelta(hours=hours))
    agent = FunctionAgent(
        name="teller",
        tools=[
            require_approval(
                transfer,
                when=first_match(threshold("amount", above=100), otherwise=never()),
                reviewers="erin",
                on_doubt=on_doubt,
            )
        ],
        llm=ScriptedLLM(reply=lambda messages: reply_to(ledger, messages)),
        timeout=None,
    )
    object.__setattr__(agent, "clock", clock)
    return Runner(store, {"teller": agent}, clock=clock)


async def paying(
    store: Store, run_id: str, ledger: str, later: str = "0", on_doubt: OnDoubt = "ask"
) -> Any:
    """Start, approve one transfer, refuse the other; whoever asks about a doubt is told to wait."""
    runner = runner_on(store, ledger, hours=float(later), on_doubt=on_doubt)
    await runner.start("teller", run_id=run_id, user_msg="Pay them.")
    run = await runner.advance(run_id)
    for record in await runner.pending(run_id=run_id):
        if "effect-in-doubt" not in record.request.tags:
            to_ann = record.request.subject.data["to"] == "ann"
            decision = Approve() if to_ann else Reject(comment="Not him.")
            await runner.answer(record.request_id, decision, by="erin")
    run = await runner.advance(run_id)
    return str(await runner.result(run_id)) if run.status is RunStatus.FINISHED else run.status


def lines_of(path: str) -> list[str]:
    """Return what was written to a file."""
    return Path(path).read_text().splitlines() if Path(path).exists() else []
