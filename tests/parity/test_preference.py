"""Preference losses of TRL and OpenRLHF on the same pairs."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from parity.sources import load
from parity.subjects import pairs
from rl_jax import losses

pytestmark = pytest.mark.slow

BETA = 0.1


class Pairs:
  """What the losses take."""

  def __init__(self):
    given = pairs()
    self.valid = jnp.ones(given["chosen"].shape, bool)
    self.length = given["chosen_length"], given["rejected_length"]
    self.log_prob = given["chosen"], given["rejected"]
    self.reference = given["reference_chosen"], given["reference_rejected"]
    self.ratio = tuple(
      losses.log_ratio(policy, reference, self.valid)
      for policy, reference in zip(self.log_prob, self.reference, strict=True)
    )

  def averaged(self, value):
    return tuple(
      losses.per_token(x, n, self.valid)
      for x, n in zip(value, self.length, strict=True)
    )

  def sorted_by_rank(self):
    """Differences of the ordered chosen-minus-rejected, as AOT pairs them."""
    (chosen, rejected), (first, second) = self.log_prob, self.reference
    return jnp.sort(chosen - rejected), jnp.sort(first - second)


DPO = {
  "sigmoid": lambda p: losses.logistic_preference_loss(
    *p.ratio, p.valid, beta=BETA
  ),
  "hinge": lambda p: losses.hinge_preference_loss(
    *p.ratio, p.valid, beta=BETA, target=1.0, degree=1
  ),
  "ipo": lambda p: losses.squared_preference_loss(
    *p.averaged(p.ratio), p.valid, beta=BETA
  ),
  "exo_pair": lambda p: losses.reverse_kl_preference_loss(
    *p.ratio, p.valid, beta=BETA, smoothing=0.1
  ),
  "nca_pair": lambda p: losses.nca_loss(*p.ratio, p.valid, beta=BETA),
  "robust": lambda p: losses.robust_preference_loss(
    *p.ratio, p.valid, beta=BETA, noise=0.1
  ),
  "bco_pair": lambda p: (
    losses.bco_loss(p.ratio[0], p.valid, jnp.zeros(()), p.valid, beta=BETA)
    + losses.bco_loss(p.ratio[1], ~p.valid, jnp.zeros(()), p.valid, beta=BETA)
  ),
  "sppo_hard": lambda p: losses.sppo_loss(*p.ratio, p.valid, beta=BETA),
  "aot": lambda p: losses.logistic_preference_loss(
    *p.sorted_by_rank(), p.valid, beta=BETA, smoothing=0.1
  ),
  "aot_unpaired": lambda p: losses.logistic_preference_loss(
    *map(jnp.sort, p.ratio), p.valid, beta=BETA, smoothing=0.1
  ),
  "apo_zero": lambda p: losses.apo_zero_loss(*p.ratio, p.valid, beta=BETA),
  "apo_down": lambda p: losses.apo_down_loss(*p.ratio, p.valid, beta=BETA),
  "discopop": lambda p: losses.modulated_preference_loss(
    *p.ratio, p.valid, beta=BETA, temperature=0.05
  ),
  "sigmoid_norm": lambda p: losses.logistic_preference_loss(
    *p.averaged(p.ratio), p.valid, beta=BETA
  ),
  "dpo_forward_kl": lambda p: losses.logistic_preference_loss(
    *(losses.power_link(h, p.valid, power=-1.0) for h in p.ratio),
    p.valid,
    beta=BETA,
  ),
  "dpo_js_divergence": lambda p: losses.logistic_preference_loss(
    *(losses.jensen_shannon_link(h, p.valid) for h in p.ratio),
    p.valid,
    beta=BETA,
  ),
  "dpo_alpha_divergence": lambda p: losses.logistic_preference_loss(
    *(losses.power_link(h, p.valid, power=-0.5) for h in p.ratio),
    p.valid,
    beta=BETA,
  ),
  "cpo_sigmoid": lambda p: losses.logistic_preference_loss(
    *p.log_prob, p.valid, beta=BETA
  ),
  "cpo_hinge": lambda p: losses.hinge_preference_loss(
    *p.log_prob, p.valid, beta=BETA, target=1.0, degree=1
  ),
  "cpo_ipo": lambda p: losses.squared_preference_loss(
    *p.averaged(p.log_prob), p.valid, beta=BETA
  ),
  "cpo_simpo": lambda p: losses.logistic_preference_loss(
    *p.averaged(p.log_prob), p.valid, beta=2.0, offset=-1.0
  ),
  "alpha_po": lambda p: losses.logistic_preference_loss(
    *(
      losses.power_link(h, p.valid, power=-0.25) for h in p.averaged(p.log_prob)
    ),
    p.valid,
    beta=2.0,
    offset=-1.0,
  ),
}
# Theirs casts these to float32.
ROUGH = ("dpo_alpha_divergence", "orpo_odds")


def close(found, wanted, tolerance=1e-6):
  np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", DPO)
def test_losses_of_trl(name):
  wanted = load("trl")["preference"][name]
  given = Pairs()
  close(DPO[name](given), wanted, 2e-5 if name in ROUGH else 1e-6)


def test_odds_ratio_of_trl():
  """Its sign: TRL returns what it then subtracts from the likelihood."""
  given = Pairs()
  odds = [
    losses.log_odds(x, given.valid) for x in given.averaged(given.log_prob)
  ]
  found = losses.logistic_preference_loss(*odds, given.valid, beta=1.0)
  close(-0.1 * found, load("trl")["preference"]["orpo_odds"], 2e-5)


def test_kto_of_trl():
  given = Pairs()
  every = jnp.concatenate(given.ratio)
  desirable = jnp.arange(12) < 6
  found = losses.kto_loss(
    every,
    desirable,
    jnp.asarray(0.4),
    jnp.ones(12, bool),
    beta=BETA,
    desirable_weight=1.0,
    undesirable_weight=1.25,
  )
  close(found, load("trl")["preference"]["kto"])


@pytest.mark.parametrize(
  ("name", "ours"),
  [
    ("sigmoid", DPO["sigmoid"]),
    (
      "conservative",
      lambda p: losses.logistic_preference_loss(
        *p.ratio, p.valid, beta=BETA, smoothing=0.1
      ),
    ),
    (
      "ipo",
      lambda p: losses.squared_preference_loss(*p.ratio, p.valid, beta=BETA),
    ),
  ],
)
def test_means_of_openrlhf(name, ours):
  """Its IPO takes sums of log-ratios where TRL's takes their means."""
  given = Pairs()
  close(ours(given).mean(), load("openrlhf")["preference"][name])


def test_every_stored_loss_is_tried():
  stored = set(load("trl")["preference"])
  assert stored == set(DPO) | {"orpo_odds", "kto"}
