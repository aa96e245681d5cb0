"""Rewards on text: what is judged, how it is combined, what is reported."""

from __future__ import annotations

import dataclasses
import json
import types

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip(
  "tokenizers", reason="needs the extra `language` (tokenizers)"
)

from rewards.written import (
  WORDS,
  Bytes,
  answers,
  end_of,
  reward,
  rollouts,
  spaces,
)
from rl_jax.data import Prompts
from rl_jax.environments import Items, Sums
from rl_jax.experiment import from_dict, identity, to_dict
from rl_jax.rewards import Sum, Term
from rl_jax.rewards.text import repetition
from rl_jax.rewards.verifiers import Exact, FirstNumber, Json, RewardFunction
from rl_jax.types import TextRollouts
from verifiers.crooked import Crooked

SUMS = Sums(rows=4, digits=1, length=40, seed=0)


@pytest.mark.slow
def test_reward_is_the_weighted_sum_of_its_terms(bind):
  data = Prompts(task=SUMS, vocabulary=WORDS, length=8)
  terms = (
    Term(name="right", judge=FirstNumber(), weight=2.0),
    Term(name="spaces", judge=spaces, weight=-0.25),
  )
  right = [data.texts(item)[1] for item in (5, 5, 9, 11)]
  texts = [f" {right[0]}", " 99 ", f"so  {right[2]}", "  "]
  found = bind(reward(*terms), data)(rollouts(*texts, item=[5, 5, 9, 11]))
  judged = {
    "right": np.array([1, 0, 1, 0], np.float32),
    "spaces": np.array([1, 2, 2, 2], np.float32),
  }
  expected = Sum(terms=("right", "spaces"), weights=(2.0, -0.25))(
    {name: jnp.asarray(values) for name, values in judged.items()}
  )
  np.testing.assert_array_equal(found.reward, expected.reward)
  assert found.reward.tolist() == [1.75, -0.5, 1.5, -0.5]
  assert found.valid.all()
  for name, values in judged.items():
    np.testing.assert_array_equal(found.metric[name], values)


def test_a_row_without_verdict_of_one_term_is_invalid(bind):
  score = bind(reward(Crooked(), spaces), answers(3, 4, 5, 6))
  found = score(rollouts("a b", "", "raise", "x"))
  assert found.valid.tolist() == [True, False, False, True]
  assert found.reward.tolist() == [4.0, 0.0, 0.0, 6.0]
  # A term that has a verdict keeps it; one that has none is 0, not NaN.
  assert found.metric["t0"].tolist() == [3.0, 4.0, 0.0, 6.0]
  assert found.metric["t1"].tolist() == [1.0, 0.0, 0.0, 0.0]
  assert found.metric["no_verdict"].tolist() == [0.5] * 4
  assert found.metric["no_verdict_error"].tolist() == [0.25] * 4
  assert found.metric["no_verdict_other"].tolist() == [0.25] * 4
  assert score.reasons["t0"] == {"error": 1}
  assert score.reasons["t1"] == {"none": 1}


@pytest.mark.parametrize("wrap", [False, True])
def test_functions_get_the_texts_and_all_columns(wrap):
  seen = {}

  def judge(**given):
    seen.update(given)
    return [0.5] * len(given["completions"])

  data = answers("r0", "r1", "r2", topic=["a", "b", "c"])
  own = RewardFunction(function=judge, name="other") if wrap else judge
  reward(own).bind(data)(rollouts("x", "y", "z", item=[2, 0, 2]))
  assert seen == {
    "prompts": ["p2", "p0", "p2"],
    "completions": ["x", "y", "z"],
    "reference": ["r2", "r0", "r2"],
    "topic": ["c", "a", "c"],
    "step": [0, 0, 0],
  }


def shown(token, vocabulary=WORDS):
  """The completion that a judge sees of these ids."""
  seen = []

  def judge(completions, **given):
    seen.extend(completions)
    return [0.0]

  data = answers("1", vocabulary=vocabulary)
  reward(judge).bind(data)(rollouts(token, vocabulary=vocabulary))
  return seen[0]


def test_completions_come_back_as_they_were_written():
  for text in ("", " 12\n", "a = 1 + 2.", "  "):
    assert shown(WORDS.load().encode(text)) == text


def test_special_tokens_and_the_end_do_not_show():
  tokenizer = WORDS.load()
  one, end, start = tokenizer.id("1"), end_of(tokenizer), tokenizer.id("<s>")
  assert shown([one, end]) == shown([start, one]) == shown([one]) == "1"
  assert shown([end]) == shown([]) == ""
  # An end that the vocabulary does not mark as special, as the last token.
  letter, last = Bytes().load().id("a"), Bytes().load().id("<end>")
  assert shown([letter, last], Bytes()) == "a"
  assert shown([last, letter, last], Bytes()) == "<end>a"


def test_padding_neither_matters_nor_shows(bind):
  score = bind(reward(FirstNumber(), spaces), answers("1", "22", "3"))
  texts = (" 1", "22 is it", "no")
  short, long = score(rollouts(*texts)), score(rollouts(*texts, time=40))
  for name in ("reward", "valid"):
    np.testing.assert_array_equal(getattr(short, name), getattr(long, name))
  for name, values in short.metric.items():
    np.testing.assert_array_equal(values, long.metric[name])


def test_rows_do_not_depend_on_their_order_or_neighbours(bind):
  score = bind(reward(FirstNumber(), spaces), answers("1", "22", "3", "4"))
  texts = [" 1", "22 is it", "no", " 4 4 4 4 4 4"]
  whole = score(rollouts(*texts))
  order = np.array([2, 0, 3, 1])
  moved = score(rollouts(*(texts[i] for i in order), item=order))
  np.testing.assert_array_equal(moved.reward, whole.reward[order])
  alone = score(rollouts(texts[3], item=[3]))
  assert alone.reward[0] == whole.reward[3]
  for name in ("length", "repetition", "t0", "t1"):
    assert alone.metric[name][0] == whole.metric[name][3]
  again = score(rollouts(*texts))
  np.testing.assert_array_equal(again.reward, whole.reward)


def test_references_are_those_of_items_when_some_were_dropped(bind):
  task = types.SimpleNamespace(
    rows=1,
    shuffle=False,
    source=lambda: Items(3, lambda i: ("p" * (9 - 2 * i), f"{i}")),
  )
  data = Prompts(task=task, vocabulary=WORDS, length=7, too_long="drop")
  items = data.source()[np.array([0, 1])]["item"]
  assert items.tolist() == [1, 2]
  found = bind(reward(FirstNumber()), data)(rollouts("1", "2", item=items))
  assert found.reward.tolist() == [1.0, 1.0]


def test_metrics_are_always_the_same_and_numbers(bind):
  """Their names are part of a compiled program."""
  own = reward(Term(name="right", judge=Crooked()), spaces)
  score = bind(own, answers(1, 2))
  for texts in (("a", "b"), ("die", ""), ("raise", "nap")):
    found = score(rollouts(*texts, ended=[True, False]))
    assert set(found.metric) == {*own.metrics, "entropy"}
    for values in (found.reward, *found.metric.values()):
      assert values.shape == (2,)
      assert values.dtype == np.float32
      assert np.isfinite(values).all()
    assert found.valid.dtype == bool
    assert found.metric["ended"].tolist() == [1.0, 0.0]
    assert found.metric["length"].tolist() == [len(t) + 1 for t in texts]


def test_nothing_else_is_changed(bind):
  given = rollouts("1", "2")
  found = bind(reward(FirstNumber()), answers("1", "2"))(given)
  for name in set(TextRollouts._fields) - {"reward", "valid", "metric"}:
    assert getattr(found, name) is getattr(given, name)
  assert given.metric.keys() == {"entropy"}
  np.testing.assert_array_equal(given.valid, [False, False])


@pytest.mark.parametrize(
  ("token", "expected"),
  [
    ([], 0.0),
    ([1, 1, 1], 0.0),
    ([1, 2, 3, 4, 5, 6], 0.0),
    ([1, 1, 1, 1, 1], 0.5),
    ([7] * 103, 0.99),
    ([1, 2] * 5, 1 - 2 / 7),
  ],
)
def test_repetition(token, expected):
  assert repetition(np.array(token, np.int32)) == pytest.approx(expected)


def test_components_are_values():
  own = reward(
    Term(name="a", judge=Json(deepest=3), weight=0.5),
    Term(name="b", judge=spaces),
    Term(name="c", judge=RewardFunction(function=spaces, name="c")),
  )
  assert json.loads(json.dumps(to_dict(own))) == to_dict(own)
  assert dataclasses.replace(own, workers=7) != own
  # How many processes judge does not change what comes out.
  assert identity(dataclasses.replace(own, workers=7)) == identity(own)
  exact = reward(Exact(), FirstNumber())
  assert from_dict(json.loads(json.dumps(to_dict(exact)))) == exact
