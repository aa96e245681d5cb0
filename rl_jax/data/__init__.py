"""Where rows come from: index-based sources with an explicit cursor."""

from rl_jax.data.digits import Digits
from rl_jax.data.item_index import (
  ItemIndex,
  deduplicate_codes,
  format_index_tokens,
  residual_kmeans,
)
from rl_jax.data.labelled import (
  LabelledResponse,
  LabelledResponses,
  balance_indices,
  labelled_pairs,
  read_labelled,
)
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
  "ItemIndex",
  "LabelledResponse",
  "LabelledResponses",
  "Plain",
  "Preferences",
  "Prompts",
  "Source",
  "Texts",
  "balance_indices",
  "deduplicate_codes",
  "format_index_tokens",
  "labelled_pairs",
  "packed",
  "read_labelled",
  "residual_kmeans",
  "start",
  "take",
]
