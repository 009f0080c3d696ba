"""The README is run as written: every Python block, in order, in one namespace."""

import asyncio
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llama_index_hitl.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Raised by LlamaIndex's own agents while one is made and run.
agent_warnings = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
)
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def test_every_block_says_what_it_is() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run everything where nothing is: the README keeps its runs in the working directory."""
    for name in ("OPENAI_API_KEY", "HITL_STORE", "HITL_APP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@agent_warnings
def test_python_blocks_run_in_order_and_print_what_they_say(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = [block for language, block in BLOCKS if language == "python"]
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in code:
        exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own README
    printed = capsys.readouterr().out
    for promised in re.findall(r"print\(.*\)  # (.+)$", "\n".join(code), flags=re.MULTILINE):
        assert promised in printed
    assert "paid 50: rule:" in printed
    assert "refused: " in printed
    assert "Sent under approval-" in printed
    assert (folder / "hitl.db").exists()


@agent_warnings
def test_the_question_of_the_readme_is_answered_with_a_form() -> None:
    code = [block for language, block in BLOCKS if language == "python"]
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in code:
        exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own README
    from llama_index_hitl import Respond
    from llama_index_hitl.testing import ScriptedReviewer, review_with

    async def run() -> object:
        flow = namespace["Delivery"](timeout=None)  # type: ignore[operator]
        person = ScriptedReviewer([Respond(response={"street": "Main St 1", "city": "Bern"})])
        return await review_with(flow.run(), person)

    assert asyncio.run(run()) == "Sent to Bern"


def test_the_commands_for_several_processes_work_with_the_ids_that_are_printed() -> None:
    block = README.partition("<!-- two-processes -->\n```sh\n")[2].partition("```")[0]
    pause, answer, resume = (
        shlex.split(line.removeprefix(".venv/bin/hitl ")) for line in block.splitlines()
    )
    parked = CliRunner().invoke(app, pause)
    request_id = re.search(r"hitl answer (\S+) approve", parked.stdout)
    run_id = re.search(r"--resume (\S+)", parked.stdout)
    assert request_id is not None
    assert run_id is not None
    given = {"REQUEST_ID": request_id[1], "RUN_ID": run_id[1]}
    for command in (answer, resume):
        result = CliRunner().invoke(app, [given.get(word, word) for word in command])
        assert result.exit_code == 0, result.output
    assert "content_review-" in result.stdout
    assert request_id[1] not in result.stdout


def test_every_promise_in_the_table_has_tests() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    promised = re.findall(r"`(test_promise_\d\d_)\*`", README)
    assert promised
    for name in promised:
        assert f"def {name}" in tests


def test_relative_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
