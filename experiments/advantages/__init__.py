"""Experiments on advantage estimators; see README.md."""
