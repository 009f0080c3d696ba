"""Every store of the package passes the suite that it ships for stores of others."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from llama_index_hitl.stores import FernetCipher, MemoryStore, SqlStore
from llama_index_hitl.testing.stores import StoreConformance


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class _SqlConformance(StoreConformance):
    cipher: FernetCipher | None = None

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[SqlStore]:
        store = SqlStore(url, cipher=self.cipher)
        yield store
        await store.close()

    @pytest.fixture
    async def other(self, url: str, store: SqlStore) -> AsyncIterator[SqlStore]:
        other = SqlStore(url, cipher=self.cipher)
        yield other
        await other.close()


class TestSqlite(_SqlConformance):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite+aiosqlite:///{tmp_path}/hitl.db"


class TestEncryptedSqlite(TestSqlite):
    cipher = FernetCipher([Fernet.generate_key()])


class TestPostgres(_SqlConformance):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url
