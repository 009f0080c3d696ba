"""Workflows that an application serves in tests, and what tests do with it again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import httpx
from durable import Article, Asking, Laddered, Plain, Staged
from fastapi import FastAPI
from pydantic import BaseModel, Field, field_validator
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import Approved, Review, Revision
from llama_index_hitl.runner import Runner


class Account(BaseModel):
    holder: str
    iban: str


class Item(BaseModel):
    name: str
    price: int


class InvoiceStart(StartEvent):
    """An invoice came in."""

    supplier: str
    amount: int = Field(ge=1, description="In euros.")
    note: str | None = None

    @field_validator("supplier")
    @classmethod
    def _is_known(cls, supplier: str) -> str:
        if supplier == "Nobody":
            raise ValueError("we do not know them")
        return supplier


class Invoice(Event):
    supplier: str
    amount: int = Field(ge=1)
    account: Account
    lines: list[Item]


class InvoiceFlow(Workflow):
    """Pays an invoice when finance has approved it.

    Example:
        >>> InvoiceFlow().run(supplier="Ann", amount=40)
    """

    @step
    async def enter(self, ev: InvoiceStart | Revision) -> Invoice:
        if isinstance(ev, Revision):
            old = ev.subject
            return Invoice(**{**old.model_dump(), "supplier": f"{old.supplier}, {ev.feedback}"})
        return Invoice(
            supplier=ev.supplier,
            amount=ev.amount,
            account=Account(holder=ev.supplier, iban="DE89-SECRET"),
            lines=[Item(name="Paper", price=ev.amount)],
        )

    approval = Review(
        Invoice,
        title=lambda _, ev: f"Pay {ev.amount} EUR to {ev.supplier}?",
        body="An invoice of a *supplier*.",
        reviewers="role:finance",
        tags=("money",),
        editable=True,
        delegable=True,
        revise=Revision,
        deadline=timedelta(days=2),
    )

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        return StopEvent(result={"paid": ev.subject.amount, "to": ev.subject.account.iban})


class Broken(Workflow):
    """Fails as long as it is told to."""

    broken: ClassVar[bool] = True

    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        if type(self).broken:
            raise ConnectionError("the bank at 10.0.0.7 is closed")
        return StopEvent(result="done")


WORKFLOWS: dict[str, type[Workflow]] = {
    "article": Article,
    "asking": Asking,
    "broken": Broken,
    "invoice": InvoiceFlow,
    "laddered": Laddered,
    "plain": Plain,
    "staged": Staged,
}

INVOICE = {"supplier": "Acme", "amount": 1200}


class Desk:
    """People at work with an application.

    Args:
        app: The application.
        runner: Its runner.
        client_of: Returns a client of somebody.
    """

    def __init__(
        self, app: FastAPI, runner: Runner, client_of: Callable[[str], httpx.AsyncClient]
    ) -> None:
        self.app = app
        self.runner = runner
        self.client_of = client_of

    async def get(self, person: str, path: str, **query: Any) -> httpx.Response:
        return await self.client_of(person).get(f"/api{path}", params=query)

    async def post(self, person: str, path: str, body: Any = None) -> httpx.Response:
        return await self.client_of(person).post(f"/api{path}", json=body)

    async def start(
        self, workflow: str = "invoice", by: str = "frank", **inputs: Any
    ) -> tuple[str, dict[str, Any]]:
        """Start a run, and return its id and its one open request as an admin sees it."""
        given = inputs or (INVOICE if workflow == "invoice" else {})
        body = {"workflow": workflow, "inputs": given, "wait": True}
        response = await self.post(by, "/runs", body)
        assert response.status_code == 201, response.text
        run = response.json()
        listed = await self.get("root:admin", "/requests", view="all", run_id=run["run_id"])
        (summary,) = listed.json()["items"]
        return run["run_id"], summary

    async def answer(
        self, person: str, request: dict[str, Any], decision: Any = "approve", **fields: Any
    ) -> httpx.Response:
        """Answer a request that was listed."""
        body = {"decision": decision, "digest": request["digest"], **fields}
        return await self.post(person, f"/requests/{request['request_id']}/answer", body)

    async def settled(self) -> None:
        """Wait until nothing that was asked for is under way any more."""
        while tasks := tuple(self.app.state.site.worker._tasks):
            await asyncio.gather(*tasks, return_exceptions=True)


def failure(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Return what a response says is wrong, which must be this."""
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert (response.status_code, error["type"]) == (status, kind), response.text
    return error


def fields(error: dict[str, Any]) -> list[str]:
    """Return the fields that are to blame."""
    return [problem["field"] for problem in error["problems"]]
