"""Figures and tables: of one run while it is made, and of many runs side by side."""
