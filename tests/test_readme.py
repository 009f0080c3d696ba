"""The README is run as written: every Python block, in order, in one namespace."""

import asyncio
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def test_every_block_says_what_it_is() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python"}


def test_python_blocks_run_in_order_and_print_what_they_say(
    capsys: pytest.CaptureFixture[str],
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


def test_every_promise_in_the_table_has_tests() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    promised = re.findall(r"`(test_promise_\d\d_)\*`", README)
    assert promised
    for name in promised:
        assert f"def {name}" in tests


def test_relative_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
