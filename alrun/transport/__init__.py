"""Optimal transport between the pool and a selection."""
