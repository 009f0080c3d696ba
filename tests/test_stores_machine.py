"""Every store against a plain model: whatever is done to both, they tell the same.

The model shares no code with the stores: lists and dictionaries, every question answered by going
through all there is.
"""

import asyncio
import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from postgres import schema_in

from llama_index_hitl.audit import AuditEntry, AuditKind
from llama_index_hitl.errors import Conflict
from llama_index_hitl.grants import Grant
from llama_index_hitl.lifecycle import Command, close, open_record
from llama_index_hitl.models import GrantTerms, ReviewPolicy, ReviewRequest
from llama_index_hitl.stores import (
    Claim,
    Commit,
    Effect,
    GrantQuery,
    MemoryStore,
    Message,
    Notice,
    NoticeKind,
    Progress,
    RequestQuery,
    Run,
    RunQuery,
    RunStatus,
    SqlStore,
    Store,
    StoredGrant,
    StoredRequest,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
PRIORITIES = ("urgent", "high", "normal", "low")

instants = st.integers(0, 5).map(lambda minutes: T0 + timedelta(minutes=minutes))
maybe = st.none() | instants
names = st.sampled_from(["a", "B", "ä"])
tags = st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple)
people = st.lists(st.sampled_from(["ann", "bob", "role:legal"]), max_size=2, unique=True).map(tuple)
blobs = st.none() | st.binary(max_size=3)
payloads = st.dictionaries(st.sampled_from(["k", "ö"]), st.none() | st.integers() | st.text())
offsets = st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1])
"""How far off the revision is that a row was read at: seldom at all."""

runs = st.builds(
    Run,
    run_id=names,
    workflow=st.sampled_from(["article", "memo"]),
    status=st.sampled_from(RunStatus),
    created_at=instants,
    updated_at=instants,
    tags=tags,
    lease_until=maybe,
    started_by=st.none() | names,
    start=blobs,
    snapshot=blobs,
    result=blobs,
    error=st.none() | payloads,
)

claims = st.none() | st.builds(Claim, by=names, until=instants)


@st.composite
def requests(draw):
    asked = ReviewRequest(
        request_id=draw(names),
        title="?",
        created_at=draw(instants),
        workflow=draw(st.sampled_from(["article", "memo"])),
        gate=draw(st.sampled_from(["legal", "editor"])),
        priority=draw(st.sampled_from(PRIORITIES)),
        tags=draw(tags),
        policy=ReviewPolicy(reviewers=draw(people)),
    )
    record = open_record(asked)
    if draw(st.booleans()):
        record = close(record, Command.WITHDRAW, at=T0, reason="done")
    return StoredRequest(
        run_id=draw(names), record=record, next_due=draw(maybe), claim=draw(claims)
    )


messages = st.builds(
    Message,
    message_id=names,
    run_id=names,
    request_id=names,
    kind=st.sampled_from(["answer", "deadline", "withdraw"]),
    payload=payloads,
)
effects = st.builds(
    Effect,
    key=names,
    run_id=names,
    status=st.sampled_from(["begun", "done"]),
    owner=names,
    at=instants,
    result=blobs,
)
grants = st.builds(
    lambda grant_id, revoked_at, used, request_id, **values: StoredGrant(
        grant=Grant(
            grant_id=grant_id,
            workflow="w",
            agent="",
            version="1",
            arguments={},
            terms=GrantTerms(uses=2, until=values.pop("until")),
            used=used,
            revoked_at=revoked_at,
            request_id=request_id,
            **values,
        )
    ),
    grant_id=names,
    revoked_at=maybe,
    used=st.integers(0, 2),
    request_id=st.none() | names,
    tool=names,
    owner=names,
    granted_at=instants,
    until=maybe,
)
notices = st.builds(
    Notice,
    notice_id=names,
    kind=st.sampled_from(NoticeKind),
    run_id=names,
    request_id=st.none() | names,
    at=instants,
    due=instants,
    payload=payloads,
    attempts=st.integers(0, 3),
)
entries = st.builds(
    AuditEntry,
    kind=st.sampled_from(AuditKind),
    run_id=names,
    at=instants,
    request_id=st.none() | names,
    details=payloads,
)
progress = st.builds(Progress, run_id=names, at=instants, data=payloads)


def some(rows, *, key=None):
    return st.lists(rows, max_size=2, unique_by=key).map(tuple)


commits = st.builds(
    Commit,
    run=st.none() | runs,
    requests=some(requests(), key=lambda request: request.request_id),
    messages=some(messages, key=lambda message: message.message_id),
    applied=some(names),
    effects=some(effects, key=lambda effect: effect.key),
    grants=some(grants, key=lambda grant: grant.grant_id),
    notices=some(notices, key=lambda notice: notice.notice_id),
    told=some(names),
    audit=some(entries),
    progress=some(progress),
)


class Model:
    """What a store holds, as plainly as can be."""

    def __init__(self):
        self.runs, self.requests, self.effects, self.grants = {}, {}, {}, {}
        self.messages, self.notices = [], []
        self.audit = defaultdict(list)
        self.feed = []

    def commit(self, commit):
        """Return the model after a commit; None: it is a conflict."""
        after = copy.deepcopy(self)
        after.messages = [m for m in after.messages if m.message_id not in commit.applied]
        after.notices = [n for n in after.notices if n.notice_id not in commit.told]
        try:
            after.put(commit)
        except AssertionError:
            return None
        return after

    def put(self, commit):
        if (run := commit.run) is not None:
            known = self.runs.get(run.run_id)
            assert run.revision == (known.revision if known else 0)
            for part in ("start", "snapshot", "result"):
                if known and getattr(run, part) is None:
                    run = replace(run, **{part: getattr(known, part)})
            self.runs[run.run_id] = replace(run, revision=run.revision + 1)
        for rows, held, key in (
            (commit.requests, self.requests, "request_id"),
            (commit.effects, self.effects, "key"),
            (commit.grants, self.grants, "grant_id"),
        ):
            for row in rows:
                known = held.get(getattr(row, key))
                assert row.revision == (known.revision if known else 0)
                held[getattr(row, key)] = replace(row, revision=row.revision + 1)
        for message in commit.messages:
            assert message.message_id not in [m.message_id for m in self.messages]
            self.messages.append(message)
        for notice in commit.notices:
            ids = [n.notice_id for n in self.notices]
            stored = replace(notice, revision=notice.revision + 1)
            if notice.notice_id in ids:
                place = ids.index(notice.notice_id)
                assert notice.revision == self.notices[place].revision
                self.notices[place] = stored
            else:
                assert notice.revision == 0
                self.notices.append(stored)
        self.tell(commit)

    def tell(self, commit):
        for entry in commit.audit:
            self.audit[entry.run_id].append(entry)
            if _is_told(entry):
                self.feed.append((entry.kind, entry.run_id, entry.request_id, entry.at, {}))
        for said in commit.progress:
            self.feed.append(("progress", said.run_id, None, said.at, said.data))


Place: TypeAlias = AbstractContextManager[Callable[[], Store]]
"""Gives, for one example, what opens its store."""


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store and to a model, and asks both the same."""

    def __init__(
        self, place: AbstractContextManager[Callable[[], Store]], *, lasting: bool
    ) -> None:
        super().__init__()
        self.lasting = lasting
        self.cleanup = ExitStack()
        self.open_store = self.cleanup.enter_context(place)
        self.runner = self.cleanup.enter_context(asyncio.Runner())
        self.store = self.open_store()
        self.model = Model()

    def ask(self, awaitable):
        return self.runner.run(awaitable)

    def teardown(self):
        self.ask(self.store.close())
        self.cleanup.close()

    # ----------------------------------------------------------------------- changes

    @rule(commit=commits, off=st.lists(offsets, min_size=10, max_size=10))
    def commit(self, commit, off):
        off = iter(off)
        held_notices = {
            notice.notice_id: notice
            for notice in self.model.notices
            if notice.notice_id not in commit.told
        }

        def as_read(row, held, key):
            known = held.get(getattr(row, key))
            return replace(row, revision=max(0, (known.revision if known else 0) + next(off)))

        model = self.model
        commit = replace(
            commit,
            run=commit.run and as_read(commit.run, model.runs, "run_id"),
            requests=tuple(as_read(r, model.requests, "request_id") for r in commit.requests),
            effects=tuple(as_read(e, model.effects, "key") for e in commit.effects),
            grants=tuple(as_read(g, model.grants, "grant_id") for g in commit.grants),
            notices=tuple(as_read(n, held_notices, "notice_id") for n in commit.notices),
        )
        after = model.commit(commit)
        if after is None:
            with pytest.raises(Conflict):
                self.ask(self.store.commit(commit))
        else:
            self.ask(self.store.commit(commit))
            self.model = after

    @precondition(lambda self: self.lasting)
    @rule()
    def reopen(self):
        self.ask(self.store.close())
        self.store = self.open_store()

    # ----------------------------------------------------------------------- questions

    @rule(
        of=st.fixed_dictionaries(
            {},
            optional={
                "run_id": names,
                "workflow": st.sampled_from(["article", "memo"]),
                "gate": st.sampled_from(["legal", "editor"]),
                "tag": st.sampled_from(["x", "y"]),
                "priority": st.sampled_from(PRIORITIES),
                "created_before": instants,
                "due_before": instants,
            },
        ),
        who=st.none() | people,
        is_open=st.sampled_from([True, False, None]),
        limit=st.integers(1, 3),
    )
    def list_requests(self, of, who, is_open, limit):
        is_open = True if who is not None else is_open
        query = RequestQuery(entries=who, open=is_open, limit=limit, **of)
        wanted = [r for r in self.model.requests.values() if _fits(r, query)]
        wanted.sort(key=_order)
        found = []
        while True:
            page = self.ask(self.store.requests(query))
            found += page
            if page.after is None:
                break
            query = replace(query, after=page.after)
        assert found == wanted

    @rule(
        workflow=st.none() | st.sampled_from(["article", "memo"]),
        status=st.none() | st.sampled_from(RunStatus),
        tag=st.none() | st.sampled_from(["x", "y"]),
        started_by=st.none() | names,
        limit=st.integers(1, 3),
    )
    def list_runs(self, workflow, status, tag, started_by, limit):
        wanted = sorted(
            (
                run
                for run in self.model.runs.values()
                if workflow in (None, run.workflow)
                and status in (None, run.status)
                and (tag is None or tag in run.tags)
                and started_by in (None, run.started_by)
            ),
            key=lambda run: (-run.created_at.timestamp(), run.run_id),
        )
        query = RunQuery(
            workflow=workflow, status=status, tag=tag, started_by=started_by, limit=limit
        )
        found = []
        while True:
            page = self.ask(self.store.runs(query))
            found += page
            if page.after is None:
                break
            query = replace(query, after=page.after)
        assert found == [replace(run, start=None, snapshot=None, result=None) for run in wanted]

    @rule(now=instants, limit=st.integers(1, 4))
    def queues(self, now, limit):
        model = self.model
        told = {message.run_id for message in model.messages}
        ready = sorted(
            (run.updated_at, run.run_id)
            for run in model.runs.values()
            if (run.status == "waiting" and run.run_id in told)
            or (run.status == "running" and (run.lease_until is None or run.lease_until <= now))
        )
        found = self.ask(self.store.ready(now, limit=limit))
        assert list(found) == [name for _, name in ready][:limit]
        due = sorted(
            (request.next_due, request.request_id)
            for request in model.requests.values()
            if request.record.status == "open" and request.next_due and request.next_due <= now
        )
        wanted = [model.requests[name] for _, name in due][:limit]
        assert list(self.ask(self.store.due(now, limit=limit))) == wanted
        notices = sorted((n for n in model.notices if n.due <= now), key=lambda n: n.due)
        assert list(self.ask(self.store.notices(now, limit=limit))) == notices[:limit]

    @rule(run_id=st.none() | names, limit=st.integers(1, 5))
    def follow(self, run_id, limit):
        wanted = [event for event in self.model.feed if run_id in (None, event[1])]
        found, after = [], None
        while events := self.ask(self.store.feed(run_id=run_id, after=after, limit=limit)):
            found += [(e.kind, e.run_id, e.request_id, e.at, e.data) for e in events]
            after = events[-1].cursor
        assert found == wanted
        assert not self.ask(self.store.feed(after=self.ask(self.store.feed_end())))

    @rule(run_id=st.none() | names, status=st.sampled_from([None, "begun", "done"]))
    def list_effects(self, run_id, status):
        wanted = sorted(
            (
                effect
                for effect in self.model.effects.values()
                if run_id in (None, effect.run_id) and status in (None, effect.status)
            ),
            key=lambda effect: (effect.at, effect.key),
        )
        assert list(self.ask(self.store.effects(run_id=run_id, status=status))) == wanted

    @rule(
        tool=st.none() | names,
        owner=st.none() | names,
        request_id=st.none() | names,
        active_at=maybe,
        limit=st.integers(1, 3),
    )
    def list_grants(self, limit, **of):
        query = GrantQuery(limit=limit, **of)
        wanted = [row for row in self.model.grants.values() if _grant_fits(row.grant, query)]
        wanted.sort(key=lambda row: (-row.grant.granted_at.timestamp(), row.grant_id))
        found = []
        while True:
            page = self.ask(self.store.grants(query))
            found += page
            if page.after is None:
                break
            query = replace(query, after=page.after)
        assert found == wanted

    @invariant()
    def every_row_is_as_it_should_be(self):
        model, store = self.model, self.store
        for name in ("a", "B", "ä"):
            assert self.ask(store.run(name, whole=True)) == model.runs.get(name)
            assert self.ask(store.request(name)) == model.requests.get(name)
            assert self.ask(store.effect(name)) == model.effects.get(name)
            assert self.ask(store.grant(name)) == model.grants.get(name)
            waiting = [message for message in model.messages if message.run_id == name]
            assert list(self.ask(store.messages(name))) == waiting
            rows = self.ask(store.audit(name))
            assert [row.entry for row in rows] == model.audit[name]
            assert [row.number for row in rows] == [*range(1, len(rows) + 1)]
            assert [row.previous for row in rows] == ["", *(row.hash for row in rows)][: len(rows)]
            assert all(row.hash == row.actual_hash() for row in rows)


def _is_told(entry):
    if entry.kind in ("started", "retried", "finished", "failed", "cancelled"):
        return True
    return entry.request_id is not None and not entry.kind.startswith(("effect", "grant"))


def _fits(request, query):
    record, asked = request.record, request.record.request
    named = set(record.policy.reviewers)
    return (
        query.open in (None, record.status == "open")
        and (query.entries is None or not named or bool(named & set(query.entries)))
        and query.run_id in (None, request.run_id)
        and query.workflow in (None, asked.workflow)
        and query.gate in (None, asked.gate)
        and (query.tag is None or query.tag in asked.tags)
        and query.priority in (None, asked.priority)
        and (query.created_before is None or asked.created_at < query.created_before)
        and (
            query.due_before is None
            or (request.next_due is not None and request.next_due < query.due_before)
        )
    )


def _grant_fits(grant, query):
    at, until = query.active_at, grant.terms.until
    active = grant.revoked_at is None and grant.used < 2
    return (
        query.tool in (None, grant.tool)
        and query.owner in (None, grant.owner)
        and query.request_id in (None, grant.request_id)
        and (at is None or (active and (until is None or at < until)))
    )


def _order(request):
    asked = request.record.request
    return PRIORITIES.index(asked.priority), asked.created_at, asked.request_id


def _check(place: Callable[[], Place], *, lasting: bool, examples: int) -> None:
    run_state_machine_as_test(
        lambda: StoreMachine(place(), lasting=lasting),
        settings=settings(max_examples=examples, stateful_step_count=20, deadline=None),
    )


def test_memory_store_tells_the_same_as_the_model() -> None:
    _check(lambda: nullcontext(MemoryStore), lasting=False, examples=40)


def test_sqlite_tells_the_same_as_the_model(tmp_path: Path) -> None:
    numbers = count()

    def place() -> Place:
        path = tmp_path / f"{next(numbers)}.db"
        return nullcontext(lambda: SqlStore(path))

    _check(place, lasting=True, examples=25)


def test_postgres_tells_the_same_as_the_model(postgres_server: str) -> None:
    @contextmanager
    def place() -> Iterator[Callable[[], Store]]:
        with schema_in(postgres_server) as url:
            yield lambda: SqlStore(url, connections=2)

    _check(place, lasting=True, examples=10)
