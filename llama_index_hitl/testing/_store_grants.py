"""Tests of a store: standing approvals, their values, lists and pages."""

# ruff: noqa: S101 - these are tests, and they assert.

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import pytest

from llama_index_hitl.errors import Conflict, StoreError
from llama_index_hitl.models import GrantTerms
from llama_index_hitl.stores.protocol import Commit, GrantQuery, RunQuery, Store, StoredGrant
from llama_index_hitl.testing._store_rows import LATER, NOON, a_grant, a_run
from llama_index_hitl.testing._store_values import INSTANTS, JSON, TEXTS

_SECOND = timedelta(seconds=1)


def some_grants() -> list[StoredGrant]:
    """Return standing approvals that differ in everything that a query looks at."""
    return [
        a_grant(
            f"{'aBc'[number % 3]}{number}",
            workflow=("bank", "Bank")[number % 2],
            agent=("teller", "", "clerk")[number % 3],
            tool=("transfer", "withdraw")[number % 4 // 2],
            owner=("ann", "bob")[number % 5 // 3],
            request_id=None if number % 7 == 0 else f"request {number % 4}",
            granted_at=NOON + _SECOND * (number % 4),
            terms=GrantTerms(
                until=None if number % 3 else NOON + _SECOND * (number % 5 + 5),
                uses=number % 4 + 1 if number % 6 < 3 else None,
            ),
            used=number % 3,
            revoked_at=NOON if number % 8 == 0 else None,
        )
        for number in range(40)
    ]


def _fits(stored: StoredGrant, query: GrantQuery) -> bool:
    grant = stored.grant
    terms = grant.terms
    over = grant.revoked_at is not None or (terms.uses is not None and grant.used >= terms.uses)
    return (
        query.workflow in (None, grant.workflow)
        and query.agent in (None, grant.agent)
        and query.tool in (None, grant.tool)
        and query.owner in (None, grant.owner)
        and query.request_id in (None, grant.request_id)
        and (
            query.active_at is None
            or (not over and (terms.until is None or query.active_at < terms.until))
        )
    )


def _about(name: str, word: str) -> GrantQuery:
    given: dict[str, Any] = {name: word}
    return GrantQuery(**given)


async def _all_pages(store: Store, query: GrantQuery) -> list[StoredGrant]:
    found: list[StoredGrant] = []
    while True:
        page = await store.grants(query)
        assert len(page) <= query.limit
        found += page
        if page.after is None:
            return found
        query = replace(query, after=page.after)


class GrantTests:
    """Standing approvals come back as they were, and are found by what they are about."""

    async def test_a_grant_comes_back_as_it_was(self, store: Store, other: Store) -> None:
        stored = a_grant(
            terms=GrantTerms(
                arguments="same",
                at_most={"amount": Decimal("1E+400"), "a.b": Decimal("-0.10")},
                in_total={"amount": Decimal("3.30")},
                until=LATER,
                uses=3,
            ),
            arguments=JSON,
            used=2,
            spent={"amount": Decimal("1.10")},
            revoked_at=LATER,
            revoked_by="bob",
            revoked_because="No more. 🦙",
        )
        await store.commit(Commit(grants=(stored, a_grant("plain", run_id="", request_id=None))))
        assert await other.grant("grant") == replace(stored, revision=1)
        plain = await other.grant("plain")
        assert plain is not None
        assert (plain.grant.run_id, plain.grant.request_id) == ("", None)
        found = await store.grant("grant")
        assert found is not None
        assert str(found.grant.terms.at_most["amount"]) == "1E+400"
        assert str(found.grant.terms.in_total["amount"]) == "3.30"

    async def test_a_grant_that_is_not_there_is_none(self, store: Store) -> None:
        assert await store.grant("x") is None
        assert len(await store.grants(GrantQuery(tool="x"))) == 0

    @pytest.mark.parametrize("at", INSTANTS.values(), ids=INSTANTS)
    async def test_instants_of_a_grant_come_back(self, store: Store, at: datetime) -> None:
        await store.commit(
            Commit(grants=(a_grant(granted_at=at, terms=GrantTerms(until=at), revoked_at=at),))
        )
        found = await store.grant("grant")
        assert found is not None
        assert (found.grant.granted_at, found.grant.terms.until, found.grant.revoked_at) == (
            at,
        ) * 3

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_grants_are_found_by_exactly_their_text(self, store: Store, text: str) -> None:
        word = text.strip()[:200]  # as an id can be
        await store.commit(Commit(grants=(a_grant("other"),)))
        names = ("workflow", "agent", "tool", "owner", "request_id")
        about: dict[str, Any] = dict.fromkeys(names, word)
        try:
            named = a_grant(word, **about)
            await store.commit(Commit(grants=(named,)))
        except Conflict:
            raise
        except ValueError:  # no grant can hold it
            return
        except StoreError:
            assert text in (TEXTS["NUL"], TEXTS["NUL alone"])
            assert await store.grant(word) is None
            for name in about:
                assert len(await store.grants(_about(name, word))) == 0
            return
        expected = replace(named, revision=1)
        assert await store.grant(word) == expected
        for name in about:
            assert list(await store.grants(_about(name, word))) == [expected]

    async def test_what_is_stored_of_a_grant_cannot_be_changed_from_outside(
        self, store: Store
    ) -> None:
        given: dict[str, Any] = {"a": [1]}
        stored = a_grant(arguments=given)
        await store.commit(Commit(grants=(stored,)))
        given["a"].append(2)
        stored.grant.spent["x"] = Decimal(1)
        for _ in range(2):
            found = await store.grant("grant")
            assert found is not None
            assert (found.grant.arguments, found.grant.spent) == ({"a": [1]}, {})
            found.grant.arguments["b"] = 1
            found.grant.spent["x"] = Decimal(1)

    async def test_grants_are_listed_newest_first_then_by_id(self, store: Store) -> None:
        wanted = [
            a_grant("b", granted_at=LATER),
            a_grant("B", granted_at=NOON + timedelta(microseconds=1)),
            a_grant("A", granted_at=NOON),
            a_grant("a", granted_at=NOON),
            a_grant("ä", granted_at=NOON),
            a_grant("c", granted_at=NOON - _SECOND),
        ]
        await store.commit(Commit(grants=tuple(reversed(wanted))))
        for limit in (1, 2, 6, 50):
            found = await _all_pages(store, GrantQuery(limit=limit))
            assert found == [replace(grant, revision=1) for grant in wanted]

    async def test_every_filter_of_grants_narrows_with_every_other(self, store: Store) -> None:
        grants = some_grants()
        await store.commit(Commit(grants=tuple(grants)))
        choices = product(
            (None, "bank"),
            (None, "", "clerk"),
            (None, "transfer", "none"),
            (None, "ann"),
            (None, "request 1"),
            (None, NOON + _SECOND * 6, NOON + _SECOND * 7),
        )
        for workflow, agent, tool, owner, request_id, active_at in choices:
            query = GrantQuery(
                workflow=workflow,
                agent=agent,
                tool=tool,
                owner=owner,
                request_id=request_id,
                active_at=active_at,
                limit=7,
            )
            wanted = [grant for grant in grants if _fits(grant, query)]
            wanted.sort(key=lambda grant: grant.grant_id)
            wanted.sort(key=lambda grant: grant.grant.granted_at, reverse=True)
            found = await _all_pages(store, query)
            assert found == [replace(grant, revision=1) for grant in wanted]

    async def test_a_grant_is_found_by_what_it_is_now(self, store: Store) -> None:
        active = GrantQuery(active_at=NOON)
        await store.commit(Commit(grants=(a_grant(terms=GrantTerms(uses=1)),)))
        assert len(await store.grants(active)) == 1
        await store.commit(Commit(grants=(a_grant(revision=1, terms=GrantTerms(uses=1), used=1),)))
        assert len(await store.grants(active)) == 0
        await store.commit(Commit(grants=(a_grant("b", terms=GrantTerms(until=NOON + _SECOND)),)))
        assert len(await store.grants(active)) == 1
        assert len(await store.grants(GrantQuery(active_at=NOON + _SECOND))) == 0
        await store.commit(Commit(grants=(a_grant("b", revision=1, revoked_at=LATER),)))
        assert len(await store.grants(active)) == 0
        assert len(await store.grants(GrantQuery())) == 2

    @pytest.mark.parametrize("after", ["", "x", "W10=", "[]"])
    async def test_what_no_page_of_grants_ended_with_is_refused(
        self, store: Store, after: str
    ) -> None:
        with pytest.raises(StoreError) as caught:
            await store.grants(GrantQuery(after=after))
        assert isinstance(caught.value, ValueError)

    async def test_the_end_of_a_list_of_runs_is_none_of_grants(self, store: Store) -> None:
        for name in ("a", "b"):
            await store.commit(Commit(run=a_run(name), grants=(a_grant(name),)))
        runs, grants = await store.runs(RunQuery(limit=1)), await store.grants(GrantQuery(limit=1))
        with pytest.raises(StoreError):
            await store.grants(GrantQuery(after=runs.after))
        with pytest.raises(StoreError):
            await store.runs(RunQuery(after=grants.after))
