"""What holds for every recipe, and that the page is written from them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import recipes, same_name
from rl_jax import losses
from rl_jax.algorithms.component_functions import (
  fresh_policy_gradient,
  loosely_clipped,
)
from rl_jax.algorithms.components import (
  Critic,
  Generalized,
)
from rl_jax.reduce import over_constant

pytestmark = pytest.mark.slow

RECIPES = same_name.named_recipes()
every = pytest.mark.parametrize("name", RECIPES)


@pytest.fixture(scope="module")
def batch():
  return same_name.batch()


def run(recipe, batch):
  """Objective and its gradient by the log-probs."""

  def objective(log_prob):
    given = batch._replace(log_prob=log_prob)
    return recipe.totals(given, num_groups=3).objective()

  return jax.value_and_grad(objective)(batch.log_prob)


def close(found, wanted):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
    found,
    wanted,
  )


def test_all_is_what_the_module_has():
  assert sorted(RECIPES) == sorted(recipes.__all__)


@every
def test_half_batches_add_up(name, batch):
  recipe = RECIPES[name]
  signals = recipe.signals(batch, num_groups=3)
  whole = recipe.terms(batch, signals)
  halves = [
    recipe.terms(*jax.tree.map(lambda x, i=i: x[i : i + 4], (batch, signals)))
    for i in (0, 4)
  ]
  close(halves[0] + halves[1], whole)
  assert np.isfinite(whole.objective())


@every
def test_what_does_not_count_does_not_count(name, batch):
  """NaN past the end of rows, and a whole row that is not valid."""
  recipe = RECIPES[name]
  valid = batch.valid.at[4].set(False)
  counted = batch.mask & valid[:, None]
  clean = batch._replace(valid=valid)
  dirty = {}
  for field, value in batch._asdict().items():
    if field in ("mask", "group", "valid") or value is None:
      continue
    keep = counted if value.ndim == 2 else valid
    dirty[field] = jnp.where(keep, value, jnp.nan)
  wanted, found = run(recipe, clean), run(recipe, clean._replace(**dirty))
  for x, y in zip(wanted, found, strict=True):
    np.testing.assert_array_equal(x, y)
  assert np.isfinite(found[1]).all()
  assert (np.asarray(found[1])[~np.asarray(counted)] == 0.0).all()


@every
def test_the_order_of_rows_does_not_matter(name, batch):
  recipe = RECIPES[name]
  order = np.array([5, 2, 7, 0, 3, 6, 1, 4])
  loss, slope = run(recipe, batch)
  moved, slopes = run(recipe, jax.tree.map(lambda x: x[order], batch))
  close((moved, slopes), (loss, slope[order]))


ON_POLICY = {
  name: dataclasses.replace(recipe, penalty=None, value=None, imitation=None)
  for name, recipe in RECIPES.items()
}


@pytest.mark.parametrize("name", ON_POLICY)
def test_on_policy_it_is_the_policy_gradient(name, batch):
  """Whatever the ratio and the clip: at r = 1 the slope is -A, reduced."""
  recipe = ON_POLICY[name]
  plain = dataclasses.replace(recipe, loss=fresh_policy_gradient)
  if name == "rloo":
    # The ratio of a row moves with each of its tokens in full.
    plain = dataclasses.replace(
      plain, reduction=lambda loss, mask: over_constant(loss, mask, divisor=1.0)
    )
  fresh = batch._replace(log_prob=batch.behaviour_log_prob)
  close(run(recipe, fresh)[1], run(plain, fresh)[1])


def test_dapo_leaves_out_groups_of_equal_rewards(batch):
  """Rows of group 2 count in grpo's denominator and not in dapo's."""
  kept = recipes.dapo.totals(batch, num_groups=3).policy.weight
  tokens = np.asarray(batch.mask).sum(1)
  assert kept == tokens[np.asarray(batch.group) != 2].sum()
  plain = dataclasses.replace(recipes.dapo, rows=None)
  assert plain.totals(batch, num_groups=3).policy.weight == tokens.sum()


def test_a_missing_field_is_named(batch):
  for name, field in (
    ("grpo", "reference_log_prob"),
    ("openrlhf_grpo", "reference_log_prob"),
    ("rloo", "reference_log_prob"),
    ("remax", "greedy_reward"),
    ("ppo", "behaviour_value"),
    ("open_instruct_grpo", "sampler_log_prob"),
  ):
    with pytest.raises(ValueError, match=f"`{field}`"):
      RECIPES[name].totals(batch._replace(**{field: None}), num_groups=3)
  critic = Critic(loss=losses.clipped_value_loss, weight=1.0)
  recipe = dataclasses.replace(recipes.grpo, value=critic)
  with pytest.raises(ValueError, match="target for the critic"):
    recipe.totals(batch, num_groups=3)


def test_vapo_imitates_rewarded_rows_only(batch):
  totals = recipes.vapo.totals(batch, num_groups=3)
  good = np.asarray(batch.reward) > 0
  tokens = np.asarray(batch.mask).sum(1)
  assert totals.imitation.weight == tokens[good].sum()
  nats = -np.asarray(batch.log_prob)[good][np.asarray(batch.mask)[good]].sum()
  np.testing.assert_allclose(totals.imitation.value, 0.1 * nats, rtol=1e-5)


def test_the_critic_learns_another_lambda_than_the_policy(batch):
  """VAPO: the target of lambda 1 is the reward that follows, whatever V."""
  credit = recipes.vapo.credit
  assert isinstance(credit, Generalized)
  _, target = credit(batch, batch.reward)
  wanted = np.broadcast_to(np.asarray(batch.reward)[:, None], target.shape)
  mask = np.asarray(batch.mask)
  np.testing.assert_allclose(target[mask], wanted[mask], atol=1e-6)


def test_the_looser_clip_is_looser():
  """Never above PPO's loss; equal where the advantage is not negative."""
  ratio = jnp.linspace(0.4, 1.8, 8)[None]
  given = jnp.log(ratio), jnp.zeros((1, 8))
  mask, clip = jnp.ones((1, 8), bool), {"clip_low": 0.2, "clip_high": 0.2}
  for advantage in (-1.0, 1.0):
    a = jnp.full((1, 8), advantage)
    loose = loosely_clipped(*given, a, mask, **clip).loss
    tight = losses.clipped_policy_loss(*given, a, mask, **clip)
    hand = np.sort(
      [-advantage * ratio, -advantage * jnp.clip(ratio, 0.8, 1.2)], 0
    )
    np.testing.assert_allclose(tight, hand[1], rtol=1e-6)
    wanted = hand[0] if advantage < 0 else hand[1]
    np.testing.assert_allclose(loose, wanted, rtol=1e-6)


def test_the_page_is_the_one_that_is_committed():
  assert same_name.PAGE.read_text() == same_name.page(), (
    "run: python -m experiments.same_name --write"
  )


def test_the_page_has_every_recipe_and_every_reference():
  text = same_name.PAGE.read_text()
  for name, recipe in RECIPES.items():
    assert f"| `{name}` |" in text
    assert f"- `{name}`: {recipe.reference}" in text


def test_check_says_that_a_page_is_stale(tmp_path, monkeypatch, capsys):
  page = tmp_path / "docs" / same_name.PAGE.name
  monkeypatch.setattr(same_name, "PAGE", page)
  monkeypatch.setattr(same_name, "page", lambda: "new\n")
  assert same_name.main(["--check"]) == 1
  assert "--write" in capsys.readouterr().out
  assert same_name.main(["--write"]) == 0
  assert page.read_text() == "new\n"
  assert same_name.main(["--check"]) == 0
