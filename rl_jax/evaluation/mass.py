"""What training made possible and what it lost: mass, and sets of prompts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np

from rl_jax.advantages.passk import pass_at_k
from rl_jax.evaluation.texts import TextSamples
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Bool, Float, Int, PyTree

  from rl_jax.training.state import State

__all__ = [
  "Mass",
  "PassAtKSamples",
  "SolvedSetChange",
  "inside_boundary",
  "probability_mass_tracker",
  "solved_set_change",
]


class Mass(NamedTuple):
  """How a distribution over actions or tokens is spread.

  Attributes:
    mass: of each class.
    entropy: of the distribution, nats.
    ahead: of each class, whether it has more than half of the mass.
  """

  mass: Float[Array, "*batch classes"]
  entropy: Float[Array, "*batch"]
  ahead: Bool[Array, "*batch classes"]


def probability_mass_tracker(
  probability: Float[Array, "*batch action"],
  kind: Int[Array, "*batch action"],
  *,
  classes: int,
) -> Mass:
  """Mass by class: the best explored action, the optimum, the others.

      m_c = sum_{v: kind_v = c} p_v

  For a language policy the classes may be the token that continues a gold
  answer and all others.

  Args:
    probability: p.
    kind: class of each action; one outside of [0, classes) is in none.
    classes: how many there are; static.

  Returns:
    Mass and entropy of each state.

  Raises:
    ValueError: if `classes` is below 1.

  arXiv:2510.04028, section 3.

  >>> probability_mass_tracker(
  ...   jnp.array([0.5, 0.25, 0.25]), jnp.array([0, 1, 1]), classes=2
  ... ).mass.tolist()
  [0.5, 0.5]
  """
  if classes < 1:
    raise ValueError(f"classes must be at least 1, got {classes}")
  member = jnp.stack([kind == own for own in range(classes)], axis=-1)
  mass = jnp.sum(jnp.where(member, probability[..., None], 0.0), axis=-2)
  entropy = jnp.sum(jax.scipy.special.entr(probability), axis=-1)
  return Mass(mass, entropy, mass > 0.5)


def inside_boundary(
  rate: Float[np.ndarray, "prompt"], *, k: int
) -> Bool[np.ndarray, "prompt"]:
  """Which prompts are within reach of k tries.

      p_i > 1 / k

  Args:
    rate: p_i, probability that one try is right.
    k: tries.

  Returns:
    True inside. A rate that training lifts above 1 / k is an expansion.

  Raises:
    ValueError: if `k` < 1.

  arXiv:2510.04028.

  >>> inside_boundary(np.array([0.125, 0.5]), k=4).tolist()
  [False, True]
  """
  if k < 1:
    raise ValueError(f"k must be at least 1, got {k}")
  return rate > 1.0 / k


class SolvedSetChange(NamedTuple):
  """Prompts that some try solved, before and after; see `solved_set_change`.

  Attributes:
    newly: which are solved now and were not.
    lost: which were solved and are not now.
    before: how many were.
    after: how many are: the size of the boundary.
  """

  newly: Bool[np.ndarray, "prompt"]
  lost: Bool[np.ndarray, "prompt"]
  before: int
  after: int


def solved_set_change(
  base: Bool[np.ndarray, "prompt base_try"],
  new: Bool[np.ndarray, "prompt new_try"],
) -> SolvedSetChange:
  """What a policy solves in K tries that its base did not, and what it lost.

  Args:
    base: which tries of the base policy were right.
    new: those of the policy after training, on the same prompts.

  Returns:
    The two sets, and the sizes of what is solved.

  Raises:
    ValueError: if the prompts or the numbers of tries are not the same: more
      tries alone solve more prompts.

  arXiv:2510.04028.

  >>> found = solved_set_change(
  ...   np.array([[True, False], [False, False], [True, True]]),
  ...   np.array([[True, True], [False, True], [False, False]]),
  ... )
  >>> found.newly.tolist(), found.lost.tolist()
  ([False, True, False], [False, False, True])
  """
  base, new = np.asarray(base, bool), np.asarray(new, bool)
  if base.shape != new.shape or base.ndim != 2:
    raise ValueError(
      "the same prompts and as many tries are needed, got"
      f" {base.shape} and {new.shape}"
    )
  before, after = base.any(axis=1), new.any(axis=1)
  return SolvedSetChange(
    after & ~before, before & ~after, int(before.sum()), int(after.sum())
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassAtKSamples:
  """`TextSamples`, and how often one of k answers is right.

  Adds `evaluation/pass_at_<k>` for each k, unbiased, the mean over prompts,
  and `evaluation/solved`, the share of prompts that any answer solves. An
  answer is right if its reward reaches `threshold`; a prompt with fewer than
  k verdicts is in no mean of that k.

  Raises:
    ValueError: if a k is below 1 or above the number of answers.
  """

  answers: TextSamples
  """What is asked, and how often; see `TextSamples`."""
  tries: tuple[int, ...]
  """Every k."""
  threshold: float = 0.5
  """Least reward of a right answer."""

  def __post_init__(self) -> None:
    most = self.answers.samples
    if not self.tries or not 1 <= min(self.tries) <= max(self.tries) <= most:
      raise ValueError(
        f"each of tries = {self.tries} must be in [1, samples = {most}]"
      )

  @property
  def every(self) -> int:
    """Steps between two evaluations."""
    return self.answers.every

  def build(
    self, experiment: Any, load: Callable[[Any], PyTree]
  ) -> tuple[Callable[[State, PyTree], tuple[dict, dict]], PyTree]:
    """The evaluation as a pure function; see `TextSamples.build`."""
    return self.answers.build(experiment, load)

  def inspection(self, experiment: Any) -> Callable[[dict, dict], tuple]:
    """What judges the answers, on the host; see `Program.inspect`."""
    judge = self.answers.inspection(experiment)

    def inspect(metrics: dict, answers: dict) -> tuple[dict, dict, tuple]:
      metrics, pictures, texts = judge(metrics, answers)
      reward = [text["reward"] for text in texts]
      return metrics | self.totals(reward), pictures, texts

    return inspect

  def totals(self, reward: list[float | None]) -> dict[str, Total]:
    """The added numbers.

    Args:
      reward: of each answer, those to the first prompt first; None without a
        verdict.

    Returns:
      Totals by name.
    """
    shape = (self.answers.prompts, self.answers.samples)
    judged = np.array([one is not None for one in reward]).reshape(shape)
    right = np.array(
      [one is not None and one >= self.threshold for one in reward]
    ).reshape(shape)
    count, hits = judged.sum(axis=1), right.sum(axis=1)
    solved = np.asarray(hits > 0, np.float32)
    found = {"evaluation/solved": _total(solved, np.ones_like(solved))}
    given = jax.device_put((count.astype(np.int32), hits.astype(np.int32)))
    for k in self.tries:
      estimate = jax.device_get(_estimated(*given, k=k))
      found[f"evaluation/pass_at_{k}"] = _total(estimate.value, estimate.valid)
    return found


# On the host arrays go to a device only where that is said.
_estimated = jax.jit(pass_at_k, static_argnames="k")


def _total(value: np.ndarray, weight: np.ndarray) -> Total:
  total: Any = value.sum(dtype=np.float32)
  count: Any = weight.sum(dtype=np.float32)
  return Total(total, count)
