"""PPO with clipped and telescoped process rewards on MATH, at full scale.

  rl-jax train experiments/process_rewards/clip_delta_full.py

What it shows: the setting of the paper (arXiv:2410.15115) for
Qwen2-1.5B-Instruct: 1024 problems with 8 responses a step, PPO with a critic,
lambda 1, rates of 1e-6 and 5e-6, and a process reward model that scores every
line of a response. It is served at localhost:8001: a list of {"question",
"steps"} is answered with a list of scores in [0, 1] for each. The problems are
./math_train.jsonl with "problem" and "answer", the weights ./qwen2-1.5b, a
Hugging Face folder.
Time: not run at this size here; its step is compiled from shapes alone by
tests/experiments/test_files.py. The paper used 64 accelerators.
Expected: nothing was measured here. The paper reports 31.4 on MATH, 30.6 with
success alone, and 11.2 with the scores as they are. The hack and its cure at
small scale are clip_delta_chain.py, clip_delta.py and clip_delta_study.py.
Variations: --algorithm.recipe.credit.refine none is the reward that is
hacked; --algorithm.recipe.credit.reached 0.9 reads eta from each batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments import recipes
from experiments.process_rewards.tpgrpo_server import post
from rl_jax import (
  algorithms,
  data,
  environments,
  models,
  rewards,
  sampling,
)
from rl_jax.algorithms.components import Generalized
from rl_jax.algorithms.estimators.process_reward import ProcessReward
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.rewards.process import check_step_scores
from rl_jax.rewards.verifiers import Math
from rl_jax.rewards.verifiers.thoughts import step_spans, token_starts
from rl_jax.training.optimisers import AdamW

__all__ = ["ServedScores", "experiment"]

WEIGHTS = models.Folder(path="qwen2-1.5b")
# <|im_end|> and <|endoftext|>
END = (151_645, 151_643)
QWEN2_1_5B = models.Decoder(
  vocabulary=151_936,
  width=1536,
  layers=28,
  mlp=8960,
  attention=models.Attention(
    heads=12,
    key_value_heads=2,
    features=128,
    rope=models.Rope(theta=1e6),
    bias=True,
  ),
  context=32_768,
  tied=True,
  norm_epsilon=1e-6,
  remat="all",
  dtype="bfloat16",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServedScores:
  """A note with scores of lines from a served process reward model.

  Lines beyond the last that is counted have no step and no score, and neither
  has the unfinished line of a response that was cut.
  """

  url: str
  """Where the model is."""
  steps: int = 64
  """Most lines of a response."""
  seconds: float = 600.0
  """Longest for one batch."""
  attempts: int = 3
  """How often a batch is asked about before the run stops."""

  def shapes(self, time: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """See `rl_jax.rewards.text.Note`."""
    return {
      "step": ((time,), np.int32),
      "step_score": ((self.steps,), np.float32),
    }

  def bind(self, data: Any) -> Callable[[Any], dict[str, np.ndarray]]:
    """See `rl_jax.rewards.text.Note`."""

    def find(rollouts: Any) -> dict[str, np.ndarray]:
      token, mask = np.asarray(rollouts.token), np.asarray(rollouts.mask)
      tokenizer = data.vocabulary.load()
      items, where = np.unique(np.asarray(rollouts.item), return_inverse=True)
      problems = data.source().columns(items)["prompt"]
      step = np.full(token.shape, -1, np.int32)
      asked = []
      for row, own in enumerate(mask):
        text, start = token_starts(tokenizer, token[row][own].tolist())
        spans = step_spans(text, (0, len(text)), ends=("\n",))
        if not rollouts.ended[row] and not text.endswith("\n"):
          spans = spans[:-1]
        spans = spans[: self.steps]
        number = np.searchsorted([end for _, end in spans], start, "right")
        step[row, own] = np.where(number < len(spans), number, -1)
        steps = [text[begin:end] for begin, end in spans]
        asked.append({"question": problems[where[row]], "steps": steps})
      # A run without scores is of no use: what fails to the end stops it.
      said = post(
        self.url, {"rows": asked}, seconds=self.seconds, attempts=self.attempts
      )
      score = np.full((len(token), self.steps), np.nan, np.float32)
      for row, own in enumerate(said["scores"]):
        score[row, : len(own)] = own
      count = np.array([len(one["steps"]) for one in asked])
      there = np.arange(self.steps) < count[:, None]
      check_step_scores(score[count > 0], there[count > 0])
      return {"step": step, "step_score": np.where(there, score, 0.0)}

    return find


experiment = Experiment(
  name="clip_delta_full",
  model=QWEN2_1_5B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Prompts(
    task=environments.MathProblems(rows=1024, path="math_train.jsonl"),
    vocabulary=WEIGHTS,
    length=512,
    wording=data.Chat(
      ask="{prompt}Reason step by step, and put the answer in \\boxed{}."
    ),
    too_long="drop",
  ),
  reward=rewards.TextReward(
    terms=(rewards.Term(name="correct", judge=Math()),),
    workers=32,
    notes=(ServedScores(url="http://localhost:8001/scores"),),
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=dataclasses.replace(
      recipes.ppo,
      reference="arXiv:2410.15115",
      credit=ProcessReward(
        returns=Generalized(
          discount=1.0, trace=1.0, target_trace=1.0, kl_weight=0.05
        ),
        refine="clip_delta",
        alpha=0.1,
      ),
    ),
    sampler=sampling.Autoregressive(length=1024, end=END),
    group_size=8,
    optimiser=AdamW(learning_rate=1e-6, weight_decay=0.0),
    minibatches=8,
    micro_batches=16,
    reference=True,
    critic=algorithms.Critic(
      model=models.ScalarHead(body=QWEN2_1_5B),
      optimiser=AdamW(learning_rate=5e-6, weight_decay=0.0),
    ),
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=100,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=20, keep=2),
)
