"""What goes wrong is told in one way, and tells nobody what is not for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from durable import NOON
from fastapi import FastAPI
from invoices import Desk, failure
from starlette.applications import Starlette
from starlette.routing import Mount

from llama_index_hitl import errors
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore, StoredRequest
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import create_app
from llama_index_hitl.web._failures import failure_of
from llama_index_hitl.web._views import json_of

SECRET = "postgresql://hitl:hunter2@10.0.0.7/db"  # noqa: S105 - it is made up


async def test_who_is_not_signed_in_gets_nothing_but_health(desk: Desk, app: FastAPI) -> None:
    asked = 0
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            if not path.startswith("/api/") or path == "/api/health":
                continue
            response = await desk.client_of("").request(
                method, path.format(run_id="r", request_id="r"), json={}
            )
            failure(response, 401, "not_signed_in")
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.headers["cache-control"] == "no-store"
            asked += 1
    assert asked > 15
    healthy = await desk.client_of("").get("/api/health")
    assert (healthy.status_code, healthy.json()) == (200, {"status": "ok"})


async def test_who_is_signed_in_is_told_who_they_are(desk: Desk) -> None:
    assert (await desk.get("ann:legal,auditor", "/me")).json() == {
        "id": "ann",
        "name": "ann",
        "roles": ["legal", "auditor"],
        "admin": False,
        "sees_all": True,
    }
    assert (await desk.get("root:admin", "/me")).json()["admin"] is True


async def test_what_is_no_route_is_told_likewise(desk: Desk) -> None:
    failure(await desk.get("alice", "/nothing"), 404, "not_found")
    refused = await desk.post("alice", "/me")
    failure(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "GET"


async def test_people_get_a_page(desk: Desk) -> None:
    response = await desk.client_of("alice").get("/nothing")
    assert (response.status_code, response.headers["content-type"]) == (
        404,
        "text/html; charset=utf-8",
    )


async def test_it_is_told_likewise_wherever_the_application_is_mounted(app: FastAPI) -> None:
    host = FastAPI()
    host.mount("/our/reviews", app)
    transport = httpx.ASGITransport(host)
    async with httpx.AsyncClient(transport=transport, base_url="http://host.test") as client:
        healthy = await client.get("/our/reviews/api/health")
        assert healthy.status_code == 200
        failure(await client.get("/our/reviews/api/me"), 401, "not_signed_in")
        signed_in = {"X-Person": "alice"}
        listed = await client.get("/our/reviews/api/requests", headers=signed_in)
        assert listed.json() == {"items": [], "after": None}
        unknown = await client.get("/our/reviews/api/runs/x", headers=signed_in)
        failure(unknown, 404, "unknown_run")


async def test_what_was_begun_below_another_application_is_ended_with_it(
    runner: Runner, clock: ManualClock
) -> None:
    reviews = create_app(runner, authenticate=lambda _: None, clock=clock)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with reviews.router.lifespan_context(reviews):
            yield

    outer = Starlette(routes=[Mount("/reviews", reviews)], lifespan=lifespan)
    async with outer.router.lifespan_context(outer):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(outer), base_url="http://reviews.test"
        ) as client:
            assert (await client.get("/reviews/api/health")).status_code == 200
        rounds = reviews.state.site.worker._rounds
        assert not any(task.done() for task in rounds)
    assert rounds
    assert all(task.done() for task in rounds)
    assert reviews.state.site.hub.closed


class Unwell(MemoryStore):
    """Raises what it is told to, or says nothing at all."""

    raises: Exception | None = None
    silent = False

    async def request(self, request_id: str) -> StoredRequest | None:
        if self.raises is not None:
            raise self.raises
        return await super().request(request_id)

    async def feed_end(self) -> str:
        if self.silent:
            await asyncio.Event().wait()
        if self.raises is not None:
            raise self.raises
        return await super().feed_end()


class TestUnwell:
    @pytest.fixture
    def web_store(self) -> Unwell:
        return Unwell()

    async def test_of_what_nobody_expected_nothing_is_told_and_only_the_place_is_logged(
        self, desk: Desk, web_store: Unwell, caplog: pytest.LogCaptureFixture
    ) -> None:
        web_store.raises = RuntimeError(SECRET)
        with caplog.at_level(logging.DEBUG):
            response = await desk.get("alice", "/requests/x")
        failure(response, 500, "internal")
        assert "hunter2" not in response.text + caplog.text
        assert "RuntimeError" in caplog.text
        assert "in request\n    raise self.raises" in caplog.text
        assert "Traceback" not in response.text

    async def test_a_store_that_cannot_be_reached_is_not_named(
        self, desk: Desk, web_store: Unwell, caplog: pytest.LogCaptureFixture
    ) -> None:
        web_store.raises = errors.StoreError(f"cannot connect to {SECRET}")
        for path in ("/requests/x", "/health"):
            response = await desk.get("alice", path)
            failure(response, 503, "unavailable")
            assert "hunter2" not in response.text + caplog.text

    async def test_a_store_that_says_nothing_is_not_waited_for_by_health(
        self, desk: Desk, web_store: Unwell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("llama_index_hitl.web._api.health._PATIENCE", 0.0)
        web_store.silent = True
        failure(await desk.get("alice", "/health"), 503, "unavailable")


async def test_a_closed_store_is_no_health(desk: Desk, web_store: MemoryStore) -> None:
    await web_store.close()
    failure(await desk.get("", "/health"), 503, "unavailable")


TELLING: list[tuple[Exception, int, str]] = [
    (errors.RunBusy("r", owner=f"host-7:{SECRET}", until=NOON), 409, "run_busy"),
    (errors.StillWaiting("r", status="waiting", open_requests=[SECRET]), 409, "still_waiting"),
    (errors.RunFailed("r", error_type="E", error_message=SECRET), 409, "run_failed"),
    (errors.RunExists("r", workflow=SECRET), 409, "run_exists"),
    (errors.IncompatibleSnapshot("w", [SECRET]), 409, "incompatible"),
    (errors.Conflict(SECRET), 409, "conflict"),
    (errors.MissingExtra(SECRET, extra="x", purpose="y"), 500, "internal"),
    (errors.HitlError(SECRET), 500, "internal"),
    (ValueError(SECRET), 500, "internal"),
]


@pytest.mark.parametrize(("error", "status", "kind"), TELLING, ids=lambda value: str(value)[:12])
def test_words_for_those_who_run_the_server_are_kept_from_others(
    error: Exception, status: int, kind: str
) -> None:
    found, told = failure_of(error)
    assert (found, told.type) == (status, kind)
    assert "hunter2" not in told.model_dump_json()


def test_a_failure_says_what_a_program_needs_to_know() -> None:
    claimed = errors.AlreadyClaimed("r", by="ann", until=NOON)
    _, told = failure_of(claimed)
    assert (told.request_id, told.by, told.until, told.at) == ("r", "ann", NOON, None)
    assert failure_of(errors.TooMany("wait", retry_after=7))[1].retry_after == 7
    assert failure_of(errors.TooMany("too much"))[0] == 413
    assert failure_of(errors.LinkInvalid("dead"))[0] == 410
    busy = failure_of(errors.RunBusy("r", owner="o", until=NOON + timedelta(hours=1)))[1]
    assert (busy.run_id, busy.until) == ("r", None)


def test_what_is_quoted_can_be_written_and_has_an_end() -> None:
    evil = "\ud800" + "x" * 100_000
    refused = errors.InvalidAnswer(evil, [errors.FieldProblem(evil, evil)] * 1_000)
    _, told = failure_of(refused)
    assert len(told.model_dump_json().encode()) < 1_000_000
    assert len(told.problems) == 100


class Spoken:
    def __str__(self) -> str:
        return "spoken"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, None),
        (float("nan"), "NaN"),
        ({"a": float("inf")}, {"a": "Infinity"}),
        ((1, {2}), [1, [2]]),
        (b"\xff\x00", "_wA="),
        (NOON, "2026-03-02T12:00:00Z"),
        ("\ud800", "\\ud800"),
        (object(), "object"),
        ([Spoken()], ["spoken"]),
        (asyncio, "module"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_run_came_to_is_told_as_json_whatever_it_is(value: Any, told: Any) -> None:
    assert json_of(value) == told
