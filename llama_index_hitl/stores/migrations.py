"""How the schema of `SqlStore` came to be: numbered steps, each applied once, in one transaction.

A database is always brought up to date by the same steps, a new one by all of them. A step that
was released is never changed: a change of the schema is a new step, and a change in `_tables`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Migration:
    """One step.

    Attributes:
        number: Its place, from 1, without gaps.
        name: What it does, in a few words; stored for people.
        statements: The SQL. `{key}` stands for the type of text that sorts by code point, `{bytes}`
            for that of bytes, `{sequence}` for that of a primary key that counts up,
            `{clustered}` for what keeps a table in the order of its key, and `{transaction}` for
            the number of the transaction that writes.
    """

    number: int
    name: str
    statements: tuple[str, ...]

    def sql(self, words: Mapping[str, str]) -> Sequence[str]:
        """Return the SQL for one kind of database, which gives its own words."""
        return [statement.format_map(words) for statement in self.statements]


VERSIONS_TABLE = """
CREATE TABLE IF NOT EXISTS hitl_schema (
    number INTEGER NOT NULL PRIMARY KEY,
    name TEXT NOT NULL
)
"""
"""Made before the first step; it holds the steps that were applied."""

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "tables",
        (
            """
            CREATE TABLE hitl_runs (
                run_id {key} NOT NULL PRIMARY KEY,
                workflow {key} NOT NULL,
                status {key} NOT NULL,
                created_at BIGINT NOT NULL,
                updated_at BIGINT NOT NULL,
                revision BIGINT NOT NULL,
                version TEXT,
                fingerprint TEXT NOT NULL,
                tags TEXT NOT NULL,
                lease_owner TEXT,
                lease_until BIGINT,
                attempts BIGINT NOT NULL,
                error {bytes}
            )
            """,
            """
            CREATE TABLE hitl_run_parts (
                run_id {key} NOT NULL,
                part {key} NOT NULL,
                content {bytes} NOT NULL,
                PRIMARY KEY (run_id, part)
            )
            """,
            """
            CREATE TABLE hitl_run_tags (
                tag {key} NOT NULL,
                created_at BIGINT NOT NULL,
                run_id {key} NOT NULL,
                PRIMARY KEY (tag, created_at, run_id)
            ) {clustered}
            """,
            """
            CREATE TABLE hitl_requests (
                request_id {key} NOT NULL PRIMARY KEY,
                run_id {key} NOT NULL,
                revision BIGINT NOT NULL,
                next_due BIGINT,
                is_open SMALLINT NOT NULL,
                rank SMALLINT NOT NULL,
                created_at BIGINT NOT NULL,
                workflow {key} NOT NULL,
                gate {key} NOT NULL,
                entries TEXT NOT NULL,
                tags TEXT NOT NULL,
                record {bytes} NOT NULL
            )
            """,
            """
            CREATE TABLE hitl_audience (
                entry {key} NOT NULL,
                rank SMALLINT NOT NULL,
                created_at BIGINT NOT NULL,
                request_id {key} NOT NULL,
                PRIMARY KEY (entry, rank, created_at, request_id)
            ) {clustered}
            """,
            """
            CREATE TABLE hitl_request_tags (
                tag {key} NOT NULL,
                is_open SMALLINT NOT NULL,
                rank SMALLINT NOT NULL,
                created_at BIGINT NOT NULL,
                request_id {key} NOT NULL,
                PRIMARY KEY (tag, is_open, rank, created_at, request_id)
            ) {clustered}
            """,
            """
            CREATE TABLE hitl_messages (
                sequence {sequence} PRIMARY KEY,
                message_id {key} NOT NULL,
                run_id {key} NOT NULL,
                request_id TEXT NOT NULL,
                kind TEXT NOT NULL,
                payload {bytes} NOT NULL
            )
            """,
            """
            CREATE TABLE hitl_effects (
                key {key} NOT NULL PRIMARY KEY,
                run_id {key} NOT NULL,
                status {key} NOT NULL,
                owner TEXT NOT NULL,
                at BIGINT NOT NULL,
                revision BIGINT NOT NULL,
                result {bytes}
            )
            """,
            """
            CREATE TABLE hitl_notices (
                sequence {sequence} PRIMARY KEY,
                notice_id {key} NOT NULL,
                kind TEXT NOT NULL,
                run_id {key} NOT NULL,
                request_id TEXT,
                at BIGINT NOT NULL,
                due BIGINT NOT NULL,
                attempts BIGINT NOT NULL,
                revision BIGINT NOT NULL,
                payload {bytes} NOT NULL
            )
            """,
            """
            CREATE TABLE hitl_audit (
                run_id {key} NOT NULL,
                number BIGINT NOT NULL,
                previous TEXT NOT NULL,
                hash TEXT NOT NULL,
                entry {bytes} NOT NULL,
                PRIMARY KEY (run_id, number)
            ) {clustered}
            """,
        ),
    ),
    Migration(
        2,
        "indexes",
        (
            "CREATE INDEX hitl_runs_by_age ON hitl_runs (created_at, run_id)",
            "CREATE INDEX hitl_runs_by_status ON hitl_runs (status, created_at, run_id)",
            "CREATE INDEX hitl_requests_by_place"
            " ON hitl_requests (is_open, rank, created_at, request_id)",
            "CREATE INDEX hitl_requests_by_run"
            " ON hitl_requests (run_id, is_open, rank, created_at, request_id)",
            "CREATE INDEX hitl_requests_by_workflow"
            " ON hitl_requests (workflow, is_open, rank, created_at, request_id)",
            "CREATE INDEX hitl_requests_by_due"
            " ON hitl_requests (is_open, next_due, request_id) WHERE next_due IS NOT NULL",
            "CREATE UNIQUE INDEX hitl_messages_by_id ON hitl_messages (message_id)",
            "CREATE INDEX hitl_messages_by_run ON hitl_messages (run_id, sequence)",
            "CREATE INDEX hitl_effects_by_run ON hitl_effects (run_id, at, key)",
            "CREATE INDEX hitl_effects_begun ON hitl_effects (at, key) WHERE status = 'begun'",
            "CREATE UNIQUE INDEX hitl_notices_by_id ON hitl_notices (notice_id)",
            "CREATE INDEX hitl_notices_by_due ON hitl_notices (due, sequence)",
        ),
    ),
    Migration(
        3,
        "standing approvals",
        (
            """
            CREATE TABLE hitl_grants (
                grant_id {key} NOT NULL PRIMARY KEY,
                revision BIGINT NOT NULL,
                workflow {key} NOT NULL,
                agent {key} NOT NULL,
                tool {key} NOT NULL,
                owner {key} NOT NULL,
                request_id {key},
                granted_at BIGINT NOT NULL,
                is_over SMALLINT NOT NULL,
                until BIGINT,
                content {bytes} NOT NULL
            )
            """,
            "CREATE INDEX hitl_grants_by_age ON hitl_grants (granted_at, grant_id)",
            "CREATE INDEX hitl_grants_by_tool"
            " ON hitl_grants (workflow, tool, is_over, granted_at, grant_id)",
            "CREATE INDEX hitl_grants_by_owner ON hitl_grants (owner, granted_at, grant_id)",
            "CREATE INDEX hitl_grants_by_request ON hitl_grants (request_id)",
        ),
    ),
    Migration(
        4,
        "claims, who started a run, feed",
        (
            "ALTER TABLE hitl_requests ADD COLUMN claimed_by TEXT",
            "ALTER TABLE hitl_requests ADD COLUMN claimed_until BIGINT",
            "ALTER TABLE hitl_runs ADD COLUMN started_by {key}",
            "CREATE INDEX hitl_runs_by_starter ON hitl_runs (started_by, created_at, run_id)",
            """
            CREATE TABLE hitl_feed (
                sequence {sequence} PRIMARY KEY,
                xid BIGINT NOT NULL DEFAULT {transaction},
                run_id {key} NOT NULL,
                kind TEXT NOT NULL,
                request_id TEXT,
                at BIGINT NOT NULL,
                content {bytes}
            )
            """,
            "CREATE INDEX hitl_feed_by_place ON hitl_feed (xid, sequence)",
            "CREATE INDEX hitl_feed_by_run ON hitl_feed (run_id, xid, sequence)",
        ),
    ),
)
"""Every step, in order."""

LATEST = MIGRATIONS[-1].number
"""The version of the schema that this package reads and writes."""
