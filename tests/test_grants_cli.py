"""The commands about standing approvals: give one with an answer, list, show, revoke, verify."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from grants import Bank, workflows
from typer.testing import CliRunner, Result

from llama_index_hitl.cli import app
from llama_index_hitl.models import GrantTerms
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import SqlStore

GRANT = ("--grant", "any", "--at-most", "amount=500", "--in-total", "amount=800")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HITL_STORE", "HITL_APP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Bank, "done", [])


def hitl(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def document(*arguments: str, code: int = 0) -> Any:
    result = hitl(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def use(work: Any) -> Any:
    async def go() -> Any:
        runner = Runner(SqlStore("sqlite:///hitl.db"), workflows(), notifiers=())
        try:
            return await work(runner)
        finally:
            await runner.store.close()

    return asyncio.run(go())


def start(key: str, amount: int = 50) -> str:
    """Start a transfer; return the id of what it asks, or how it ended."""

    async def work(runner: Runner) -> str:
        run = await runner.start("bank", run_id=key, inputs={"amount": amount, "key": key})
        if run.status == "finished":
            return "finished"
        (record,) = await runner.pending(run_id=key)
        return record.request_id

    found: str = use(work)
    return found


def test_an_answer_gives_a_grant_which_is_listed_shown_and_revoked() -> None:
    first = start("first")
    assert "approve --grant any" in hitl("show", first).output
    answered = hitl(
        "answer",
        first,
        "approve",
        "--by",
        "ann",
        *GRANT,
        "--grant-uses",
        "2",
        "--grant-until",
        "2999-01-01T00:00Z",
    )
    assert answered.exit_code == 0, answered.output
    (grant,) = document("grants", "list")["grants"]
    assert (grant["owner"], grant["tool"], grant["state"]) == ("ann", "transfer", "active")
    assert grant["terms"] == {
        "arguments": "any",
        "at_most": {"amount": "500"},
        "in_total": {"amount": "800"},
        "until": "2999-01-01T00:00:00Z",
        "uses": 2,
    }
    assert start("second", 450) == "finished"
    listed = hitl("grants", "list", "--tool", "transfer", "--owner", "ann").output
    assert grant["grant_id"] in listed
    assert "2 times" in listed
    shown = hitl("grants", "show", grant["grant_id"]).output
    for word in ("active", "teller", "bank", "ann", "first", "once", "amount 450"):
        assert word in shown

    revoke = ("grants", "revoke", grant["grant_id"], "--by")
    revoked = hitl(*revoke, "bob", "--reason", "Enough.")
    assert revoked.exit_code == 0
    assert "Revoked by bob" in revoked.output
    assert "Revoked by bob" in hitl(*revoke, "cat").output  # the first time counts
    assert start("third") != "finished"
    assert document("grants", "list")["grants"] == []
    assert "There is no such standing approval" in hitl("grants", "list").output
    narrow = CliRunner().invoke(app, ["grants", "list", "--all"], env={"COLUMNS": "80"})
    assert "revoked" in narrow.output
    (gone,) = document("grants", "list", "--all")["grants"]
    assert (gone["state"], gone["revoked_because"]) == ("revoked", "Enough.")
    assert "Enough." in hitl("grants", "show", grant["grant_id"]).output


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--grant-uses", "2"), 1, "grant.arguments: say any or same"),
        (("--at-most", "amount=500"), 1, "grant.arguments: say any or same"),
        (("--grant", "all"), 2, ""),
        (("--grant", "any", "--at-most", "amount"), 2, "--at-most amount must be ARGUMENT=AMOUNT"),
        (("--grant", "any", "--at-most", "amount="), 2, "must be ARGUMENT=AMOUNT"),
        ((*GRANT, "--in-total", "amount=9"), 2, "--in-total amount=9 is there twice"),
        (("--grant", "any", "--at-most", "amount=49"), 1, "grant.at_most.amount"),
        (("--grant", "any", "--grant-until", "Friday"), 1, "grant.until"),
        (("--grant", "any", "--grant-until", "2020-01-01T00:00Z"), 1, "grant.until"),
        (("--grant", "any", "--grant-uses", "0"), 1, "grant.uses"),
    ],
    ids=str,
)
def test_what_does_not_say_clearly_what_to_grant_is_refused(
    options: tuple[str, ...], code: int, said: str
) -> None:
    request_id = start("first")
    result = hitl("answer", request_id, "approve", *options)
    assert result.exit_code == code
    assert said in result.stderr
    assert document("grants", "list", "--all")["grants"] == []
    assert start("first") == request_id  # it is still open


def test_a_rejection_with_a_grant_is_refused() -> None:
    result = hitl("answer", start("first"), "reject", "--grant", "any")
    assert result.exit_code == 1
    assert "grant.arguments" in result.stderr


def test_an_unknown_grant_is_named() -> None:
    start("first")
    for command in ("show", "revoke"):
        result = hitl("grants", command, "grant-x")
        assert result.exit_code == 1
        assert "There is no standing approval 'grant-x'" in result.stderr
    assert document("grants", "show", "grant-x", code=1)["error"]["code"] == "unknown_grant"


def test_the_trail_of_a_grant_without_a_run_is_verified_and_exported_too() -> None:
    grant = use(
        lambda runner: runner.grants.give(
            workflow="bank", tool="transfer", version="v1", terms=GrantTerms(), by="ann"
        )
    )
    (trail,) = document("audit", "verify")["trails"]
    assert (trail["run_id"], trail["rows"]) == (grant.grant_id, 1)
    assert grant.grant_id in hitl("audit", "export").output
