"""How a policy-optimisation method is put together from pure functions.

A `PolicyRecipe` is a frozen value with one function for each choice that
methods differ in: a function of the library with its hyper-parameters, as
`functools.partial(losses.clipped_policy_terms, clip_low=0.2, clip_high=0.2)`,
or a component of `algorithms.components` where it needs more of the batch
than all such functions do. Three steps, because some of what they need is a
property of the whole batch and must not depend on how that is split:

    signals = recipe.signals(batch, num_groups=...)   the full batch, once
    totals  = recipe.terms(batch, signals)            any part of its rows
    loss    = totals.objective()                      once, of added totals

`recipe.totals` does the first two for a batch that is not split.

A component is called as its slot says, and may have besides:

    ask(view) -> arrays by name, rows first: what the acting policy says of
      the responses (`algorithms.view.View`), found in `batch.extra`
    wants: names of arrays that the data or the judge must give
    watch(batch, signals, num_groups=) -> Totals by name, to be reported
    networks: frozen models that `ask` asks too, name -> `Trained(by=...)` or
      another start with `.by.model`
    compares: true = a group of one response teaches it nothing
    init(num_groups) -> memory: it is then called with `memory=`, and returns
      `Remembered`; once per rollout, part of the state of the run

Components may stand inside others, as fields of frozen dataclasses; who has
a component with a memory inside keeps that memory.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from rl_jax.algorithms.policy_records import (
  Estimated,
  PolicyBatch,
  PolicyTotals,
  Remembered,
  Signals,
  found,
  needed,
)
from rl_jax.masks import keep
from rl_jax.ratios import clamped_log_prob
from rl_jax.reduce import Total, over_tokens

if TYPE_CHECKING:
  from jaxtyping import Array, PyTree

  from rl_jax.algorithms.view import View

__all__ = [
  "Estimated",
  "PolicyBatch",
  "PolicyRecipe",
  "PolicyTotals",
  "Remembered",
  "Signals",
  "found",
  "needed",
]

# Slots whose components may have a memory.
_REMEMBERING = ("baseline", "credit", "whitening")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyRecipe:
  """One method: which function stands at each place."""

  reference: str
  """Paper, or package and version, that it is the mathematics of."""
  baseline: Callable
  """`(batch, reward, num_groups=)` to a number for each row."""
  credit: Callable
  """`(batch, number)` to one for each token, and the critic's target."""
  loss: Callable
  """`(log_prob, behaviour_log_prob, advantage, mask)` to a `PolicyLoss`."""
  reduction: Callable
  """`(loss, mask)` to a `Total`: who divides by what."""
  shaping: tuple[Callable, ...] = ()
  """`(batch, reward)` to a reward, in order, before all else."""
  rows: Callable | None = None
  """`(reward, group, valid, num_groups=)` to the rows that count."""
  whitening: Callable | None = None
  """`(advantage, mask)` to the advantages that are used."""
  weight: Callable | None = None
  """`(batch, mask)` to what each token's policy loss is multiplied with."""
  clamp: float | None = None
  """Bound in nats on a token's log-ratio in the loss; None leaves it."""
  penalty: Callable | None = None
  """`(batch, mask, reduction)` to the weighted KL in the loss."""
  value: Callable | None = None
  """`(batch, signals, reduction)` to the critic's weighted loss."""
  imitation: Callable | None = None
  """`(batch, mask)` to the weighted likelihood of good responses."""
  note: str = ""
  """What the table of recipes has no column for."""

  def signals(self, batch: PolicyBatch, *, num_groups: int) -> Signals:
    """Everything that the whole batch decides.

    Args:
      batch: all rows.
      num_groups: how many ids `batch.group` may hold; static.

    Returns:
      Advantages, weights and masks for its rows; no gradient flows.

    Raises:
      ValueError: if the batch lacks what a component needs.
    """
    return self.estimate(batch, num_groups=num_groups).signals

  def init(self, num_groups: int) -> dict[str, PyTree]:
    """The memory of its components before the first batch, by slot.

    Args:
      num_groups: prompts of a batch.

    Returns:
      Empty where none remembers.
    """
    slots = {name: getattr(self, name) for name in _REMEMBERING}
    return {
      name: component.init(num_groups)
      for name, component in slots.items()
      if hasattr(component, "init")
    }

  def ask(self, view: View) -> dict[str, Array]:
    """What its components want to know of the acting policy.

    Args:
      view: the policy and some rows.

    Returns:
      Arrays by name, rows first, for `batch.extra`.
    """
    said = {}
    for part in _parts(self):
      if hasattr(part, "ask"):
        said |= part.ask(view)
    return jax.lax.stop_gradient(said)

  @property
  def fills(self) -> tuple[str, ...]:
    """Names of the totals that it fills."""
    slots = {"policy": "loss", "penalty": "", "value": "", "imitation": ""}
    return tuple(
      name for name, slot in slots.items() if getattr(self, slot or name)
    )

  @property
  def networks(self) -> dict[str, Any]:
    """Frozen models that its components ask, by name."""
    return {
      name: start
      for part in _parts(self)
      for name, start in getattr(part, "networks", {}).items()
    }

  @property
  def compares(self) -> bool:
    """Whether a group of one response would teach it nothing."""
    return any(getattr(part, "compares", False) for part in _parts(self))

  @property
  def asks(self) -> bool:
    """Whether any component wants to know something of the acting policy."""
    return any(hasattr(part, "ask") for part in _parts(self))

  def check_given(self, given: frozenset[str]) -> None:
    """Refuse a run whose data and judge do not give what components want.

    Args:
      given: names of the arrays that they give.

    Raises:
      ValueError: with the component and what it misses.
    """
    for part in _parts(self):
      lacking = sorted(set(getattr(part, "wants", ())) - given)
      if lacking:
        raise ValueError(
          f"{type(part).__name__} wants {lacking} from the data or the reward,"
          f" which give {sorted(given)}"
        )

  def estimate(
    self,
    batch: PolicyBatch,
    *,
    num_groups: int,
    memory: dict[str, PyTree] | None = None,
  ) -> Estimated:
    """`signals`, with the memory of components and what they report.

    Args:
      batch: all rows.
      num_groups: how many ids `batch.group` may hold; static.
      memory: what `init` gave, or the batch before; None as from `init`.

    Returns:
      The same, the memory after, and metrics; no gradient flows.

    Raises:
      ValueError: if the batch lacks what a component needs.
    """
    after = dict(self.init(num_groups) if memory is None else memory)

    def run(slot: str, *given: Any) -> Any:
      call = getattr(self, slot)
      if slot == "baseline":
        call = functools.partial(call, num_groups=num_groups)
      if slot not in after:
        return call(*given)
      value, after[slot] = call(*given, memory=after[slot])
      return value

    reward = batch.reward
    for step in self.shaping:
      reward = step(batch, reward)
    mask = batch.mask & batch.valid[:, None]
    if self.rows is not None:
      mask &= self.rows(
        batch.reward, batch.group, batch.valid, num_groups=num_groups
      )[:, None]
    compared = run("baseline", batch, reward)
    advantage, target = run("credit", batch, compared)
    advantage = credited = keep(advantage, mask)
    if self.whitening is not None:
      advantage = run("whitening", advantage, mask)
    weight = jnp.ones_like(advantage)
    if self.weight is not None:
      weight = self.weight(batch, mask)
    signals = Signals(advantage, weight, mask, target, credited)
    metric = {}
    for part in _parts(self):
      if hasattr(part, "watch"):
        metric |= part.watch(batch, signals, num_groups=num_groups)
    return jax.lax.stop_gradient(Estimated(signals, after, metric))

  def terms(self, batch: PolicyBatch, signals: Signals) -> PolicyTotals:
    """The totals of some rows.

    Args:
      batch: all rows of the batch or some.
      signals: the same rows of what `signals` said.

    Returns:
      Totals; those of the parts of a batch add up to its own.

    Raises:
      ValueError: if the batch lacks what a component needs.
    """
    mask = signals.mask
    log_prob = batch.log_prob
    if self.clamp is not None:
      log_prob = clamped_log_prob(
        log_prob, batch.behaviour_log_prob, mask, clamp=self.clamp
      )
    policy = self.loss(
      log_prob, batch.behaviour_log_prob, signals.advantage, mask
    )
    penalty = value = imitation = Total(jnp.zeros(()), jnp.zeros(()))
    if self.penalty is not None:
      penalty = self.penalty(batch, mask, self.reduction)
    if self.value is not None:
      value = self.value(batch, signals, self.reduction)
    if self.imitation is not None:
      imitation = self.imitation(batch, mask)
    return PolicyTotals(
      self.reduction(policy.loss * signals.weight, mask),
      penalty,
      value,
      imitation,
      over_tokens(policy.clipped.astype(jnp.float32), mask),
    )

  def totals(self, batch: PolicyBatch, *, num_groups: int) -> PolicyTotals:
    """The totals of a batch that is not split.

    Args:
      batch: all rows.
      num_groups: how many ids `batch.group` may hold; static.

    Returns:
      Its totals; minimise `totals.objective()`.

    Raises:
      ValueError: if the batch lacks what a component needs.
    """
    return self.terms(batch, self.signals(batch, num_groups=num_groups))


def _parts(value: Any) -> Iterator[Any]:
  """Components, and those that stand inside of them."""
  if isinstance(value, tuple):
    for each in value:
      yield from _parts(each)
  elif isinstance(value, functools.partial):
    yield from _parts((value.func, *value.args, *value.keywords.values()))
  elif hasattr(value, "by"):
    return  # Another experiment, whose components are its own.
  elif dataclasses.is_dataclass(value) and not isinstance(value, type):
    if not isinstance(value, PolicyRecipe):
      yield value
    for field in dataclasses.fields(value):
      yield from _parts(getattr(value, field.name))
