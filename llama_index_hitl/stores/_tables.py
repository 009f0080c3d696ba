"""The tables of `SqlStore` as its statements see them; `migrations` makes them.

Instants are microseconds since 1970. What is bytes is content: nothing is found by it, and it is
encrypted where the store has a cipher. What is found by an index stands in columns of its own.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

metadata = MetaData()

# Ids sort by code point everywhere, as they do in Python and SQLite, whatever the server's locale.
_Key = Text().with_variant(Text(collation="C"), "postgresql")
_Sequence = BigInteger().with_variant(Integer, "sqlite")

schema = Table(
    "hitl_schema",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
)
"""The migrations that were applied."""

runs = Table(
    "hitl_runs",
    metadata,
    Column("run_id", _Key, primary_key=True),
    Column("workflow", _Key, nullable=False),
    Column("status", _Key, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("version", Text),
    Column("fingerprint", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", BigInteger),
    Column("attempts", BigInteger, nullable=False),
    Column("error", LargeBinary),
    Column("started_by", _Key),
)
Index("hitl_runs_by_age", runs.c.created_at, runs.c.run_id)
Index("hitl_runs_by_status", runs.c.status, runs.c.created_at, runs.c.run_id)
Index("hitl_runs_by_starter", runs.c.started_by, runs.c.created_at, runs.c.run_id)

run_parts = Table(
    "hitl_run_parts",
    metadata,
    Column("run_id", _Key, primary_key=True),
    Column("part", _Key, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
"""What is large in a run, apart: taking a lease must not write a snapshot anew."""

run_tags = Table(
    "hitl_run_tags",
    metadata,
    Column("tag", _Key, primary_key=True),
    Column("created_at", BigInteger, primary_key=True, autoincrement=False),
    Column("run_id", _Key, primary_key=True),
    sqlite_with_rowid=False,
)

requests = Table(
    "hitl_requests",
    metadata,
    Column("request_id", _Key, primary_key=True),
    Column("run_id", _Key, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("next_due", BigInteger),
    Column("is_open", SmallInteger, nullable=False),
    Column("rank", SmallInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("workflow", _Key, nullable=False),
    Column("gate", _Key, nullable=False),
    Column("entries", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Column("claimed_by", Text),
    Column("claimed_until", BigInteger),
)
_PLACE = (requests.c.is_open, requests.c.rank, requests.c.created_at, requests.c.request_id)
Index("hitl_requests_by_place", *_PLACE)
Index("hitl_requests_by_run", requests.c.run_id, *_PLACE)
Index("hitl_requests_by_workflow", requests.c.workflow, *_PLACE)
_has_due = text("next_due IS NOT NULL")
Index(
    "hitl_requests_by_due",
    requests.c.is_open,
    requests.c.next_due,
    requests.c.request_id,
    sqlite_where=_has_due,
    postgresql_where=_has_due,
)

audience = Table(
    "hitl_audience",
    metadata,
    Column("entry", _Key, primary_key=True),
    Column("rank", SmallInteger, primary_key=True, autoincrement=False),
    Column("created_at", BigInteger, primary_key=True, autoincrement=False),
    Column("request_id", _Key, primary_key=True),
    sqlite_with_rowid=False,
)
"""Whom open requests are for: a row for each entry, or one for everyone."""

request_tags = Table(
    "hitl_request_tags",
    metadata,
    Column("tag", _Key, primary_key=True),
    Column("is_open", SmallInteger, primary_key=True, autoincrement=False),
    Column("rank", SmallInteger, primary_key=True, autoincrement=False),
    Column("created_at", BigInteger, primary_key=True, autoincrement=False),
    Column("request_id", _Key, primary_key=True),
    sqlite_with_rowid=False,
)

messages = Table(
    "hitl_messages",
    metadata,
    Column("sequence", _Sequence, Identity(always=True), primary_key=True),
    Column("message_id", _Key, nullable=False),
    Column("run_id", _Key, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)
Index("hitl_messages_by_id", messages.c.message_id, unique=True)
Index("hitl_messages_by_run", messages.c.run_id, messages.c.sequence)

effects = Table(
    "hitl_effects",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("run_id", _Key, nullable=False),
    Column("status", _Key, nullable=False),
    Column("owner", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("result", LargeBinary),
)
Index("hitl_effects_by_run", effects.c.run_id, effects.c["at"], effects.c["key"])
_begun = text("status = 'begun'")
Index(
    "hitl_effects_begun",
    effects.c["at"],
    effects.c["key"],
    sqlite_where=_begun,
    postgresql_where=_begun,
)

grants = Table(
    "hitl_grants",
    metadata,
    Column("grant_id", _Key, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("workflow", _Key, nullable=False),
    Column("agent", _Key, nullable=False),
    Column("tool", _Key, nullable=False),
    Column("owner", _Key, nullable=False),
    Column("request_id", _Key),
    Column("granted_at", BigInteger, nullable=False),
    Column("is_over", SmallInteger, nullable=False),
    Column("until", BigInteger),
    Column("content", LargeBinary, nullable=False),
)
Index("hitl_grants_by_age", grants.c.granted_at, grants.c.grant_id)
Index(
    "hitl_grants_by_tool",
    grants.c.workflow,
    grants.c.tool,
    grants.c.is_over,
    grants.c.granted_at,
    grants.c.grant_id,
)
Index("hitl_grants_by_owner", grants.c.owner, grants.c.granted_at, grants.c.grant_id)
Index("hitl_grants_by_request", grants.c.request_id)

notices = Table(
    "hitl_notices",
    metadata,
    Column("sequence", _Sequence, Identity(always=True), primary_key=True),
    Column("notice_id", _Key, nullable=False),
    Column("kind", Text, nullable=False),
    Column("run_id", _Key, nullable=False),
    Column("request_id", Text),
    Column("at", BigInteger, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)
Index("hitl_notices_by_id", notices.c.notice_id, unique=True)
Index("hitl_notices_by_due", notices.c.due, notices.c.sequence)

audit = Table(
    "hitl_audit",
    metadata,
    Column("run_id", _Key, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

feed = Table(
    "hitl_feed",
    metadata,
    Column("sequence", _Sequence, Identity(always=True), primary_key=True),
    Column("xid", BigInteger, nullable=False),
    Column("run_id", _Key, nullable=False),
    Column("kind", Text, nullable=False),
    Column("request_id", Text),
    Column("at", BigInteger, nullable=False),
    Column("content", LargeBinary),
)
"""What happened, for those who follow. The database fills in `xid`; `Unread` says what for."""
Index("hitl_feed_by_place", feed.c.xid, feed.c.sequence)
Index("hitl_feed_by_run", feed.c.run_id, feed.c.xid, feed.c.sequence)
