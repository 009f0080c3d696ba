"""A desk of several people: an application with requests waiting, and a window for each person."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from desk_flows import workflows
from fastapi import FastAPI
from windows import Window, Windows
from workflows import Workflow

from llama_index_hitl import Reviewer
from llama_index_hitl.models import ReviewRecord
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore, Store
from llama_index_hitl.web import NamedTokens, create_app

SECRETS = ("a secret of the tests, which sign in again",)

MALLORY = "<script>window.hacked = 21</script>"
"""Somebody whose name means harm."""

PEOPLE = {
    f"hitl_token-of-{name}-".ljust(40, "x"): Reviewer(id=name, roles=roles, name=name.capitalize())
    for name, roles in {
        "alice": ("desk",),
        "bob": ("desk",),
        "carol": ("chief",),
        "zoe": (),
        "olivia": ("auditor",),
        MALLORY: ("desk",),
    }.items()
}
"""Who there is, by token."""


def person(name: str) -> Reviewer:
    """Return somebody, with their roles."""
    return next(person for person in PEOPLE.values() if person.id == name)


def token_of(name: str) -> str:
    """Return the token with which somebody signs in."""
    return next(token for token, who in PEOPLE.items() if who.id == name)


@dataclass
class Desk:
    """Where people work.

    Attributes:
        store: What is asked, and decided.
        flows: The workflows, by name.
        base: Where it is served, without a slash at the end.
    """

    store: Store = field(default_factory=MemoryStore)
    flows: dict[str, Workflow] = field(default_factory=workflows)
    base: str = ""

    def __post_init__(self) -> None:
        self.runner = Runner(self.store, self.flows)

    def app(self, **options: Any) -> FastAPI:
        """Return the application."""
        return create_app(self.runner, authenticate=NamedTokens(PEOPLE), secrets=SECRETS, **options)

    async def ask(self, workflow: str, *, by: str = "zoe", **inputs: Any) -> ReviewRecord:
        """Start a run, and return what it asks."""
        run = await self.runner.start(workflow, by=by, inputs=inputs)
        (record,) = await self.runner.pending(run_id=run.run_id)
        return record

    async def sign_in(self, windows: Windows, name: str, **options: Any) -> Window:
        """Open a window in which somebody has signed in; signing in by hand has its own test."""
        return await signed_in(windows, self.base, name, **options)


async def signed_in(windows: Windows, base: str, name: str, **options: Any) -> Window:
    """Open a window in which somebody has signed in.

    Args:
        windows: Opens it.
        base: Where the application is, without a slash at the end.
        name: Who.
        **options: What Playwright's `new_context` takes.
    """
    window = await windows.open(base, **options)
    answer = await window.context.request.post(
        f"{base}/sign-in", form={"token": token_of(name)}, max_redirects=0
    )
    assert answer.status == 303, await answer.text()
    return window
