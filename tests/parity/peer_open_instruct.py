"""open-instruct: its GRPO, at the defaults of its flags."""

from __future__ import annotations

import enum
import pathlib
import types

import numpy as np

from parity.column import by_group, rows_without, tensors, torch_column
from parity.sources import definitions, module, save, statements

__all__ = ["main"]


def main(source: pathlib.Path | None, commit: str | None) -> None:
  """Writes open_instruct.json."""
  torch = module("torch")
  folder = source / "open_instruct"
  given = {"torch": torch, "enum": enum}
  model_utils = types.SimpleNamespace(
    **definitions(folder / "model_utils.py", ("estimate_kl",), given)
  )
  algorithm = definitions(
    folder / "grpo_utils.py",
    (
      "GRPOLossType",
      "_rho_drop_masks",
      "_sequence_level_mean",
      "compute_grpo_loss",
      "compute_rho_correction",
    ),
    given
    | {
      "model_utils": model_utils,
      "RhoCorrection": types.SimpleNamespace,
    },
  )
  masked_mean = definitions(folder / "rl_utils.py", ("masked_mean",), given)[
    "masked_mean"
  ]
  kind = algorithm["GRPOLossType"]
  # The defaults of GRPOExperimentConfig at this commit.
  default = {
    "beta": 0.05,
    "clip_lower": 0.2,
    "clip_higher": 0.272,
    "use_rho_correction": True,
    "rho_clamp_lower_bound": 0.0,
    "rho_clamp_upper_bound": 2.0,
    "rho_mask_lower_bound": 0.0,
    "rho_mask_upper_bound": 0.0,
    "rho_mask_sequence_level": False,
    "rho_mask_tv_divergence": False,
    "kl_estimator": 2,
    "loss_fn": kind.dapo,
  }
  rows = rows_without()

  def advantage(score, how="centered"):
    return statements(
      folder / "data_loader.py",
      "scores = np.array(batch.scores)",
      "if self.config.advantage_normalization_type",
      {
        "np": np,
        "batch": types.SimpleNamespace(scores=score),
        "self": types.SimpleNamespace(
          config=types.SimpleNamespace(
            num_samples_per_prompt_rollout=len(score),
            advantage_normalization_type=how,
          )
        ),
      },
    )["advantages"]

  batch = tensors(rows)

  def column(how="centered", token=True, **changed):
    config = types.SimpleNamespace(**(default | changed))
    per_row = by_group(lambda score: advantage(score, how), rows)
    each = torch.tensor(per_row)[:, None].expand_as(batch["mask"])

    def loss(log_prob, mask):
      counted = mask.bool()
      weight = algorithm["compute_rho_correction"](
        batch["old_log_prob"], batch["rollout_log_prob"], counted, each, config
      ).weights
      policy, _, divergence = algorithm["compute_grpo_loss"](
        log_prob,
        torch.exp(log_prob - batch["old_log_prob"]),
        each,
        batch["reference_log_prob"],
        config,
        weight,
      )
      total = policy + config.beta * divergence
      return masked_mean(total, mask, None, float(mask.sum()))

    found = torch_column(loss, batch, token=token)
    return {"rows": rows, "advantage": per_row, **found}

  numbers = {
    "grpo": column(),
    "grpo_without_correction": column(use_rho_correction=False, token=False),
    "grpo_standard": column("standard", token=False),
    "cispo": column(loss_fn=kind.cispo, token=False),
  }
  difference = batch["log_prob"] - batch["reference_log_prob"]
  ratio = torch.exp(batch["log_prob"] - batch["old_log_prob"])
  numbers["kl"] = {
    str(i): value * batch["mask"]
    for i, value in enumerate(model_utils.estimate_kl(difference, ratio))
  }
  loss = torch.tensor([[1.0, float("nan")]]).double()
  mask = torch.tensor([[1.0, 0.0]]).double()
  numbers["faults"] = {
    "NaN behind the mask": masked_mean(loss, mask),
    # Token counts per accumulation step are used below as they are here.
    "micro-batches averaged": [
      masked_mean(torch.tensor([[1.0, 1.0, 1.0]]), torch.ones(1, 3)),
      masked_mean(torch.tensor([[5.0]]), torch.ones(1, 1)),
    ],
  }
  save(
    "open_instruct",
    {
      "repository": "allenai/open-instruct",
      "commit": commit,
      "torch": torch.__version__,
      "licence": "Apache-2.0",
    },
    numbers,
  )
