"""The base of the digits experiments: a flow that obeys its prompt at times.

  rl-jax train experiments/flow/digits_pretrain.py

What it shows: flow matching on 1400 real 8x8 digits, with the class of every
row drawn anew with probability 0.6. The samples look like digits; the class
that was asked for appears only about 36 % of the time. That gap is what the
policy gradients of this folder close.
Time: about 30 seconds on 2 cores, compilation included.
Expected: evaluation reward between .30 and .45, pixel spread between .66 and
.78 (the data has .752).
Variations: --algorithm.condition-noise 0.0 gives a base that obeys already;
--model.width 128 is twice as fast and a little blurrier.
"""

from experiments.flow import digits_classifier
from rl_jax import algorithms, data, evaluation, models, rewards, sampling
from rl_jax.experiment import Band, Checkpoints, Experiment, Trained
from rl_jax.training.optimisers import AdamW

judge = rewards.ClassifierReward(judge=Trained(by=digits_classifier.experiment))
held_out = rewards.ClassifierReward(
  judge=Trained(by=digits_classifier.held_out)
)

experiment = Experiment(
  name="digits_pretrain",
  model=models.VelocityMLP(),
  data=data.Digits(rows=256 * 100),
  algorithm=algorithms.FlowMatching(
    optimiser=AdamW(
      learning_rate=2e-3,
      weight_decay=0.0,
      clip_norm=None,
      cosine_steps=6000,
    ),
    updates=100,
    condition_noise=0.6,
  ),
  evaluation=evaluation.Samples(
    sampler=sampling.EulerOde(steps=20, shift=1.0),
    classes=10,
    reward=judge,
    held_out=held_out,
    picture=(8, 8),
    every=10,
  ),
  steps=60,
  checkpoints=Checkpoints(every=20, keep=1),
  expected=(
    Band(metric="evaluation/reward", low=0.30, high=0.45),
    Band(metric="evaluation/sample_std", low=0.66, high=0.78),
  ),
)
