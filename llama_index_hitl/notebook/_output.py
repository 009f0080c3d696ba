"""What stands in the output of a cell, and changes in its place."""

from __future__ import annotations

from typing import Any

from IPython.display import display, update_display
from markupsafe import Markup

_EMPTY = {"text/html": "", "text/plain": ""}


class Output:
    """One place in the output of a cell. What it shows last is what is saved with the notebook."""

    def __init__(self) -> None:
        self._display_id = ""

    def show(self, shown: Markup, text: str) -> None:
        """Show HTML; the text is for what shows none."""
        self._put({"text/html": str(shown), "text/plain": text})

    def show_widget(self, widget: Any) -> None:
        """Show a widget. Nothing of it is left when the notebook is opened again."""
        view = widget.get_view_spec()
        self._put({"application/vnd.jupyter.widget-view+json": view, "text/plain": ""})

    def clear(self) -> None:
        """Show nothing."""
        if self._display_id:
            self._put(_EMPTY)

    def _put(self, bundle: dict[str, Any]) -> None:
        if self._display_id:
            update_display(bundle, raw=True, display_id=self._display_id)  # type: ignore[no-untyped-call, unused-ignore]
        else:
            handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call, unused-ignore]
            self._display_id = handle.display_id
