"""Preferences of sums, as the tests of pairs and of their scores use them."""

from __future__ import annotations

from rl_jax.data import Preferences
from rl_jax.models import Characters

WORDS = Characters(
  alphabet="0123456789+-=?:. \n[]abcdefghijklmnopqrstuvwxyzHA",
  pad="<pad>",
  template="{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
  "{% if add_generation_prompt %}[assistant:{% endif %}",
)
SUMS = (("1+1=", "2", "3"), ("2+2=", "4", "22", 0.5), ("3+3=", "6", "9", 2.0))


def preferences(**change):
  settings = {
    "rows": 2,
    "pairs": SUMS,
    "vocabulary": WORDS,
    "length": 12,
    "identical": "refuse",
  }
  return Preferences(**(settings | change))
