"""Wasserstein core sets: selections of least transport cost, with certified bounds."""
