r"""Matching losses of a velocity network, and what weighs them by advantage.

The pretraining loss of a flow at (x_t, t) is the squared distance between
the network's velocity and its target. Its negative, weighted, stands in for
the log-probability of the clean sample, so that a policy gradient can be
taken without any log-probability of the sampler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp

from rl_jax.log_probs import event_axes
from rl_jax.losses.policy import PolicyLoss, clipped_policy_terms
from rl_jax.masks import masked_mean, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "KlWeighting",
  "MatchingWeighting",
  "RatioLevel",
  "awm_loss",
  "matching_error",
  "matching_log_prob",
  "velocity_kl",
  "weighted_error",
]

MatchingWeighting = Literal["uniform", "t", "t**2", "huber", "ghuber"]
KlWeighting = Literal["uniform", "elbo"]
RatioLevel = Literal["element", "sample"]

# Inside every root, so that its slope at an error of zero stays finite.
_GUARD = 1e-10


def matching_error(
  velocity: Float[Array, "row time *event"],
  target: Float[Array, "row time *event"],
) -> Float[Array, "row time"]:
  r"""Squared distance to the target, averaged over the event.

      l = mean_d (v_d - u_d)^2

  Args:
    velocity: v, the network's velocity at (x_t, t).
    target: u, the velocity that it should have; see `rl_jax.flow`.

  Returns:
    l, in squared units of the data, accumulated in float32 or wider.

  >>> v, u = jnp.array([[[1.0, 2.0]]]), jnp.array([[[0.0, 0.0]]])
  >>> matching_error(v, u).tolist()
  [[2.5]]
  """
  square = (widened(velocity) - widened(target)) ** 2
  return jnp.mean(square, axis=event_axes(square))


def weighted_error(
  error: Float[Array, "row time"],
  t: Float[Array, "row time"],
  *,
  weighting: MatchingWeighting,
  power: float,
) -> Float[Array, "row time"]:
  r"""A matching error, weighted by its time and bent by its size.

      uniform  w = l                t  w = t l              t**2  w = t^2 l
      huber    w = t (sqrt(l + g) - sqrt(g))
      ghuber   w = (t / p) ((l + g)^p - g^p)                g = 1e-10

  p = 1 is "t", p = 1/2 is twice "huber". A p below one gives an element with
  a large error, whose sample is unlikely, less weight: dw/dl = t (l + g)^(p-1)
  is large but finite where l vanishes.

  Args:
    error: l, from `matching_error`.
    t: the time of each element, in (0, 1].
    weighting: one of the five above.
    power: p > 0; read by "ghuber" alone.

  Returns:
    w, zero where the error is.

  Raises:
    ValueError: for an unknown weighting or a power that is not positive.

  Advantage weighted matching, arXiv:2509.25050, code.

  >>> l, t = jnp.array([[4.0]]), jnp.array([[0.5]])
  >>> weighted_error(l, t, weighting="t**2", power=0.25).tolist()
  [[1.0]]
  """
  if not power > 0:
    raise ValueError(f"power must be positive, got {power}")
  error, t = widened(error), widened(t)
  if weighting == "uniform":
    return error
  if weighting == "t":
    return t * error
  if weighting == "t**2":
    return t**2 * error
  guard = jnp.full_like(error, _GUARD)
  if weighting == "huber":
    return t * (jnp.sqrt(error + guard) - jnp.sqrt(guard))
  if weighting == "ghuber":
    return t / power * ((error + guard) ** power - guard**power)
  raise ValueError(
    f"weighting must be one of {get_args(MatchingWeighting)}, got {weighting!r}"
  )


def matching_log_prob(
  velocity: Float[Array, "row time *event"],
  target: Float[Array, "row time *event"],
  t: Float[Array, "row time"],
  *,
  weighting: MatchingWeighting,
  power: float,
) -> Float[Array, "row time"]:
  r"""What stands in for log p(x_0) at one training time: minus the error.

      log p = -w(mean_d (v_d - u_d)^2, t)

  The clean sample's evidence bound is a weighted mean of this over times and
  noises; ratios of it are meaningful only at common (t, noise).

  Args:
    velocity: v, the network's velocity at (x_t, t).
    target: u = noise - x_0.
    t: the time of each element, in (0, 1].
    weighting: w; see `weighted_error`.
    power: exponent of the weighting "ghuber"; read by no other.

  Returns:
    The negative weighted error, per row and time.

  Raises:
    ValueError: for an unknown weighting or a power that is not positive.

  Advantage weighted matching, arXiv:2509.25050, code.

  >>> v, u = jnp.array([[[1.0, 2.0]]]), jnp.zeros((1, 1, 2))
  >>> t = jnp.array([[0.5]])
  >>> matching_log_prob(v, u, t, weighting="t", power=0.25).tolist()
  [[-1.25]]
  """
  error = matching_error(velocity, target)
  return -weighted_error(error, t, weighting=weighting, power=power)


def awm_loss(
  log_prob: Float[Array, "row time"],
  behaviour_log_prob: Float[Array, "row time"],
  advantage: Float[Array, "row"],
  mask: Bool[Array, "row time"],
  *,
  clip_low: float,
  clip_high: float,
  ratio_level: RatioLevel,
) -> PolicyLoss:
  r"""Advantage weighted matching: the clipped loss on matching log-probs.

      element:  r_ik = exp(log_prob_ik - behaviour_ik)
      sample:   r_i  = exp(mean_k log_prob_ik - mean_k behaviour_ik)
      l = max(-A_i r, -A_i clip(r, 1 - clip_low, 1 + clip_high))

  On policy r = 1, and both levels have the gradient of A_i times the weighted
  pretraining loss. At the sample level every counted time of a row carries
  the row's loss, so that both have the same shape and the same denominators.

  Args:
    log_prob: `matching_log_prob` of the network being trained.
    behaviour_log_prob: the same at the same (t, noise) of the network that
      the step started from. No gradient flows through it.
    advantage: A_i, in units of reward. No gradient flows through it.
    mask: true = counts; false for every time of a row that does not.
    clip_low: how far below one the ratio may fall before its gradient stops.
    clip_high: how far above one it may rise.
    ratio_level: where the ratio is taken.

  Returns:
    Loss, ratio and clip indicator per row and time, not reduced.

  Raises:
    ValueError: for an unknown ratio_level or a negative clip bound.

  Advantage weighted matching, arXiv:2509.25050, code (`exp_first` is
  "element", `sum_first` is "sample").

  >>> log_prob = jnp.log(jnp.array([[2.0, 0.5]]))
  >>> for level in ("element", "sample"):
  ...   awm_loss(
  ...     log_prob,
  ...     jnp.zeros((1, 2)),
  ...     jnp.ones(1),
  ...     jnp.ones((1, 2), bool),
  ...     clip_low=1.0,
  ...     clip_high=1.0,
  ...     ratio_level=level,
  ...   ).loss.tolist()
  [[-2.0, -0.5]]
  [[-1.0, -1.0]]
  """
  if ratio_level not in get_args(RatioLevel):
    raise ValueError(
      f"ratio_level must be 'element' or 'sample', got {ratio_level!r}"
    )
  if ratio_level == "sample":
    log_prob = jnp.broadcast_to(
      masked_mean(log_prob, mask)[:, None], mask.shape
    )
    behaviour_log_prob = jnp.broadcast_to(
      masked_mean(behaviour_log_prob, mask)[:, None], mask.shape
    )
  return clipped_policy_terms(
    log_prob,
    behaviour_log_prob,
    jnp.broadcast_to(advantage[:, None], mask.shape),
    mask,
    clip_low=clip_low,
    clip_high=clip_high,
  )


def velocity_kl(
  velocity: Float[Array, "row time *event"],
  reference: Float[Array, "row time *event"],
  t: Float[Array, "row time"],
  *,
  weighting: KlWeighting,
) -> Float[Array, "row time"]:
  r"""Distance of a velocity from a reference's, at the same point.

      uniform:  mean_d (v_d - ref_d)^2
      elbo:     mean_d (v_d - ref_d)^2 / (2 s_t^2)
                s_t = 0.7 sqrt(t / (1 - min(t, 0.99)))

  The second is proportional to the KL divergence between two steps of the
  Flow-GRPO sampler at noise level 0.7, for steps of equal length.

  Args:
    velocity: v, of the network being trained.
    reference: of the frozen base or of the slow copy; no gradient flows
      through it.
    t: the time of each element, in (0, 1].
    weighting: which of the two.

  Returns:
    The distance per row and time; zero, with zero gradient, at the reference.

  Raises:
    ValueError: for an unknown weighting.

  Advantage weighted matching, arXiv:2509.25050, code.

  >>> v, reference = jnp.array([[[1.0, 2.0]]]), jnp.zeros((1, 1, 2))
  >>> velocity_kl(v, reference, jnp.ones((1, 1)), weighting="uniform").tolist()
  [[2.5]]
  """
  error = matching_error(velocity, jax.lax.stop_gradient(reference))
  if weighting == "uniform":
    return error
  if weighting == "elbo":
    t = widened(t)
    # 0.99 keeps the noise scale finite at pure noise.
    return error / (2.0 * 0.7**2 * t / (1.0 - jnp.minimum(t, 0.99)))
  raise ValueError(
    f"weighting must be one of {get_args(KlWeighting)}, got {weighting!r}"
  )
