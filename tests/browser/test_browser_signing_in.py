"""Signing in and out, with a keyboard or a mouse."""

import pytest
from desk import Desk, token_of
from playwright.async_api import expect
from windows import Windows

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_people_sign_in_where_they_wanted_to_go_and_sign_out_again(
    desk: Desk, windows: Windows
) -> None:
    window = await windows.open(desk.base)
    page = await window.opens("/start")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()

    window.expect_trouble("status of 401")
    await page.get_by_label("Your token").fill("hitl_" + 40 * "x")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_label("Your token")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_role("alert")).to_contain_text("Nobody has this token")

    await page.get_by_label("Your token").fill(token_of("alice"))
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Start a run")).to_be_visible()

    await page.get_by_label("Signed in as Alice").click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Your token")).to_be_visible()
    await window.opens("/start")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
