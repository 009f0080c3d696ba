"""The command line, run as its user runs it: a process, a pipe, files, and a model on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, closing
from pathlib import Path
from typing import Any, Protocol

import pytest
from forked_cli import SEARCHED, TIMEOUT, ForkedCli
from openai_server import Failure, Garbage, OpenAIServer
from shop import workflows
from test_console import Child, needs_terminals
from typer.testing import CliRunner, Result

from llama_index_hitl.cli import app
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import SqlStore

pytestmark = pytest.mark.timeout(180)  # many processes, one after the other

CLAIM = {"decision": "deny", "reason": "lapsed", "risk_level": "high"}


class Hitl(Protocol):
    def __call__(
        self, *arguments: str, typed: str = "", folder: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]: ...


def hitl_anew(
    *arguments: str, typed: str = "", folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `hitl` as `hitl` below does, in a process that Python starts."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "llama_index_hitl", *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=plain_environment() | environment,
        cwd=folder,
        check=False,
    )


@pytest.fixture(scope="module")
def hitl() -> Iterator[Hitl]:
    """Run `hitl` with what a person types, and without any key but the one that is given."""
    with ForkedCli(plain_environment()) as forked:

        def run(
            *arguments: str, typed: str = "", folder: Path | None = None, **environment: str
        ) -> subprocess.CompletedProcess[str]:
            whole = plain_environment() | environment
            return forked.run(*arguments, typed=typed, folder=folder, environment=whole)

        yield run


def plain_environment() -> dict[str, str]:
    foreign = ("OPENAI", "EDITOR", "VISUAL", "HITL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "COLUMNS": "100", "PYTHONPATH": SEARCHED}


def with_model(server: OpenAIServer) -> dict[str, str]:
    return {"OPENAI_API_KEY": "test-key", "OPENAI_API_BASE": server.base_url}


# --------------------------------------------------------------------------- without a key


def test_a_document_goes_from_draft_through_revision_to_final_review() -> None:
    run = hitl_anew("demo", typed="revise: shorter, please\napprove\napprove: publish it\n")
    assert run.returncode == 0, run.stderr
    assert "Model: scripted" in run.stdout
    assert "As asked: shorter, please." in run.stdout
    assert "APPROVED at version 2" in run.stdout
    assert "approve by you (publish it)" in run.stdout


def test_code_is_revised_and_approved(hitl: Hitl) -> None:
    run = hitl("demo", "code", typed="revise: type hints\napprove\n")
    assert run.returncode == 0, run.stderr
    assert "def greet(name: str) -> str:" in run.stdout
    assert "APPROVED at version 2" in run.stdout


def test_a_claim_with_high_risk_is_asked_about_and_blocked_by_a_rejection(hitl: Hitl) -> None:
    run = hitl("demo", "claim", typed="reject: cover unclear\n")
    assert run.returncode == 0, run.stderr
    assert "Lapsed policies" in run.stdout
    assert "REJECTED at version 1" in run.stdout


def test_a_claim_with_low_risk_passes_by_a_rule_that_is_named(hitl: Hitl) -> None:
    run = hitl("demo", "claim", "--topic", "A stolen bicycle", typed="")
    assert run.returncode == 0, run.stderr
    assert "APPROVED at version 1" in run.stdout
    assert "approve by rule:" in run.stdout


def test_a_report_is_written_from_accepted_research(hitl: Hitl) -> None:
    run = hitl("demo", "report", typed="revise: costs\napprove\n")
    assert run.returncode == 0, run.stderr
    assert "# Report: human review of AI agents" in run.stdout
    assert "As asked: costs." in run.stdout


def test_a_plan_is_shown_whole_and_one_of_its_transfers_refused(hitl: Hitl) -> None:
    said = "respond\napprove\n\napprove\n\nrefuse\ntoo dear\n\n"
    run = hitl("demo", "banking", typed=said)
    assert run.returncode == 0, run.stderr
    assert "transfer 500.00 to Alice (to be confirmed: it is above 100)" in run.stdout
    assert "PARTLY APPROVED" in run.stdout
    assert "2. transfer 50.00 to Bob: done (transfer of 50.00 to Bob; the balance" in run.stdout
    assert run.stdout.endswith("3. transfer 500.00 to Alice: refused by you (too dear)\n")


def test_a_small_transfer_asks_nobody(hitl: Hitl) -> None:
    run = hitl("demo", "banking", "--topic", "deposit 20, then 100 to Bob", typed="")
    assert run.returncode == 0, run.stderr
    assert "2. transfer 100.00 to Bob: done" in run.stdout
    assert "the balance is 920.00" in run.stdout


def test_nothing_is_approved_by_empty_lines_or_by_leaving(hitl: Hitl, tmp_path: Path) -> None:
    out = tmp_path / "out.md"
    run = hitl("demo", "--out", str(out), typed="\n\nyes\n")
    assert run.returncode == 1
    assert "stays open" in run.stdout
    assert "Nothing was decided" in run.stderr
    assert not out.exists()


def test_a_rejected_text_is_not_written(hitl: Hitl, tmp_path: Path) -> None:
    out = tmp_path / "out.md"
    run = hitl("demo", "--out", str(out), typed="reject: no\n")
    assert run.returncode == 0
    assert "Nothing was written" in run.stdout
    assert not out.exists()


# --------------------------------------------------------------------------- own files


def editor(folder: Path, code: str) -> str:
    script = folder / "editor.py"
    script.write_text(f"import sys, pathlib\nfile = pathlib.Path(sys.argv[1])\n{code}\n")
    return f"{sys.executable} {script}"


def test_an_own_document_is_revised_by_hand_and_written(hitl: Hitl, tmp_path: Path) -> None:
    (tmp_path / "draft.md").write_text("# Mine\n\nFirst.\n", encoding="utf-8")
    run = hitl(
        "demo", "--file", "draft.md", "--out", "final.md",
        typed="revise: say ä\napprove\napprove\n",
        folder=tmp_path,
        EDITOR=editor(tmp_path, "file.write_text(file.read_text() + '\\nSecond ä.\\n')"),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "by hand" in run.stdout
    assert (tmp_path / "final.md").read_text(encoding="utf-8") == "# Mine\n\nFirst.\n\nSecond ä.\n"
    assert (tmp_path / "draft.md").read_text(encoding="utf-8") == "# Mine\n\nFirst.\n"


def test_without_an_editor_the_text_stays_and_can_still_be_approved(
    hitl: Hitl, tmp_path: Path
) -> None:
    (tmp_path / "draft.md").write_text("Mine", encoding="utf-8")
    run = hitl(
        "demo", "--file", "draft.md", "--out", "final.md",
        typed="revise: more\napprove\napprove\n", folder=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "There is no editor" in run.stdout
    assert (tmp_path / "final.md").read_text(encoding="utf-8") == "Mine\n"


def test_the_scripted_model_can_revise_an_own_file(hitl: Hitl, tmp_path: Path) -> None:
    (tmp_path / "draft.md").write_text("Mine", encoding="utf-8")
    run = hitl(
        "demo", "--file", "draft.md", "--revise", "model",
        typed="revise: more\napprove\napprove\n", folder=tmp_path,
    )  # fmt: skip
    assert "As asked: more." in run.stdout


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe\x00", "as text")]
)
def test_a_file_that_is_no_text_is_refused(
    hitl: Hitl, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "draft.md").write_bytes(content)
    run = hitl("demo", "--file", "draft.md", folder=tmp_path)
    assert run.returncode == 1
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_a_file_that_is_not_there_or_does_not_fit_is_refused(hitl: Hitl, tmp_path: Path) -> None:
    assert hitl("demo", "--file", "nowhere.md", folder=tmp_path).returncode == 2
    (tmp_path / "x.md").write_text("x")
    run = hitl("demo", "claim", "--file", "x.md", folder=tmp_path)
    assert run.returncode == 1
    assert "document and code" in run.stderr


def test_a_folder_that_is_not_there_is_noticed_before_anybody_is_asked(
    hitl: Hitl, tmp_path: Path
) -> None:
    run = hitl("demo", "--out", "no/such/folder/out.md", folder=tmp_path)
    assert run.returncode == 1
    assert "there is no folder" in run.stderr
    assert "approve" not in run.stdout


def test_an_accepted_text_that_cannot_be_written_is_shown_and_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "out.md"
    script = (
        "import os, pathlib\n"
        "def gone(*_, **__): raise OSError(28, 'No space left on device')\n"
        "pathlib.Path.write_text = gone\n"
    )
    (tmp_path / "sitecustomize.py").write_text(script)
    searched = os.pathsep.join((str(tmp_path), SEARCHED))
    run = hitl_anew("demo", "--out", str(out), typed="approve\napprove\n", PYTHONPATH=searched)
    assert run.returncode == 1
    assert "No space left" in run.stderr
    assert "What was proposed, in full." in run.stdout


def test_an_unknown_demo_is_a_usage_error(hitl: Hitl) -> None:
    assert hitl("demo", "poem").returncode == 2


# --------------------------------------------------------------------------- in several processes


def here(folder: Path, *arguments: str) -> Result:
    """Run a command in this process, where it is none of those that the story is about."""
    with chdir(folder):
        return CliRunner().invoke(app, arguments)


def document(folder: Path, *arguments: str) -> Any:
    return json.loads(here(folder, *arguments, "--json").stdout)


def only_request(folder: Path) -> str:
    (request,) = document(folder, "pending")["requests"]
    return str(request["request_id"])


def ids_in(shown: str, command: str) -> str:
    """Return the id in a command that was printed to be typed next."""
    found = re.search(rf"^  hitl {command} (\S+)", shown, flags=re.MULTILINE)
    assert found is not None, shown
    return found[1]


def typed(shown: str, containing: str) -> list[str]:
    """Return the arguments of the one command that was printed and holds these words."""
    (line,) = [
        line for line in shown.splitlines() if line.startswith("  hitl ") and containing in line
    ]
    return shlex.split(line)[1:]


def test_a_run_is_left_in_the_store_answered_and_finished_each_by_another_process(
    tmp_path: Path,
) -> None:
    parked = hitl_anew("demo", "--pause", folder=tmp_path)
    assert parked.returncode == 0, parked.stderr
    assert "waiting" in parked.stdout
    shown = here(tmp_path, *typed(parked.stdout, "hitl show")).stdout
    assert "What was proposed, in full." in shown
    answered = hitl_anew(*typed(parked.stdout, " approve"), "--by", "ann", folder=tmp_path)
    assert "The request is approved. ann approved it." in answered.stdout
    resume = typed(parked.stdout, "--resume")
    assert typed(answered.stdout, "hitl ") == resume
    final = hitl_anew(*resume, folder=tmp_path)
    assert "final_review-" in final.stdout
    hitl_anew(*typed(final.stdout, " approve"), "--by", "bob", folder=tmp_path)
    finished = hitl_anew(*resume, "--out", "final.md", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "APPROVED at version 1" in finished.stdout
    assert "approve by ann" in finished.stdout
    assert "approve by bob" in finished.stdout
    text = (tmp_path / "final.md").read_text(encoding="utf-8")
    assert text.startswith("# On why a person should approve a payment")
    assert text.strip() in here(tmp_path, *resume).stdout  # what is finished stays so
    assert [path.name for path in tmp_path.glob("*.db")] == ["hitl.db"]


def test_a_draft_is_revised_across_processes(hitl: Hitl, tmp_path: Path) -> None:
    parked = hitl("demo", "--pause", "--topic", "tea", folder=tmp_path).stdout
    first = ids_in(parked, "answer")
    revise = typed(parked, "revise")
    assert "WHAT TO CHANGE" in revise
    revise[revise.index("WHAT TO CHANGE")] = "shorter, please"
    assert hitl(*revise, folder=tmp_path).returncode == 0
    second = hitl(*typed(parked, "--resume"), folder=tmp_path).stdout
    assert ids_in(second, "answer") != first
    shown = here(tmp_path, "show", ids_in(second, "answer")).stdout
    assert "As asked: shorter, please." in shown
    assert "Changed since revision 1" in shown
    late = here(tmp_path, "answer", first, "approve")  # the earlier draft is no more
    assert late.exit_code == 1
    assert "the first valid answer stands" in late.stderr
    demo = ("--advance", "--app", "llama_index_hitl._demo:workflows")
    final = hitl(*typed(second, " approve"), *demo, folder=tmp_path).stdout
    last = hitl(*typed(final, " approve"), *demo, folder=tmp_path)
    assert last.returncode == 0, last.stderr
    assert "is finished" in last.stdout
    assert "As asked: shorter, please." in last.stdout


def test_a_parked_run_that_is_rejected_ends_without_a_text(tmp_path: Path) -> None:
    parked = here(tmp_path, "demo", "code", "--pause").stdout
    here(tmp_path, *typed(parked, " reject"), "--comment", "no")
    ended = here(tmp_path, *typed(parked, "--resume"), "--out", "out.py")
    assert "REJECTED at version 1" in ended.stdout
    assert not (tmp_path / "out.py").exists()


def test_a_parked_plan_moves_money_once_when_it_is_approved(tmp_path: Path) -> None:
    parked = here(tmp_path, "demo", "banking", "--pause").stdout
    here(tmp_path, *typed(parked, " approve"), "--by", "ann")
    resume = typed(parked, "--resume")
    for _ in range(2):
        ended = here(tmp_path, *resume)
        assert ended.exit_code == 0, ended.stderr
        assert "APPROVED at version 1" in ended.stdout
        assert "the balance is 450.00" in ended.stdout
    again = here(tmp_path, "demo", "banking", "--pause", "--topic", "balance").stdout
    assert "the balance is 450.00" in again


def test_a_response_that_says_two_things_about_one_action_is_wrong_usage(tmp_path: Path) -> None:
    parked = here(tmp_path, "demo", "banking", "--pause", "--topic", "500 to Bob").stdout
    respond = typed(parked, " respond")
    respond[respond.index("RESPONSE")] = '{"action_1": "refuse", "action_1": "approve"}'
    run = here(tmp_path, *respond)
    assert run.exit_code == 2
    assert "'action_1' is there twice" in run.stderr


def test_an_own_file_is_parked_in_the_store_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "draft.md").write_text("Mine ä", encoding="utf-8")
    store = ("--store", "sqlite:///mine.db")
    parked = here(tmp_path, "demo", "--pause", "--file", "draft.md", *store).stdout
    assert not (tmp_path / "hitl.db").exists()
    assert typed(parked, " approve")[-2:] == list(store)
    assert "Mine ä" in here(tmp_path, *typed(parked, "hitl show")).stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--pause", "--resume", "x"),
        ("--pause", "--out", "x.md"),
        ("--pause", "--reviewer", "ann"),
        ("--pause", "--revise", "hand"),
        ("--resume", "x", "--topic", "tea"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(tmp_path: Path, options: tuple[str, ...]) -> None:
    run = here(tmp_path, "demo", *options)
    assert run.exit_code == 2
    assert run.stderr.startswith("Error: ")
    assert not list(tmp_path.iterdir())


def test_a_parked_run_whose_model_fails_is_kept_and_tried_again(hitl: Hitl, tmp_path: Path) -> None:
    with OpenAIServer(replies=[Failure(401, "bad key")] * 4) as server:
        failed = hitl("demo", "--pause", folder=tmp_path, **with_model(server))
    assert failed.returncode == 1
    assert "AuthenticationError" in failed.stderr
    assert "Traceback" not in failed.stderr
    resume = re.search(r"`hitl (demo --resume \w+)`", failed.stderr)
    assert resume is not None
    again = here(tmp_path, *resume[1].split())
    assert again.exit_code == 0, again.stderr
    assert "waiting" in again.stdout


def test_a_store_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    run = here(tmp_path, "demo", "--pause", "--store", "sqlite:///no/such/folder/x.db")
    assert run.exit_code == 1
    assert len(run.stderr.splitlines()) == 1


# --------------------------------------------------------------------------- killed

SHOP = ("--app", "shop:workflows")
AN_HOUR_LATER = ("--app", "shop:runner_in_an_hour")
"""For it the leases of processes that have died are over."""


def started(folder: Path, workflow: str, **inputs: object) -> str:
    """Start a workflow of `tests/shop.py` in this process, and return the run's id."""

    async def start() -> str:
        runner = Runner(SqlStore(folder / "hitl.db"), workflows())
        run = await runner.start(workflow, inputs=inputs)
        await runner.store.close()
        return run.run_id

    return asyncio.run(start())


def test_promise_07_an_answer_survives_the_process_that_was_killed_while_it_advanced(
    tmp_path: Path,
) -> None:
    run_id = started(tmp_path, "article", topic="Tea")
    answering = subprocess.Popen(
        [sys.executable, "-m", "llama_index_hitl", "answer", only_request(tmp_path), "approve",
         "--by", "ann", "--advance", *SHOP],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": SEARCHED, "SHOP_HANGS": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with answering:
        assert answering.stdout is not None
        assert answering.stdout.readline() == "publishing\n"
        answering.kill()
    show = ("show", run_id, *SHOP)
    assert document(tmp_path, *show)["run"]["status"] == "running"
    assert document(tmp_path, "recover", *SHOP)["advanced"] == []  # it may still be at work
    late = document(tmp_path, "recover", *AN_HOUR_LATER)
    assert [run["status"] for run in late["advanced"]] == ["finished"]
    found = document(tmp_path, *show)
    assert found["result"] == "Tea."
    kinds = [row["entry"]["kind"] for row in found["history"]]
    assert kinds.count("answered") == 1
    assert kinds.count("finished") == 1
    assert here(tmp_path, "audit", "verify").exit_code == 0


def test_promise_07_a_payment_is_made_once_although_the_process_died_over_it(
    hitl: Hitl,
    tmp_path: Path,
) -> None:
    run_id = started(tmp_path, "payments", amount=5)
    request_id = only_request(tmp_path)
    died = hitl("answer", request_id, "approve", "--by", "erin", "--advance", *SHOP,
                folder=tmp_path, SHOP_DIES="1")  # fmt: skip
    assert died.returncode == 9
    assert here(tmp_path, "recover", *AN_HOUR_LATER).exit_code == 1
    (effect,) = document(tmp_path, "effects")["effects"]
    happened = ("--happened", "--result", '"paid 5"')
    assert here(tmp_path, "settle", effect["key"], *happened, *SHOP).exit_code == 0
    again = here(tmp_path, "retry", run_id, *SHOP)
    assert again.exit_code == 0, again.stderr
    assert "paid 5" in again.stdout
    assert (tmp_path / "transfers.txt").read_text(encoding="utf-8") == "5\n"


# --------------------------------------------------------------------------- the program


def test_workflows_are_found_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "my_flows.py").write_text(
        "from llama_index_hitl._demo import workflows as demo\nflows = demo()\n"
    )
    here(tmp_path, "demo", "--pause")
    here(tmp_path, "answer", only_request(tmp_path), "approve")
    # As the installed command does, Python does not look into the working directory here.
    run = hitl_anew("recover", "--app", "my_flows:flows", folder=tmp_path, PYTHONSAFEPATH="1")
    assert run.returncode == 0, run.stderr
    assert "waiting" in run.stdout


def test_help_does_not_wait_for_what_it_does_not_need() -> None:
    code = "import sys, llama_index_hitl.cli; print('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = ("llama_index.core", "openai", "sqlalchemy", "rich", "jsonschema")
    assert not [name for name in run.stdout.split() if name.split(".")[0] in heavy]
    assert "llama_index_hitl.cli" in run.stdout.split()
    assert "llama_index_hitl.prebuilt" not in run.stdout.split()


def test_every_command_explains_itself() -> None:
    listed = CliRunner().invoke(app, ["--help"])
    assert listed.exit_code == 0
    assert "0 done, 1 refused or failed, 2 wrong usage" in listed.stdout
    for name in ("runs", "pending", "show", "answer", "sweep", "recover", "check", "audit", "demo"):
        assert name in listed.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("command", [("runs",), ("runs", "--json"), ("audit", "export")])
def test_an_output_that_cannot_be_written_is_said_in_one_line(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    for _ in range(40):  # more than fits into a buffer
        started(tmp_path, "article", topic="Tea")
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "llama_index_hitl", *command], cwd=tmp_path, stdout=full,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": SEARCHED},
            check=False,
        )  # fmt: skip
    assert run.returncode != 0
    assert "No space left" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    here(tmp_path, "demo", "--pause")
    program = subprocess.Popen(
        [sys.executable, "-m", "llama_index_hitl", "audit", "export"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": SEARCHED},
    )  # fmt: skip
    with program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        assert "Traceback" not in program.stderr.read()


# --------------------------------------------------------------------------- at a terminal

AT_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))  # makes it the controlling terminal: Ctrl-C reaches us
from llama_index_hitl.__main__ import main
main()
"""


class Terminal(Child):
    """`hitl` at a real pseudo-terminal."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.master, slave = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", AT_TERMINAL, *arguments],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=folder,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LOGNAME": "casey",
                 "PYTHONPATH": SEARCHED},
        )  # fmt: skip
        os.close(slave)
        self.seen = ""


@needs_terminals
def test_at_a_terminal_the_decision_is_asked_for(tmp_path: Path) -> None:
    here(tmp_path, "demo", "--pause")
    with closing(Terminal(tmp_path, "answer", only_request(tmp_path))) as terminal:
        terminal.expect("What was proposed, in full.")
        terminal.expect("Decision (casey): ")
        terminal.type("\n")
        terminal.expect("Nothing was decided.")
        terminal.expect("Decision (casey): ")
        terminal.type("revise: shorter\n")
        terminal.expect("Taken: revise by casey")
        terminal.expect("hitl demo --resume")
        assert terminal.process.wait(30) == 0


@needs_terminals
def test_who_leaves_the_terminal_has_decided_nothing(tmp_path: Path) -> None:
    here(tmp_path, "demo", "--pause")
    request_id = only_request(tmp_path)
    with closing(Terminal(tmp_path, "answer", request_id)) as terminal:
        terminal.expect("Decision (casey): ")
        terminal.type("approv\x03")
        terminal.expect("It is still open.")
        assert terminal.process.wait(30) == 1
    assert only_request(tmp_path) == request_id


@needs_terminals
def test_at_a_terminal_somebody_who_may_not_answer_is_not_asked(tmp_path: Path) -> None:
    started(tmp_path, "payments", amount=5)
    request_id = only_request(tmp_path)
    with closing(Terminal(tmp_path, "answer", request_id)) as terminal:
        terminal.expect("Error: casey may not answer")
        assert terminal.process.wait(30) == 1
    here(tmp_path, "answer", request_id, "reject", "--by", "erin")
    with closing(Terminal(tmp_path, "answer", request_id, "--by", "erin")) as terminal:
        terminal.expect("A request that is rejected cannot be answered")
        assert terminal.process.wait(30) == 1


# --------------------------------------------------------------------------- with a model


def test_with_a_key_the_texts_come_from_the_model_and_are_streamed() -> None:
    with OpenAIServer(replies=["# From the model", "# Better " + "word " * 200]) as server:
        run = hitl_anew(
            "demo", "--topic", "tea", "--model", "gpt-4o",
            typed="revise: better\napprove\napprove\n", **with_model(server),
        )  # fmt: skip
        requests = list(server.requests)
    assert run.returncode == 0, run.stderr
    assert "Model: OpenAI gpt-4o at " in run.stdout
    assert "characters so far" in run.stdout
    assert "# Better" in run.stdout
    assert [request.body["model"] for request in requests] == ["gpt-4o", "gpt-4o"]
    assert all(request.body["stream"] for request in requests)
    assert all(request.authorization == "Bearer test-key" for request in requests)
    assert "tea" in str(requests[0].body)
    assert "better" in str(requests[1].body)


def test_a_model_that_nobody_knows_is_taken_from_the_server(hitl: Hitl) -> None:
    with OpenAIServer(replies=["# Local"]) as server:
        run = hitl("demo", "--model", "my-own-7b", typed="approve\napprove\n", **with_model(server))
    assert run.returncode == 0, run.stderr
    assert "# Local" in run.stdout


def test_structured_output_is_asked_for_again_when_it_is_malformed(hitl: Hitl) -> None:
    with OpenAIServer(replies=[{"decision": "maybe"}, CLAIM]) as server:
        run = hitl("demo", "claim", typed="approve\n", **with_model(server))
        requests = list(server.requests)
    assert run.returncode == 0, run.stderr
    assert "APPROVED at version 1" in run.stdout
    assert len(requests) == 2
    assert "could not be used" in str(requests[1].body)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (Failure(401, "bad key"), "refused the key in OPENAI_API_KEY"),
        (Failure(404, "no such model"), "does not know this model"),
        (Failure(400, "nonsense"), "answered with an error (400)"),
    ],
)
def test_an_error_of_the_model_is_said_in_one_line(
    hitl: Hitl, failure: Failure, message: str
) -> None:
    with OpenAIServer(replies=[failure] * 4) as server:
        run = hitl("demo", **with_model(server))
    assert run.returncode == 1
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_an_endpoint_that_cannot_be_reached_is_said_in_one_line(hitl: Hitl) -> None:
    with OpenAIServer(replies=[]) as server:
        address = with_model(server)
    run = hitl("demo", **address)
    assert run.returncode == 1
    assert "cannot be reached" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("scenario", ["document", "claim"])
def test_a_server_that_talks_nonsense_is_said_in_one_line(hitl: Hitl, scenario: str) -> None:
    with OpenAIServer(replies=[Garbage(b"<html>not a completion</html>")] * 8) as server:
        run = hitl("demo", scenario, **with_model(server))
    assert run.returncode == 1
    assert "could not be used" in run.stderr or "did not give ClaimDecision" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_model_that_never_gives_a_decision_ends_in_a_clear_error(hitl: Hitl) -> None:
    with OpenAIServer(replies=["I would rather not say."] * 8) as server:
        run = hitl("demo", "claim", **with_model(server))
    assert run.returncode == 1
    assert "did not give ClaimDecision in 3 attempts" in run.stderr


def test_a_model_that_says_nothing_ends_in_a_clear_error(hitl: Hitl) -> None:
    with OpenAIServer(replies=["  "] * 2) as server:
        run = hitl("demo", **with_model(server))
    assert run.returncode == 1
    assert "did not give a text" in run.stderr


def test_without_the_extra_the_command_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['typer'] = None; sys.argv = ['hitl', 'demo']; "
        "from llama_index_hitl.__main__ import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "pip install 'llama-index-hitl[cli]'" in run.stderr
