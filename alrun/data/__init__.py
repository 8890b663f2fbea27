"""Data sets: a pool with hidden labels and a test set, one file for each kind of source."""
