"""ADORA's weights against loops of both released programs, and by hand."""

from __future__ import annotations

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages import adora, group_relative

RNG = np.random.default_rng(1)
ROWS, GROUPS, CAP = 128, 32, 8.0
GROUP = RNG.permutation(np.repeat(np.arange(GROUPS), 4)).astype(np.int32)
# Some groups that all solve, some that none does.
RATE = np.repeat([0.0, 0.2, 0.5, 1.0], 8)
REWARD = (RNG.uniform(size=ROWS) < RATE[GROUP]).astype(np.float32)
# Some failures are cut, in some groups all.
TOKENS = RNG.integers(1, 9, ROWS).astype(np.float32)
TOKENS[np.isin(GROUP, [2, 11]) & (REWARD == 0)] = CAP
VALID = RNG.uniform(size=ROWS) < 0.9


def of_group(g, reward, tokens, group, valid, cap):
  """Lengths of successes, and of failures that were not cut."""
  rows = [j for j in range(len(group)) if valid[j] and group[j] == g]
  right = [tokens[j] for j in rows if reward[j] > 0.5]
  wrong = [tokens[j] for j in rows if reward[j] <= 0.5 and tokens[j] < cap]
  return right, wrong


def llm(right, wrong):
  longest = max(right) if right else -math.inf
  mean = sum(wrong) / len(wrong) if wrong else -math.inf
  return longest > mean


def vlm(right, wrong):
  longest = max(right) if right else -math.inf
  mean = sum(wrong) / len(wrong) if wrong else math.inf
  return longest > mean or not right


def paper(right, wrong):
  if not right:
    return False
  return not wrong or max(right) > sum(wrong) / len(wrong)


RELEASED = {"llm": llm, "vlm": vlm, "paper": paper}


def length(reward, tokens, group, valid, *, empty, groups=GROUPS, cap=CAP):
  return np.asarray(
    adora.length_advantage(
      jnp.asarray(reward, jnp.float32),
      jnp.asarray(tokens, jnp.float32),
      jnp.asarray(group, jnp.int32),
      jnp.asarray(valid, bool),
      num_groups=groups,
      threshold=0.5,
      cap=cap,
      empty=empty,
    )
  )


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED)
def test_length_against_both_programs_and_the_text(name: str) -> None:
  """The text's reading of empty sides is that of the language program."""
  found = length(
    np.where(VALID, REWARD, np.nan),
    np.where(VALID, TOKENS, np.nan),
    np.where(VALID, GROUP, 99),
    VALID,
    empty="llm" if name == "paper" else name,
  )
  expected = [
    RELEASED[name](*of_group(g, REWARD, TOKENS, GROUP, VALID, CAP))
    for g in GROUP
  ]
  assert len(set(expected)) == 2
  np.testing.assert_array_equal(found[VALID], np.array(expected)[VALID])


def weight(reward, tokens, *, valid=None, **changed):
  """Of one group; attenuating by length as the vision-language program."""
  options = {
    "num_groups": 1,
    "threshold": 0.5,
    "cap": 100.0,
    "tau": 0.5,
    "criteria": "length",
    "empty": "vlm",
    "advantageous": 1.0,
    "other": 0.1,
  }
  reward = jnp.asarray(reward, jnp.float32)
  if valid is None:
    valid = jnp.ones(reward.shape, bool)
  found = inspect.unwrap(adora.adora_weight)(
    reward,
    jnp.asarray(tokens, jnp.float32),
    jnp.zeros(reward.shape, jnp.int32),
    valid,
    **(options | changed),
  )
  assert len(set(found.tolist())) == 1, "one weight for a group"
  return found[0].item()


AMPLIFY = {
  "criteria": "all",
  "empty": "llm",
  "advantageous": 2.0,
  "other": 1.0,
}


@pytest.mark.slow
@pytest.mark.parametrize(
  ("reward", "tokens", "options", "expected"),
  # Spec, worked examples 1 to 4, in order.
  [
    ([1, 0, 0, 1], [4, 9, 11, 6], {}, 0.1),
    ([1, 0, 0, 1], [4, 3, 7, 6], {}, 1.0),
    ([1, 1, 1, 1], [4, 3, 7, 6], {"empty": "llm"}, 1.0),
    ([1, 1, 1, 1], [4, 3, 7, 6], {"empty": "vlm"}, 0.1),
    ([0, 0, 0, 0], [4, 3, 7, 6], {"empty": "llm"}, 0.1),
    ([0, 0, 0, 0], [4, 3, 7, 6], {"empty": "vlm"}, 1.0),
    ([1, 0, 0, 0], [9, 4, 5, 6], AMPLIFY, 2.0),
    ([1, 1, 1, 0], [9, 4, 5, 6], AMPLIFY, 1.0),
    # By hand: nothing right and every failure cut; a tie is not longer.
    ([0, 0, 0, 0], [100] * 4, {"empty": "llm"}, 0.1),
    ([0, 0, 0, 0], [100] * 4, {"empty": "vlm"}, 1.0),
    ([1, 0, 0, 0], [5, 4, 5, 6], {}, 0.1),
    # By hand: a rate of exactly tau is low enough; one criterion of two.
    ([1, 1, 0, 0], [2, 3, 5, 6], AMPLIFY | {"criteria": "difficulty"}, 2.0),
    ([1, 1, 0, 0], [2, 3, 5, 6], AMPLIFY, 1.0),
    ([1, 1, 0, 0], [2, 3, 5, 6], AMPLIFY | {"criteria": "any"}, 2.0),
    ([1, 1, 1, 0], [2, 3, 5, 6], AMPLIFY | {"criteria": "any"}, 1.0),
    ([0, 0, 0, 0], [2, 3, 5, 6], AMPLIFY, 1.0),
    # A threshold for another scale of rewards: three is right, one is not.
    ([3, 1, 1, -3], [9, 4, 5, 6], {"threshold": 1.01}, 1.0),
    ([1, 1, 1, -3], [9, 4, 5, 6], {"threshold": 1.01, "empty": "llm"}, 0.1),
  ],
)
def test_worked_examples(reward, tokens, options, expected: float) -> None:
  assert weight(reward, tokens, **options) == pytest.approx(expected)


@pytest.mark.slow
def test_worked_example_one_on_the_relative_reward() -> None:
  reward = jnp.array([1.0, 0.0, 0.0, 1.0])
  relative = group_relative(
    reward,
    jnp.zeros(4, jnp.int32),
    jnp.ones(4, bool),
    num_groups=1,
    scale="group",
    ddof=1,
    epsilon=1e-6,
  )
  plain = np.array([1, -1, -1, 1]) * 0.866024
  np.testing.assert_allclose(relative, plain, atol=1e-6)
  found = relative * weight(reward, [4, 9, 11, 6])
  np.testing.assert_allclose(found, plain / 10, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("empty", ["llm", "vlm"])
def test_order_within_groups_does_not_matter(empty: str) -> None:
  order = np.argsort(GROUP * ROWS + RNG.permutation(ROWS))
  columns = REWARD, TOKENS, GROUP, VALID
  found = length(*(x[order] for x in columns), empty=empty)
  np.testing.assert_array_equal(found, length(*columns, empty=empty)[order])


@pytest.mark.parametrize("empty", ["llm", "vlm"])
def test_longer_successes_can_only_help(empty: str) -> None:
  before = length(REWARD, TOKENS, GROUP, VALID, empty=empty)
  after = length(REWARD, TOKENS + 3 * REWARD, GROUP, VALID, empty=empty)
  assert (after >= before).all()
  assert (after > before).any()


def test_failures_that_were_cut_have_no_length() -> None:
  """They do count for how many responses are right."""
  cut = (REWARD == 0) & (TOKENS >= CAP)
  assert cut.any()
  for empty in ("llm", "vlm"):
    found = length(REWARD, TOKENS + 50 * cut, GROUP, VALID, empty=empty)
    base = length(REWARD, TOKENS, GROUP, VALID, empty=empty)
    without = length(REWARD, TOKENS, GROUP, VALID & ~cut, empty=empty)
    np.testing.assert_array_equal(found, base)
    np.testing.assert_array_equal(without, base)
  hard = AMPLIFY | {"criteria": "difficulty", "cap": 9.0}
  assert weight([1, 1, 0, 0], [3, 3, 9, 9], **hard) == 2.0


def test_difficulty_against_a_loop() -> None:
  found = adora.difficulty_advantage(
    jnp.asarray(np.where(VALID, REWARD, np.nan)),
    jnp.asarray(np.where(VALID, GROUP, 99)),
    jnp.asarray(VALID),
    num_groups=GROUPS,
    threshold=0.5,
    tau=1 / 3,
  )
  expected = np.array([REWARD[(g == GROUP) & VALID].mean() for g in GROUP])
  # A rate of a third is one in float32 as well.
  expected = expected <= np.float32(1 / 3)
  np.testing.assert_array_equal(np.asarray(found)[VALID], expected[VALID])


def test_rows_that_do_not_count_say_nothing() -> None:
  valid = jnp.array([True, True, False, False])
  found = weight([1, 0, np.nan, 1], [4, 9, np.nan, 99], valid=valid)
  assert found == pytest.approx(0.1)


def test_no_gradient_flows() -> None:
  def total(reward, tokens):
    return adora.adora_weight(
      reward,
      tokens,
      jnp.zeros(4, jnp.int32),
      jnp.ones(4, bool),
      num_groups=1,
      threshold=0.5,
      cap=100.0,
      tau=0.5,
      criteria="any",
      empty="llm",
      advantageous=2.0,
      other=1.0,
    ).sum()

  slopes = jax.grad(total, argnums=(0, 1))(
    jnp.array([1.0, 0.0, 0.0, 1.0]), jnp.arange(4.0)
  )
  assert not any(slope.any() for slope in slopes)


@pytest.mark.parametrize(
  ("changed", "said"),
  [
    ({"other": -0.1}, r"-0\.1"),
    ({"criteria": "both"}, "'both'"),
    ({"criteria": "difficulty", "tau": 1.5}, r"1\.5"),
    ({"num_groups": 0}, "0"),
  ],
)
def test_bad_options_are_refused(changed, said: str) -> None:
  with pytest.raises(ValueError, match=said):
    weight([1, 0], [1, 2], **changed)


def test_an_unknown_choice_for_empty_sides_is_refused() -> None:
  with pytest.raises(ValueError, match="'paper'"):
    inspect.unwrap(adora.length_advantage)(
      jnp.ones(1),
      jnp.ones(1),
      jnp.zeros(1, jnp.int32),
      jnp.ones(1, bool),
      num_groups=1,
      threshold=0.5,
      cap=9.0,
      empty="paper",
    )
