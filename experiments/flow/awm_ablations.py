"""What matters in AWM, on real digits.

  python -m experiments.flow.awm_ablations

What it shows: one change at a time to `digits_awm.py`: the weighting of the
matching error, both KL weights, the number of training times, the sampler of
the rollouts; and, at fixed parameters, the variance of the gradient when the
clean target is replaced by the noisy one that denoising policy gradients
regress onto (the paper's theorem).
Time: about 6 minutes on 2 cores.
Expected: uniform weighting without a KL diverges; with base weight .4 it is
stable and stalls; a base weight of .001 reaches the reward and inflates the
pixel spread; the noisy target's gradient variance grows like 1/D.
Variations: --seeds 1 is three times as fast; --threshold 0.8.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.flow import digits_awm, study
from rl_jax import data, sampling
from rl_jax.flow import interpolate, noisy_velocity_target, renoise
from rl_jax.launch.run import build_program
from rl_jax.losses import matching_error


def runs_of() -> dict[str, study.Experiment]:
  """Every run of the study, by name."""
  base = digits_awm.experiment
  times = base.algorithm.times

  def awm(steps: int = 60, **fields: object) -> study.Experiment:
    return study.changed(base, steps=steps, **fields)

  def at(count: int) -> study.Experiment:
    return awm(times=dataclasses.replace(times, count=count))

  runs = {"as published (ghuber, K = 4, beta .02, slow 1)": awm()}
  for weighting in ("huber", "t", "t**2", "uniform"):
    runs[f"weighting {weighting}"] = awm(weighting=weighting)
  runs["uniform, a_max 5, no KL"] = awm(
    weighting="uniform", advantage_maximum=5.0, base_weight=0.0, slow_weight=0.0
  )
  runs["uniform, a_max 1, beta .4, slow 0"] = awm(
    weighting="uniform", advantage_maximum=1.0, base_weight=0.4, slow_weight=0.0
  )
  for weight in (0.0, 0.001, 0.2):
    runs[f"beta {weight:g}"] = awm(base_weight=weight)
  runs["slow 0"] = awm(slow_weight=0.0)
  runs["elbo-weighted KLs"] = awm(kl_weighting="elbo")
  runs["K = 1"], runs["K = 8"] = at(1), at(8)
  runs["sample-level ratio"] = awm(ratio_level="sample")
  runs["rollouts from the slow copy"] = awm(behaviour="slow")
  for order in (1, 2):
    runs[f"SA-Solver order {order}, noise .4"] = awm(
      sampler=sampling.SaSolver(
        steps=10, shift=1.0, order=order, noise_level=0.4
      )
    )
  runs["SDE rollouts, noise .7"] = awm(
    sampler=sampling.FlowSde(steps=10, shift=1.0, noise_level=0.7)
  )
  return runs


def gradient_variance(
  *, root: str, draws: int, rows: int, t: float, gap: float | None
) -> float:
  """Trace of the covariance of the advantage-weighted matching gradient.

  Args:
    root: where the base is.
    draws: gradients drawn.
    rows: images behind each gradient, with advantages of random sign.
    t: training time.
    gap: D of the noisy target, which regresses onto x_(t - D); None for the
      clean target.

  Returns:
    Sum over parameters of the variance of the gradient.
  """
  model = digits_awm.experiment.model
  _, params = build_program(digits_awm.experiment, root=root)
  source = data.Digits(rows=rows).source()
  images = jnp.asarray(source[np.arange(len(source))]["sample"])
  label = jnp.repeat(jnp.arange(10), rows // 10)
  times = jnp.full((rows, 1), t)

  def gradient(key: jax.Array) -> jax.Array:
    pick, sign, first, second = jax.random.split(key, 4)
    x0 = images[jax.random.randint(pick, (rows,), 0, len(images))]
    advantage = jax.random.rademacher(sign, (rows, 1), jnp.float32)
    noise = jax.random.normal(first, (rows, 1, 64))
    if gap is None:
      x_t, target = interpolate(x0, noise, times)
    else:
      earlier = times - gap
      x_s, _ = interpolate(x0, noise, earlier)
      more = jax.random.normal(second, x_s.shape)
      x_t = renoise(x_s, more, times, earlier)
      target = noisy_velocity_target(x_t, x_s, times, earlier)

    def loss(params: object) -> jax.Array:
      velocity = model.apply(params, x_t, times, label)
      return jnp.mean(advantage * matching_error(velocity, target))

    return jax.flatten_util.ravel_pytree(jax.grad(loss)(params))[0]

  keys = jax.random.split(jax.random.key(0), draws)
  drawn = jax.jit(lambda keys: jax.lax.map(gradient, keys))(keys)
  return float(jnp.sum(jnp.var(drawn, axis=0, ddof=1)))


def main(
  seeds: int = 3,
  threshold: float = 0.9,
  root: str = "runs",
  out: Path = Path(__file__).parent / "results" / "awm_ablations",
) -> None:
  """Runs the ablations and stores their table and picture.

  Args:
    seeds: runs of each setting, side by side.
    threshold: evaluation reward to reach.
    root: where the base and the judges are looked for, or trained.
    out: where table.md, results.json and curves.png go.
  """
  runs = study.run_all(runs_of(), seeds=seeds, root=root)
  gaps = {"clean": None, "noisy D=.2": 0.2, "D=.1": 0.1, "D=.05": 0.05}
  traces = {
    name: gradient_variance(root=root, draws=100, rows=160, t=0.5, gap=gap)
    for name, gap in gaps.items()
  }
  said = [
    "trace of the gradient's covariance at t = .5, 160 images, 100 draws: "
    + ", ".join(f"{name} {trace:.3f}" for name, trace in traces.items())
  ]
  study.store(
    runs,
    said,
    title="What matters in AWM, on real digits",
    threshold=threshold,
    directory=out,
  )


if __name__ == "__main__":
  tyro.cli(main, description=__doc__)
