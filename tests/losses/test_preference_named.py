"""Every preference loss of the literature against a slow oracle."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from losses.preference_oracle import one_by_one
from losses.preference_table import (
  BETA,
  ROWS,
  TABLE,
  bco,
  drawn,
  kto,
  logistic,
  pair_loss,
  worked,
  wpo,
)
from rl_jax import losses, reduce
from rl_jax.training import step


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_against_a_slow_oracle(name):
  batch, row = drawn(), TABLE[name]
  found = np.asarray(row.composed(batch))[np.asarray(batch.valid)]
  expected = one_by_one(batch, row.oracle)
  np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
  "name", [name for name, row in TABLE.items() if row.number is not None]
)
def test_worked_by_hand(name):
  row = TABLE[name]
  np.testing.assert_allclose(
    np.asarray(row.composed(worked()))[0], row.number, rtol=2e-6, atol=1e-6
  )


def test_worked_log_odds_and_weight():
  p = worked()
  log_odds = losses.log_odds(p.a_w, p.valid) - losses.log_odds(p.a_l, p.valid)
  np.testing.assert_allclose(log_odds[0], 0.070803, atol=1e-6)
  np.testing.assert_allclose(wpo(p)[0], 0.086294, atol=1e-6)


def test_special_cases_are_one_loss():
  """Smoothing, noise and offset of zero, and the reverse KL, are DPO."""
  p = drawn()
  dpo = TABLE["dpo"].composed(p)
  for same in (
    logistic(p, p.h_w, p.h_l, smoothing=0.0, offset=jnp.zeros(ROWS)),
    logistic(p, p.h_l, p.h_w, smoothing=1.0),
    pair_loss(losses.robust_preference_loss, p, noise=0.0),
    TABLE["f_dpo_reverse_kl"].composed(p),
    logistic(p, p.h_w * BETA, p.h_l * BETA, beta=1.0),
  ):
    np.testing.assert_allclose(same, dpo, atol=1e-6)


def test_absolute_losses_are_sums_of_single_responses():
  p = drawn()
  zero = jnp.zeros(ROWS)
  squared = losses.squared_preference_loss
  for name, parts in {
    "apo_zero": (kto(p, p.h_w, True, 0.0), kto(p, p.h_l, False, 0.0)),
    "apo_down": (
      kto(p, p.h_w, False, 0.0),
      kto(p, p.h_w - p.h_l, True, 0.0),
    ),
    "nca_pair": (
      bco(p, p.h_w, True, 0.0),
      bco(p, p.h_w, False, 0.0) / 2,
      bco(p, p.h_l, False, 0.0) / 2,
    ),
    "sppo_hard": (
      pair_loss(squared, p, p.h_w, zero),
      pair_loss(squared, p, zero, p.h_l),
    ),
  }.items():
    found = TABLE[name].composed(p)
    np.testing.assert_allclose(found, sum(parts), rtol=1e-6, err_msg=name)


def test_several_losses_are_a_weighted_sum_of_means():
  """Pairs and tokens keep their own denominators over micro-batches."""
  p = drawn()
  rng = np.random.default_rng(1)
  token = rng.normal(size=(ROWS, 4)).astype(np.float32)
  mask = rng.uniform(size=(ROWS, 4)) < 0.6
  dpo = np.asarray(TABLE["dpo"].composed(p))
  valid = np.asarray(p.valid)

  def totals(part):
    rows = (dpo[part], valid[part], -token[part], mask[part])
    pair, kept, nll, counted = map(jnp.asarray, rows)
    return reduce.over_tokens(pair, kept), reduce.over_tokens(nll, counted)

  parts = [totals(slice(start, start + 2)) for start in (0, 2, 4)]
  added = {
    name: sum((part[place] for part in parts[1:]), start=parts[0][place])
    for place, name in enumerate(("dpo", "nll"))
  }
  found = step.mean_loss(added, {"dpo": 1.0, "nll": 0.25})
  expected = np.mean(one_by_one(p, TABLE["dpo"].oracle))
  expected += 0.25 * np.mean(-token[mask])
  np.testing.assert_allclose(found, expected, rtol=1e-5)
