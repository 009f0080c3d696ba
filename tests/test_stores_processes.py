"""Several processes at once on one store: one of them wins each race, and nothing is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llama_index_hitl.stores import RequestQuery, SqlStore
from llama_index_hitl.testing._store_commits import assert_chained

WORKER = Path(__file__).parent / "store_worker.py"
NAMES = ("ann", "bob")
ROUNDS = 25


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/hitl.db"
    given: str = request.getfixturevalue("postgres_url")
    return given


def run_workers(url: str) -> dict[str, list[int]]:
    """Run the workers on a store that none of them has seen, and return which rows each made."""
    workers = {
        name: subprocess.Popen(
            [sys.executable, str(WORKER), url, name, str(ROUNDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in NAMES
    }
    for worker in workers.values():
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers.values():
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    made = {name: json.loads(worker.communicate(timeout=50)[0]) for name, worker in workers.items()}
    assert all(worker.returncode == 0 for worker in workers.values())
    return made


async def test_two_processes_share_a_new_store_and_lose_nothing(url: str) -> None:
    made = run_workers(url)
    assert sorted(made["ann"] + made["bob"]) == list(range(ROUNDS))
    store = SqlStore(url)
    requests = await store.requests(RequestQuery(limit=ROUNDS + 1))
    assert {request.request_id: request.run_id for request in requests} == {
        f"race {number}": name for name in NAMES for number in made[name]
    }
    told = sorted(f"{name} {number}" for name in NAMES for number in made[name])
    assert sorted(message.message_id for message in await store.messages("race")) == told
    race = list(await store.audit("race"))
    assert_chained(race, "race")
    assert sorted(row.entry.reason for row in race) == told
    counter, trail = await store.run("counter"), list(await store.audit("counter"))
    assert counter is not None
    assert counter.attempts == counter.revision == len(trail) == ROUNDS * len(NAMES)
    assert_chained(trail, "counter")
    await store.close()
