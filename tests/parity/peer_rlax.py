"""rlax: returns and advantages of the actor-critic kind, losses by weights."""

from __future__ import annotations

import pathlib

import numpy as np

from parity.batch import make_batch
from parity.sources import module, save

__all__ = ["main"]

GAMMA = 0.98
TRACE = 0.9


def main(source: pathlib.Path | None, commit: str | None) -> None:
  """Writes rlax.json; source and commit are not used."""
  del source, commit
  jax, rlax = module("jax"), module("rlax")
  jax.config.update("jax_enable_x64", True)
  jnp = jax.numpy
  batch = make_batch()
  reward, mask = batch["token_reward"], batch["mask"]
  numbers = {name: [] for name in ("gae", "lambda", "n_step", "discounted")}
  numbers |= {"vtrace error": [], "vtrace advantage": []}
  # One sequence at a time, without the padding that rlax knows nothing of; the
  # last value is zero because nothing follows.
  for i, length in enumerate(mask.sum(1)):
    r = jnp.asarray(reward[i, :length])
    v = jnp.asarray(np.append(batch["value"][i, :length], 0.0))
    discount = jnp.full(length, GAMMA)
    rho = jnp.exp(
      jnp.asarray((batch["log_prob"] - batch["old_log_prob"])[i, :length])
    )
    numbers["gae"].append(
      rlax.truncated_generalized_advantage_estimation(r, discount, TRACE, v)
    )
    numbers["lambda"].append(rlax.lambda_returns(r, discount, v[1:], TRACE))
    numbers["n_step"].append(
      rlax.n_step_bootstrapped_returns(r, discount, v[1:], 2)
    )
    numbers["discounted"].append(
      rlax.discounted_returns(r, discount, jnp.zeros(length))
    )
    trace = rlax.vtrace_td_error_and_advantage(
      v[:-1], v[1:], r, discount, rho, TRACE, 1.1, 1.2
    )
    numbers["vtrace error"].append(trace.errors)
    numbers["vtrace advantage"].append(trace.pg_advantage)
  row = mask.shape[1]
  numbers = {
    name: [np.pad(value, (0, row - len(value))) for value in values]
    for name, values in numbers.items()
  }
  logits = jnp.zeros((2, 4))
  numbers["faults"] = {
    "entropy without padding": rlax.entropy_loss(logits[:1], jnp.ones(1)),
    "entropy with one padded step": rlax.entropy_loss(
      logits, jnp.array([1.0, 0.0])
    ),
    "entropy with NaN in the padding": rlax.entropy_loss(
      logits.at[1].set(jnp.nan), jnp.array([1.0, 0.0])
    ),
  }
  save(
    "rlax",
    {
      "package": f"rlax=={rlax.__version__}",
      "jax": jax.__version__,
      "licence": "Apache-2.0",
    },
    numbers,
  )
