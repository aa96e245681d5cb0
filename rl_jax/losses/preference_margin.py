r"""Losses of a pair by its margin, other than the likelihood of a label.

    z = beta (chosen - rejected)

They take any log-ratio of `rl_jax.losses.preference`, or plain log-prob, of
both responses. Adding a constant to both of a pair changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.losses.preference import require_positive, scaled_margin
from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "exponential_preference_loss",
  "hinge_preference_loss",
  "modulated_preference_loss",
  "sigmoid_preference_loss",
  "squared_preference_loss",
]


def hinge_preference_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
  target: float,
  degree: int,
) -> Float[Array, "*batch"]:
  """How far the margin falls short of a target, to a power.

      l = max(0, target - beta (chosen - rejected))^degree

  Degree 1 is the hinge of SLiC-HF (beta 1 on log-probs, target delta) and its
  form with a reference (target 1); degree 2 the truncated square of GPO.

  Args:
    chosen: log-ratio (or log-prob) of the preferred response, nats.
    rejected: that of the other one.
    valid: true = the pair counts.
    beta: margin per nat; positive.
    target: the margin at which the loss, and its gradient, end; positive.
    degree: 1 or 2.

  Returns:
    The loss of each pair, zero where `valid` is false.

  Raises:
    ValueError: if `beta` or `target` is not positive and finite, `degree` is
      neither 1 nor 2, or shapes disagree.

  Zhao et al. 2023, arXiv:2305.10425 (SLiC-HF); Tang et al. 2024,
  arXiv:2402.05749 (GPO), table 1.

  >>> one, kept = jnp.ones(1), jnp.ones(1, bool)
  >>> hinge_preference_loss(
  ...   one, 0 * one, kept, beta=0.25, target=1.0, degree=1
  ... ).tolist()
  [0.75]
  """
  require_positive("target", target)
  if degree not in (1, 2):
    raise ValueError(f"degree must be 1 or 2, got {degree}")
  short = jax.nn.relu(target - scaled_margin(chosen, rejected, valid, beta))
  return keep(short**degree, valid)


def squared_preference_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
) -> Float[Array, "*batch"]:
  r"""Regression of the log-ratio difference onto a finite margin.

      l = (chosen - rejected - 1 / (2 beta))^2

  Unlike the logistic loss it has a minimum at a finite margin. Whether
  log-ratios are sums (the paper) or averages over tokens (TRL, CPO's form) is
  the caller's choice of argument: pass `per_token` ones for averages.

  Args:
    chosen: log-ratio (or log-prob) of the preferred response, nats.
    rejected: that of the other one.
    valid: true = the pair counts.
    beta: tau of the paper, per nat; positive. GPO's (1 - b h)^2 is b^2 times
      this loss at beta = b / 2.

  Returns:
    The loss of each pair in nats squared, zero where `valid` is false.

  Raises:
    ValueError: if `beta` is not positive and finite, or shapes disagree.

  Azar et al. 2023, arXiv:2310.12036 (IPO), eq. 17.

  >>> one, kept = jnp.ones(1), jnp.ones(1, bool)
  >>> squared_preference_loss(one, 0 * one, kept, beta=0.25).tolist()
  [1.0]
  """
  difference = scaled_margin(chosen, rejected, valid, beta) / beta
  return keep(jnp.square(difference - 0.5 / beta), valid)


def sigmoid_preference_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
  degree: int,
) -> Float[Array, "*batch"]:
  r"""Probability of the wrong order, to a power: bounded, forgives outliers.

      l = sigmoid(-z)^degree,   z = beta (chosen - rejected)

  Degree 1 is one minus the Bradley-Terry probability; degree 2 the Savage
  loss of GPO. The gradient vanishes for pairs that are badly wrong.

  Args:
    chosen: log-ratio (or log-prob) of the preferred response, nats.
    rejected: that of the other one.
    valid: true = the pair counts.
    beta: margin per nat; positive.
    degree: 1 or 2.

  Returns:
    The loss of each pair in [0, 1], zero where `valid` is false.

  Raises:
    ValueError: if `beta` is not positive and finite, `degree` is neither 1
      nor 2, or shapes disagree.

  Tang et al. 2024, arXiv:2402.05749 (GPO), table 1.

  >>> zero, kept = jnp.zeros(1), jnp.ones(1, bool)
  >>> sigmoid_preference_loss(zero, zero, kept, beta=1.0, degree=2).tolist()
  [0.25]
  """
  if degree not in (1, 2):
    raise ValueError(f"degree must be 1 or 2, got {degree}")
  z = scaled_margin(chosen, rejected, valid, beta)
  return keep(jax.nn.sigmoid(-z) ** degree, valid)


def exponential_preference_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
) -> Float[Array, "*batch"]:
  """The boosting loss of the margin.

      l = exp(-beta (chosen - rejected))

  Nothing is clipped: float32 overflows for margins below -88.

  Args:
    chosen: log-ratio (or log-prob) of the preferred response, nats.
    rejected: that of the other one.
    valid: true = the pair counts.
    beta: margin per nat; positive.

  Returns:
    The loss of each pair, zero where `valid` is false.

  Raises:
    ValueError: if `beta` is not positive and finite, or shapes disagree.

  Tang et al. 2024, arXiv:2402.05749 (GPO), table 1.

  >>> zero, kept = jnp.zeros(1), jnp.ones(1, bool)
  >>> exponential_preference_loss(zero, zero, kept, beta=1.0).tolist()
  [1.0]
  """
  return keep(jnp.exp(-scaled_margin(chosen, rejected, valid, beta)), valid)


def modulated_preference_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
  temperature: float,
) -> Float[Array, "*batch"]:
  r"""A blend of logistic and exponential loss that the margin itself sets.

      l = (1 - m)(-log sigmoid(z)) + m exp(-z),   m = sigmoid(z / tau)
      z = beta (chosen - rejected)

  Found by a search over programs; not convex, with a local minimum at a
  slightly negative margin. The gradient flows through m.

  Args:
    chosen: log-ratio (or log-prob) of the preferred response, nats.
    rejected: that of the other one.
    valid: true = the pair counts.
    beta: margin per nat; positive.
    temperature: tau, in units of the margin; positive. 0.05 in the paper.

  Returns:
    The loss of each pair, zero where `valid` is false.

  Raises:
    ValueError: if `beta` or `temperature` is not positive and finite, or
      shapes disagree.

  Lu et al. 2024, arXiv:2406.08414 (DiscoPOP, "LRML").

  >>> zero, kept = jnp.zeros(1), jnp.ones(1, bool)
  >>> loss = modulated_preference_loss(
  ...   zero, zero, kept, beta=1.0, temperature=0.5
  ... )
  >>> round(2 * loss.item() - 1, 4)  # log 2
  0.6931
  """
  require_positive("temperature", temperature)
  z = scaled_margin(chosen, rejected, valid, beta)
  modulation = z / temperature
  # m exp(-z) in one exponential: apart, 0 * inf at very negative margins.
  boost = jnp.exp(jax.nn.log_sigmoid(modulation) - z)
  return keep(jax.nn.sigmoid(-modulation) * jax.nn.softplus(-z) + boost, valid)
