"""KL losses made so that value and gradient are both those of KL(pi || ref).

On policy, the value of one estimator and the gradient of another. Off policy,
the importance ratio *with its gradient*: the expectation under the behaviour
is then the KL as a function of the parameters, so its gradient is exact too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

from rl_jax.divergences.sampled import k2, k3, log_ratio

__all__ = [
  "importance_k1",
  "importance_k3",
  "kl_value_and_gradient",
  "straight_through",
]


def straight_through(
  value: Float[Array, "*batch"], surrogate: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
  """The value of one array with the gradient of another.

      y = surrogate - stop(surrogate) + stop(value)

  "k1+", "k3+" and "abs+" of verl are `straight_through(k, k2(...))` with the
  estimator k of that name. Both must be finite.

  Args:
    value: what is returned. No gradient flows through it.
    surrogate: whose gradient is returned, in the same unit.

  Returns:
    y, equal to `value`.

  >>> x = jnp.array([3.0])
  >>> y, slope = jax.vjp(lambda x: straight_through(x, x**2), x)
  >>> y.tolist(), slope(jnp.ones(1))[0].tolist()
  ([3.0], [6.0])
  """
  surrogate = widened(surrogate)
  # The difference first: it is exactly zero, so the value is not rounded.
  step = surrogate - jax.lax.stop_gradient(surrogate)
  return step + jax.lax.stop_gradient(widened(value))


def kl_value_and_gradient(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """KL(pi || ref) from actions of pi: value of k3, gradient of k2.

      x_t = log pi(a_t) - log ref(a_t)
      y_t = k2(x_t) - stop(k2(x_t)) + stop(k3(x_t))

  Value: E_pi[y] = KL(pi || ref), never negative. Gradient: x grad log pi,
  exactly that of KL(pi || ref) in expectation over actions of pi. Actions of
  a stale policy bias both; see `importance_k3`.

  Args:
    log_prob: log pi(a_t), nats.
    reference_log_prob: log ref(a_t), nats. No gradient flows through it.
    mask: true where a_t was drawn from pi.

  Returns:
    y in nats, zero with zero gradient where `mask` is false.

  "k3+" (low_var_kl+) of verl.

  >>> log_prob = jnp.array([-1.0])
  >>> slope = jax.grad(
  ...   lambda x: kl_value_and_gradient(x, x - 0.5, jnp.array([True]))[0]
  ... )
  >>> slope(log_prob).tolist()
  [0.5]
  """
  value = k3(log_prob, reference_log_prob, mask)
  return straight_through(value, k2(log_prob, reference_log_prob, mask))


def importance_k1(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """KL(pi || ref) from actions of another policy: ratio times log-ratio.

      r_t = pi(a_t) / behaviour(a_t),   x_t = log pi(a_t) - log ref(a_t)
      y_t = r_t x_t

  Value: E_behaviour[y] = KL(pi || ref), wherever the behaviour covers pi.
  Gradient: r (x + 1) grad log pi, exactly that of KL(pi || ref) in
  expectation over actions of the behaviour, because the ratio is
  differentiated. With pi as its own behaviour it is right too.

  Args:
    log_prob: log pi(a_t), nats.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats.
      No gradient flows through it.
    reference_log_prob: log ref(a_t), nats. No gradient flows through it.
    mask: true where a_t was drawn from the behaviour.

  Returns:
    y in nats, of any sign, zero with zero gradient where `mask` is false.

  The fourth KL estimator of open-instruct.

  >>> nats = importance_k1(
  ...   jnp.zeros(1), jnp.zeros(1), -jnp.ones(1), jnp.ones(1, bool)
  ... )
  >>> nats.tolist()
  [1.0]
  """
  ratio = jnp.exp(log_ratio(log_prob, behaviour_log_prob, mask))
  return ratio * log_ratio(log_prob, reference_log_prob, mask)


def importance_k3(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """KL(pi || ref) from actions of another policy: ratio times k3.

      r_t = pi(a_t) / behaviour(a_t),   x_t = log pi(a_t) - log ref(a_t)
      y_t = r_t (exp(-x_t) - 1 + x_t)

  Value: E_behaviour[y] = KL(pi || ref), never negative, wherever the
  behaviour covers both. Gradient: r x grad log pi, exactly that of
  KL(pi || ref) in expectation over actions of the behaviour; k3 alone has
  that of KL(ref || pi). With pi as its own behaviour it is right too.

  Args:
    log_prob: log pi(a_t), nats.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats.
      No gradient flows through it.
    reference_log_prob: log ref(a_t), nats. No gradient flows through it.
    mask: true where a_t was drawn from the behaviour.

  Returns:
    y in nats, zero with zero gradient where `mask` is false.

  The unbiased KL of DeepSeek-V3.2 (2025), `use_bias_correction_kl` of TRL.

  >>> same = jnp.array([-1.0])
  >>> importance_k3(same, same, same, jnp.ones(1, bool)).tolist()
  [0.0]
  """
  ratio = jnp.exp(log_ratio(log_prob, behaviour_log_prob, mask))
  return ratio * k3(log_prob, reference_log_prob, mask)
