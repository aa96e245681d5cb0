import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.models.decoder_rope import Linear, Llama3, Rope, Yarn, turned


def angles(rope, position, size=8):
  cos, sin = rope(jnp.array([[position]]), size=size)
  return np.arctan2(sin, cos)[0, 0], np.hypot(sin, cos)[0, 0]


def test_frequencies_are_powers():
  found, gain = angles(Rope(theta=16.0), 1)
  np.testing.assert_allclose(found, [1.0, 0.5, 0.25, 0.125], rtol=1e-6)
  np.testing.assert_allclose(gain, 1.0, rtol=1e-6)


def test_linear_scaling_interpolates_positions():
  scaled = Rope(theta=16.0, scaling=Linear(factor=4.0))
  np.testing.assert_allclose(
    angles(scaled, 4)[0], angles(Rope(theta=16.0), 1)[0], rtol=1e-6
  )


def test_llama3_slows_only_what_turns_slowly():
  """In 16 pi tokens the pairs turn 8, 4, 2 and 1 times."""
  scaling = Llama3(factor=8.0, low=1.0, high=4.0, context=1)
  turns = np.array([8.0, 4.0, 2.0, 1.0])
  frequency = scaling(turns * 2 * np.pi, theta=16.0) / (2 * np.pi)
  # A third of the way from slow to fast: 2/3 / 8 + 1/3.
  np.testing.assert_allclose(
    frequency / turns, [1, 1, 2 / 3 / 8 + 1 / 3, 1 / 8], rtol=1e-6
  )


def test_yarn_keeps_fast_pairs_and_raises_the_products():
  scaling = Yarn(factor=4.0, context=256, fast=16.0, slow=1.0)
  frequency = 100.0 ** (-np.arange(16) / 16)
  ratio = scaling(frequency, theta=100.0) / frequency
  # pair(16) = 16 log(256 / 32 pi) / log 100 = 3.2, pair(1) = 12.9.
  np.testing.assert_allclose(ratio[:4], 1.0)
  np.testing.assert_allclose(ratio[13:], 0.25)
  np.testing.assert_allclose(ratio[8], 1 - 0.75 * 0.5)
  _, gain = angles(Rope(theta=100.0, scaling=scaling), 3)
  np.testing.assert_allclose(gain, 0.1 * np.log(4.0) + 1, rtol=1e-6)


def test_product_of_turned_vectors_sees_the_difference_only():
  rng = np.random.RandomState(0)
  query, key = jnp.asarray(rng.normal(size=(2, 1, 1, 1, 8)), jnp.float32)

  def product(i, j):
    rope = Rope(theta=16.0)
    one = turned(query, *rope(jnp.array([[i]]), size=8))
    return float(jnp.sum(one * turned(key, *rope(jnp.array([[j]]), size=8))))

  assert product(3, 1) == pytest.approx(product(9, 7), abs=1e-5)
  assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-2)


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (lambda: Rope(theta=1.0), "above 1, got 1.0"),
    (lambda: Linear(factor=0.0), "factor must be positive"),
    (
      lambda: Llama3(factor=8.0, low=4.0, high=4.0, context=8),
      "high must be above low",
    ),
    (
      lambda: Yarn(factor=2.0, context=8, fast=1.0, slow=1.0),
      "fast must be above slow",
    ),
  ],
)
def test_bad_fields_are_refused(make, words):
  with pytest.raises(ValueError, match=words):
    make()
