"""Runs as JSON: values keep their types, and what would not survive is refused beforehand."""

from llama_index_hitl._codec.serializer import (
    SnapshotSerializer,
    check_survives,
    context_to_dict,
    serializer_for,
)

__all__ = ["SnapshotSerializer", "check_survives", "context_to_dict", "serializer_for"]
