"""The command line, run as its user runs it: a process, a pipe, files, and a model on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from openai_server import Failure, Garbage, OpenAIServer

CLAIM = {"decision": "deny", "reason": "lapsed", "risk_level": "high"}


def hitl(
    *arguments: str, typed: str = "", folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `hitl` with what a person types, and without any key but the one that is given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI", "EDITOR", "VISUAL"))}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "llama_index_hitl", *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        env={**kept, "COLUMNS": "100", **environment},
        cwd=folder,
        check=False,
    )


def with_model(server: OpenAIServer) -> dict[str, str]:
    return {"OPENAI_API_KEY": "test-key", "OPENAI_API_BASE": server.base_url}


# --------------------------------------------------------------------------- without a key


def test_a_document_goes_from_draft_through_revision_to_final_review() -> None:
    run = hitl("demo", typed="revise: shorter, please\napprove\napprove: publish it\n")
    assert run.returncode == 0, run.stderr
    assert "Model: scripted" in run.stdout
    assert "As asked: shorter, please." in run.stdout
    assert "APPROVED at version 2" in run.stdout
    assert "approve by you (publish it)" in run.stdout


def test_code_is_revised_and_approved() -> None:
    run = hitl("demo", "code", typed="revise: type hints\napprove\n")
    assert run.returncode == 0, run.stderr
    assert "def greet(name: str) -> str:" in run.stdout
    assert "APPROVED at version 2" in run.stdout


def test_a_claim_with_high_risk_is_asked_about_and_blocked_by_a_rejection() -> None:
    run = hitl("demo", "claim", typed="reject: cover unclear\n")
    assert run.returncode == 0, run.stderr
    assert "Lapsed policies" in run.stdout
    assert "REJECTED at version 1" in run.stdout


def test_a_claim_with_low_risk_passes_by_a_rule_that_is_named() -> None:
    run = hitl("demo", "claim", "--topic", "A stolen bicycle", typed="")
    assert run.returncode == 0, run.stderr
    assert "APPROVED at version 1" in run.stdout
    assert "approve by rule:" in run.stdout


def test_a_report_is_written_from_accepted_research() -> None:
    run = hitl("demo", "report", typed="revise: costs\napprove\n")
    assert run.returncode == 0, run.stderr
    assert "# Report: human review of AI agents" in run.stdout
    assert "As asked: costs." in run.stdout


def test_nothing_is_approved_by_empty_lines_or_by_leaving(tmp_path: Path) -> None:
    out = tmp_path / "out.md"
    run = hitl("demo", "--out", str(out), typed="\n\nyes\n")
    assert run.returncode == 1
    assert "stays open" in run.stdout
    assert "Nothing was decided" in run.stderr
    assert not out.exists()


def test_a_rejected_text_is_not_written(tmp_path: Path) -> None:
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


def test_an_own_document_is_revised_by_hand_and_written(tmp_path: Path) -> None:
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


def test_without_an_editor_the_text_stays_and_can_still_be_approved(tmp_path: Path) -> None:
    (tmp_path / "draft.md").write_text("Mine", encoding="utf-8")
    run = hitl(
        "demo", "--file", "draft.md", "--out", "final.md",
        typed="revise: more\napprove\napprove\n", folder=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "There is no editor" in run.stdout
    assert (tmp_path / "final.md").read_text(encoding="utf-8") == "Mine\n"


def test_the_scripted_model_can_revise_an_own_file(tmp_path: Path) -> None:
    (tmp_path / "draft.md").write_text("Mine", encoding="utf-8")
    run = hitl(
        "demo", "--file", "draft.md", "--revise", "model",
        typed="revise: more\napprove\napprove\n", folder=tmp_path,
    )  # fmt: skip
    assert "As asked: more." in run.stdout


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe\x00", "as text")]
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "draft.md").write_bytes(content)
    run = hitl("demo", "--file", "draft.md", folder=tmp_path)
    assert run.returncode == 1
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_a_file_that_is_not_there_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    assert hitl("demo", "--file", "nowhere.md", folder=tmp_path).returncode == 2
    (tmp_path / "x.md").write_text("x")
    run = hitl("demo", "claim", "--file", "x.md", folder=tmp_path)
    assert run.returncode == 1
    assert "document and code" in run.stderr


def test_a_folder_that_is_not_there_is_noticed_before_anybody_is_asked(tmp_path: Path) -> None:
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
    run = hitl("demo", "--out", str(out), typed="approve\napprove\n", PYTHONPATH=str(tmp_path))
    assert run.returncode == 1
    assert "No space left" in run.stderr
    assert "What was proposed, in full." in run.stdout


def test_an_unknown_demo_is_a_usage_error() -> None:
    assert hitl("demo", "poem").returncode == 2


# --------------------------------------------------------------------------- with a model


def test_with_a_key_the_texts_come_from_the_model_and_are_streamed() -> None:
    with OpenAIServer(replies=["# From the model", "# Better " + "word " * 200]) as server:
        run = hitl(
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


def test_a_model_that_nobody_knows_is_taken_from_the_server() -> None:
    with OpenAIServer(replies=["# Local"]) as server:
        run = hitl("demo", "--model", "my-own-7b", typed="approve\napprove\n", **with_model(server))
    assert run.returncode == 0, run.stderr
    assert "# Local" in run.stdout


def test_structured_output_is_asked_for_again_when_it_is_malformed() -> None:
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
def test_an_error_of_the_model_is_said_in_one_line(failure: Failure, message: str) -> None:
    with OpenAIServer(replies=[failure] * 4) as server:
        run = hitl("demo", **with_model(server))
    assert run.returncode == 1
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_an_endpoint_that_cannot_be_reached_is_said_in_one_line() -> None:
    with OpenAIServer(replies=[]) as server:
        address = with_model(server)
    run = hitl("demo", **address)
    assert run.returncode == 1
    assert "cannot be reached" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("scenario", ["document", "claim"])
def test_a_server_that_talks_nonsense_is_said_in_one_line(scenario: str) -> None:
    with OpenAIServer(replies=[Garbage(b"<html>not a completion</html>")] * 8) as server:
        run = hitl("demo", scenario, **with_model(server))
    assert run.returncode == 1
    assert "could not be used" in run.stderr or "did not give ClaimDecision" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_model_that_never_gives_a_decision_ends_in_a_clear_error() -> None:
    with OpenAIServer(replies=["I would rather not say."] * 8) as server:
        run = hitl("demo", "claim", **with_model(server))
    assert run.returncode == 1
    assert "did not give ClaimDecision in 3 attempts" in run.stderr


def test_a_model_that_says_nothing_ends_in_a_clear_error() -> None:
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
