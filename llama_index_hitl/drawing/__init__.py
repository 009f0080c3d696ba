"""Pictures, as SVG: of a workflow, of what happened in a run, of what changed in a draft.

    draw_workflow(ArticleFlow)              # its steps, its gates and the events between them
    await draw_run(runner, run_id)          # who was asked what, how long it took, who decided
    draw_changes(request)                   # this draft beside the one before

A notebook shows a `Picture` that is the last value of a cell; `picture.save("flow.svg")` keeps it
for a page. Pictures bring their own background, so that they can be read on light and dark pages;
the same data give the same picture, byte for byte, and no text in it can act as markup. Nothing has
to be installed for them.
"""

from llama_index_hitl.drawing._changes import draw_changes
from llama_index_hitl.drawing._picture import Picture
from llama_index_hitl.drawing._run import draw_run
from llama_index_hitl.drawing._workflow import draw_workflow

__all__ = ["Picture", "draw_changes", "draw_run", "draw_workflow"]
