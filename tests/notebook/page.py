"""A notebook that is executed in a real kernel, and what its front end does meanwhile.

Speaks the protocol of widgets as JupyterLab does: says that a view was made, sends one change of an
input at a time, and waits until the kernel has said that it took it.
"""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

SECONDS = 10.0
"""After which something that does not happen is a failure."""

VIEW = "application/vnd.jupyter.widget-view+json"


class Client(NotebookClient):
    """Executes cells, and says whenever the kernel has said something."""

    def __init__(self, notebook: NotebookNode, **options: Any) -> None:
        super().__init__(notebook, **options)
        self.heard = asyncio.Event()
        self.taken: set[str] = set()
        self.focused: list[str] = []

    def begin(self) -> None:
        """Begin an empty notebook."""
        self.nb = nbformat.v4.new_notebook()
        self.widget_state.clear()
        self.focused.clear()

    async def async_start_new_kernel_client(self) -> Any:
        client = await super().async_start_new_kernel_client()
        get_msg = client.iopub_channel.get_msg

        async def noted(*args: Any, **options: Any) -> Any:
            msg = await get_msg(*args, **options)
            # Whatever is answered to a message of a widget is not of the cell that waits.
            asyncio.get_running_loop().call_soon(self._note, msg)
            return msg

        client.iopub_channel.get_msg = noted
        return client

    def _note(self, msg: Any) -> None:
        content = msg["content"]
        if msg["msg_type"] == "status" and content["execution_state"] == "idle":
            self.taken.add(msg["parent_header"].get("msg_id", ""))
        if msg["msg_type"] == "comm_msg" and content["data"].get("content") == {"do": "focus"}:
            self.focused.append(content["comm_id"])
        if msg["msg_type"] == "comm_close":
            self.widget_state.pop(content["comm_id"], None)
        self.heard.set()


class Cell:
    """A cell that runs, or has run."""

    def __init__(self, page: Page, node: NotebookNode, task: asyncio.Task[Any]) -> None:
        self.page = page
        self.node = node
        self.task = task

    @property
    def outputs(self) -> list[NotebookNode]:
        return list(self.node.outputs)

    @property
    def html(self) -> str:
        """Everything in it that is HTML, without the style."""
        parts = [output.get("data", {}).get("text/html", "") for output in self.outputs]
        return "\n".join(part.rpartition("</style>")[2] for part in parts)

    @property
    def text(self) -> str:
        """What it has written."""
        return "".join(output.text for output in self.outputs if output.output_type == "stream")

    @property
    def views(self) -> list[str]:
        """Ids of the widgets in it."""
        found = (output.get("data", {}).get(VIEW) for output in self.outputs)
        return [view["model_id"] for view in found if view]

    async def ends(self, within: float = SECONDS) -> Cell:
        """Wait until it has run."""
        done, _ = await asyncio.wait({self.task}, timeout=within)
        assert done, f"It does not end: {self.html} {self.text}"
        self.task.result()
        return self

    @asynccontextmanager
    async def living_on(self) -> AsyncIterator[None]:
        """Let what is shown change in the block, after the cell has run."""
        client = self.page.client

        async def listen() -> None:
            while True:
                msg = await client.kc.iopub_channel.get_msg()
                if msg["msg_type"] != "status":
                    client.process_message(msg, self.node, 0)

        listening = asyncio.create_task(listen())
        views = asyncio.create_task(self.page.count_views(self))
        try:
            yield
        finally:
            for task in (listening, views):
                task.cancel()
            await asyncio.gather(listening, views, return_exceptions=True)

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until something is so, and return what the condition gave."""
        try:
            async with asyncio.timeout(SECONDS):
                while not (found := condition()):
                    self.page.client.heard.clear()
                    await self.page.client.heard.wait()
        except TimeoutError:
            seen = [str(state.get("description") or state.get("value")) for state in self.shown()]
            raise AssertionError(f"It does not happen. Shown: {seen}, {self.html}") from None
        return found

    # ------------------------------------------------------------- what is on the screen

    def shown(self) -> Iterator[dict[str, Any]]:
        """Yield the state of each widget that can be seen, in order."""
        states = self.page.client.widget_state
        left = list(self.views)
        while left:
            state = states.get(left.pop(0))
            if state is None or self._is_hidden(state):
                continue
            yield state
            left = [ref.removeprefix("IPY_MODEL_") for ref in state.get("children", ())] + left

    def _is_hidden(self, state: dict[str, Any]) -> bool:
        layout = self.page.client.widget_state.get(state.get("layout", "")[10:], {})
        return layout.get("display") == "none"

    def find(self, kind: str, label: str, at: int = 0) -> str | None:
        """Return the id of a widget that can be used."""
        found = [
            state
            for state in self.shown()
            if state["_model_name"].startswith(kind) and state.get("description") == label
        ]
        usable = [state for state in found if not state.get("disabled")]
        states = self.page.client.widget_state
        return next((key for key, s in states.items() if usable[at:] and s is usable[at]), None)

    def problem_at(self, label: str) -> str:
        """What is said to be wrong at a field; an empty text: nothing."""
        for state in self.shown():
            if "field" in state.get("_dom_classes", ()):
                field, *_, problem = map(self.page.state, state["children"])
                if field["description"] == label:
                    return html.unescape(re.sub("<[^>]*>", "", problem["value"]))
        return ""

    def labels(self, kind: str) -> list[str]:
        return [s["description"] for s in self.shown() if s["_model_name"].startswith(kind)]

    @property
    def buttons(self) -> list[str]:
        """Labels of the buttons that can be pressed."""
        usable = (state for state in self.shown() if not state.get("disabled"))
        return [s["description"] for s in usable if s["_model_name"] == "ButtonModel"]

    @property
    def said(self) -> str:
        """What the HTML among the widgets says."""
        return "\n".join(s["value"] for s in self.shown() if s["_model_name"] == "HTMLModel")

    # ------------------------------------------------------------- what the person does

    async def click(self, label: str, at: int = 0) -> None:
        """Press a button, once it is there; the one at some place among those of its name."""
        model = await self.until(lambda: self.find("Button", label, at))
        await self.page.send(model, {"method": "custom", "content": {"event": "click"}})

    async def type(self, label: str, text: str) -> None:
        """Type into an input, once it is there."""
        model = await self.until(lambda: self.find("Text", label) or self.find("Textarea", label))
        for so_far in (text[: len(text) // 2], text):
            await self.page.change(model, value=so_far)

    async def choose(self, label: str, choice: str) -> None:
        """Choose one of several."""
        model = await self.until(lambda: self.find("Dropdown", label))
        at = self.page.client.widget_state[model]["_options_labels"].index(choice)
        await self.page.change(model, index=at)

    def value(self, label: str) -> str:
        """What stands in an input."""
        model = self.find("Text", label) or self.find("Textarea", label)
        assert model is not None, self.labels("Text")
        return str(self.page.client.widget_state[model]["value"])


class Page:
    """A notebook with its kernel."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._counting: set[asyncio.Task[None]] = set()
        self._running: list[asyncio.Task[Any]] = []
        self.shows_widgets = True

    async def close(self) -> None:
        """Leave nothing that runs."""
        for task in self._running:
            if not task.done():
                await self.client.km.interrupt_kernel()
            await asyncio.gather(task, return_exceptions=True)

    def state(self, reference: str) -> dict[str, Any]:
        """Return the state of a widget."""
        return self.client.widget_state[reference.removeprefix("IPY_MODEL_")]

    @property
    def focused(self) -> list[str]:
        """Labels of the inputs that were made ready to be typed into, in order."""
        states = self.client.widget_state
        return [str(states[model]["description"]) for model in self.client.focused]

    async def refuse(self, model: str) -> None:
        """Say that widgets are not known here, as front ends without them do."""
        kc = self.client.kc
        kc.shell_channel.send(kc.session.msg("comm_close", {"comm_id": model, "data": {}}))

    def run(self, source: str) -> Cell:
        """Run a cell; it may wait for what is done on its page."""
        node = nbformat.v4.new_code_cell(source)
        self.client.nb.cells.append(node)
        index = len(self.client.nb.cells) - 1
        task = asyncio.create_task(self.client.async_execute_cell(node, index))
        self._running.append(task)
        cell = Cell(self, node, task)
        if self.shows_widgets:
            watching = asyncio.create_task(self.count_views(cell))
            self._counting.add(watching)
            task.add_done_callback(lambda _: watching.cancel())
        return cell

    async def count_views(self, cell: Cell) -> None:
        """Say of each widget that asks for it that it is seen."""
        while True:
            for model in cell.views:
                state = self.client.widget_state.get(model, {})
                if state.get("_view_count") == 0:
                    state["_view_count"] = 1
                    await self.change(model, _view_count=1)
            self.client.heard.clear()
            await self.client.heard.wait()

    async def change(self, model: str, **state: Any) -> None:
        """Change a widget, as its view does."""
        self.client.widget_state[model].update(state)
        await self.send(model, {"method": "update", "state": state, "buffer_paths": []})

    async def send(self, model: str, data: dict[str, Any]) -> None:
        """Send a message of a widget, and wait until the kernel says that it is done."""
        kc = self.client.kc
        message = kc.session.msg("comm_msg", {"comm_id": model, "data": data})
        kc.shell_channel.send(message)
        async with asyncio.timeout(SECONDS):
            while message["header"]["msg_id"] not in self.client.taken:
                self.client.heard.clear()
                await self.client.heard.wait()
