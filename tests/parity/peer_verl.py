"""verl: the advantages, losses, aggregations and corrections of core_algos."""

from __future__ import annotations

import pathlib
import types

import numpy as np

from parity.column import rows_without, tensors, torch_column
from parity.sources import module, save

__all__ = ["main"]


def main(source: pathlib.Path | None, commit: str | None) -> None:
  """Writes verl.json; source and commit are not used."""
  del source, commit
  algorithms = module("verl.trainer.ppo.core_algos")
  torch, verl = module("torch"), module("verl")
  config = module("verl.workers.config")

  def settings(**changed):
    value = config.ActorConfig(
      strategy="fsdp", rollout_n=1, use_dynamic_bsz=True, **changed
    )
    value.global_batch_info.clear()
    return value

  rows = rows_without(2)
  batch = tensors(rows)
  mask, group = batch["mask"], batch["group"].numpy()
  advantage, _ = algorithms.compute_grpo_outcome_advantage(
    _last(batch["score"], mask), mask, group
  )

  def policy(
    name, advantage, mode="token-mean", kl=None, weight=None, **changed
  ):
    """The aggregated loss of a named policy loss, with its KL if any."""

    def loss(log_prob, mask):
      total, _ = algorithms.get_policy_loss_fn(name)(
        batch["old_log_prob"],
        log_prob,
        advantage,
        mask,
        mode,
        settings(**changed),
        weight,
      )
      if kl is None:
        return total
      divergence = algorithms.kl_penalty(
        log_prob, batch["reference_log_prob"], kl
      )
      return total + 0.001 * algorithms.agg_loss(divergence, mask, mode)

    return loss

  numbers = {
    "grpo": {
      "rows": rows,
      "advantage": advantage[:, 0],
      **torch_column(policy("vanilla", advantage), batch),
    }
  }
  weight, _ = _corrections().compute_rollout_correction_weights(
    batch["old_log_prob"] - batch["rollout_log_prob"], mask
  )
  losses = {
    "grpo_with_kl": policy("vanilla", advantage, kl="low_var_kl"),
    "grpo_with_straight_through_kl": policy("vanilla", advantage, kl="k3+"),
    "grpo_with_weights": policy("vanilla", advantage, weight=weight),
    "dapo": policy("vanilla", advantage, clip_ratio_high=0.28),
    "gspo": policy(
      "gspo",
      advantage,
      "seq-mean-token-mean",
      clip_ratio_low=0.03,
      clip_ratio_high=0.04,
    ),
    "geometric_mean": policy(
      "geo_mean", advantage, clip_ratio_low=0.4, clip_ratio_high=0.4
    ),
    "cispo": policy("cispo", advantage, clip_ratio_high=0.28),
    "sapo": policy("sapo", advantage, "seq-mean-token-mean"),
    "gpg": policy("gpg", advantage),
    "kl_cov": policy("kl_cov", advantage, policy_loss=_share(config)),
    "clip_cov": policy("clip_cov", advantage, policy_loss=_share(config)),
  }
  for name, loss in losses.items():
    torch.manual_seed(0)
    np.random.seed(0)
    numbers[name] = torch_column(loss, batch, token=False)
  for mode in (
    "token-mean",
    "seq-mean-token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-sum-norm",
  ):
    numbers[f"aggregate {mode}"] = policy("vanilla", advantage, mode)(
      batch["log_prob"], mask
    )
  numbers["advantages"] = _advantages(algorithms, batch)
  numbers["gae"] = {
    which: _gae(algorithms, batch, batch[which])
    for which in ("mask", "hole_mask")
  }
  functional = module("verl.utils.torch_functional")
  numbers["whiten"] = {
    "shifted": functional.masked_whiten(batch["value"], mask),
    "unshifted": functional.masked_whiten(batch["value"], mask, False),
  }
  value, clipped = algorithms.compute_value_loss(
    batch["value"], batch["token_reward"], batch["old_value"], mask, 0.2
  )
  numbers["value_loss"] = {"loss": value, "clipped": clipped}
  numbers["kl"] = {
    name: algorithms.kl_penalty(
      batch["log_prob"], batch["reference_log_prob"], name
    )
    * mask
    for name in ("k1", "k2", "k3", "abs")
  }
  numbers["corrections"] = _weights(batch)
  numbers["controller"] = _controller(algorithms)
  numbers["faults"] = _faults(algorithms)
  save(
    "verl",
    {
      "package": f"verl=={verl.__version__}",
      "torch": torch.__version__,
      "licence": "Apache-2.0",
    },
    numbers,
  )


def _share(config):
  # The default share, two tokens in ten thousand, would choose none of 32.
  return config.PolicyLossConfig(
    kl_cov_ratio=0.1,
    clip_cov_ratio=0.1,
    clip_cov_lb=0.05,
    clip_cov_ub=5.0,
  )


def _corrections():
  return module("verl.trainer.ppo.rollout_corr_helper")


def _last(score, mask):
  """The score on the last token of each row."""
  torch = module("torch")
  reward = torch.zeros_like(mask)
  last = mask.sum(-1).long() - 1
  reward[torch.arange(len(mask)), last] = score
  return reward


def _advantages(algorithms, batch):
  mask, group = batch["mask"], batch["group"].numpy()
  reward = _last(batch["score"], mask)
  config = module("verl.trainer.config").AlgoConfig()
  # Some of them write into what they are given.
  given = lambda: (reward.clone(), mask.clone())  # noqa: E731
  return {
    "dr_grpo": algorithms.compute_grpo_outcome_advantage(
      *given(), group, norm_adv_by_std_in_grpo=False
    )[0],
    "leave_one_out": algorithms.compute_rloo_outcome_advantage(*given(), group)[
      0
    ],
    "length_weighted": algorithms.compute_opo_outcome_advantage(
      *given(), group
    )[0],
    "gpg": algorithms.compute_gpg_outcome_advantage(*given(), group)[0],
    "pass_at_k": algorithms.compute_grpo_passk_outcome_advantage(
      *given(), group, config=config
    )[0],
    "greedy": algorithms.compute_remax_outcome_advantage(
      reward.clone(), batch["greedy_score"], mask.clone()
    )[0],
    "reinforce_plus_plus_baseline": (
      algorithms.compute_reinforce_plus_plus_baseline_outcome_advantage(
        *given(), group
      )[0]
    ),
    "reinforce_plus_plus": (
      algorithms.compute_reinforce_plus_plus_outcome_advantage(
        batch["token_reward"] * mask, mask, types.SimpleNamespace(gamma=0.9)
      )[0]
    ),
  }


def _gae(algorithms, batch, mask):
  advantage, returns = algorithms.compute_gae_advantage_return(
    batch["token_reward"] * mask, batch["value"] * mask, mask, 0.98, 0.9
  )
  return {"advantage": advantage * mask, "returns": returns * mask}


def _weights(batch):
  helper = _corrections()
  log_ratio, mask = (
    batch["old_log_prob"] - batch["rollout_log_prob"],
    batch["mask"],
  )
  found = {}
  for level in ("token", "sequence"):
    for normalised in (False, True):
      name = f"{level} {'normalised' if normalised else 'plain'}"
      found[name], metrics = helper.compute_rollout_correction_weights(
        log_ratio, mask, level, 2.0, normalised
      )
      if level == "token" and not normalised:
        found["effective"] = metrics["rollout_is_eff_sample_size"]
  found["token dropped"], _ = helper.compute_rollout_correction_weights(
    log_ratio, mask, "token", "0.5_2.0"
  )
  for option, bound in (
    ("token_k1", "0.8_1.4"),
    ("seq_sum_k1", "0.6_1.8"),
    ("seq_mean_k1", "0.9_1.1"),
    ("token_k2", "0.05"),
    ("seq_mean_k2", "0.06"),
    ("seq_max_k2", "0.2"),
    ("token_k3", "0.05"),
    ("seq_sum_k3", "0.15"),
    ("seq_max_k3", "0.2"),
  ):
    found[f"kept {option} {bound}"], _ = helper.compute_rollout_rejection_mask(
      log_ratio, mask, option, bound
    )
  return found


def _controller(algorithms):
  control = algorithms.AdaptiveKLController(0.2, 6.0, 10000)
  found = []
  for divergence in (12.0, 3.0, 6.3):
    control.update(divergence, 256)
    found.append(control.value)
  return found


def _faults(algorithms):
  """What peers.md says of it, measured."""
  torch = module("torch")
  one, group = torch.ones(1, 2).double(), np.array([0])
  single, _ = algorithms.compute_grpo_outcome_advantage(
    torch.tensor([[0.0, 5.0]]).double(), one, group
  )
  equal, _ = algorithms.compute_grpo_outcome_advantage(
    torch.full((6, 1), 0.3), torch.ones(6, 1), np.zeros(6, int)
  )
  log_prob = torch.tensor([[-5.0]], dtype=torch.float64, requires_grad=True)
  algorithms.kl_penalty(
    log_prob, torch.tensor([[-1.9]]).double(), "low_var_kl"
  ).sum().backward()
  loss = torch.tensor([[1.0, float("nan")]], dtype=torch.float64)
  loss.requires_grad_(True)
  mask = torch.tensor([[1.0, 0.0]]).double()
  summed = algorithms.agg_loss(loss, mask, "seq-mean-token-sum")
  narrow = torch.ones(2, 2).double()
  wide = torch.nn.functional.pad(narrow, (0, 2))
  norm = lambda m: algorithms.agg_loss(m, m, "seq-mean-token-sum-norm")  # noqa: E731
  return {
    "singleton keeps its raw reward": single,
    "six rewards of 0.3 in float32": equal[:, 0],
    "clamp of low_var_kl kills the gradient": log_prob.grad,
    "NaN behind the mask, seq-mean-token-sum": summed,
    "NaN behind the mask, token-mean": algorithms.agg_loss(
      loss.detach(), mask, "token-mean"
    ),
    "padding changes seq-mean-token-sum-norm": [norm(narrow), norm(wide)],
  }
