"""Where rows come from: index-based sources with an explicit cursor."""

from rl_jax.data.digits import Digits
from rl_jax.data.prompts import ClassPrompts
from rl_jax.data.source import Arrays, Cursor, Data, Source, start, take

__all__ = [
  "Arrays",
  "ClassPrompts",
  "Cursor",
  "Data",
  "Digits",
  "Source",
  "start",
  "take",
]
