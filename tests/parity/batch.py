"""The batch and the pairs that every framework is given, in numpy only.

It runs in the environments of the peers, where this library is not installed.
Four groups, interleaved and ragged: 0 has four rows, 1 has three, 2 is alone,
3 has two equal rewards. Lengths go from one to the full width. The ratios
leave the clip range on both sides, one of them far enough for a dual clip.
"""

from __future__ import annotations

import numpy as np

__all__ = ["GROUP", "LENGTH", "SCORE", "make_batch", "make_pairs"]

GROUP = (0, 1, 0, 2, 3, 1, 0, 3, 1, 0)
LENGTH = (3, 6, 1, 4, 2, 5, 6, 3, 2, 4)
SCORE = (1.0, 1.0, 0.0, 0.5, 0.75, 0.0, 0.25, 0.75, 0.5, -0.5)
GREEDY = (0.25, 0.5, 0.25, 0.0, 0.75, 0.5, 0.25, 0.75, 0.5, 0.25)
TIME = 6


def make_batch() -> dict[str, np.ndarray]:
  """Rows by time, float64; columns past a row's length hold numbers too."""
  random = np.random.default_rng(20261124)
  row = len(GROUP)

  def normal(scale):
    return np.round(scale * random.standard_normal((row, TIME)), 4)

  old = np.round(-2.5 * random.uniform(size=(row, TIME)) - 0.02, 4)
  change = normal(0.25)
  # Far outside of every clip range: up with a negative advantage (row 9 has
  # the lowest score of its group), and up and down with positive ones.
  change[9, 1], change[0, 0], change[1, 2], change[5, 3] = 1.3, 0.6, -0.7, -0.5
  mismatch = normal(0.3)
  mismatch[0, 1], mismatch[6, 4] = 1.2, -1.5
  mask = np.arange(TIME) < np.array(LENGTH)[:, None]
  hole = mask.copy()
  # What a tool wrote, inside of the response.
  hole[1, 2:4], hole[5, 1], hole[6, 3] = False, False, False
  value = normal(0.4)
  return {
    "score": np.array(SCORE),
    "second_score": np.round(random.uniform(size=row), 3),
    "greedy_score": np.array(GREEDY),
    "group": np.array(GROUP),
    "mask": mask,
    "hole_mask": hole,
    "log_prob": np.round(old + change, 4),
    "old_log_prob": old,
    "rollout_log_prob": np.round(old - mismatch, 4),
    "reference_log_prob": np.round(old + normal(0.4), 4),
    "value": value,
    "old_value": np.round(value + normal(0.4), 4),
    "entropy": np.round(np.abs(normal(1.0)), 4),
    "token_reward": normal(0.5),
  }


def make_pairs() -> dict[str, np.ndarray]:
  """Summed log-probabilities of pairs of responses, and their lengths."""
  random = np.random.default_rng(7)
  pair = 6
  chosen = np.round(-20.0 * random.uniform(size=pair) - 2.0, 4)
  rejected = np.round(-20.0 * random.uniform(size=pair) - 2.0, 4)
  return {
    "chosen": chosen,
    "rejected": rejected,
    "reference_chosen": np.round(chosen + random.standard_normal(pair), 4),
    "reference_rejected": np.round(rejected + random.standard_normal(pair), 4),
    "chosen_length": np.array([10, 7, 3, 12, 1, 5]),
    "rejected_length": np.array([12, 4, 3, 9, 2, 8]),
  }
