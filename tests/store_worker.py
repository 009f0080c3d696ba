"""One of several processes that write to the same store at once; run by `test_stores_processes`.

    python store_worker.py URL NAME ROUNDS

Waits for a line on standard input, so that all begin at the same time, then races the others for
rows that only one can make, and adds to a counter that none may lose a count of. Prints, as JSON,
the rows that it made.
"""

import asyncio
import json
import sys
from dataclasses import replace

from llama_index_hitl.errors import Conflict
from llama_index_hitl.stores import Commit, SqlStore, Store
from llama_index_hitl.testing._store_rows import a_message, a_request, a_run, an_entry


async def race(store: Store, name: str, number: int) -> bool:
    """Try to be the one who makes a row; with it go a message and an audit row."""
    made = Commit(
        requests=(a_request(f"race {number}", run_id=name),),
        messages=(a_message(f"{name} {number}", run_id="race"),),
        audit=(an_entry("race", reason=f"{name} {number}"),),
    )
    try:
        await store.commit(made)
    except Conflict:
        return False
    return True


async def add_one(store: Store) -> None:
    """Add one to the counter, as often as it takes."""
    while True:
        run = await store.run("counter") or a_run("counter")
        counted = replace(run, attempts=run.attempts + 1)
        try:
            await store.commit(Commit(run=counted, audit=(an_entry("counter"),)))
        except Conflict:
            continue
        return


async def main(url: str, name: str, rounds: int) -> None:
    print("ready", flush=True)  # noqa: T201 - this is how it talks
    sys.stdin.readline()
    store = SqlStore(url)
    made = []
    for number in range(rounds):
        if await race(store, name, number):
            made.append(number)
        await add_one(store)
    await store.close()
    print(json.dumps(made), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
