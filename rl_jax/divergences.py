"""How far a policy is from its reference, per element and in nats.

Three estimators from one sampled action, and the exact divergences where the
whole distribution is known: over a vocabulary and between Gaussians. Each
function says what its value estimates *and* what its gradient is, because an
estimator with the right value may have the wrong gradient: k1 and k3 have the
same expectation, and as losses they do different things.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "Normalisation",
  "categorical_kl",
  "gaussian_kl_mean",
  "gaussian_kl_sum",
  "gaussian_mean_kl",
  "k1",
  "k2",
  "k3",
]

Normalisation = Literal["reference", "exact"]


def k1(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """The log-ratio to the reference: an unbiased KL value, of any sign.

      x_t = log pi(a_t) - log ref(a_t),   k1_t = x_t

  Value: E_pi[k1] = KL(pi || ref). Gradient, when differentiated with a_t
  drawn from pi: zero in expectation, so as a loss it is noise only. It
  belongs in the reward, where a policy gradient makes it exact.

  Args:
    log_prob: log pi(a_t), nats.
    reference_log_prob: log ref(a_t), nats. No gradient flows through it.
    mask: true where a_t was drawn from pi.

  Returns:
    k1 in nats, zero with zero gradient where `mask` is false.

  Schulman 2020, "Approximating KL divergence"; for the gradients of the
  three estimators see `k2` and `k3`.

  >>> k1(jnp.array([-1.0]), jnp.array([-1.5]), jnp.array([True])).tolist()
  [0.5]
  """
  return _log_ratio(log_prob, reference_log_prob, mask)


def k2(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """Half the squared log-ratio: a biased KL value with the right gradient.

      x_t = log pi(a_t) - log ref(a_t),   k2_t = x_t^2 / 2

  Value: never negative, biased. Gradient, when differentiated with a_t drawn
  from pi: exactly that of KL(pi || ref) in expectation.

  Args:
    log_prob: log pi(a_t), nats.
    reference_log_prob: log ref(a_t), nats. No gradient flows through it.
    mask: true where a_t was drawn from pi.

  Returns:
    k2 in nats squared, zero with zero gradient where `mask` is false.

  Schulman 2020, "Approximating KL divergence".

  >>> k2(jnp.array([-1.0]), jnp.array([-1.5]), jnp.array([True])).tolist()
  [0.125]
  """
  return 0.5 * jnp.square(_log_ratio(log_prob, reference_log_prob, mask))


def k3(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """An unbiased KL value that is never negative; its gradient is another KL's.

      x_t = log pi(a_t) - log ref(a_t),   k3_t = exp(-x_t) - 1 + x_t

  Value: E_pi[k3] = KL(pi || ref) wherever pi covers ref. Gradient, when
  differentiated with a_t drawn from pi: that of KL(ref || pi), the other
  direction, in expectation. Nothing is clamped: x_t below -88 overflows
  float32 and the value is then infinite.

  Args:
    log_prob: log pi(a_t), nats.
    reference_log_prob: log ref(a_t), nats. No gradient flows through it.
    mask: true where a_t was drawn from pi.

  Returns:
    k3 in nats, zero with zero gradient where `mask` is false.

  Schulman 2020, "Approximating KL divergence"; as a penalty in Shao et al.
  2024, arXiv:2402.03300, eq. 4.

  >>> log_prob = jnp.log(jnp.array([0.5]))
  >>> k3(log_prob, jnp.zeros(1), jnp.array([True])).round(4).tolist()
  [0.3069000244140625]
  """
  x = _log_ratio(log_prob, reference_log_prob, mask)
  return jnp.expm1(-x) + x


def categorical_kl(
  logits: Float[Array, "*batch time vocabulary"],
  reference_logits: Float[Array, "*batch time vocabulary"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """KL(pi || ref) summed over the whole vocabulary: exact value and gradient.

      p = softmax(z_t),  q = softmax(z'_t),  KL_t = sum_v p_v log(p_v / q_v)

  A logit of -inf removes an entry from the support. Where pi lacks it the
  term is zero; where only the reference lacks it the divergence is infinite.

  Args:
    logits: z, unnormalised log-probabilities of pi, at the temperature that
      is meant.
    reference_logits: z', the same of the reference. No gradient flows
      through it.
    mask: true = counts.

  Returns:
    KL in nats, zero with zero gradient where `mask` is false.

  >>> logits = jnp.log(jnp.array([[0.5, 0.5, 0.0]]))
  >>> wider = jnp.log(jnp.array([[0.25, 0.25, 0.5]]))
  >>> nats = categorical_kl(logits, wider, jnp.array([True]))
  >>> jnp.exp(nats).round(5).tolist()
  [2.0]
  """
  counted = mask[..., None]
  log_p = jax.nn.log_softmax(jnp.where(counted, widened(logits), 0.0))
  reference = jax.lax.stop_gradient(widened(reference_logits))
  log_q = jax.nn.log_softmax(jnp.where(counted, reference, 0.0))
  # Outside pi's support -inf - log_q must not meet the zero it multiplies.
  excess = jnp.where(jnp.isneginf(log_p), 0.0, log_p - log_q)
  # A masked row has 0 * (log 1/V - log 1/V): exactly zero, and no gradient.
  return jnp.sum(jnp.exp(log_p) * excess, axis=-1)


def gaussian_kl_sum(
  mean: Float[Array, "row time *event"],
  reference_mean: Float[Array, "row time *event"],
  std: Float[Array, "row time"],
) -> Float[Array, "row time"]:
  """KL between Gaussians of one isotropic variance, summed over the event.

      KL_it = sum_d (mu_itd - mu'_itd)^2 / (2 std_it^2)

  The KL of the whole latent: both directions agree, value and gradient are
  exact.

  Args:
    mean: mu, in the unit of the latent.
    reference_mean: mu', same unit. No gradient flows through it.
    std: the common standard deviation, same unit, positive.

  Returns:
    KL in nats.

  >>> mean = jnp.array([[[1.0, 3.0]]])
  >>> gaussian_kl_sum(mean, jnp.zeros((1, 1, 2)), jnp.array([[1.0]])).tolist()
  [[5.0]]
  """
  square = _squared_distance(mean, reference_mean)
  return jnp.sum(square, axis=_event(square)) / _twice_variance(std)


def gaussian_kl_mean(
  mean: Float[Array, "row time *event"],
  reference_mean: Float[Array, "row time *event"],
  std: Float[Array, "row time"],
) -> Float[Array, "row time"]:
  """KL between Gaussians of one isotropic variance, averaged over the event.

      KL_it = (1/D) sum_d (mu_itd - mu'_itd)^2 / (2 std_it^2)

  The KL per dimension: `gaussian_kl_sum` divided by the number D of entries
  of the event, so that a weight carries over between resolutions.

  Args:
    mean: mu, in the unit of the latent.
    reference_mean: mu', same unit. No gradient flows through it.
    std: the common standard deviation, same unit, positive.

  Returns:
    KL in nats per dimension.

  >>> mean = jnp.array([[[1.0, 3.0]]])
  >>> gaussian_kl_mean(mean, jnp.zeros((1, 1, 2)), jnp.array([[1.0]])).tolist()
  [[2.5]]
  """
  square = _squared_distance(mean, reference_mean)
  return jnp.mean(square, axis=_event(square)) / _twice_variance(std)


def gaussian_mean_kl(
  mean: Float[Array, "row time *event"],
  reference_mean: Float[Array, "row time *event"],
  sigma: Float[Array, "row time"],
  dt: Float[Array, "row time"],
  *,
  normalisation: Normalisation,
) -> Float[Array, "row time"]:
  """KL of one stochastic denoising step to the reference's, over its event.

      KL_it = (1/D) sum_d (mu_itd - mu'_itd)^2 / (2 s_it^2)

      "exact":      s = sigma sqrt(-dt), the standard deviation of the step
      "reference":  s = sigma, as the reference code of Flow-GRPO divides

  "exact" is "reference" divided by -dt, hence the larger; a weight tuned for
  one does not fit the other.

  Args:
    mean: mu, mean of the step's next latent.
    reference_mean: mu', the same under the reference. No gradient flows
      through it.
    sigma: diffusion coefficient at the step, positive.
    dt: t_next - t, negative because time runs from noise to data; a positive
      one gives NaN with "exact".
    normalisation: which standard deviation divides.

  Returns:
    KL in nats per dimension.

  Raises:
    ValueError: for an unknown normalisation.

  Liu et al. 2025, arXiv:2505.05470 (Flow-GRPO); its code is "reference", its
  equation "exact".

  >>> mean, zero = jnp.full((1, 1, 2), 0.5), jnp.zeros((1, 1, 2))
  >>> sigma, dt = jnp.ones((1, 1)), jnp.full((1, 1), -0.25)
  >>> gaussian_mean_kl(mean, zero, sigma, dt, normalisation="exact").tolist()
  [[0.5]]
  """
  if normalisation not in ("reference", "exact"):
    raise ValueError(
      f"normalisation must be 'reference' or 'exact', got {normalisation!r}"
    )
  std = widened(sigma)
  if normalisation == "exact":
    std = std * jnp.sqrt(-widened(dt))
  return gaussian_kl_mean(mean, reference_mean, std)


def _log_ratio(log_prob, reference_log_prob, mask):
  reference = jax.lax.stop_gradient(keep(reference_log_prob, mask))
  return keep(log_prob, mask) - reference


def _squared_distance(mean, reference_mean):
  reference = jax.lax.stop_gradient(widened(reference_mean))
  return jnp.square(widened(mean) - reference)


def _event(value):
  """The axes after row and time."""
  return tuple(range(2, value.ndim))


def _twice_variance(std):
  return 2.0 * jnp.square(widened(std))
