"""The API reference: every public name says what it is, and shows it with an example that runs."""

import ast
import asyncio
import doctest
import inspect
import os
import re
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from api_reference import (
    NOT_HERE,
    PACKAGE,
    Public,
    constants_without_a_word,
    explained_below,
    methods,
    modules,
    names_in,
    parameters_of,
    public,
    section,
)
from pydantic import BaseModel
from workflows.events import Event

import llama_index_hitl
from llama_index_hitl.models import Value

SHARED = re.compile(r"[Tt]he examples? of `([\w.]+)`")
"""How a docstring says that the example of another name shows this one, too."""

WITHOUT_EXAMPLE = {
    "runtimes.dbos.review_server": "needs DBOS, which one process can be set up for once",
    "testing.crashes.CrashLab": "kills processes; the docstring of its module shows how",
    "testing.faults.die": "ends the process",
}
"""Public names that nothing short can show, with the reason."""

# Raised by LlamaIndex's own agents while one is made and run.
agent_warnings = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
)

FILES = sorted(
    str(path.relative_to(PACKAGE))
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


# --------------------------------------------------------------------------- the examples


def _door(file: str) -> str:
    """Return the public module that the names of a file are imported from."""
    homes = {"_submit.py": "runner", "_grant_desk.py": "runner"}
    parts = homes.get(file, file.removesuffix(".py")).split("/")
    while parts and parts[-1].startswith("_"):
        parts.pop()
    return ".".join(["llama_index_hitl", *parts])


def _names_for(file: str) -> dict[str, Any]:
    """Return what an example finds: what the top level and the modules that lead to it show."""
    parts = _door(file).split(".")
    names: dict[str, Any] = {"asyncio": asyncio}
    for end in range(1, len(parts) + 1):
        names |= names_in(".".join(parts[:end]))
    return names


def _examples_in(file: str) -> list[doctest.DocTest]:
    source = (PACKAGE / file).read_text(encoding="utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ">>> " in (ast.get_docstring(node) or ""):
            line = node.body[0].lineno - 1
            name = f"{file}:{getattr(node, 'name', '')}"
            doc = str(ast.get_docstring(node, clean=True))
            names = _names_for(file)
            found.append(doctest.DocTestParser().get_doctest(doc, names, name, file, line))
    return found


@agent_warnings
@pytest.mark.parametrize("file", FILES)
def test_examples_do_what_they_say(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "HITL_STORE", "HITL_APP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    with patch.dict(os.environ):  # they set variables of their own
        for example in _examples_in(file):
            runner.run(example, out=said.append)
    assert runner.tries, "no example was run"
    assert not runner.failures, "".join(said)


# --------------------------------------------------------------------------- what names say


def _shows(name: Public, by_name: dict[str, Public]) -> bool:
    """Tell whether a name has an example, or says whose example shows it."""
    if ">>> " in name.doc:
        return True
    shared = SHARED.search(name.doc)
    return shared is not None and any(
        ">>> " in by_name[found].doc for found in by_name if found.endswith(f".{shared[1]}")
    )


def _is_schema(value: Any) -> bool:
    """Tell whether a docstring is what a language model, or a form, is told about a model."""
    return _is_model(value) and not issubclass(value, Value)


def _is_model(value: Any) -> bool:
    plain = isinstance(value, type) and issubclass(value, BaseModel)
    return plain and not issubclass(value, Event) and ".testing." not in value.__module__


def _words_of_examples(file: str) -> set[str]:
    code = (example.source for doc in _examples_in(file) for example in doc.examples)
    return set(re.findall(r"\w+", "\n".join(code)))


def test_every_public_name_has_an_example() -> None:
    names = {name.path: name for name in public()}
    # The docstring of such a model goes into prompts and requests: others show how it is used.
    used = {word for file in FILES for word in _words_of_examples(file)}
    missing = [
        path
        for path, name in names.items()
        if not _shows(name, names)
        and path not in WITHOUT_EXAMPLE
        # An enum says what each of its members means.
        and not (isinstance(name.value, type) and issubclass(name.value, Enum))
        and not (_is_schema(name.value) and name.name in used)
    ]
    assert missing == []
    assert [
        path for path in WITHOUT_EXAMPLE if path not in names or _shows(names[path], names)
    ] == []


def _own_methods() -> list[Public]:
    """Return the methods to look at: those of stores of ours point to what `Store` says."""
    return [method for method in methods() if "see `Store." not in method.doc]


def test_every_parameter_field_and_attribute_is_explained() -> None:
    wanting = {}
    for name in (*public(), *_own_methods()):
        said = section(name.doc, "Args", "Attributes") + "\n"
        missing = [
            parameter
            for parameter in parameters_of(name.value)
            if not re.search(rf"^ +\**{parameter}: \S", said, flags=re.MULTILINE)
            and parameter not in explained_below(name.value)
        ]
        if missing:
            wanting[name.path] = missing
    assert wanting == {}


def test_every_constant_says_what_it_is() -> None:
    assert constants_without_a_word() == []


def test_every_function_says_what_it_returns() -> None:
    silent = [
        name.path
        for name in (*public(), *_own_methods())
        if inspect.isfunction(name.value)
        and inspect.signature(name.value).return_annotation not in ("None", None, "NoReturn")
        and not inspect.isgeneratorfunction(inspect.unwrap(name.value))
        and not re.match(r"(Return|Yield|Tell|Say|Draw) ", name.doc)
        and not section(name.doc, "Returns", "Yields")
    ]
    assert silent == []


def test_examples_are_no_part_of_schemas() -> None:
    models = [name.value for name in public() if _is_model(name.value)]
    told = {model: str(model.model_json_schema()) for model in models}
    assert len(told) > 30
    assert [model.__name__ for model, schema in told.items() if ">>>" in schema] == []


# --------------------------------------------------------------------------- the map


def test_the_docstring_of_the_package_is_its_map() -> None:
    text = llama_index_hitl.__doc__ or ""
    tops = {module.split(".")[1] for module in modules() if "." in module} | NOT_HERE
    assert [name for name in sorted(tops) if f"`llama_index_hitl.{name}`" not in text] == []
    assert [name for name in llama_index_hitl.__all__ if f"`{name}`" not in text] == []
    named = set(re.findall(r"`(llama_index_hitl\.\w+)`", text))
    there = {f"llama_index_hitl.{name}" for name in tops}
    assert named <= there


@pytest.mark.parametrize("module", modules())
def test_every_public_module_says_what_it_is_for(module: str) -> None:
    assert len((import_module(module).__doc__ or "").split()) > 5
