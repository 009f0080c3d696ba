"""Runs, from the start page to their result."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from desk import Desk, person
from desk_flows import Paced
from playwright.async_api import expect
from served import SEARCHED
from windows import Windows

from llama_index_hitl.models import Reject

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def demo(folder: Path) -> AsyncIterator[str]:
    """Run `hitl serve --demo`, and give the address that it says, without a slash."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llama_index_hitl", "serve", "--demo", "--port", "0"),
        *("--pace", "0.002"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("OPENAI")}
        | {"PYTHONPATH": SEARCHED, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        said = ""
        while (found := re.search(r"http://127\.0\.0\.1:\d+", said)) is None:
            line = (await process.stdout.readline()).decode()
            assert line, said
            said += line
        yield found[0]
    finally:
        process.terminate()
        await process.communicate()


async def test_the_report_of_the_demo_from_topic_to_report(
    windows: Windows, tmp_path: Path
) -> None:
    async with demo(tmp_path) as base:
        window = await windows.open(base)
        page = await window.opens("/")
        await page.get_by_role("link", name="Start", exact=True).click()
        await page.get_by_role("link", name="Report").click()
        await page.get_by_label("Topic").fill("Paper boats")
        await page.get_by_role("button", name="Start").click()

        # What it does is told as it does it, and then what it asks.
        story = page.get_by_role("log", name="What happened")
        await expect(story).to_contain_text("Researching Paper boats")
        await expect(story).to_contain_text("(3 of 3)")
        await page.get_by_role("link", name="Review and decide").click()
        await expect(page.get_by_role("heading", name="What is known")).to_be_visible()

        await page.get_by_role("button", name="Send back").click()
        await page.get_by_label("Feedback", exact=True).fill("Say how long they float")
        decide = page.get_by_role("region", name="Decide")
        await decide.get_by_role("button", name="Send back", exact=True).click()
        await expect(page.get_by_text("Your answer is on record.")).to_be_visible()

        # The next draft is offered where the last one was, with what has changed.
        now = page.get_by_role("region", name="Where it stands")
        await expect(now).to_contain_text("revision 2")
        await now.get_by_role("link", name="Review and decide").click()
        await expect(page.get_by_role("article")).to_contain_text("Revision 2")
        await expect(page.get_by_role("region", name="Changed since revision 1")).to_contain_text(
            "Say how long they float"
        )
        await expect(page.get_by_role("region", name="Feedback so far")).to_contain_text(
            "Say how long they float"
        )
        await page.get_by_role("button", name="Approve").click()
        await decide.get_by_role("button", name="Approve", exact=True).click()
        await expect(page.get_by_role("heading", name="Report: Paper boats")).to_be_visible()

        await page.get_by_role("link", name="Audit trail").click()
        await expect(page.get_by_text("Intact.")).to_be_visible()
        await expect(page.get_by_role("table")).to_contain_text("Say how long they float")
        await window.close()


async def test_a_question_is_answered_on_the_page_of_its_run(desk: Desk, windows: Windows) -> None:
    asked = await desk.ask("payment", amount=40, recipient="Ann")
    window = await desk.sign_in(windows, "alice")
    page = await window.opens(f"/runs/{asked.request.run_id}")
    now = page.get_by_role("region", name="Where it stands")
    opening = now.get_by_role("link", name="Review and decide")
    await opening.click()
    article = page.get_by_role("article", name="Pay 40 to Ann")
    await expect(article).to_contain_text("Two chairs")
    await expect(opening).to_be_hidden()
    await page.get_by_role("button", name="Close the request").click()
    await expect(opening).to_be_focused()

    # Its address is that of the run, and what others do is told beside what is being typed.
    await opening.click()
    await article.get_by_role("button", name="Edit").click()
    await page.get_by_label("Amount").fill("45")
    await desk.runner.claim(asked.request_id, by=person("bob"))
    await expect(article.get_by_text("This request has changed.")).to_be_visible()
    await expect(page.get_by_label("Amount")).to_have_value("45")
    await page.get_by_role("button", name="Preview the change").click()
    await page.get_by_role("button", name="Approve with this edit").click()
    await expect(page.get_by_role("heading", name="Result")).to_be_visible()
    await expect(page.get_by_text("Paid 45 to Ann.")).to_be_visible()
    await expect(article).to_be_hidden()
    assert page.url.endswith(f"/runs/{asked.request.run_id}")


async def test_who_was_too_late_on_the_page_of_a_run_sees_who_was_first(
    desk: Desk, windows: Windows
) -> None:
    asked = await desk.ask("note", text="Tea")
    window = await desk.sign_in(windows, "alice")
    page = await window.opens(f"/runs/{asked.request.run_id}")
    window.expect_trouble("status of 409")
    await page.get_by_role("link", name="Review and decide").click()
    article = page.get_by_role("article", name="Note: Tea")
    await article.get_by_role("button", name="Approve").click()
    await desk.runner.answer(asked.request_id, Reject(), by=person("bob"))
    form = page.get_by_role("form", name="Approve")
    await form.get_by_role("button", name="Approve", exact=True).click()
    await expect(article).to_contain_text("bob was first: this is rejected")


async def test_a_page_that_is_loaded_again_in_mid_run_goes_on_where_it_was(
    desk: Desk, windows: Windows
) -> None:
    paced = desk.flows["paced"]
    assert isinstance(paced, Paced)
    first, second, third = Paced.SAID
    window = await desk.sign_in(windows, "alice")
    page = await window.opens("/start/paced")
    await page.get_by_label("Text").fill("Milk")
    await page.get_by_role("button", name="Start").click()
    story = page.get_by_role("log", name="What happened")
    await expect(story).to_contain_text("alice started the run")
    paced.steps.release()
    await expect(story).to_contain_text(first)

    await page.reload()
    await expect(story).to_contain_text(first)
    await expect(story).not_to_contain_text(second)
    paced.steps.release()
    await expect(story).to_contain_text(second)
    await expect(story.get_by_text(first)).to_have_count(1)
    paced.steps.release()
    await expect(story).to_contain_text(third)
    await expect(page.get_by_role("link", name="Review and decide")).to_be_visible()
