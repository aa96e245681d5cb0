"""SALT with GRPO for an agent of Qwen2.5 7B in ALFWorld, at full scale.

  rl-jax train experiments/advantages/salt_full.py

What it shows: the settings to declare for the paper's scale: episodes of 50
turns, 16 tasks with 8 episodes each, rate 1e-6, a KL of .01, 150 updates; they
are a reconstruction. Weights are in ./qwen2.5-7b-instruct. ALFWorld is asked
in its own Python (./alfworld-env, with a module `alfworld_texts` whose
`make(task)` starts a game and whose `step` takes the text of a turn, thought
included) through rl_jax/environments/serving.py; ./alfworld-train/tasks.jsonl
has a line {"prompt": instruction and first observation, "task": game file}
for each game. Any other environment is put there in the same way.
Time: not run at this size here; meant for 64 chips. Its step is compiled from
shapes alone by tests/experiments/test_files.py.
Expected: nothing was measured here. The same program at small scale is
salt.py.
Variations: --reward.graph.history-window 1 tells rooms apart that look the
same after another action; --algorithm.recipe.credit.mix 0.5 goes half the way
from GRPO to SALT.
"""

from __future__ import annotations

from functools import partial

from rl_jax import algorithms, data, models
from rl_jax.advantages import group_relative
from rl_jax.algorithms.components import KlInLoss, WithinGroup
from rl_jax.algorithms.estimators.salt import Salt
from rl_jax.algorithms.recipe import PolicyRecipe
from rl_jax.divergences import k3
from rl_jax.environments.process_world import ProcessWorld
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.losses import clipped_policy_terms
from rl_jax.reduce import over_tokens
from rl_jax.rewards.episodes import EpisodeReward
from rl_jax.rewards.trajectory_graph import GraphSettings
from rl_jax.sampling.episodes import Episodes
from rl_jax.training.optimisers import AdamW

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
WEIGHTS = models.Folder(path="qwen2.5-7b-instruct")
# <|im_end|> and <|endoftext|>
END = (151_645, 151_643)
WORLD = ProcessWorld(
  folder="alfworld-train",
  command=(
    "./alfworld-env/bin/python",
    "rl_jax/environments/serving.py",
    "alfworld_texts:make",
  ),
  rows=16,
  workers=32,
)
EPISODES = Episodes(
  world=WORLD,
  vocabulary=WEIGHTS,
  turns=50,
  action_length=192,
  observation_length=256,
  length=12_288,
  # What the chat template writes between two answers of the assistant.
  wording=(
    "\n<|im_start|>user\n{observation}<|im_end|>\n<|im_start|>assistant\n"
  ),
  cut=True,
  end=END,
)

experiment = Experiment(
  name="salt_full",
  model=QWEN25_7B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Prompts(
    task=WORLD,
    vocabulary=WEIGHTS,
    length=1024,
    wording=data.Chat(),
    too_long="drop",
  ),
  reward=EpisodeReward(
    episodes=EPISODES,
    # The thought before it is learned too, and does not make it another step.
    graph=GraphSettings(action=r"<action>(.*?)</action>"),
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=PolicyRecipe(
      reference="SALT, arXiv:2510.20022, reconstructed from its abstract",
      baseline=WithinGroup(
        estimator=partial(group_relative, scale="group", ddof=1, epsilon=1e-6)
      ),
      credit=Salt(),
      loss=partial(clipped_policy_terms, clip_low=0.2, clip_high=0.2),
      reduction=over_tokens,
      penalty=KlInLoss(estimator=k3, weight=0.01),
    ),
    sampler=EPISODES,
    group_size=8,
    optimiser=AdamW(learning_rate=1e-6, weight_decay=0.0),
    micro_batches=16,
    reference=True,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=150,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=10, keep=2),
)
