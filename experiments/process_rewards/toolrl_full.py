"""ToolRL with Qwen2.5-7B-Instruct on the published records, at full scale.

  rl-jax train experiments/process_rewards/toolrl_full.py

What it shows: the numbers of the release (Qian et al. 2025, arXiv:2504.13958):
512 prompts a step with 4 responses each, updates of 128 prompts, clip .2, no
KL, 1024 tokens at temperature 1, 15 passes over 4000 records. The records are
./rlla_rl.json, a list of instruction, input and output as published, the
weights ./qwen2.5-7b-instruct, a Hugging Face folder.
Time: not run at this size here; its step is compiled from shapes alone by
tests/experiments/test_files.py.
Expected: nothing was measured here. The paper reports 41.97 to 58.38 on BFCL
V3. The same reward at small scale is toolrl.py and toolrl_study.py.
Variations: --algorithm.group-size 8 doubles the responses to a prompt;
--algorithm.sampler.length 2048 leaves room for longer thoughts.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from experiments.process_rewards.toolrl import RECIPE
from rl_jax import algorithms, data, models, rewards, sampling
from rl_jax.data.source import Source
from rl_jax.environments.texts import listed
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.rewards.verifiers import RewardFunction
from rl_jax.rewards.verifiers.tool_config import ToolRewardConfig
from rl_jax.rewards.verifiers.tools import ToolPart, tool_reward
from rl_jax.training.optimisers import AdamW

__all__ = ["QWEN25_7B", "ToolRecords", "experiment"]

WEIGHTS = models.Folder(path="qwen2.5-7b-instruct")
# <|im_end|> and <|endoftext|>
END = (151_645, 151_643)
REWARD = ToolRewardConfig()

QWEN25_7B = models.Decoder(
  vocabulary=152_064,
  width=3584,
  layers=28,
  mlp=18_944,
  attention=models.Attention(
    heads=28,
    key_value_heads=4,
    features=128,
    rope=models.Rope(theta=1e6),
    bias=True,
  ),
  context=32_768,
  tied=False,
  norm_epsilon=1e-6,
  remat="all",
  dtype="bfloat16",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolRecords:
  """Dialogues with tools, in the schema of the published records.

  The instruction lists the tools and the grammar, and is the system's
  message; the input is the dialogue so far; the output is the reference.
  """

  rows: int
  """Prompts of a batch."""
  path: str
  """A JSON list of objects with "instruction", "input" and "output"."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def source(self) -> Source:
    """The records, in memory.

    Raises:
      ValueError: if a reference cannot be read, with its number.
    """
    records = json.loads(Path(self.path).read_text())
    for number, record in enumerate(records):
      try:
        tool_reward("", record["output"], 0, REWARD)
      except ValueError as error:
        raise ValueError(f"{self.path}, record {number}: {error}") from error
    # Conversations, which `rl_jax.data.Chat` puts as they are.
    items: Any = [
      (
        [
          {"role": "system", "content": record["instruction"]},
          {"role": "user", "content": record["input"]},
        ],
        record["output"],
      )
      for record in records
    ]
    return listed(items)


experiment = Experiment(
  name="toolrl_full",
  model=QWEN25_7B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Prompts(
    task=ToolRecords(rows=512, path="rlla_rl.json"),
    vocabulary=WEIGHTS,
    length=2048,
    wording=data.Chat(),
    too_long="drop",
  ),
  reward=rewards.TextReward(
    terms=tuple(
      rewards.Term(
        name=part,
        judge=RewardFunction(
          function=ToolPart(config=REWARD, part=part), name=part
        ),
      )
      for part in ("format", "correctness")
    )
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=RECIPE,
    sampler=sampling.Autoregressive(length=1024, end=END),
    group_size=4,
    optimiser=AdamW(learning_rate=1e-6, weight_decay=0.01),
    minibatches=4,
    micro_batches=16,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=15 * 4000 // 512,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=20, keep=2),
)
