"""Each framework's "GRPO", as its named version computed it, from our recipe.

Their numbers are float64 unless the framework itself goes through float32,
which then bounds how well anything can agree with it.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import recipes
from parity.batch import make_batch, make_pairs
from parity.sources import inputs, load
from parity.subjects import batch_of, placed
from rl_jax.algorithms.recipe import PolicyRecipe

pytestmark = pytest.mark.slow

# tunix and the advantages of NeMo-RL are float32 inside.
FRAMEWORKS = {
  "trl": (recipes.trl_grpo, 1e-6),
  "verl": (recipes.verl_grpo, 1e-6),
  "openrlhf": (recipes.openrlhf_grpo, 1e-6),
  "nemo": (recipes.nemo_grpo, 2e-5),
  "tunix": (recipes.tunix_grpo, 2e-5),
  "open_instruct": (recipes.open_instruct_grpo, 1e-6),
  "easydel": (recipes.easydel_grpo, 1e-6),
  "marin": (recipes.marin_rloo, 1e-6),
}


def run(recipe: PolicyRecipe, batch):
  """Advantage, loss and gradient."""

  def objective(log_prob):
    totals = recipe.totals(batch._replace(log_prob=log_prob), num_groups=4)
    return totals.objective()

  loss, gradient = jax.value_and_grad(objective)(batch.log_prob)
  advantage = recipe.signals(batch, num_groups=4).advantage
  return advantage, loss, gradient


def close(found, wanted, tolerance):
  np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("peer", FRAMEWORKS)
def test_column_in_float64(peer):
  recipe, tolerance = FRAMEWORKS[peer]
  theirs = load(peer)["grpo"]
  batch = batch_of(theirs["rows"])
  advantage, loss, gradient = run(recipe, batch)
  assert loss.dtype == jnp.float64
  close(advantage, placed(theirs["advantage"], theirs["rows"]), tolerance)
  close(loss, theirs["loss"], tolerance)
  close(gradient, placed(theirs["gradient"], theirs["rows"]), tolerance)


@pytest.mark.parametrize(
  "peer", [peer for peer in FRAMEWORKS if peer != "marin"]
)
def test_loss_of_each_token(peer):
  """A mask of one token leaves its loss, KL included, as the aggregate."""
  recipe, tolerance = FRAMEWORKS[peer]
  theirs = load(peer)["grpo"]
  batch = batch_of(theirs["rows"])
  signals = recipe.signals(batch, num_groups=4)

  wanted = placed(theirs["per_token"], theirs["rows"]).reshape(-1)
  # Some of them, in the order of the batch: each costs a run.
  for place in np.flatnonzero(signals.mask)[::4]:
    here = np.arange(batch.mask.size).reshape(batch.mask.shape) == place
    given = signals._replace(mask=jnp.asarray(here))
    found = recipe.terms(batch, given).objective()
    close(found, wanted[place], tolerance)


def test_no_two_frameworks_agree():
  """The same rows, rewards and log-probs; only TRL's and verl's clips meet."""
  batch = batch_of(np.flatnonzero(make_batch()["group"] != 2))
  found = [float(run(recipe, batch)[1]) for recipe, _ in FRAMEWORKS.values()]
  assert np.min(np.abs(np.subtract.outer(found, found)) + np.eye(8)) > 1e-4


def test_the_dual_clip_is_what_parts_verl_from_trl():
  batch = batch_of(np.flatnonzero(make_batch()["group"] != 2))
  single = dataclasses.replace(recipes.verl_grpo, loss=recipes.trl_grpo.loss)
  wide = dataclasses.replace(single, baseline=recipes.trl_grpo.baseline)
  # Same rows, so TRL without the dual clip and with its own epsilon.
  close(run(wide, batch)[1], run(recipes.trl_grpo, batch)[1], 1e-6)


def test_fixtures_are_of_the_inputs_that_we_use():
  stored = inputs()
  for name, value in (make_batch() | make_pairs()).items():
    np.testing.assert_array_equal(stored[name], value, err_msg=name)
