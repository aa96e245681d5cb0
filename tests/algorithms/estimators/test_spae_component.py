"""SPAE in a recipe: what is probed, what becomes of it, what is reported."""

from __future__ import annotations

import dataclasses
import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from algorithms.steps import close
from rl_jax.algorithms import Scoring
from rl_jax.algorithms.components import EveryToken
from rl_jax.algorithms.estimators.probe_contexts import build_probe_batch
from rl_jax.algorithms.estimators.spae import Spae, boundary_ids, spae_recipe
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.algorithms.responses import Responses
from rl_jax.algorithms.view import View

pytestmark = pytest.mark.slow

SEGMENTS = 3
# Of the letters abcd: b ends a step, c the thinking, d asks for the answer.
SPAE = Spae(
  boundary=(1,), forcing=(3,), think_end=2, steps=2, length=1, samples=2
)
PROMPT = np.array([[0, 3, 1], [2, 0, 3], [1, 2, 0], [0, 1, 2]])
PROMPT_MASK = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 1, 1]], bool)
TOKEN = np.array(
  [
    [0, 1, 3, 1, 0, 1],  # three boundaries, room for two
    [3, 1, 2, 1, 0, 1],  # one before the thinking ends
    [0, 0, 0, 0, 0, 4],  # none
    [1, 0, 1, 0, 0, 0],  # cut after three tokens
  ]
)
MASK = np.arange(6) < np.array([6, 6, 6, 3])[:, None]
ANSWER = np.array([[3, 1], [0, 0], [2, 0], [1, 1]])
ANSWER_MASK = np.array([[1, 1], [1, 0], [1, 0], [1, 1]], bool)
ENDS = [[1, 3], [1], [], [0, 2]]


def view_of(model, params):
  return View(
    model=model,
    params=params,
    adapter=None,
    temperature=0.8,
    scoring=Scoring(),
    responses=Responses(
      *(jnp.asarray(x) for x in (PROMPT, PROMPT_MASK, TOKEN, MASK))
    ),
    extra={
      "answer": jnp.asarray(ANSWER),
      "answer_mask": jnp.asarray(ANSWER_MASK),
    },
    key=jax.random.split(jax.random.key(0), 4),
    shared=1,
    networks={},
  )


@jax.jit
def _log_prob(params, token, length):
  segment = (jnp.arange(token.shape[0]) < length)[None].astype(int)
  h = letters.MODEL.hidden(params, token[None], segment)
  z = letters.MODEL.logits(params, h[0, length - 1]) / 0.8
  return jax.nn.log_softmax(z)


def _next(params, ids):
  """Log p after a context that is padded on the right."""
  token = np.resize(np.array(ids), 16)
  return np.asarray(_log_prob(params, token, len(ids)), np.float64)


def _expected(params, aggregation):
  """Contexts joined by hand; one token of a continuation needs no draw."""
  found = np.zeros((4, 2))
  for row, ends in enumerate(ENDS):
    for k, end in enumerate(ends):
      context = [
        *PROMPT[row][PROMPT_MASK[row]],
        *TOKEN[row, : end + 1],
        *SPAE.forcing,
      ]
      first = _next(params, context)
      sure = np.exp(np.sum(np.exp(first) * first))
      given, right, total = list(context), [], 0.0
      for place, one in enumerate(ANSWER[row][ANSWER_MASK[row]]):
        log_p = _next(params, given)
        right.append(np.exp(log_p[one]))
        # The continuation has one place only, and the rest is missing.
        total += log_p[one] if place == 0 else -10.0
        given.append(one)
      acc = np.mean(right)
      if aggregation == "release":
        acc = np.exp(total) / len(right)
      found[row, k] = 1.5 * acc * sure + 0.5 * acc - sure
  return found


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["equations", "release"])
def test_probes_equal_contexts_joined_by_hand(aggregation):
  """Of a decoder that attends: padding and other rows do not matter."""
  model = letters.MODEL
  params = letters.Drawn(size=2.0).params(model)
  own = dataclasses.replace(SPAE, aggregation=aggregation)
  found = jax.jit(lambda p: own.ask(view_of(model, p)))(params)
  expected = _expected(params, aggregation)
  close(found["spae_potential"], expected, rtol=1e-4, atol=1e-5)
  assert np.ptp(expected[expected != 0]) > 0.05
  assert found["spae_count"].tolist() == [2, 1, 0, 2]
  assert found["spae_found"].tolist() == [3, 1, 0, 2]
  assert found["spae_thinking"].tolist() == [6, 2, 6, 3]
  assert found["spae_index"].tolist() == [
    [0, 0, 1, 1, -1, -1],
    [0, 0, -1, -1, -1, -1],
    [-1] * 6,
    [0, 1, 1, -1, -1, -1],
  ]


def test_a_row_is_probed_by_its_own_key():
  """Whatever stands beside it; and another key draws something else."""
  params = letters.Drawn(size=0.0).params(letters.BIGRAM)
  own = dataclasses.replace(SPAE, length=3)

  @jax.jit
  def ask(key, order):
    view = view_of(letters.BIGRAM, params)
    view = dataclasses.replace(
      view,
      key=key[order],
      responses=Responses(*(x[order] for x in view.responses[:4])),
      extra={name: x[order] for name, x in view.extra.items()},
    )
    return own.ask(view)["spae_potential"]

  keys = jax.random.split(jax.random.key(0), 4)
  first = ask(keys, jnp.arange(4))
  order = jnp.array([2, 0, 3, 1])
  close(ask(keys, order), first[order], rtol=1e-6, atol=1e-7)
  assert not np.allclose(ask(keys[::-1], jnp.arange(4)), first)


def test_contexts_equal_lists_joined():
  """Ragged prompts, responses with gaps, rows of no, some and all steps."""
  rng = np.random.default_rng(0)
  rows, columns, time = 5, 4, 9
  prompt = rng.integers(10, 20, (rows, columns))
  prompt_mask = np.arange(columns) >= rng.integers(0, columns, rows)[:, None]
  token = rng.integers(20, 30, (rows, time))
  mask = np.arange(time) < np.array([9, 6, 9, 0, 3])[:, None]
  mask[2, 3] = False
  index = np.full((rows, time), -1)
  index[0] = [0, 0, 1, 1, 1, 2, 2, 2, 2]
  index[1, :4] = [0, 1, 1, 1]
  index[2, :5] = [0, 0, 0, -1, 1]
  forcing = np.array([7, 8])
  build = jax.jit(partial(build_probe_batch, num_segments=SEGMENTS))
  contexts = jax.device_get(
    build(prompt, prompt_mask, token, mask, index, forcing)
  )
  assert contexts.token.shape == (rows, SEGMENTS, columns + time + 2)
  for row in range(rows):
    for k in range(SEGMENTS):
      ends = np.flatnonzero(index[row] == k)
      expected = []
      if len(ends):
        through = np.arange(time) <= ends[-1]
        expected = [
          *prompt[row][prompt_mask[row]],
          *token[row][through & mask[row]],
          *forcing,
        ]
        assert contexts.mask[row, k, -1]
      found = contexts.token[row, k][contexts.mask[row, k]]
      assert found.tolist() == expected


POTENTIAL = np.array([[0.2, 0.95], [0.92, 7.0], [7.0, 7.0], [-0.5, 0.1]])


def estimated(batch, credit=SPAE):
  recipe = spae_recipe(credit=credit)
  return jax.jit(partial(recipe.estimate, num_groups=2))(batch)


def batch_of(**changes):
  index = np.full((4, 6), -1)
  for row, ends in enumerate(ENDS):
    for k, end in reversed(list(enumerate(ends))):
      index[row, : end + 1] = k
  fields = {
    "log_prob": jnp.zeros((4, 6)),
    "behaviour_log_prob": jnp.zeros((4, 6)),
    "mask": jnp.asarray(MASK),
    "reward": jnp.array([1.0, 0.0, 1.0, 0.0]),
    "group": jnp.array([0, 0, 1, 1]),
    "valid": jnp.ones(4, bool),
    "extra": {
      "spae_potential": jnp.asarray(POTENTIAL, jnp.float32),
      "spae_index": jnp.asarray(index),
      "spae_count": jnp.array([2, 1, 0, 2]),
      "spae_found": jnp.array([3, 1, 0, 2]),
      "spae_thinking": jnp.array([6, 2, 6, 3]),
    },
  }
  return PolicyBatch(**(fields | changes))


def test_advantages_of_the_recipe_equal_the_paper():
  """Worked by hand from the steps above; potentials of no step are 7."""
  signals = estimated(batch_of()).signals
  differences = [[0.0, 0.75], [0.0], [], [0.0, 0.6]]
  raised = [np.exp(np.array(d) / (0.75 + 1e-8)) for d in differences]
  middle = np.concatenate(raised).mean()
  expected = np.zeros((4, 6))
  for row, own in enumerate([0.5, -0.5, 0.5, -0.5]):
    expected[row] = own
    start = 0
    for k, end in enumerate(ENDS[row]):
      settled = np.sum(POTENTIAL[row, :k] > 0.9)
      f = 1 - 0.5 * (1 - np.exp(-settled))
      expected[row, start : end + 1] = own * f + 0.5 * (raised[row][k] - middle)
      start = end + 1
  every = expected[MASK]
  expected = np.where(MASK, (expected - every.mean()) / every.std(), 0.0)
  close(signals.advantage, expected, rtol=1e-5, atol=1e-6)


def test_without_both_terms_it_is_the_credit_of_every_token():
  off = dataclasses.replace(SPAE, alpha=0.0, xi=0.0)
  plain = dataclasses.replace(spae_recipe(credit=off), credit=EveryToken())
  batch = batch_of()
  close(
    estimated(batch, off).signals.advantage,
    jax.jit(partial(plain.signals, num_groups=2))(batch).advantage,
    rtol=1e-6,
    atol=1e-7,
  )


def test_rows_without_a_verdict_have_no_steps():
  """A third row in each group; NaN there reaches nobody."""

  def wider(x):
    x = np.asarray(x)
    junk = np.full_like(x, np.nan) if x.dtype == np.float32 else x
    return np.concatenate([x, junk[:2]])

  batch = batch_of()
  more = jax.tree.map(wider, batch)._replace(valid=np.arange(6) < 4)
  found, expected = estimated(more), estimated(batch)
  close(
    found.signals.advantage[:4],
    expected.signals.advantage,
    rtol=1e-6,
    atol=1e-7,
  )
  np.testing.assert_array_equal(found.signals.advantage[4:], 0.0)
  assert letters.means(found.metric) == pytest.approx(
    letters.means(expected.metric)
  )


def test_what_is_reported():
  metric = estimated(batch_of()).metric
  assert letters.means(metric) == pytest.approx(
    {
      "spae_steps": 5 / 4,
      "spae_left_out": 1 / 4,
      "spae_potential": (0.2 + 0.95 + 0.92 - 0.5 + 0.1) / 5,
      "spae_range": 0.75,
      # Rows 0 and 2 are right; only the first was settled, after 4 of 6.
      "solving_tokens": 4 / 2,
      "checking_tokens": 2 / 2,
      "right_to_wrong": 1 / 4,
    }
  )


@pytest.mark.slow
def test_an_update_asks_in_parts_and_reports():
  """A bigram sees the demand only, so all steps have the same potential."""
  algorithm = dataclasses.replace(
    letters.GRPO, recipe=spae_recipe(credit=SPAE), micro_batches=2
  )
  data = dataclasses.replace(letters.prompts(), answer=1)
  begun = letters.Begun(letters.experiment(algorithm, data=data))
  state, said = begun.step()
  assert int(state.step) == 1
  assert 0 < said["spae_steps"] <= 2
  assert said["spae_potential"] != 0
  assert said["spae_range"] == pytest.approx(0.0, abs=1e-6)


def test_data_without_answers_is_refused():
  algorithm = dataclasses.replace(letters.GRPO, recipe=spae_recipe(credit=SPAE))
  with pytest.raises(
    ValueError, match=r"Spae wants \['answer', 'answer_mask'\]"
  ):
    letters.Begun(letters.experiment(algorithm))


def test_boundaries_are_all_tokens_that_end_so():
  texts = ["a.", ".\n\n", ").\n\n", ".\n", ".\n\n "]
  tokenizer = types.SimpleNamespace(
    size=len(texts), decode=lambda ids, special: texts[ids[0]]
  )
  assert boundary_ids(tokenizer) == (1, 2)
  assert boundary_ids(letters.WORDS.load(), delimiter="c") == (2,)
  with pytest.raises(ValueError, match="no token of the vocabulary ends"):
    boundary_ids(letters.WORDS.load())


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"boundary": ()}, "boundary and forcing"),
    ({"forcing": ()}, "boundary and forcing"),
    ({"steps": 0}, "at least 1, got 0"),
    ({"samples": 0}, "at least 1"),
    ({"alpha": 1.5}, r"alpha must be in \[0, 1\]"),
  ],
)
def test_nonsense_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SPAE, **changes)


@pytest.mark.parametrize("name", ["forcing", "num_segments"])
def test_contexts_need_a_demand_and_room(name):
  ids, some = jnp.zeros((1, 2), int), jnp.ones((1, 2), bool)
  with pytest.raises(ValueError, match=name):
    build_probe_batch(
      ids,
      some,
      ids,
      some,
      ids,
      jnp.zeros(int(name != "forcing"), int),
      num_segments=int(name == "forcing"),
    )
