"""A tiny decoder learns the form of a function, and half of its sense.

  rl-jax train experiments/language/code_sft.py

What it shows: supervised fine-tuning from scratch on completions in characters
of Python, of which fewer than half do what their docstring says and 5 % call
themselves for ever: the warm start of code_humaneval_shape.py.
Time: 1 to 2 minutes on 2 cores.
Expected: about 40 % of held-out functions pass their tests (measured: .42).
Variations: --steps 100 does not know yet which letters to copy;
--algorithm.optimiser.learning-rate 1e-3 is slower.
"""

from __future__ import annotations

from functools import partial

from experiments.language import functions
from rl_jax import algorithms, data, evaluation, models, rewards, sampling
from rl_jax.experiment import Checkpoints, Experiment
from rl_jax.rewards.verifiers import Code, Monty
from rl_jax.training.optimisers import AdamW

VOCABULARY = models.Characters(
  alphabet='abcdefghijklmnopqrstuvwxyz \n"(),:+-*/%'
)
MODEL = models.Decoder(
  vocabulary=VOCABULARY.size,
  width=64,
  layers=3,
  mlp=128,
  attention=models.Attention(heads=4, features=16),
  context=80,
  scan=False,
)
END = VOCABULARY.size - 1
PROMPT, LENGTH = 56, 12
COMPLETION = sampling.Autoregressive(length=LENGTH, end=(END,))


def prompts(*, rows: int, first: int, length: int) -> data.Prompts:
  """A range of the functions as prompts."""
  return data.Prompts(
    task=functions.Functions(rows=rows, first=first, length=length),
    vocabulary=VOCABULARY,
    length=PROMPT,
  )


# A program has a second in the sandbox, a verdict five; a sandbox that does
# not work gives none, and the row is left out and counted.
REWARD = rewards.TextReward(
  terms=(rewards.Term(name="passes", judge=Code(sandbox=Monty(seconds=1.0))),),
  seconds=5.0,
)
EVALUATION = evaluation.TextSamples(
  data=prompts(rows=1, first=5000, length=544),
  sampler=COMPLETION,
  prompts=300,
  reward=REWARD,
  every=20,
)

experiment = Experiment(
  name="code_sft",
  model=MODEL,
  data=data.Demonstrations(
    task=data.Texts(
      rows=128,
      origin=partial(
        functions.demonstrations, count=3000, skill=0.4, endless=0.05, seed=0
      ),
      answer="answer",
    ),
    vocabulary=VOCABULARY,
    length=PROMPT + LENGTH,
    pack=False,
  ),
  algorithm=algorithms.FineTuning(
    optimiser=AdamW(learning_rate=3e-3, cosine_steps=300)
  ),
  evaluation=EVALUATION,
  steps=300,
  checkpoints=Checkpoints(every=100),
)
