"""Tests of a store: lists of requests and runs, their order, filters and pages."""

# ruff: noqa: S101 - these are tests, and they assert.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from llama_index_hitl.errors import StoreError
from llama_index_hitl.lifecycle import take_answer
from llama_index_hitl.models import Answer, DecisionKind, Delegate
from llama_index_hitl.stores.protocol import (
    Commit,
    RequestQuery,
    Run,
    RunQuery,
    RunStatus,
    Store,
    StoredRequest,
)
from llama_index_hitl.testing._store_rows import LATER, NOON, a_record, a_request, a_run

SECOND = timedelta(seconds=1)

_URGENCY = ("urgent", "high", "normal", "low")


def crowd() -> list[StoredRequest]:
    """Return requests that differ in everything that a query looks at."""
    audiences: list[tuple[str, ...]] = [
        (),
        ("ann",),
        ("role:legal",),
        ("ann", "role:legal", "bob"),
        ("role:ann",),
        ("*",),
    ]
    return [
        a_request(
            f"{'aBcd'[number % 4]}{number}",
            run_id=f"run {number % 3}",
            is_open=number % 4 != 3,
            next_due=None if number % 3 == 0 else NOON + SECOND * (number % 5),
            workflow=("article", "Article")[number % 2],
            gate=("legal", "editor", "ask")[number % 3],
            priority=_URGENCY[number % 4 if number % 8 < 4 else 3],
            created_at=NOON + SECOND * (number % 7),
            reviewers=audiences[number % len(audiences)],
            tags=(("t",), (), ("t", "u"), ("tu",))[number % 4 if number % 5 else 1],
        )
        for number in range(60)
    ]


def fits(request: StoredRequest, query: RequestQuery) -> bool:
    """Tell, in so many words, whether a query is to find a request."""
    record, asked = request.record, request.record.request
    is_open = record.status == "open"
    named = record.policy.reviewers
    return all(
        (
            query.open is None or query.open == is_open,
            query.entries is None or not named or set(named) & set(query.entries),
            query.run_id in (None, request.run_id),
            query.workflow in (None, asked.workflow),
            query.gate in (None, asked.gate),
            query.tag is None or query.tag in asked.tags,
            query.priority in (None, asked.priority),
            query.created_before is None or asked.created_at < query.created_before,
            query.due_before is None
            or (request.next_due is not None and request.next_due < query.due_before),
        )
    )


def in_order(requests: Sequence[StoredRequest]) -> list[StoredRequest]:
    """Sort requests as a list of them is."""
    return sorted(
        requests,
        key=lambda request: (
            _URGENCY.index(request.record.request.priority),
            request.record.request.created_at,
            request.request_id,
        ),
    )


async def ids(store: Store, **query: Any) -> list[str]:
    """Return the ids of the requests on the first page."""
    return [request.request_id for request in await store.requests(RequestQuery(**query))]


async def all_pages(store: Store, query: RequestQuery) -> list[StoredRequest]:
    """Read all pages, and hold each to its limit."""
    found: list[StoredRequest] = []
    while True:
        page = await store.requests(query)
        assert len(page) <= query.limit
        found += page
        if page.after is None:
            return found
        assert len(page) == query.limit
        query = replace(query, after=page.after)


async def all_pages_of_runs(store: Store, query: RunQuery) -> list[Run]:
    """Read all pages, and hold each to its limit."""
    found: list[Run] = []
    while True:
        page = await store.runs(query)
        assert len(page) <= query.limit
        found += page
        if page.after is None:
            return found
        assert len(page) == query.limit
        query = replace(query, after=page.after)


class ListTests:
    """Lists: what is on them, in which order, and page by page."""

    # ----------------------------------------------------------------------- requests

    async def test_requests_are_ordered_by_priority_then_age_then_id(self, store: Store) -> None:
        wanted = [
            a_request("z", priority="urgent", created_at=LATER),
            a_request("y", priority="high", created_at=LATER),
            a_request("b", created_at=NOON),
            a_request("B", created_at=NOON + timedelta(microseconds=1)),
            a_request("0", created_at=LATER),
            a_request("Z", created_at=LATER),
            a_request("_", created_at=LATER),
            a_request("a", created_at=LATER),
            a_request("a-", created_at=LATER),
            a_request("aa", created_at=LATER),
            a_request("ä", created_at=LATER),
            a_request("日", created_at=LATER),
            a_request("🦙", created_at=LATER),
            a_request("A", priority="low", created_at=NOON - SECOND),
        ]
        await store.commit(Commit(requests=tuple(reversed(wanted))))
        assert await ids(store) == [request.request_id for request in wanted]

    @pytest.mark.parametrize("limit", [1, 7, 50])
    @pytest.mark.parametrize("is_open", [True, False, None])
    async def test_pages_together_are_the_list(
        self, store: Store, limit: int, *, is_open: bool | None
    ) -> None:
        requests = crowd()
        await store.commit(Commit(requests=tuple(requests)))
        query = RequestQuery(open=is_open, limit=limit)
        wanted = in_order([request for request in requests if fits(request, query)])
        found = await all_pages(store, query)
        assert found == [replace(request, revision=1) for request in wanted]

    async def test_a_full_last_page_is_the_last_one(self, store: Store) -> None:
        await store.commit(Commit(requests=(a_request("a"), a_request("b"))))
        assert (await store.requests(RequestQuery(limit=2))).after is None
        first = await store.requests(RequestQuery(limit=1))
        second = await store.requests(RequestQuery(limit=1, after=first.after))
        assert [request.request_id for request in second] == ["b"]
        assert second.after is None

    @pytest.mark.parametrize(
        "entries",
        [
            None,
            (),
            ("ann",),
            ("role:legal",),
            ("ann", "role:legal", "bob", "zoe"),
            ("zoe",),
            ("*",),
        ],
        ids=str,
    )
    async def test_every_filter_narrows_with_every_other(
        self, store: Store, entries: tuple[str, ...] | None
    ) -> None:
        requests = crowd()
        for start in range(0, len(requests), 7):
            await store.commit(Commit(requests=tuple(requests[start : start + 7])))
        choices: dict[str, tuple[Any, ...]] = {
            "run_id": (None, "run 1"),
            "workflow": (None, "article"),
            "gate": (None, "editor"),
            "tag": (None, "t"),
            "priority": (None, "low"),
            "created_before": (None, NOON + SECOND * 3),
            "due_before": (None, NOON + SECOND * 3),
            "open": (True,) if entries is not None else (True, False, None),
        }
        for values in product(*choices.values()):
            given = dict(zip(choices, values, strict=True))
            if sum(value is not None for value in values) > 4:
                continue  # more at a time tell no more
            query = RequestQuery(entries=entries, limit=100, **given)
            wanted = in_order([request for request in requests if fits(request, query)])
            found = [request.request_id for request in await store.requests(query)]
            assert found == [request.request_id for request in wanted], given

    async def test_filters_page_too(self, store: Store) -> None:
        requests = crowd()
        await store.commit(Commit(requests=tuple(requests)))
        narrowings: tuple[dict[str, Any], ...] = (
            {"entries": ("ann", "role:legal", "bob")},
            {"entries": ("ann", "role:legal"), "tag": "t"},
            {"entries": ("ann",), "run_id": "run 1"},
            {"entries": ("ann",), "priority": "low"},
            {"priority": "low", "open": None},
            {"tag": "t", "open": None},
            {"tag": "t", "gate": "legal"},
            {"workflow": "article", "due_before": LATER},
            {"run_id": "run 2", "open": None},
        )
        for given in narrowings:
            query = RequestQuery(limit=2, **given)
            wanted = in_order([request for request in requests if fits(request, query)])
            assert len(wanted) > 2
            found = await all_pages(store, query)
            assert [r.request_id for r in found] == [r.request_id for r in wanted], given

    async def test_pages_neither_skip_nor_repeat_what_is_there_all_the_while(
        self, store: Store
    ) -> None:
        stays = [
            a_request(f"stays {number:02}", created_at=NOON + SECOND * (number // 3))
            for number in range(12)
        ]
        goes = [
            a_request(f"goes {number:02}", created_at=NOON + SECOND * (number // 3))
            for number in range(12)
        ]
        await store.commit(Commit(requests=(*stays, *goes)))
        for entries in (None, ("ann",)):
            query, found = RequestQuery(entries=entries, limit=4), list[str]()
            for number in range(100):
                page = await store.requests(query)
                found += [request.request_id for request in page]
                if page.after is None:
                    break
                # In front of, and behind, where the page ended: one comes, and one goes or returns.
                comes = [
                    a_request(f"{side} {entries} {number}", priority=priority)
                    for side, priority in (("front", "urgent"), ("behind", "low"))
                ]
                gone = await store.request(f"goes {number:02}")
                assert gone is not None
                record = a_record(
                    gone.request_id,
                    is_open=gone.record.status != "open",
                    created_at=gone.record.request.created_at,
                )
                await store.commit(Commit(requests=(*comes, replace(gone, record=record))))
                query = replace(query, after=page.after)
            assert len(found) == len(set(found))
            ours = [request_id for request_id in found if request_id.startswith("stays")]
            assert ours == [request.request_id for request in stays]

    async def test_who_is_named_now_finds_a_request(self, store: Store) -> None:
        allowed = (DecisionKind.APPROVE, DecisionKind.DELEGATE)
        record = a_record("request", reviewers=("ann", "role:legal"), allowed=allowed)
        await store.commit(Commit(requests=(replace(a_request(), record=record),)))
        assert await ids(store, entries=("ann",)) == ["request"]
        assert await ids(store, entries=("bob",)) == []
        answer = Answer.to(record.request, Delegate(to="bob"), by="ann", at=NOON)
        delegated = take_answer(record, answer)
        await store.commit(Commit(requests=(replace(a_request(revision=1), record=delegated),)))
        assert await ids(store, entries=("ann",)) == []
        assert await ids(store, entries=("bob",)) == ["request"]
        assert await ids(store, entries=("role:legal", "bob", "bob")) == ["request"]

    async def test_a_request_for_everyone_may_come_to_be_for_some_and_back(
        self, store: Store
    ) -> None:
        for revision, reviewers in enumerate(((), ("ann",), ())):
            changed = a_request(revision=revision, reviewers=reviewers)
            await store.commit(Commit(requests=(changed,)))
            found = [await ids(store, entries=entries) for entries in ((), ("bob",), ("ann",))]
            for_all = [["request"]] * 3
            assert found == (for_all if not reviewers else [[], [], ["request"]])

    async def test_a_closed_request_is_found_among_the_closed_ones_until_it_is_open_again(
        self, store: Store
    ) -> None:
        for revision, is_open in enumerate((True, False, True)):
            changed = a_request(
                revision=revision, is_open=is_open, reviewers=("ann",), tags=("t",), workflow="w"
            )
            await store.commit(Commit(requests=(changed,)))
            found = ["request"] if is_open else []
            for given in ({}, {"entries": ("ann",)}, {"tag": "t"}, {"workflow": "w"}):
                assert await ids(store, **given) == found
            for given in ({}, {"tag": "t"}, {"run_id": "run"}, {"workflow": "w"}):
                assert await ids(store, open=False, **given) == ([] if is_open else ["request"])
                assert await ids(store, open=None, **given) == ["request"]

    async def test_who_is_barred_or_has_voted_still_finds_a_request(self, store: Store) -> None:
        record = a_record("request", reviewers=("ann",))
        policy = record.policy.model_copy(update={"barred": {"ann": "wrote it"}})
        barred = record.model_copy(update={"policy": policy})
        await store.commit(Commit(requests=(replace(a_request(), record=barred),)))
        assert await ids(store, entries=("ann",)) == ["request"]

    # ----------------------------------------------------------------------- runs

    async def test_runs_are_listed_newest_first_then_by_id(self, store: Store) -> None:
        wanted = [
            a_run("b", created_at=LATER),
            a_run("B", created_at=NOON + timedelta(microseconds=1)),
            a_run("A", created_at=NOON),
            a_run("a", created_at=NOON),
            a_run("ä", created_at=NOON),
            a_run("c", created_at=NOON - SECOND),
        ]
        for run in reversed(wanted):
            await store.commit(Commit(run=replace(run, snapshot=b"x")))
        for limit in (1, 2, 6, 50):
            found = await all_pages_of_runs(store, RunQuery(limit=limit))
            assert found == [replace(run, revision=1) for run in wanted]

    async def test_runs_are_found_by_workflow_status_and_tag(self, store: Store) -> None:
        runs = [
            a_run(
                f"{number}",
                created_at=NOON - SECOND * (number // 4),
                workflow=("article", "Article")[number % 2],
                status=(RunStatus.WAITING, RunStatus.FINISHED, RunStatus.FAILED)[number % 3],
                tags=(("t",), (), ("t", "u", "t"), ("tu",))[number % 4 if number % 5 else 1],
            )
            for number in range(30)
        ]
        for run in runs:
            await store.commit(Commit(run=run))
        statuses = (None, RunStatus.WAITING, RunStatus.FINISHED, RunStatus.CANCELLED)
        choices = product((None, "article", "none"), statuses, (None, "t", "u"))
        for workflow, status, tag in choices:
            wanted = [
                run
                for run in runs
                if workflow in (None, run.workflow)
                and status in (None, run.status)
                and (tag is None or tag in run.tags)
            ]
            wanted.sort(key=lambda run: run.run_id)
            wanted.sort(key=lambda run: run.created_at, reverse=True)
            query = RunQuery(workflow=workflow, status=status, tag=tag, limit=3)
            found = await all_pages_of_runs(store, query)
            assert [run.run_id for run in found] == [run.run_id for run in wanted]

    async def test_a_run_is_found_by_what_it_is_now(self, store: Store) -> None:
        await store.commit(Commit(run=a_run(tags=("a", "b"))))
        await store.commit(
            Commit(
                run=a_run(revision=1, tags=("b", "c"), status=RunStatus.FAILED, created_at=LATER)
            )
        )
        for tag, found in (("a", 0), ("b", 1), ("c", 1)):
            assert len(await store.runs(RunQuery(tag=tag))) == found
        assert len(await store.runs(RunQuery(status=RunStatus.WAITING))) == 0
        (run,) = await store.runs(RunQuery(status=RunStatus.FAILED, tag="c"))
        assert run.created_at == LATER

    # ----------------------------------------------------------------------- queries

    @pytest.mark.parametrize("after", ["", "x", "ä", "W10=", "bnVsbA==", "-", "[]", "a" * 5000])
    async def test_what_no_page_ended_with_is_refused(self, store: Store, after: str) -> None:
        with pytest.raises(StoreError) as caught:
            await store.requests(RequestQuery(after=after))
        assert isinstance(caught.value, ValueError)
        with pytest.raises(StoreError) as caught:
            await store.runs(RunQuery(after=after))
        assert isinstance(caught.value, ValueError)

    async def test_the_end_of_another_list_is_refused(self, store: Store) -> None:
        for name in ("a", "b"):
            await store.commit(Commit(run=a_run(name), requests=(a_request(name),)))
        requests, runs = (
            await store.requests(RequestQuery(limit=1)),
            await store.runs(RunQuery(limit=1)),
        )
        assert requests.after
        assert runs.after
        with pytest.raises(StoreError):
            await store.requests(RequestQuery(after=runs.after))
        with pytest.raises(StoreError):
            await store.runs(RunQuery(after=requests.after))
