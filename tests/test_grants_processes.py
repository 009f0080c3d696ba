"""Several processes at once on the same grants: what is left is given out once."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

from durable import kinds
from grants import runner_on

from llama_index_hitl.audit import verify
from llama_index_hitl.models import GrantTerms
from llama_index_hitl.stores import SqlStore

WORKER = Path(__file__).parent / "grant_worker.py"
NAMES = ("ann", "bob")
ROUNDS = 6


def run_workers(url: str) -> dict[str, dict[str, list[str]]]:
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
    said = {name: json.loads(worker.communicate(timeout=50)[0]) for name, worker in workers.items()}
    assert all(worker.returncode == 0 for worker in workers.values())
    return said


async def test_two_processes_use_up_a_grant_exactly_and_share_what_has_one_key(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/hitl.db"
    store = SqlStore(url)
    runner = runner_on(store)
    terms = {
        "own": GrantTerms(uses=ROUNDS + 2),  # for twice as many calls
        "shared": GrantTerms(in_total={"amount": "0.4"}),  # of 0.1 each, made by both
    }
    for tool in terms:
        await runner.grants.give(
            workflow="bank",
            tool=tool,
            agent="teller",
            version="v1",
            terms=terms[tool],
            by="ann",
        )
    said = run_workers(url)
    grants = {grant.tool: grant for grant in await runner.grants.list(active=False)}

    assert sum(len(each["own"]) for each in said.values()) == ROUNDS + 2
    assert grants["own"].used == ROUNDS + 2
    used = [row for name in NAMES for row in await runner.history(name)]
    assert kinds(used) == ["grant_used"] * (ROUNDS + 2)

    assert {key for each in said.values() for key in each["shared"]} == {
        f"shared {number}" for number in range(4)
    }
    assert all(len(each["shared"]) == 4 for each in said.values())
    assert (grants["shared"].used, grants["shared"].spent) == (4, {"amount": Decimal("0.4")})
    trail = await runner.history("shared")
    assert kinds(trail) == ["grant_used"] * 4
    assert not verify(trail)
    await store.close()
