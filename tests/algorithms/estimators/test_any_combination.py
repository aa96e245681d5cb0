"""Any estimator with any policy loss and any reduction; bad input to each."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.estimators.estimator_cases import (
  BATCH,
  CASES,
  EARLIER,
  GROUPS,
  NAMES,
  SHAPE,
  changed,
  choices,
  components,
  spoiled,
  without_case,
)
from experiments import chains, recipes
from experiments.advantages.cases import estimated
from rl_jax import algorithms, sampling
from rl_jax.algorithms.responses import Responses, Scoring
from rl_jax.algorithms.view import View
from rl_jax.training.optimisers import AdamW

pytestmark = pytest.mark.slow

LOSSES, REDUCTIONS = choices("loss"), choices("reduction")
ORDER = np.random.default_rng(0).permutation(len(BATCH.reward))
COUNTS = np.asarray(BATCH.mask & BATCH.valid[:, None])
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
# Of sums of some hundred terms, which may cancel.
SUMS = {"rtol": 1e-5, "atol": 1e-5}


def rows(value, order):
  return jax.tree.map(lambda x: x[order], value)


@jax.jit
def signals_of(batch):
  """One compiled function of all estimators, for all tests."""
  return {
    case.name: estimated(case, batch, EARLIER, num_groups=GROUPS).signals
    for case in CASES
  }


@functools.cache
def clean():
  return signals_of(BATCH)


def stacked(signals):
  """Signals of all estimators; what is None in all stays so."""
  return jax.tree.map(lambda *x: jnp.stack(x), *signals.values())


@functools.cache
def compiled(loss):
  """Objectives [estimator, reduction] whole and in halves, and gradients."""
  made = [
    dataclasses.replace(recipes.trl_grpo, loss=LOSSES[loss], reduction=each)
    for each in REDUCTIONS.values()
  ]

  def objectives(log_prob, batch, signals):
    batch = batch._replace(log_prob=log_prob, extra=None)
    half = jax.tree.map(
      lambda x: x.reshape(2, -1, *x.shape[1:]), (batch, signals)
    )
    whole = [recipe.terms(batch, signals).objective() for recipe in made]
    parts = [jax.vmap(recipe.terms)(*half) for recipe in made]
    summed = [
      jax.tree.map(lambda x: x.sum(0), totals).objective() for totals in parts
    ]
    found = jnp.stack(whole)
    return found, (found, jnp.stack(summed))

  @jax.jit
  def all_of(batch, signals):
    def one(signals):
      gradient, found = jax.jacrev(objectives, has_aux=True)(
        batch.log_prob, batch, signals
      )
      return *found, gradient

    return jax.vmap(one)(stacked(signals))

  return all_of


# Which estimators, losses and reductions there are.


def test_each_component_has_a_case():
  lacking = without_case(CASES)
  assert not lacking, (
    f"no case for {lacking}: put each in a recipe of"
    " experiments/advantages/cases.py, and what it reads into `written`"
  )
  assert len(components()) >= 17


def test_a_component_without_a_case_is_noticed():
  others = [case for case in CASES if case.name != "SALT"]
  assert without_case(others) == ["salt.Salt"]


def test_the_losses_and_reductions_are_those_of_the_recipes():
  assert len(LOSSES) >= 10
  assert len(REDUCTIONS) >= 4
  assert len(set(NAMES)) == len(CASES)


def test_the_rollouts_have_the_arrays_that_components_ask_for():
  """Names, shapes and dtypes are those of what is computed in a run."""
  model = chains.decoder(context=SHAPE.time + 8, width=16, layers=1)
  params = jax.eval_shape(model.init, jax.random.key(0))
  given = {name: BATCH.extra[name] for name in ("answer", "answer_mask")}
  count = len(BATCH.reward)
  prompt = jnp.zeros((count, 4), jnp.int32)
  responses = Responses(
    prompt, prompt >= 0, jnp.zeros(BATCH.mask.shape, jnp.int32), BATCH.mask
  )
  key = jax.random.split(jax.random.key(0), count)
  asked = set()
  for case in CASES:

    def ask(params, case=case):
      view = View(
        model=model,
        params=params,
        adapter=None,
        temperature=1.0,
        scoring=Scoring(),
        responses=responses,
        shared=1,
        extra=given,
        key=key,
        networks=dict.fromkeys(case.recipe.networks, (model, params)),
      )
      return case.recipe.ask(view)

    said = jax.eval_shape(ask, params) if case.recipe.asks else {}
    for name, shape in said.items():
      made = BATCH.extra[name]
      assert (made.shape, made.dtype) == (shape.shape, shape.dtype), name
    asked |= said.keys()
  for case in CASES:
    case.recipe.check_given(frozenset(BATCH.extra) - asked)


# What an estimator makes of the batch.


@pytest.mark.parametrize("name", NAMES)
def test_every_advantage_is_finite_and_says_something(name):
  found = np.asarray(clean()[name].advantage)
  assert np.isfinite(found).all()
  assert not found[~COUNTS].any()
  for group in range(GROUPS):
    assert found[np.asarray(BATCH.group) == group].any()


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_count_changes_no_advantage(name):
  for new, old in zip(
    jax.tree.leaves(spoilt()[name]),
    jax.tree.leaves(clean()[name]),
    strict=True,
  ):
    np.testing.assert_allclose(new, old, **TOLERANCE)


@functools.cache
def spoilt():
  return signals_of(spoiled(BATCH))


@pytest.mark.parametrize("name", NAMES)
def test_rows_in_another_order_have_the_same_advantages(name):
  for new, old in zip(
    jax.tree.leaves(mixed()[name]), jax.tree.leaves(clean()[name]), strict=True
  ):
    np.testing.assert_allclose(new, old[ORDER], **TOLERANCE)


@functools.cache
def mixed():
  return signals_of(rows(BATCH, ORDER))


def test_no_gradient_flows_through_signals():
  floats, others = split(BATCH)

  def total(floats):
    found = signals_of(merged(floats, others))
    return sum(
      jnp.sum(leaf**2)
      for leaf in jax.tree.leaves(found)
      if jnp.issubdtype(leaf.dtype, jnp.floating)
    )

  for gradient in jax.jit(jax.grad(total))(floats):
    assert not gradient.any()


def split(batch):
  leaves = jax.tree.leaves(batch)
  kept = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]
  floats = [x for x, keep in zip(leaves, kept, strict=True) if keep]
  return floats, kept


def merged(floats, kept):
  left = iter(floats)
  leaves, structure = jax.tree.flatten(BATCH)
  return structure.unflatten(
    next(left) if keep else x for x, keep in zip(leaves, kept, strict=True)
  )


# Together with a loss and a reduction.


@pytest.mark.parametrize("loss", LOSSES)
def test_any_estimator_with_this_loss_and_any_reduction(loss):
  whole, parts, gradient = compiled(loss)(BATCH, clean())
  assert whole.shape == (len(CASES), len(REDUCTIONS))
  assert np.isfinite(whole).all()
  assert np.isfinite(gradient).all()
  # Every one of them moves the policy, and only where something counts.
  assert np.abs(gradient).max(axis=(2, 3)).all()
  assert not np.asarray(gradient)[..., ~COUNTS].any()
  np.testing.assert_allclose(parts, whole, **SUMS)

  again, _, same = compiled(loss)(spoiled(BATCH), spoilt())
  np.testing.assert_allclose(again, whole, **SUMS)
  np.testing.assert_allclose(same, gradient, **TOLERANCE)

  again, parts, moved = compiled(loss)(rows(BATCH, ORDER), mixed())
  np.testing.assert_allclose(again, whole, **SUMS)
  np.testing.assert_allclose(parts, whole, **SUMS)
  np.testing.assert_allclose(moved, gradient[:, :, ORDER], **TOLERANCE)


# Bad input. Row 0 counts and has a token in every column.

BEYOND = SHAPE.steps
NAN = float("nan")
SPREAD = {"TP-GRPO", "Clip and Delta"}
COMPARED = set(NAMES) - {"VeRPO", "ToolRL"}
FAULTS = {
  "a reward that is NaN": ("reward", 0, NAN, COMPARED),
  "another that is": ("tool_reward", 0, NAN, {"ToolRL"}),
  "a reward outside of [0, 1] for an accuracy": (
    "reward",
    0,
    40.0,
    {"CANON-Dynamic, Eff", "two-stage: W-REINFORCE"},
  ),
  "a metric that is NaN": ("mean_token_entropy", 0, NAN, {"CANON"}),
  "a rank that is NaN": ("rank", 0, NAN, {"VERL", "VERL in the reward"}),
  "an acceleration that is NaN": (
    "rank_acceleration",
    0,
    NAN,
    {"VERL", "VERL in the reward"},
  ),
  "a potential that is NaN": ("spae_potential", (0, 1), NAN, {"SPAE"}),
  "a score that is NaN": ("step_score", (0, 1), NAN, {"Clip and Delta"}),
  "a log-ratio that is NaN": ("implicit_reward", (0, 1), NAN, {"implicit PRM"}),
  "a token in a step that is none": ("step", (0, -1), BEYOND, SPREAD),
  "a token in a turn that is none": (
    "turn",
    (0, -1),
    BEYOND,
    {"SALT", "VeRPO"},
  ),
  "a token in a probed step that is none": (
    "spae_index",
    (0, -1),
    BEYOND,
    {"SPAE"},
  ),
  "a velocity that is NaN": (
    "rank_velocity",
    0,
    NAN,
    {"VERL", "VERL in the reward"},
  ),
  "a score that is a logit": ("step_score", (0, 1), 3.0, {"Clip and Delta"}),
  "a test that is passed seven times": ("passed", (0, 1, 0), 7, {"VeRPO"}),
  "a turn that was not judged": ("turn_mask", (0, 1), False, {"VeRPO"}),
  "a step without a label between others": ("label", (0, 1), -1, {"TP-GRPO"}),
  "a turn without an edge": ("edge", (0, 1), -1, {"SALT"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_seen_in_the_advantage(fault):
  """NaN, which the loop refuses, in a row that counts; nobody else's."""
  name, place, value, concerned = FAULTS[fault]
  found = signals_of(changed(name, place, value))
  broken = {
    case for case in NAMES if np.isnan(np.asarray(found[case].advantage)).any()
  }
  assert broken == concerned


NO_STEPS = {
  "step": -1,
  "turn": -1,
  "spae_index": -1,
  "spae_count": 0,
  "label": -1,
  "edge": -1,
  "node": -1,
  "turn_mask": False,
}


def test_an_empty_response_has_no_advantage_and_breaks_no_other():
  """But where its length is the metric, which must be refused."""
  extra = {n: BATCH.extra[n].at[1].set(v) for n, v in NO_STEPS.items()}
  mask = BATCH.mask.at[1].set(False)
  found = signals_of(BATCH._replace(mask=mask, extra=BATCH.extra | extra))
  for name in NAMES:
    advantage = np.asarray(found[name].advantage)
    assert not advantage[1].any()
    assert np.isnan(advantage).any() == (name == "CANON-Dynamic, Eff")


# Of one response: what no other response is needed for.
ALONE = {"two-stage: W-REINFORCE", "R1-Reward", "VeRPO", "implicit PRM"}


def test_a_response_alone_in_its_group_is_compared_with_none():
  valid = BATCH.valid.at[1:4].set(False)
  found = signals_of(BATCH._replace(valid=valid))
  for name in NAMES:
    advantage = np.asarray(found[name].advantage)
    assert np.isfinite(advantage).all()
    assert advantage[0].any() == (name in ALONE)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_groups_of_one_are_refused_where_responses_are_compared(case):
  def build():
    return algorithms.PolicyOptimisation(
      recipe=case.recipe,
      sampler=sampling.Autoregressive(
        length=8, temperature=1.0, end=(chains.END,)
      ),
      group_size=1,
      optimiser=AdamW(learning_rate=1e-3),
    )

  if case.name in ("two-stage: W-REINFORCE", "R1-Reward"):
    assert build().group_size == 1
  else:
    with pytest.raises(ValueError, match="group_size = 1"):
      build()
