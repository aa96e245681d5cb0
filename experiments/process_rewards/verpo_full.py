"""VeRPO with Qwen3-8B on programming problems, at full scale.

  rl-jax train experiments/process_rewards/verpo_full.py

What it shows: the single-turn setting of the paper (arXiv:2601.03525): 32
problems with ten programs each, 16 384 tokens at temperature 1, updates of
the clipped loss at a rate of 1e-6. Each program is run with every test of its
suite in a sandbox of its own, once. The problems are ./taco_verified.jsonl,
records of "task_id", "prompt", "prefix" and "tests", a list of sources that
raise if the program is wrong; the weights ./qwen3-8b, a Hugging Face folder.
Time: not run at this size here; its step is compiled from shapes alone by
tests/experiments/test_files.py.
Expected: nothing was measured here. The paper reports an average of 49.60
over six benchmarks, 48.34 with the outcome alone. The same recipe at small
scale is verpo.py and verpo_study.py.
Variations: --algorithm.recipe.credit.beta 0 is the outcome alone;
--algorithm.recipe.credit.density False is version 1 of the paper.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from experiments.language.public_models import QWEN3_8B
from experiments.process_rewards.verpo import recipe
from rl_jax import algorithms, data, models, rewards, sampling
from rl_jax.algorithms.estimators.verpo import Verpo
from rl_jax.data.source import Source
from rl_jax.environments.texts import listed
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.rewards.verifiers import Bubblewrap
from rl_jax.rewards.verifiers.per_test import PerTest, Suite
from rl_jax.rewards.verifiers.suite_notes import SuiteNote
from rl_jax.training.optimisers import AdamW

__all__ = ["Problems", "experiment"]

WEIGHTS = models.Folder(path="qwen3-8b")
# <|im_end|> and <|endoftext|>
END = (151_645, 151_643)
NOTE = SuiteNote(
  judge=PerTest(sandbox=Bubblewrap(seconds=4.0), seconds=60.0),
  tests=64,
  workers=16,
  seconds=90.0,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problems:
  """Problems with a suite of tests each."""

  rows: int
  """Prompts of a batch."""
  path: str
  """A JSON Lines file."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def source(self) -> Source:
    """The problems, in memory."""
    lines = Path(self.path).read_text().splitlines()
    return listed(
      (
        row["prompt"],
        Suite(row["task_id"], row["prefix"], tuple(row["tests"])),
      )
      for row in map(json.loads, lines)
    )


experiment = Experiment(
  name="verpo_full",
  model=QWEN3_8B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Prompts(
    task=Problems(rows=32, path="taco_verified.jsonl"),
    vocabulary=WEIGHTS,
    length=2048,
    wording=data.Chat(
      ask="{prompt}\nWrite the program in one ```python block."
    ),
    too_long="drop",
  ),
  reward=rewards.TextReward(
    terms=(rewards.Term(name="passes", judge=NOTE.outcome),), notes=(NOTE,)
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=recipe(Verpo()),
    sampler=sampling.Autoregressive(length=16_384, end=END),
    group_size=10,
    optimiser=AdamW(learning_rate=1e-6, weight_decay=0.0),
    micro_batches=40,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=230,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=20, keep=2),
)
