"""The OpenAPI document says what the API does, and the API does what it says."""

from __future__ import annotations
