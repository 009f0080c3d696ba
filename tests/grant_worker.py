"""One of several processes that use the same grants at once; run by `test_grants_processes`.

    python grant_worker.py URL NAME ROUNDS

Waits for a line on standard input, so that all begin at the same time, then makes calls of its own,
and the same calls as the others under the same keys, as after a crash that was none. Prints, as
JSON, which were covered by which grant.
"""

import asyncio
import json
import sys

from grants import runner_on

from llama_index_hitl._grantbook import StoredGrants
from llama_index_hitl.grants import GuardedCall
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import SqlStore


def book_of(runner: Runner, run_id: str) -> StoredGrants:
    """Return the grants that hold in a run, as its steps find them."""
    return StoredGrants(
        runner.store,
        runner._outbox,
        run_id,
        workflow="bank",
        owner=run_id,
        clock=runner.clock,
    )


def call_of(tool: str) -> GuardedCall:
    return GuardedCall(tool=tool, version="v1", agent="teller", arguments={"amount": 0.1})


async def main(url: str, name: str, rounds: int) -> None:
    print("ready", flush=True)  # noqa: T201 - this is how it talks
    sys.stdin.readline()
    runner = runner_on(SqlStore(url))
    covered: dict[str, list[str]] = {"own": [], "shared": []}
    for number in range(rounds):
        for tool, run_id in (("own", name), ("shared", "shared")):
            key = f"{run_id} {number}"
            if await book_of(runner, run_id).use(call_of(tool), key=key) is not None:
                covered[tool].append(key)
    await runner.store.close()
    print(json.dumps(covered), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
