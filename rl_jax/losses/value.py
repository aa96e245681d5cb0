"""Losses of a critic: how far a value is from what it should have been.

A value is a number, or the mean of a distribution over fixed atoms that is
fitted by cross-entropy. Targets are constants: no gradient flows into them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr

from rl_jax.masks import keep, widened
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "ExplainedVariance",
  "ValueLoss",
  "categorical_mean",
  "categorical_value_loss",
  "clipped_value_loss",
  "explained_variance",
  "gaussian_target",
  "huber_value_loss",
  "two_hot_target",
]


class ValueLoss(NamedTuple):
  """A value loss and where its clip was at work, of one shape.

  Attributes:
    loss: per element, in units of reward squared; zero where masked.
    clipped: true where the clipped error was the larger, so that no gradient
      flows; false where masked.
  """

  loss: Float[Array, "*batch time"]
  clipped: Bool[Array, "*batch time"]


def clipped_value_loss(
  value: Float[Array, "*batch time"],
  behaviour_value: Float[Array, "*batch time"],
  target: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clip: float,
) -> ValueLoss:
  r"""Squared error of a value that may not move far in one update phase.

      l = max((V - G)^2, (U - G)^2) / 2,   U = clip(V, V' - clip, V' + clip)

  Args:
    value: V, of the critic being trained.
    behaviour_value: V', of the critic before these updates. No gradient flows
      through it.
    target: G, such as advantage plus V'. No gradient flows through it.
    mask: true = counts.
    clip: in units of reward, not negative; infinity gives half the squared
      error. 0.2 in TRL, 0.5 in verl and OpenRLHF: a number without a unit, so
      scale it with the rewards.

  Returns:
    Loss of each element, not reduced, and where the clip was at work.

  Raises:
    ValueError: if `clip` is negative.

  The critic loss of the PPO implementations since OpenAI baselines, including
  the half.

  >>> one, kept = jnp.ones(1), jnp.ones(1, bool)
  >>> terms = clipped_value_loss(2 * one, one, 2 * one, kept, clip=0.5)
  >>> terms.loss.tolist(), terms.clipped.tolist()
  ([0.125], [True])
  """
  if not clip >= 0:
    raise ValueError(f"clip must not be negative, got {clip}")
  value = keep(value, mask)
  old, target = _constants(mask, behaviour_value, target)
  near = jnp.clip(value, old - clip, old + clip)
  free, bounded = jnp.square(value - target), jnp.square(near - target)
  return ValueLoss(0.5 * jnp.maximum(free, bounded), bounded > free)


def huber_value_loss(
  value: Float[Array, "*batch time"],
  target: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  threshold: float,
) -> Float[Array, "*batch time"]:
  r"""Half the squared error near the target, linear far from it.

      e = V - G
      l = e^2 / 2                             where |e| <= threshold
      l = threshold (|e| - threshold / 2)     elsewhere

  Args:
    value: V, of the critic being trained.
    target: G. No gradient flows through it.
    mask: true = counts.
    threshold: in units of reward, positive; the largest gradient.

  Returns:
    Loss of each element, in units of reward squared, not reduced.

  Raises:
    ValueError: if `threshold` is not positive.

  Huber 1964, "Robust estimation of a location parameter".

  >>> value, kept = jnp.array([0.5, -3.0]), jnp.ones(2, bool)
  >>> huber_value_loss(value, jnp.zeros(2), kept, threshold=1.0).tolist()
  [0.125, 2.5]
  """
  if not threshold > 0:
    raise ValueError(f"threshold must be positive, got {threshold}")
  (target,) = _constants(mask, target)
  error = keep(value, mask) - target
  near = jnp.clip(error, -threshold, threshold)
  # One expression for both pieces: near (e - near / 2).
  return near * (error - 0.5 * near)


def categorical_value_loss(
  logits: Float[Array, "*batch time atom"],
  probability: Float[Array, "*batch time atom"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  r"""Cross-entropy of a distribution over atoms to the one it should be.

      l_t = -sum_k p_tk log softmax(z_t)_k

  Args:
    logits: z, of the critic being trained.
    probability: p, from `two_hot_target` or `gaussian_target`. No gradient
      flows through it.
    mask: true = counts.

  Returns:
    Loss of each element in nats, not reduced; zero where masked.

  Bellemare et al. 2017, arXiv:1707.06887; Farebrother et al. 2024,
  arXiv:2403.03950.

  >>> certain = jnp.array([[1.0, 0.0]])
  >>> nats = categorical_value_loss(
  ...   jnp.zeros((1, 2)), certain, jnp.array([True])
  ... )
  >>> jnp.exp(nats).round(5).tolist()
  [2.0]
  """
  counted = mask[..., None]
  log_q = jax.nn.log_softmax(jnp.where(counted, widened(logits), 0.0))
  p = jnp.where(counted, widened(probability), 0.0)
  p = jax.lax.stop_gradient(p)
  # A logit of -inf beside a probability of zero adds nothing.
  return -jnp.sum(p * jnp.where(p != 0, log_q, 0.0), axis=-1)


def categorical_mean(
  logits: Float[Array, "*batch time atom"],
  atom: Float[Array, "atom"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  r"""The value that a distribution over atoms stands for: its mean.

      V_t = sum_k softmax(z_t)_k atom_k

  Args:
    logits: z. The gradient flows through it.
    atom: the values, in units of reward.
    mask: true = counts.

  Returns:
    V, in units of reward; zero where masked.

  >>> atom = jnp.array([0.0, 2.0])
  >>> categorical_mean(jnp.zeros((1, 2)), atom, jnp.array([True])).tolist()
  [1.0]
  """
  counted = mask[..., None]
  p = jax.nn.softmax(jnp.where(counted, widened(logits), 0.0))
  value = _last_axis(jax.lax.stop_gradient(widened(atom)), mask)
  # Not a matrix product: accelerators round the factors of those.
  return jnp.where(mask, jnp.sum(p * value, axis=-1), 0.0)


def two_hot_target(
  target: Float[Array, "*batch time"],
  atom: Float[Array, "atom"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time atom"]:
  r"""Probability on the two atoms around a target, with the target as mean.

      p_k = (atom_{k+1} - y) / (atom_{k+1} - atom_k),   p_{k+1} = 1 - p_k

  where atom_k <= y <= atom_{k+1}. Targets beyond the atoms are put on the
  outermost, and the mean is then no longer the target.

  Args:
    target: y, in units of reward.
    atom: rising values, at least two, evenly spaced or not.
    mask: true = counts.

  Returns:
    p, which sums to one, or zero where masked; carries no gradient.

  Raises:
    ValueError: if there is only one atom.

  Schrittwieser et al. 2020, arXiv:1911.08265, appendix F.

  >>> atom = jnp.array([0.0, 1.0, 3.0])
  >>> two_hot_target(jnp.array([1.5]), atom, jnp.array([True])).tolist()
  [[0.0, 0.75, 0.25]]
  """
  y, atom = _within(target, atom, mask)
  below = jnp.searchsorted(atom, y, side="right", method="compare_all") - 1
  below = jnp.clip(below, 0, atom.size - 2)
  share = (y - atom[below]) / (atom[below + 1] - atom[below])
  p = _weighted(1.0 - share, below, atom) + _weighted(share, below + 1, atom)
  return jnp.where(mask[..., None], p, 0.0)


def gaussian_target(
  target: Float[Array, "*batch time"],
  atom: Float[Array, "atom"],
  mask: Bool[Array, "*batch time"],
  *,
  spread: float,
) -> Float[Array, "*batch time atom"]:
  r"""Probability of a Gaussian around a target in the bin of each atom.

      p_k = (Phi(u_{k+1}) - Phi(u_k)) / (Phi(u_n) - Phi(u_0))
      u_k = (edge_k - y) / spread

  Edges lie halfway between atoms; the outermost bins are symmetric around
  theirs. Neighbouring atoms share what they learn, at the price of a mean
  that is only nearly the target. Targets beyond the atoms are moved to the
  outermost first.

  Args:
    target: y, in units of reward.
    atom: rising values, at least two; evenly spaced in the paper.
    mask: true = counts.
    spread: standard deviation in units of reward, positive; 0.75 bin widths
      in the paper.

  Returns:
    p, which sums to one, or zero where masked; carries no gradient.

  Raises:
    ValueError: if `spread` is not positive or there is only one atom.

  Imani and White 2018, arXiv:1806.04613; HL-Gauss of Farebrother et al.
  2024, arXiv:2403.03950, section 3.1.

  >>> atom = jnp.array([-1.0, 0.0, 1.0])
  >>> p = gaussian_target(jnp.zeros(1), atom, jnp.array([True]), spread=0.75)
  >>> (p[0, 0] == p[0, 2]).item(), round(p.sum().item(), 5)
  (True, 1.0)
  """
  if not spread > 0:
    raise ValueError(f"spread must be positive, got {spread}")
  y, atom = _within(target, atom, mask)
  middle = 0.5 * (atom[1:] + atom[:-1])
  first, last = 2.0 * atom[:1] - middle[:1], 2.0 * atom[-1:] - middle[-1:]
  edge = jnp.concatenate([first, middle, last])
  below = ndtr((_last_axis(edge, y) - y[..., None]) / spread)
  p = jnp.diff(below) / (below[..., -1:] - below[..., :1])
  return jnp.where(mask[..., None], p, 0.0)


class ExplainedVariance(NamedTuple):
  """How much of the spread of the targets a critic accounts for.

  A ratio of variances is no mean, so it cannot be one Total; it is made of
  four that are. Those of batches add, leaf by leaf.

  Attributes:
    error: Total of G - V.
    error_square: Total of (G - V)^2.
    target: Total of G.
    target_square: Total of G^2.
  """

  error: Total
  error_square: Total
  target: Total
  target_square: Total

  def __add__(self, other: ExplainedVariance) -> ExplainedVariance:  # type: ignore[override]
    return ExplainedVariance(
      *(mine + theirs for mine, theirs in zip(self, other, strict=True))
    )

  def fraction(self) -> Float[Array, ""]:
    """One minus the variance of the error over that of the targets.

        1 - Var(G - V) / Var(G)

    Returns:
      1 for a perfect critic, 0 for a constant one, negative for one that is
      worse; 0 when the targets do not vary. Moments are subtracted in
      float32: targets whose mean is more than some hundred times their
      spread leave few digits.
    """
    error = self.error_square.mean() - jnp.square(self.error.mean())
    spread = self.target_square.mean() - jnp.square(self.target.mean())
    some = spread > 0
    return jnp.where(some, 1.0 - error / jnp.where(some, spread, 1.0), 0.0)


def explained_variance(
  value: Float[Array, "*batch time"],
  target: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> ExplainedVariance:
  """What `ExplainedVariance.fraction` is computed from.

  Args:
    value: V. No gradient flows through it.
    target: G. No gradient flows through it.
    mask: true = counts.

  Returns:
    Four Totals over the counted elements.

  >>> target, kept = jnp.array([1.0, -1.0]), jnp.ones(2, bool)
  >>> explained_variance(target / 2, target, kept).fraction().item()
  0.75
  """
  value, target = _constants(mask, value, target)
  count = jnp.sum(mask, dtype=jnp.float32)
  error = target - value
  moments = (error, jnp.square(error), target, jnp.square(target))
  return ExplainedVariance(*(Total(jnp.sum(x), count) for x in moments))


def _constants(mask, *arrays):
  return [jax.lax.stop_gradient(keep(x, mask)) for x in arrays]


def _within(target, atom, mask):
  """Target and atoms in one precision, the target between the outermost."""
  if atom.size < 2:
    raise ValueError(f"needs at least two atoms, got {atom.size}")
  atom = jax.lax.stop_gradient(widened(atom))
  (target,) = _constants(mask, target)
  return jnp.clip(target, atom[0], atom[-1]), atom


def _weighted(share, place, atom):
  return share[..., None] * jax.nn.one_hot(place, atom.size, dtype=atom.dtype)


def _last_axis(atom, value):
  return jnp.expand_dims(atom, tuple(range(value.ndim)))
