"""Every paper's estimator in a recipe, and rollouts that all of them read.

The recipes differ in what makes an advantage and share loss and reduction, so
that a picture, a benchmark and the tests compare estimators on equal terms.
The rollouts are made up: steps of equal lengths, some of which episodes share,
right and wrong responses, and for each array that a judge, a probe or a model
would give one that looks like it.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments import recipes
from experiments.chains import ALPHABET
from rl_jax.advantages import group_relative, leave_one_out
from rl_jax.algorithms.components import ToGo, WithinGroup
from rl_jax.algorithms.estimators.adora import ADORA_VLM, GroupWeighted
from rl_jax.algorithms.estimators.canon import Canon, MuSchedule
from rl_jax.algorithms.estimators.gream import BonusCalibrated
from rl_jax.algorithms.estimators.implicit_prm import ImplicitPRM
from rl_jax.algorithms.estimators.process_reward import ProcessReward
from rl_jax.algorithms.estimators.relative_sign import (
  LinearWeight,
  OutcomeSign,
  RelativeSign,
)
from rl_jax.algorithms.estimators.salt import Salt
from rl_jax.algorithms.estimators.spae import SPAE_WHITENING, Spae
from rl_jax.algorithms.estimators.stable_reinforce import StableReinforce
from rl_jax.algorithms.estimators.tp_grpo import TpGrpo
from rl_jax.algorithms.estimators.verl import RankSignal, Verl, VerlReward
from rl_jax.algorithms.estimators.verpo import Verpo
from rl_jax.algorithms.recipe import Estimated, PolicyBatch, PolicyRecipe, found

if TYPE_CHECKING:
  from jaxtyping import Array, Float

__all__ = ["Case", "Graded", "Shape", "cases", "estimated", "written"]

TESTS = 4
"""Of a suite that turns are judged by."""


class Shape(NamedTuple):
  """How many rollouts, and how long.

  Attributes:
    prompts: groups.
    samples: responses of each.
    time: tokens of the longest response.
    segment: tokens of a step.
    invalid: rows at the end that do not count.
  """

  prompts: int = 2
  samples: int = 8
  time: int = 24
  segment: int = 6
  invalid: int = 0

  @property
  def steps(self) -> int:
    """Steps of the longest response."""
    return -(-self.time // self.segment)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graded:
  """Another reward in the place of the judge's: an array of the batch."""

  name: str
  """Of `batch.extra`."""

  def __call__(
    self, batch: PolicyBatch, reward: Float[Array, "row"]
  ) -> Float[Array, "row"]:
    """The other reward."""
    del reward
    return found(batch, self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """One estimator in a recipe."""

  name: str
  """Short, for a plot's title and a table's row."""
  level: str
  """What it tells apart: responses, turns, thoughts, steps or tokens."""
  recipe: PolicyRecipe
  """With the loss and the reduction that all share."""


_standardised = WithinGroup(
  estimator=partial(group_relative, scale="group", ddof=1, epsilon=1e-6)
)
_centred = WithinGroup(
  estimator=partial(group_relative, scale="none", ddof=0, epsilon=0.0)
)
_grpo = dataclasses.replace(recipes.trl_grpo, baseline=_standardised)


def cases(*, steps: int) -> tuple[Case, ...]:
  """All estimators, each at the numbers of its paper where it gives any.

  Args:
    steps: of the longest response, for those that must know.

  Returns:
    One or two for each paper, after the group-relative advantage itself.
  """
  signal = RankSignal()
  verpo = Verpo()
  spae = Spae(
    boundary=(ALPHABET.index(";"),),
    forcing=(ALPHABET.index("#"),),
    think_end=None,
    steps=steps,
    samples=2,
    length=2,
  )
  stable = StableReinforce().recipe
  found: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GRPO", "response", {}),
    ("CANON", "response", {"baseline": Canon(metric="entropy", mu=1.0)}),
    (
      "CANON-Dynamic, Eff",
      "response",
      {
        "baseline": Canon(
          metric="length",
          schedule=MuSchedule(kind="accuracy_first_intra"),
          alpha=0.9,
          alpha_side="high",
        )
      },
    ),
    (
      "SPAE",
      "step",
      {
        "rows": recipes.dapo.rows,
        "baseline": _centred,
        "credit": spae,
        "whitening": SPAE_WHITENING,
      },
    ),
    ("SALT", "turn", {"credit": Salt()}),
    (
      "ADORA",
      "response",
      {
        "baseline": GroupWeighted(
          base=_standardised, weight=dataclasses.replace(ADORA_VLM, cap=None)
        )
      },
    ),
    ("VERL", "response", {"credit": Verl(signal=signal)}),
    (
      "VERL in the reward",
      "response",
      {"baseline": VerlReward(base=_standardised, signal=signal)},
    ),
    ("TP-GRPO", "thought", {"credit": TpGrpo()}),
    (
      "VeRPO",
      "turn",
      {
        "shaping": (verpo.outcome,),
        "baseline": verpo.trajectory,
        "credit": verpo,
      },
    ),
    ("GREAM", "response", {"baseline": BonusCalibrated(k=2)}),
    (
      "two-stage: GRPO-N",
      "response",
      {
        "baseline": RelativeSign(
          base=_standardised,
          schedule=LinearWeight(first=1.0, last=0.0, end=4),
        )
      },
    ),
    (
      "two-stage: W-REINFORCE",
      "response",
      {"baseline": OutcomeSign(mode="weighted")},
    ),
    (
      "Clip and Delta",
      "step",
      {
        "credit": ProcessReward(
          returns=ToGo(discount=1.0, kl_weight=0.0, bound=float("inf")),
          refine="clip_delta",
          alpha=0.5,
        )
      },
    ),
    (
      "implicit PRM",
      "token",
      {
        "baseline": WithinGroup(estimator=leave_one_out),
        # The two networks are given to the view by whoever makes one.
        "credit": ImplicitPRM(prm=None, prm_reference=None, beta=0.05),
      },
    ),
    ("ToolRL", "response", {"shaping": (Graded(name="tool_reward"),)}),
    (
      "R1-Reward",
      "response",
      {
        "baseline": stable.baseline,
        "credit": stable.credit,
        "whitening": stable.whitening,
      },
    ),
  )
  return tuple(
    Case(
      name=name,
      level=level,
      recipe=dataclasses.replace(_grpo, reference=name, note="", **parts),
    )
    for name, level, parts in found
  )


def estimated(
  case: Case, batch: PolicyBatch, earlier: PolicyBatch, *, num_groups: int
) -> Estimated:
  """What a recipe makes of a batch after another one.

  Args:
    case: the estimator.
    batch: all rows.
    earlier: seen before, by those that remember.
    num_groups: prompts of a batch.

  Returns:
    Of the second batch.
  """
  memory = None
  if case.recipe.init(num_groups):
    memory = case.recipe.estimate(earlier, num_groups=num_groups).memory
  return case.recipe.estimate(batch, num_groups=num_groups, memory=memory)


def written(shape: Shape, *, seed: int = 0) -> PolicyBatch:
  """Rollouts with everything that any estimator reads.

  Half of the responses are right, but for every other prompt, where a quarter
  is, the shorter ones.

  Args:
    shape: how many, how long.
    seed: of the random numbers.

  Returns:
    A batch, its rows group by group.
  """
  rng = np.random.default_rng(seed)
  prompts, samples, time = shape.prompts, shape.samples, shape.time
  rows, steps = prompts * samples, shape.steps
  group = np.repeat(np.arange(prompts), samples)
  place = np.tile(np.arange(samples), prompts)
  share = np.where(group % 2 == 1, 0.25, 0.5)
  right = place < share * samples
  length = rng.integers(max(2, time // 2), time + 1, rows)
  length[0] = time
  # Where few are right those are short.
  short = right & (group % 2 == 1)
  length = np.where(short, time // 2 + place, length)
  valid = np.arange(rows) < rows - shape.invalid
  column = np.arange(time)[None]
  mask = column < length[:, None]
  step = np.where(mask, column // shape.segment, -1)
  there = np.arange(steps)[None] <= step.max(axis=1)[:, None]
  log_prob = -np.abs(rng.normal(1.0, 0.5, (rows, time)))
  behaviour = log_prob + rng.normal(0.0, 0.2, (rows, time))
  extra = {
    "step": step,
    "turn": step,
    "turn_mask": there,
    "tool_reward": np.where(right, 4.0, rng.integers(-3, 3, rows)),
    "exact": right & (place % 2 == 0),
    "correct": right,
    **_thoughts(rng, right, there),
    **_suite(right, there, place),
    **_walks(rng, group, there),
    **_models(rng, right, mask),
    **_probes(rng, right, there, step),
    "spae_thinking": length,
    "answer": rng.integers(0, 10, (rows, 1)),
    "answer_mask": np.ones((rows, 1), bool),
  }
  single = {
    name: value.astype(np.float32) if value.dtype == np.float64 else value
    for name, value in extra.items()
  }
  return PolicyBatch(
    log_prob=jnp.asarray(log_prob, jnp.float32),
    behaviour_log_prob=jnp.asarray(behaviour, jnp.float32),
    mask=jnp.asarray(mask),
    reward=jnp.asarray(right, jnp.float32),
    group=jnp.asarray(group),
    valid=jnp.asarray(valid),
    step=jnp.full(rows, 2),
    extra={name: jnp.asarray(value) for name, value in single.items()},
  )


def _thoughts(rng, right, there):
  """Steps labelled and scored: wrong responses go astray at some step."""
  rows, steps = there.shape
  number, last = np.arange(steps)[None], there.sum(axis=1)[:, None] - 1
  astray = rng.integers(0, np.maximum(last, 1))
  good = number < astray
  # Right responses take back one step, if they have one to spare.
  slip = (number == astray) & (number < last) & (rng.random((rows, 1)) < 0.5)
  good = np.where(right[:, None], ~slip, good)
  score = np.where(good, 0.9, 0.3) + rng.uniform(-0.1, 0.1, (rows, steps))
  return {
    "label": np.where(there, good | (number == last), -1).astype(np.int32),
    "step_score": np.where(there, score, 0.0),
  }


def _suite(right, there, place):
  """Tests passed by turns: more from turn to turn, all by right ones."""
  number, last = np.arange(there.shape[1])[None], there.sum(axis=1)[:, None] - 1
  skill = np.minimum(number + place[:, None] % 2, TESTS - 1)
  skill = np.where((number == last) & right[:, None], TESTS, skill)
  passed = np.arange(TESTS) < skill[..., None]
  return {
    "passed": (passed & there[..., None]).astype(np.uint8),
    "test_mask": np.ones((len(right), TESTS), bool),
  }


def _walks(rng, group, there):
  """Edges and nodes of trees with two choices at each step."""
  choice = rng.integers(0, 2, there.shape)
  node, edge = np.full(there.shape, -1), np.full(there.shape, -1)
  nodes: dict[tuple, int] = {}
  edges: dict[tuple, int] = {}
  for row, turn in zip(*np.nonzero(there), strict=True):
    path = (group[row], *choice[row, :turn])
    node[row, turn] = nodes.setdefault(path, len(nodes))
    path = (*path, choice[row, turn])
    edge[row, turn] = edges.setdefault(path, len(edges))
  return {"edge": edge, "node": node}


def _models(rng, right, mask):
  """What features and log-probabilities of networks say."""
  rows = len(right)
  sign = np.where(right, 0.02, -0.02)[:, None]
  reward = sign + rng.normal(0.0, 0.05, mask.shape)
  return {
    "implicit_reward": np.where(mask, reward, 0.0),
    "mean_token_entropy": rng.uniform(0.2, 1.0, rows) + 0.5 * ~right,
    "rank": rng.uniform(4.0, 8.0, rows),
    "rank_velocity": rng.normal(0.3, 0.2, rows),
    "rank_acceleration": rng.normal(0.0, 0.1, rows),
  }


def _probes(rng, right, there, step):
  """Potentials: right responses settle before their end."""
  rise = np.array([-0.6, 0.1, 0.92, 0.95])
  number = np.minimum(np.arange(there.shape[1]), len(rise) - 1)
  low = -0.6 + 0.1 * number
  potential = np.where(right[:, None], rise[number], low)
  potential = potential + rng.uniform(-0.04, 0.04, there.shape)
  count = there.sum(axis=1)
  return {
    "spae_potential": np.where(there, potential, 0.0),
    "spae_index": step,
    "spae_count": count,
    "spae_found": count,
  }
