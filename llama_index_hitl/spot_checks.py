"""Decisions that rules made without a person, looked at by one later, and the error rate."""
