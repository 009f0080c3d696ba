"""What `SqlStore` promises beyond the contract: how it is opened, what it says, when it waits."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import make_url

from llama_index_hitl import stores
from llama_index_hitl.errors import Conflict, MissingExtra, StoreError
from llama_index_hitl.stores import Commit, RequestQuery, SqlStore
from llama_index_hitl.stores._statements import Session
from llama_index_hitl.testing._store_rows import NOON, a_message, a_request, a_run, an_entry

SOON = timedelta(milliseconds=50)

# --------------------------------------------------------------------------- opening


@pytest.mark.parametrize(
    "spelled",
    [
        lambda path: path,
        str,
        "sqlite:///{}".format,
        "sqlite+aiosqlite:///{}".format,
        "sqlite+pysqlite:///{}".format,
        lambda path: make_url(f"sqlite:///{path}"),
    ],
)
async def test_a_file_is_named_in_any_of_the_usual_ways(
    tmp_path: Path, spelled: Callable[[Path], object]
) -> None:
    path = tmp_path / "a b.db"
    store = SqlStore(spelled(path))
    assert not path.exists()  # nothing is opened before it is used
    await store.commit(Commit(run=a_run()))
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT run_id FROM hitl_runs").fetchall() == [("run",)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_relative_path_is_that_of_the_place_where_the_store_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = SqlStore("sqlite:///hitl.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    await store.commit(Commit())
    await store.close()
    assert (tmp_path / "hitl.db").exists()


@pytest.mark.parametrize(
    "url",
    [
        "",
        ":memory:",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite+aiosqlite://",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file:shared?mode=memory&cache=shared&uri=true",
    ],
)
def test_sqlite_in_memory_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"MemoryStore\(\)"):
        SqlStore(url)


@pytest.mark.parametrize(
    "url", ["mysql://localhost/hitl", "postgresql+asyncpg://localhost/hitl", "://", "x y://"]
)
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(StoreError):
        SqlStore(url)


def test_a_missing_driver_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"llama-index-hitl\[postgres\]"):
        SqlStore("postgresql://localhost/hitl")


async def test_a_server_that_is_not_there_is_a_store_error_without_the_password() -> None:
    store = SqlStore("postgresql://hitl:secret-word@127.0.0.1:1/hitl")
    with pytest.raises(StoreError, match=r"hitl:\*\*\*@127\.0\.0\.1:1") as caught:
        await store.run("run")
    assert "secret-word" not in str(caught.value)
    await store.close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
async def test_a_server_is_named_in_any_of_the_usual_ways(scheme: str, postgres_url: str) -> None:
    store = SqlStore(postgres_url.replace("postgresql", scheme, 1))
    await store.commit(Commit(run=a_run()))
    assert await store.run("run") is not None
    await store.close()


async def test_a_directory_that_is_missing_and_a_file_that_is_no_database_are_store_errors(
    tmp_path: Path,
) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    for path in (tmp_path / "none" / "hitl.db", tmp_path / "letter.txt", tmp_path):
        store = SqlStore(path)
        with pytest.raises(StoreError, match=path.name):
            await store.run("run")
        await store.close()


def test_one_store_serves_several_event_loops(tmp_path: Path) -> None:
    store = SqlStore(tmp_path / "hitl.db")
    asyncio.run(store.commit(Commit(run=a_run())))
    assert asyncio.run(store.run("run")) == a_run(revision=1)
    asyncio.run(store.close())
    asyncio.run(store.close())  # once more does no harm


def test_sqlalchemy_is_imported_for_sql_stores_only() -> None:
    code = (
        "import sys, llama_index_hitl, llama_index_hitl.stores.protocol, llama_index_hitl.stores\n"
        "from llama_index_hitl.stores import MemoryStore, FernetCipher\n"
        "assert not {'sqlalchemy', 'sqlite3', 'cryptography', 'psycopg'} & set(sys.modules)\n"
        "from llama_index_hitl.stores import SqlStore\n"
        "SqlStore('hitl.db')\n"
        "assert 'sqlalchemy' in sys.modules\n"
        "assert not {'cryptography', 'psycopg', 'aiosqlite'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------- waiting


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hitl.db"


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else who writes to the file and takes their time."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


async def test_reads_do_not_wait_for_those_who_write(
    path: Path, writer: sqlite3.Connection
) -> None:
    store = SqlStore(path, lock_timeout=SOON)
    await store.commit(Commit(run=a_run()))
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM hitl_runs")
    assert await store.run("run") == a_run(revision=1)
    assert len(await store.requests(RequestQuery())) == 0
    writer.execute("COMMIT")
    assert await store.run("run") is None
    await store.close()


async def test_a_commit_that_waits_too_long_is_a_store_error(
    path: Path, writer: sqlite3.Connection
) -> None:
    store = SqlStore(path, lock_timeout=SOON)
    await store.commit(Commit())
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked") as caught:
        await store.commit(Commit(run=a_run()))
    assert not isinstance(caught.value, Conflict)
    writer.execute("COMMIT")
    await store.commit(Commit(run=a_run()))
    await store.close()


async def test_a_new_store_waits_for_those_who_write_to_its_file(
    path: Path, writer: sqlite3.Connection
) -> None:
    writer.execute("CREATE TABLE theirs (a)")  # so far without a write-ahead log
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO theirs VALUES (1)")
    impatient = SqlStore(path, lock_timeout=SOON)
    with pytest.raises(StoreError, match="locked"):
        await impatient.run("run")
    await impatient.close()
    store = SqlStore(path)
    opened = asyncio.create_task(store.commit(Commit(run=a_run())))
    assert not (await asyncio.wait({opened}, timeout=0.2))[0]
    writer.execute("COMMIT")
    await opened
    assert writer.execute("SELECT a FROM theirs").fetchall() == [(1,)]
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await store.close()


async def test_a_commit_waits_for_those_who_write(path: Path, writer: sqlite3.Connection) -> None:
    store = SqlStore(path)
    await store.commit(Commit())
    writer.execute("BEGIN IMMEDIATE")
    commit = asyncio.create_task(store.commit(Commit(run=a_run())))
    while await store.run("run") is None:
        if writer.in_transaction:
            assert not commit.done()
            writer.execute("COMMIT")
    await commit
    await store.close()


async def test_a_commit_that_is_cancelled_holds_nothing_up(
    path: Path, writer: sqlite3.Connection
) -> None:
    store = SqlStore(path)
    await store.commit(Commit())
    writer.execute("BEGIN IMMEDIATE")
    commits = [
        asyncio.create_task(store.commit(Commit(run=a_run(f"cancelled {number}"))))
        for number in range(3)
    ]
    assert await store.run("run") is None  # by now they wait
    for commit in commits:
        commit.cancel()
    await asyncio.gather(*commits, return_exceptions=True)
    writer.execute("COMMIT")
    await store.commit(Commit(run=a_run()))
    assert await store.run("run") == a_run(revision=1)
    await store.close()


async def test_close_finishes_what_is_under_way(path: Path, writer: sqlite3.Connection) -> None:
    store = SqlStore(path)
    await store.commit(Commit())
    writer.execute("BEGIN IMMEDIATE")
    commit = asyncio.create_task(store.commit(Commit(run=a_run())))
    assert await store.run("run") is None
    closed = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    writer.execute("COMMIT")
    await asyncio.gather(commit, closed)
    assert writer.execute("SELECT run_id FROM hitl_runs").fetchall() == [("run",)]


async def test_on_postgres_a_commit_that_waits_too_long_is_a_store_error(
    postgres_url: str,
) -> None:
    import psycopg

    store = SqlStore(postgres_url, lock_timeout=SOON)
    await store.commit(Commit(run=a_run(), requests=(a_request(),)))
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT 1 FROM hitl_runs FOR UPDATE")
        assert await store.run("run") == a_run(revision=1)
        with pytest.raises(StoreError, match="lock timeout") as caught:
            await store.commit(Commit(run=a_run(revision=1)))
        assert not isinstance(caught.value, Conflict)
        # What is not locked can be written.
        await store.commit(Commit(requests=(a_request(revision=1),)))
    await store.commit(Commit(run=a_run(revision=1)))
    await store.close()


async def test_on_postgres_commits_that_are_at_odds_are_conflicts_not_deadlocks(
    postgres_url: str,
) -> None:
    store, other = SqlStore(postgres_url), SqlStore(postgres_url)
    names = [f"{number}" for number in range(10)]
    await store.commit(Commit(requests=tuple(map(a_request, names))))
    for revision in range(1, 6):
        changes = [
            Commit(
                requests=tuple(
                    a_request(name, revision=revision, run_id=f"{mark}")
                    for name in (names if mark % 2 else reversed(names))
                ),
                audit=tuple(map(an_entry, "ab" if mark % 2 else "ba")),
            )
            for mark in range(8)
        ]
        done = await asyncio.gather(
            *((store, other)[mark % 2].commit(change) for mark, change in enumerate(changes)),
            return_exceptions=True,
        )
        assert done.count(None) == 1
        winner = f"{done.index(None)}"
        assert all(isinstance(outcome, Conflict) for outcome in done if outcome is not None)
        found = await store.requests(RequestQuery())
        assert {request.run_id for request in found} == {winner}
    await store.close()
    await other.close()


async def test_on_postgres_connections_that_were_cut_are_made_anew(postgres_url: str) -> None:
    import psycopg

    name = f"cut-{os.getpid()}"
    store = SqlStore(f"{postgres_url}&application_name={name}", connections=2)
    await asyncio.gather(*(store.commit(Commit(messages=(a_message(f"{n}"),))) for n in range(4)))
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            [name],
        )
    await asyncio.gather(
        *(store.commit(Commit(messages=(a_message(f"{n}"),))) for n in range(4, 8))
    )
    assert len(await store.messages("run")) == 8
    await store.close()


# --------------------------------------------------------------------------- damage


async def test_what_cannot_be_read_is_a_store_error_that_names_it(
    path: Path, writer: sqlite3.Connection
) -> None:
    store = SqlStore(path)
    await store.commit(
        Commit(
            run=a_run("the-run", error={}),
            requests=(a_request("the-request"),),
            messages=(a_message("the-message"),),
            audit=(an_entry("the-run"), an_entry("the-run")),
        )
    )
    for damage in (
        "UPDATE hitl_runs SET error = '[]'",
        "UPDATE hitl_requests SET record = '{}'",
        "UPDATE hitl_messages SET payload = '{'",
        "UPDATE hitl_audit SET entry = '{}' WHERE number = 2",
    ):
        writer.execute(damage)
    for name, read in {
        "the-run": store.run("the-run"),
        "the-request": store.request("the-request"),
        "the-message": store.messages("run"),
        "Row 2 .* the-run": store.audit("the-run"),
    }.items():
        with pytest.raises(StoreError, match=name):
            await read
    # A damaged row of the audit trail is no reason to lose what happens next.
    await store.commit(Commit(run=a_run("the-run", revision=1), audit=(an_entry("the-run"),)))
    assert await store.run("the-run") == a_run("the-run", revision=2)
    numbers = writer.execute("SELECT number FROM hitl_audit").fetchall()
    assert numbers == [(1,), (2,), (3,)]
    await store.close()


async def test_a_full_disk_is_a_store_error_and_nothing_is_stored(
    path: Path, writer: sqlite3.Connection
) -> None:
    store = SqlStore(path, connections=1)
    await store.commit(Commit(run=a_run()))
    writer.execute(
        "CREATE TRIGGER full BEFORE INSERT ON hitl_audit"
        " BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END"
    )
    with pytest.raises(StoreError, match="disk is full"):
        await store.commit(Commit(run=a_run(revision=1, updated_at=NOON), audit=(an_entry(),)))
    writer.execute("DROP TRIGGER full")
    assert await store.run("run") == a_run(revision=1)
    await store.commit(Commit(run=a_run(revision=1), audit=(an_entry(),)))
    await store.close()


# --------------------------------------------------------------------------- names


def test_the_public_names_are_sorted_there_and_documented() -> None:
    assert stores.__all__ == sorted(stores.__all__)
    text = stores.__doc__ or ""
    for name in stores.__all__:
        assert getattr(stores, name) is not None
    rows = {"Run", "StoredRequest", "Message", "Effect", "StoredGrant", "Notice"}
    classes = rows | {"Commit", "Page", "GrantQuery"}
    for name in classes | {"Store", "MemoryStore", "SqlStore", "Cipher", "FernetCipher"}:
        assert f"`{name}`" in text
        assert getattr(stores, name).__doc__
    with pytest.raises(AttributeError, match="NoStore"):
        _ = stores.NoStore


@pytest.mark.parametrize(("durable", "synced"), [(True, 2), (False, 1)])
async def test_a_commit_that_need_not_be_durable_waits_for_no_disk(
    path: Path, durable: bool, synced: int
) -> None:
    store = SqlStore(path)
    await store.commit(Commit(run=a_run("first")))
    await store.commit(Commit(run=a_run("second"), durable=durable))
    assert await store.run("second") is not None

    def synchronous(session: Session) -> int:
        session.script("PRAGMA synchronous")
        return int(session._cursor.fetchone()[0])

    assert store._database.write(synchronous, durable=durable) == synced
    await store.close()
