"""The memory of LlamaIndex's agents: what they remember of a conversation survives a pause.

Upstream leaves it out of snapshots with a warning, and the resumed agent then fails. Nothing here
imports `llama_index.core` unless a snapshot holds such a memory. How a memory counts tokens is not
stored: it comes back with LlamaIndex's default tokenizer.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Protocol

from llama_index_hitl._codec.values import Json, part
from llama_index_hitl.errors import SnapshotError

_HOME = "llama_index.core.memory"
_BLOCKS = "memory_blocks"
_TEMPLATE = "memory_blocks_template"
_CHAT_STORE = "chat_store"
_SQL_STORE = "sql_store"
_STORES = "llama_index.core.storage.chat_store"


class Encoder(Protocol):
    """What writes the values in a memory."""

    def encode(self, value: Any, at: Any) -> Json:
        """Return a value as JSON."""

    def refuse(self, at: Any, message: str) -> None:
        """Note that something cannot be written."""


def is_memory(value: object) -> bool:
    """Tell whether something is the memory of an agent; nothing is while they are not loaded."""
    base = getattr(sys.modules.get(_HOME), "BaseMemory", None)
    return base is not None and isinstance(value, base)


def encode(memory: Any, encoder: Encoder, at: Any) -> Json:
    """Return a memory as JSON; what cannot be written is noted with the encoder."""
    if isinstance(memory, import_module(_HOME).Memory):
        return _encode_waterfall(memory, encoder, at)
    return {
        name: _store_in_process(getattr(memory, name), encoder, (at, name))
        if name == _CHAT_STORE
        else encoder.encode(getattr(memory, name), (at, name))
        for name, field in type(memory).model_fields.items()
        if field.exclude is not True
    }


def decode(cls: type[Any], data: dict[str, Json]) -> Any:
    """Return a memory that was written.

    Args:
        cls: Its class.
        data: What was written, its values read.

    Raises:
        SnapshotError: It is no memory.
    """
    home, stores = import_module(_HOME), import_module(_STORES)
    if not issubclass(cls, home.BaseMemory):
        raise SnapshotError(f"{cls.__name__} is stored as an agent's memory, and is none.")
    if not issubclass(cls, home.Memory):
        if _CHAT_STORE in data:
            store = stores.SimpleChatStore(store=part(data, _CHAT_STORE, dict))
            data = {**data, _CHAT_STORE: store}
        return cls(**data)
    fields = dict(part(data, "fields", dict))
    if (template := data.get(_TEMPLATE)) is not None:
        fields[_TEMPLATE] = import_module("llama_index.core.prompts").RichPromptTemplate(template)
    store = _sql().SQLAlchemyChatStore(**part(data, _SQL_STORE, dict))
    return cls(**fields, memory_blocks=data.get(_BLOCKS), sql_store=store)


def _store_in_process(store: Any, encoder: Encoder, at: Any) -> Json:
    """Return the messages of a chat store that keeps them in this process."""
    if type(store) is not import_module(_STORES).SimpleChatStore:
        encoder.refuse(at, f"messages in a {type(store).__name__} cannot be stored")
        return {}
    return encoder.encode(store.store, at)


def _encode_waterfall(memory: Any, encoder: Encoder, at: Any) -> dict[str, Json]:
    """Return a `Memory`: its limits, its blocks, and the messages of its session."""
    fields = memory.model_dump(mode="json", exclude={_BLOCKS, _TEMPLATE}, warnings="none")
    fields.pop("class_name", None)
    return {
        "fields": encoder.encode(fields, at),
        _BLOCKS: encoder.encode(memory.memory_blocks, (at, _BLOCKS)),
        _TEMPLATE: _template_of(memory, encoder, at),
        _SQL_STORE: _sql_store(memory, encoder, (at, _SQL_STORE)),
    }


def _template_of(memory: Any, encoder: Encoder, at: Any) -> str | None:
    """Return the text of the template for the blocks; None: it is the default one."""
    template = memory.memory_blocks_template
    default = type(memory).model_fields[_TEMPLATE].default
    if template == default:
        return None
    text: str | None = getattr(template, "template_str", None)
    if text is None or template != type(default)(text):
        encoder.refuse((at, _TEMPLATE), "only a RichPromptTemplate of nothing but text is stored")
    return text


def _sql_store(memory: Any, encoder: Encoder, at: Any) -> dict[str, Json]:
    """Return where the messages are, or the messages themselves if they are in this process."""
    store = memory.sql_store
    if type(store) is not _sql().SQLAlchemyChatStore:
        encoder.refuse(at, f"messages in a {type(store).__name__} cannot be stored")
        return {}
    content: dict[str, Json] = store.model_dump()
    engine = (store.__pydantic_private__ or {}).get("_async_engine")
    address = content["async_database_uri"]
    url = import_module("sqlalchemy").make_url(address) if engine is None else engine.url
    if url.password is not None:
        encoder.refuse(at, "the address of its database holds a password, which is not stored")
    if "db_data" not in content:
        return content
    if url.database not in (None, "", ":memory:"):
        encoder.refuse(at, "its database was given as an engine; give it as async_database_uri")
    mine = [row for row in content["db_data"] if row["key"] == memory.session_id]
    return {**content, "db_data": encoder.encode(mine, at)}


def _sql() -> Any:
    return import_module(f"{_STORES}.sql")
