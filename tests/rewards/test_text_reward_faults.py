"""What goes wrong with rewards on text: workers, functions, completions."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip(
  "tokenizers", reason="needs the extra `language` (tokenizers)"
)

from rewards.written import Bytes, answers, reward, rollouts
from rl_jax.rewards import Term, TextReward
from rl_jax.rewards.verifiers import (
  Exact,
  FirstNumber,
  Report,
  RewardFunction,
  no_verdict,
)
from verifiers.crooked import Crooked, Unprepared

HOSTILE = [
  "9" * 400,
  "\\frac{" * 60,
  "a" * 200 + "!" * 200,
  '{"a":' * 60,
  "while True: pass",
  "import os; os.fork()",
  "\x00\x1b[2J\u202e",
  "[" * 400,
]


@pytest.mark.parametrize(
  ("completion", "kind"),
  [
    ("die", "died"),
    ("segfault", "died"),
    ("memory", "memory"),
  ],
)
def test_dead_workers_are_replaced_and_reported(bind, completion, kind):
  score = bind(reward(Crooked()), answers(1, 2, 3))
  found = score(rollouts("a", completion, "b"))
  assert found.valid.tolist() == [True, False, True]
  assert found.metric["workers_replaced"].tolist() == [1.0] * 3
  share = np.float32(1 / 3)
  assert found.metric[f"no_verdict_{kind}"].tolist() == [share] * 3
  again = score(rollouts("a", "c", "b"))
  assert again.reward.tolist() == [1.0, 2.0, 3.0]
  assert again.metric["workers_replaced"].tolist() == [0.0] * 3


class Told:
  """In place of a pool: has no verdict, for the reason in the completion."""

  report = Report(0, {}, {})

  def submit(self, verifier, completions, references):
    return list(completions)

  def collect(self, ticket):
    return [no_verdict(reason) for reason in ticket]


@pytest.mark.parametrize(
  ("reason", "kind"),
  [
    ("time limit", "time"),
    ("total time limit", "time"),
    ("memory limit", "memory"),
    ("died: signal 9", "died"),
    ("error: ValueError: x", "error"),
    ("sandbox: it is not there", "other"),
    ("", "other"),
  ],
)
def test_kinds_of_no_verdict(bind, reason, kind):
  """Each row counts once in its kind, however many terms have none."""
  score = bind(reward(Exact(), FirstNumber()), answers("1", "2"))
  vocabulary = Bytes()
  score._pool, score._tokenizer = Told(), vocabulary.load()
  found = score(rollouts(reason, reason, vocabulary=vocabulary))
  shares = {
    name: values[0]
    for name, values in found.metric.items()
    if name.startswith("no_verdict") and values[0]
  }
  assert shares == {"no_verdict": 1.0, f"no_verdict_{kind}": 1.0}
  assert not found.valid.any()
  assert found.reward.tolist() == [0.0, 0.0]


def test_a_reward_that_is_not_finite_is_no_verdict(bind):
  data = answers(float("inf"), float("nan"), 1.0)
  score = bind(reward(Crooked()), data)
  found = score(rollouts("a", "b", "c"))
  assert found.valid.tolist() == [False, False, True]
  assert found.reward.tolist() == [0.0, 0.0, 1.0]
  assert score.reasons["t0"] == {"not finite": 2}


def raising(**given):
  raise KeyError("missing column")


def too_few(completions, **given):
  return [0.0] * (len(completions) - 1)


@pytest.mark.parametrize(
  ("judge", "error", "words"),
  [
    (raising, RuntimeError, "'style' raised KeyError on 2 rows: 'missing"),
    (too_few, ValueError, "'style' must return one reward per row, 2, and re"),
    (lambda completions, **_: None, ValueError, "and returned None"),
    (
      RewardFunction(function=lambda completions, **_: ["a", 1], name="b"),
      ValueError,
      "'style' returned 'a' for row 0",
    ),
  ],
)
def test_a_wrong_function_stops_the_run_and_is_named(judge, error, words):
  score = reward(Term(name="style", judge=judge)).bind(answers("1", "2"))
  with pytest.raises(error, match=words):
    score(rollouts("x", "y"))


@pytest.mark.slow
def test_after_an_error_nothing_of_it_is_left():
  """The pool is closed and a later call starts a new one."""
  fail = [True]

  def judge(completions, **given):
    if fail:
      raise ValueError("once")
    return [0.0] * len(completions)

  score = reward(Crooked(), judge, workers=1).bind(answers(1, 2))
  with pytest.raises(RuntimeError, match="once"):
    score(rollouts("nap", "nap"))
  assert score._pool._process is None
  fail.clear()
  found = score(rollouts("a", "b"))
  assert found.reward.tolist() == [1.0, 2.0]
  process = score._pool._process
  score.close()
  assert process.poll() is not None


def test_a_verifier_that_cannot_be_loaded_stops_the_run(bind):
  score = bind(reward(Unprepared()), answers("1"))
  with pytest.raises(RuntimeError, match="pip install something"):
    score(rollouts("x"))


def test_bytes_that_are_no_text_are_replaced_and_judged(bind):
  """Half a character, a lone continuation, an overlong form, a surrogate."""
  encode, decoded = Bytes().load().encode, Bytes().load().decode
  euro = encode("€")
  assert len(euro) == 3
  assert decoded(euro) == "€"
  assert set(decoded(euro[:2])) == {"\ufffd"}
  assert "\ufffd" in decoded([*encode("a"), euro[1]])
  data = answers("1", "1", vocabulary=Bytes())
  broken = [euro[:1] + encode("1"), euro[1:]]
  found = bind(reward(FirstNumber()), data)(
    rollouts(*broken, vocabulary=Bytes())
  )
  assert found.valid.all()
  assert found.reward.tolist() == [1.0, 0.0]


def test_hostile_completions_get_a_verdict_each(bind):
  """Random bytes, and what the tests of the verifiers throw at them."""
  random = np.random.RandomState(0)
  completions = [
    random.randint(256, size=random.randint(40)).tolist() for _ in range(40)
  ]
  completions += [Bytes().load().encode(text) for text in HOSTILE]
  rows = len(completions)
  data = answers(*["42"] * rows, vocabulary=Bytes())
  score = bind(reward(FirstNumber(), Exact()), data)
  found = score(rollouts(*completions, vocabulary=Bytes()))
  assert found.valid.all()
  assert np.isfinite(found.reward).all()
  assert found.metric["workers_replaced"].sum() == 0
  lengths = [len(own) for own in completions]
  assert found.metric["length"].tolist() == lengths


@pytest.mark.parametrize("name", ["", "length", "no_verdict", "repetition"])
def test_terms_need_a_name_of_their_own(name):
  with pytest.raises(ValueError, match="cannot be called"):
    Term(name=name, judge=Exact())


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"terms": ()}, "one or more names"),
    ({"terms": (Term(name="a", judge=Exact()),) * 2}, "one or more names"),
    (
      {"terms": (Term(name="a", judge=Exact(), weight=float("nan")),)},
      "finite",
    ),
    ({"workers": 0}, "limits must be positive"),
    ({"seconds": 0.0}, "limits must be positive"),
    ({"memory": 0}, "limits must be positive"),
  ],
)
def test_bad_rewards_are_refused(change, words):
  settings = {"terms": (Term(name="a", judge=Exact()),)} | change
  with pytest.raises(ValueError, match=words):
    TextReward(**settings)
