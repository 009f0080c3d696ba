"""An application with named tokens, and browsers and programs that use it; for tests of safety."""

from __future__ import annotations

import re
from typing import Any

import httpx
from durable import NOON, runner_on
from fastapi import FastAPI

from llama_index_hitl.models import Reviewer
from llama_index_hitl.stores import MemoryStore, Store
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import NamedTokens, create_app

ANN_TOKEN, BOB_TOKEN = "hitl_" + "a" * 43, "hitl_" + "b" * 43
OLD, NEW, OTHER = "old " * 12, "new " * 12, "other " * 12
ORIGIN = "http://reviews.test"

_CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')


def named_tokens(clock: ManualClock) -> NamedTokens:
    """Ann is a lawyer, Bob is nobody in particular."""
    ann, bob = Reviewer(id="ann", roles=("legal",)), Reviewer(id="bob")
    return NamedTokens({ANN_TOKEN: ann, BOB_TOKEN: bob}, clock=clock)


def app_on(
    clock: ManualClock | None = None, *, store: Store | None = None, **options: Any
) -> FastAPI:
    """Return an application whose runs do nothing by themselves."""
    clock = clock or ManualClock(NOON)
    runner = options.pop("runner", None) or runner_on(store or MemoryStore(), clock=clock)
    options.setdefault("authenticate", named_tokens(clock))
    return create_app(runner, works=False, clock=clock, **options)


def client(app: Any, base: str = ORIGIN, **headers: str) -> httpx.AsyncClient:
    """Return a client that keeps cookies; it sends what it is told to, which no browser would."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base, headers=headers)


def bearer(token: str) -> dict[str, str]:
    """Return the header by which a program says who it is."""
    return {"Authorization": f"Bearer {token}"}


async def sign_in(
    browser: httpx.AsyncClient, token: str = ANN_TOKEN, next: str = "", base: str = ""
) -> httpx.Response:
    """Sign in on the page, as a browser does."""
    page = (await browser.get(f"{base}/sign-in")).text
    found = _CSRF.search(page)
    form = {"token": token, "next": next, "csrf_token": found[1] if found else ""}
    return await browser.post(f"{base}/sign-in", data=form, headers={"Origin": origin_of(browser)})


def origin_of(browser: httpx.AsyncClient) -> str:
    """Return the origin of the pages that a browser has got from the application."""
    return f"{browser.base_url.scheme}://{browser.base_url.netloc.decode()}"
