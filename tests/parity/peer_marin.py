"""marin: its leave-one-out loss, and the reduction that carries GRPO's name."""

from __future__ import annotations

import pathlib
import types

import numpy as np

from parity.batch import make_batch
from parity.column import by_group, jax_column, rows_without
from parity.sources import definitions, module, save

__all__ = ["main"]

FUNCTIONS = (
  "compute_dapo_loss",
  "compute_grpo_loss",
  "compute_ppo_loss",
  "compute_ppo_loss_objective",
  "compute_rloo_advantages",
  "importance_sampling_ratio",
  "rloo_loss_with_importance_sampling",
)


def main(source: pathlib.Path | None, commit: str | None) -> None:
  """Writes marin.json."""
  jax = module("jax")
  jax.config.update("jax_enable_x64", True)
  jnp = jax.numpy
  metric = types.SimpleNamespace(from_value=lambda value, _: value)
  theirs = definitions(
    source / "lib" / "marin" / "src" / "marin" / "rl" / "rl_losses.py",
    FUNCTIONS,
    {
      "jax": jax,
      "jnp": jnp,
      "np": np,
      "Metric": metric,
      "ReductionType": types.SimpleNamespace(MAX=None, MEAN=None),
      # Numbers to log, and the model's forward pass: not what is compared.
      "compute_metadata_metrics": lambda *_: {},
      "compute_logprobs": None,
    },
  )
  rows = rows_without()
  batch = {k: jnp.asarray(v[rows]) for k, v in make_batch().items()}

  def advantage(score):
    return theirs["compute_rloo_advantages"](
      [types.SimpleNamespace(episode_reward=value) for value in score]
    )

  per_row = by_group(advantage, rows)
  each = jnp.broadcast_to(per_row[:, None], batch["mask"].shape)
  array = types.SimpleNamespace

  def loss(log_prob, mask):
    given = types.SimpleNamespace(
      policy_logprobs=array(array=batch["old_log_prob"]),
      loss_weights=array(array=each),
      loss_masks=array(array=jnp.asarray(mask, jnp.float64)),
      max_output_tokens=8,
      truncated=None,
      temperature=array(array=jnp.ones(1)),
      top_k=array(array=jnp.ones(1)),
    )
    # The defaults of RLOOLoss at this commit.
    return theirs["rloo_loss_with_importance_sampling"](
      log_prob,
      batch["reference_log_prob"],
      given,
      key=None,
      kl_coef=0.1,
      clip_epsilon_low=0.2,
      clip_epsilon_high=0.2,
      tis_importance_sampling_ratio_max=2.0,
      compute_logprobs_fn=lambda model, *_: model,
    )[0]

  found = jax_column(loss, batch, token=False)
  numbers = {"grpo": {"rows": rows, "advantage": per_row, **found}}
  objective = -jnp.asarray(batch["token_reward"])
  mask = jnp.asarray(batch["mask"], jnp.float64)
  numbers["reductions"] = {
    "dapo": theirs["compute_dapo_loss"](objective, mask),
    "grpo": theirs["compute_grpo_loss"](objective, mask, 8),
    "ppo": theirs["compute_ppo_loss"](objective, mask),
  }
  half = jnp.full((4, 1), 1.0)
  numbers["faults"] = {
    "same tokens, more rows": [
      theirs["compute_dapo_loss"](half[:rows], half[:rows]) for rows in (2, 4)
    ],
    "empty row": theirs["compute_ppo_loss"](
      half[:2], jnp.array([[1.0], [0.0]])
    ),
    "NaN behind the mask": theirs["compute_dapo_loss"](
      jnp.array([[1.0, jnp.nan]]), jnp.array([[1.0, 0.0]])
    ),
  }
  save(
    "marin",
    {
      "repository": "marin-community/marin",
      "commit": commit,
      "jax": jax.__version__,
      "licence": "Apache-2.0",
    },
    numbers,
  )
