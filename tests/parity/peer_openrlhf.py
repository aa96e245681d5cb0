"""OpenRLHF: group-normalised advantages with KL in the reward, and its loss."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import pathlib
import types
import typing

import numpy as np

from parity.batch import make_batch, make_pairs
from parity.column import rows_without, tensors, torch_column
from parity.sources import definitions, method, module, save

__all__ = ["main"]

# Rows that make groups of two: their whitening spans what is given at once,
# and their groups are of one size.
PAIRS = (0, 2, 1, 5, 6, 9, 4, 7)


def main(source: pathlib.Path | None, commit: str | None) -> None:
  """Writes openrlhf.json; source and commit are not used."""
  del source, commit
  torch = module("torch")
  spec = importlib.util.find_spec("openrlhf")
  root = pathlib.Path(spec.submodule_search_locations[0])
  given = {
    "torch": torch,
    "nn": module("torch.nn"),
    "F": module("torch.nn.functional"),
    **{name: getattr(typing, name) for name in ("List", "Optional", "Tuple")},
  }
  utils = definitions(
    root / "models" / "utils.py",
    ("KL_IS_WEIGHT_CLIP", "compute_approx_kl", "compute_reward", "masked_mean"),
    given,
  )
  losses = definitions(
    root / "models" / "loss.py",
    ("aggregate_loss", "PolicyLoss", "ValueLoss", "DPOLoss"),
    utils,
  )
  rows = rows_without(2)

  def advantages(estimator, rows, *, kl=True, gamma=1.0):
    return _advantages(root, utils, estimator, rows, kl, gamma)

  batch = tensors(rows)

  def column(estimator, **settings):
    advantage = advantages(estimator, rows)
    policy = losses["PolicyLoss"](**settings)

    def loss(log_prob, mask):
      return policy(
        log_prob,
        batch["old_log_prob"],
        advantage,
        mask,
        batch["rollout_log_prob"],
      )[0]

    return {"rows": rows, "advantage": advantage, **torch_column(loss, batch)}

  numbers = {
    "grpo": column("group_norm"),
    "leave_one_out": column("rloo"),
    "dr_grpo": column("dr_grpo"),
    "grpo_dual_clip": column("group_norm", dual_clip=3.0),
    "grpo_token_weights": column(
      "group_norm", is_correction_level="token", is_correction_mode="clip"
    ),
    "grpo_token_dropped": column(
      "group_norm", is_correction_level="token", is_correction_mode="mask"
    ),
    "grpo_row_dropped": column(
      "group_norm",
      is_correction_level="seq",
      is_correction_threshold=[0.9, 1.2],
    ),
    "reinforce": {"advantage": advantages("reinforce", rows, gamma=0.9)},
    "reinforce_plus_plus_baseline": {
      "pairs": PAIRS,
      "advantage": advantages("reinforce_baseline", np.array(PAIRS)),
    },
  }
  numbers["gspo"] = column(
    "group_norm",
    policy_loss_type="gspo",
    clip_eps_low=0.03,
    clip_eps_high=0.04,
  )
  del numbers["gspo"]["per_token"]
  numbers["kl"] = {
    name: utils["compute_approx_kl"](
      batch["log_prob"], batch["reference_log_prob"], kl_estimator=name
    )
    * batch["mask"]
    for name in ("k1", "k2", "k3")
  }
  value = losses["ValueLoss"](clip_eps=0.5)(
    batch["value"], batch["old_value"], batch["token_reward"], batch["mask"]
  )
  numbers["value_loss"] = {"loss": value}
  numbers["preference"] = _preference(losses)
  numbers["faults"] = _faults(losses, utils, advantages)
  save(
    "openrlhf",
    {
      "package": f"openrlhf=={importlib.metadata.version('openrlhf')}",
      "torch": torch.__version__,
      "licence": "Apache-2.0",
    },
    numbers,
  )


def _advantages(root, utils, estimator, rows, kl, gamma):
  """`compute_advantages_and_returns` of rows of the batch, or of a batch.

  It reshapes to groups of one size, so the ragged batch goes in by groups;
  those that whiten over all they are given get `PAIRS` at once.
  """
  torch = module("torch")
  owner = "RemoteExperienceMaker"
  path = root / "trainer" / "ppo_utils" / "experience_maker.py"
  names = utils | {
    "apply_length_penalties": lambda *_: None,
    "Experience": None,
    "itertools": itertools,
    "logger": None,
  }
  this = types.SimpleNamespace(
    advantage_estimator=estimator,
    kl_ctl=types.SimpleNamespace(value=0.01 if kl else 0.0),
    get_cumulative_returns=lambda *a: method(
      path, owner, "get_cumulative_returns", names
    )(None, *a),
  )

  def run(batch, generations):
    this.strategy = types.SimpleNamespace(
      args=types.SimpleNamespace(
        rollout=types.SimpleNamespace(n_samples_per_prompt=generations),
        algo=types.SimpleNamespace(
          advantage=types.SimpleNamespace(
            estimator=estimator, gamma=gamma, no_std_norm=False
          )
        ),
        reward=types.SimpleNamespace(clip_range=(-10, 10)),
      )
    )
    experience = types.SimpleNamespace(
      rewards=batch["score"],
      index=list(range(len(batch["score"]))),
      info={},
      action_mask=batch["mask"],
      kl=utils["compute_approx_kl"](
        batch["old_log_prob"], batch["reference_log_prob"]
      ),
    )
    method(path, owner, "compute_advantages_and_returns", names)(
      this, [experience]
    )
    return experience.advantages

  if isinstance(rows, dict):
    return run(rows, len(rows["score"]))
  if estimator in ("reinforce", "reinforce_baseline"):
    return run(tensors(rows), 1 if estimator == "reinforce" else 2)
  group = make_batch()["group"][rows]
  found = torch.zeros(len(rows), make_batch()["mask"].shape[1]).double()
  for identity in sorted(set(group.tolist())):
    member = np.flatnonzero(group == identity)
    found[member] = run(tensors(rows[member]), len(member)).double()
  return found


def _preference(losses):
  torch = module("torch")
  pair = {k: torch.tensor(v).double() for k, v in make_pairs().items()}
  given = [
    pair[name]
    for name in (
      "chosen",
      "rejected",
      "reference_chosen",
      "reference_rejected",
    )
  ]
  return {
    "sigmoid": losses["DPOLoss"](0.1)(*given)[0],
    "conservative": losses["DPOLoss"](0.1, 0.1)(*given)[0],
    "ipo": losses["DPOLoss"](0.1, ipo=True)(*given)[0],
  }


def _faults(losses, utils, advantages):
  torch = module("torch")
  loss = torch.tensor([[1.0, float("nan")]]).double()
  mask = torch.tensor([[1.0, 0.0]]).double()
  log_prob = torch.tensor([[-5.0]], dtype=torch.float64, requires_grad=True)
  utils["compute_approx_kl"](
    log_prob, torch.tensor([[-1.9]]).double(), kl_estimator="k3"
  ).sum().backward()
  empty = losses["aggregate_loss"](loss, torch.zeros_like(mask))
  one = torch.ones(6, 1)
  equal = {
    "score": torch.full((6,), 0.3),
    "mask": one,
    "old_log_prob": one,
    "reference_log_prob": one,
  }
  return {
    "NaN behind the mask": losses["aggregate_loss"](loss, mask),
    "no token at all": empty,
    "clamp of k3 kills the gradient": log_prob.grad,
    "six rewards of 0.3 in float32": advantages("group_norm", equal)[:, 0],
    "singleton group": advantages(
      "group_norm", rows_without(0, 1, 3), kl=False
    ),
  }
