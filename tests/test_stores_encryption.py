"""Encryption at rest: nothing readable in the file, keys that change, wrong keys that are named."""

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from llama_index_hitl.errors import MissingExtra, StoreError
from llama_index_hitl.models import Subject
from llama_index_hitl.stores import Commit, FernetCipher, GrantQuery, RequestQuery, SqlStore
from llama_index_hitl.testing._store_commits import assert_chained
from llama_index_hitl.testing._store_rows import (
    NEVER,
    a_grant,
    a_message,
    a_notice,
    a_request,
    a_run,
    an_effect,
    an_entry,
    some_progress,
)

OLD, NEW, OTHER = (Fernet.generate_key() for _ in range(3))
WORD = "the-secret-word"
PRIVATE = Commit(
    run=a_run(
        start=WORD.encode(),
        snapshot=WORD.encode(),
        result=WORD.encode(),
        error={"message": WORD},
    ),
    requests=(a_request(title=WORD, subject=Subject(type="Draft", data={"text": WORD})),),
    messages=(a_message(payload={"comment": WORD}),),
    effects=(an_effect(result=WORD.encode()),),
    grants=(a_grant(arguments={"to": WORD}),),
    notices=(a_notice(payload={"title": WORD}),),
    audit=(an_entry(reason=WORD), an_entry(details={"diff": WORD})),
    progress=(some_progress(text=WORD),),
)
VALUES = 12
"""Values in `PRIVATE` that are encrypted."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hitl.db"


def written(path: Path) -> bytes:
    """Return all bytes of the files of a database."""
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def store_with(path: Path, *keys: bytes) -> SqlStore:
    return SqlStore(path, cipher=FernetCipher(keys) if keys else None)


async def assert_readable(path: Path, *keys: bytes) -> None:
    """Assert that a store with these keys reads all of `PRIVATE`."""
    store = store_with(path, *keys)
    run, request = await store.run("run", whole=True), await store.request("request")
    effect = await store.effect("effect")
    assert run is not None
    assert request is not None
    assert effect is not None
    assert (run.start, run.snapshot, run.result) == (WORD.encode(),) * 3
    assert run.error == {"message": WORD}
    assert effect.result == WORD.encode()
    grant = await store.grant("grant")
    assert grant is not None
    assert grant.grant.arguments == {"to": WORD}
    assert request.record.request.title == WORD
    assert [m.payload for m in await store.messages("run")] == [{"comment": WORD}]
    assert [n.payload for n in await store.notices(NEVER)] == [{"title": WORD}]
    rows = list(await store.audit("run"))
    assert_chained(rows, "run")
    assert [row.entry for row in rows] == list(PRIVATE.audit)
    assert [event.data for event in await store.feed()] == [{"text": WORD}]
    await store.close()


async def test_without_a_cipher_what_is_stored_can_be_read(path: Path) -> None:
    store = store_with(path)
    await store.commit(PRIVATE)
    await store.close()
    assert written(path).count(WORD.encode()) >= VALUES
    await assert_readable(path)


async def test_with_a_cipher_nothing_readable_reaches_the_file(path: Path) -> None:
    store = store_with(path, NEW)
    await store.commit(PRIVATE)
    assert WORD.encode() not in written(path)
    await store.close()
    assert WORD.encode() not in written(path)
    await assert_readable(path, NEW)
    await assert_readable(path, OTHER, NEW)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ((), "Open the store with the cipher"),
        ((OTHER,), "None of the keys"),
    ],
)
async def test_a_wrong_key_is_a_store_error_that_says_so(
    path: Path, keys: tuple[bytes, ...], message: str
) -> None:
    store = store_with(path, NEW)
    await store.commit(PRIVATE)
    await store.close()
    store = store_with(path, *keys)
    reads = (
        store.run("run"),
        store.run("run", whole=True),
        store.request("request"),
        store.requests(RequestQuery()),
        store.messages("run"),
        store.effect("effect"),
        store.grant("grant"),
        store.grants(GrantQuery()),
        store.notices(NEVER),
        store.audit("run"),
        store.feed(),
    )
    for read in reads:
        with pytest.raises(StoreError, match=message):
            await read
    await store.close()


async def test_what_is_in_plain_is_refused_where_there_is_a_cipher(path: Path) -> None:
    store = store_with(path)
    await store.commit(PRIVATE)
    await store.close()
    store = store_with(path, NEW)
    with pytest.raises(StoreError, match=r"rotate\(\)"):
        await store.request("request")
    await store.close()


async def test_a_value_that_was_changed_is_a_store_error(path: Path) -> None:
    store = store_with(path, NEW)
    await store.commit(PRIVATE)
    with closing(sqlite3.connect(path)) as connection, connection:
        (sealed,) = connection.execute("SELECT record FROM hitl_requests").fetchone()
        changed = sealed[:-10] + bytes([sealed[-10] ^ 1]) + sealed[-9:]
        connection.execute("UPDATE hitl_requests SET record = ?", (changed,))
    with pytest.raises(StoreError, match="or changed"):
        await store.request("request")
    await store.close()


async def test_bytes_that_look_encrypted_are_refused_without_a_cipher(path: Path) -> None:
    store = store_with(path, NEW)
    await store.commit(PRIVATE)
    with closing(sqlite3.connect(path)) as connection:
        (sealed,) = connection.execute("SELECT content FROM hitl_run_parts LIMIT 1").fetchone()
    await store.close()
    plain = SqlStore(path.with_name("plain.db"))
    with pytest.raises(StoreError, match="with a cipher"):
        await plain.commit(Commit(run=a_run(start=sealed)))
    assert await plain.run("run") is None
    await plain.close()


# --------------------------------------------------------------------------- rotation


async def test_rotating_encrypts_everything_with_the_newest_key(path: Path) -> None:
    store = store_with(path, OLD)
    await store.commit(PRIVATE)
    await store.close()
    store = store_with(path, NEW, OLD)
    assert await store.rotate() == VALUES
    assert await store.rotate() == 0
    await store.close()
    await assert_readable(path, NEW)
    store = store_with(path, OLD)
    with pytest.raises(StoreError, match="None of the keys"):
        await store.request("request")
    await store.close()


async def test_rotating_encrypts_what_was_stored_without_a_cipher(path: Path) -> None:
    store = store_with(path)
    await store.commit(PRIVATE)
    await store.close()
    store = store_with(path, NEW)
    assert await store.rotate() == VALUES
    await store.close()
    await assert_readable(path, NEW)


async def test_rotating_goes_through_more_than_one_batch_and_goes_on_where_it_broke_off(
    path: Path,
) -> None:
    store = store_with(path, OLD)
    for number in range(250):
        await store.commit(
            Commit(
                requests=(a_request(f"{number}"),),
                messages=(a_message(f"{number}"),),
                audit=(an_entry(f"{number % 3}"),),
            )
        )
    await store.close()
    # One value among them is damaged: up to there it goes, and no further.
    with closing(sqlite3.connect(path)) as connection, connection:
        (found,) = connection.execute("SELECT payload FROM hitl_messages WHERE sequence = 240")
        damaged = found[0][:-1] + b"?"
        connection.execute("UPDATE hitl_messages SET payload = ? WHERE sequence = 240", (damaged,))
    store = store_with(path, NEW, OLD)
    with pytest.raises(StoreError, match="None of the keys"):
        await store.rotate()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE hitl_messages SET payload = ? WHERE sequence = 240", found)
    left = await store.rotate()
    assert 0 < left < 750
    assert await store.rotate() == 0
    await store.close()
    store = store_with(path, NEW)
    assert len(await store.messages("run")) == 250
    assert len(await store.requests(RequestQuery(limit=300))) == 250
    for run_id in "012":
        assert_chained(list(await store.audit(run_id)), run_id)
    await store.close()


async def test_rotating_overwrites_nothing_that_others_write_meanwhile(path: Path) -> None:
    store = store_with(path, OLD)
    for number in range(30):
        await store.commit(Commit(run=a_run(f"{number}", snapshot=b"before")))
    await store.close()
    rotating, writing = store_with(path, NEW, OLD), store_with(path, NEW, OLD)

    async def write() -> None:
        for number in range(30):
            await writing.commit(Commit(run=a_run(f"{number}", revision=1, snapshot=b"after")))

    await asyncio.gather(write(), rotating.rotate())
    await rotating.rotate()
    assert await rotating.rotate() == 0
    await asyncio.gather(rotating.close(), writing.close())
    store = store_with(path, NEW)
    for number in range(30):
        run = await store.run(f"{number}", whole=True)
        assert run == a_run(f"{number}", revision=2, snapshot=b"after")
    await store.close()


async def test_rotating_without_a_cipher_is_refused(path: Path) -> None:
    store = store_with(path)
    await store.commit(PRIVATE)
    with pytest.raises(StoreError, match="cipher="):
        await store.rotate()
    await store.close()


async def test_rotating_works_on_postgres(postgres_url: str) -> None:
    store = SqlStore(postgres_url, cipher=FernetCipher([OLD]))
    await store.commit(PRIVATE)
    await store.close()
    store = SqlStore(postgres_url, cipher=FernetCipher([NEW, OLD]))
    assert await store.rotate() == VALUES
    assert await store.rotate() == 0
    await store.close()
    store = SqlStore(postgres_url, cipher=FernetCipher([NEW]))
    assert (await store.request("request")) is not None
    assert_chained(list(await store.audit("run")), "run")
    await store.close()


# --------------------------------------------------------------------------- ciphers


def test_a_missing_library_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(MissingExtra, match=r"llama-index-hitl\[encryption\]"):
        FernetCipher([NEW])


@pytest.mark.parametrize(
    "keys", [[], NEW, NEW.decode(), ["short"]], ids=["none", "bytes", "text", "short"]
)
def test_keys_are_a_list_of_fernet_keys(keys: object) -> None:
    with pytest.raises(ValueError, match=r"(?i)fernet"):
        FernetCipher(keys)  # type: ignore[arg-type]


def test_keys_may_be_text() -> None:
    cipher = FernetCipher([NEW.decode()])
    assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"
