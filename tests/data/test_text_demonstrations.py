"""Answers to imitate: which tokens are learned, and packing that loses none."""

from __future__ import annotations

import json
import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tokenizers", reason="needs the extra `language`")

from rl_jax.data import (
  Chat,
  Demonstrations,
  Plain,
  Prompts,
  Texts,
  packed,
  start,
  take,
)
from rl_jax.environments import Sums
from rl_jax.environments.texts import Items
from rl_jax.experiment import from_dict, to_dict
from rl_jax.models import Attention, Characters, Decoder

WORDS = Characters(
  alphabet="0123456789+-=?: []abcdefghijklmnopqrstuvwxyz",
  pad="<pad>",
  template="{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
  "{% if add_generation_prompt %}[assistant:{% endif %}",
)
SUMS = Sums(rows=4, digits=2, length=60, seed=1)
lengths = st.lists(st.integers(1, 12), max_size=60)


def demonstrations(**change):
  settings = {"task": SUMS, "vocabulary": WORDS, "length": 24, "pack": False}
  return Demonstrations(**(settings | {"answer": " {answer}"} | change))


def everything(data):
  source = data.source()
  return source[np.arange(len(source))]


def read(rows):
  """Each demonstration of each row as (given text, learned text)."""
  tokenizer, found = WORDS.load(), []
  for token, segment, mask in zip(
    rows["token"], rows["segment"], rows["mask"], strict=True
  ):
    for number in range(1, segment.max() + 1):
      given, learned = (
        tokenizer.decode(
          token[(segment == number) & own].tolist(), special=True
        )
        for own in (~mask, mask)
      )
      found.append((given, learned))
  return found


@given(lengths, st.integers(12, 40))
@settings(max_examples=200, deadline=None)
def test_packing_covers_every_text_once_and_fills_no_row_too_far(
  sizes, capacity
):
  rows = packed(sizes, capacity)
  assert sorted(text for row in rows for text in row) == list(range(len(sizes)))
  for row in rows:
    assert row == sorted(row)
    assert row
    assert sum(sizes[text] for text in row) <= capacity


@given(lengths, st.integers(12, 40))
@settings(max_examples=200, deadline=None)
def test_packing_is_first_fit(sizes, capacity):
  """Against the definition, which looks at every row for every text."""
  rows, room = [], []
  for text, size in enumerate(sizes):
    first = next((n for n, left in enumerate(room) if left >= size), len(rows))
    if first == len(rows):
      rows.append([])
      room.append(capacity)
    rows[first].append(text)
    room[first] -= size
  assert packed(sizes, capacity) == rows


def test_packing_of_many_texts_is_quick_and_tight():
  sizes = np.random.RandomState(0).randint(1, 512, 20_000).tolist()
  rows = packed(sizes, 1024)
  assert sum(sizes) / (1024 * len(rows)) > 0.99


@pytest.mark.parametrize("size", [0, -1, 6])
def test_texts_that_no_row_can_take_are_refused(size):
  with pytest.raises(ValueError, match=f"text 1 has {size} tokens, .* 1 to 5"):
    packed([3, size], 5)


def test_answers_and_their_end_are_learned():
  rows = everything(demonstrations())
  items = SUMS.source()[np.arange(60)]
  assert read(rows) == [
    (prompt, f" {reference}<end>")
    for prompt, reference in zip(
      items["prompt"], items["reference"], strict=True
    )
  ]
  assert [x.dtype.name for x in rows.values()] == ["int32", "int32", "bool"]
  assert {x.shape for x in rows.values()} == {(60, 24)}


@pytest.mark.parametrize("pack", [False, True])
def test_padding_comes_last_and_counts_nowhere(pack):
  rows = everything(demonstrations(pack=pack, length=50))
  padding = rows["segment"] == 0
  assert padding.any()
  np.testing.assert_array_equal(padding, np.sort(padding, axis=1))
  assert not rows["mask"][padding].any()
  assert (rows["token"][padding] == WORDS.load().id("<pad>")).all()


@pytest.mark.parametrize("length", [26, 50, 300])
def test_packed_rows_hold_every_demonstration_once(length):
  alone = read(everything(demonstrations()))
  rows = everything(demonstrations(pack=True, length=length))
  assert sorted(read(rows)) == sorted(alone)
  assert len(rows["token"]) < 60
  # Segments are 1, 2, ... without gaps, each in one piece.
  for row in rows["segment"]:
    inside = row[row > 0]
    assert set(np.diff(inside)) <= {0, 1}
    assert inside[0] == 1


@pytest.mark.slow
def test_a_decoder_sees_packed_demonstrations_as_if_alone():
  """Log-probabilities of all learned tokens, whoever shares their row."""
  model = Decoder(
    vocabulary=WORDS.size,
    width=8,
    layers=1,
    mlp=8,
    attention=Attention(heads=2, features=4),
  )
  params = model.init(jax.random.key(0))

  @jax.jit
  def log_probs(token, segment):
    logits = model.logits(params, model.hidden(params, token, segment))
    scores = jax.nn.log_softmax(logits)[:, :-1]
    return jnp.take_along_axis(scores, token[:, 1:, None], axis=-1)[..., 0]

  def learned(data):
    rows = everything(data)
    found = np.asarray(log_probs(rows["token"], rows["segment"]))
    return np.sort(found[rows["mask"][:, 1:]])

  task = Sums(rows=4, digits=2, length=12, seed=1)
  alone, together = (
    learned(demonstrations(task=task, pack=pack, length=48))
    for pack in (False, True)
  )
  np.testing.assert_allclose(together, alone, atol=1e-5)


def test_packing_does_not_depend_on_the_batch_and_resumes():
  data = demonstrations(pack=True, length=40)
  source, cursor, seen = data.source(), start(), []
  for _ in range(6):
    index, cursor = take(
      len(source), cursor, rows=data.rows, seed=3, shuffle=data.shuffle
    )
    seen.append((source[index], index, cursor))
  again = demonstrations(pack=True, length=40).source()
  index, _ = take(len(again), seen[2][2], rows=4, seed=3, shuffle=True)
  np.testing.assert_array_equal(index, seen[3][1])
  for name, array in again[index].items():
    np.testing.assert_array_equal(array, seen[3][0][name])


@pytest.mark.slow
def test_prompts_are_those_that_the_policy_will_see():
  wording = Chat(ask="what is {prompt}?", prefill="{prompt}")
  rows = everything(demonstrations(wording=wording, length=64))
  prompts = Prompts(task=SUMS, vocabulary=WORDS, length=64, wording=wording)
  asked = prompts.source()[np.arange(60)]
  for row in range(60):
    given = (rows["segment"][row] > 0) & ~rows["mask"][row]
    np.testing.assert_array_equal(
      rows["token"][row][given], asked["prompt"][row][asked["prompt_mask"][row]]
    )


def test_conversations_are_learned_in_their_last_answer():
  talk = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d"},
  ]
  task = Texts(rows=1, origin=({"messages": talk},), prompt="messages")
  data = demonstrations(
    task=task, wording=Chat(), answer="{answer}", end="]", length=64
  )
  assert read(everything(data)) == [
    ("[user:a][assistant:b][user:c][assistant:", "d]")
  ]


@pytest.mark.parametrize("pack", [False, True])
def test_too_long_demonstrations_are_refused_or_dropped(pack, caplog):
  task = Texts(
    rows=1,
    origin=(("1", "2"), ("1", "2345678"), ("3", "4")),
    answer="answer",
  )
  change = {"task": task, "answer": "{answer}", "length": 6, "pack": pack}
  # Three tokens each, the ends included; the second has nine.
  with pytest.raises(
    ValueError, match="demonstration 1 has 9 tokens, more than"
  ):
    everything(demonstrations(**change))
  with caplog.at_level(logging.WARNING):
    rows = everything(demonstrations(**change, too_long="drop"))
  assert read(rows) == [("1", "2<end>"), ("3", "4<end>")]
  assert len(rows["token"]) == (1 if pack else 2)
  assert "1 of 3 demonstrations have more than length = 6" in caplog.text


def test_an_empty_answer_is_learned_as_its_end():
  task = Texts(rows=1, origin=(("1", ""),), answer="answer")
  rows = everything(demonstrations(task=task, answer="{answer}"))
  assert read(rows) == [("1", "<end>")]


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"length": 0}, "length must be at least 1"),
    ({"answer": "x"}, r"lacks \{answer\}"),
    ({"end": "<stop>"}, "answer of item 0: the vocabulary has no token"),
    ({"answer": "{answer}!"}, r"answer of item 0: the alphabet lacks \['!'\]"),
    ({"wording": Plain(begin=True)}, "prompt of item 0: .*names no bos"),
  ],
)
def test_bad_settings_are_refused(change, words):
  with pytest.raises(ValueError, match=words):
    demonstrations(**change).source()[np.array([0])]


def test_only_text_can_be_learned():
  task = types.SimpleNamespace(
    rows=1, shuffle=True, source=lambda: Items(1, lambda i: ("1", {"a": 1}))
  )
  for pack in (False, True):
    with pytest.raises(ValueError, match=r"reference of item 0 is \{'a': 1\}"):
      everything(demonstrations(task=task, pack=pack))


def test_components_are_values():
  data = demonstrations(wording=Chat())
  data.source()
  assert from_dict(json.loads(json.dumps(to_dict(data)))) == data
  assert data.source() is data.source()
  assert (data.rows, data.shuffle) == (4, True)
