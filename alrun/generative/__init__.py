"""Generators, and what they are asked for."""
