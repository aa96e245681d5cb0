"""Weights of the tests of a suite, by how many pass them; see `verpo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["pass_rate_density", "pass_rates", "verpo_test_weights"]


def pass_rates(
  passed: Float[Array, "row turn test"],
  mask: Bool[Array, "row turn"],
  test_mask: Bool[Array, "row test"],
  group: Int[Array, "row"],
  *,
  num_groups: int,
) -> Float[Array, "row test"]:
  """How often each test is passed by the turns of the row's group.

      rho_j = sum_{i,t} p_itj / M,   M = turns of the group that count

  Every turn weighs the same, so a long trajectory weighs more.

  Args:
    passed: p_itj, 1 for a test that the turn passed, else 0.
    mask: true = the turn exists.
    test_mask: true = the row's prompt has such a test.
    group: which prompt each row answers, in [0, num_groups).
    num_groups: how many ids there are; static.

  Returns:
    rho_j for each row, 0 for tests that its prompt does not have, or without
    turns.

  Raises:
    ValueError: if there are no tests, or `num_groups` < 1.

  >>> passed = jnp.array([[[1.0, 0.0]], [[1.0, 1.0]]])
  >>> every = jnp.ones((2, 1), bool), jnp.ones((2, 2), bool)
  >>> pass_rates(passed, *every, jnp.array([0, 0]), num_groups=1).tolist()
  [[1.0, 0.5], [1.0, 0.5]]
  """
  if passed.shape[-1] < 1:
    raise ValueError(
      f"a suite without tests judges nothing: passed has shape {passed.shape}"
    )
  if num_groups < 1:
    raise ValueError(f"num_groups must be at least 1, got {num_groups}")
  counted = mask[..., None] & test_mask[:, None]
  total = jnp.sum(keep(jax.lax.stop_gradient(passed), counted), axis=1)
  total = jax.ops.segment_sum(total, group, num_groups)
  turns = jnp.sum(mask, axis=-1).astype(total.dtype)
  turns = jax.ops.segment_sum(turns, group, num_groups)
  rate = total / jnp.maximum(turns, 1.0)[:, None]
  return jnp.where(test_mask, rate[group], 0.0)


def pass_rate_density(
  rate: Float[Array, "row test"],
  test_mask: Bool[Array, "row test"],
  *,
  sigma: float,
) -> Float[Array, "row test"]:
  """How many tests of a prompt are passed about as often as each one.

      N_j = sum_{j'} exp(-(rho_j - rho_j')^2 / (2 sigma^2))

  over the tests that exist, itself included, so N_j >= 1. Memory goes with
  the square of the number of tests.

  Args:
    rate: rho_j; anything where the mask is false.
    test_mask: true = the row's prompt has such a test.
    sigma: rates that are closer than about this count as one level.

  Returns:
    N_j, 0 where the mask is false.

  Raises:
    ValueError: if `sigma` is not positive.

  >>> rate = jnp.array([[1.0, 1.0, 0.0]])
  >>> pass_rate_density(rate, jnp.ones((1, 3), bool), sigma=0.03125).tolist()
  [[2.0, 2.0, 1.0]]
  """
  if not sigma > 0:
    raise ValueError(f"sigma must be positive, got {sigma}")
  rate = keep(jax.lax.stop_gradient(rate), test_mask)
  apart = (rate[:, :, None] - rate[:, None, :]) / sigma
  near = keep(
    jnp.exp(-0.5 * apart**2), test_mask[:, :, None] & test_mask[:, None, :]
  )
  return jnp.sum(near, axis=-1)


def verpo_test_weights(
  rate: Float[Array, "row test"],
  test_mask: Bool[Array, "row test"],
  *,
  alpha: float,
  sigma: float,
  delta: float,
  density: bool,
  sum_to_one: bool,
) -> Float[Array, "row test"]:
  """What passing each test is worth.

      w_j  = exp(-alpha rho_j)               the difficulty
      w'_j = w_j / (N_j + delta)             with density
      w''_j = w'_j / sum_j' w'_j'            with sum_to_one

  Without density prompts with many tests have larger rewards, unless weights
  sum to one (whether version 1 of the paper did that is not published).

  Args:
    rate: rho_j; anything where the mask is false.
    test_mask: true = the row's prompt has such a test.
    alpha: how much less a test that all pass is worth, in nats; 2 in the
      paper.
    sigma: see `pass_rate_density`.
    delta: added to the density, not negative.
    density: whether tests that are passed equally often share one weight.
    sum_to_one: whether the weights of a prompt add up to 1.

  Returns:
    The weights, 0 where the mask is false.

  Raises:
    ValueError: if `alpha` or `delta` is negative, or `sigma` not positive.

  >>> rate = jnp.array([[0.0, 0.0]])
  >>> options = {"alpha": 2.0, "sigma": 0.1, "delta": 0.0, "sum_to_one": False}
  >>> every = jnp.ones((1, 2), bool)
  >>> verpo_test_weights(rate, every, density=True, **options).tolist()
  [[0.5, 0.5]]
  """
  if alpha < 0 or delta < 0:
    raise ValueError(
      f"alpha and delta must not be negative, got {alpha}, {delta}"
    )
  level = pass_rate_density(rate, test_mask, sigma=sigma)
  rate = keep(jax.lax.stop_gradient(rate), test_mask)
  weight = keep(jnp.exp(-alpha * rate), test_mask)
  if density:
    weight = weight / jnp.where(test_mask, level + delta, 1.0)
  if sum_to_one:
    total = jnp.sum(weight, axis=-1, keepdims=True)
    weight = weight / jnp.where(total > 0, total, 1.0)
  return weight
