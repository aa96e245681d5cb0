"""SRPO on Qwen3-4B-Instruct with item tokens, at full scale (GREAM).

  rl-jax train experiments/process_rewards/gream_full.py

What it shows: the numbers of the paper's script: ten responses to each of 256
histories of users, which think, write the history anew and answer with the
tokens of an item; a reward for codes of the beginning, the bonus of four tries
for exact items, a mean over tokens, groups that teach nothing sampled anew.
The model after the alignment and reasoning stages, its vocabulary extended by
five levels of 256 codes, is in ./qwen3-4b-items; histories are records of
prompt and item in ./beauty_train.jsonl and ./beauty_test.jsonl.
Time: not run at this size here; meant for 8 accelerators and more. Its step is
compiled from shapes alone by tests/experiments/test_files.py.
Expected: nothing was measured here. The same program at small scale is
gream.py. The evaluation has ten chains to a prompt at temperature 0.7;
`evaluation.ranking.ranked_chains` makes the paper's ranking of such.
Variations: --algorithm.recipe.baseline.k 8 asks for more tries;
--algorithm.refill False leaves groups in that teach nothing.
"""

from __future__ import annotations

from experiments.process_rewards.gream import srpo
from rl_jax import algorithms, data, evaluation, models, rewards, sampling
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.rewards.verifiers.items import ItemAnswer, ItemNotes
from rl_jax.training.optimisers import AdamW

__all__ = ["QWEN3_4B_ITEMS", "experiment"]

# Qwen3-4B-Instruct-2507; 151 669 ids in use and 1280 codes, in blocks of 128.
QWEN3_4B_ITEMS = models.Decoder(
  vocabulary=152_960,
  width=2560,
  layers=36,
  mlp=9728,
  attention=models.Attention(
    heads=32,
    key_value_heads=8,
    features=128,
    rope=models.Rope(theta=5e6),
    query_key_norm=True,
  ),
  context=32_768,
  tied=True,
  norm_epsilon=1e-6,
  remat="all",
  dtype="bfloat16",
)
WEIGHTS = models.Folder(path="qwen3-4b-items")
# <|im_end|> and <|endoftext|>
END = (151_645, 151_643)
PROMPT, RESPONSE = 768, 1560
ANSWER = ItemAnswer(mode="reasoning")


def histories(*, rows: int, path: str) -> data.Prompts:
  """Histories of users, those that are too long left out."""
  return data.Prompts(
    task=data.Texts(rows=rows, origin=path, answer="item"),
    vocabulary=WEIGHTS,
    length=PROMPT,
    wording=data.Chat(),
    too_long="drop",
  )


experiment = Experiment(
  name="gream_full",
  model=QWEN3_4B_ITEMS,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=histories(rows=256, path="beauty_train.jsonl"),
  reward=rewards.TextReward(
    terms=(
      rewards.Term(name="residual", judge=ANSWER),
      # What the released code filters prompts by; it adds nothing.
      rewards.Term(
        name="match",
        judge=ItemAnswer(mode="reasoning", gated=False),
        weight=0.0,
      ),
    ),
    notes=(ItemNotes(answer=ANSWER),),
    workers=16,
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=srpo,
    sampler=sampling.Autoregressive(length=RESPONSE, end=END),
    group_size=10,
    optimiser=AdamW(learning_rate=2e-6, weight_decay=0.1, warm_up_steps=10),
    minibatches=4,
    micro_batches=8,
    refill=True,
    reference=True,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  evaluation=evaluation.TextSamples(
    data=histories(rows=64, path="beauty_test.jsonl"),
    sampler=sampling.Autoregressive(length=RESPONSE, end=END, temperature=0.7),
    prompts=1024,
    samples=10,
    every=25,
  ),
  steps=150,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=25, keep=2),
)
