"""TRL: GRPO and its relatives, RLOO, DPO, CPO, ORPO and KTO losses."""

from __future__ import annotations

import math
import pathlib
import types

import numpy as np

from parity.batch import make_batch, make_pairs
from parity.column import by_group, rows_without, tensors, torch_column
from parity.sources import module, save, statements

__all__ = ["main"]

# The sum of the pairs' losses is what a loss of the trainer is a mean of.
DPO = (
  "sigmoid",
  "hinge",
  "ipo",
  "exo_pair",
  "nca_pair",
  "robust",
  "bco_pair",
  "sppo_hard",
  "aot",
  "aot_unpaired",
  "apo_zero",
  "apo_down",
  "discopop",
  "sigmoid_norm",
)
SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")


class _Anything:
  """Stands for what a trainer logs to or gathers with."""

  num_processes = 1
  device = "cpu"

  def __getattr__(self, name):
    return lambda value, *a, **k: value


def main(source: pathlib.Path | None, commit: str | None) -> None:
  """Writes trl.json; source and commit are not used."""
  del source, commit
  trl, torch = module("trl"), module("torch")
  root = pathlib.Path(trl.__file__).parent
  grpo = module("trl.trainer.grpo_trainer").GRPOTrainer
  rloo = module("trl.trainer.rloo_trainer").RLOOTrainer
  rows, numbers = rows_without(), {}

  def advantage(rewards, *, scale="group", weights=(1.0,), how="sum"):
    """The trainer's own lines on rewards `[rows, functions]`."""
    names = statements(
      root / "trainer" / "grpo_trainer.py",
      "unscorable_mask = ",
      "advantages = torch.nan_to_num",
      {
        **vars(module("trl.trainer.grpo_trainer")),
        "self": types.SimpleNamespace(
          multi_objective_aggregation=how,
          reward_weights=torch.tensor(weights, dtype=torch.float64),
          scale_rewards=scale,
          reward_funcs=weights,
        ),
        "device": "cpu",
        "num_generations": len(rewards),
        "rewards_per_func": torch.tensor(rewards).reshape(len(rewards), -1),
      },
    )
    return names["advantages"].numpy()

  def trainer(kind, batch, **settings):
    """A trainer that is nothing but its settings; the loss of a batch."""
    this = types.SimpleNamespace(
      top_entropy_quantile=1.0,
      off_policy_mask_threshold=None,
      importance_sampling_level="token",
      beta=0.0,
      loss_type="dapo",
      epsilon_low=0.2,
      epsilon_high=0.2,
      use_vllm=False,
      vllm_importance_sampling_correction=True,
      aux_loss_enabled=False,
      max_completion_length=8,
      current_gradient_accumulation_steps=1,
      model=types.SimpleNamespace(training=True),
      _metrics={"train": _Bag()},
      _entropy_bonus_enabled=False,
      accelerator=_Anything(),
      args=types.SimpleNamespace(
        use_bias_correction_kl=False,
        delta=None,
        steps_per_generation=1,
        sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.05,
      ),
    )
    args = {k[5:]: settings.pop(k) for k in list(settings) if k[:5] == "args_"}
    vars(this.args).update(args)
    vars(this).update(settings)
    old = batch["old_log_prob"]

    def loss(log_prob, mask):
      this._get_per_token_logps_and_entropies = lambda *a, **k: (
        log_prob,
        batch["entropy"],
        None,
      )
      prompt = torch.zeros(len(mask), 1)
      return kind._compute_loss(
        this,
        None,
        {
          "prompt_ids": prompt,
          "prompt_mask": prompt,
          "completion_ids": mask,
          "completion_mask": mask,
          "advantages": batch["advantage"],
          "old_per_token_logps": old,
          "old_logps": (old * mask).sum(-1),
          "ref_per_token_logps": batch["reference_log_prob"],
          "importance_sampling_ratio": batch.get("weight"),
          "num_items_in_batch": mask.sum(),
        },
      )

    return loss

  # What a user gets who writes GRPO and nothing else.
  how = "sum_then_normalize"
  per_row = by_group(lambda score: advantage(score, how=how), rows)
  batch = tensors(rows)
  batch["advantage"] = torch.tensor(per_row)
  numbers["grpo"] = {
    "rows": rows,
    "advantage": per_row,
    **torch_column(trainer(grpo, batch), batch),
  }
  variants = {
    "grpo_with_kl": {"beta": 0.04},
    "grpo_with_weighted_kl": {
      "beta": 0.04,
      "args_use_bias_correction_kl": True,
    },
    "grpo_sequence_mean": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "gspo": {
      "loss_type": "grpo",
      "importance_sampling_level": "sequence",
      "epsilon_low": 0.03,
      "epsilon_high": 0.04,
    },
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.5},
    "sapo": {"loss_type": "sapo"},
    "two_sided": {"args_delta": 1.5},
  }
  for name, settings in variants.items():
    numbers[name] = torch_column(
      trainer(grpo, batch, **settings), batch, token=False
    )
  for scale in ("batch", "none"):
    numbers[f"advantage_{scale}"] = (
      advantage(make_batch()["score"][rows], scale=scale, how=how)
      if scale == "batch"
      else by_group(lambda s: advantage(s, scale="none", how=how), rows)
    )
  member = np.array([0, 2, 6, 9])
  two = np.stack(
    [make_batch()["score"][member], make_batch()["second_score"][member]], 1
  )
  for name in (how, "normalize_then_sum"):
    numbers[f"advantage_{name}"] = advantage(two, weights=(1.0, 0.5), how=name)

  numbers["rloo"] = _rloo(root, rloo, trainer, batch, rows)
  numbers["preference"] = _preference(root)
  numbers["faults"] = _faults(trainer, grpo, batch)
  save(
    "trl",
    {
      "package": f"trl=={trl.__version__}",
      "torch": torch.__version__,
      "licence": "Apache-2.0",
    },
    numbers,
  )


class _Bag(dict):
  """Lists of metrics that nobody reads."""

  def __missing__(self, key):
    return self.setdefault(key, [])


def _faults(trainer, kind, batch):
  torch = module("torch")
  loss = trainer(kind, batch)
  spoilt = batch["log_prob"].clone()
  spoilt[0, -1] = float("nan")
  parts = []
  for rows in (slice(0, 5), slice(5, 10)):
    part = {name: value[rows] for name, value in batch.items()}
    half = trainer(kind, part, loss_type="bnpo")
    parts.append(half(part["log_prob"], part["mask"]))
  whole = trainer(kind, batch, loss_type="bnpo")
  return {
    "NaN behind the mask": loss(spoilt, batch["mask"]),
    "bnpo of the whole and of its halves": [
      whole(batch["log_prob"], batch["mask"]),
      torch.stack(parts).mean(),
    ],
  }


def _rloo(root, kind, trainer, batch, rows):
  torch = module("torch")

  def leave_one_out(score):
    names = statements(
      root / "trainer" / "rloo_trainer.py",
      "grouped_rewards = ",
      "advantages = torch.nan_to_num",
      {
        **vars(module("trl.trainer.rloo_trainer")),
        "self": types.SimpleNamespace(normalize_advantages=False),
        "rewards": torch.tensor(score),
        "num_generations": len(score),
      },
    )
    return names["advantages"].numpy()

  per_row = by_group(leave_one_out, rows)
  return {
    "rows": rows,
    "advantage": per_row,
    **torch_column(
      trainer(kind, {**batch, "advantage": torch.tensor(per_row)}),
      batch,
      token=False,
    ),
  }


def _preference(root):
  torch = module("torch")
  functional = module("torch.nn.functional")
  pair = {k: torch.tensor(v).double() for k, v in make_pairs().items()}
  width = int(max(pair["chosen_length"].max(), pair["rejected_length"].max()))
  length = torch.cat([pair["chosen_length"], pair["rejected_length"]])
  completion = (torch.arange(width)[None] < length[:, None]).double()

  def dpo(loss, smoothing=0.0, divergence="reverse_kl", alpha=0.5):
    f32 = divergence == "alpha_divergence"
    dtype = torch.float32 if f32 else torch.float64
    names = statements(
      root / "trainer" / "dpo_trainer.py",
      "chosen_logratios = ",
      "for loss_type, loss_weight in",
      {
        "math": math,
        "torch": torch,
        "F": functional,
        "chosen_logps": pair["chosen"].to(dtype),
        "rejected_logps": pair["rejected"].to(dtype),
        "ref_chosen_logps": pair["reference_chosen"].to(dtype),
        "ref_rejected_logps": pair["reference_rejected"].to(dtype),
        "completion_mask": completion,
        "device": "cpu",
        "mode": "eval",
        "self": types.SimpleNamespace(
          beta=0.1,
          label_smoothing=smoothing,
          f_divergence_type=divergence,
          f_alpha_divergence_coef=alpha,
          loss_types=[loss],
          loss_weights=[1.0],
          use_weighting=False,
          args=types.SimpleNamespace(discopop_tau=0.05),
          _metrics={"eval": _Bag()},
          accelerator=_Anything(),
        ),
      },
    )
    return names["per_sequence_loss"]

  found = {name: dpo(name, 0.1 if name in SMOOTHED else 0.0) for name in DPO}
  for name in ("forward_kl", "js_divergence", "alpha_divergence"):
    found[f"dpo_{name}"] = dpo("sigmoid", divergence=name)

  # CPO's link in its forms, ORPO's odds ratio, on sums and on means.
  cpo = module("trl.experimental.cpo").CPOTrainer
  average = {
    side: pair[side] / pair[f"{side}_length"] for side in ("chosen", "rejected")
  }
  for name, mean in (
    ("sigmoid", False),
    ("hinge", False),
    ("ipo", True),
    ("simpo", True),
  ):
    this = types.SimpleNamespace(
      alpha=0.0,
      beta=2.0 if name == "simpo" else 0.1,
      simpo_gamma=1.0,
      label_smoothing=0.0,
      loss_type=name,
      accelerator=_Anything(),
    )
    given = average if mean else pair
    losses = cpo.cpo_loss(this, given["chosen"], given["rejected"])
    found[f"cpo_{name}"] = losses[0]
  this = types.SimpleNamespace(
    alpha=0.25,
    beta=2.0,
    simpo_gamma=1.0,
    label_smoothing=0.0,
    loss_type="simpo",
    accelerator=_Anything(),
  )
  found["alpha_po"] = cpo.cpo_loss(
    this, average["chosen"], average["rejected"]
  )[0]
  orpo = module("trl.experimental.orpo").ORPOTrainer
  this = types.SimpleNamespace(beta=0.1, accelerator=_Anything())
  found["orpo_odds"] = orpo.odds_ratio_loss(
    this, average["chosen"], average["rejected"]
  )[0]

  names = statements(
    root / "trainer" / "kto_trainer.py",
    "if chosen_logps.shape[0] != 0",
    "losses = torch.cat(",
    {
      "torch": torch,
      "F": functional,
      "chosen_logps": pair["chosen"],
      "rejected_logps": pair["rejected"],
      "ref_chosen_logps": pair["reference_chosen"],
      "ref_rejected_logps": pair["reference_rejected"],
      "kl": torch.tensor(0.4).double(),
      "self": types.SimpleNamespace(
        beta=0.1, loss_type="kto", desirable_weight=1.0, undesirable_weight=1.25
      ),
    },
  )
  found["kto"] = names["losses"]
  return found
