import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decoder.conftest import FULL

pytestmark = pytest.mark.slow


@functools.partial(jax.jit, static_argnums=0)
def extend(model, params, token, segment, cache):
  return model.extend(params, token, segment, cache)


@pytest.mark.parametrize("scan", [True, False])
def test_prompt_then_single_steps_equal_one_pass(
  full_params, token, expected, scan
):
  model = dataclasses.replace(FULL, scan=scan)
  # More slots than columns: those that are empty must not be seen.
  cache = model.empty_cache(4, 11)
  h, cache = extend(
    model, full_params, token[:, :5], jnp.ones((4, 5), int), cache
  )
  found = [h]
  for t in range(5, 8):
    one = jnp.ones((4, 1), int)
    h, cache = extend(model, full_params, token[:, t : t + 1], one, cache)
    found.append(h)
  np.testing.assert_allclose(
    jnp.concatenate(found, axis=1), expected, rtol=1e-5, atol=1e-5
  )
  assert int(cache.used) == 8
  np.testing.assert_array_equal(cache.position[:, :8], [range(8)] * 4)


def test_rows_of_different_lengths_pad_on_the_left(
  full_params, token, expected
):
  """Each row equals itself alone, whatever stands in its padding."""
  lengths = [5, 2, 4, 1]
  prompt, segment = np.full((4, 5), -1), np.zeros((4, 5), int)
  for row, length in enumerate(lengths):
    prompt[row, 5 - length :] = token[row, :length]
    segment[row, 5 - length :] = 1
  cache = FULL.empty_cache(4, 8)
  h, cache = extend(
    FULL, full_params, jnp.asarray(prompt), jnp.asarray(segment), cache
  )
  following = jnp.stack([token[row, n] for row, n in enumerate(lengths)])
  after, _ = extend(
    FULL, full_params, following[:, None], jnp.ones((4, 1), int), cache
  )
  for row, length in enumerate(lengths):
    np.testing.assert_allclose(
      h[row, 5 - length :], expected[row, :length], atol=1e-5
    )
    np.testing.assert_allclose(after[row, 0], expected[row, length], atol=1e-5)


def test_samples_share_the_prompt_of_their_row(full_params, token):
  prompt = jnp.ones((2, 5), int)
  cache = FULL.empty_cache(2, 8)
  _, cache = extend(FULL, full_params, token[:2, :5], prompt, cache)
  cache = cache.repeated(2)
  following = token[:, 5:6]
  found, _ = extend(FULL, full_params, following, jnp.ones((4, 1), int), cache)
  rows = jnp.concatenate(
    [jnp.repeat(token[:2, :5], 2, axis=0), following], axis=1
  )
  expected = jax.jit(FULL.hidden)(full_params, rows, jnp.ones_like(rows))
  np.testing.assert_allclose(found[:, 0], expected[:, 5], atol=1e-5)


def test_a_cache_with_too_few_slots_gives_nan(full_params, token):
  cache = FULL.empty_cache(4, 6)
  segment = jnp.ones((4, 5), int)
  h, cache = extend(FULL, full_params, token[:, :5], segment, cache)
  assert np.all(np.isfinite(h))
  h, cache = extend(FULL, full_params, token[:, :5], segment, cache)
  assert np.all(np.isnan(h))


def test_a_step_writes_one_column_only(full_params, token):
  """What lies before and after it in the cache stays as it was."""
  cache = FULL.empty_cache(4, 8)
  cache = cache._replace(key=cache.key + 7.0, used=jnp.int32(3))
  one = jnp.ones((4, 1), int)
  _, after = extend(FULL, full_params, token[:, :1], one, cache)
  same = np.asarray(after.key == 7.0).all(axis=(0, 1, 3, 4))
  assert same.tolist() == [True] * 3 + [False] + [True] * 4


def test_samples_must_be_counted_from_one():
  with pytest.raises(ValueError, match="at least 1, got 0"):
    FULL.empty_cache(1, 1).repeated(0)
