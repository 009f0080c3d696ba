"""Migrations: make runs that were paused by old code fit new code.

A migration changes a copy of what was stored, before any answer is consumed. What it leads to is
checked like any other snapshot: whoever resumes it compares the fingerprints, and every value is
validated by its class.

Open requests: if the fields of an event under review change, the request shows the new values from
then on and gets a new digest, so that what will be approved is what runs. Its id, and so the key of
its effect, stays. An answer that was on its way is refused as stale. Votes that were taken before
stand, although they were about the old values: a migration must not change what a reviewer was
asked to decide. Requests that are closed, earlier drafts, and questions that were asked inline with
`ask` stay as they were.

Example:
    >>> MIGRATIONS = [
    ...     Migration(
    ...         "article",
    ...         from_version="1",
    ...         to_version="2",
    ...         rename_steps={"legal_gate": "counsel_gate"},
    ...         rename_events={"Draft": "Article"},
    ...         change_fields={"Draft": lambda fields: {**fields, "language": "en"}},
    ...     ),
    ... ]
    >>> print(MIGRATIONS[0].name)  # for `Runner(..., migrations=MIGRATIONS)`
    article 1 -> 2
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from workflows.context.context_types import CURRENT_SERIALIZED_VERSION

from llama_index_hitl._codec import SnapshotSerializer
from llama_index_hitl._fingerprint import Fingerprint
from llama_index_hitl.migrations._change import Change
from llama_index_hitl.migrations._migration import (
    Fields,
    Migrated,
    Migration,
    MigrationError,
    Waited,
)
from llama_index_hitl.migrations._requests import OpenRequests

__all__ = [
    "Fields",
    "Migrated",
    "Migration",
    "MigrationError",
    "Waited",
    "apply",
    "present_migrations",
    "using_migrations",
]

_PRESENT: ContextVar[tuple[Migration, ...]] = ContextVar("llama_index_hitl_migrations", default=())


def present_migrations() -> tuple[Migration, ...]:
    """Return those that the run which is at work here was resumed with.

    Example:
        >>> present_migrations()
        ()
    """
    return _PRESENT.get()


@contextmanager
def using_migrations(migrations: Iterable[Migration]) -> Iterator[None]:
    """Let runs within a run that is resumed in the block be migrated too.

    Args:
        migrations: The migrations.

    Example:
        >>> with using_migrations([Migration("article", rename_steps={"old": "new"})]):
        ...     [migration.name for migration in present_migrations()]
        ['article']
    """
    token = _PRESENT.set(tuple(migrations))
    try:
        yield
    finally:
        _PRESENT.reset(token)


def apply(
    migrations: Iterable[Migration],
    workflow: Container[str | None],
    version: str | None,
    context: Mapping[str, Any],
    fingerprint: Fingerprint,
    *,
    serializer: SnapshotSerializer,
    waits: Iterable[Waited] = (),
) -> Migrated:
    """Apply the migrations that are for a snapshot, one after the other.

    Whoever resumes a run with migrations does this: see the example of `Migration`.

    Args:
        migrations: All there are; for several steps of versions each is taken in its turn.
        workflow: The names of the workflow.
        version: The version of the workflow that paused the run; None: it had none.
        context: The run, as `Context.to_dict` returned it. It is not changed.
        fingerprint: The fingerprint of the code that paused the run.
        serializer: The serializer of the workflow as it is now.
        waits: What its plain questions are known by.

    Returns:
        The run as it is then, with what was applied.

    Raises:
        MigrationError: One of them cannot be applied.
    """
    waiting = [migration for migration in migrations if migration.workflow in workflow]
    now = Migrated(dict(context), version, fingerprint, tuple(waits))
    try:
        while migration := next((m for m in waiting if m.from_version == now.version), None):
            waiting.remove(migration)
            now = _applied(migration, now)
        if now.applied:
            OpenRequests(serializer, before=context).renew(now.context)
    except MigrationError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise MigrationError(f"The stored run is damaged: {error!r:.300}.") from error
    return now


def _applied(migration: Migration, before: Migrated) -> Migrated:
    if before.context.get("version") != CURRENT_SERIALIZED_VERSION:
        raise MigrationError(
            f"{migration.name}: the run is in version {before.context.get('version')!r} of "
            f"upstream's format; only {CURRENT_SERIALIZED_VERSION} can be migrated. Resume it with "
            "the code that paused it."
        )
    change = Change(migration, before)
    context, fingerprint = change.of_context(before.context), change.of(before.fingerprint)
    version = migration.to_version or before.version
    if (context, fingerprint, version) == (before.context, before.fingerprint, before.version):
        return before
    waits = tuple(change.of_wait(wait) for wait in before.waits)
    return Migrated(context, version, fingerprint, waits, (*before.applied, migration.name))
