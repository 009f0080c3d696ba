"""Statements of SQLAlchemy, compiled once and run on the driver's own cursor.

SQLAlchemy's `Connection.execute` takes some 30 µs a statement, the driver of SQLite takes 3, and a
round of a run has some thirty statements: enough to be seen beside five commits to a disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ClauseElement
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPICursor


class Statement:
    """A statement for any kind of database.

    Args:
        clause: The statement, with a `bindparam` for each value that it is run with.
        columns: The columns that an insert or update writes, from parameters of the same names.
    """

    def __init__(self, clause: ClauseElement, columns: Sequence[str] = ()) -> None:
        self._clause = clause
        self._columns = list(columns) or None
        self._compiled: dict[str, tuple[str, dict[str, Any]]] = {}

    def compiled(self, dialect: Dialect) -> tuple[str, dict[str, Any]]:
        """Return the SQL, and the parameters that are part of the statement itself."""
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled = self._clause.compile(dialect=dialect, column_keys=self._columns)
            fixed = {key: value for key, value in compiled.params.items() if value is not None}
            found = self._compiled[dialect.name] = (str(compiled), fixed)
        return found


class Session:
    """Runs statements one after the other on one connection.

    Args:
        cursor: A cursor of the driver.
        dialect: What SQLAlchemy knows about the database.
    """

    def __init__(self, cursor: DBAPICursor, dialect: Dialect) -> None:
        self._cursor = cursor
        self._dialect = dialect

    def rows(self, statement: Statement, **parameters: Any) -> Sequence[tuple[Any, ...]]:
        """Return every row that a query finds."""
        self._run(statement, parameters)
        return self._cursor.fetchall()

    def row(self, statement: Statement, **parameters: Any) -> tuple[Any, ...] | None:
        """Return the first row that a query finds, or None."""
        self._run(statement, parameters)
        found: tuple[Any, ...] | None = self._cursor.fetchone()
        return found

    def change(self, statement: Statement, **parameters: Any) -> int:
        """Write, and return how many rows were written."""
        self._run(statement, parameters)
        return self._cursor.rowcount

    def change_each(self, statement: Statement, parameters: Sequence[dict[str, Any]]) -> None:
        """Write once for each set of parameters, of which there may be none."""
        if len(parameters) == 1:
            self._run(statement, parameters[0])
        elif parameters:
            sql, fixed = statement.compiled(self._dialect)
            self._cursor.executemany(sql, [{**fixed, **given} for given in parameters])

    def script(self, sql: str) -> None:
        """Run SQL that gives nothing and takes nothing."""
        self._cursor.execute(sql)

    def _run(self, statement: Statement, parameters: dict[str, Any]) -> None:
        sql, fixed = statement.compiled(self._dialect)
        self._cursor.execute(sql, {**fixed, **parameters} if fixed else parameters)
