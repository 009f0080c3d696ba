"""The README is run as written: every Python block, in order, in one namespace."""

import asyncio
import importlib
import pkgutil
import re
import runpy
import shlex
import sys
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

import llama_index_hitl
from llama_index_hitl.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Raised by LlamaIndex's own agents while one is made and run.
agent_warnings = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
)
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
CODE = [block for language, block in BLOCKS if language == "python"]


def run_all(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Run the blocks as one file, which is found by its name as any file is."""
    module = ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", module)
    # The first block asks in the terminal: about the content, and about publishing it.
    monkeypatch.setattr(sys, "stdin", StringIO("approve\napprove\n"))
    for block in CODE:
        exec(compile(block, "README.md", "exec"), vars(module))  # noqa: S102 - our own README
    return vars(module)


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
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(monkeypatch)
    printed = capsys.readouterr().out
    for promised in re.findall(r"print\(.*\)  # (.+)$", "\n".join(CODE), flags=re.MULTILINE):
        assert promised in printed
    assert "paid 50: rule:" in printed
    assert "refused: " in printed
    assert "Sent under approval-" in printed
    assert (folder / "hitl.db").exists()


@agent_warnings
def test_the_question_of_the_readme_is_answered_with_a_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    namespace = run_all(monkeypatch)
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


def test_every_promise_has_a_test_that_is_there() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = re.findall(r"^\| .+ \| `(test_promise_(\d\d)_\w+)` \|$", README, flags=re.MULTILINE)
    assert [number for _, number in named] == [f"{n:02}" for n in range(1, 13)]
    for name, _ in named:
        assert f"def {name}(" in tests


MAP = README.partition("## The map")[2].partition("\n## ")[0]


def test_the_map_has_every_name_of_the_package_and_no_other() -> None:
    rows = re.findall(r"^\| (`llama_index_hitl`)? ?\| (.+) \|$", MAP, flags=re.MULTILINE)
    names = [name for _, what in rows for name in re.findall(r"`(\w+)`", what)]
    assert sorted(names) == sorted(llama_index_hitl.__all__)


def test_the_map_has_every_public_module() -> None:
    found = [
        module.name
        for module in pkgutil.iter_modules(llama_index_hitl.__path__)
        if not module.name.startswith("_")
    ]
    assert len(found) > 25
    for name in found:
        assert f"`llama_index_hitl.{name}`" in MAP or f"`.{name}`" in MAP, name


def test_what_the_map_says_of_a_module_is_in_it() -> None:
    rows = re.findall(r"^\| `(llama_index_hitl\.\w+)` \| (.+) \|$", MAP, flags=re.MULTILINE)
    assert len(rows) > 8
    for module, what in rows:
        there = importlib.import_module(module)
        for name in re.findall(r"`(\w+)`", what):
            assert name != "llama_index_hitl"
            assert hasattr(there, name), (module, name)


def test_relative_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_picture_of_the_workflow_is_of_the_workflow_that_is_shown() -> None:
    pictures = ROOT / "notebooks" / "pictures"
    make = runpy.run_path(str(pictures / "make.py"))
    assert make["article_svg"]() == (pictures / "article.svg").read_text(encoding="utf-8")
    assert "(notebooks/pictures/article.svg)" in README
