"""The commands on runs that wait in a store: seeing, deciding, keeping going, the record."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from shop import own_runner, workflows_at
from typer.testing import CliRunner, Result

from llama_index_hitl import Approve, Clock, Reviewer, utc_now
from llama_index_hitl.cli import app
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import SqlStore
from llama_index_hitl.testing import ManualClock

APP = ("--app", "shop:workflows")
LENA = Reviewer(id="lena", roles=("legal",))
LONG_AGO = datetime.now(UTC) - timedelta(days=10)


class Shop:
    """A working directory with workflows in it, and the commands that are typed there."""

    def hitl(self, *arguments: str, store: str | None = None) -> Result:
        given = arguments if store is None else (*arguments, "--store", store)
        return CliRunner().invoke(app, given)

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Return the one JSON document that a command prints."""
        result = self.hitl(*arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def use(self, work: Callable[[Runner], Awaitable[Any]], *, clock: Clock = utc_now) -> Any:
        """Do something with a runner, as another process would."""

        async def go() -> Any:
            store = SqlStore("sqlite:///hitl.db")
            runner = Runner(store, workflows_at(clock), clock=clock, notifiers=())
            try:
                return await work(runner)
            finally:
                await runner.store.close()

        return asyncio.run(go())

    def use_own(self, work: Callable[[Runner], Awaitable[Any]]) -> Any:
        """Do something with the runner that the shop has made itself."""

        async def go() -> Any:
            runner = await own_runner()
            try:
                return await work(runner)
            finally:
                await runner.store.close()

        return asyncio.run(go())

    def start(self, name: str, *, at: datetime | None = None, **inputs: Any) -> str:
        """Start a run, leave it where it waits, and return its id."""
        clock = utc_now if at is None else ManualClock(at)
        run = self.use(lambda runner: runner.start(name, inputs=inputs, tags=["shop"]), clock=clock)
        return str(run.run_id)

    def request(self, run_id: str) -> str:
        """Return the id of the one request that a run waits for."""
        (record,) = self.use(lambda runner: runner.pending(run_id=run_id))
        return str(record.request_id)

    def ask(self, name: str, **inputs: Any) -> str:
        """Start a run, and return the id of what it asks."""
        return self.request(self.start(name, **inputs))

    def change(self, sql: str, *values: Any) -> None:
        """Change the database behind the store's back."""
        with sqlite3.connect("hitl.db") as connection:
            assert connection.execute(sql, values).rowcount
        connection.close()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    for name in ("HITL_STORE", "HITL_APP", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LOGNAME", "casey")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the commands add the working directory
    return Shop()


def refused(result: Result, *, code: int = 1) -> str:
    """Return the one line that a command ends with when it does not do what it was asked."""
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def fits(shown: str, columns: int = 80) -> bool:
    """Tell whether everything but commands to copy fits into a terminal."""
    lines = (line for line in shown.splitlines() if not line.startswith("  hitl "))
    return all(len(line) <= columns for line in lines)


# --------------------------------------------------------------------------- who looks


def test_who_looks_at_a_request_is_said_and_taken_back(shop: Shop) -> None:
    request_id = shop.ask("article", topic="Tea")
    assert shop.json("pending")["requests"][0]["claim"] is None
    claimed = shop.hitl("claim", request_id, "--by", "lena", "--role", "legal")
    assert claimed.exit_code == 0, claimed.output
    assert claimed.stdout.startswith("Claimed by lena until ")
    assert "lena" in shop.hitl("pending").stdout
    assert "Looked at by" in shop.hitl("pending").stdout
    assert "looked at by" in shop.hitl("show", request_id).stdout
    for found in (shop.json("pending")["requests"][0], shop.json("show", request_id)["request"]):
        assert found["claim"]["by"] == "lena"
        assert datetime.fromisoformat(found["claim"]["until"]) > datetime.now(UTC)
    assert "lena is looking at" in refused(shop.hitl("claim", request_id, "--by", "mo"))
    assert shop.json("claim", request_id, "--by", "mo", code=1)["error"]["code"] == (
        "already_claimed"
    )

    assert shop.hitl("claim", request_id, "--by", "lena", "--release").stdout == "Released.\n"
    assert shop.json("show", request_id)["request"]["claim"] is None
    assert "Looked at by" not in shop.hitl("pending").stdout
    assert shop.json("claim", request_id, "--by", "mo", "--minutes", "1")["claim"]["by"] == "mo"
    both = shop.hitl("claim", request_id, "--release", "--minutes", "1")
    assert "--minutes" in refused(both, code=2)


def test_a_claim_that_has_ended_is_not_shown(shop: Shop) -> None:
    request_id = shop.request(shop.start("article", at=LONG_AGO, topic="Tea"))
    shop.use(lambda runner: runner.claim(request_id, by="lena"), clock=ManualClock(LONG_AGO))
    assert shop.json("pending")["requests"][0]["claim"] is None
    assert "looked at by" not in shop.hitl("show", request_id).stdout


# --------------------------------------------------------------------------- runs, pending


def test_runs_are_listed_and_narrowed(shop: Shop) -> None:
    first, second = shop.start("article", topic="Tea"), shop.start("staged")
    shown = shop.hitl("runs")
    assert shown.exit_code == 0
    assert first in shown.stdout
    assert second in shown.stdout
    assert fits(shown.stdout)
    found = shop.json("runs")
    assert [run["run_id"] for run in found["runs"]] == [second, first]
    assert found["after"] is None
    assert (
        found["runs"][1] | {"run_id": first, "workflow": "article", "status": "waiting"}
        == (found["runs"][1])
    )
    assert found["runs"][1]["tags"] == ["shop"]
    assert datetime.fromisoformat(found["runs"][1]["created_at"]).utcoffset() == timedelta(0)
    for narrowed in (("--workflow", "staged"), ("--limit", "1")):
        assert [run["run_id"] for run in shop.json("runs", *narrowed)["runs"]] == [second]
    assert shop.json("runs", "--status", "finished")["runs"] == []
    assert shop.json("runs", "--tag", "nothing")["runs"] == []
    assert "no such run" in shop.hitl("runs", "--tag", "nothing").stdout


def test_a_list_goes_on_where_it_ended(shop: Shop) -> None:
    runs = {shop.start("article", topic=str(number)) for number in range(3)}
    page = shop.hitl("runs", "--limit", "2").stdout
    after = re.search(r"^  --after (\S+)$", page, flags=re.MULTILINE)
    assert after is not None
    rest = shop.json("runs", "--limit", "2", "--after", after[1])
    assert len(rest["runs"]) == 1
    assert {run["run_id"] for run in rest["runs"]} < runs
    assert rest["after"] is None
    first = shop.json("pending", "--limit", "2")
    second = shop.json("pending", "--limit", "2", "--after", first["after"])
    assert {r["run_id"] for r in [*first["requests"], *second["requests"]]} == runs
    assert "where a page" in refused(shop.hitl("runs", "--after", "nonsense"))


def test_open_requests_are_listed_and_narrowed(shop: Shop) -> None:
    article, staged = shop.ask("article", topic="Tea"), shop.ask("staged")
    payment = shop.ask("payments", amount=5)
    shown = shop.hitl("pending").stdout
    assert "Publish Tea." in shown
    assert "role:legal" in shown
    assert "0 of 2" in shown
    assert fits(shown)
    assert all(request_id in shown for request_id in (article, staged, payment))

    def ids(*options: str) -> list[str]:
        return [request["request_id"] for request in shop.json("pending", *options)["requests"]]

    assert ids() == [staged, article, payment]  # the urgent one first
    assert ids("--reviewer", "erin") == [article, payment]
    assert ids("--reviewer", "lena", "--role", "legal") == [staged, article]
    assert ids("--role", "legal") == [staged, article]
    assert ids("--gate", "legal") == [staged]
    assert ids("--tag", "news") == [article]
    assert ids("--priority", "high") == [staged]
    assert ids("--workflow", shop.json("pending")["requests"][1]["workflow"]) == [article]
    assert ids("--gate", "nothing") == []
    assert "No such request is open" in shop.hitl("pending", "--gate", "nothing").stdout


def test_a_page_of_requests_is_filled_although_some_of_them_were_voted_on(shop: Shop) -> None:
    staged = [shop.ask("staged") for _ in range(3)]
    for request_id in staged[:2]:
        shop.use(lambda r, which=request_id: r.answer(which, Approve(), by=LENA))
    found = shop.json("pending", "--reviewer", "lena", "--role", "legal", "--limit", "1")
    assert [request["request_id"] for request in found["requests"]] == staged[2:]


def test_what_is_due_soon_is_found_by_its_time(shop: Shop) -> None:
    run_id = shop.start("offer", at=LONG_AGO)
    due = LONG_AGO + timedelta(days=2)
    (request,) = shop.json("pending", "--due-before", (due + timedelta(minutes=1)).isoformat())[
        "requests"
    ]
    assert request["run_id"] == run_id
    assert datetime.fromisoformat(request["next_due"]) == due
    assert shop.json("pending", "--due-before", due.isoformat())["requests"] == []
    assert f"{due:%Y-%m-%d %H:%M}" in shop.hitl("pending").stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--due-before", "2026-03-02T12:00"), "has no time zone"),
        (("--due-before", "tomorrow"), "is no time"),
        (("--role", "a", "--role", "b"), "one role at a time"),
        (("--reviewer", "role:legal"), "without 'role:'"),
    ],
)
def test_what_cannot_be_asked_of_a_list_is_wrong_usage(
    shop: Shop, options: tuple[str, ...], said: str
) -> None:
    shop.start("article", topic="Tea")
    assert said in refused(shop.hitl("pending", *options), code=2)
    document = shop.json("pending", *options, code=2)
    assert document["error"]["code"] == "misused"


def test_an_unknown_choice_is_wrong_usage(shop: Shop) -> None:
    assert shop.hitl("runs", "--status", "asleep").exit_code == 2
    assert shop.hitl("pending", "--priority", "soon").exit_code == 2
    assert shop.hitl("runs", "--limit", "0").exit_code == 2


# --------------------------------------------------------------------------- show


def test_a_request_is_shown_with_everything_that_became_of_it(shop: Shop) -> None:
    request_id = shop.ask("staged")
    shop.hitl("answer", request_id, "approve: fine", "--by", "lena", "--role", "legal")
    shown = shop.hitl("show", request_id).stdout
    for part in ("A contract.", "1 of 2 approvals", "approve by lena as legal", "cli: fine"):
        assert part in shown
    assert fits(shown)
    assert f"hitl answer {request_id} reject" in shown
    request = shop.json("show", request_id)["request"]
    assert request["digest"] in shown
    assert request["record"]["answers"][0]["by"]["id"] == "lena"
    assert request["record"]["request"]["subject"]["data"] == {"text": "A contract."}


def test_a_closed_request_is_shown_without_a_way_to_answer_it(shop: Shop) -> None:
    request_id = shop.ask("article", topic="Tea")
    shop.hitl("answer", request_id, "approve")
    shown = shop.hitl("show", request_id).stdout
    assert "approved. casey approved it." in shown
    assert "hitl answer" not in shown


def test_a_deadline_is_shown_as_what_happens_then(shop: Shop) -> None:
    request_id = shop.request(shop.start("offer", at=LONG_AGO))
    due = f"{LONG_AGO + timedelta(days=2):%Y-%m-%d %H:%M}"
    assert f"{due} expire" in shop.hitl("show", request_id).stdout
    shop.hitl("sweep")
    shown = shop.hitl("show", request_id).stdout
    assert re.search(rf"{due} expire +\(done\)", shown)
    assert "status" in shown
    assert "expired." in shown


def test_a_run_is_shown_with_what_it_waits_for_and_what_happened(shop: Shop) -> None:
    run_id = shop.start("article", topic="Tea")
    request_id = shop.request(run_id)
    shown = shop.hitl("show", run_id).stdout
    assert "Publish Tea." in shown
    assert "started" in shown
    assert fits(shown)
    found = shop.json("show", run_id)
    assert set(found) == {"run", "requests", "result", "history"}
    assert found["run"]["status"] == "waiting"
    assert [request["request_id"] for request in found["requests"]] == [request_id]
    assert [row["entry"]["kind"] for row in found["history"]] == ["started", "opened"]


def test_the_result_of_a_run_is_shown_where_its_workflow_is_known(shop: Shop) -> None:
    run_id = shop.start("article", topic="Tea")
    shop.hitl("answer", shop.request(run_id), "approve", "--advance", *APP)
    assert shop.json("show", run_id)["result"] is None
    assert shop.json("show", run_id, *APP)["result"] == "Tea."
    assert re.search(r"^Result\n  Tea\.$", shop.hitl("show", run_id, *APP).stdout, re.MULTILINE)


def test_a_run_may_wait_for_more_than_a_page_holds(shop: Shop) -> None:
    run_id = shop.start("many", count=120)
    assert len(shop.json("show", run_id)["requests"]) == 120
    first = shop.json("pending")["requests"][0]["request_id"]
    shown = shop.hitl("answer", first, "approve", "--advance", *APP).stdout
    assert shown.count("hitl answer") == 0  # a table takes their place
    assert shown.count("approval-") == 119


def test_an_unknown_id_is_refused_by_every_command(shop: Shop) -> None:
    shop.start("article", topic="Tea")
    for command in (
        ("show", "nobody"),
        ("answer", "nobody", "approve"),
        ("withdraw", "nobody"),
        ("cancel", "nobody"),
        ("retry", "nobody", *APP),
        ("audit", "verify", "nobody"),
        ("audit", "export", "nobody"),
        ("demo", "--resume", "nobody"),
    ):
        assert "'nobody'" in refused(shop.hitl(*command))
    assert shop.json("show", "nobody", code=1)["error"]["code"] == "unknown_id"
    assert shop.json("answer", "nobody", "approve", code=1)["error"]["code"] == "unknown_request"
    assert shop.json("cancel", "nobody", code=1)["error"]["code"] == "unknown_run"


def test_hostile_text_does_nothing_to_the_terminal(shop: Shop) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07[bold red]evil[/] \u202egnp.exe\x9b31m\r\nError: gone\n$"
    run_id = shop.start("article", topic=hostile)
    request_id = shop.request(run_id)
    outputs = [
        shop.hitl("pending"),
        shop.hitl("show", request_id),
        shop.hitl("show", run_id),
        shop.hitl("answer", request_id, f"approve: {hostile}", "--by", "ca\x1b[31m"),
        shop.hitl("show", request_id),
        shop.hitl("show", run_id),
        shop.hitl("answer", request_id, hostile),
        shop.hitl("show", hostile),
        shop.hitl("recover", *APP),
        shop.hitl("show", run_id, *APP),
    ]
    for result in outputs:
        assert not re.search(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", result.output.replace("\r", "?")
        )
    assert "[bold red]evil[/]" in outputs[1].stdout
    assert not any(
        line.startswith("Error: gone") for o in outputs for line in o.stdout.splitlines()
    )
    assert len(outputs[6].stderr.splitlines()) == 1
    assert shop.hitl("show", request_id, "--json").stdout.isascii()


def test_a_narrow_window_loses_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    request_id = shop.ask("article", topic="Something with rather a long title to it")
    monkeypatch.setenv("COLUMNS", "40")
    shown = shop.hitl("pending").stdout
    assert fits(shown, 40)
    assert request_id in "".join(re.findall(r"^\S+", shown, flags=re.MULTILINE))
    for word in ("Something", "rather", "title"):
        assert word in shown


# --------------------------------------------------------------------------- answer


def test_an_answer_is_taken_and_the_run_goes_on_later(shop: Shop) -> None:
    run_id = shop.start("article", topic="Tea")
    request_id = shop.request(run_id)
    shown = shop.hitl("answer", request_id, "approve", "--comment", "good")
    assert shown.exit_code == 0
    assert "Taken: approve by casey" in shown.stdout
    assert "The request is approved." in shown.stdout
    assert "hitl recover --app" in shown.stdout
    assert shop.json("show", run_id)["run"]["status"] == "waiting"
    assert run_id in shop.hitl("recover", *APP).stdout
    assert shop.json("show", run_id, *APP)["result"] == "Tea."
    (answered,) = [
        row["entry"]
        for row in shop.json("show", run_id)["history"]
        if row["entry"]["kind"] == "answered"
    ]
    assert (answered["actor"], answered["channel"], answered["reason"]) == ("casey", "cli", "good")
    assert answered["digest"] == shop.json("show", request_id)["request"]["digest"]


def test_an_answer_can_let_the_run_go_on_at_once(shop: Shop) -> None:
    request_id = shop.ask("article", topic="Tea")
    document = shop.json("answer", request_id, "revise: shorter", "--advance", *APP)
    assert document["receipt"]["answer"]["decision"]["feedback"] == "shorter"
    assert document["request"]["status"] == "revised"
    assert document["run"]["status"] == "waiting"
    assert document["error"] is None
    (following,) = document["requests"]
    assert following["title"] == "Publish shorter!"
    shown = shop.hitl("answer", following["request_id"], "approve", "--advance", *APP).stdout
    assert "is finished" in shown
    assert "\n  shorter!" in shown


def test_what_a_workflow_prints_does_not_come_between_a_program_and_its_document(
    shop: Shop,
) -> None:
    request_id = shop.ask("chatty")
    assert shop.json("answer", request_id, "approve", "--advance", *APP)["result"] == "said"
    shop.hitl("answer", shop.ask("chatty"), "approve")
    assert "Hello from a step!" in shop.hitl("recover", *APP).stdout


def test_the_same_answer_again_is_the_same_receipt_and_another_one_is_refused(shop: Shop) -> None:
    request_id = shop.ask("article", topic="Tea")
    first = shop.json("answer", request_id, "approve", "--by", "ann")
    assert shop.json("answer", request_id, "approve", "--by", "ann")["receipt"] == first["receipt"]
    assert "answered by ann" in refused(shop.hitl("answer", request_id, "reject", "--by", "ann"))
    error = shop.json("answer", request_id, "reject", "--by", "bob", code=1)["error"]
    assert error["code"] == "already_answered"


def test_a_vote_that_does_not_decide_says_what_is_missing(shop: Shop) -> None:
    request_id = shop.ask("staged")
    shown = shop.hitl("answer", request_id, "approve", "--by", "lena", "--role", "legal").stdout
    assert "The request is open. 1 of 2 approvals." in shown
    assert "recover" not in shown
    second = shop.json("answer", request_id, "approve", "--by", "luis", "--role", "legal")
    assert second["receipt"]["number"] == 2
    assert second["receipt"]["decides"] is True
    assert second["receipt"]["answer"]["role"] == "legal"


@pytest.mark.parametrize("word", ["", " ", "yes", "y", "approved", "ok: approve", "1", "respond"])
def test_nothing_but_the_exact_word_decides(shop: Shop, word: str) -> None:
    request_id = shop.ask("payments", amount=5)
    line = refused(shop.hitl("answer", request_id, word, "--by", "erin"))
    assert "approve, reject, edit" in line
    assert shop.json("show", request_id)["request"]["record"]["answers"] == []


def test_without_a_decision_and_without_a_terminal_the_allowed_ones_are_said(shop: Shop) -> None:
    request_id = shop.ask("payments", amount=5)
    for options in ((), ("--comment", "fine"), ("--json",)):
        result = shop.hitl("answer", request_id, "--by", "erin", *options)
        assert "one of approve, reject, edit" in refused(result, code=2)
    assert shop.json("show", request_id)["request"]["record"]["answers"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("approve", "--by", "mallory"), "not_allowed", "mallory may not answer"),
        (("approve", "--by", "erin", "--digest", "abc"), "stale_request", "is stale"),
        (("edit", "--by", "erin", "--set", "amount=much"), "invalid_answer", "a whole number"),
        (("edit", "--by", "erin", "--set", "amuont=1"), "invalid_answer", "no such field"),
        (("approve", "--by", "erin", "--set", "amount=1"), "invalid_answer", "amount"),
        (("approve", "--by", "erin", "--feedback", "x"), "invalid_answer", "feedback"),
        (("approve: x", "--by", "erin", "--comment", "y"), "invalid_answer", "is not one of"),
    ],
)
def test_an_answer_that_is_refused_changes_nothing(
    shop: Shop, arguments: tuple[str, ...], code: str, said: str
) -> None:
    request_id = shop.ask("payments", amount=5)
    assert said in refused(shop.hitl("answer", request_id, *arguments))
    assert shop.json("answer", request_id, *arguments, code=1)["error"]["code"] == code
    assert shop.json("show", request_id)["request"]["record"]["answers"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("approve", "--digest", ""), "--digest is empty"),
        (("edit", "--set", "amount"), "must be FIELD=VALUE"),
        (("edit", "--set", "amount=1", "--set", "amount=2"), "is there twice"),
        (("approve", "--advance"), "--advance needs --app"),
        (("approve", "--by", ""), "at least 1 character"),
    ],
)
def test_an_answer_that_is_typed_wrongly_is_wrong_usage(
    shop: Shop, arguments: tuple[str, ...], said: str
) -> None:
    request_id = shop.ask("payments", amount=5)
    assert said in refused(shop.hitl("answer", request_id, *arguments), code=2)
    assert shop.json("show", request_id)["request"]["record"]["answers"] == []


def test_an_answer_after_the_deadline_is_refused(shop: Shop) -> None:
    request_id = shop.request(shop.start("offer", at=LONG_AGO))
    error = shop.json("answer", request_id, "approve", "--by", "alice", code=1)["error"]
    assert error["code"] == "expired"


def test_the_digest_of_what_was_shown_is_accepted(shop: Shop) -> None:
    request_id = shop.ask("article", topic="Tea")
    digest = shop.json("show", request_id)["request"]["digest"]
    assert shop.hitl("answer", request_id, "approve", "--digest", digest).exit_code == 0


def test_an_edit_changes_single_fields(shop: Shop) -> None:
    request_id = shop.ask("payments", amount=5)
    edited = shop.json("answer", request_id, "edit", "--set", "amount=4", "--by", "erin",
                       "--advance", *APP)  # fmt: skip
    assert edited["receipt"]["answer"]["decision"]["subject"] == {"amount": 4, "to": "alice"}
    assert edited["result"] == "paid 4"


@pytest.mark.parametrize(
    "given",
    [
        ("respond", "--response", '{"street": "Main St 1", "city": "Bern"}'),
        ("respond", "--set", "street=Main St 1", "--set", "city=Bern"),
        ('{"decision": "respond", "response": {"street": "Main St 1", "city": "Bern"}}',),
    ],
)
def test_a_question_is_answered_field_by_field_or_as_json(
    shop: Shop, given: tuple[str, ...]
) -> None:
    request_id = shop.ask("delivery")
    assert shop.json("answer", request_id, *given, "--advance", *APP)["result"] == "Bern"


def test_a_response_that_does_not_fit_is_refused(shop: Shop) -> None:
    request_id = shop.ask("delivery")
    line = refused(shop.hitl("answer", request_id, "respond", "--response", "Bern"), code=2)
    assert "street, city" in line
    assert "city" in refused(shop.hitl("answer", request_id, "respond", "--set", "street=x"))


def test_a_vote_is_handed_to_somebody_else(shop: Shop) -> None:
    request_id = shop.ask("staged")
    lena = ("--by", "lena", "--role", "legal")
    shop.hitl("answer", request_id, "delegate", "--to", "dora", *lena)
    shown = shop.hitl("show", request_id).stdout
    assert re.search(r"may answer now +role:legal, dora", shown)
    assert "delegated to dora" in shown
    assert shop.hitl("answer", request_id, "approve", "--by", "dora").exit_code == 0


def test_an_answer_stays_although_its_run_fails(shop: Shop) -> None:
    run_id = shop.start("payments", amount=5)
    request_id = shop.request(run_id)
    Path("bank_is_closed").touch()
    result = shop.hitl("answer", request_id, "approve", "--by", "erin", "--advance", *APP)
    assert "Taken: approve by erin" in result.stdout
    assert "ConnectionError: the bank is closed" in refused(result)
    assert "ConnectionError: the bank is closed" in shop.hitl("show", run_id).stdout
    document = shop.json("answer", request_id, "approve", "--by", "erin")
    assert document["request"]["status"] == "approved"


def test_an_answer_stays_although_its_run_cannot_go_on(shop: Shop) -> None:
    request_id = shop.ask("article", topic="Tea")
    demo = ("--app", "llama_index_hitl._demo:workflows")
    result = shop.hitl("answer", request_id, "approve", "--advance", *demo)
    assert "Taken: approve" in result.stdout
    assert "no workflow 'article'" in refused(result)
    document = shop.json("answer", request_id, "approve", "--advance", *demo, code=1)
    assert document["receipt"]["answer"]["decision"]["kind"] == "approve"
    assert document["error"]["code"] == "unknown_workflow"
    assert document["run"] is None


def test_an_authorizer_of_the_host_has_the_last_word_here_too(shop: Shop) -> None:
    request_id = shop.use_own(lambda runner: runner.start("article", inputs={"topic": "Tea"}))
    own = ("--app", "shop:own_runner")
    (request,) = shop.json("pending", *own)["requests"]
    request_id = request["request_id"]
    assert "only ann" in refused(shop.hitl("answer", request_id, "approve", *own))
    assert shop.hitl("answer", request_id, "approve", "--by", "ann", *own).exit_code == 0


# --------------------------------------------------------------------------- runs are ended


def test_a_question_is_withdrawn(shop: Shop) -> None:
    run_id = shop.start("payments", amount=5)
    request_id = shop.request(run_id)
    found = shop.json("withdraw", request_id, "--reason", "a mistake", "--by", "ann")
    assert found["request"]["status"] == "withdrawn"
    assert "withdrawn cannot" in refused(shop.hitl("withdraw", request_id))
    shop.hitl("recover", *APP)
    assert "not paid: " in shop.json("show", run_id, *APP)["result"]
    history = shop.json("show", run_id)["history"]
    assert ("withdrawn", "ann") in [(r["entry"]["kind"], r["entry"]["actor"]) for r in history]
    assert shop.hitl("withdraw", shop.ask("payments", amount=6)).exit_code == 0


def test_a_question_inside_a_step_cannot_be_withdrawn(shop: Shop) -> None:
    assert "inside a step" in refused(shop.hitl("withdraw", shop.ask("delivery")))


def test_a_run_is_cancelled_for_good(shop: Shop) -> None:
    run_id = shop.start("payments", amount=5)
    assert shop.json("cancel", run_id, "--reason", "no money")["run"]["status"] == "cancelled"
    assert shop.json("pending")["requests"] == []
    assert "it cannot be cancelled" in refused(shop.hitl("cancel", run_id))
    assert "no money" in shop.hitl("show", run_id).stdout
    assert "Cancelled" in shop.hitl("cancel", shop.start("payments", amount=6)).stdout


def test_a_failed_run_is_tried_again_with_the_same_answers(shop: Shop) -> None:
    run_id = shop.start("payments", amount=5)
    shop.hitl("answer", shop.request(run_id), "approve", "--by", "erin")
    Path("bank_is_closed").touch()
    recovered = shop.hitl("recover", *APP)
    assert run_id in refused(recovered)
    assert "failed" in recovered.stdout
    failing = shop.json("retry", run_id, *APP, code=1)
    assert failing["run"]["error"]["type"] == "ConnectionError"
    Path("bank_is_closed").unlink()
    assert "paid 5" in shop.hitl("retry", run_id, *APP).stdout
    assert "cannot be retried" in refused(shop.hitl("retry", run_id, *APP))


@pytest.fixture
def doubt(shop: Shop) -> str:
    """Begin an effect that nobody knows the end of; returns the run."""
    run_id = shop.start("payments", amount=5)
    shop.hitl("answer", shop.request(run_id), "approve", "--by", "erin")
    Path("line_is_cut").touch()
    assert "EffectInDoubt" in refused(shop.hitl("recover", *APP)) + refused(
        shop.hitl("retry", run_id, *APP)
    )
    Path("line_is_cut").unlink()
    return run_id


def test_an_effect_in_doubt_is_listed_and_settled_as_done(shop: Shop, doubt: str) -> None:
    shown = shop.hitl("effects").stdout
    assert doubt in shown
    assert fits(shown)
    (effect,) = shop.json("effects")["effects"]
    assert (effect["run_id"], effect["status"]) == (doubt, "begun")
    settled = shop.hitl(
        "settle", effect["key"], "--happened", "--result", '"paid 5, it said"', *APP
    )
    assert settled.exit_code == 0
    assert shop.json("retry", doubt, *APP)["result"] == "paid 5, it said"
    assert Path("transfers.txt").read_text(encoding="utf-8") == "5\n"
    assert "No effect is in doubt." in shop.hitl("effects").stdout


def test_an_effect_in_doubt_is_settled_as_not_done_and_repeated(shop: Shop, doubt: str) -> None:
    key = shop.json("effects")["effects"][0]["key"]
    assert shop.json("settle", key, "--not-happened") == {"key": key, "happened": False}
    assert shop.json("retry", doubt, *APP)["result"] == "paid 5"
    assert Path("transfers.txt").read_text(encoding="utf-8") == "5\n5\n"
    assert "is in doubt" in refused(shop.hitl("settle", key, "--not-happened"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--happened or --not-happened"),
        (("--happened",), "--happened needs --app"),
        (("--happened", "--result", "paid", *APP), "is not JSON"),
    ],
)
def test_an_effect_that_is_settled_wrongly_stays_in_doubt(
    shop: Shop, doubt: str, options: tuple[str, ...], said: str
) -> None:
    key = shop.json("effects")["effects"][0]["key"]
    assert said in refused(shop.hitl("settle", key, *options), code=2)
    assert len(shop.json("effects")["effects"]) == 1


# --------------------------------------------------------------------------- upkeep


def test_promise_09_a_sweep_does_what_is_due_once_however_late(shop: Shop) -> None:
    run_id = shop.start("offer", at=LONG_AGO)
    request_id = shop.request(run_id)
    found = shop.json("sweep")
    due = LONG_AGO + timedelta(days=2)
    (done,) = found["done"]
    assert datetime.fromisoformat(done.pop("due")) == due
    assert done == {"run_id": run_id, "request_id": request_id, "action": "expire"}
    assert found["advanced"] == []
    assert shop.json("sweep")["done"] == []
    assert "Nothing is due." in shop.hitl("sweep").stdout
    assert shop.json("show", run_id)["run"]["status"] == "waiting"
    shop.hitl("recover", *APP)
    assert shop.json("show", run_id, *APP)["result"] == "Expired"


def test_a_sweep_with_the_workflows_lets_their_runs_go_on(shop: Shop) -> None:
    run_id = shop.start("offer", at=LONG_AGO)
    shown = shop.hitl("sweep", *APP)
    assert shown.exit_code == 0
    assert "expire" in shown.stdout
    assert fits(shown.stdout)
    assert shop.json("show", run_id, *APP)["result"] == "Expired"


def test_a_sweep_tells_the_notifiers_of_the_runner(shop: Shop) -> None:
    shop.use_own(lambda runner: runner.start("article", inputs={"topic": "Tea"}))
    assert shop.hitl("sweep", "--app", "shop:own_runner").exit_code == 0
    assert Path("told.txt").read_text(encoding="utf-8").splitlines() == ["opened"]


def test_what_people_did_here_is_kept_for_those_who_tell_it(shop: Shop) -> None:
    shop.hitl("answer", shop.ask("article", topic="Tea"), "approve")
    kinds = shop.use(lambda runner: runner.store.notices(datetime.now(UTC)))
    assert "answered" in [notice.kind for notice in kinds]


def test_recovering_lets_every_answered_run_go_on(shop: Shop) -> None:
    first, second = shop.start("article", topic="Tea"), shop.start("article", topic="Milk")
    for run_id in (first, second):
        shop.hitl("answer", shop.request(run_id), "approve")
    found = shop.json("recover", *APP)["advanced"]
    assert {run["run_id"]: run["status"] for run in found} == {
        first: "finished",
        second: "finished",
    }
    assert shop.json("recover", *APP)["advanced"] == []
    assert "No run can go on" in shop.hitl("recover", *APP).stdout


def test_a_check_says_which_runs_would_go_on(shop: Shop) -> None:
    run_id = shop.start("article", topic="Tea")
    assert "resumes" in shop.hitl("check", *APP).stdout
    found = shop.json("check", *APP)
    assert found["ok"] is True
    assert found["checks"] == [
        {
            "run_id": run_id,
            "workflow": "article",
            "status": "waiting",
            "verdict": "resumes",
            "differences": [],
        }
    ]


def test_a_check_finds_runs_that_the_code_no_longer_fits(shop: Shop) -> None:
    run_id = shop.start("article", topic="Tea")
    result = shop.hitl("check", "--app", "shop:changed")
    assert "1 of 1 runs would not go on" in refused(result)
    assert "needs_migration" in result.stdout
    assert "publish" in result.stdout
    assert fits(result.stdout)
    (found,) = shop.json("check", "--app", "shop:changed", code=1)["checks"]
    assert (found["run_id"], found["verdict"]) == (run_id, "needs_migration")
    assert any("publish" in difference for difference in found["differences"])
    (foreign,) = shop.json("check", "--app", "llama_index_hitl._demo:workflows", code=1)["checks"]
    assert foreign["verdict"] == "breaks"
    shop.hitl("cancel", run_id)
    assert "No run waits." in shop.hitl("check", "--app", "shop:changed").stdout


# --------------------------------------------------------------------------- the record


def test_an_untouched_trail_is_verified(shop: Shop) -> None:
    runs = [shop.start("article", topic="Tea"), shop.start("article", topic="Milk")]
    shown = shop.hitl("audit", "verify")
    assert shown.exit_code == 0
    assert "4 rows of 2 of 2 runs" in shown.stdout
    found = shop.json("audit", "verify")
    assert found["ok"] is True
    assert {trail["run_id"] for trail in found["trails"]} == set(runs)
    (one,) = shop.json("audit", "verify", runs[0])["trails"]
    assert (one["rows"], one["problems"]) == (2, [])


def test_rows_that_were_changed_or_removed_are_named(shop: Shop) -> None:
    changed, cut, whole = (shop.start("article", topic=t) for t in ("Tea", "Milk", "Water"))
    shop.change(
        "UPDATE hitl_audit "
        "SET entry = CAST(replace(CAST(entry AS TEXT), 'Publish', 'Forget') AS BLOB) "
        "WHERE run_id = ? AND number = 2", changed,
    )  # fmt: skip
    shop.change("DELETE FROM hitl_audit WHERE run_id = ? AND number = 1", cut)
    result = shop.hitl("audit", "verify")
    line = refused(result)
    assert changed in line
    assert cut in line
    assert whole not in line
    assert "row 2 (opened" in result.stdout
    assert "was changed" in result.stdout
    assert "row 1 is missing" in result.stdout
    trails = {t["run_id"]: t for t in shop.json("audit", "verify", code=1)["trails"]}
    assert trails[whole]["problems"] == []
    assert shop.hitl("audit", "verify", whole).exit_code == 0
    assert shop.hitl("audit", "verify", changed).exit_code == 1


def test_a_row_that_cannot_be_read_is_a_finding_and_hides_no_other(shop: Shop) -> None:
    broken, whole = shop.start("article", topic="Tea"), shop.start("article", topic="Milk")
    shop.change("UPDATE hitl_audit SET entry = x'00ff' WHERE run_id = ?", broken)
    trails = {t["run_id"]: t for t in shop.json("audit", "verify", code=1)["trails"]}
    assert trails[broken]["problems"]
    assert trails[whole]["problems"] == []


def test_an_export_holds_every_row_and_is_verified_by_itself(shop: Shop) -> None:
    run_id, other = shop.start("article", topic="Tea"), shop.start("article", topic="Milk")
    assert "Wrote 4 rows" in shop.hitl("audit", "export", "--out", "all.jsonl").stdout
    lines = Path("all.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([json.loads(line) for line in lines]) == 4
    assert shop.hitl("audit", "export").stdout.splitlines() == lines
    mine = shop.hitl("audit", "export", run_id).stdout.splitlines()
    assert {json.loads(line)["entry"]["run_id"] for line in mine} == {run_id}
    assert shop.hitl("audit", "verify", "--file", "all.jsonl").exit_code == 0
    assert shop.hitl("audit", "verify", other, "--file", "all.jsonl").exit_code == 0
    assert "broken" in refused(shop.hitl("audit", "verify", "nobody", "--file", "all.jsonl"))


def test_an_export_that_was_tampered_with_is_found_out(shop: Shop) -> None:
    run_id = shop.start("article", topic="Tea")
    text = shop.hitl("audit", "export").stdout
    file = Path("export.jsonl")
    file.write_text(text.replace("Publish", "Forget"), encoding="utf-8")
    assert run_id in refused(shop.hitl("audit", "verify", "--file", "export.jsonl"))
    file.write_text(text[:-20], encoding="utf-8")
    assert "Line 2" in refused(shop.hitl("audit", "verify", "--file", "export.jsonl"))
    file.write_bytes(b"\xff\xfe")
    assert "cannot be read" in refused(shop.hitl("audit", "verify", "--file", "export.jsonl"))
    assert shop.hitl("audit", "verify", "--file", "nowhere.jsonl").exit_code == 2


def test_what_is_missing_at_the_end_shows_against_an_earlier_export(shop: Shop) -> None:
    run_id, gone = shop.start("article", topic="Tea"), shop.start("article", topic="Milk")
    shop.hitl("audit", "export", "--out", "before.jsonl")
    shop.hitl("answer", shop.request(run_id), "approve")
    assert shop.hitl("audit", "verify", "--against", "before.jsonl").exit_code == 0
    shop.change("DELETE FROM hitl_audit WHERE run_id = ? AND number >= 2", run_id)
    assert shop.hitl("audit", "verify").exit_code == 0  # nothing else can show it
    assert run_id in refused(shop.hitl("audit", "verify", "--against", "before.jsonl"))
    shop.change("DELETE FROM hitl_audit WHERE run_id = ?", gone)
    shop.change("DELETE FROM hitl_runs WHERE run_id = ?", gone)
    assert gone in refused(shop.hitl("audit", "verify", "--against", "before.jsonl"))


def test_an_export_that_cannot_be_written_is_said(shop: Shop) -> None:
    shop.start("article", topic="Tea")
    assert "cannot be written" in refused(shop.hitl("audit", "export", "--out", "no/such/file"))


# --------------------------------------------------------------------------- --store and --app


EVERY_READING_COMMAND = (
    ("runs",),
    ("pending",),
    ("show", "x"),
    ("answer", "x", "approve"),
    ("withdraw", "x"),
    ("cancel", "x"),
    ("retry", "x", *APP),
    ("sweep",),
    ("recover", *APP),
    ("check", *APP),
    ("effects",),
    ("settle", "x", "--not-happened"),
    ("audit", "verify"),
    ("audit", "export"),
    ("demo", "--resume", "x"),
)


@pytest.mark.parametrize("command", EVERY_READING_COMMAND, ids=lambda c: " ".join(c[:2]))
def test_a_store_that_is_not_there_is_said_and_not_made(
    shop: Shop, command: tuple[str, ...]
) -> None:
    assert "There is no store at hitl.db" in refused(shop.hitl(*command))
    assert not list(Path().glob("*.db*"))


@pytest.mark.parametrize("command", EVERY_READING_COMMAND, ids=lambda c: " ".join(c[:2]))
def test_a_store_that_cannot_be_read_is_said_in_one_line(
    shop: Shop, command: tuple[str, ...]
) -> None:
    Path("hitl.db").write_text("This is no database. " * 1_000)
    assert "not a database" in refused(shop.hitl(*command))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://somewhere/db", "cannot be kept at mysql"),
        ("sqlite://", "SQLite in memory"),
        ("nowhere/hitl.db", "There is no store at nowhere/hitl.db"),
        ("sqlite:///nowhere/hitl.db", "There is no store at nowhere/hitl.db"),
        ("://", "not the URL of a database"),
    ],
)
def test_a_url_that_names_no_store_is_said(shop: Shop, url: str, said: str) -> None:
    assert said in refused(shop.hitl("runs", store=url))
    assert shop.json("runs", "--store", url, code=1)["error"]["code"] == "store_error"


def test_the_store_may_be_named_as_a_file_by_url_and_in_the_environment(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = shop.start("article", topic="Tea")
    Path("hitl.db").rename("other.db")
    for name in ("other.db", "sqlite:///other.db", f"sqlite:///{Path('other.db').absolute()}"):
        assert run_id in shop.hitl("runs", store=name).stdout
    monkeypatch.setenv("HITL_STORE", "other.db")
    assert run_id in shop.hitl("runs").stdout


def test_commands_to_copy_name_the_store_that_was_given(shop: Shop) -> None:
    run_id = shop.start("article", topic="Tea")
    Path("hitl.db").rename("the shop.db")
    (request,) = shop.json("pending", "--store", "the shop.db")["requests"]
    shown = shop.hitl("show", request["request_id"], store="the shop.db").stdout
    assert f"hitl answer {request['request_id']} approve --store 'the shop.db'" in shown
    assert shop.json("runs", "--store", "the shop.db")["runs"][0]["run_id"] == run_id


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("shop", "must be MODULE:OBJECT"),
        (":workflows", "must be MODULE:OBJECT"),
        ("no_such_module:workflows", "No module named 'no_such_module'"),
        ("shop:nothing", "no attribute 'nothing'"),
        ("shop:number", "gives a int"),
        ("shop:Article", "gives a Article"),
        ("shop:instance", "gives a Article"),
        ("shop:FLOWS", "Give an instance"),
        ("shop:numbers", "no workflow, but int"),
        ("shop:broken", "RuntimeError: no configuration"),
        ("shop:workflow_of", "raised TypeError"),
    ],
)
def test_an_app_that_is_none_is_wrong_usage(shop: Shop, spec: str, said: str) -> None:
    shop.start("article", topic="Tea")
    assert said in refused(shop.hitl("recover", "--app", spec), code=2)


@pytest.mark.parametrize("spec", ["shop:workflows", "shop:READY", "shop:workflows_later"])
def test_an_app_may_be_a_mapping_or_a_function_that_gives_one(shop: Shop, spec: str) -> None:
    run_id = shop.start("article", topic="Tea")
    shop.hitl("answer", shop.request(run_id), "approve")
    assert shop.json("recover", "--app", spec)["advanced"][0]["status"] == "finished"


def test_a_runner_of_the_app_brings_its_own_store(shop: Shop) -> None:
    run = shop.use_own(lambda runner: runner.start("article", inputs={"topic": "Tea"}))
    own = ("--app", "shop:own_runner")
    assert shop.json("runs", *own)["runs"][0]["run_id"] == run.run_id
    (request,) = shop.json("pending", *own)["requests"]
    shown = shop.hitl("show", request["request_id"], *own).stdout
    assert f"hitl answer {request['request_id']} approve --app shop:own_runner\n" in shown
    line = refused(shop.hitl("runs", *own, "--store", "other.db"), code=2)
    assert "a store of its own" in line


@pytest.mark.parametrize("command", ["recover", "check", "retry"])
def test_what_needs_the_workflows_says_so(shop: Shop, command: str) -> None:
    arguments = (command, "x") if command == "retry" else (command,)
    result = shop.hitl(*arguments)
    assert result.exit_code == 2
    assert "--app" in result.stderr


def test_a_user_without_a_name_is_asked_who_they_are(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = shop.ask("article", topic="Tea")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    assert "--by" in refused(shop.hitl("answer", request_id, "approve"), code=2)
