"""What is public in the package, and what its docstrings say: read by the tests of both."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel

import llama_index_hitl

PACKAGE = Path(llama_index_hitl.__file__).parent

DOORS = (
    "runtimes.dbos",
    "runtimes.errors",
    "runtimes.server",
    "testing.crashes",
    "testing.faults",
    "testing.llm",
    "testing.stores",
)
"""Modules in packages that are imported from by their own name, for what the package leaves out."""

NOT_HERE = frozenset({"cli", "notebook"})
"""Commands, and what needs a notebook around it: nothing that an example could call."""


@dataclass(frozen=True)
class Public:
    """A class or function that is public."""

    module: str
    name: str
    value: Any

    @property
    def path(self) -> str:
        return f"{self.module.removeprefix('llama_index_hitl').lstrip('.') or 'top'}.{self.name}"

    @property
    def doc(self) -> str:
        # Of a class its own: one that says nothing must not speak with the words of its base.
        holder = (
            vars(self.value) if isinstance(self.value, type) else {"__doc__": self.value.__doc__}
        )
        return inspect.cleandoc(holder.get("__doc__") or "")


def modules() -> list[str]:
    """Return the names of the public modules, the package itself first."""
    found = [
        path.stem if path.is_file() else path.name
        for path in sorted(PACKAGE.iterdir())
        if not path.name.startswith("_")
        and (path.suffix == ".py" or (path / "__init__.py").is_file())
    ]
    inside = [*(name for name in found if name not in NOT_HERE), *DOORS]
    return ["llama_index_hitl", *(f"llama_index_hitl.{name}" for name in inside)]


@cache
def names_in(module: str) -> dict[str, Any]:
    """Return what is public in a module: what `__all__` says, or else what is defined there."""
    found = import_module(module)
    names = getattr(found, "__all__", None)
    return {name: getattr(found, name) for name in names or _defined_in(found)}


def _defined_in(module: ModuleType) -> Iterator[str]:
    for node in _tree(str(module.__file__)).body:
        made = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        names = [node.name] if made else [target.id for target in _targets(node)]
        yield from (name for name in names if not name.startswith("_"))


def _targets(node: ast.stmt) -> list[ast.Name]:
    """Return the names that a statement gives a value, or a type."""
    found: list[Any] = node.targets if isinstance(node, ast.Assign) else []
    found = [node.target] if isinstance(node, ast.AnnAssign) else found
    return [target for target in found if isinstance(target, ast.Name)]


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def public() -> list[Public]:
    """Return every public class and function once, where it is first met."""
    found: dict[int, Public] = {}
    for module in modules():
        for name, value in names_in(module).items():
            if _is_ours(value) and (isinstance(value, type) or inspect.isfunction(value)):
                found.setdefault(id(value), Public(module, name, value))
    return list(found.values())


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith("llama_index_hitl")


def constants_without_a_word() -> list[str]:
    """Return the public constants and aliases of types that have no docstring below them."""
    said = set()
    for path in PACKAGE.rglob("*.py"):
        for node, after in pairwise(_tree(str(path)).body):
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                said |= {target.id for target in _targets(node)}
    return [
        f"{module}.{name}"
        for module in modules()
        for name, value in names_in(module).items()
        if not isinstance(value, TypeVar) and not inspect.isfunction(value)
        if not (isinstance(value, type) and _is_ours(value)) and name not in said
    ]


def methods() -> Iterator[Public]:
    """Yield the public methods of public classes, but for steps and what upstream has defined."""
    for name in public():
        bases = name.value.__mro__[1:] if isinstance(name.value, type) else ()
        upstream = [base for base in bases if not _is_ours(base)]
        for method, found in vars(name.value).items() if bases else ():
            function = getattr(found, "__func__", found)
            is_step = method.endswith("_gate") or "_step_config" in getattr(
                function, "__dict__", ()
            )
            if method.startswith("_") or not inspect.isfunction(function) or is_step:
                continue
            if _is_ours(function) and not any(hasattr(base, method) for base in upstream):
                yield Public(name.module, f"{name.name}.{method}", function)


# --------------------------------------------------------------------------- what has to be said


def parameters_of(value: Any) -> list[str]:
    """Return what has to be explained: parameters, fields, or the attributes of an error."""
    if not isinstance(value, type):
        return _named(inspect.signature(value).parameters)
    if issubclass(value, Enum):
        return list(value.__members__)
    if issubclass(value, BaseException):
        return [name for name in _assigned_in(value) if not name.startswith("_")]
    own = vars(value).get("__annotations__", {})
    if issubclass(value, BaseModel):
        fields = {name: value.model_fields[name] for name in own if name in value.model_fields}
        return [
            name for name, field in fields.items() if not _is_fixed(field) and not field.description
        ]
    if getattr(value, "_is_protocol", False):
        return []
    if hasattr(value, "__dataclass_fields__") or issubclass(value, tuple):
        return [name for name in own if not name.startswith("_")]
    made = vars(value).get("__init__")
    return [] if made is None else _named(inspect.signature(made).parameters)


def _named(parameters: Any) -> list[str]:
    return [name for name in parameters if name not in ("self", "cls") and not name.startswith("_")]


def _is_fixed(field: Any) -> bool:
    """Tell whether a field can have one value only, such as the `kind` of a decision."""
    return (
        str(get_origin(field.annotation)) == "typing.Literal"
        and len(field.annotation.__args__) == 1
    )


def _assigned_in(error: type) -> list[str]:
    return [
        target.attr
        for node in ast.walk(_class(error))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute)
    ]


@cache
def _class(cls: type) -> ast.ClassDef:
    tree = _tree(str(inspect.getsourcefile(cls)))
    return next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == cls.__name__)


def explained_below(value: Any) -> set[str]:
    """Return the attributes of a class that have a docstring of their own, right below them.

    Members of an enum may also be named, as what they are, in the docstring of the enum.
    """
    if not isinstance(value, type):
        return set()
    if issubclass(value, Enum) and all(
        f"`{member.value}`" in str(value.__doc__) for member in value
    ):
        return set(value.__members__)
    body = _class(value).body
    return {
        target.id
        for node, after in pairwise(body)
        for target in _targets(node)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }


def section(doc: str, *titles: str) -> str:
    """Return the text of some sections of a docstring."""
    lines, inside = [], False
    for line in doc.splitlines():
        if line and not line.startswith(" "):
            inside = line.rstrip(":") in titles and line.endswith(":")
        elif inside:
            lines.append(line)
    return "\n".join(lines)
