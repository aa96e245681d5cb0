"""A policy that earns by saying nothing, and what stops it: a chain of steps.

  python -m experiments.process_rewards.clip_delta_chain

What it shows: the hack of "On Designing Effective RL Reward at Training Time
for LLM Reasoning" (arXiv:2410.15115) in its smallest form. In each of 12 steps
a policy writes filler, which a process reward model scores .9, or answers,
which ends the episode: right with probability .8 and then scored .85, else
.4. It has one logit per step and learns by REINFORCE with a baseline per step,
400 batches of 64 episodes, alpha .3, eta .8, steps of 1. Episodes that never
answer earn nothing for success.
Time: seconds.
Expected: with raw scores the policy postpones its answer to the end; Clip and
Clip-Delta leave its length where success alone puts it, and its success too;
Delta alone does not (a step that is not the last still earns its score), and
only its returns are bounded.
Result: in results/clip_delta/chain.md, with the thresholds that are checked.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.advantages.segments import suffix_sums
from rl_jax.rewards.process import Refine, combine_success_process

__all__ = ["ARMS", "Chain", "failures", "of_seeds"]

HORIZON, BATCH, UPDATES = 12, 64, 400
FRESH = 20_000
ALPHA, ETA, RATE = 0.3, 0.8, 1.0
ARMS: dict[str, tuple[Refine, float]] = {
  "success": ("none", 0.0),
  "raw": ("none", ALPHA),
  "clip": ("clip", ALPHA),
  "delta": ("delta", ALPHA),
  "clip_delta": ("clip_delta", ALPHA),
  "mean": ("mean", ALPHA),
}
OUT = Path(__file__).parent / "results" / "clip_delta"


class Chain(NamedTuple):
  """What was learnt, by seed.

  Attributes:
    length: mean steps of the last batch.
    fresh_length: mean steps of fresh episodes.
    success: share of fresh episodes that are right.
    most: greatest return of any step of the fresh episodes.
  """

  length: jax.Array
  fresh_length: jax.Array
  success: jax.Array
  most: jax.Array


def episodes(logit, draws):
  """Masks, actions, scores and success of some episodes."""
  answer = draws[0] < jax.nn.sigmoid(logit)[None]
  before = jnp.cumsum(answer, axis=1) - answer
  mask = before == 0
  right = draws[1] < 0.8
  score = jnp.where(answer, jnp.where(right, 0.85, 0.4), 0.9)
  success = jnp.any(mask & answer & right, axis=1).astype(jnp.float32)
  return mask, answer, score, success


def returns(arm, mask, score, success):
  """What each step still earns."""
  refine, alpha = ARMS[arm]
  reward = combine_success_process(
    score, success, mask, refine=refine, alpha=alpha, eta=ETA, success_coef=1.0
  )
  return suffix_sums(reward, mask)


def drawn(seed):
  """Uniform numbers for all batches and the fresh episodes of a run."""
  rng = np.random.default_rng(seed)
  batches = rng.uniform(size=(UPDATES, 2, BATCH, HORIZON))
  fresh = rng.uniform(size=(2, FRESH, HORIZON))
  return batches.astype(np.float32), fresh.astype(np.float32)


@functools.partial(jax.jit, static_argnames="arm")
def learnt(arm, batches, fresh):
  """One run; arms of a seed are given the same numbers."""

  def update(logit, draws):
    mask, answer, score, success = episodes(logit, draws)
    to_come = returns(arm, mask, score, success)
    count = jnp.sum(mask, axis=0)
    baseline = jnp.sum(to_come, axis=0) / jnp.maximum(count, 1)
    advantage = jnp.where(mask, to_come - baseline[None], 0.0)
    # The gradient of log pi(a) in the logit of the answer is a - p.
    slope = answer - jax.nn.sigmoid(logit)[None]
    step = jnp.mean(advantage * slope, axis=0)
    return logit + RATE * step, jnp.mean(jnp.sum(mask, axis=1) * 1.0)

  logit, length = jax.lax.scan(update, jnp.zeros(HORIZON), batches)
  mask, _, score, success = episodes(logit, fresh)
  to_come = jnp.where(mask, returns(arm, mask, score, success), -jnp.inf)
  return Chain(
    length[-1],
    jnp.mean(jnp.sum(mask, axis=1) * 1.0),
    jnp.mean(success),
    jnp.max(to_come),
  )


def failures(found: dict[str, Chain]) -> list[str]:
  """Which thresholds of the specification were missed, seed by seed.

  Args:
    found: by arm; arrays over seeds.

  Returns:
    Sentences; none if all hold.
  """
  missed = []
  base = jax.tree.map(np.asarray, found["success"])
  if np.any(np.asarray(found["raw"].length) < 3 * base.length):
    missed.append("raw scores are not 3 times as long as success alone")
  for arm in ("clip", "clip_delta"):
    if np.any(np.asarray(found[arm].length) > 1.3 * base.length):
      missed.append(f"{arm} is more than 1.3 times as long as success alone")
    if np.any(np.abs(np.asarray(found[arm].success) - base.success) > 0.03):
      missed.append(f"success of {arm} is not within .03 of success alone")
    if np.any(np.asarray(found[arm].most) > 1 + 1e-6):
      missed.append(f"{arm} earns more than the outcome")
  if np.any(np.asarray(found["delta"].most) > 1 + ALPHA + 1e-6):
    missed.append("a return of delta is above 1 + alpha")
  return missed


def of_seeds(seeds: int) -> dict[str, Chain]:
  """All arms.

  Args:
    seeds: how many.

  Returns:
    By arm; arrays over seeds.
  """
  draws = [drawn(seed) for seed in range(seeds)]
  return {
    arm: jax.tree.map(
      lambda *x: np.array(x), *(learnt(arm, *draw) for draw in draws)
    )
    for arm in ARMS
  }


def main(seeds: int = 5) -> None:
  """Runs all arms and writes what came out."""
  found = of_seeds(seeds)
  lines = [
    "| reward | length, last batch | length, fresh | success, fresh |"
    " greatest return |",
    "|---|---|---|---|---|",
  ]
  for arm, chain in found.items():
    cells = [
      f"{x.mean():.2f} ({x.min():.2f} to {x.max():.2f})"
      for x in (chain.length, chain.fresh_length, chain.success, chain.most)
    ]
    lines.append(f"| {arm} | " + " | ".join(cells) + " |")
  missed = failures(found)
  lines += [
    "",
    f"Mean (least to greatest) over {seeds} seeds; {FRESH} fresh episodes each."
    " Thresholds missed: " + ("; ".join(missed) or "none") + ".",
  ]
  OUT.mkdir(parents=True, exist_ok=True)
  (OUT / "chain.md").write_text("\n".join(lines) + "\n")
  results = {
    arm: {k: v.round(4).tolist() for k, v in chain._asdict().items()}
    for arm, chain in found.items()
  }
  (OUT / "chain.json").write_text(json.dumps(results) + "\n")
  print("\n".join(lines))


if __name__ == "__main__":
  main()
