"""Neighbor graphs, their kernels, label diffusion on them, and coverage."""
