"""An agent on DBOS in a process of its own, which answers one request and dies when the run rests.

    python agent_process.py DIRECTORY [HANDLER_ID]

Without a handler a run is started. Prints the handler and whom the transfer is to that it has let
pass, or, if the run is over then, its result.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from agent_runs import Bank
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from runtime_hosts import Served, dbos_server, serving, until

from llama_index_hitl import Approve
from llama_index_hitl.agents import require_approval
from llama_index_hitl.testing import ScriptedLLM, ToolCall


class FileBank(Bank):
    """A bank whose books are a file."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    async def transfer(self, to: str, amount: int) -> str:
        """Pay somebody."""
        with (self.directory / "paid.txt").open("a") as books:
            books.write(f"{to} {amount}\n")
        return f"{to} got {amount}"


def reply_to(directory: Path, messages: list[ChatMessage]) -> Any:
    """Pay ann, then bob; then say who said what."""
    with (directory / "asked.txt").open("a") as log:
        log.write("asked\n")
    results = [m for m in messages if m.role is MessageRole.TOOL]
    if len(results) < 2:
        return ToolCall(
            name="transfer", arguments={"to": ("ann", "bob")[len(results)], "amount": 5}
        )
    return " / ".join(str(message.content) for message in messages if message.content)


async def main(directory: Path, handler_id: str | None) -> None:
    """Do one thing and die."""
    agent = FunctionAgent(
        name="teller",
        tools=[require_approval(FileBank(directory).transfer)],
        llm=ScriptedLLM(reply=lambda messages: reply_to(directory, messages)),
        timeout=None,
    )
    server = dbos_server(directory)
    server.add_workflow("teller", agent)
    async with serving(server) as client:
        if handler_id is None:
            body = {"start_event": {"user_msg": "Pay them."}}
            started = await client.post("/workflows/teller/run-nowait", json=body)
            handler_id = str(started.json()["handler_id"])
        run = Served(server, client, handler_id)

        (request,) = await until(run.open, "the run asks")
        assert await run.send(request.answer(Approve(), by="erin")) == "ok"
        if await run.ended():
            die(handler_id, json.dumps(await run.result()))
        die(handler_id, request.request.subject.data["to"])


def die(*last_words: str) -> None:
    sys.stdout.write(" ".join(last_words) + "\n")
    sys.stdout.flush()
    os._exit(9)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), (sys.argv[2:3] or [None])[0]))
