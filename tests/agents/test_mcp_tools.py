"""Tools of a server of the Model Context Protocol, a real one in another process, under a guard."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_server
from agents_in_hand import (
    Hand,
    agent,
    agent_tests,
    arguments,
    call,
    edit,
    results,
    to,
)
from llama_index.core.tools import FunctionTool
from llama_index.tools.mcp import McpToolSpec
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from llama_index_hitl import Reject
from llama_index_hitl.agents import require_approval

pytestmark = agent_tests


@asynccontextmanager
async def tools_of_a_server(effects: Path) -> AsyncIterator[dict[str, FunctionTool]]:
    """Start a server, and return its tools as LlamaIndex has them."""
    server = StdioServerParameters(command=sys.executable, args=[mcp_server.__file__, str(effects)])
    with (effects.parent / "errors").open("w") as errors:
        async with (
            stdio_client(server, errlog=errors) as (read, write),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = await McpToolSpec(client=session).to_tool_list_async()
            yield {tool.metadata.get_name(): tool for tool in tools}


async def test_calls_reach_the_server_only_when_they_may(start_both: Any, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    ann = {"account": {"name": "Ann", "iban": "DE1"}, "amount": 500}
    ben = {"account": {"name": "Ben"}, "amount": 10, "kind": "later"}
    turns = [
        [call("pay", "c1", **ann), call("pay", "c2", **ben), call("pay", "c3", amount=1)],
        call("fail", "c4", reason="no"),
        "Done.",
    ]
    async with tools_of_a_server(effects) as tools:
        make = agent([require_approval(tool) for tool in tools.values()], *turns)
        run: Hand = start_both(make)
        requests = {arguments(r)["account"]["name"]: r for r in await run.waiting()}
        assert arguments(requests["Ann"]) == {
            **ann,
            "kind": "now",
            "note": None,
            "copies": 1,
        }
        assert requests["Ann"].body == "Pay somebody."
        assert effects.read_text() == ""
        edited = {"name": "Ben", "iban": "DE2"}
        (last,) = await run.tell(
            to(requests["Ann"], Reject()), edit(requests["Ben"], account=edited, amount=5)
        )
        # What nobody gave and is null is not sent: the server's own defaults hold.
        assert effects.read_text() == "Ben DE2 5 later None 1\n"
        assert last.title == "Agent wants to call fail"
        assert await run.tell(to(last)) == []
        assert str(await run.result()) == "Done."
    told = results(make.llm.calls[-1])
    assert "NOT made" in told["c1"]
    assert "paid 5 to Ben" in told["c2"]
    assert "account: Field required" in told["c3"]
    assert "Error executing tool fail" in told["c4"]
    assert effects.read_text() == "Ben DE2 5 later None 1\n"
