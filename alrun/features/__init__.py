"""Featurizers: the matrix in which graphs and covers are built."""
