"""Standing approvals, for the people who look after them: listed, given, revoked."""

from __future__ import annotations

import secrets
from dataclasses import replace

from pydantic import ValidationError

from llama_index_hitl import _entries
from llama_index_hitl._outbox import Outbox, persistently
from llama_index_hitl.authorizers import Action, Authorizer
from llama_index_hitl.clock import Clock
from llama_index_hitl.errors import FieldProblem, InvalidGrant, UnknownGrant
from llama_index_hitl.forms import problems_of
from llama_index_hitl.grants import Grant, GrantState, problems_of_terms, revoked, state_of
from llama_index_hitl.models import GrantTerms, JsonObject, Reviewer
from llama_index_hitl.stores.protocol import Commit, GrantQuery, Page, Store, StoredGrant


class GrantDesk:
    """The standing approvals in a store. `Runner.grants` is one.

    What a method did is stored when it returns.

    Args:
        store: Where they are.
        outbox: Through which changes of them are stored.
        authorizer: Vouches for people.
        clock: Where the time comes from.

    Example:
        >>> from llama_index_hitl.models import GrantTerms
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def main():
        ...     grants = Runner(MemoryStore()).grants
        ...     terms = GrantTerms(at_most={"amount": 100})
        ...     given = await grants.give(
        ...         workflow="bank",
        ...         tool="transfer",
        ...         version="3f1a",
        ...         terms=terms,
        ...         arguments={"amount": 40},
        ...         by="alice",
        ...     )
        ...     revoked = await grants.revoke(given.grant_id, by="alice", reason="misused")
        ...     return grants.state_of(given), grants.state_of(revoked)
        >>> asyncio.run(main())
        ('active', 'revoked')
    """

    def __init__(
        self, store: Store, outbox: Outbox, *, authorizer: Authorizer, clock: Clock
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._authorizer = authorizer
        self._clock = clock

    async def list(
        self,
        *,
        active: bool = True,
        workflow: str | None = None,
        agent: str | None = None,
        tool: str | None = None,
        owner: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[Grant]:
        """Return standing approvals, the newest first.

        Args:
            active: Only those that cover something now; False: also those that are over.
            workflow: That hold in this workflow only, as the runner knows it.
            agent: That hold for this agent only; empty: for calls without one.
            tool: For this tool only.
            owner: Given by this person only.
            limit: How many at most, from 1.
            after: The `after` of the page before.
        """
        page = await self._store.grants(
            GrantQuery(
                workflow=workflow,
                agent=agent,
                tool=tool,
                owner=owner,
                active_at=self._clock() if active else None,
                limit=limit,
                after=after,
            )
        )
        return Page(tuple(stored.grant for stored in page), page.after)

    async def get(self, grant_id: str) -> Grant:
        """Return a standing approval, whether or not it covers anything.

        Args:
            grant_id: The id.

        Raises:
            UnknownGrant: There is none with that id.
        """
        return (await self._stored(grant_id)).grant

    def state_of(self, grant: Grant) -> GrantState:
        """Return how a standing approval stands now.

        Args:
            grant: The standing approval.
        """
        return state_of(grant, self._clock())

    async def give(
        self,
        *,
        workflow: str,
        tool: str,
        version: str,
        terms: GrantTerms,
        by: Reviewer | str,
        agent: str = "",
        arguments: JsonObject | None = None,
    ) -> Grant:
        """Give a standing approval without a request: as a rule that one person answers for.

        It is not looked at whether there is such a workflow, agent or tool: what is misspelt covers
        nothing. Tools that are marked as never to be granted do not look for it.

        Args:
            workflow: The workflow that it is to hold in, as the runner knows it.
            tool: Name of the tool.
            version: Digest of the tool's description and schema, as `GrantOffer.version`.
            terms: What it covers.
            by: Who gives it.
            agent: The agent that it is to hold for; empty: calls without one.
            arguments: The arguments that `same` means; those that limits name must be in them.

        Returns:
            It, as it is stored. Its audit trail stands under its own id, for it has no run.

        Raises:
            InvalidGrant: It cannot be given like this.
            NotAllowed: The authorizer does not let this person.
        """
        person = await self._vouched(by, Action.GRANT, "")
        now = self._clock()
        problems = [
            *(() if person.kind == "human" else (FieldProblem("by", "only a person gives it"),)),
            *problems_of_terms(terms, arguments, now),
        ]
        if problems:
            raise InvalidGrant(problems)
        try:
            grant = Grant(
                grant_id=f"grant-{secrets.token_hex(8)}",
                workflow=workflow,
                agent=agent,
                tool=tool,
                version=version,
                terms=terms,
                arguments={} if arguments is None else arguments,
                owner=person.id,
                owner_roles=person.roles,
                granted_at=now,
            )
        except ValidationError as error:
            raise InvalidGrant(problems_of(error)) from None
        await self._outbox.commit(
            Commit(grants=(StoredGrant(grant=grant),), audit=(_entries.granted(grant),))
        )
        return grant

    async def revoke(self, grant_id: str, *, by: Reviewer | str, reason: str = "") -> Grant:
        """Revoke a standing approval: no use that begins after this is covered by it.

        What it has covered stays as it is. Revoking it again changes nothing, the first time
        counts.

        Args:
            grant_id: The id.
            by: Who revokes it.
            reason: Why, for people.

        Returns:
            It, revoked.

        Raises:
            UnknownGrant: There is none with that id.
            NotAllowed: The authorizer does not let this person.
        """
        known = await self._stored(grant_id)
        person = await self._vouched(by, Action.REVOKE, known.grant.run_id)

        async def attempt() -> Grant:
            stored = await self._stored(grant_id)
            if stored.grant.revoked_at is not None:
                return stored.grant
            now = self._clock()
            grant = revoked(stored.grant, by=person.id, at=now, reason=reason)
            await self._outbox.commit(
                Commit(
                    grants=(replace(stored, grant=grant),),
                    audit=(_entries.grant_revoked(grant, now),),
                )
            )
            return grant

        return await persistently(attempt)

    async def _stored(self, grant_id: str) -> StoredGrant:
        found = await self._store.grant(grant_id)
        if found is None:
            raise UnknownGrant(grant_id)
        return found

    async def _vouched(self, by: Reviewer | str, action: Action, run_id: str) -> Reviewer:
        person = Reviewer(id=by) if isinstance(by, str) else by
        return await self._authorizer.authorize(person, action, run_id=run_id, request=None)
