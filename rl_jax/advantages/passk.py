"""How often one of k tries is right, from n tries."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["PassAtK", "pass_at_k"]


class PassAtK(NamedTuple):
  """An estimate, and where there is one.

  Attributes:
    value: probability that at least one of k tries is right.
    valid: false where the counts allow no estimate; the value is 0 there.
  """

  value: Float[Array, "*batch"]
  valid: Bool[Array, "*batch"]


def pass_at_k(
  tries: Int[Array, "*batch"], correct: Int[Array, "*batch"], *, k: int
) -> PassAtK:
  r"""Unbiased probability that one of k tries is right.

      value = 1 - C(n - c, k) / C(n, k) = 1 - prod_{i<k} (n - c - i) / (n - i)

  One minus the share of k-subsets of the n tries that hold no right one;
  1 - (1 - c/n)^k is biased.

  Args:
    tries: n of each prompt.
    correct: c of each prompt.
    k: how many tries are allowed; static.

  Returns:
    The estimate, not valid where n < k or c is not in [0, n].

  Raises:
    ValueError: if `k` < 1.

  Chen et al. 2021, arXiv:2107.03374 (Codex), eq. 1.

  >>> found = pass_at_k(jnp.array([4, 2]), jnp.array([1, 1]), k=3)
  >>> found.value.tolist(), found.valid.tolist()
  ([0.75, 0.0], [True, False])
  """
  if k < 1:
    raise ValueError(f"k must be at least 1, got {k}")
  valid = (tries >= k) & (correct >= 0) & (correct <= tries)
  left = tries[..., None] - jnp.arange(k).reshape((1,) * tries.ndim + (k,))
  wrong = jnp.maximum(left - correct[..., None], 0).astype(jnp.float32)
  fails = jnp.prod(wrong / jnp.maximum(left, 1).astype(jnp.float32), axis=-1)
  return PassAtK(jnp.where(valid, 1.0 - fails, 0.0), valid)
