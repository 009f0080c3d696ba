"""What has to be typed for a decision, as widgets: one input for each field, and its message."""

from __future__ import annotations

import ipywidgets as widgets  # type: ignore[import-untyped]
from markupsafe import Markup

from llama_index_hitl._html.reviews import typed
from llama_index_hitl._text import visible
from llama_index_hitl.forms import FormField

_LONG = ("textarea", "markdown", "code", "json")
_MOST_ROWS = 24


class FieldInput:
    """One thing to type, with its label, help, and what is wrong with it.

    Attributes:
        field: What is asked.
        box: The widget.
    """

    def __init__(self, field: FormField) -> None:
        self.field = field
        self._input = _input(field)
        self._problem = html_widget()
        help_text = Markup('<span class="help">{}</span>').format(visible(field.help))
        helps = [html_widget(help_text)] if field.help else []
        self.box = boxed("field", [self._input, *helps, self._problem])

    @property
    def text(self) -> str:
        """What was typed; of a choice, its value."""
        return str(self._input.value or "")

    @property
    def is_given(self) -> bool:
        """Whether this says anything: yes or no must be said, nothing is not no."""
        return self.field.widget != "boolean" or self.text != ""

    def focus(self) -> None:
        """Let the person type here at once."""
        self._input.focus()

    def say(self, problem: str) -> None:
        """Show what is wrong; an empty text: nothing is."""
        shown = Markup('<span class="problem" role="alert">{}</span>').format(visible(problem))
        self._problem.value = shown if problem else ""
        (self.box.add_class if problem else self.box.remove_class)("has-problem")


def html_widget(shown: str = "") -> widgets.HTML:
    """Return a widget that shows HTML; formulas in it stay text."""
    return widgets.HTML(shown).add_class("mathjax_ignore")


def boxed(kind: str, inside: list[widgets.Widget]) -> widgets.VBox:
    """Return widgets in a box that the style knows by its kind."""
    box = widgets.VBox(inside)
    for name in kind.split():
        box.add_class(name)
    return box


def close_widget(widget: widgets.Widget) -> None:
    """Take a widget away, with all that is in it."""
    for inside in getattr(widget, "children", ()):
        close_widget(inside)
    for part in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
        if part is not None:
            part.close()


def _input(field: FormField) -> widgets.DOMWidget:
    label = visible(field.label) + ("" if field.required else " (optional)")
    text = typed(field.value)
    if field.widget in ("choice", "boolean"):
        return _choice(field, label, text)
    if field.widget in _LONG or "\n" in text:
        rows = min(max(text.count("\n") + 1 + len(text) // 100, 3), _MOST_ROWS)
        made = widgets.Textarea(text, description=label, continuous_update=False, rows=rows)
        return made.add_class("is-code") if field.widget in ("code", "json") else made
    return widgets.Text(text, description=label, continuous_update=False)


def _choice(field: FormField, label: str, text: str) -> widgets.Dropdown:
    nothing = ("Choose…" if field.required else "None", "")
    if field.widget == "boolean":
        choices = [("Yes", "true"), ("No", "false")]
    else:
        choices = [(visible(typed(choice)), typed(choice)) for choice in field.choices]
    known = text if text in (value for _, value in choices) else ""
    return widgets.Dropdown(options=[nothing, *choices], value=known, description=label)
