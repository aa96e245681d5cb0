"""CANON in a recipe: its metrics, its schedules, and what it reports."""

from __future__ import annotations

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from experiments import recipes
from rl_jax.advantages import canon
from rl_jax.algorithms.estimators.canon import Canon, MuSchedule
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.algorithms.responses import Responses

pytestmark = pytest.mark.slow

# Two interleaved groups of four; a fifth row of the first does not count.
GROUP = jnp.array([0, 1, 0, 1, 0, 1, 0, 1, 0])
REWARD = jnp.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, jnp.nan])
LENGTH = np.array([4, 1, 3, 2, 2, 4, 1, 3, 4])
VALID = jnp.arange(9) < 8
MASK = jnp.asarray(np.arange(5) < LENGTH[:, None])
BLANK = jnp.zeros(MASK.shape)


def batch_of(**changes):
  return PolicyBatch(
    log_prob=BLANK,
    behaviour_log_prob=BLANK,
    mask=MASK,
    reward=REWARD,
    group=GROUP,
    valid=VALID,
    step=jnp.full(9, 7, jnp.int32),
    extra={},
  )._replace(**changes)


def estimated(batch, **settings):
  recipe = dataclasses.replace(recipes.dr_grpo, baseline=Canon(**settings))
  return recipe.estimate(batch, num_groups=2)


def of_rows(batch, **settings):
  """The advantage of each row, the same for all of its tokens."""
  signals = estimated(batch, **settings).signals
  rows = np.asarray(signals.advantage[:, 0])
  expected = np.where(MASK & VALID[:, None], rows[:, None], 0.0)
  np.testing.assert_array_equal(signals.advantage, expected)
  return rows


def test_half_is_dr_grpo() -> None:
  found = of_rows(batch_of(), metric="length", mu=0.5)
  signals = recipes.dr_grpo.signals(batch_of(), num_groups=2)
  np.testing.assert_array_equal(found, signals.advantage[:, 0])


@pytest.mark.parametrize(
  ("settings", "expected"),
  # By hand: group 0 is rows 0, 2 | 4, 6 (high | low), means 1 and 0; group 1
  # is rows 5, 7 | 1, 3, means 1/2 and 1/2.
  [
    ({"mu": 1.0}, [1, -0.5, 1, 0.5, -1, -0.5, -1, 0.5, 0]),
    ({"mu": 0.0}, [0, -0.5, 0, 0.5, 0, -0.5, 0, 0.5, 0]),
    (
      {"mu": 1.0, "alpha": 0.5, "alpha_side": "high"},
      [0.5, -0.25, 0.5, 0.75, -0.5, -0.5, -0.5, 0, 0],
    ),
    (
      {"mu": 1.0, "alpha": 0.5, "alpha_side": "low"},
      [1, -0.5, 1, 0, -1, -0.25, -1, 0.75, 0],
    ),
    (
      {"mu": 1.0, "beta": 0.25},
      [1.25, -0.75, 1.25, 0.25, -1.25, -0.25, -1.25, 0.75, 0],
    ),
  ],
)
def test_length_by_hand(settings, expected) -> None:
  found = of_rows(batch_of(), metric="length", **settings)
  assert found.tolist() == expected


def test_every_metric_is_its_own() -> None:
  """Length, entropy, the place in the group, and one that data gives."""
  entropy = jnp.asarray(-LENGTH, jnp.float32)
  extra = {"mean_token_entropy": entropy, "hops": 10.0 * entropy}
  batch = batch_of(extra=extra)
  for metric, place in (
    ("length", LENGTH),
    ("entropy", -LENGTH),
    ("hops", -LENGTH),
    ("random", np.zeros(9)),
  ):
    expected = canon.canon_advantage(
      REWARD,
      jnp.asarray(place, jnp.float32),
      GROUP,
      VALID,
      num_groups=2,
      mu=1.0,
      alpha=0.75,
      alpha_side="low",
    )
    found = of_rows(batch, metric=metric, mu=1.0, alpha=0.75, alpha_side="low")
    np.testing.assert_array_equal(found, expected)


def test_what_is_wanted_and_what_is_asked_for() -> None:
  entropy = jnp.array([[0.5, 1.0, 9.0]])
  mask = jnp.array([[True, True, False]])
  token = jnp.zeros((1, 3), jnp.int32)
  view = types.SimpleNamespace(
    responses=Responses(token, mask, token, mask),
    scores=types.SimpleNamespace(entropy=entropy),
  )
  asked = Canon(metric="entropy", mu=1.0).ask(view)
  assert {k: v.tolist() for k, v in asked.items()} == {
    "mean_token_entropy": [0.75]
  }
  for metric in ("length", "random", "hops"):
    assert Canon(metric=metric, mu=1.0).ask(view) == {}
  assert Canon(metric="hops", mu=1.0).wants == ("hops",)
  assert Canon(metric="entropy", mu=1.0).wants == ()
  with pytest.raises(ValueError, match="`hops`"):
    estimated(batch_of(), metric="hops", mu=1.0)


@pytest.mark.parametrize(
  ("kind", "mu"),
  # Step 7 of a rise over 30, and a mean reward of one half.
  [
    ("cosine_first_intra", 1 - 0.6 * 8 / 30),
    ("cosine_first_inter", 8 / 30),
    ("accuracy_first_intra", 0.5),
    ("accuracy_first_inter", 0.5),
  ],
)
def test_schedules(kind: str, mu: float) -> None:
  found = estimated(batch_of(), metric="length", schedule=MuSchedule(kind=kind))
  assert found.metric["canon_mu"].mean() == pytest.approx(mu)
  fixed = estimated(batch_of(), metric="length", mu=mu)
  np.testing.assert_allclose(
    found.signals.advantage, fixed.signals.advantage, atol=1e-6
  )


def test_accuracy_of_the_judge_and_not_of_a_shaped_reward() -> None:
  recipe = dataclasses.replace(
    recipes.dr_grpo,
    shaping=(lambda batch, reward: 5.0 * reward,),
    baseline=Canon(
      metric="length", schedule=MuSchedule(kind="accuracy_first_intra")
    ),
  )
  found = recipe.estimate(batch_of(), num_groups=2)
  assert found.metric["canon_mu"].mean() == 0.5
  assert found.signals.advantage[0, 0] == 5.0 * 0.5


def test_rewards_that_are_no_accuracy_are_not_hidden() -> None:
  schedule = MuSchedule(kind="accuracy_first_inter")
  batch = batch_of(reward=4.0 * REWARD)
  assert np.isnan(of_rows(batch, metric="length", schedule=schedule)[:8]).all()


def test_a_response_without_a_token_is_not_hidden() -> None:
  """Its group has no advantage that a doctor would let pass."""
  mask = MASK.at[6].set(False)
  found = estimated(
    batch_of(mask=mask), metric="length", mu=1.0
  ).signals.advantage
  assert np.isnan(found[0, 0])
  assert np.isfinite(found[1::2]).all()


def test_how_far_the_halves_are_apart_is_reported() -> None:
  found = estimated(batch_of(), metric="length", mu=1.0).metric
  said = {name: total.mean().item() for name, total in found.items()}
  assert said == {
    "canon_mu": 1.0,
    "canon_metric_gap": 2.0,
    "canon_reward_gap": 0.5,
  }
  assert found["canon_reward_gap"].weight == 8.0


@pytest.mark.parametrize(
  "settings",
  [
    {"mu": 1.5},
    {"mu": float("nan")},
    {"mu": 1.0, "alpha": -1.0, "alpha_side": "low"},
    {"mu": 1.0, "alpha": 0.9},
    {"mu": 1.0, "alpha_side": "high"},
    {},
    {"mu": 1.0, "schedule": MuSchedule(kind="cosine_first_intra")},
  ],
)
def test_bad_settings_are_refused(settings) -> None:
  with pytest.raises(ValueError, match=r"mu|alpha"):
    Canon(metric="length", **settings)


def test_groups_of_one_are_refused() -> None:
  recipe = dataclasses.replace(
    recipes.dr_grpo, baseline=Canon(metric="length", mu=1.0)
  )
  with pytest.raises(ValueError, match="group_size = 1"):
    dataclasses.replace(letters.GRPO, recipe=recipe, group_size=1)


@pytest.mark.parametrize("settings", [{"warm_up": -1}, {"total": 32}])
def test_schedules_without_steps_are_refused(settings) -> None:
  with pytest.raises(ValueError, match="a step for each"):
    MuSchedule(kind="cosine_first_intra", **settings)


@pytest.mark.slow
def test_a_step_splits_by_the_entropy_of_the_policy_that_sampled() -> None:
  recipe = dataclasses.replace(
    recipes.trl_dr_grpo, baseline=Canon(metric="entropy", mu=1.0)
  )
  own = letters.Begun(
    letters.experiment(dataclasses.replace(letters.GRPO, recipe=recipe))
  )
  rollouts = own.collect()
  _, signals = own.with_signals(rollouts)
  asked = signals["asked"]["mean_token_entropy"]
  model, params = own.experiment.model, own.state.params
  previous = jnp.concatenate([rollouts.prompt, rollouts.token], axis=1)
  previous = previous[:, rollouts.prompt.shape[1] - 1 : -1]
  hidden = params["embedding"][previous]
  z = jax.nn.log_softmax(model.logits(params, hidden) / 0.8)
  entropy = np.asarray(-jnp.sum(jnp.exp(z) * z, axis=-1))
  expected = [
    row[mask].mean() for row, mask in zip(entropy, rollouts.mask, strict=True)
  ]
  np.testing.assert_allclose(asked, expected, rtol=1e-5)

  state, metrics = own.update(rollouts)
  said = letters.means(metrics)
  assert said["canon_mu"] == 1.0
  assert said["canon_metric_gap"] > 0
  assert not np.array_equal(state.params["output"], own.state.params["output"])
