"""A server of tools over the Model Context Protocol, on its standard input and output; for tests.

    python mcp_server.py EFFECTS

Each payment that it makes is a line of the file EFFECTS.
"""

import sys
from pathlib import Path
from typing import Literal

from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

server = MCPServer("bank")


class Account(BaseModel):
    """Where money goes."""

    name: str
    iban: str | None = None


@server.tool(description="Pay somebody.")
def pay(
    account: Account,
    amount: float,
    kind: Literal["now", "later"] = "now",
    note: str | None = None,
    copies: int = 1,
) -> str:
    """Pay somebody."""
    line = f"{account.name} {account.iban} {amount:g} {kind} {note} {copies}"
    with Path(sys.argv[1]).open("a") as effects:
        effects.write(f"{line}\n")
    return f"paid {amount:g} to {account.name}"


@server.tool()
def fail(reason: str) -> str:
    raise RuntimeError(reason)


if __name__ == "__main__":
    server.run()
