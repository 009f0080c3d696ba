"""Standing approvals of calls to tools: what they cover, and what is left of them.

Pure values and functions; where they are kept is up to a store.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import AwareDatetime, Field

from llama_index_hitl.models import (
    FiniteDecimal,
    GrantTerms,
    Identifier,
    JsonObject,
    Line,
    Text,
    Value,
)

GrantState: TypeAlias = Literal["active", "expired", "used_up", "revoked"]


class GuardedCall(Value):
    """A call of a guarded tool that is about to be made.

    Attributes:
        tool: Name of the tool.
        version: Digest of the tool's description and schema.
        agent: Name of the agent that calls it; empty where it is called without one.
        arguments: The arguments, validated by the tool's schema, as JSON.
    """

    tool: Line
    version: Line
    agent: Line = ""
    arguments: JsonObject


class Grant(Value):
    """A standing approval.

    Attributes:
        grant_id: Unique over all runs.
        workflow: Name of the workflow that it holds in, as the runner knows it.
        agent: The agent that it holds for; empty: calls without one.
        tool: The tool.
        version: Digest of the tool's description and schema when it was given.
        terms: What it covers.
        arguments: The arguments that were approved when it was given.
        owner: Id of the person who gave it.
        run_id: The run in which it was given.
        request_id: The request whose approval it was given with.
        granted_at: When.
        used: How many calls it has covered.
        spent: What those add up to, for each argument of `terms.in_total`.
        revoked_at: When it was revoked; None: it was not.
        revoked_by: Id of the person who revoked it.
        revoked_because: Why, in their words.
    """

    grant_id: Identifier
    workflow: Line
    agent: Line
    tool: Line
    version: Line
    terms: GrantTerms
    arguments: JsonObject
    owner: Identifier
    run_id: Line
    request_id: Identifier
    granted_at: AwareDatetime
    used: int = Field(default=0, ge=0)
    spent: dict[str, FiniteDecimal] = Field(default_factory=dict)
    revoked_at: AwareDatetime | None = None
    revoked_by: Identifier | None = None
    revoked_because: Text = ""
