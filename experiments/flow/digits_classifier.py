"""The judges of the digits experiments: two small classifiers.

  rl-jax train experiments/flow/digits_classifier.py

What it shows: a 64-128-10 network, trained with pixel noise 0.3 on 1400 real
digits, names the class of the 397 held-out ones. `experiment` is the judge
whose verdict is the reward; `held_out`, from another seed, is never trained
against and guards against reward hacking.
Time: about 10 seconds on 2 cores, compilation included.
Expected: test accuracy at least .97.
Variations: --algorithm.sample-noise 0.0 makes a judge that noise fools more
easily; --seed 2 makes another judge.
"""

import dataclasses

from rl_jax import algorithms, data, evaluation, models
from rl_jax.experiment import Band, Checkpoints, Experiment
from rl_jax.training.optimisers import AdamW

experiment = Experiment(
  name="digits_classifier",
  model=models.Classifier(),
  data=data.Digits(rows=12800),
  algorithm=algorithms.Classification(
    optimiser=AdamW(learning_rate=3e-3, weight_decay=1e-3, clip_norm=None),
    updates=100,
    sample_noise=0.3,
  ),
  evaluation=evaluation.Accuracy(
    data=data.Digits(rows=397, split="test"), every=5
  ),
  steps=20,
  seed=1,
  checkpoints=Checkpoints(every=10, keep=1),
  expected=(Band(metric="evaluation/accuracy", low=0.97),),
)

held_out = dataclasses.replace(
  experiment, name="digits_held_out_classifier", seed=77
)
