"""The demo of the web inbox: what waits on the desk, and a report from topic to text."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import httpx
import pytest
from forked_serving import ForkedServing

from llama_index_hitl import _demo_web
from llama_index_hitl._demo_banking import Bank
from llama_index_hitl.models import RequestStatus
from llama_index_hitl.rendering import diff_of
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.stores.protocol import RequestQuery
from llama_index_hitl.testing import ManualClock

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


async def test_the_desk_is_filled_once_with_work_of_every_kind() -> None:
    store, bank = MemoryStore(), Bank()
    assert await _demo_web.fill(store, now=NOW, bank=bank) == len(_demo_web.ON_THE_DESK)
    assert await _demo_web.fill(store, now=NOW + timedelta(hours=1), bank=bank) == 0

    waiting = {stored.run_id: stored for stored in await store.requests(RequestQuery(limit=100))}
    assert {run_id.split("-")[1] for run_id in waiting} == {
        *("report", "document", "code", "claim", "banking")
    }
    requests = {run_id: stored.record.request for run_id, stored in waiting.items()}
    assert all(request.created_at <= NOW for request in requests.values())
    second = requests["demo-document-refunds"]
    assert second.revision == 2
    assert "never arrive" in second.feedback[0].text
    assert diff_of(second)
    assert requests["demo-claim-cyclist"].priority == "urgent"
    assert requests["demo-claim-kitchen"].evidence
    due = requests["demo-claim-kitchen"].deadline
    assert due is not None
    assert timedelta() < due - NOW < timedelta(hours=1)
    assert waiting["demo-code-retry"].claim is not None
    assert bank.movements == []  # nothing has moved: it waits


async def test_a_desk_that_is_left_for_days_loses_nothing() -> None:
    clock = ManualClock(NOW)
    store, bank = MemoryStore(), Bank()
    await _demo_web.fill(store, now=NOW, bank=bank)
    clock.advance(timedelta(days=3))
    flows = _demo_web.workflows(scripted=True, bank=bank, clock=clock)
    runner = Runner(store, flows, clock=clock)
    await runner.sweep()
    await runner.recover()
    run = await runner.get_run("demo-claim-kitchen")
    (asked,) = await runner.pending(run_id=run.run_id)
    assert asked.policy.reviewers == ("role:lead",)  # passed on, and still open
    assert asked.status is RequestStatus.OPEN
    clock.advance(timedelta(days=3))
    await runner.sweep()
    await runner.recover()
    result = await runner.result("demo-claim-kitchen")
    assert result.status == "expired"


async def test_the_research_says_which_angle_it_is_at() -> None:
    said: list[str] = []
    runner = Runner(
        MemoryStore(),
        _demo_web.workflows(scripted=True, bank=Bank()),
        watch=lambda _, event: said.append(getattr(event, "message", "")),
    )
    run = await runner.start("report", topic="mice")
    (asked,) = await runner.pending(run_id=run.run_id)
    findings = asked.request.subject
    assert findings is not None
    for angle in _demo_web.ANGLES:
        assert f"## {angle}" in findings.data["findings"]
        assert any(message.startswith(angle) for message in said)


# --------------------------------------------------------------------------- a real server


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServing]:
    with ForkedServing(tmp_path_factory.mktemp("demo")) as serving:
        yield serving


def eventually(client: httpx.Client, path: str, wanted: str) -> str:
    """Load a page until it says something; return it."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        page = client.get(path).raise_for_status().text
        if re.search(wanted, page):
            return page
        time.sleep(0.05)
    raise AssertionError(f"{wanted!r} is not on {path}: {page}")


def fields_of(page: str) -> dict[str, str]:
    """Return the hidden inputs of a page's last form."""
    form = page.rpartition("<form")[2]
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
    return {name: unescape(value) for name, value in found}


@pytest.mark.timeout(120)
def test_a_report_from_topic_to_text_though_the_server_is_killed_on_the_way(
    forked: ForkedServing, tmp_path: Path
) -> None:
    demo = ("--demo", "--pace", "0", "--store", f"sqlite:///{tmp_path}/runs.db")
    server = forked.serve(*demo)
    with httpx.Client(base_url=server.url) as client:
        form = fields_of(client.get("/start/report").text)
        started = client.post("/start/report", data={**form, "topic": "Owls at night"})
        place = started.headers["location"]
        page = eventually(client, place, "Review and decide")
        assert "What is known (1 of 3)" in page
        asked = re.search(r'href="(/requests/[^"]+)"[^>]*>Review and decide', page)
        assert asked is not None
    server.send(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL

    server = forked.serve(*demo)
    with httpx.Client(base_url=server.url) as client:
        form_page = client.get(f"{asked[1]}?decide=approve").raise_for_status().text
        answer = fields_of(form_page)
        response = client.post(f"{asked[1]}/answer", data=answer)
        assert response.status_code in (200, 303), response.text
        page = eventually(client, place, 'data-status="finished"')
        assert "Report: Owls at night" in page
        assert page.count("What is known (1 of 3)") == 1  # the research was not done again

        with (
            client.stream("GET", f"/api{place}/events"),
            client.stream("GET", "/api/inbox/events") as stream,
        ):
            assert stream.status_code == 200
            began = time.monotonic()
            server.send(signal.SIGINT)
            assert server.wait() == 0
            assert time.monotonic() - began < 3
    assert "Stopped." in server.printed
    assert "Traceback" not in server.printed
