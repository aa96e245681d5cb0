"""tunix: its GRPO, PPO and value losses, aggregations, KL and GAE."""

from __future__ import annotations

import importlib.metadata
import pathlib
import types

import numpy as np

from parity.batch import GROUP, make_batch
from parity.column import by_group, jax_column, rows_without
from parity.sources import module, save

__all__ = ["main"]


def main(source: pathlib.Path | None, commit: str | None) -> None:
  """Writes tunix.json; source and commit are not used."""
  del source, commit
  jax = module("jax")
  jax.config.update("jax_enable_x64", True)
  jnp = jax.numpy
  core, common = module("tunix.rl.algo_core"), module("tunix.rl.common")
  default = module("tunix.rl.grpo.grpo_learner").GRPOConfig()

  def batch_of(rows):
    batch = {k: v[rows] for k, v in make_batch().items()}
    return {
      k: jnp.asarray(v, None if k == "group" else jnp.float64)
      for k, v in batch.items()
    }

  rows = rows_without(2)
  batch = batch_of(rows)

  def column(estimator="grpo", token=True, **changed):
    compute = {
      "grpo": core.compute_advantages,
      "rloo": core.compute_rloo_advantages,
      "drgrpo": core.compute_drgrpo_advantages,
    }[estimator]
    per_row = by_group(
      lambda score: compute(np.asarray(score), len(score)), rows
    )
    names = ("beta", "epsilon", "loss_algo", "loss_agg_mode", "kl_loss_mode")
    config = types.SimpleNamespace(
      **{name: getattr(default, name) for name in names},
      temperature=1.0,
      kl_clamp_value=getattr(default, "kl_clamp_value", None),
    )
    vars(config).update(changed)

    def loss(log_prob, mask):
      # The model is what its log-probabilities are; all else is theirs.
      core.nnx = types.SimpleNamespace(split=lambda model: (None, model))
      core.common = _with(
        common,
        compute_per_token_logps=lambda *a, **k: (
          log_prob,
          jnp.zeros((*log_prob.shape, 2)),
        ),
      )
      example = types.SimpleNamespace(
        prompt_ids=None,
        completion_ids=None,
        completion_mask=jnp.asarray(mask),
        advantages=jnp.asarray(per_row),
        old_per_token_logps=batch["old_log_prob"],
        ref_per_token_logps=batch["reference_log_prob"],
      )
      return core.grpo_loss_fn(None, example, config, 0, 1)[0]

    found = jax_column(loss, batch, token=token)
    return {"rows": rows, "advantage": per_row, **found}

  numbers = {
    "grpo": column(),
    "leave_one_out": column("rloo", False),
    "dr_grpo": column(
      "drgrpo", False, loss_agg_mode="sequence-mean-token-scale"
    ),
    "grpo_k3": column(token=False, kl_loss_mode="low_var_kl"),
    "gspo": column(
      token=False,
      loss_algo="gspo-token",
      epsilon=0.03,
      epsilon_high=0.04,
      beta=0.0,
    ),
    "dual_clip": column(token=False, epsilon_c=3.0, beta=0.0),
    "token_mean": column(token=False, loss_agg_mode="token-mean"),
  }
  everything = batch_of(np.arange(len(GROUP)))
  numbers["gae"] = {
    which: dict(
      zip(
        ("advantage", "returns"),
        (
          value * everything[which]
          for value in core.compute_gae_advantages(
            everything["token_reward"] * everything["mask"],
            everything["value"] * everything["mask"],
            everything[which],
            0.98,
            0.9,
          )
        ),
        strict=True,
      )
    )
    for which in ("mask", "hole_mask")
  }
  numbers["whiten"] = core.masked_whiten(
    everything["value"], everything["mask"]
  )
  numbers["faults"] = _faults(core, common)
  save(
    "tunix",
    {
      "package": f"google-tunix=={importlib.metadata.version('google-tunix')}",
      "jax": jax.__version__,
      "licence": "Apache-2.0",
    },
    numbers,
  )


def _with(whole, **changed):
  return types.SimpleNamespace(**(vars(whole) | changed))


def _faults(core, common):
  jax = module("jax")
  jnp = jax.numpy
  one = jnp.ones((1, 2))
  loss, mask = jnp.array([[1.0, jnp.nan]]), jnp.array([[1.0, 0.0]])
  logits = jnp.log(jnp.array([0.6, 0.3, 0.1]))
  reference = jnp.log(jnp.array([0.3, 0.3, 0.4]))

  def expected(method):
    def sampled(z):
      log_prob = jax.nn.log_softmax(z)
      value = common.compute_kl_divergence(log_prob, reference, method)
      return jnp.sum(jax.lax.stop_gradient(jnp.exp(log_prob)) * value)

    return jax.grad(sampled)(logits)

  def exact(z):
    log_prob = jax.nn.log_softmax(z)
    return jnp.sum(jnp.exp(log_prob) * (log_prob - reference))

  return {
    "expected gradient of the default KL in the loss": expected("kl"),
    "expected gradient of mse_kl": expected("mse_kl"),
    "expected gradient of low_var_kl": expected("low_var_kl"),
    "gradient of the exact KL": jax.grad(exact)(logits),
    "GAE of one counted token": core.compute_gae_advantages(
      one, one, jnp.array([[1.0, 0.0]]), 1.0, 1.0
    )[0],
    "singleton group": core.compute_advantages(np.array([0.5]), 1),
    "NaN behind the mask": common.aggregate_loss(loss, mask, "token-mean"),
    "six rewards of 0.3 in float32": core.compute_advantages(
      np.full(6, 0.3, np.float32), 6
    ),
  }
