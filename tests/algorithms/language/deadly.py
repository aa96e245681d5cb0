"""A run that kills itself at a moment that a file in its directory names.

The experiment stays the same, and so does its hash; the file is taken away
first, so that whoever starts it again is spared.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import signal

import jax

from algorithms.language import letters
from experiments import recipes
from rl_jax.algorithms.components import Critic
from rl_jax.experiment import Checkpoints, Experiment
from rl_jax.losses import clipped_policy_terms, clipped_value_loss

PLAN = pathlib.Path("kill.json")
CALLS = dict.fromkeys(("sampled", "judged", "accumulating"), 0)


def reached(moment):
  """Ends the process if it is to end at this call of this moment."""
  CALLS[moment] += 1
  if not PLAN.exists():
    return
  plan = json.loads(PLAN.read_text())
  if plan["moment"] == moment and CALLS[moment] >= plan["call"]:
    PLAN.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def judge(prompts, completions, **columns):
  """`letters.begins`, with one moment before it and one after it."""
  reached("sampled")
  found = letters.begins(prompts, completions, **columns)
  reached("judged")
  return found


def loss(log_prob, behaviour_log_prob, advantage, mask):
  """The clipped surrogate, which says when a micro-batch is computed."""
  jax.debug.callback(lambda: reached("accumulating"))
  return clipped_policy_terms(
    log_prob, behaviour_log_prob, advantage, mask, clip_low=0.2, clip_high=0.2
  )


ALGORITHM = dataclasses.replace(
  letters.GRPO,
  recipe=dataclasses.replace(
    recipes.vapo,
    loss=loss,
    value=Critic(
      loss=functools.partial(clipped_value_loss, clip=0.5), weight=1.0
    ),
  ),
  critic=dataclasses.replace(
    letters.CRITIC, model=letters.ScalarHead(body=letters.BIGRAM)
  ),
  epochs=2,
  minibatches=2,
  micro_batches=2,
  refresh=2,
  refill=True,
)


def experiment() -> Experiment:
  """Everything at once that a state can hold."""
  return letters.experiment(
    ALGORITHM,
    reward=letters.judged_by(judge),
    data=letters.prompts(shuffle=True),
    steps=9,
    checkpoints=Checkpoints(every=1, keep=2),
  )
