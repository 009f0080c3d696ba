"""Makes the pictures of the README: python notebooks/pictures/make.py

The workflow is that of the README itself, and the page is that of `hitl serve --demo`, for which
Playwright needs the system's Chromium.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from llama_index_hitl.drawing import draw_workflow

HERE = Path(__file__).parent
README = HERE.parent.parent / "README.md"


def article_svg() -> str:
    """Draw the workflow of the README's section Compose."""
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    (code,) = (block for block in blocks if "class ArticleFlow(" in block)
    names: dict[str, type] = {}
    imports = "from workflows import Workflow, step\nfrom workflows.events import *\n"
    exec(imports + "from llama_index_hitl import *\n" + code, names)  # noqa: S102 - our own README
    return draw_workflow(names["ArticleFlow"]).svg


def inbox_png(path: Path) -> None:
    """Take a picture of the inbox of the demo, as a browser shows it."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "llama_index_hitl", "serve", "--demo", "--port", "0"]
        served = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "LOGNAME": "erin"},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert served.stdout is not None
            said = (re.search(r"http://127\.0\.0\.1:\d+\S*", line) for line in served.stdout)
            address = next(found[0] for found in said if found)
            with sync_playwright() as browsers:
                browser = browsers.chromium.launch(
                    executable_path="/usr/bin/chromium", args=["--no-sandbox"]
                )
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.goto(address)
                page.get_by_role("link", name="refunds for late deliveries").first.click()
                page.get_by_role("button", name="Approve").first.wait_for()
                page.screenshot(path=path)
                browser.close()
        finally:
            served.terminate()
            served.wait()


if __name__ == "__main__":
    (HERE / "article.svg").write_text(article_svg(), encoding="utf-8")
    inbox_png(HERE / "inbox.png")
