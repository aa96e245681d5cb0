"""Every preference loss of the literature, as a composition of the core.

Each row has the composition, a slow float64 oracle written from the formula
of the paper, and, where there is one, the number worked by hand for
log-probs (-12, -15), reference (-13, -14.5), lengths (10, 12), beta 0.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from losses.preference_oracle import disco, exo, ls, odd, sig
from rl_jax import losses, ratios

ROWS = 6
BETA = 0.1


class Pairs(NamedTuple):
  """Sums of log-probs and lengths of chosen (w) and rejected (l)."""

  w: jax.Array
  l: jax.Array  # noqa: E741
  ref_w: jax.Array
  ref_l: jax.Array
  len_w: jax.Array
  len_l: jax.Array
  valid: jax.Array

  @property
  def h_w(self):
    return losses.log_ratio(self.w, self.ref_w, self.valid)

  @property
  def h_l(self):
    return losses.log_ratio(self.l, self.ref_l, self.valid)

  def mean(self, value, length):
    return losses.per_token(value, length, self.valid)

  @property
  def a_w(self):
    return self.mean(self.w, self.len_w)

  @property
  def a_l(self):
    return self.mean(self.l, self.len_l)


def worked():
  """The worked example, and slots that do not count."""
  sums = np.full((4, ROWS), np.nan, np.float32)
  sums[:, 0] = -12.0, -15.0, -13.0, -14.5
  lengths = np.zeros((2, ROWS), np.int32)
  lengths[:, 0] = 10, 12
  return Pairs(*map(jnp.asarray, (*sums, *lengths, np.arange(ROWS) == 0)))


def drawn():
  rng = np.random.default_rng(0)
  sums = -rng.uniform(3.0, 20.0, (4, ROWS)).astype(np.float32)
  lengths = rng.integers(2, 15, (2, ROWS))
  valid = np.array([True, True, False, True, True, True])
  return Pairs(*map(jnp.asarray, (*sums, *lengths, valid)))


def logistic(p, chosen, rejected, **options):
  options = {"beta": BETA} | options
  return losses.logistic_preference_loss(chosen, rejected, p.valid, **options)


def pair_loss(function, p, chosen=None, rejected=None, **options):
  chosen = p.h_w if chosen is None else chosen
  rejected = p.h_l if rejected is None else rejected
  options = {"beta": BETA} | options
  return function(chosen, rejected, p.valid, **options)


def kto(p, response, label, z0=0.4):
  label = jnp.full(p.valid.shape, label)
  return losses.kto_loss(
    response,
    label,
    jnp.array(z0),
    p.valid,
    beta=BETA,
    desirable_weight=1.0,
    undesirable_weight=1.0,
  )


def bco(p, response, label, shift=0.025):
  label = jnp.full(p.valid.shape, label)
  return losses.bco_loss(response, label, jnp.array(shift), p.valid, beta=BETA)


def power(p, value, exponent):
  return losses.power_link(value, p.valid, power=exponent)


def odds(p):
  return losses.logistic_preference_loss(
    losses.log_odds(p.a_w, p.valid),
    losses.log_odds(p.a_l, p.valid),
    p.valid,
    beta=1.0,
  )


def r_dpo_offset(p):
  return 0.05 * (p.len_w - p.len_l).astype(jnp.float32)


def wpo(p):
  """Weight of open-instruct's form, from one token of the mean log-prob."""
  weight = 1.0
  for mean in (p.a_w, p.a_l):
    one = mean[:, None]
    weight *= losses.on_policy_weight(one, 0 * one, p.valid[:, None])
  return ratios.truncated_weight(weight, maximum=1.0)


def even_sampling_kto(p):
  z_w = losses.kto_reference_point(p.h_w, p.valid)
  z_l = losses.kto_reference_point(p.h_l, p.valid)
  return kto(p, p.h_w, True, z_l) + kto(p, p.h_l, False, z_w)


class Row(NamedTuple):
  """A named loss: composition, oracle of one pair, number worked by hand."""

  composed: object
  oracle: object
  number: float | None = None


B = BETA
TABLE = {
  "dpo": Row(
    lambda p: logistic(p, p.h_w, p.h_l), lambda q: -ls(B * q.h), 0.620957
  ),
  "cdpo": Row(
    lambda p: logistic(p, p.h_w, p.h_l, smoothing=0.1),
    lambda q: -0.9 * ls(B * q.h) - 0.1 * ls(-B * q.h),
    0.635957,
  ),
  "robust": Row(
    lambda p: pair_loss(losses.robust_preference_loss, p, noise=0.1),
    lambda q: (-0.9 * ls(B * q.h) + 0.1 * ls(-B * q.h)) / 0.8,
    0.602207,
  ),
  "hinge": Row(
    lambda p: pair_loss(losses.hinge_preference_loss, p, target=1.0, degree=1),
    lambda q: max(0.0, 1 - B * q.h),
    0.85,
  ),
  "slic_hf": Row(
    lambda p: (
      pair_loss(
        losses.hinge_preference_loss,
        p,
        p.w,
        p.l,
        beta=1.0,
        target=1.0,
        degree=1,
      )
      - 0.1 * p.w
    ),
    lambda q: max(0.0, 1 - (q.w - q.l)) - 0.1 * q.w,
    1.2,
  ),
  "ipo_summed": Row(
    lambda p: pair_loss(losses.squared_preference_loss, p),
    lambda q: (q.h - 1 / (2 * B)) ** 2,
    12.25,
  ),
  "ipo_averaged": Row(
    lambda p: pair_loss(
      losses.squared_preference_loss,
      p,
      p.mean(p.h_w, p.len_w),
      p.mean(p.h_l, p.len_l),
    ),
    lambda q: (q.h_w / q.len_w - q.h_l / q.len_l - 1 / (2 * B)) ** 2,
    23.603403,
  ),
  "exo_pair": Row(
    lambda p: pair_loss(losses.reverse_kl_preference_loss, p, smoothing=0.1),
    lambda q: exo(B * q.h, 0.1),
    0.431388,
  ),
  "nca_pair": Row(
    lambda p: pair_loss(losses.nca_loss, p),
    lambda q: -ls(B * q.h_w) - 0.5 * ls(-B * q.h_w) - 0.5 * ls(-B * q.h_l),
    1.350825,
  ),
  "bco_pair": Row(
    lambda p: bco(p, p.h_w, True, 0.0) + bco(p, p.h_l, False, 0.0),
    lambda q: -ls(B * q.h_w) - ls(-B * q.h_l),
    1.312856,
  ),
  "bco_chosen": Row(
    lambda p: bco(p, p.h_w, True), lambda q: -ls(B * q.h_w - 0.025), 0.656350
  ),
  "bco_rejected": Row(
    lambda p: bco(p, p.h_l, False),
    lambda q: -ls(-(B * q.h_l - 0.025)),
    0.656350,
  ),
  "sppo_hard": Row(
    lambda p: pair_loss(losses.sppo_loss, p),
    lambda q: (q.h_w - 1 / (2 * B)) ** 2 + (q.h_l + 1 / (2 * B)) ** 2,
    36.25,
  ),
  "apo_zero": Row(
    lambda p: pair_loss(losses.apo_zero_loss, p),
    lambda q: 1 - sig(B * q.h_w) + sig(B * q.h_l),
    0.962523,
  ),
  "apo_down": Row(
    lambda p: pair_loss(losses.apo_down_loss, p),
    lambda q: sig(B * q.h_w) + 1 - sig(B * q.h),
    0.987549,
  ),
  "discopop": Row(
    lambda p: pair_loss(losses.modulated_preference_loss, p, temperature=0.05),
    lambda q: disco(B * q.h, 0.05),
    0.849338,
  ),
  "sigmoid_norm": Row(
    lambda p: logistic(p, p.mean(p.h_w, p.len_w), p.mean(p.h_l, p.len_l)),
    lambda q: -ls(B * (q.h_w / q.len_w - q.h_l / q.len_l)),
    0.686089,
  ),
  "kto_desirable": Row(
    lambda p: kto(p, p.h_w, True),
    lambda q: 1 - sig(B * (q.h_w - 0.4)),
    0.485004,
  ),
  "kto_undesirable": Row(
    lambda p: kto(p, p.h_l, False),
    lambda q: 1 - sig(B * (0.4 - q.h_l)),
    0.477515,
  ),
  "kto_even_sampling": Row(
    even_sampling_kto,
    lambda q: 2 - sig(B * (q.h_w - q.z_l)) - sig(B * (q.z_w - q.h_l)),
  ),
  "cpo": Row(
    lambda p: logistic(p, p.w, p.l) - 1.0 * p.w,
    lambda q: -ls(B * (q.w - q.l)) - q.w,
    0.554355 + 12.0,
  ),
  "cpo_hinge": Row(
    lambda p: pair_loss(
      losses.hinge_preference_loss, p, p.w, p.l, target=1.0, degree=1
    ),
    lambda q: max(0.0, 1 - B * (q.w - q.l)),
  ),
  "cpo_ipo": Row(
    lambda p: pair_loss(losses.squared_preference_loss, p, p.a_w, p.a_l),
    lambda q: (q.w / q.len_w - q.l / q.len_l - 1 / (2 * B)) ** 2,
  ),
  "simpo": Row(
    lambda p: logistic(p, p.a_w, p.a_l, beta=2.0, offset=-1.0),
    lambda q: -ls(2 * (q.w / q.len_w - q.l / q.len_l) - 1),
    1.241154,
  ),
  "simpo_by_ratio": Row(  # open-instruct's parameters: beta, gamma / beta
    lambda p: logistic(p, p.a_w - 0.5, p.a_l, beta=2.0),
    lambda q: -ls(2 * (q.w / q.len_w - q.l / q.len_l) - 1),
    1.241154,
  ),
  "alpha_po": Row(
    lambda p: logistic(
      p, power(p, p.a_w, -0.5), power(p, p.a_l, -0.5), beta=2.0, offset=-1.0
    ),
    lambda q: (
      -ls(
        2
        * (
          (1 - math.exp(q.w / q.len_w) ** -0.5)
          - (1 - math.exp(q.l / q.len_l) ** -0.5)
        )
        / 0.5
        - 1
      )
    ),
  ),
  "orpo_term": Row(
    odds,
    lambda q: -ls(odd(q.w / q.len_w) - odd(q.l / q.len_l)),
  ),
  "orpo": Row(
    lambda p: -p.a_w + BETA * odds(p),
    lambda q: -q.w / q.len_w - B * ls(odd(q.w / q.len_w) - odd(q.l / q.len_l)),
    1.2 + 0.065837,
  ),
  "wpo": Row(
    lambda p: wpo(p) * logistic(p, p.h_w, p.h_l),
    lambda q: min(1.0, math.exp(q.w / q.len_w + q.l / q.len_l)) * -ls(B * q.h),
  ),
  "r_dpo": Row(
    lambda p: logistic(p, p.h_w, p.h_l, offset=r_dpo_offset(p)),
    lambda q: -ls(B * q.h + 0.05 * (q.len_w - q.len_l)),
    0.668460,
  ),
  "f_dpo_forward_kl": Row(
    lambda p: logistic(p, power(p, p.h_w, -1.0), power(p, p.h_l, -1.0)),
    lambda q: -ls(B * (-math.exp(-q.h_w) + math.exp(-q.h_l))),
  ),
  "f_dpo_alpha": Row(  # a = 0.75
    lambda p: logistic(p, power(p, p.h_w, -0.25), power(p, p.h_l, -0.25)),
    lambda q: (
      -ls(B * (math.exp(-0.25 * q.h_w) - math.exp(-0.25 * q.h_l)) / -0.25)
    ),
  ),
  "f_dpo_reverse_kl": Row(
    lambda p: logistic(p, power(p, p.h_w, 0.0), power(p, p.h_l, 0.0)),
    lambda q: -ls(B * q.h),
    0.620957,
  ),
  "f_dpo_jensen_shannon": Row(
    lambda p: logistic(
      p,
      losses.jensen_shannon_link(p.h_w, p.valid),
      losses.jensen_shannon_link(p.h_l, p.valid),
    ),
    lambda q: -ls(B * (ls(q.h_w) - ls(q.h_l))),
  ),
  "gpo_exponential": Row(
    lambda p: pair_loss(losses.exponential_preference_loss, p),
    lambda q: math.exp(-B * q.h),
  ),
  "gpo_truncated_square": Row(
    lambda p: pair_loss(losses.hinge_preference_loss, p, target=1.0, degree=2),
    lambda q: max(0.0, 1 - B * q.h) ** 2,
  ),
  "gpo_savage": Row(
    lambda p: pair_loss(losses.sigmoid_preference_loss, p, degree=2),
    lambda q: 1 / (1 + math.exp(B * q.h)) ** 2,
  ),
  "gpo_square": Row(
    lambda p: B**2 * pair_loss(losses.squared_preference_loss, p, beta=B / 2),
    lambda q: (1 - B * q.h) ** 2,
  ),
  "one_minus_probability": Row(
    lambda p: pair_loss(losses.sigmoid_preference_loss, p, degree=1),
    lambda q: 1 - sig(B * q.h),
  ),
  "scaled_by_strength": Row(  # a preference strength of 3, in or on the loss
    lambda p: 3.0 * logistic(p, p.h_w, p.h_l, offset=-3.0),
    lambda q: -3.0 * ls(B * q.h - 3.0),
  ),
}
