"""A database: connections, transactions, its schema, and its errors in our own words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from threading import Lock
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from llama_index_hitl.errors import Conflict, StoreError
from llama_index_hitl.stores import _tables
from llama_index_hitl.stores._dialects import Dialect
from llama_index_hitl.stores._statements import Session, Statement
from llama_index_hitl.stores.migrations import LATEST, MIGRATIONS, VERSIONS_TABLE

T = TypeVar("T")

_VERSION = Statement(select(func.max(_tables.schema.c.number)))
_RECORD_VERSION = Statement(_tables.schema.insert(), ["number", "name"])


class Database:
    """Connections to one database. Its methods block, and may be called from several threads.

    Nothing is opened before the first read or write; that one also brings the schema up to date.

    Args:
        dialect: What kind of database it is.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._engine = dialect.engine()
        self._driver_error: type[Exception] = self._engine.dialect.loaded_dbapi.Error
        self._opening = Lock()
        self._is_open = False

    def read(self, work: Callable[[Session], T]) -> T:
        """Return what some work reads; it may run one statement, for each sees its own commits."""
        with self._errors(), self._session() as session:
            self._open(session)
            try:
                return work(session)
            except StoreError:
                raise
            except ValueError as error:
                said = f"The store at {self._name} holds what cannot be read: {error}."
                raise StoreError(said) from error

    def write(self, work: Callable[[Session], T], *, durable: bool = True) -> T:
        """Do some work in one transaction, which is stored if it ends well, and not otherwise.

        Args:
            work: What to do.
            durable: Whether it must survive a loss of power by itself.
        """
        with self._errors(), self._session() as session:
            self._open(session)
            return self._in_transaction(session, work, durable=durable)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # ----------------------------------------------------------------------- inside

    @contextmanager
    def _session(self) -> Iterator[Session]:
        # Whatever happens in between, the pool rolls back what is not committed. The cursor is
        # closed first: an open one would hold on to what it has seen.
        with (
            closing(self._engine.raw_connection()) as connection,
            closing(connection.cursor()) as cursor,
        ):
            yield Session(cursor, self._engine.dialect)

    def _in_transaction(
        self, session: Session, work: Callable[[Session], T], *, durable: bool = True
    ) -> T:
        for sql in self.dialect.begin[durable]:
            session.script(sql)
        result = work(session)
        session.script("COMMIT")
        return result

    def _open(self, session: Session) -> None:
        if self._is_open:
            return
        with self._opening:
            if not self._is_open:
                self._migrate(session)
                self.dialect.adopt_feed(session)
                self._is_open = True

    def _migrate(self, session: Session) -> None:
        try:
            version = _version(session)
        except self._driver_error:  # most likely there is no such table; if not, we shall see
            version = 0
        while version < LATEST:
            version = self._in_transaction(session, self._migrate_once)
        if version > LATEST:
            raise StoreError(
                f"The database has version {version} of the schema, and this version of "
                f"llama-index-hitl knows those up to {LATEST}. Upgrade llama-index-hitl."
            )

    def _migrate_once(self, session: Session) -> int:
        """Take the next step, unless somebody else has taken it meanwhile."""
        self.dialect.lock_schema(session)
        session.script(VERSIONS_TABLE)
        version = _version(session)
        if version >= LATEST:
            return version
        migration = MIGRATIONS[version]
        for sql in migration.sql(self.dialect.words):
            session.script(sql)
        session.change(_RECORD_VERSION, number=migration.number, name=migration.name)
        return migration.number

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._driver_error as error:
            raise self._said(error) from error
        except SQLAlchemyError as error:
            raise self._said(getattr(error, "orig", None) or error) from error
        except (UnicodeEncodeError, OverflowError) as error:
            raise StoreError(
                f"The database cannot hold this: {error}. Nothing was stored."
            ) from error

    def _said(self, error: BaseException) -> StoreError:
        if isinstance(error, Exception) and self.dialect.is_conflict(error):
            return Conflict(
                f"Somebody else was first ({_first_line(error)}). Nothing was stored; read again."
            )
        return StoreError(f"The store at {self._name} says: {_first_line(error)}")

    @property
    def _name(self) -> str:
        return self._engine.url.render_as_string(hide_password=True)


def _version(session: Session) -> int:
    found = session.row(_VERSION)
    return 0 if found is None or found[0] is None else int(found[0])


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
