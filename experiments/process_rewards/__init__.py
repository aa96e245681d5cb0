"""Experiments on rewards of steps and what is made of them."""
