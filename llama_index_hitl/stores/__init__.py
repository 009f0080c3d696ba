"""Where runs wait: the contract of a store, and the stores that come with the package.

- `Store`: the contract; `Run`, `StoredRequest` with its `Claim`, `Message`, `Effect`,
  `StoredGrant`, `Notice`, `Progress` and `Commit` are what is stored, `RequestQuery`, `RunQuery`,
  `GrantQuery` and `Page` what is listed, `FeedEvent` what those are told who follow;
- `MemoryStore`: for tests, and for runs that need not outlive the process;
- `SqlStore`: SQLite in a file, or PostgreSQL;
- `Cipher` and `FernetCipher`: encryption at rest.

`llama_index_hitl.testing.stores.StoreConformance` tests a store of your own.
"""

from typing import TYPE_CHECKING, Any

from llama_index_hitl.stores._cursors import InvalidCursor
from llama_index_hitl.stores.encryption import Cipher, FernetCipher
from llama_index_hitl.stores.memory import MemoryStore
from llama_index_hitl.stores.protocol import (
    Claim,
    Commit,
    Cursor,
    Effect,
    FeedEvent,
    GrantQuery,
    Message,
    Notice,
    NoticeKind,
    Page,
    Progress,
    RequestQuery,
    Run,
    RunQuery,
    RunStatus,
    Store,
    StoredGrant,
    StoredRequest,
)

if TYPE_CHECKING:
    from llama_index_hitl.stores.sql import SqlStore

__all__ = [
    "Cipher",
    "Claim",
    "Commit",
    "Cursor",
    "Effect",
    "FeedEvent",
    "FernetCipher",
    "GrantQuery",
    "InvalidCursor",
    "MemoryStore",
    "Message",
    "Notice",
    "NoticeKind",
    "Page",
    "Progress",
    "RequestQuery",
    "Run",
    "RunQuery",
    "RunStatus",
    "SqlStore",
    "Store",
    "StoredGrant",
    "StoredRequest",
]


def __getattr__(name: str) -> Any:
    # SQLAlchemy takes a fifth of a second to import, which only SqlStore needs.
    if name == "SqlStore":
        from llama_index_hitl.stores.sql import SqlStore

        return SqlStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
