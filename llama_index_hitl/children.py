"""Runs within a step of another run: their questions come up, and the answers go down."""
