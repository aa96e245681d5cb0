"""Every hyper-parameter is read: another value is another program, or raises.

Programs are compared as lowered text, in which every number stands, after
what nothing reads has been dropped.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import pytest

from algorithms.language import letters, pairs, test_label_optimisation
from experiments import recipes
from rl_jax import algorithms, losses

pytestmark = pytest.mark.slow

HEAD = letters.ScalarHead(body=letters.BIGRAM, start=0.25)
CRITIC = algorithms.Critic(model=HEAD, optimiser=letters.OPTIMISER)
POLICY = dataclasses.replace(
  letters.GRPO,
  recipe=recipes.reinforce_plus_plus,
  reference=True,
  minibatches=2,
)
PPO = dataclasses.replace(POLICY, recipe=recipes.ppo, critic=CRITIC)
FASTER = dataclasses.replace(letters.OPTIMISER, learning_rate=0.5)
SMALLER = algorithms.Scoring(chunk_tokens=7)
PLAIN = dataclasses.replace(pairs.DPO, reference=False)
MARGINS = dataclasses.replace(pairs.RANKING, margin=True)

# For each part: how it becomes an algorithm, and another value per field.
# A field without one fails the test, so that a new one cannot be forgotten.
PARTS = {
  "PolicyOptimisation": (
    POLICY,
    lambda part: part,
    {
      "recipe": recipes.openrlhf_grpo,
      "sampler": dataclasses.replace(letters.RESPONSE, temperature=0.5),
      "group_size": 8,
      "optimiser": FASTER,
      "epochs": 2,
      "minibatches": 4,
      "micro_batches": 2,
      "behaviour": "sampler",
      "temperature": 1.5,
      "estimated_over": "minibatch",
      "reference": False,
      "refresh": 2,
      "refill": True,
      "critic": CRITIC,
      "scoring": SMALLER,
    },
  ),
  "interleaved": (POLICY, lambda part: part, {"behaviour": "interleaved"}),
  "same": (
    dataclasses.replace(POLICY, minibatches=1),
    lambda part: part,
    {"behaviour": "same"},
  ),
  "Critic": (
    CRITIC,
    lambda part: dataclasses.replace(PPO, critic=part),
    {
      "model": dataclasses.replace(HEAD, start=0.5),
      "optimiser": FASTER,
      "start": letters.Judge(),
      "from_policy": False,
      "warm_up": 2,
    },
  ),
  "Scoring": (
    algorithms.Scoring(),
    lambda part: dataclasses.replace(POLICY, scoring=part),
    {"chunk_tokens": 7, "chunk_vocabulary": 2},
  ),
  "FineTuning": (
    pairs.TUNING,
    lambda part: part,
    {
      "optimiser": FASTER,
      "updates": 2,
      "micro_batches": 2,
      "scoring": SMALLER,
    },
  ),
  "PreferenceOptimisation": (
    PLAIN,
    lambda part: part,
    {
      "loss": functools.partial(losses.squared_preference_loss, beta=0.5),
      "beta": 0.25,
      "optimiser": FASTER,
      "reference": True,
      "averaged": True,
      "imitation": 0.25,
      "updates": 2,
      "micro_batches": 2,
      "scoring": SMALLER,
    },
  ),
  "LabelOptimisation": (
    test_label_optimisation.CE,
    lambda part: part,
    {
      "loss": functools.partial(losses.implicit_ce_loss, beta=0.125),
      "beta": 0.125,
      "optimiser": FASTER,
      "reference": False,
      "updates": 2,
      "micro_batches": 2,
      "scoring": SMALLER,
    },
  ),
  "RewardModelling": (
    pairs.RANKING,
    lambda part: part,
    {
      "optimiser": FASTER,
      "margin": True,
      "centring": 0.25,
      "body": letters.Drawn(),
      "updates": 2,
      "micro_batches": 2,
    },
  ),
}
CASES = [(part, name) for part in sorted(PARTS) for name in PARTS[part][2]]


def experiment_of(algorithm):
  if isinstance(algorithm, algorithms.PolicyOptimisation):
    return letters.experiment(algorithm)
  source = pairs.preferences(pairs=pairs.SCORED, margin=True)
  if isinstance(algorithm, algorithms.RewardModelling):
    scratch = letters.Scratch()
    return pairs.offline(algorithm, source, model=HEAD, start=scratch)
  if isinstance(algorithm, algorithms.FineTuning):
    source = pairs.demonstrations()
  if isinstance(algorithm, algorithms.LabelOptimisation):
    source = test_label_optimisation.SOURCE
  return pairs.offline(algorithm, source)


@functools.cache
def text(algorithm):
  """The program of one step, from the key to the new state."""
  experiment = experiment_of(algorithm)
  load = letters.load_for(experiment.model)
  parts = algorithm.build(experiment, load)
  begin = load(experiment.start)
  if parts.start is not None:
    begin = parts.start(begin)

  def step(key, items, start, frozen):
    state = parts.init(key, start)
    # As a state in mid-run: moments and step count are not known to be zero.
    state = jax.lax.optimization_barrier(state)
    batch = parts.collect(state, frozen, items)
    if parts.signals is not None:
      # Rewards come from the host in between.
      batch = jax.lax.optimization_barrier(batch)
      batch = batch, parts.signals(state, frozen, batch)
    return parts.update(state, frozen, batch)

  source, rows = experiment.data.source(), experiment.data.rows
  items = source[jax.numpy.arange(rows).tolist()]
  lowered = jax.jit(step).lower(jax.random.key(0), items, begin, parts.frozen)
  return lowered.as_text()


@pytest.mark.parametrize(("part", "name"), CASES)
def test_another_value_is_another_program(part, name):
  value, whole, others = PARTS[part]
  assert others[name] != getattr(value, name)
  try:
    changed = whole(dataclasses.replace(value, **{name: others[name]}))
    found = text(changed)
  except ValueError as error:
    # It is noticed, with a reason.
    assert len(f"{error}") > 20  # noqa: PT017
  else:
    assert found != text(whole(value))


@pytest.mark.parametrize(
  "part", sorted(name for name in PARTS if name[0].isupper())
)
def test_no_field_is_forgotten(part):
  value, _, others = PARTS[part]
  assert {field.name for field in dataclasses.fields(value)} == set(others)
