"""EasyDeL: its GRPO step, with the model replaced by its log-probabilities."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pathlib
import types

import numpy as np

from parity.batch import make_batch
from parity.column import by_group, jax_column, rows_without
from parity.sources import definitions, module, save, statements

__all__ = ["main"]


def main(source: pathlib.Path | None, commit: str | None) -> None:
  """Writes easydel.json; source and commit are not used."""
  del source, commit
  jax = module("jax")
  jax.config.update("jax_enable_x64", True)
  jnp = jax.numpy
  spec = importlib.util.find_spec("easydel")
  folder = (
    pathlib.Path(spec.submodule_search_locations[0])
    / "trainers"
    / "group_relative_policy_optimization"
  )
  rows = rows_without()
  batch = {
    name: jnp.asarray(value[rows])
    if name == "group"
    else jnp.asarray(value[rows], jnp.float64)
    for name, value in make_batch().items()
  }

  def advantage(score):
    one = types.SimpleNamespace
    return statements(
      folder / "grpo_trainer.py",
      "generation_factor = completion_ids",
      "advantages = jnp.nan_to_num",
      {
        "jnp": jnp,
        "completion_ids": jnp.zeros((len(score), 1)),
        "prompt_mask": jnp.zeros((1, 1)),
        "rewards_per_func": jnp.asarray(score)[:, None],
        "self": one(reward_weights=jnp.ones(1), scale_rewards="group"),
      },
    )["advantages"]

  def column(token=True, **settings):
    per_row = by_group(advantage, rows)

    def loss(log_prob, mask):
      def stand_in(*_, **__):
        return log_prob

      step = definitions(
        folder / "_fn.py",
        ("_masked_sum_and_count", "grpo_step"),
        {
          "jax": jax,
          "jnp": jnp,
          "optax": types.SimpleNamespace(Schedule=None),
          "LossMetrics": types.SimpleNamespace,
          "extract_generation_model_kwargs": lambda *_, **__: {},
          "repeat_prompt_aligned_model_kwargs": lambda *_, **__: {},
          "make_assertions_and_get_sizes": lambda **_: (len(mask), 0, None),
          "with_sharding_constraint": lambda arr, sharding: arr,
          "get_per_token_logps": stand_in,
        },
      )["grpo_step"]
      model = types.SimpleNamespace()
      model.__call__ = None
      state = types.SimpleNamespace(graphstate=None, merge=lambda tree: model)
      prompt = jnp.zeros((len(mask), 1))
      mask = jnp.asarray(mask)
      return step(
        state,
        {
          "prompt_ids": prompt,
          "prompt_mask": prompt,
          "completion_ids": mask,
          "completion_mask": mask,
          "advantages": jnp.asarray(per_row),
          "old_per_token_logps": batch["old_log_prob"],
          "ref_per_token_logps": batch["reference_log_prob"],
          "num_items_in_batch": jnp.sum(mask),
        },
        num_generations=1,
        is_training=False,
        **({"beta": 0.04} | settings),
      ).loss

    found = jax_column(loss, batch, token=token)
    return {"rows": rows, "advantage": per_row, **found}

  numbers = {
    "grpo": column(),
    "grpo_sequence_mean": column(False, loss_type="grpo"),
    "dr_grpo": column(False, loss_type="dr_grpo"),
    "cispo": column(False, loss_type="cispo", epsilon_high=1.5, beta=0.0),
    "two_sided": column(False, delta=1.5, beta=0.0),
    "gspo": column(
      False,
      loss_type="grpo",
      importance_sampling_level="sequence",
      epsilon=0.03,
      epsilon_high=0.04,
      beta=0.0,
    ),
  }
  count = definitions(
    folder / "_fn.py",
    ("_masked_sum_and_count",),
    {
      "jax": jax,
      "jnp": jnp,
    },
  )["_masked_sum_and_count"]
  numbers["faults"] = {
    "mask ignored at width one": count(
      jnp.array([[2.0], [100.0]]), jnp.array([[1.0], [0.0]])
    ),
    "the same at width two": count(
      jnp.array([[2.0, 0.0], [100.0, 0.0]]),
      jnp.array([[1.0, 0.0], [0.0, 0.0]]),
    ),
    "NaN behind the mask": count(
      jnp.array([[1.0, jnp.nan]]), jnp.array([[1.0, 0.0]])
    ),
    "six rewards of 0.3 in float32": advantage(np.full(6, 0.3, np.float32)),
  }
  save(
    "easydel",
    {
      "package": f"easydel=={importlib.metadata.version('easydel')}",
      "jax": jax.__version__,
      "licence": "Apache-2.0",
    },
    numbers,
  )
