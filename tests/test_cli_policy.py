"""`hitl policy`: replay, rules on trial and spot checks, from the command line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from durable import NOON
from rollout import OK, bank_on, pay
from typer.testing import CliRunner, Result

from llama_index_hitl import Reject
from llama_index_hitl.cli import app
from llama_index_hitl.rules import Rule, first_match, never, shadow, spot_check, threshold
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import SqlStore

RULES = """
from pydantic import BaseModel
from llama_index_hitl.rules import always, first_match, threshold

small = first_match(
    threshold("amount", at_most=100, then="approve"),
    threshold("amount", above=1_000, then="reject"),
)

class Transfer(BaseModel):
    amount: int
    to: str

class Strict(BaseModel):
    amount: int
    iban: str

def made():
    return small

other = threshold("price", at_most=100, then="approve")

def broken():
    raise RuntimeError("no\\nconfiguration")

number = 5
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with rules in it."""
    for name in ("HITL_STORE", "HITL_APP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LOGNAME", "casey")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the commands add the working directory
    monkeypatch.delitem(sys.modules, "house_rules", raising=False)
    (tmp_path / "house_rules.py").write_text(RULES)


def hitl(*arguments: str) -> Result:
    return CliRunner().invoke(app, ("policy", *arguments))


def document(*arguments: str, code: int = 0) -> Any:
    result = hitl(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def refused(result: Result, *, code: int) -> str:
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    return line


def use(rule: Rule | None, work: Callable[[Runner], Awaitable[Any]]) -> Any:
    """Do something with a runner, as another process would."""

    async def go() -> Any:
        runner = bank_on(SqlStore("sqlite:///hitl.db"), rule)
        try:
            return await work(runner)
        finally:
            await runner.store.close()

    return asyncio.run(go())


def decide(rule: Rule | None = None) -> list[str]:
    """Let a person decide four transfers."""

    async def work(runner: Runner) -> list[str]:
        records = [
            await pay(runner, 10, OK),
            await pay(runner, 20, Reject(comment="not \x1b[31mthere")),
            await pay(runner, 500, OK),
            await pay(runner, 2_000, OK),
        ]
        return [record.request_id for record in records]

    made: list[str] = use(rule, work)
    return made


def test_a_replay_says_what_rules_would_have_decided() -> None:
    _, no, _, large = decide()
    shown = hitl("replay", "--rule", "house_rules:small", "--list")
    assert shown.exit_code == 0, shown.output
    assert " ".join(shown.stdout.split()).startswith(
        "Would have approved 2 of 4, of which people refused 1; "
        "would have rejected 1, of which people approved 1."
    )
    assert "33.3% (95% interval: 6.1% to 79.2%)" in shown.stdout
    assert no in shown.stdout
    assert large in shown.stdout
    assert "amount 20 is at most 100" in shown.stdout
    assert "rejected by alice, 2026-03-02 12:00 UTC" in shown.stdout
    assert "\x1b" not in shown.stdout
    brief = hitl("replay", "--rule", "house_rules:made").stdout
    assert brief.splitlines()[0] == shown.stdout.splitlines()[0]
    assert no not in brief


def test_a_rule_that_cannot_read_the_subjects_is_noticed() -> None:
    decide()
    shown = " ".join(hitl("replay", "--rule", "house_rules:other").stdout.split())
    assert shown.startswith("Would have approved 0 of 4")
    assert "raised LookupError: dict has no field 'price'" in shown


def test_a_replay_for_programs() -> None:
    ids = decide()
    found = document("replay", "--rule", "house_rules:small")
    assert (found["total"], found["saved"], found["whole"]) == (4, 3, True)
    assert (found["refused"], found["overruled"]) == ({"rejected": 1}, {"approved": 1})
    assert found["agreement"]["count"] == 1
    assert 0 < found["agreement"]["low"] < 1 / 3 < found["agreement"]["high"] < 1
    (case,) = found["wrongly_approved"]
    assert case["request_id"] == ids[1]
    assert (case["decision"], case["by"], case["at"]) == (
        "rejected",
        ["alice"],
        "2026-03-02T12:00:00Z",
    )
    assert document("replay", "--rule", "house_rules:small", "--most", "0")["asked"] == []


def test_a_replay_is_narrowed() -> None:
    decide()

    def total(*arguments: str) -> int:
        return int(document("replay", "--rule", "house_rules:small", *arguments)["total"])

    assert total("--gate", "approval", "--tag", "money") == 4
    assert total("--gate", "other") == total("--tag", "other") == total("--workflow", "other") == 0
    assert total("--since", NOON.isoformat()) == 4
    assert total("--until", "2026-03-02T13:00+01:00") == 0
    assert total("--limit", "3") == 3


def test_a_model_can_be_named_that_reads_what_is_stored() -> None:
    decide()
    typed = document("replay", "--rule", "house_rules:small", "--subject", "house_rules:Transfer")
    assert (typed["would_approve"], typed["unreadable"]) == (2, 0)
    strict = ("--subject", "house_rules:Strict")
    assert document("replay", "--rule", "house_rules:small", *strict)["unreadable"] == 4
    assert "iban" in hitl("replay", "--rule", "house_rules:small", *strict, "--list").stdout


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("house_rules", "must be MODULE:OBJECT"),
        ("house_rules:nothing", "cannot be loaded: AttributeError"),
        ("no_rules:small", "cannot be loaded: ModuleNotFoundError"),
        ("house_rules:number", "gives a int. It must be a Rule"),
        ("house_rules:Transfer", "It must be a Rule"),
        ("house_rules:broken", "raised RuntimeError: no configuration"),
    ],
)
def test_a_rule_that_is_none_is_wrong_usage(spec: str, said: str) -> None:
    decide()
    assert said in refused(hitl("replay", "--rule", spec), code=2)


def test_what_cannot_be_a_model_a_time_or_a_store_is_refused() -> None:
    rule = ("replay", "--rule", "house_rules:small")
    assert "no store at" in refused(hitl(*rule), code=1)
    decide()
    assert "--subject" in refused(hitl(*rule, "--subject", "house_rules:number"), code=2)
    assert "no time zone" in refused(hitl(*rule, "--since", "2026-03-02T12:00"), code=2)
    assert document(*rule, "--until", "soon", code=2)["error"]["code"] == "misused"


def test_what_rules_on_trial_said_is_compared() -> None:
    ids = decide(shadow(first_match(threshold("amount", at_most=100, then="approve"))))
    shown = hitl("shadow", "--list").stdout
    assert shown.startswith("Would have approved 2 of 4, of which people refused 1.")
    assert ids[1] in shown
    assert document("shadow")["wrongly_approved"][0]["request_id"] == ids[1]
    assert document("shadow", "--gate", "other")["total"] == 0


def test_spot_checks_are_listed_judged_and_counted() -> None:
    rule = spot_check(never(), 1, salt="2026")

    async def work(runner: Runner) -> list[str]:
        return [(await pay(runner, amount)).request_id for amount in (1, 2, 3)]

    ids = use(rule, work)
    listed = hitl("checks", "list").stdout
    assert all(request_id in listed for request_id in ids)
    assert [r["request_id"] for r in document("checks", "list", "--limit", "1")["requests"]]

    assert hitl("checks", "judge", ids[0], "--right").stdout == "On record: right.\n"
    found = document("checks", "judge", ids[1], "--wrong", "--by", "ann", "--comment", "no")
    assert (found["spot_check"]["right"], found["spot_check"]["by"]) == (False, "ann")
    assert found == document("checks", "judge", ids[1], "--wrong", "--by", "ann", "--comment", "no")
    again = hitl("checks", "judge", ids[1], "--right", "--by", "bob")
    assert "looked at by ann" in refused(again, code=1)
    assert "rita may not" in refused(
        hitl("checks", "judge", ids[2], "--right", "--by", "rita"), code=1
    )
    assert "--right or --wrong" in refused(hitl("checks", "judge", ids[2]), code=2)
    assert "half a character" in refused(
        hitl("checks", "judge", ids[2], "--right", "--comment", "\udcff"), code=2
    )
    assert "no request" in refused(hitl("checks", "judge", "nothing", "--right"), code=1)

    left = document("checks", "list", "--reviewer", "ann")["requests"]
    assert [request["request_id"] for request in left] == [ids[2]]
    assert "goes with --reviewer" in refused(hitl("checks", "list", "--role", "legal"), code=2)
    shown = hitl("checks", "report").stdout
    assert shown.startswith("Looked at 2 of 3 spot checks, 1 were wrong: 50.0% (95% interval:")
    assert ids[1] in shown
    report = document("checks", "report")
    assert (report["unchecked"], report["rules"]["never"]["wrong"]) == (1, 1)
    assert report["wrong_records"][0]["spot_check"]["comment"] == "no"
    assert "Nothing waits" in hitl("checks", "list", "--gate", "other").stdout
