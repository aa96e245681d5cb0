"""Dynamic sampling: dead groups wait for nobody, others wait for company."""

from __future__ import annotations

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from algorithms.steps import close
from experiments import recipes
from reliability.runs import arrays, digest, numbers
from rl_jax.launch.records import Records
from rl_jax.launch.run import train

pytestmark = pytest.mark.slow

GROUPS, SIZE = 4, 4
REFILL = dataclasses.replace(letters.GRPO, refill=True)


@pytest.fixture(scope="module")
def made():
  return letters.Begun(letters.experiment(REFILL))


def batch(made, number, alive):
  """Rollouts of another batch of prompts in which only these groups differ."""
  rollouts = made.collect(items=made.items(first=number))
  row = np.arange(GROUPS * SIZE)
  shown = np.isin(rollouts.group, alive)
  reward = np.where(shown, (7 * row + number) % 5, 3.0).astype(np.float32)
  return rollouts._replace(reward=jnp.asarray(reward))


def still(old, new):
  """Whether nothing was learned, bit for bit."""
  letters.equal((new.params, new.optimiser), (old.params, old.optimiser))
  assert int(new.step) == int(old.step) + 1


def test_an_update_waits_for_a_full_batch_and_is_that_of_its_groups(made):
  alive = [[1, 3], [0], [0, 1, 2, 3]]
  batches = [batch(made, number, own) for number, own in enumerate(alive)]
  state, seen = made.state, []
  for rollouts in batches:
    before = state
    state, metrics = made.update(rollouts, state)
    seen.append(letters.means(metrics))
    if seen[-1]["updated"] == 0:
      still(before, state)
      assert "loss/policy" in seen[-1]
  assert [found["updated"] for found in seen] == [0, 0, 1]
  assert [found["waiting_groups"] for found in seen] == [2, 3, 4]
  assert [found["rounds"] for found in seen] == [1, 2, 3]
  assert [found["dead_groups"] for found in seen] == [0.5, 0.75, 0.0]
  waiting = state.memory["waiting"]
  assert (int(waiting.groups), int(waiting.rounds)) == (0, 0)

  # The same groups, had they come at once, without any filter; the last
  # batch had one place left, and three of its groups are lost.
  places = [(0, 1), (0, 3), (1, 0), (2, 0)]
  rows = [(n, np.arange(SIZE) + SIZE * group) for n, group in places]
  joined = jax.tree.map(
    lambda *leaves: jnp.concatenate([leaves[n][own] for n, own in rows]),
    *batches,
  )
  joined = joined._replace(group=jnp.repeat(jnp.arange(GROUPS), SIZE))
  plain = letters.Begun(letters.experiment(letters.GRPO), state=made.state)
  late = made.state._replace(step=made.state.step + 2, memory={})
  expected, _ = plain.update(joined, late)
  close(state.params, expected.params, rtol=1e-5, atol=1e-7)


def test_nothing_alive_never_updates(made):
  state = made.state
  dead = batch(made, 0, [])
  for number in range(3):
    before = state
    state, metrics = made.update(dead, state)
    still(before, state)
    found = letters.means(metrics)
    assert all(np.isfinite(value) for value in found.values())
    assert (found["waiting_groups"], found["rounds"]) == (0, number + 1)


def test_a_row_without_verdict_does_not_make_a_group_informative(made):
  """3 3 3 and an unknown 9 are alike; 3 3 9 and an unknown 3 are not."""
  rollouts = batch(made, 0, [])
  reward = np.full(GROUPS * SIZE, 3.0, np.float32)
  valid = np.ones(GROUPS * SIZE, bool)
  reward[[3, 6]] = 9.0
  valid[[3, 7]] = False
  judged = rollouts._replace(
    reward=jnp.asarray(reward), valid=jnp.asarray(valid)
  )
  _, metrics = made.update(judged)
  assert letters.means(metrics)["waiting_groups"] == 1


@pytest.fixture
def _one_device(monkeypatch):
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)


@pytest.mark.usefixtures("_one_device")
def test_a_resume_while_groups_wait_is_exact(tmp_path):
  algorithm = dataclasses.replace(REFILL, recipe=recipes.dapo, refresh=2)
  experiment = letters.experiment(
    algorithm, steps=6, reward=letters.judged_by(letters.begins)
  )

  def run(workdir, **how):
    train(
      experiment,
      workdir=workdir,
      root=tmp_path,
      observers=lambda experiment, workdir: (Records(workdir),),
      **how,
    )
    return numbers(workdir)

  found = run(tmp_path / "whole")
  shutil.copytree(tmp_path / "whole", tmp_path / "again")
  waiting = [
    step
    for step, _, metrics in found
    if metrics["updated"] == 0 and metrics["waiting_groups"] > 0
  ]
  updated = [step for step, _, metrics in found if metrics["updated"] == 1]
  assert waiting[0] < updated[-1]
  again = run(tmp_path / "again", resume_from=waiting[0])
  assert again == found
  assert digest(tmp_path / "again", 6) == digest(tmp_path / "whole", 6)
  mine, theirs = arrays(tmp_path / "again", 6), arrays(tmp_path / "whole", 6)
  assert any("waiting" in path for path in mine)
  for path, array in mine.items():
    np.testing.assert_array_equal(array, theirs[path], strict=True)
