"""Where rows come from: index-based sources with an explicit cursor."""

from rl_jax.data.digits import Digits
from rl_jax.data.prompts import ClassPrompts
from rl_jax.data.source import Arrays, Cursor, Data, Source, start, take
from rl_jax.data.text import Prompts
from rl_jax.data.text_demonstrations import Demonstrations
from rl_jax.data.text_files import Texts
from rl_jax.data.text_packing import packed
from rl_jax.data.text_preferences import Preferences
from rl_jax.data.text_wording import Chat, Plain

__all__ = [
  "Arrays",
  "Chat",
  "ClassPrompts",
  "Cursor",
  "Data",
  "Demonstrations",
  "Digits",
  "Plain",
  "Preferences",
  "Prompts",
  "Source",
  "Texts",
  "packed",
  "start",
  "take",
]
