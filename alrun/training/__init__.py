"""Trainers, the models they give, and evaluation."""
