"""Experiments: one file each, a frozen value with a docstring that says why."""
