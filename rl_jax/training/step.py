"""One optimiser step from Totals: micro-batches add up, one division."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Float, PyTree

__all__ = ["accumulated_gradient", "mean_loss", "merged", "split_rows"]

type Terms = Mapping[str, Total]
type Loss = Callable[[Any, Any], tuple[Terms, Terms]]


def split_rows(batch: PyTree, parts: int) -> PyTree:
  """Rows dealt out to `parts` micro-batches, like cards.

  Part j gets rows j, j + parts, j + 2 parts, ... Dealing, rather than
  cutting, keeps every device's rows on that device.

  Args:
    batch: arrays with rows first.
    parts: how many micro-batches; must divide the rows.

  Returns:
    The same arrays as [parts, rows / parts, ...].

  Raises:
    ValueError: if `parts` does not divide the rows.
  """

  def deal(x: jax.Array) -> jax.Array:
    rows = x.shape[0]
    if parts < 1 or rows % parts:
      raise ValueError(
        f"{rows} rows cannot be split into {parts} equal micro-batches"
      )
    return jnp.swapaxes(x.reshape(rows // parts, parts, *x.shape[1:]), 0, 1)

  return jax.tree.map(deal, batch)


def merged(parts: PyTree) -> PyTree:
  """Totals that were stacked along a first axis, added up.

  Args:
    parts: a tree of stacked Totals, one entry per micro-batch.

  Returns:
    The same tree without that axis.
  """
  return jax.tree.map(lambda x: jnp.sum(x, axis=0), parts)


def mean_loss(terms: Terms, weights: Mapping[str, float]) -> Float[Array, ""]:
  """The number that a step descends: each term's mean times its weight.

      sum_k weight_k value_k / weight of the Total_k

  Args:
    terms: Totals over the whole batch, by name.
    weights: coefficient of each term, by the same names.

  Returns:
    The loss.
  """
  return sum(
    (weights[name] * total.mean() for name, total in terms.items()),
    start=jnp.zeros(()),
  )


def accumulated_gradient(
  loss: Loss,
  weights: Mapping[str, float],
  params: PyTree,
  batch: PyTree,
  *,
  micro_batches: int,
) -> tuple[PyTree, dict[str, Total]]:
  """Gradient of a weighted sum of means, each with its own denominator.

      L = sum_k w_k V_k / W_k,    V_k, W_k summed over all micro-batches

  The weights W_k depend on masks and not on parameters, so a first pass asks
  for them only (the compiler drops the model from it), and the second adds
  up gradients of sum_k w_k V_k(part) / W_k. The result equals that of one
  big batch for every split.

  Args:
    loss: (params, rows) -> (terms, metrics), both name -> Total.
    weights: weight of each term in the loss; a term not named here is an
      error, as is a name without a term.
    params: what to differentiate with respect to.
    batch: arrays with rows first.
    micro_batches: how many parts to split the rows into.

  Returns:
    The gradient, in the structure of `params`, and the metrics of the whole
    batch: those of `loss`, each term as `loss/<name>`, and their weighted sum
    as `loss`.

  Raises:
    ValueError: if rows do not divide, or terms and weights do not match.
  """
  parts = split_rows(batch, micro_batches)
  first = jax.tree.map(lambda x: x[0], parts)
  terms = jax.eval_shape(loss, params, first)[0]
  if set(terms) != set(weights):
    raise ValueError(
      f"the loss has terms {sorted(terms)} but weights name {sorted(weights)}"
    )

  def term_weights(part: PyTree) -> dict[str, jax.Array]:
    totals, _ = loss(jax.lax.stop_gradient(params), part)
    return {name: total.weight for name, total in totals.items()}

  def scaled(params: PyTree, part: PyTree, whole: dict[str, jax.Array] | None):
    totals, metrics = loss(params, part)
    # The only part is the whole batch; otherwise divide by its weights.
    over = (
      {k: Total(v.value, whole[k]) for k, v in totals.items()}
      if whole
      else totals
    )
    value = mean_loss(over, weights)
    kept = dict(metrics) | {f"loss/{k}": v for k, v in totals.items()}
    return value, kept

  gradient_of = jax.grad(scaled, has_aux=True)
  if micro_batches == 1:
    gradient, metrics = gradient_of(params, first, None)
  else:
    whole = merged(jax.lax.map(term_weights, parts))

    def add(gradient: PyTree, part: PyTree) -> tuple[PyTree, Terms]:
      more, metrics = gradient_of(params, part, whole)
      return jax.tree.map(jnp.add, gradient, more), metrics

    zero = jax.tree.map(jnp.zeros_like, params)
    gradient, metrics = jax.lax.scan(add, zero, parts)
    metrics = merged(metrics)
  total = mean_loss({k: metrics[f"loss/{k}"] for k in weights}, weights)
  return gradient, metrics | {"loss": Total(total, jnp.ones(()))}
