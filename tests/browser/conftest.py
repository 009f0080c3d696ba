"""A real browser: one for each worker of pytest, and an empty profile for each window."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from desk import Desk
from playwright.async_api import Browser, async_playwright
from served import Serve, served
from windows import Windows, windows_of

ARGUMENTS = (
    "--no-sandbox",  # tests run as root, in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def chromium_program() -> str:
    """Path of Debian's Chromium, or of the one that HITL_TEST_CHROMIUM names."""
    found = os.environ.get("HITL_TEST_CHROMIUM") or shutil.which("chromium")
    if found is None:
        missing = "There is no chromium on the PATH, and HITL_TEST_CHROMIUM is not set."
        if "CI" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium_program: str) -> AsyncIterator[Browser]:
    """The browser, without windows."""
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(
            executable_path=chromium_program, args=list(ARGUMENTS)
        )
        yield opened
        await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def serve() -> AsyncIterator[Serve]:
    """Serves applications until the test ends; the windows are closed before."""
    async with AsyncExitStack() as serving:

        async def start(app: Any, **options: Any) -> str:
            return await serving.enter_async_context(served(app, **options))

        yield start


@pytest_asyncio.fixture(loop_scope="session")
async def desk(serve: Serve) -> Desk:
    """A desk where nothing waits yet."""
    made = Desk()
    made.base = await serve(made.app())
    return made


@pytest_asyncio.fixture(loop_scope="session")
async def windows(
    serve: Serve, browser: Browser, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Windows]:
    """Opens windows. What goes wrong in one fails the test; a failure leaves pictures."""
    async with windows_of(browser) as opened:
        yield opened
        if request.node.stash.get(_FAILED, False):
            await opened.shoot(tmp_path)
