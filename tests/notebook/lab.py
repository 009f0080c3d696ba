"""A JupyterLab of its own, and a browser that looks at it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

ARGUMENTS = (
    "--no-sandbox",  # tests run as root, in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

ROOT = Path(__file__).parents[2]


def chromium() -> str:
    """Return the path of Debian's Chromium, or of the one that HITL_TEST_CHROMIUM names."""
    found = os.environ.get("HITL_TEST_CHROMIUM") or shutil.which("chromium")
    if found is None:
        missing = "There is no chromium on the PATH, and HITL_TEST_CHROMIUM is not set."
        if "CI" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """Open a browser without windows."""
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        yield opened
        await opened.close()


@asynccontextmanager
async def serving(home: Path) -> AsyncIterator[str]:
    """Serve the notebooks in `home / "notebooks"`, with nothing of the user's own settings."""
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--expose-app-in-browser", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"),
        *("--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.password="),
        *("--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={home / 'notebooks'}"),
        env=_environment(home),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    base = f"http://127.0.0.1:{port}"
    assert process.stderr is not None
    said = []
    while line := await process.stderr.readline():
        said.append(line.decode())
        if "is running at" in said[-1]:
            break
    else:
        pytest.fail("".join(said))
    draining = asyncio.create_task(process.stderr.read())
    try:
        yield base
    finally:
        with suppress(OSError):
            await asyncio.to_thread(
                urllib.request.urlopen, f"{base}/api/shutdown", data=b"", timeout=10
            )
        try:
            async with asyncio.timeout(10):
                await draining
        except TimeoutError:
            process.kill()
        await process.wait()


def _environment(home: Path) -> dict[str, str]:
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = '{"fetchNews": "false", "checkForUpdates": false}'
    (settings / "notification.jupyterlab-settings").write_text(quiet)
    own = {
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "IPYTHONDIR": home / "ipython",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent))),
    }
    return {**os.environ, **{name: str(value) for name, value in own.items()}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
