"""The notebooks as they are kept: in order, with their outputs, and with nothing of where they ran.

That they run is checked by `.ci/run`, from an installed package; what a new run has written is then
checked in the place that the environment variable `NOTEBOOKS` names.
"""

import ast
import copy
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(os.environ.get("NOTEBOOKS") or Path(__file__).parent.parent / "notebooks")
STEMS = [
    "01_your_first_review",
    "02_revise_until_good",
    "03_several_stages_and_time",
    "04_pause_and_resume",
    "05_gated_decisions",
    "06_agents_with_guarded_tools",
    "07_a_person_in_each_pattern",
    "08_compose_and_extend",
    "09_on_the_web",
    "10_test_your_own",
]

Notebook = dict[str, Any]
Check = Callable[[Notebook], Iterator[str]]

STANDS_IN = "# Stand-ins:"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGETS = "application/vnd.jupyter.widget-state+json"
MACHINE = re.compile(
    r"/(?:tmp|home|root|Users|work|var|private|usr|opt|mnt)/\w"
    r"|\b[A-Z]:\\+\w"
    r"|site-packages|dist-packages|\.venv|ipykernel_\d"
    r"|\bpypi\b|pythonhosted|\bartifactory\b"
)
WARNING = re.compile(r"\b[A-Z]\w*Warning\b")
DIFFERS = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\]):\d+|\b0x[0-9a-f]{6,}\b")
HOST = re.compile(r"\b(?:https?|wss?)://([^\s/:\"'<>)\\]+)")
KNOWN_HOSTS = {"www.w3.org", "localhost", "127.0.0.1"}
SECRET = re.compile(r"\bsk-[A-Za-z0-9_-]{16,}")


def text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def sources(notebook: Notebook, kind: str) -> list[str]:
    return [text(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def outputs(notebook: Notebook) -> Iterator[dict[str, Any]]:
    for cell in notebook["cells"]:
        yield from cell.get("outputs", ())


def texts(outputs: Any) -> Iterator[str]:
    """Give every piece of text in a part of a notebook; pictures of dots are none."""
    if isinstance(outputs, str):
        yield outputs
    elif isinstance(outputs, list) and outputs and all(isinstance(o, str) for o in outputs):
        yield "".join(outputs)
    elif isinstance(outputs, list):
        for item in outputs:
            yield from texts(item)
    elif isinstance(outputs, dict):
        for kind, item in outputs.items():
            if kind not in ("image/png", "image/jpeg"):
                yield from texts(item)


def shown(notebook: Notebook) -> str:
    """Give what readers see besides the sources, also of widgets."""
    widgets = notebook["metadata"].get("widgets")
    return "\n".join([*texts(list(outputs(notebook))), *texts(widgets)])


def parsed(source: str) -> ast.Module:
    if source.startswith("%%"):  # what the cell does with the rest, such as writing it to a file
        source = source.partition("\n")[2]
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compile(source, "cell", "exec", flags)  # type: ignore[return-value]


# --------------------------------------------------------------------------- what is checked


def is_a_notebook(notebook: Notebook) -> Iterator[str]:
    try:
        nbformat.validate(nbformat.from_dict(notebook))  # type: ignore[no-untyped-call]
    except nbformat.ValidationError as error:
        yield str(error).splitlines()[0]


def is_short(notebook: Notebook) -> Iterator[str]:
    if (count := len(notebook["cells"])) >= 25:
        yield f"it has {count} cells"


def ran_from_top_to_bottom(notebook: Notebook) -> Iterator[str]:
    ran = [c["execution_count"] for c in notebook["cells"] if c["cell_type"] == "code"]
    if ran != list(range(1, len(ran) + 1)):
        yield f"its cells are numbered {ran}"


def went_well(notebook: Notebook) -> Iterator[str]:
    for output in outputs(notebook):
        if output["output_type"] == "error":
            yield f"{output['ename']}: {output['evalue']}"
        if output.get("name") == "stderr":
            yield f"on stderr: {text(output['text'])}"
    for found in WARNING.findall(shown(notebook)):
        yield f"a warning: {found}"


def names_no_machine(notebook: Notebook) -> Iterator[str]:
    whole = "\n".join([*sources(notebook, "code"), *sources(notebook, "markdown"), shown(notebook)])
    for found in MACHINE.findall(whole):
        yield f"a place on a machine: {found}"


def tells_no_secret(notebook: Notebook) -> Iterator[str]:
    for found in SECRET.findall(json.dumps(notebook)):
        yield f"a key: {found[:8]}"


def is_the_same_each_time(notebook: Notebook) -> Iterator[str]:
    for found in DIFFERS.findall(shown(notebook)):
        yield f"it is another one each time: {found}"


def leads_nowhere_else(notebook: Notebook) -> Iterator[str]:
    for host in HOST.findall(shown(notebook)):
        if host not in KNOWN_HOSTS and not host.endswith((".example", "example.com")):
            yield f"a host in an output: {host}"


def keeps_its_outputs(notebook: Notebook) -> Iterator[str]:
    silent = [c for c in notebook["cells"] if c["cell_type"] == "code" and not c["outputs"]]
    if len(silent) * 2 > len(sources(notebook, "code")):
        yield f"{len(silent)} of its cells say nothing"


def has_a_picture(notebook: Notebook) -> Iterator[str]:
    kinds = {kind for output in outputs(notebook) for kind in output.get("data", ())}
    if not kinds & {"image/svg+xml", "image/png"}:
        yield "there is no picture"


def begins_with_a_title(notebook: Notebook) -> Iterator[str]:
    first = notebook["cells"][0]
    lines = text(first["source"]).splitlines()
    if first["cell_type"] != "markdown" or not lines[0].startswith("# "):
        yield "it has no title"
    elif not "".join(lines[1:]).strip():
        yield "it does not say what one learns"


def marks_its_stand_ins(notebook: Notebook) -> Iterator[str]:
    marked = [code for code in sources(notebook, "code") if code.startswith(STANDS_IN)]
    if len(marked) != 1:
        yield f"{len(marked)} cells are marked {STANDS_IN!r}"


def ends_in_assertions(notebook: Notebook) -> Iterator[str]:
    last = sources(notebook, "code")[-1]
    if not any(isinstance(node, ast.Assert) for node in ast.walk(parsed(last))):
        yield "its last cell of code asserts nothing"


def takes_what_is_public(notebook: Notebook) -> Iterator[str]:
    for code in sources(notebook, "code"):
        for node in ast.walk(parsed(code)):
            match node:
                case ast.Import():
                    names = [alias.name for alias in node.names]
                case ast.ImportFrom():
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                case _:
                    continue
            yield from (
                f"it imports {name}"
                for name in names
                if name.startswith("llama_index_hitl") and "._" in name
            )


def has_clean_metadata(notebook: Notebook) -> Iterator[str]:
    metadata = notebook["metadata"]
    if metadata.get("kernelspec") != KERNEL:
        yield f"its kernel is {metadata.get('kernelspec')}"
    if metadata.get("language_info", {}).get("name") != "python":
        yield "its language is not said"
    yield from (
        f"its metadata has {key}"
        for key in set(metadata) - {"kernelspec", "language_info", "widgets"}
    )
    for number, cell in enumerate(notebook["cells"]):
        if cell["metadata"]:
            yield f"cell {number} has metadata: {sorted(cell['metadata'])}"


CHECKS: list[Check] = [
    is_a_notebook,
    is_short,
    ran_from_top_to_bottom,
    went_well,
    names_no_machine,
    tells_no_secret,
    is_the_same_each_time,
    leads_nowhere_else,
    keeps_its_outputs,
    has_a_picture,
    begins_with_a_title,
    marks_its_stand_ins,
    ends_in_assertions,
    takes_what_is_public,
    has_clean_metadata,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("stem", STEMS)
def test_notebook(stem: str, check: Check) -> None:
    text = (NOTEBOOKS / f"{stem}.ipynb").read_text(encoding="utf-8")
    assert list(check(json.loads(text))) == []


def test_nothing_else_lies_among_the_notebooks() -> None:
    others = {path.name for path in NOTEBOOKS.iterdir()} - {f"{stem}.ipynb" for stem in STEMS}
    assert others <= {"pictures", ".ipynb_checkpoints"}


def test_the_readme_leads_to_each() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert [stem for stem in STEMS if f"](notebooks/{stem}.ipynb)" not in readme] == []


def test_the_suite_does_not_run_notebooks(request: pytest.FixtureRequest) -> None:
    assert [item for item in request.session.items if item.path.suffix == ".ipynb"] == []


# --------------------------------------------------------------------------- can the checks fail?


def markdown(number: int, *lines: str) -> Notebook:
    return {
        "id": f"cell-{number:02d}",
        "cell_type": "markdown",
        "metadata": {},
        "source": "\n".join(lines),
    }


def code(number: int, count: int, *lines: str, outputs: list[dict[str, Any]]) -> Notebook:
    return {
        **markdown(number, *lines),
        "cell_type": "code",
        "execution_count": count,
        "outputs": outputs,
    }


def printed(said: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": [said]}


def good() -> Notebook:
    """Make a notebook with which nothing is wrong."""
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/svg+xml": "<svg/>"}}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": dict(KERNEL), "language_info": {"name": "python"}},
        "cells": [
            markdown(1, "# A story", "", "Of a picture, in one minute."),
            code(2, 1, "# Stand-ins: nobody is here", "await sit()", outputs=[printed("me\n")]),
            code(3, 2, "picture", outputs=[picture]),
            code(4, 3, "assert picture", outputs=[]),
        ],
    }


def long(notebook: Notebook) -> None:
    notebook["cells"] += [markdown(number, "More.") for number in range(5, 26)]


def says(said: str, name: str = "stdout") -> Callable[[Notebook], None]:
    def say(notebook: Notebook) -> None:
        notebook["cells"][1]["outputs"].append(printed(said, name))

    return say


def shows(kind: str, data: str) -> Callable[[Notebook], None]:
    def show(notebook: Notebook) -> None:
        notebook["cells"][2]["outputs"][0]["data"][kind] = data

    return show


def source_of(number: int, source: str) -> Callable[[Notebook], None]:
    def write(notebook: Notebook) -> None:
        notebook["cells"][number]["source"] = source

    return write


def field_of(number: int, name: str, value: Any) -> Callable[[Notebook], None]:
    def change(notebook: Notebook) -> None:
        notebook["cells"][number][name] = value

    return change


def metadata(name: str, value: Any) -> Callable[[Notebook], None]:
    def change(notebook: Notebook) -> None:
        notebook["metadata"][name] = value

    return change


def twice(notebook: Notebook) -> None:
    notebook["cells"][1]["source"] += "\n# Stand-ins: again"
    notebook["cells"][2]["source"] = "# Stand-ins: again\n" + notebook["cells"][2]["source"]


RAISED = {"output_type": "error", "ename": "KeyError", "evalue": "'a'", "traceback": []}
WIDGET = {WIDGETS: {"state": {"a": {"state": {"value": "<p>/home/me/notes</p>"}}}}}

BROKEN: list[tuple[Check, Callable[[Notebook], None]]] = [
    (is_a_notebook, field_of(1, "cell_type", "poem")),
    (is_a_notebook, field_of(1, "outputs", None)),
    (is_short, long),
    (ran_from_top_to_bottom, field_of(2, "execution_count", 3)),
    (ran_from_top_to_bottom, field_of(2, "execution_count", None)),
    (ran_from_top_to_bottom, field_of(1, "execution_count", 2)),
    (went_well, field_of(1, "outputs", [RAISED])),
    (went_well, says("careful", "stderr")),
    (went_well, says("DeprecationWarning: do not")),
    (went_well, shows("text/html", "<pre>UserWarning: careful</pre>")),
    (names_no_machine, says("kept in /tmp/abc")),
    (names_no_machine, says("kept in C:\\Users\\me")),
    (names_no_machine, says("File lib/site-packages/x.py")),
    (names_no_machine, shows("text/html", "<a href='/home/me/x'>")),
    (names_no_machine, source_of(1, "# Stand-ins: x\nopen('/Users/me/x')")),
    (names_no_machine, source_of(0, "# A story\n\nSee /root/notes.")),
    (names_no_machine, says("Looking in indexes: https://pypi.example.com/simple")),
    (names_no_machine, metadata("widgets", WIDGET)),
    (tells_no_secret, source_of(1, "# Stand-ins: x\nkey = 'sk-" + "a" * 24 + "'")),
    (is_the_same_each_time, says("at http://127.0.0.1:45123/")),
    (is_the_same_each_time, says("<Workflow object at 0x7f1200aa>")),
    (leads_nowhere_else, shows("text/html", "<img src='https://cdn.evil.org/x.js'>")),
    (keeps_its_outputs, lambda notebook: [c.update(outputs=[]) for c in notebook["cells"][1:]]),
    (has_a_picture, field_of(2, "outputs", [printed("a picture\n")])),
    (begins_with_a_title, source_of(0, "A story")),
    (begins_with_a_title, source_of(0, "# A story\n")),
    (begins_with_a_title, lambda notebook: notebook["cells"].pop(0)),
    (marks_its_stand_ins, source_of(1, "await sit()")),
    (marks_its_stand_ins, twice),
    (ends_in_assertions, source_of(3, "await sit()  # assert")),
    (ends_in_assertions, lambda notebook: notebook["cells"].pop()),
    (takes_what_is_public, source_of(2, "from llama_index_hitl._advance import Advancer")),
    (takes_what_is_public, source_of(2, "from llama_index_hitl import _advance")),
    (takes_what_is_public, source_of(2, "%%writefile x.py\nfrom llama_index_hitl import _text")),
    (takes_what_is_public, source_of(2, "import llama_index_hitl.web._site as site")),
    (has_clean_metadata, metadata("toc", {})),
    (has_clean_metadata, metadata("kernelspec", {**KERNEL, "name": "my-venv"})),
    (has_clean_metadata, field_of(1, "metadata", {"execution": {"iopub.status.busy": "12:00"}})),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_each_check_has_nothing_against_a_good_notebook(check: Check) -> None:
    assert list(check(good())) == []


@pytest.mark.parametrize(
    ("check", "spoil"), BROKEN, ids=[f"{check.__name__}-{n}" for n, (check, _) in enumerate(BROKEN)]
)
def test_each_check_finds_what_it_is_for(check: Check, spoil: Callable[[Notebook], None]) -> None:
    notebook = copy.deepcopy(good())
    spoil(notebook)
    assert list(check(notebook)) != []


def test_no_check_is_left_untried() -> None:
    assert {check for check, _ in BROKEN} == set(CHECKS)
