"""What is refused, in what words."""

from __future__ import annotations

import math

import pytest

from rl_jax.experiment import Band
from rl_jax.training.doctor import (
  Collapse,
  Unhealthy,
  check_first_step,
  check_metrics,
)


def test_a_healthy_first_step_passes():
  metrics = {"ratio": 1.0 + 1e-6, "loss/policy": 0.1}
  check_first_step(metrics, {"loss/policy": 4.0}, {"ratio": (1.0, 1e-5)})


def test_all_faults_of_the_first_step_are_listed():
  with pytest.raises(Unhealthy) as caught:
    check_first_step(
      {"ratio": 1.5, "loss/policy": 0.0, "kl": math.nan},
      {"loss/policy": 0.0, "other": 0.0},
      {"ratio": (1.0, 1e-5), "kl": (0.0, 1e-6), "absent": (0.0, 1.0)},
    )
  message = str(caught.value)
  assert "loss/policy counts nothing" in message
  assert "other" not in message.split(";")[0]
  assert "ratio is 1.5, must be 1 within 1e-05" in message
  assert "kl is nan, must be 0 within 1e-06" in message
  assert "absent is not among the metrics ['kl', 'loss/policy', 'ratio']" in (
    message
  )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_stops_and_the_reward_is_named_first(value):
  metrics = {"a": value, "b": 1.0, "reward": value}
  with pytest.raises(Collapse, match=rf"step 7: reward = {value}, a = {value}"):
    check_metrics(7, metrics, ())


def test_bands():
  guard = (Band(metric="std", low=0.5, high=2.0),)
  check_metrics(1, {"std": 0.5}, guard)
  check_metrics(1, {"std": 2.0}, guard)
  check_metrics(1, {"other": 9.0}, guard)
  for value in (0.4, 2.1):
    with pytest.raises(Collapse, match=rf"std = {value} left .*\[0.5, 2\]"):
      check_metrics(1, {"std": value}, guard)
