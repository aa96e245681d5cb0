"""What the experiments on Clip and Delta share: written sums and a learned PRM.

Problems are those of `tpgrpo_task` modulo 3, "2+1+1=". A response writes
partial sums as steps that end with ";", then "#" and the answer. A step may
be filler, ".;", which says nothing: "0;.;1;#1". The warm start has seen a
filler now and then. A small process reward model has learned from such
responses whether all that was written so far is right; to it filler is as
good as what stands before.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import chains, recipes
from experiments.process_rewards import tpgrpo_task as sums
from rl_jax import algorithms, data, models, rewards, sampling
from rl_jax.advantages.segments import segment_index
from rl_jax.algorithms.components import ToGo
from rl_jax.algorithms.estimators.process_reward import ProcessReward
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.rewards.process import check_step_scores, segment_steps
from rl_jax.training.optimisers import AdamW

__all__ = ["WARM_START", "StepScores", "filler", "steps_of", "trained"]

TIME, MODULUS = 16, 3
# A step has two tokens at least, and the last may have one.
STEPS = TIME // 2 + 1
LENGTH = sums.PROMPT + TIME
MODEL = chains.decoder(context=LENGTH, width=64)
WRONG, FILLER = 0.2, 0.2
BREAK = chains.ALPHABET.index(";")


def filler(
  numbers: tuple[int, ...], modulus: int, rng: np.random.Generator
) -> str:
  """Partial sums that may be wrong, and are carried on; filler in between.

  Args:
    numbers: of the chain.
    modulus: what sums are taken modulo.
    rng: what goes wrong, and where filler stands.

  Returns:
    The response.
  """
  text, total = "", numbers[0]
  for number in numbers[1:]:
    while rng.uniform() < FILLER and len(text) < TIME - 8:
      text += ".;"
    slip = int(rng.integers(1, modulus)) if rng.uniform() < WRONG else 0
    total = (total + number + slip) % modulus
    text += f"{total};"
  return f"{text}#{total}"


def so_far(prompt: str, completion: str) -> list[bool]:
  """Whether each prefix of a response that ends with a step is right.

  Args:
    prompt: the problem.
    completion: what was written.

  Returns:
    One for each step, the answer included.
  """
  numbers = [int(x) for x in prompt.strip("=").split("+")]
  right, place, found = True, 0, []
  for step in completion.split(";"):
    if step.startswith("#"):
      right &= step == f"#{sum(numbers) % MODULUS}"
    elif step.strip("."):
      right &= step == str(sum(numbers[: place + 2]) % MODULUS)
      right &= place < sums.TERMS - 1
      place += 1
    found.append(right)
  return found


def steps_of(token: Any, mask: Any) -> Any:
  """Which step each token is in; the end of the response is no step."""
  end = segment_steps(token, mask, delimiter=(BREAK,), blank=(chains.END,))
  return segment_index(end, mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepScores:
  """A note with the scores of a process reward model, trained when bound.

  Gives "step" [time] and "step_score" [step]. The unfinished step of a
  response that was cut has neither.
  """

  seed: int = 0
  """Of its parameters and of the responses that it learns from."""
  updates: int = 300
  """Of its parameters, with 128 responses each."""

  def shapes(self, time: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """See `rl_jax.rewards.text.Note`."""
    return {
      "step": ((time,), np.int32),
      "step_score": ((STEPS,), np.float32),
    }

  def bind(self, data: Any) -> Callable[[Any], dict[str, np.ndarray]]:
    """See `rl_jax.rewards.text.Note`."""
    del data
    # Within a step nothing may be sent to a device unasked; this is no step.
    with jax.transfer_guard("allow"):
      params, _ = prm(self)

    def find(rollouts: Any) -> dict[str, np.ndarray]:
      parts = (rollouts.prompt, rollouts.token, rollouts.mask)
      step, score = jax.device_get(_scored(params, *jax.device_put(parts)))
      mask, token = np.asarray(rollouts.mask), np.asarray(rollouts.token)
      last = np.where(mask, np.arange(TIME), -1).max(axis=1)
      open_ = ~np.asarray(rollouts.ended)
      open_ &= token[np.arange(len(token)), last] != BREAK
      own = step == step.max(axis=1, keepdims=True)
      step = np.where(open_[:, None] & own, -1, step)
      count = step.max(axis=1) + 1
      there = np.arange(STEPS) < count[:, None]
      check_step_scores(score[count > 0], there[count > 0])
      return {"step": step, "step_score": score}

    return find


@jax.jit
def _scored(params, prompt, token, mask):
  """Steps of tokens, and the model's score at the last token of each."""
  step = steps_of(token, mask)
  logit = _logits(params, prompt, token, mask)
  # Later tokens of a step overwrite earlier ones.
  place = jnp.where(step < 0, STEPS, step)
  rows = jnp.arange(token.shape[0])[:, None]
  last = jnp.full((token.shape[0], STEPS + 1), -1)
  last = last.at[rows, place].max(jnp.arange(TIME)[None])[:, :STEPS]
  score = jnp.take_along_axis(logit, jnp.maximum(last, 0), axis=1)
  return step, jnp.where(last >= 0, jax.nn.sigmoid(score), 0.0)


HEAD = models.ScalarHead(body=chains.decoder(context=LENGTH, width=48))


def _logits(params, prompt, token, mask):
  whole = jnp.concatenate([prompt, token], axis=1)
  there = jnp.concatenate([jnp.ones(prompt.shape, bool), mask], axis=1)
  hidden = HEAD.hidden(params, whole, there.astype(jnp.int32))
  return HEAD.value(params, hidden)[:, prompt.shape[1] :]


def labelled(seed: int, count: int) -> dict[str, np.ndarray]:
  """Responses in the style of the warm start, with labels at ends of steps."""
  rng = np.random.default_rng([seed, 1])
  load = chains.VOCABULARY.load()
  task = sums.sums(rows=1, modulus=MODULUS)
  prompts = np.zeros((count, sums.PROMPT), np.int32)
  token = np.zeros((count, TIME), np.int32)
  mask = np.zeros((count, TIME), bool)
  label = np.full((count, STEPS), False)
  for row in range(count):
    numbers = task.numbers(int(rng.integers(task.length)))
    problem = "+".join(map(str, numbers)) + "="
    text = filler(numbers, MODULUS, rng)
    ids = [*load.encode(text), chains.END]
    prompts[row] = load.encode(problem)
    token[row, : len(ids)], mask[row, : len(ids)] = ids, True
    own = so_far(problem, text)
    label[row, : len(own)] = own
  return {"prompt": prompts, "token": token, "mask": mask, "label": label}


@functools.cache
def prm(note: StepScores) -> tuple[Any, float]:
  """Parameters of the process reward model, and its accuracy on new steps."""
  optimiser = optax.adam(3e-3)
  rows = labelled(note.seed, 64 * 128)

  def loss(params, part):
    score = _logits(params, part["prompt"], part["token"], part["mask"])
    step = steps_of(part["token"], part["mask"])
    own = jnp.take_along_axis(part["label"], jnp.maximum(step, 0), axis=1)
    nats = optax.sigmoid_binary_cross_entropy(score, own * 1.0)
    ends = segment_steps(
      part["token"], part["mask"], delimiter=(BREAK,), blank=(chains.END,)
    )
    return jnp.sum(jnp.where(ends, nats, 0.0)) / jnp.sum(ends)

  def update(carry, part):
    params, state = carry
    slope = jax.grad(loss)(params, part)
    change, state = optimiser.update(slope, state)
    return (optax.apply_updates(params, change), state), None

  @jax.jit
  def trained(key, rows):
    params = HEAD.init(key)
    parts = jax.tree.map(lambda x: x.reshape(64, 128, *x.shape[1:]), rows)

    def one(carry, number):
      return update(carry, jax.tree.map(lambda x: x[number % 64], parts))

    carry = params, optimiser.init(params)
    return jax.lax.scan(one, carry, jnp.arange(note.updates))[0][0]

  key = jax.device_put(jax.random.key(note.seed))
  params = trained(key, jax.device_put(rows))
  new = labelled(note.seed + 1, 1000)
  given = (new["prompt"], new["token"], new["mask"])
  step, score = jax.device_get(_scored(params, *jax.device_put(given)))
  there = np.arange(STEPS) < step.max(axis=1, keepdims=True) + 1
  right = (score > 0.5) == new["label"]
  return params, float(right[there].mean())


def fillers(
  prompts: list[str], completions: list[str], **columns: list
) -> list[float]:
  """How many steps say nothing.

  Args:
    prompts: not looked at.
    completions: what was written.
    **columns: not looked at.

  Returns:
    One number for each.
  """
  del prompts, columns
  return [
    float(sum(not step.strip(".~") for step in text.split(";")[:-1]))
    for text in completions
  ]


JUDGE = rewards.TextReward(
  terms=(
    rewards.Term(name="correct", judge=chains.answered),
    rewards.Term(name="fillers", judge=fillers, weight=0.0),
  ),
  notes=(StepScores(),),
)
RESPONSE = sampling.Autoregressive(length=TIME, end=(chains.END,))
EVALUATION = dataclasses.replace(
  sums.EVALUATION,
  data=sums.problems(rows=1, modulus=MODULUS),
  sampler=RESPONSE,
  prompts=MODULUS**sums.TERMS,
  samples=16,
  reward=dataclasses.replace(JUDGE, notes=()),
)
WARM_START = Experiment(
  name="clip_delta_sft",
  model=MODEL,
  data=data.Demonstrations(
    task=sums.Slips(rows=128, style=filler, modulus=MODULUS),
    vocabulary=chains.VOCABULARY,
    length=LENGTH,
    pack=False,
  ),
  algorithm=algorithms.FineTuning(
    optimiser=AdamW(learning_rate=2e-3, warm_up_steps=50), updates=8
  ),
  evaluation=dataclasses.replace(EVALUATION, every=50),
  steps=150,
  checkpoints=Checkpoints(every=150),
)


def trained(name: str, **settings: Any) -> Experiment:
  """One arm, from the warm start.

  Args:
    name: of the experiment.
    **settings: of `ProcessReward`.

  Returns:
    The experiment: outcomes less those of the others in the group, returns of
    steps, whitened over the batch.
  """
  credit = ProcessReward(
    returns=ToGo(discount=1.0, kl_weight=0.0, bound=float("inf")), **settings
  )
  return Experiment(
    name=name,
    model=MODEL,
    data=sums.problems(rows=16, modulus=MODULUS),
    reward=JUDGE,
    algorithm=algorithms.PolicyOptimisation(
      recipe=dataclasses.replace(
        recipes.reinforce_plus_plus_baseline,
        reference="arXiv:2410.15115",
        credit=credit,
        penalty=None,
      ),
      sampler=RESPONSE,
      group_size=8,
      optimiser=AdamW(learning_rate=1e-3, weight_decay=0.0),
      behaviour="same",
    ),
    evaluation=EVALUATION,
    start=Trained(by=WARM_START),
    steps=80,
    checkpoints=Checkpoints(every=80),
  )
