"""Requests: read, answered, revised, claimed, by one person and by two at once."""

from datetime import timedelta

import pytest
from desk import Desk, person
from desk_flows import Note
from playwright.async_api import Page, expect
from windows import Windows

from llama_index_hitl.models import Approve, RequestStatus
from llama_index_hitl.stores.protocol import RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")


COFFEE = "We have coffee, which nobody drinks."


async def pick(page: Page, kind: str) -> None:
    """Open the form of one decision."""
    await page.get_by_role("group", name="Decisions").get_by_role("button", name=kind).click()


async def send(page: Page, name: str) -> None:
    """Press the button of the form that is open."""
    await page.get_by_role("form").get_by_role("button", name=name, exact=True).click()


async def test_a_draft_is_sent_back_and_comes_again_with_what_has_changed(
    desk: Desk, windows: Windows
) -> None:
    asked = await desk.ask("note", text="# Tea\n\nTwo cups.\n\nA pot.")
    window = await desk.sign_in(windows, "alice")
    page = await window.opens("/")
    await page.get_by_role("link", name="Note: # Tea").click()
    await pick(page, "Send back")
    await page.get_by_label("Feedback", exact=True).fill("Three cups, please")
    await send(page, "Send back")

    await expect(page.get_by_text("On record: you")).to_be_visible()
    next_ = page.get_by_role("region", name="What happens next")
    await next_.get_by_role("link", name="Note: # Tea").click()
    await expect(page.get_by_role("article")).to_contain_text("Revision 2")
    feedback = page.get_by_role("region", name="Feedback so far")
    await expect(feedback).to_contain_text("alice")
    await expect(feedback).to_contain_text("Three cups, please")

    changes = page.get_by_role("region", name="Changed since revision 1")
    beside = changes.get_by_role("group", name="side by side")
    within = changes.get_by_role("group", name="inline")
    await expect(beside).to_contain_text("Also: Three cups, please")
    await expect(within).to_be_hidden()
    await changes.get_by_role("button", name="Inline").click()
    await expect(changes.get_by_role("button", name="Inline")).to_have_attribute(
        "aria-pressed", "true"
    )
    await expect(within).to_contain_text("Also: Three cups, please")
    await expect(beside).to_be_hidden()

    await pick(page, "Approve")
    await page.get_by_label("Comment").fill("Now it is enough.")
    await send(page, "Approve")
    await expect(next_).to_contain_text("The note is kept")
    run = await desk.runner.get_run(asked.request.run_id)
    assert run.status is RunStatus.FINISHED


async def test_of_two_who_answer_at_once_one_wins_and_the_other_sees_who(
    desk: Desk, windows: Windows
) -> None:
    asked = await desk.ask("note", text="Tea")
    alice = await desk.sign_in(windows, "alice")
    bob = await desk.sign_in(windows, "bob")
    hers, his = await alice.opens("/"), await bob.opens("/")
    for page in (hers, his):
        await page.get_by_role("link", name="Note: Tea").click()
    await pick(his, "Reject")
    await his.get_by_label("Comment").fill(COFFEE)

    await pick(hers, "Approve")
    await send(hers, "Approve")
    await expect(hers.get_by_text("On record: you")).to_be_visible()

    # He is told while he writes, and what he has written is still there for him.
    await expect(his.get_by_role("alert")).to_contain_text("approved, by alice")
    await expect(his.get_by_label("Comment")).to_have_value(COFFEE)
    bob.expect_trouble("status of 409")
    await send(his, "Reject")
    await expect(his.get_by_role("alert")).to_contain_text("alice was first")
    await expect(his.get_by_role("alert")).to_contain_text(COFFEE)
    await expect(his.get_by_role("alert")).to_be_focused()
    taken = await desk.runner.get(asked.request_id)
    assert taken.status is RequestStatus.APPROVED
    assert [given.by.id for given in taken.answers] == ["alice"]


async def test_who_was_told_that_another_was_first_can_look_and_keeps_what_they_wrote(
    desk: Desk, windows: Windows
) -> None:
    asked = await desk.ask("note", text="Tea")
    window = await desk.sign_in(windows, "bob")
    page = await window.opens(f"/requests/{asked.request_id}")
    await pick(page, "Reject")
    await page.get_by_label("Comment").fill(COFFEE)
    await desk.runner.answer(asked.request_id, Approve(), by=person("alice"))
    await page.get_by_role("button", name="Show what is there now").click()
    await expect(page.get_by_role("form")).to_have_count(0)
    await expect(page.get_by_role("complementary")).to_contain_text("Alice approved")
    await expect(page.get_by_role("article")).to_contain_text(COFFEE)


async def test_the_list_of_one_follows_what_another_does(desk: Desk, windows: Windows) -> None:
    await desk.ask("note", text="Tea")
    alice = await desk.sign_in(windows, "alice")
    bob = await desk.sign_in(windows, "bob")
    hers, his = await alice.opens("/"), await bob.opens("/")
    await expect(his.get_by_role("link", name="Note: Tea")).to_be_visible()

    await desk.ask("note", text="Milk")
    for page in (hers, his):
        await expect(page.get_by_role("link", name="Note: Milk")).to_be_visible()
    await hers.get_by_role("link", name="Note: Milk").click()
    await hers.get_by_role("button", name="Claim").click()
    await expect(his.get_by_role("link", name="Note: Milk")).to_contain_text("alice")

    await pick(hers, "Approve")
    await send(hers, "Approve")
    await expect(his.get_by_role("link", name="Note: Milk")).to_have_count(0)
    await expect(his.get_by_role("link", name="Note: Tea")).to_be_visible()


async def test_a_claim_is_shown_to_who_looks_at_the_same_request(
    desk: Desk, windows: Windows
) -> None:
    await desk.ask("note", text="Tea")
    alice = await desk.sign_in(windows, "alice")
    bob = await desk.sign_in(windows, "bob")
    hers, his = await alice.opens("/"), await bob.opens("/")
    for page in (hers, his):
        await page.get_by_role("link", name="Note: Tea").click()
    await his.get_by_role("button", name="Claim").click()
    await expect(his.get_by_role("button", name="Release")).to_be_visible()
    await expect(hers.get_by_text("bob is looking at this")).to_be_visible()
    await his.get_by_role("button", name="Release").click()
    await expect(hers.get_by_text("bob is looking at this")).to_have_count(0)


async def test_an_edit_is_shown_before_it_counts_and_what_is_wrong_is_said_at_its_field(
    desk: Desk, windows: Windows
) -> None:
    asked = await desk.ask("payment", amount=40, recipient="Ann")
    window = await desk.sign_in(windows, "alice")
    page = await window.opens(f"/requests/{asked.request_id}")
    await pick(page, "Edit")
    await page.get_by_label("Amount").fill("4000")
    await page.get_by_label("Recipient").fill("Anna")
    window.expect_trouble("status of 422")
    await send(page, "Preview the change")
    await expect(page.get_by_label("Amount")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_label("Amount")).to_have_value("4000")
    await expect(page.get_by_label("Recipient")).to_have_value("Anna")

    await page.get_by_label("Amount").fill("45")
    await send(page, "Preview the change")
    preview = page.get_by_role("region", name="What your edit changes")
    await expect(preview).to_contain_text("45")
    await expect(preview).to_contain_text("Anna")
    assert (await desk.runner.get(asked.request_id)).status is RequestStatus.OPEN

    await send(page, "Approve with this edit")
    await expect(page.get_by_text("Paid 45 to Anna.")).to_be_visible()
    taken = await desk.runner.get(asked.request_id)
    assert taken.answers[0].decision.kind == "edit"


async def test_a_response_is_asked_for_with_the_fields_of_its_schema(
    desk: Desk, windows: Windows
) -> None:
    asked = await desk.ask("trip", to="Rome")
    window = await desk.sign_in(windows, "alice")
    page = await window.opens(f"/requests/{asked.request_id}")
    await pick(page, "Respond")
    await expect(page.get_by_text("How many nights.")).to_be_visible()
    await page.get_by_label("Nights").fill("a few")
    await page.get_by_label("Leaves").fill("2026-12-24")
    await page.get_by_label("Travels by").select_option("invoice")
    await page.get_by_role("group", name="Breakfast").get_by_label("Yes").check()
    window.expect_trouble("status of 422")
    await send(page, "Send response")
    await expect(page.get_by_label("Nights")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_label("Nights")).to_have_value("a few")
    await expect(page.get_by_label("Leaves")).to_have_value("2026-12-24")
    await expect(page.get_by_role("group", name="Breakfast").get_by_label("Yes")).to_be_checked()

    await page.get_by_label("Nights").fill("3")
    await send(page, "Send response")
    await expect(page.get_by_text("On record: you")).to_be_visible()
    taken = await desk.runner.get(asked.request_id)
    assert taken.answers[0].decision.response == {
        "nights": 3,
        "leaves": "2026-12-24",
        "travels_by": "invoice",
        "breakfast": True,
    }


async def test_time_runs_on_the_page_and_votes_are_counted_on_it(
    desk: Desk, windows: Windows
) -> None:
    payment = await desk.ask("payment", amount=40, recipient="Ann")
    votes = await desk.ask("votes", amount=40, recipient="Ann")
    window = await desk.sign_in(windows, "alice")
    await window.page.clock.install()
    page = await window.opens(f"/requests/{payment.request_id}")
    article = page.get_by_role("article")
    await expect(article.get_by_text("1 h 59 min left")).to_be_visible()
    await page.clock.run_for(timedelta(hours=1, minutes=30) / timedelta(milliseconds=1))
    await expect(article.get_by_text("29 min left")).to_be_visible()

    page = await window.opens(f"/requests/{votes.request_id}")
    await expect(page.get_by_text("0 of 2 approvals")).to_be_visible()
    await desk.runner.answer(votes.request_id, Approve(comment="Fine."), by=person("bob"))
    await expect(page.get_by_text("1 of 2 approvals")).to_be_visible()
    await expect(page.get_by_role("complementary")).to_contain_text("Bob")


async def test_a_failure_of_the_run_is_told_to_who_answered(desk: Desk, windows: Windows) -> None:
    assert isinstance(desk.flows["note"], Note)
    asked = await desk.ask("note", text="Tea")
    window = await desk.sign_in(windows, "alice")
    page = await window.opens(f"/requests/{asked.request_id}")
    await pick(page, "Reject")
    await send(page, "Reject")
    next_ = page.get_by_role("region", name="What happens next")
    await expect(next_).to_contain_text("The note was thrown away.")
