"""Servers that are killed, and two that share a database."""

from pathlib import Path

import pytest
from desk import Desk, signed_in
from playwright.async_api import expect
from served import process_of
from windows import Windows

from llama_index_hitl.models import RequestStatus
from llama_index_hitl.stores import SqlStore

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_answer_counts_though_the_server_was_killed_since_the_question(
    windows: Windows, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'hitl.db'}"
    desk = Desk(SqlStore(url))
    asked = await desk.ask("note", text="Tea")
    try:
        async with process_of(url) as server:
            window = await signed_in(windows, server.base, "alice")
            page = await window.opens(f"/requests/{asked.request_id}")
            decisions = page.get_by_role("group", name="Decisions")
            await decisions.get_by_role("button", name="Approve").click()
            await page.get_by_label("Comment").fill("Before the storm.")

            window.expect_trouble("ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING")
            window.expect_trouble("ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE")
            await server.kill()
            await expect(page.get_by_text("Offline")).to_be_visible()
            await server.start()
            await expect(page.get_by_text("Offline")).to_be_hidden()
            await expect(page.get_by_label("Comment")).to_have_value("Before the storm.")

            form = page.get_by_role("form", name="Approve")
            await form.get_by_role("button", name="Approve", exact=True).click()
            await expect(page.get_by_text("The note is kept: Tea")).to_be_visible()
            await window.close()
        taken = await desk.runner.get(asked.request_id)
        assert taken.status is RequestStatus.APPROVED
        assert taken.answers[0].comment == "Before the storm."
    finally:
        await desk.store.close()


async def test_what_is_asked_in_one_process_is_answered_in_another_and_shown_in_the_first(
    windows: Windows, postgres_url: str
) -> None:
    async with process_of(postgres_url) as here, process_of(postgres_url) as there:
        alice = await signed_in(windows, here.base, "alice")
        bob = await signed_in(windows, there.base, "bob")
        his = await bob.opens("/")
        hers = await alice.opens("/start/note")
        await hers.get_by_label("Text").fill("Tea")
        await hers.get_by_role("button", name="Start").click()
        await expect(hers.get_by_role("link", name="Review and decide")).to_be_visible()

        await his.get_by_role("link", name="Note: Tea").click()
        decisions = his.get_by_role("group", name="Decisions")
        await decisions.get_by_role("button", name="Reject").click()
        await his.get_by_label("Comment").fill("We have coffee.")
        form = his.get_by_role("form", name="Reject")
        await form.get_by_role("button", name="Reject", exact=True).click()

        story = hers.get_by_role("log", name="What happened")
        await expect(story).to_contain_text("bob")
        await expect(hers.get_by_text("The note was thrown away.")).to_be_visible()
        for window in (alice, bob):
            await window.close()
