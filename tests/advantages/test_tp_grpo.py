"""Advantages of thoughts, against loops over thoughts and the closed form."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages import group_mean, group_relative
from rl_jax.advantages.tp_grpo import (
  merge_thoughts,
  sample_efficiency,
  step_rewards,
  tp_grpo_advantage,
)

RNG = np.random.default_rng(4)
ROWS, STEPS, TIME = 64, 7, 12
COUNT = RNG.integers(0, STEPS + 1, ROWS)
LABEL = np.where(
  np.arange(STEPS) < COUNT[:, None], RNG.integers(0, 2, (ROWS, STEPS)), -1
)
CORRECT = RNG.uniform(size=ROWS) < 0.5
ACCURACY = RNG.uniform(size=ROWS).astype(np.float32)
RELATIVE = np.where(CORRECT, 1, -1) * RNG.exponential(size=ROWS)
RELATIVE = RELATIVE.astype(np.float32)
# Tokens of each row go through its steps in order, padding behind.
STEP = np.sort(RNG.integers(0, STEPS, (ROWS, TIME)), axis=1)
STEP = np.where(COUNT[:, None] > STEP, STEP, -1)
MASK = STEP >= 0


@jax.jit
def methods(relative, accuracy, correct, label, step, mask):
  """Every variant in one compilation: by name, (alpha, static, merge)."""
  given = relative, accuracy, correct, label, step, mask
  return {
    name: tp_grpo_advantage(
      *given, alpha=alpha, static_reward=static, merge=merge
    )
    for name, (alpha, static, merge) in VARIANTS.items()
  }


VARIANTS = {
  "method": (1.0, None, True),
  "half": (0.5, None, True),
  "outcome": (0.0, None, True),
  "steps": (1.0, None, False),
  "static": (1.0, 1.0, True),
  "static steps": (1.0, 0.25, False),
}


def of(relative, accuracy, correct, label, step=None, variant="method"):
  """Advantages of the steps of one response, its answer the last."""
  own = np.arange(len(label)) if step is None else np.array(step)
  labels = np.full((1, 10), -1)
  labels[0, : len(label)] = label
  places, mask = np.full((1, 10), -1), np.zeros((1, 10), bool)
  places[0, : len(own)], mask[0, : len(own)] = own, True
  found = methods(
    np.array([relative], np.float32),
    np.array([accuracy], np.float32),
    np.array([correct]),
    labels,
    places,
    mask,
  )
  return np.asarray(found[variant])[0, : len(own)]


def oracle(row, alpha, static, merge):
  """The method of the paper as it is told: thoughts, rewards, sums."""
  label = [int(x) for x in LABEL[row] if x >= 0]
  if not label:
    return np.zeros(TIME)
  label[-1] = 1
  thoughts = [[0]]
  for k in range(1, len(label)):
    if merge and label[k] == label[k - 1]:
      thoughts[-1].append(k)
    else:
      thoughts.append([k])
  rh, rewards = float(RELATIVE[row]), []
  for number, thought in enumerate(thoughts):
    if number == len(thoughts) - 1:
      rewards.append(rh)
      continue
    good = label[thought[0]] == 1
    if static is not None:
      size = static if CORRECT[row] else -static
    else:
      size = alpha * ACCURACY[row] if CORRECT[row] else rh
    rewards.append(size if good else -size)
  by_step = {
    k: sum(rewards[number:])
    for number, thought in enumerate(thoughts)
    for k in thought
  }
  return np.array([by_step[k] if k >= 0 else 0.0 for k in STEP[row]])


def closed_form(alpha):
  """Propositions 1 and 2."""
  place = np.arange(STEPS)
  right = (LABEL == 1) | (place == COUNT[:, None] - 1)
  less = np.where(CORRECT, RELATIVE - alpha * ACCURACY, 0.0)
  by_step = np.where(right, RELATIVE[:, None], less[:, None])
  own = np.take_along_axis(by_step, STEP.clip(min=0), axis=1)
  return np.where(MASK, own, 0.0)


@pytest.fixture(scope="module")
def found():
  given = RELATIVE, ACCURACY, CORRECT, LABEL, STEP, MASK
  arrays = map(jnp.asarray, given)
  return jax.tree.map(np.asarray, methods(*arrays))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_against_a_loop_over_thoughts(found, variant):
  expected = [oracle(row, *VARIANTS[variant]) for row in range(ROWS)]
  np.testing.assert_allclose(found[variant], expected, rtol=1e-6, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["method", "half", "outcome"])
def test_sums_telescope_to_the_propositions(found, variant):
  """With an answer that joins the thought before it, and one that does not."""
  last = np.take_along_axis(LABEL, (COUNT - 2).clip(min=0)[:, None], axis=1)
  assert {0, 1} <= set(last[COUNT > 1, 0])
  expected = closed_form(VARIANTS[variant][0])
  np.testing.assert_allclose(found[variant], expected, rtol=0, atol=1e-6)


def test_without_alpha_correct_responses_have_the_outcome_alone(found):
  expected = np.where(MASK, RELATIVE[:, None], 0.0)
  np.testing.assert_allclose(
    found["outcome"][CORRECT], expected[CORRECT], rtol=0, atol=1e-6
  )


@pytest.mark.slow
@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("variant", ["method", "half", "static"])
def test_all_labels_one_is_the_outcome_exactly(correct, variant):
  found = of(-0.7, 0.3, correct, [1, 1, 1, 1], variant=variant)
  assert found.tolist() == [np.float32(-0.7)] * 4


@pytest.mark.parametrize(
  ("correct", "relative", "label", "expected"),
  # The worked examples of the specification, the answer appended.
  [
    (True, 0.5, [1, 0, 0, 1, 0, 1], [0.5, -0.25, -0.25, 0.5, -0.25, 0.5]),
    (False, -1.5, [1, 0, 1, 0, 1], [-1.5, 0.0, -1.5, 0.0, -1.5]),
  ],
)
def test_worked_examples(correct, relative, label, expected):
  assert of(relative, 0.75, correct, label).tolist() == expected


def test_steps_that_are_not_merged_punish_early_correct_ones():
  """Worked in the specification: the failure that merging removes."""
  label = [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]
  found = of(0.5, 0.75, True, label, variant="steps")
  expected = [-0.25, -1, -1.75, -2.5, -3.25, -2.5, -1.75, -1, -0.25, 0.5]
  assert found.tolist() == expected


def test_outcomes_of_a_group_of_four():
  """R = (+, +, -, +): rh = .5, .5, -1.5, .5 and a wrong thought -.25."""
  correct = np.array([True, True, False, True])
  group, valid = jnp.zeros(4, jnp.int32), jnp.ones(4, bool)
  outcome = jnp.asarray(np.where(correct, 1.0, -1.0).astype(np.float32))
  relative = group_relative(
    outcome,
    group,
    valid,
    num_groups=1,
    scale="group",
    ddof=1,
    epsilon=1e-6,
  )
  np.testing.assert_allclose(relative, [0.5, 0.5, -1.5, 0.5], atol=2e-6)
  share = jnp.asarray(correct.astype(np.float32))
  accuracy = group_mean(share, group, valid, num_groups=1)
  assert accuracy.tolist() == [0.75] * 4
  found = of(float(relative[0]), float(accuracy[0]), True, [1, 0, 1])
  np.testing.assert_allclose(found, [0.5, -0.25, 0.5], atol=2e-6)


def test_limits_of_the_accuracy():
  # Nobody right: nothing to learn. Nobody wrong: only wrong thoughts pay.
  assert of(0.0, 0.0, False, [0, 1, 0, 1]).tolist() == [0.0] * 4
  assert of(0.0, 1.0, True, [0, 1, 0, 1]).tolist() == [-1.0, 0.0, -1.0, 0.0]
  assert of(2.5, 0.0, True, [0, 1, 0, 1]).tolist() == [2.5] * 4


@pytest.mark.slow
def test_the_thought_of_the_answer_earns_the_outcome_only():
  found = step_rewards(
    jnp.array([0.5]),
    jnp.array([0.75]),
    jnp.array([True]),
    jnp.array([[1, 0, 1, 1, 1]]),
    alpha=1.0,
    static_reward=None,
    merge=True,
  )
  assert found.tolist() == [[0.75, -0.75, 0.0, 0.0, 0.5]]


def test_the_label_of_the_answer_is_not_read():
  one, zero = of(0.5, 0.75, True, [1, 0, 1]), of(0.5, 0.75, True, [1, 0, 0])
  assert one.tolist() == zero.tolist()


@pytest.mark.slow
def test_thoughts_are_runs_of_equal_labels():
  label = np.array([[1, 1, 0, 0, 0, 1], [0, 1, 0, -1, -1, -1], [-1] * 6])
  found = merge_thoughts(jnp.asarray(label))
  expected = [[0, 0, 1, 1, 1, 2], [0, 1, 2, -1, -1, -1], [-1] * 6]
  assert found.tolist() == expected


def test_tokens_in_no_step_and_rows_without_labels_have_nothing():
  step = [-1, 0, 1, -1]
  assert of(1.0, 0.5, True, [1, 1], step).tolist() == [0.0, 1.0, 1.0, 0.0]
  assert of(1.0, 0.5, True, [-1, -1], step).tolist() == [0.0] * 4


def test_a_token_in_a_step_that_has_no_column_is_not_dropped():
  found = of(1.0, 0.5, True, [1] * 10, [0, 9, 10])
  np.testing.assert_array_equal(found, [1.0, 1.0, np.nan])


@pytest.mark.parametrize(
  "changed",
  [{"alpha": -1.0}, {"static_reward": -0.5}, {"alpha": float("nan")}],
)
def test_bad_options_are_refused(changed):
  options = {"alpha": 1.0, "static_reward": None, "merge": True}
  unchecked = inspect.unwrap(step_rewards)
  with pytest.raises(ValueError, match=r"must be finite and not negative"):
    unchecked(
      jnp.ones(1),
      jnp.ones(1),
      jnp.ones(1, bool),
      jnp.ones((1, 2), jnp.int32),
      **(options | changed),
    )


@pytest.mark.parametrize(
  ("score", "base", "solutions", "expected"),
  # The paper's two: TP-GRPO and its GRPO, 1.5B.
  [(50.10, 48.06, 5600, 36.43), (49.64, 48.06, 34_000, 4.65)],
)
def test_efficiency_of_the_paper(score, base, solutions, expected):
  found = sample_efficiency(score=score, base=base, solutions=solutions)
  assert found == pytest.approx(expected, abs=0.005)


def test_efficiency_without_solutions_is_refused():
  with pytest.raises(ValueError, match="at least 1, got 0"):
    sample_efficiency(score=1.0, base=0.0, solutions=0)
