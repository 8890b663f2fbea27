"""Neighbor graphs, their kernels, label diffusion and label propagation on them."""
