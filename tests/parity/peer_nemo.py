"""NeMo-RL: its advantage with the row left out of mean and spread, its loss."""

from __future__ import annotations

import enum
import pathlib
import typing

from parity.column import rows_without, tensors, torch_column
from parity.sources import definitions, module, save

__all__ = ["main"]


class _Data(dict):
  """A batch that hands out what it holds."""


def main(source: pathlib.Path | None, commit: str | None) -> None:
  """Writes nemo.json."""
  torch = module("torch")
  folder = source / "nemo_rl" / "algorithms"
  given = {
    "torch": torch,
    "Any": typing.Any,
    "Optional": typing.Optional,
    "TypedDict": typing.TypedDict,
    "NotRequired": typing.Any,
    "BaseModel": module("pydantic").BaseModel,
  }
  utils = definitions(
    folder / "utils.py",
    ("calculate_kl", "calculate_baseline_and_std_per_prompt", "masked_mean"),
    given,
  )
  interfaces = definitions(
    folder / "loss" / "interfaces.py",
    ("LossType", "LossInputType", "MetricNormalizer"),
    given | {"enum": enum, "StrEnum": enum.StrEnum, "Enum": enum.Enum},
  )
  losses = definitions(
    folder / "loss" / "loss_functions.py",
    ("ClippedPGLossConfig", "ClippedPGLossFn"),
    utils | interfaces | {"LossFunction": object},
  )
  estimators = definitions(
    folder / "advantage_estimator.py",
    ("AdvEstimatorConfig", "GRPOAdvantageEstimator"),
    utils | losses,
  )
  # Deferred annotations of a cut-out model find their names here.
  for name in ("ClippedPGLossConfig", "AdvEstimatorConfig"):
    estimators[name].model_rebuild(_types_namespace=given)
  rows = rows_without()
  batch = tensors(rows)

  def advantage(batch, **changed):
    estimator = estimators["GRPOAdvantageEstimator"](
      estimators["AdvEstimatorConfig"](**changed), None
    )
    return estimator.compute_advantage(
      # Their mask of a row's others is float32, and so must the rewards be.
      batch["group"][:, None],
      batch["score"].float(),
      batch["mask"],
    )

  def column(token=True, estimator=None, **changed):
    config = losses["ClippedPGLossConfig"](**changed)
    compute = losses["ClippedPGLossFn"](config)
    given = advantage(batch, **(estimator or {}))
    pad = lambda value: torch.nn.functional.pad(value, (1, 0))  # noqa: E731

    def loss(log_prob, mask):
      data = _Data(
        token_mask=pad(mask),
        sample_mask=(mask.sum(-1) > 0).double(),
        advantages=pad(given),
        prev_logprobs=pad(batch["old_log_prob"]),
        generation_logprobs=pad(batch["rollout_log_prob"]),
        reference_policy_logprobs=pad(batch["reference_log_prob"]),
      )
      return compute(
        log_prob, data, (mask.sum(-1) > 0).double().sum(), mask.sum()
      )[0]

    found = torch_column(loss, batch, token=token)
    return {"rows": rows, "advantage": given[:, 0], **found}

  weighted = {
    "use_importance_sampling_correction": True,
    "truncated_importance_sampling_ratio": 2.0,
  }
  numbers = {
    "grpo": column(),
    "grpo_mean_baseline": column(False, {"use_leave_one_out_baseline": False}),
    "dr_grpo": column(False, {"normalize_rewards": False}),
    "grpo_sequence_mean": column(False, token_level_loss=False),
    "dual_clip": column(False, ratio_clip_c=3.0),
    "gspo": column(
      False,
      token_level_loss=False,
      sequence_level_importance_ratios=True,
      ratio_clip_min=0.03,
      ratio_clip_max=0.04,
      reference_policy_kl_penalty=0.0,
    ),
    "cispo": column(False, use_cispo=True, reference_policy_kl_penalty=0.0),
    "grpo_token_weights": column(
      False, truncated_importance_sampling_type="tis", **weighted
    ),
    "grpo_token_dropped": column(
      False,
      truncated_importance_sampling_type="icepop",
      truncated_importance_sampling_ratio_min=0.5,
      **weighted,
    ),
  }
  numbers["faults"] = _faults(utils, advantage)
  save(
    "nemo",
    {
      "repository": "NVIDIA-NeMo/RL",
      "commit": commit,
      "torch": torch.__version__,
      "licence": "Apache-2.0",
    },
    numbers,
  )


def _faults(utils, advantage):
  torch = module("torch")
  # Their spread is the mean of the squares less the square of the mean, in the
  # float32 of their rewards. That of the first row's others is zero.
  score = torch.full((16,), 0.9)
  score[0] = -1.2
  odd = {
    "group": torch.zeros(16, dtype=torch.long),
    "score": score,
    "mask": torch.ones(16, 1),
  }
  log_prob = torch.tensor([[-5.0]], dtype=torch.float64, requires_grad=True)
  utils["calculate_kl"](
    log_prob, torch.tensor([[-1.9]]).double()
  ).sum().backward()
  loss = torch.tensor([[1.0, float("nan")]]).double()
  return {
    "fifteen rewards of 0.9 and one of -1.2": advantage(odd)[:, 0],
    "clamp of k3 kills the gradient": log_prob.grad,
    "NaN behind the mask": utils["masked_mean"](
      loss, torch.tensor([[1.0, 0.0]]).double()
    ),
  }
