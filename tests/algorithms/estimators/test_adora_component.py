"""ADORA in a recipe: around any baseline, and what it reports."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from experiments import recipes
from rl_jax.algorithms.components import LengthWeighted, Raw
from rl_jax.algorithms.estimators.adora import (
  ADORA_LLM_CODE,
  ADORA_LLM_PAPER,
  ADORA_VLM,
  Adora,
  GroupWeighted,
)
from rl_jax.algorithms.recipe import PolicyBatch, Remembered

pytestmark = pytest.mark.slow

# Four interleaved groups of four and a row that does not count, by hand:
#   0  lengths 4 and 6 right, 7 and 8 wrong: short successes
#   1  length 8 right, 2, 3 and 4 wrong: a long success
#   2  all right                             3  none right
GROUP = jnp.array([0, 1, 2, 3] * 4 + [0])
REWARD = jnp.array([1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, jnp.nan])
LENGTH = np.array([4, 8, 1, 2, 6, 2, 3, 4, 7, 3, 5, 6, 8, 4, 7, 5, 8])
VALID = jnp.arange(17) < 16
MASK = jnp.asarray(np.arange(8) < LENGTH[:, None])
BLANK = jnp.zeros(MASK.shape)
BATCH = PolicyBatch(
  log_prob=BLANK,
  behaviour_log_prob=BLANK,
  mask=MASK,
  reward=REWARD,
  group=GROUP,
  valid=VALID,
  step=jnp.full(17, 7, jnp.int32),
)
# A program's cap, above every response here.
LONG = {"cap": 100.0}
# Of groups 0 to 3, by hand from the definitions.
WEIGHT = {
  "llm": (dataclasses.replace(ADORA_LLM_CODE, threshold=0.5), [0.1, 1, 1, 0.1]),
  "vlm": (ADORA_VLM, [0.1, 1, 0.1, 1]),
  "paper": (dataclasses.replace(ADORA_LLM_PAPER, **LONG), [1, 2, 1, 1]),
}


def weight_of(settings, batch=BATCH):
  """By group."""
  found = np.asarray(settings(batch, num_groups=4))
  np.testing.assert_array_equal(found[4:16], np.tile(found[:4], 3))
  return found[:4]


@pytest.mark.parametrize("name", WEIGHT)
def test_presets(name: str) -> None:
  settings, expected = WEIGHT[name]
  np.testing.assert_allclose(weight_of(settings), expected)


def test_presets_differ_as_the_sources_do() -> None:
  assert ADORA_LLM_CODE.threshold == 1.01
  assert (ADORA_LLM_CODE.cap, ADORA_VLM.cap) == (4054.0, 4094.0)
  assert (ADORA_LLM_CODE.empty, ADORA_VLM.empty) == ("llm", "vlm")
  # With rewards of 0 and 1 the threshold of the other scale is never passed.
  np.testing.assert_allclose(weight_of(ADORA_LLM_CODE), 0.1)


def test_the_cap_is_the_longest_response_if_none_is_given() -> None:
  """Group 0 has one failure of 8 tokens, which is all there may be."""
  attenuate = dataclasses.replace(ADORA_VLM, cap=None)
  lengthy = BATCH._replace(mask=MASK.at[4].set(jnp.arange(8) < 7))
  # The success of 7 is no longer than the failure of 7 that is left ...
  assert weight_of(attenuate, lengthy)[0] == pytest.approx(0.1)
  # ... nor than the mean of 7 and 8, and longer than one of 6.
  shorter = lengthy._replace(mask=lengthy.mask.at[8].set(jnp.arange(8) < 6))
  assert weight_of(attenuate, shorter)[0] == 1.0
  assert weight_of(ADORA_VLM, shorter)[0] == pytest.approx(0.1)


@pytest.mark.parametrize(("step", "active"), [(7, True), (8, False)])
def test_a_stage_of_training(step: int, active: bool) -> None:
  settings = dataclasses.replace(ADORA_VLM, active_steps=(3, 8))
  batch = BATCH._replace(step=jnp.full(17, step, jnp.int32))
  found = weight_of(settings, batch)
  expected = weight_of(ADORA_VLM) if active else np.ones(4)
  np.testing.assert_array_equal(found, expected)
  early = BATCH._replace(step=jnp.full(17, 2, jnp.int32))
  np.testing.assert_array_equal(weight_of(settings, early), np.ones(4))


@pytest.mark.parametrize(
  "base", [recipes.trl_grpo.baseline, LengthWeighted(), Raw()]
)
def test_signs_and_ratios_of_any_base_are_kept(base) -> None:
  wrapped = GroupWeighted(base=base, weight=ADORA_VLM)
  plain = np.asarray(base(BATCH, REWARD, num_groups=4))
  found = np.asarray(wrapped(BATCH, REWARD, num_groups=4))
  weight = np.asarray(ADORA_VLM(BATCH, num_groups=4))
  np.testing.assert_array_equal(found, plain * weight)
  assert found[16] == 0.0


def test_weights_of_one_are_the_base() -> None:
  nothing = dataclasses.replace(ADORA_VLM, other=1.0)
  recipe = dataclasses.replace(
    recipes.trl_grpo,
    baseline=GroupWeighted(base=recipes.trl_grpo.baseline, weight=nothing),
  )
  found = recipe.signals(BATCH, num_groups=4)
  expected = recipes.trl_grpo.signals(BATCH, num_groups=4)
  np.testing.assert_array_equal(found.advantage, expected.advantage)


def test_any_function_of_the_batch_may_weigh() -> None:
  def by_size(batch, *, num_groups):
    return jnp.where(batch.group == 1, float(num_groups), 0.5)

  wrapped = GroupWeighted(base=Raw(), weight=by_size)
  found = wrapped(BATCH, REWARD, num_groups=4)
  assert found[:4].tolist() == [0.5, 4.0, 0.5, 0.0]


def test_what_is_right_is_said_by_the_reward_before_shaping() -> None:
  recipe = dataclasses.replace(
    recipes.dr_grpo,
    shaping=(lambda batch, reward: reward - 9.0,),
    baseline=GroupWeighted(base=Raw(), weight=ADORA_VLM),
  )
  found = recipe.signals(BATCH, num_groups=4).advantage[:4, 0]
  np.testing.assert_allclose(found, [-0.8, -8.0, -0.8, -9.0], rtol=1e-6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counting:
  """A baseline with a memory."""

  def init(self, num_groups):
    return jnp.full((), num_groups)

  def __call__(self, batch, reward, *, num_groups, memory):
    return Remembered(Raw()(batch, reward, num_groups=num_groups), memory + 1)


def test_the_memory_of_a_base_is_kept() -> None:
  def recipe(base):
    weighted = GroupWeighted(base=base, weight=ADORA_VLM)
    return dataclasses.replace(recipes.dr_grpo, baseline=weighted)

  assert recipe(Raw()).init(4) == {}
  found = recipe(Counting()).estimate(BATCH, num_groups=4)
  assert found.memory == {"baseline": 5}
  expected = recipe(Raw()).estimate(BATCH, num_groups=4)
  np.testing.assert_array_equal(
    found.signals.advantage, expected.signals.advantage
  )


def test_groups_of_one_are_refused_where_the_base_compares() -> None:
  weighted = GroupWeighted(base=recipes.trl_grpo.baseline, weight=ADORA_VLM)
  recipe = dataclasses.replace(recipes.trl_grpo, baseline=weighted)
  with pytest.raises(ValueError, match="group_size = 1"):
    dataclasses.replace(letters.GRPO, recipe=recipe, group_size=1)


def test_what_is_reported() -> None:
  recipe = dataclasses.replace(
    recipes.dr_grpo, baseline=GroupWeighted(base=Raw(), weight=ADORA_VLM)
  )
  found = recipe.estimate(BATCH, num_groups=4).metric
  said = {
    name: (total.value.item(), total.weight.item())
    for name, total in found.items()
  }
  assert said == {
    "adora_weighted_down": (2.0, 4.0),
    # Lengths 1-2, 3-4, 5-6 and 7-8, of which right, by hand.
    "adora_accuracy_quarter_1": (1.0, 3.0),
    "adora_accuracy_quarter_2": (2.0, 5.0),
    "adora_accuracy_quarter_3": (2.0, 4.0),
    "adora_accuracy_quarter_4": (2.0, 4.0),
  }


def test_the_share_is_reported_where_nothing_is_weighted() -> None:
  settings = dataclasses.replace(ADORA_VLM, other=1.0, active_steps=(0, 1))
  found = settings.watch(BATCH, None, num_groups=4)["adora_weighted_down"]
  assert found.mean() == 0.5


@pytest.mark.parametrize(
  ("changed", "said"),
  [
    ({"other": -0.1}, r"-0\.1"),
    ({"tau": 2.0}, r"2\.0"),
    ({"cap": 0.0}, r"0\.0"),
    ({"threshold": 1.01, "max_reward": 1.0}, r"1\.01"),
    ({"threshold": 1.0, "max_reward": 1.0}, "every response would be wrong"),
    ({"active_steps": (5, 5)}, r"\(5, 5\)"),
    ({"active_steps": (-1, 5)}, r"\(-1, 5\)"),
  ],
)
def test_bad_settings_are_refused(changed, said: str) -> None:
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(ADORA_VLM, **changed)


def test_a_threshold_below_the_largest_reward_is_right() -> None:
  assert isinstance(dataclasses.replace(ADORA_VLM, max_reward=1.0), Adora)


@pytest.mark.slow
def test_a_step_reports_how_many_groups_are_weighted_down() -> None:
  weighted = GroupWeighted(base=recipes.trl_grpo.baseline, weight=ADORA_VLM)
  recipe = dataclasses.replace(recipes.trl_grpo, baseline=weighted)
  own = letters.Begun(
    letters.experiment(
      dataclasses.replace(letters.GRPO, recipe=recipe),
      reward=letters.judged_by(letters.begins),
    )
  )
  state, said = own.step()
  assert 0.0 <= said["adora_weighted_down"] <= 1.0
  assert not np.array_equal(state.params["output"], own.state.params["output"])
