"""Single steps of an algorithm, without the loop around them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.data.source import take


def no_stage(trained):
  raise AssertionError(f"nothing here builds on {trained}")


def program(experiment):
  return experiment.algorithm.build(experiment, no_stage)


def items(experiment, cursor):
  source, data = experiment.data.source(), experiment.data
  indices, _ = take(
    len(source), cursor, rows=data.rows, seed=0, shuffle=data.shuffle
  )
  return source[indices]


def first(experiment, seed=0):
  """The first state, and the first batch."""
  parts = program(experiment)
  state = jax.jit(parts.init, static_argnums=1)(jax.random.key(seed), None)
  rows = items(experiment, jax.device_get(state.cursor))
  return parts, state, jax.jit(parts.collect)(state, parts.frozen, rows)


def moved(tree, size=0.05, seed=1):
  """Parameters a little away from these."""
  leaves, structure = jax.tree.flatten(tree)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return structure.unflatten(
    x + size * jax.random.normal(k, x.shape)
    for x, k in zip(leaves, keys, strict=True)
  )


def adam(params, gradients, optimiser):
  """AdamW with a norm clip, written out; parameters after all gradients."""
  m = jax.tree.map(np.zeros_like, params)
  v = jax.tree.map(np.zeros_like, params)
  rate, eps = optimiser.learning_rate, optimiser.epsilon
  for n, gradient_of in enumerate(gradients, start=1):
    g = gradient_of(params)
    norm = np.sqrt(sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(g)))
    g = jax.tree.map(
      lambda x, norm=norm: x * min(1.0, optimiser.clip_norm / norm), g
    )
    b1, b2 = optimiser.b1, optimiser.b2
    m = jax.tree.map(lambda m, g, b=b1: b * m + (1 - b) * g, m, g)
    v = jax.tree.map(lambda v, g, b=b2: b * v + (1 - b) * g**2, v, g)
    params = jax.tree.map(
      lambda p, m, v, n=n, b1=b1, b2=b2: (
        p
        - rate * (m / (1 - b1**n)) / (jnp.sqrt(v / (1 - b2**n)) + eps)
        - rate * optimiser.weight_decay * p
      ),
      params,
      m,
      v,
    )
  return params


def close(found, expected, rtol=1e-4, atol=1e-6):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for mine, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=atol)
