"""Browser windows that notice what a person would not: errors, violations, requests elsewhere."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    WebError,
    expect,
)

PATIENCE = 30_000
"""Milliseconds that something on a page is waited for: the machines of tests are busy ones."""

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True}

expect.set_options(timeout=PATIENCE)


class Window:
    """A browser of one person, with an empty profile, and all that went wrong in it.

    Attributes:
        page: What it shows.
        base: Address of the application; nothing else may be asked for anything.
        troubles: What went wrong so far, in words.
    """

    def __init__(self, context: BrowserContext, page: Page, base: str) -> None:
        self.context = context
        self.page = page
        self.base = base
        self.troubles: list[str] = []
        self._expected: list[str] = []
        context.on("console", self._hear)
        context.on("weberror", self._fail)
        context.on("request", self._ask)
        context.on("dialog", self._dismiss)

    @classmethod
    async def opened(cls, browser: Browser, base: str, **options: Any) -> Self:
        context = await browser.new_context(
            base_url=base, reduced_motion="reduce", **(DESKTOP | options)
        )
        context.set_default_timeout(PATIENCE)
        return cls(context, await context.new_page(), base)

    def expect_trouble(self, pattern: str) -> None:
        """Let messages of the browser pass that are part of the story, such as a refusal."""
        self._expected.append(pattern)

    async def opens(self, path: str = "") -> Page:
        """Open a page of the application, as if its address was typed."""
        await self.page.goto(self.base + path)
        return self.page

    async def close(self) -> None:
        await self.context.close()

    def _note(self, trouble: str) -> None:
        if not any(re.search(pattern, trouble) for pattern in self._expected):
            self.troubles.append(trouble)

    def _hear(self, message: ConsoleMessage) -> None:
        # The browser reports violations of the policy as errors on the console.
        if message.type == "error":
            self._note(f"console: {message.text} ({message.location.get('url')})")

    def _fail(self, error: WebError) -> None:
        self._note(f"page: {error.error}")

    def _ask(self, request: Request) -> None:
        asked, own = urlsplit(request.url), urlsplit(self.base)
        if asked.scheme != "data" and (asked.scheme, asked.netloc) != (own.scheme, own.netloc):
            self._note(f"elsewhere: {request.method} {request.url}")

    async def _dismiss(self, dialog: Dialog) -> None:
        self._note(f"dialog: {dialog.type} {dialog.message}")
        await dialog.dismiss()


class Windows:
    """Opens windows for a test, and looks after them when it ends."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._all: list[Window] = []

    async def open(self, base: str, **options: Any) -> Window:
        """Open a window with an empty profile.

        Args:
            base: Address of the application.
            **options: What Playwright's `new_context` takes, such as `**PHONE`.
        """
        window = await Window.opened(self._browser, base.rstrip("/"), **options)
        self._all.append(window)
        return window

    async def shoot(self, folder: Path) -> None:
        """Keep a picture of every window."""
        for number, window in enumerate(self._all, start=1):
            for page in window.context.pages:
                await page.screenshot(path=folder / f"window-{number}.png", full_page=True)

    async def close(self) -> list[str]:
        """Close them all, and return what went wrong in them."""
        for window in self._all:
            await window.close()
        return [trouble for window in self._all for trouble in window.troubles]


@asynccontextmanager
async def windows_of(browser: Browser) -> AsyncIterator[Windows]:
    """Open windows, and fail if anything went wrong in one."""
    windows = Windows(browser)
    try:
        yield windows
    finally:
        troubles = await windows.close()
    if troubles:
        raise AssertionError("\n".join(troubles))
