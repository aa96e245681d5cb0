"""How far a policy is from its reference, per element and in nats.

Each function says what its value estimates *and* what its gradient is,
because an estimator with the right value may have the wrong gradient: k1 and
k3 have the same expectation, and as losses they do different things.

    what                        value            gradient, actions from pi
    k1                          unbiased         zero: useless as a loss
    k2                          biased           KL(pi || ref)
    k3                          unbiased, >= 0   KL(ref || pi)
    absolute_log_ratio          biased, >= 0     of no KL
    kl_value_and_gradient       unbiased, >= 0   KL(pi || ref)
    importance_k1               unbiased         KL(pi || ref), also where the
    importance_k3               unbiased, >= 0     actions are another policy's
    categorical_kl ...          exact            exact: the whole vocabulary
    gaussian_kl_sum ...         exact            exact: between Gaussians

Nothing here is clamped. Frameworks bound the log-ratio (verl to 20 nats,
open-instruct to 40) and the value (verl's k3 and OpenRLHF's estimators to
10), and beyond those bounds their gradient is exactly zero. To do as they do,
say so: `jnp.clip(k3(ratios.clamped_log_prob(p, q, mask, clamp=20.0), q,
mask), -10.0, 10.0)`.
"""

from rl_jax.divergences.categorical import (
  categorical_forward_kl,
  categorical_jensen_shannon,
  categorical_kl,
)
from rl_jax.divergences.gaussian import (
  Normalisation,
  gaussian_kl_mean,
  gaussian_kl_sum,
  gaussian_mean_kl,
)
from rl_jax.divergences.sampled import absolute_log_ratio, k1, k2, k3
from rl_jax.divergences.surrogates import (
  importance_k1,
  importance_k3,
  kl_value_and_gradient,
  straight_through,
)

__all__ = [
  "Normalisation",
  "absolute_log_ratio",
  "categorical_forward_kl",
  "categorical_jensen_shannon",
  "categorical_kl",
  "gaussian_kl_mean",
  "gaussian_kl_sum",
  "gaussian_mean_kl",
  "importance_k1",
  "importance_k3",
  "k1",
  "k2",
  "k3",
  "kl_value_and_gradient",
  "straight_through",
]
