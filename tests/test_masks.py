"""Masks: what stands in a masked slot never counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import masks


def test_keep_selects_before_arithmetic() -> None:
  value = jnp.array([2.0, jnp.nan, jnp.inf])
  mask = jnp.array([True, False, False])

  def loss(value):
    return jnp.sum(jnp.exp(masks.keep(value, mask)) ** 2)

  assert loss(value).item() == pytest.approx(np.exp(4.0) + 2, rel=1e-6)
  np.testing.assert_allclose(
    jax.grad(loss)(value), [2 * np.exp(4.0), 0, 0], rtol=1e-6
  )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_keep_widens_to_float32(dtype: str) -> None:
  value = masks.keep(jnp.ones(2, dtype), jnp.ones(2, bool))
  assert value.dtype == jnp.float32


def test_float64_stays_float64() -> None:
  with jax.enable_x64(True):
    value = jnp.ones(2, jnp.float64)
    assert masks.keep(value, jnp.ones(2, bool)).dtype == jnp.float64
    assert masks.widened(value).dtype == jnp.float64


def test_sum_of_many_halves_is_exact() -> None:
  # bfloat16 has eight bits: counting in it stops at 256.
  value = jnp.ones((1, 4096), jnp.bfloat16)
  kept = masks.keep(value, jnp.ones((1, 4096), bool))
  assert jnp.sum(kept).item() == 4096


def test_masked_mean_against_a_loop() -> None:
  rng = np.random.default_rng(0)
  value = rng.normal(size=(3, 4, 6)).astype(np.float32)
  mask = rng.uniform(size=value.shape) < 0.5
  mask[1, 2] = False
  expected = np.zeros((3, 4))
  for i in range(3):
    for j in range(4):
      kept = value[i, j][mask[i, j]]
      expected[i, j] = kept.astype(np.float64).mean() if kept.size else 0.0
  found = masks.masked_mean(jnp.asarray(value), jnp.asarray(mask))
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_masked_mean_of_nothing_has_no_gradient() -> None:
  value, mask = jnp.array([[jnp.nan, 1.0]]), jnp.zeros((1, 2), bool)
  gradient = jax.grad(lambda v: masks.masked_mean(v, mask).sum())(value)
  assert gradient.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
  ("mask", "index"),
  [
    ([True, True, True], 2),
    ([True, False, True], 2),
    ([False, True, False], 1),
    ([True, False, False], 0),
    ([False, False, False], -1),
  ],
)
def test_last_valid(mask: list[bool], index: int) -> None:
  assert masks.last_valid(jnp.array(mask)).item() == index


def test_last_valid_of_rows_without_columns() -> None:
  assert masks.last_valid(jnp.zeros((2, 0), bool)).tolist() == [-1, -1]


def test_segment_mask_against_a_loop() -> None:
  segment = np.array([[1, 1, 2, 2, 2, 0], [3, 0, 0, 0, 0, 0]])
  expected = np.zeros((2, 6, 6), bool)
  for row in range(2):
    for query in range(6):
      for key in range(query + 1):
        same = segment[row, query] == segment[row, key]
        expected[row, query, key] = same and segment[row, query] != 0
  found = masks.segment_mask(jnp.asarray(segment))
  np.testing.assert_array_equal(found, expected)


def test_segments_that_resume_are_one() -> None:
  """The id says who belongs together, not the neighbourhood."""
  found = masks.segment_mask(jnp.array([1, 2, 1]))
  assert found.astype(int).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
