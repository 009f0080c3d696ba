"""The windows of the other tests notice what they are there to notice."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.async_api import Browser
from served import Serve
from windows import Windows, windows_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

POLICY = "default-src 'none'; script-src 'self'; img-src * data:; connect-src *"


def showing(body: str, script: str = "") -> FastAPI:
    app = FastAPI()

    @app.get("/")
    def page() -> HTMLResponse:
        head = '<!doctype html><link rel="icon" href="data:,"><script src="s.js"></script>'
        return HTMLResponse(head + body, headers={"Content-Security-Policy": POLICY})

    @app.get("/s.js")
    def s() -> HTMLResponse:
        return HTMLResponse(script, media_type="text/javascript")

    return app


async def test_a_page_without_fault_is_no_trouble(serve: Serve, windows: Windows) -> None:
    page = await (await windows.open(await serve(showing("<p>Hello.</p>")))).opens("/")
    assert await page.get_by_text("Hello.").is_visible()


async def test_whatever_goes_wrong_on_a_page_is_found(serve: Serve, browser: Browser) -> None:
    body = """
        <script>window.x = 1</script>
        <img src="data:," onerror="alert('Never.')">
        <img src="http://localhost:9/x.png">
    """
    script = """
        console.error("Alas.");
        alert("Hello?");
        Promise.reject(new Error("Broken promise."));
        fetch("http://localhost:9/data").catch(() => 0);
        throw new Error("Broken script.");
    """
    base = await serve(showing(body, script))

    async def visit() -> None:
        async with windows_of(browser) as windows:
            page = await (await windows.open(base)).opens("/")
            await page.evaluate("0")  # what the page had to say came before

    with pytest.raises(AssertionError) as found:
        await visit()
    troubles = str(found.value)
    assert "console: Alas." in troubles
    assert "dialog: alert Hello?" in troubles
    assert "Never." not in troubles
    assert "Broken promise." in troubles
    assert "Broken script." in troubles
    assert "elsewhere: GET http://localhost:9/data" in troubles
    assert "elsewhere: GET http://localhost:9/x.png" in troubles
    assert "Executing inline script violates" in troubles
    assert "Executing inline event handler violates" in troubles


async def test_pictures_are_kept_of_every_window(
    serve: Serve, windows: Windows, tmp_path: Path
) -> None:
    base = await serve(showing("<p>Hello.</p>"))
    for _ in range(2):
        await (await windows.open(base)).opens("/")
    await windows.shoot(tmp_path)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["window-1.png", "window-2.png"]
