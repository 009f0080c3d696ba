"""How `SqlStore` encrypts anew what is stored, a few rows at a time, while others write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BindParameter, Column, LargeBinary, Table, bindparam, select, tuple_, update

from llama_index_hitl.stores import _tables as tables
from llama_index_hitl.stores._database import Database
from llama_index_hitl.stores._statements import Statement
from llama_index_hitl.stores.encryption import Sealer

_ROWS = 100
"""Rows that are written in one transaction; others who write wait no longer than that takes."""


class Content:
    """One column of content, and how to go through it.

    Args:
        table: Its table.
        column: The column.
    """

    def __init__(self, table: Table, column: Column[Any]) -> None:
        keys = list(table.primary_key.columns)
        after: list[BindParameter[Any]] = [
            bindparam(f"after_{number}") for number in range(len(keys))
        ]
        found = select(*keys, column).where(column.is_not(None)).order_by(*keys).limit(_ROWS)
        self._first = Statement(found)
        self._next = Statement(found.where(tuple_(*keys) > tuple_(*after)))
        is_row = (key == bindparam(f"key_{number}") for number, key in enumerate(keys))
        changed = update(table).where(*is_row, column == bindparam("before"))
        self._change = Statement(changed, [column.name])
        self._name = column.name

    def reseal(
        self, database: Database, sealer: Sealer, after: Sequence[Any] | None = None
    ) -> tuple[int, Sequence[Any] | None]:
        """Encrypt some rows anew, as far as nobody else has written them meanwhile.

        Args:
            database: Where they are.
            sealer: Decrypts and encrypts them.
            after: The keys of the row behind which to begin; None: at the first.

        Returns:
            How many rows were written anew, and the keys to go on from; None: that was all.

        Raises:
            StoreError: A value cannot be decrypted.
        """
        statement = self._first if after is None else self._next
        given = {f"after_{number}": key for number, key in enumerate(after or ())}
        rows = database.read(lambda session: session.rows(statement, **given))
        changes = []
        for *keys, stored in rows:
            sealed = sealer.resealed(stored)
            if sealed is not None:
                which = {f"key_{number}": key for number, key in enumerate(keys)}
                changes.append({**which, "before": stored, self._name: sealed})
        if changes:
            database.write(lambda session: session.change_each(self._change, changes))
        return len(changes), rows[-1][:-1] if len(rows) == _ROWS else None


CONTENTS = tuple(
    Content(table, column)
    for table in tables.metadata.sorted_tables
    for column in table.columns
    if isinstance(column.type, LargeBinary)
)
"""Every column of content."""
