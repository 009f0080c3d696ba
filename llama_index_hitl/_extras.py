"""Optional dependencies: one place that turns a missing one into one clear error."""

from importlib import import_module
from types import ModuleType

from llama_index_hitl.errors import MissingExtra


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: Name of the module to import.
        extra: The extra of this package that brings it.
        purpose: What it is needed for, to complete "... is needed for".

    Raises:
        MissingExtra: The module is not installed; the message holds the pip line.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise MissingExtra(module, extra=extra, purpose=purpose) from error
