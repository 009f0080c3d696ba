"""The schema of `SqlStore`: numbered steps, taken once, by whoever comes first."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, inspect, text

from llama_index_hitl.errors import StoreError
from llama_index_hitl.stores import Claim, Commit, RunQuery, SqlStore, _database
from llama_index_hitl.stores._dialects import Postgres, Sqlite
from llama_index_hitl.stores._encoding import RequestRow
from llama_index_hitl.stores._tables import metadata
from llama_index_hitl.stores.migrations import LATEST, MIGRATIONS, VERSIONS_TABLE, Migration
from llama_index_hitl.testing._store_rows import NOON, a_request, some_progress


def described(connection: Connection) -> dict[str, Any]:
    """Return all that can be seen of the tables of the store."""
    found: dict[str, Any] = {}
    inspector = inspect(connection)
    for table in inspector.get_table_names():
        if not table.startswith("hitl_"):
            continue
        columns = inspector.get_columns(table)
        found[table] = {
            "columns": {
                column["name"]: (
                    repr(column["type"]),
                    column["nullable"],
                    column.get("primary_key"),
                    column.get("identity") is not None,
                )
                for column in columns
            },
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
            "indexes": sorted(
                (
                    index["name"],
                    index["column_names"],
                    bool(index["unique"]),
                    _condition(index),
                )
                for index in inspector.get_indexes(table)
            ),
        }
    if connection.dialect.name == "sqlite":
        clustered = connection.execute(text("SELECT name, wr FROM pragma_table_list"))
        for name, without_rowid in clustered:
            if name in found:
                found[name]["without rowid"] = without_rowid
    return found


def _condition(index: Any) -> str:
    options = index.get("dialect_options", {})
    where = options.get("sqlite_where", options.get("postgresql_where", ""))
    return str(where).replace("(", "").replace(")", "").replace("::text", "")


@pytest.fixture(params=["sqlite", "postgres"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    if request.param == "sqlite":
        engine = create_engine(
            f"sqlite:///{tmp_path}/hitl.db", connect_args={"isolation_level": None}
        )
        # The driver would commit each change of the schema by itself.
        event.listen(engine, "begin", lambda connected: connected.exec_driver_sql("BEGIN"))
    else:
        given = request.getfixturevalue("postgres_url")
        engine = create_engine(given.replace("postgresql", "postgresql+psycopg", 1))
    with engine.connect() as connected:
        yield connected
    engine.dispose()


def _migrate(connection: Connection, *, until: int = LATEST) -> None:
    words = {"sqlite": Sqlite.words, "postgresql": Postgres.words}[connection.dialect.name]
    connection.execute(text(VERSIONS_TABLE))
    for migration in MIGRATIONS[:until]:
        for sql in migration.sql(words):
            connection.execute(text(sql))
        _record(connection, migration.number, migration.name)


def _record(connection: Connection, number: int, name: str) -> None:
    step = {"number": number, "name": name}
    connection.execute(text("INSERT INTO hitl_schema VALUES (:number, :name)"), step)


def _migrated(connection: Connection) -> dict[str, Any]:
    _migrate(connection)
    found = described(connection)
    connection.rollback()
    return found


def test_the_migrations_make_what_the_statements_expect(connection: Connection) -> None:
    migrated = _migrated(connection)
    metadata.create_all(connection)
    assert described(connection) == migrated
    assert len(migrated) == len(metadata.tables)


def test_migrations_are_numbered_from_1_without_gaps() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, LATEST + 1))
    assert LATEST >= 2


async def _open(url: object) -> None:
    store = SqlStore(url)
    try:
        assert await store.run("x") is None
    finally:
        await store.close()


def _steps(connection: Connection) -> list[tuple[int, str]]:
    found = connection.execute(text("SELECT number, name FROM hitl_schema ORDER BY number"))
    return [tuple(row) for row in found]


async def test_a_new_database_takes_every_step_and_records_it(connection: Connection) -> None:
    await _open(connection.engine.url)
    assert _steps(connection) == [(each.number, each.name) for each in MIGRATIONS]
    before = described(connection)
    connection.rollback()
    await _open(connection.engine.url)
    assert described(connection) == before


@pytest.mark.parametrize("version", range(1, LATEST))
async def test_an_older_database_takes_the_steps_that_it_lacks_and_keeps_its_rows(
    connection: Connection, version: int
) -> None:
    wanted = _migrated(connection)
    _migrate(connection, until=version)
    connection.execute(
        text(
            "INSERT INTO hitl_runs (run_id, workflow, status, created_at, updated_at, revision,"
            " fingerprint, tags, attempts) VALUES ('old', 'w', 'waiting', 0, 0, 1, '', '[]', 0)"
        )
    )
    old = RequestRow.of(a_request("old"))
    connection.execute(
        text(
            "INSERT INTO hitl_requests (request_id, run_id, revision, is_open, rank, created_at,"
            " workflow, gate, entries, tags, record)"
            " VALUES ('old', 'old', 1, 1, 2, 0, '', '', '[\"\"]', '[]', :record)"
        ),
        {"record": old.record},
    )
    connection.commit()
    store = SqlStore(connection.engine.url)
    run, request = await store.run("old"), await store.request("old")
    assert run is not None
    assert request is not None
    assert (run.workflow, run.started_by, request.claim) == ("w", None, None)
    assert list(await store.feed()) == []
    claimed = replace(request, claim=Claim(by="ann", until=NOON))
    started = replace(run, started_by="ann")
    await store.commit(Commit(run=started, requests=(claimed,), progress=(some_progress("old"),)))
    assert await store.request("old") == replace(claimed, revision=2)
    assert [run.run_id for run in await store.runs(RunQuery(started_by="ann"))] == ["old"]
    assert [event.run_id for event in await store.feed()] == ["old"]
    await store.close()
    assert described(connection) == wanted
    assert _steps(connection) == [(each.number, each.name) for each in MIGRATIONS]


async def test_a_newer_database_is_refused_by_name(connection: Connection) -> None:
    _migrate(connection)
    _record(connection, LATEST + 1, "from the future")
    connection.commit()
    with pytest.raises(StoreError, match=rf"version {LATEST + 1} .* up to {LATEST}.*Upgrade"):
        await _open(connection.engine.url)


async def test_a_step_that_fails_leaves_nothing_behind(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _open(connection.engine.url)
    before = described(connection)
    connection.rollback()
    broken = Migration(
        LATEST + 1, "broken", ("CREATE TABLE hitl_new (a BIGINT)", "CREATE NONSENSE")
    )
    monkeypatch.setattr(_database, "MIGRATIONS", (*MIGRATIONS, broken))
    monkeypatch.setattr(_database, "LATEST", LATEST + 1)
    with pytest.raises(StoreError, match="syntax error"):
        await _open(connection.engine.url)
    monkeypatch.undo()
    assert described(connection) == before
    connection.rollback()
    await _open(connection.engine.url)


async def test_many_may_open_a_new_database_at_the_same_time(connection: Connection) -> None:
    await asyncio.gather(*(_open(connection.engine.url) for _ in range(8)))
    assert _steps(connection) == [(each.number, each.name) for each in MIGRATIONS]
