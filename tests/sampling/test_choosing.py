import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.log_probs import Support
from rl_jax.sampling import row_keys
from rl_jax.sampling.choosing import choose

ROWS, VOCABULARY = 4, 11
SUPPORT = Support(temperature=0.7)
COMPILED = jax.jit(choose, static_argnames=("support", "greedy", "entropy"))


def logits(rows=ROWS, vocabulary=VOCABULARY, seed=0):
  rng = np.random.RandomState(seed)
  return jnp.asarray(rng.normal(size=(rows, vocabulary)), jnp.float32)


def keys(rows=ROWS):
  return row_keys(jax.random.key(3), jnp.arange(rows))


def chosen(z, key=None, *, support=SUPPORT, greedy=False, entropy=True):
  return COMPILED(
    z,
    keys(z.shape[0]) if key is None else key,
    jnp.ones(z.shape[0], bool),
    support=support,
    greedy=greedy,
    entropy=entropy,
  )


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", [1, 9, 11])
def test_ids_come_as_often_as_they_are_likely(vocabulary):
  """Vocabularies that fill their blocks and that do not; 5 sigma."""
  count = 4000
  z = logits(1, vocabulary)
  token = chosen(jnp.repeat(z, count, axis=0)).token
  share = np.bincount(token, minlength=vocabulary) / count
  p = np.asarray(jax.nn.softmax(z[0] / 0.7))
  assert share.shape == (vocabulary,)
  np.testing.assert_array_less(abs(share - p), 5 * np.sqrt(p / count))


@pytest.mark.slow
@pytest.mark.parametrize("greedy", [False, True])
def test_numbers_are_those_of_the_distribution(greedy):
  z = logits()
  found = chosen(z, greedy=greedy)
  scaled = np.asarray(z, np.float64) / 0.7
  log_p = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
  own = log_p[np.arange(ROWS), found.token]
  np.testing.assert_allclose(found.log_prob, own, atol=1e-6)
  np.testing.assert_allclose(
    found.entropy, -(np.exp(log_p) * log_p).sum(-1), atol=1e-6
  )


@pytest.mark.slow
def test_a_row_draws_the_same_alone():
  z, key = logits(), keys()
  together = chosen(z, key).token
  for row in range(ROWS):
    alone = chosen(z[row : row + 1], key[row : row + 1])
    assert alone.token.item() == together[row]


def test_greedy_takes_the_first_of_the_likeliest():
  z = jnp.asarray([[0.0, 2.0, 1.0, 2.0, 2.0], [3.0, 3.0, 3.0, 3.0, 3.0]])
  assert chosen(z, greedy=True).token.tolist() == [1, 0]


@pytest.mark.slow
def test_only_ids_of_the_support_are_drawn():
  z = jnp.repeat(logits(1), 300, axis=0)
  support = Support(temperature=2.0, top_k=3)
  found = chosen(z, support=support)
  likeliest = np.argsort(-np.asarray(z[0]))[:3]
  assert set(found.token.tolist()) == set(likeliest.tolist())
  share = np.exp(np.asarray(z[0])[likeliest] / 2.0)
  expected = dict(zip(likeliest, np.log(share / share.sum()), strict=True))
  np.testing.assert_allclose(
    found.log_prob, [expected[t] for t in found.token.tolist()], atol=1e-6
  )


@pytest.mark.slow
def test_what_is_not_allowed_counts_nowhere():
  """Top-k chooses among what is left, which is renormalised."""
  z = jnp.repeat(jnp.asarray([[0.0, 9.0, -jnp.inf, 0.0, -5.0]]), 99, axis=0)
  z = z.at[:, 1].set(-jnp.inf)
  found = chosen(z, support=Support(temperature=1.0, top_k=2))
  assert set(found.token.tolist()) == {0, 3}
  np.testing.assert_allclose(found.log_prob, np.full(99, -np.log(2)), rtol=1e-6)
  np.testing.assert_allclose(found.entropy, np.full(99, np.log(2)), rtol=1e-6)


@pytest.mark.slow
def test_rows_that_take_no_token_are_zero_whatever_stands_there():
  z = logits().at[1].set(jnp.nan).at[2].set(-jnp.inf)
  mask = jnp.asarray([True, False, False, True])
  found = COMPILED(z, keys(), mask, support=SUPPORT, greedy=False, entropy=True)
  for value in found:
    assert value[1:3].tolist() == [0, 0]
    assert bool(jnp.all(jnp.isfinite(value)))


def test_a_broken_distribution_shows():
  found = chosen(logits().at[1].set(jnp.nan))
  assert np.isnan(found.log_prob).tolist() == [False, True, False, False]


@pytest.mark.slow
def test_entropy_is_not_there_unless_asked_for():
  assert chosen(logits(), entropy=False).entropy is None


def test_top_k_beyond_the_vocabulary_is_refused():
  with pytest.raises(ValueError, match="top_k = 12 of a vocabulary of 11"):
    chosen(logits(), support=Support(temperature=1.0, top_k=12))
