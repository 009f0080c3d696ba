"""The package as a whole: what it imports, what it shows, what it leaves out."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from workflows.events import StartEvent
from workflows.utils import get_steps_from_class

import llama_index_hitl
from llama_index_hitl import prebuilt
from llama_index_hitl._extras import require
from llama_index_hitl.errors import MissingExtra

ROOT = Path(__file__).parent.parent
OPTIONAL = (
    "llama_index.core",
    "llama_index.llms",
    "openai",
    "typer",
    "rich",
    "pytest",
    "hypothesis",
)


def _imported_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_package_imports_neither_llama_index_core_nor_an_extra() -> None:
    modules = _imported_by("import llama_index_hitl")
    assert "workflows" in modules
    assert not [name for name in modules if name.startswith(OPTIONAL)]


@pytest.mark.parametrize("module", ["prebuilt", "rules", "testing"])
def test_what_needs_no_model_imports_no_llama_index_core(module: str) -> None:
    assert "llama_index.core" not in _imported_by(f"import llama_index_hitl.{module}")


def test_the_core_imports_neither_workflows_nor_asyncio() -> None:
    stub = "import sys, types; sys.modules['llama_index_hitl'] = p = types.ModuleType('x'); "
    stub += f"p.__path__ = [{str(ROOT / 'llama_index_hitl')!r}]; "
    for core in ("models", "lifecycle", "policies", "rules", "forms", "rendering"):
        modules = _imported_by(f"{stub}import llama_index_hitl.{core}")
        assert not modules & {"workflows", "llama_index", "sqlalchemy", "jsonschema"}, core


@pytest.mark.parametrize("name", ["", ".prebuilt", ".testing"])
def test_all_is_sorted_and_true(name: str) -> None:
    module = import_module(f"llama_index_hitl{name}")
    # As the linter sorts: constants first.
    assert module.__all__ == sorted(
        module.__all__, key=lambda public: (not public.isupper(), public)
    )
    assert all(hasattr(module, public) for public in module.__all__)


def test_every_public_name_is_documented() -> None:
    for name in set(llama_index_hitl.__all__) - {"Clock"}:  # an alias has no docstring of its own
        assert getattr(llama_index_hitl, name).__doc__, name


def test_a_missing_extra_is_one_error_with_the_pip_line() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'llama-index-hitl\[cli\]'"):
        require("no_such_module_anywhere", extra="cli", purpose="this test")


def test_an_error_inside_an_installed_extra_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_extra.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError) as caught:
        require("broken_extra", extra="cli", purpose="this test")
    assert not isinstance(caught.value, MissingExtra)


def test_the_package_is_typed_and_its_version_is_in_the_changes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (ROOT / "llama_index_hitl" / "py.typed").exists()
    assert f"- {project['version']}:" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_top_level_holds_what_it_may() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    top = {path.split("/")[0] for path in tracked}
    allowed = {"pyproject.toml", "llama_index_hitl", "tests", "notebooks", "README.md", "LICENSE"}
    assert not {name for name in top if not name.startswith(".")} - allowed


def test_every_ready_workflow_says_what_run_takes() -> None:
    flows = [
        found
        for name in prebuilt.__all__
        if isinstance(found := getattr(prebuilt, name), type)
        and issubclass(found, prebuilt.ReviewWorkflow)
        and found is not prebuilt.ReviewWorkflow
    ]
    assert len(flows) > 10
    for flow in flows:
        said = re.search(r"`run` takes the fields of `(\w+)`", flow.__doc__ or "")
        taken = {
            kind.__name__
            for method in get_steps_from_class(flow).values()
            for kind in method._step_config.accepted_events
            if issubclass(kind, StartEvent)
        }
        assert said is not None, flow
        assert {said[1]} == taken, flow
        assert said[1] in prebuilt.__all__
