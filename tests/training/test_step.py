"""One gradient for every split, against a brute-force oracle."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rl_jax.reduce import Total, over_sequences, over_tokens
from rl_jax.training.optimisers import AdamW, Learner, optimise
from rl_jax.training.step import (
  accumulated_gradient,
  mean_loss,
  merged,
  split_rows,
)

ROWS, TIME = 12, 5
WEIGHTS = {"tokens": 1.0, "rows": 0.5, "all": -0.25}


def data():
  rng = np.random.RandomState(0)
  mask = rng.uniform(size=(ROWS, TIME)) < 0.6
  mask[3] = False  # A row without any element.
  x = rng.normal(size=(ROWS, TIME, 3)).astype(np.float32)
  x[~mask] = np.nan  # Nothing may come of it.
  return {"x": x, "mask": mask, "y": np.arange(ROWS, dtype=np.float32)}


def params():
  rng = np.random.RandomState(1)
  return {
    "w": jnp.asarray(rng.normal(size=3), jnp.float32),
    "b": jnp.asarray(0.25),
  }


def loss(params, rows):
  x = jnp.where(rows["mask"][..., None], rows["x"], 0.0)
  value = jnp.tanh(x @ params["w"] + params["b"])
  square = (rows["y"] * params["b"] - 1.0) ** 2
  terms = {
    "tokens": over_tokens(value, rows["mask"]),
    "rows": over_sequences(value**2, rows["mask"]),
    "all": Total.of(square),
  }
  return terms, {"largest": over_tokens(value, rows["mask"])}


def oracle(params, batch):
  """The same in float64, one element after another."""
  w = np.asarray(params["w"], np.float64)
  b = float(params["b"])
  tokens, rows, square = [], [], []
  for x, mask, y in zip(batch["x"], batch["mask"], batch["y"], strict=True):
    value = [
      np.tanh(np.float64(x_t) @ w + b)
      for x_t, counts in zip(x, mask, strict=True)
      if counts
    ]
    tokens += value
    if value:
      rows.append(np.mean(np.square(value)))
    square.append((float(y) * b - 1.0) ** 2)
  return np.mean(tokens) + 0.5 * np.mean(rows) - 0.25 * np.mean(square)


def numerical(params, batch, size=1e-4):
  flat = np.array([params["b"], *params["w"]], np.float64)
  slopes = []
  for i in range(flat.size):
    ends = []
    for sign in (1, -1):
      moved = flat.copy()
      moved[i] += sign * size
      ends.append(oracle({"b": moved[0], "w": moved[1:]}, batch))
    slopes.append((ends[0] - ends[1]) / (2 * size))
  return {"b": np.array(slopes[0]), "w": np.array(slopes[1:])}


@pytest.fixture(scope="module")
def whole():
  return accumulated_gradient(loss, WEIGHTS, params(), data(), micro_batches=1)


@pytest.mark.slow
def test_gradient_is_that_of_the_oracle(whole):
  gradient, metrics = whole
  expected = numerical(params(), data())
  np.testing.assert_allclose(gradient["w"], expected["w"], rtol=1e-4)
  np.testing.assert_allclose(gradient["b"], expected["b"], rtol=1e-4)
  np.testing.assert_allclose(
    metrics["loss"].mean(), oracle(params(), data()), rtol=1e-5
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "parts", [n for n in range(1, ROWS + 1) if ROWS % n == 0]
)
def test_every_split_has_the_gradient_of_one_batch(whole, parts):
  """The terms have three different denominators, one row counts nothing."""
  found = accumulated_gradient(
    loss, WEIGHTS, params(), data(), micro_batches=parts
  )
  assert jax.tree.structure(found) == jax.tree.structure(whole)
  for mine, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(whole), strict=True
  ):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_metrics_are_totals_of_the_whole_batch(whole):
  _, metrics = whole
  batch = data()
  assert set(metrics) == {
    "largest",
    "loss",
    "loss/tokens",
    "loss/rows",
    "loss/all",
  }
  assert metrics["loss/tokens"].weight == batch["mask"].sum()
  assert metrics["loss/rows"].weight == batch["mask"].any(axis=1).sum()
  assert metrics["loss/all"].weight == ROWS


def products(micro_batches, square=64):
  """Matrix products in the compiled program of a two-layer loss."""

  def net(params, rows):
    value = jnp.tanh(rows["x"] @ params["a"]) @ params["b"]
    return {"t": over_tokens(value[..., 0], rows["mask"])}, {}

  def run(params, batch):
    return accumulated_gradient(
      net, {"t": 1.0}, params, batch, micro_batches=micro_batches
    )

  shape = jax.ShapeDtypeStruct
  arguments = (
    {"a": shape((square, square), "f4"), "b": shape((square, square), "f4")},
    {"x": shape((8, 64, square), "f4"), "mask": shape((8, 64), "bool")},
  )
  lowered = jax.jit(run).lower(*arguments).compile().as_text()
  return lowered.count(" dot(") + lowered.count("matmul")


@pytest.mark.slow
def test_the_pass_for_the_weights_has_no_forward_pass():
  assert products(4) == products(1) > 0


def test_rows_are_dealt_like_cards():
  parts = split_rows({"x": jnp.arange(6)}, 2)
  assert parts["x"].tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("parts", [0, -1, 5, 24])
def test_a_split_that_does_not_divide_is_refused(parts):
  with pytest.raises(ValueError, match=f"12 rows.*{parts} equal"):
    split_rows(data(), parts)


def test_terms_and_weights_must_match():
  with pytest.raises(ValueError, match=r"\['all', 'rows', 'tokens'\]"):
    accumulated_gradient(
      loss, {"tokens": 1.0}, params(), data(), micro_batches=1
    )


def test_merged_adds_and_mean_loss_divides_once():
  stacked = Total(jnp.array([1.0, 5.0]), jnp.array([1.0, 3.0]))
  total = merged({"a": stacked})["a"]
  assert (total.value.item(), total.weight.item()) == (6.0, 4.0)
  assert mean_loss({"a": total}, {"a": 2.0}).item() == 3.0
  assert mean_loss({}, {}).item() == 0.0


@pytest.mark.slow
def test_updates_follow_each_other():
  """Two updates are two plain optax steps, metrics stacked."""
  optimiser = AdamW(learning_rate=0.1)()
  batches = split_rows(data(), 2)
  start = Learner(params(), optimiser.init(params()))
  end, metrics = optimise(
    loss, WEIGHTS, optimiser, start, batches, micro_batches=3
  )
  now, state = params(), optimiser.init(params())
  norms = []
  for i in range(2):
    part = jax.tree.map(lambda x, i=i: x[i], batches)
    gradient, _ = accumulated_gradient(
      loss, WEIGHTS, now, part, micro_batches=1
    )
    norms.append(float(optax.tree.norm(gradient)))
    change, state = optimiser.update(gradient, state, now)
    now = optax.apply_updates(now, change)
  for mine, theirs in zip(
    jax.tree.leaves(end), jax.tree.leaves(Learner(now, state)), strict=True
  ):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(metrics["gradient_norm"].value, norms, rtol=1e-5)


def rate_of(value, n):
  """The rate of optimiser step n, from 0, as the docstring says it."""
  if n < value.warm_up_steps:
    return value.learning_rate * n / value.warm_up_steps
  n = n - value.warm_up_steps
  fall = 1.0
  if value.cosine_steps is not None:
    share = min(n, value.cosine_steps) / value.cosine_steps
    fall = (1 + np.cos(np.pi * share)) / 2
  if value.linear_steps is not None:
    fall = 1 - min(n, value.linear_steps) / value.linear_steps
  return value.learning_rate * fall


def adam(gradients, *, rate, b1, b2, eps, decay, clip):
  """AdamW of Loshchilov and Hutter with a norm clip, in float64."""
  x, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
  for n, g in enumerate(gradients, start=1):
    g = np.asarray(g, np.float64)
    if clip is not None:
      g = g * min(1.0, clip / np.linalg.norm(g))
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    step = (m / (1 - b1**n)) / (np.sqrt(v / (1 - b2**n)) + eps)
    x = x - rate(n - 1) * (step + decay * x)
  return x


@pytest.mark.slow
@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"clip_norm": None},
    {"cosine_steps": 4},
    {"linear_steps": 2},
    {"warm_up_steps": 1, "linear_steps": 4},
    {"warm_up_steps": 2, "cosine_steps": 2},
    {"warm_up_steps": 2},
    {"b1": 0.5, "b2": 0.9, "epsilon": 0.01, "weight_decay": 0.1},
  ],
)
def test_adamw_is_the_paper_s(changes):
  gradients = [[3.0, 4.0], [0.1, -0.2], [-1.0, 0.0]]
  value = AdamW(learning_rate=0.1, **changes)
  optimiser = value()
  x = jnp.array([1.0, -2.0])
  state = optimiser.init(x)
  for g in gradients:
    change, state = optimiser.update(jnp.array(g), state, x)
    x = optax.apply_updates(x, change)
  expected = adam(
    gradients,
    rate=lambda n: rate_of(value, n),
    b1=value.b1,
    b2=value.b2,
    eps=value.epsilon,
    decay=value.weight_decay,
    clip=value.clip_norm,
  )
  np.testing.assert_allclose(x, expected, rtol=1e-5)


@pytest.mark.parametrize(
  "changes",
  [
    {"warm_up_steps": -1},
    {"linear_steps": 0},
    {"cosine_steps": 3, "linear_steps": 3},
  ],
)
def test_adamw_refuses_a_schedule(changes):
  with pytest.raises(ValueError, match=r"warm_up_steps = -?\d+ must not"):
    AdamW(learning_rate=0.1, **changes)


@pytest.mark.parametrize(
  ("field", "value"),
  [("learning_rate", 0.0), ("learning_rate", -1.0), ("clip_norm", 0.0)],
)
def test_adamw_refuses(field, value):
  with pytest.raises(ValueError, match=f"{field} must be > 0.*{value}"):
    AdamW(**({"learning_rate": 0.1} | {field: value}))
