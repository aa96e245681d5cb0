"""Rewards of steps, against loops over the steps of each response."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages.segments import (
  at_segment_ends,
  segment_index,
  suffix_sums,
)
from rl_jax.rewards.process import (
  check_step_scores,
  clip_process_reward,
  combine_success_process,
  delta_process_reward,
  refined_process_reward,
  segment_steps,
)

RNG = np.random.default_rng(5)
ROWS, STEPS = 40, 6
COUNT = RNG.integers(0, STEPS + 1, ROWS)
MASK = np.arange(STEPS) < COUNT[:, None]
SCORE = RNG.uniform(size=(ROWS, STEPS)).astype(np.float32)
SUCCESS = (RNG.uniform(size=ROWS) < 0.5).astype(np.float32)
POISONED = np.where(MASK, SCORE, np.nan)
ETA = 0.8

# The worked example of the specification.
EXAMPLE = (0.9, 0.8, 0.85, 0.3, 0.95)
REFINED = ("none", "clip", "delta", "clip_delta", "mean", "orm")


@jax.jit
def refined_all(score, success, mask):
  return {
    refine: (
      refined_process_reward(score, mask, refine=refine, eta=ETA),
      combine_success_process(
        score,
        success,
        mask,
        refine=refine,
        alpha=0.25,
        eta=ETA,
        success_coef=2.0,
      ),
    )
    for refine in REFINED
  }


@pytest.fixture(scope="module")
def found():
  arrays = map(jnp.asarray, (POISONED, SUCCESS, MASK))
  return jax.tree.map(np.asarray, refined_all(*arrays))


def oracle(score, refine):
  """The list of rewards of one response, from the list of its scores."""
  score = [float(x) for x in score]
  if refine in ("clip", "clip_delta"):
    score = [min(x - ETA, 0.0) for x in score]
  if refine in ("delta", "clip_delta"):
    last = len(score) - 1
    return [
      0.0 if k == last else score[k] - (score[k + 1] if k + 1 < last else 0.0)
      for k in range(len(score))
    ]
  if refine == "mean":
    return [x / len(score) for x in score]
  if refine == "orm":
    return [0.0] * (len(score) - 1) + score[-1:]
  return score


def of(score, refine="none"):
  """Rewards and what is to come of one response."""
  mask = jnp.ones((1, len(score)), bool)
  reward = refined_process_reward(
    jnp.array([score]), mask, refine=refine, eta=ETA
  )
  return np.asarray(reward)[0], np.asarray(suffix_sums(reward, mask))[0]


@pytest.mark.slow
@pytest.mark.parametrize("refine", REFINED)
def test_against_a_loop_over_steps(found, refine):
  expected, combined = np.zeros((2, ROWS, STEPS))
  for row, count in enumerate(COUNT):
    own = oracle(SCORE[row, :count], refine)
    expected[row, :count] = own
    combined[row, :count] = 0.25 * np.array(own)
    if count:
      combined[row, count - 1] += 2.0 * SUCCESS[row]
  np.testing.assert_allclose(found[refine][0], expected, atol=1e-6)
  np.testing.assert_allclose(found[refine][1], combined, atol=1e-6)


@pytest.mark.parametrize(
  ("refine", "reward", "to_come"),
  [
    ("none", EXAMPLE, (3.8, 2.9, 2.1, 1.25, 0.95)),
    ("clip", (0, 0, 0, -0.5, 0), (-0.5, -0.5, -0.5, -0.5, 0)),
    ("delta", (0.1, -0.05, 0.55, 0.3, 0), (0.9, 0.8, 0.85, 0.3, 0)),
    ("clip_delta", (0, 0, 0.5, -0.5, 0), (0, 0, 0, -0.5, 0)),
  ],
)
def test_worked_example(refine, reward, to_come):
  found, suffix = of(EXAMPLE, refine)
  np.testing.assert_allclose(found, reward, atol=1e-6)
  np.testing.assert_allclose(suffix, to_come, atol=1e-6)


@pytest.mark.slow
def test_eight_good_steps():
  """Worked in the specification: 7.2 raw, 0 clipped, .9 telescoped."""
  for refine, total in (("none", 7.2), ("clip", 0.0), ("delta", 0.9)):
    assert of([0.9] * 8, refine)[1][0] == pytest.approx(total, abs=1e-6)
  assert of([0.9, 0.8], "delta")[0] == pytest.approx([0.9, 0.0])
  assert of([0.9], "delta")[0].tolist() == [0.0]


def test_the_clip_costs_or_does_nothing(found):
  assert (found["clip"][0] <= 0).all()
  assert (found["clip_delta"][1] <= 2.0 * SUCCESS[:, None] + 1).all()
  score = jnp.asarray(SCORE)
  every = jnp.ones(SCORE.shape, bool)
  np.testing.assert_array_equal(
    clip_process_reward(score, every, eta=1.0), SCORE - 1
  )
  # Each added step can only lower what a response earns.
  totals = np.cumsum(found["clip"][0], axis=1)
  assert (np.diff(totals, axis=1) <= 0).all()


def test_delta_telescopes(found):
  to_come = suffix_sums(jnp.asarray(found["delta"][0]), jnp.asarray(MASK))
  inner = np.arange(STEPS) < COUNT[:, None] - 1
  np.testing.assert_allclose(to_come, np.where(inner, SCORE, 0.0), atol=1e-6)
  # With the outcome: bounded by alpha + 1, however many steps there are.
  combined = suffix_sums(jnp.asarray(found["delta"][1]), jnp.asarray(MASK))
  assert (np.asarray(combined) <= 0.25 + 2.0 + 1e-6).all()
  clipped = suffix_sums(jnp.asarray(found["clip_delta"][1]), jnp.asarray(MASK))
  assert (np.asarray(clipped) <= 2.0 * SUCCESS[:, None] + 1e-6).all()


@pytest.mark.slow
def test_delta_is_linear_and_does_not_commute_with_the_clip(found):
  mask, other = jnp.asarray(MASK), jnp.asarray(SCORE[::-1].copy())
  score = jnp.asarray(SCORE)
  whole = delta_process_reward(2.0 * score - other, mask)
  parts = 2.0 * delta_process_reward(score, mask)
  parts -= delta_process_reward(other, mask)
  np.testing.assert_allclose(whole, parts, atol=1e-6)
  reversed_ = clip_process_reward(jnp.asarray(found["delta"][0]), mask, eta=ETA)
  assert not np.allclose(reversed_, found["clip_delta"][0])


@pytest.mark.slow
@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_step_written_twice(place):
  twice = [*EXAMPLE[: place + 1], *EXAMPLE[place:]]
  gain = {
    refine: of(twice, refine)[1][0] - of(EXAMPLE, refine)[1][0]
    for refine in REFINED
  }
  assert gain["none"] == pytest.approx(EXAMPLE[place], abs=1e-6)
  assert gain["clip"] == pytest.approx(min(EXAMPLE[place] - ETA, 0), abs=1e-6)
  assert gain["delta"] == pytest.approx(0.0, abs=1e-6)
  assert gain["clip_delta"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_one_reward_for_each_step_at_its_last_token():
  token = np.array([[7, 7, 0, 8, 0, 9], [7, 8, 9, 5, 5, 5]])
  mask = np.array([[True] * 6, [True] * 3 + [False] * 3])
  end = segment_steps(jnp.asarray(token), jnp.asarray(mask), delimiter=(0,))
  index = segment_index(end, jnp.asarray(mask))
  reward = jnp.array([[1.0, 2.0, 4.0], [8.0, 0.0, 0.0]])
  found = at_segment_ends(reward, index)
  assert found.tolist() == [[0, 0, 1, 0, 2, 4], [0, 0, 8, 0, 0, 0]]


@pytest.mark.slow
def test_steps_against_a_scan_of_the_text():
  """Random responses of content, two delimiters and a blank."""
  token = RNG.integers(0, 6, (60, 10))
  mask = np.arange(10) < RNG.integers(0, 11, 60)[:, None]
  found = np.asarray(
    segment_steps(
      jnp.asarray(token), jnp.asarray(mask), delimiter=(0, 1), blank=(2,)
    )
  )
  for row in range(60):
    own = token[row][mask[row]]
    # A step is over when content comes after a delimiter after its content.
    steps, current, closed = [], [], False
    for t, x in enumerate(own):
      if x > 2 and closed:
        steps.append(current)
        current, closed = [], False
      current.append(t)
      closed |= bool(x <= 1 and (own[current] > 2).any())
    if current:
      steps.append(current)
    expected = np.zeros(10, bool)
    expected[[s[-1] for s in steps]] = True
    np.testing.assert_array_equal(found[row], expected, err_msg=str(own))


@pytest.mark.parametrize(
  ("token", "ends"),
  [
    ([0, 0, 5, 0, 6], [3, 4]),  # what stands before the first content
    ([5, 0, 0, 6, 0], [2, 4]),  # an empty step
    ([5, 0, 9, 0, 6], [3, 4]),  # and one of a blank alone
    ([5, 0, 6, 0, 9], [1, 4]),  # the end token is no step
    ([5, 9, 6, 6, 6], [4]),  # a blank ends nothing
    ([0, 0, 9, 0, 0], [4]),  # nothing but blanks is one step
  ],
)
def test_steps_without_content_are_merged(token, ends):
  found = segment_steps(
    jnp.array([token]), jnp.ones((1, 5), bool), delimiter=(0,), blank=(9,)
  )
  assert np.flatnonzero(found).tolist() == ends


@pytest.mark.parametrize("eta", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_no_score_can_have_is_refused(eta):
  with pytest.raises(ValueError, match="eta must be in"):
    clip_process_reward(jnp.asarray(SCORE), jnp.asarray(MASK), eta=eta)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
  ("changed", "said"),
  [
    ({"refine": "clipped"}, "'clipped'"),
    ({"eta": 1.5}, "eta must be in"),
    ({"alpha": -0.5}, "alpha must be"),
    ({"success_coef": float("inf")}, "success_coef"),
  ],
)
def test_bad_options_are_refused(changed, said):
  options = {"refine": "clip", "alpha": 0.5, "eta": 0.8, "success_coef": 1.0}
  with pytest.raises(ValueError, match=said):
    combine_success_process(
      jnp.asarray(SCORE),
      jnp.asarray(SUCCESS),
      jnp.asarray(MASK),
      **(options | changed),
    )


def test_steps_without_a_delimiter_are_refused():
  with pytest.raises(ValueError, match="need a delimiter"):
    segment_steps(
      jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool), delimiter=()
    )


@pytest.mark.parametrize(
  ("score", "there", "said"),
  [
    ([0.5, 0.5], [False, False], "row 1 has no step"),
    ([0.5, 0.5], [False, True], "row 1: steps must follow"),
    ([0.5, np.nan], [True, True], r"row 1, step 1: .* nan"),
    ([2.5, 0.5], [True, True], r"row 1, step 0: .* 2\.5"),
    ([0.5, -0.1], [True, True], r"row 1, step 1: .*not logits"),
  ],
)
def test_bad_scores_are_refused_with_their_row(score, there, said):
  scores = np.array([[1.0, np.nan], score], np.float32)
  mask = np.array([[True, False], there])
  with pytest.raises(ValueError, match=said):
    check_step_scores(scores, mask)


def test_good_scores_pass():
  check_step_scores(POISONED[COUNT > 0], MASK[COUNT > 0])
