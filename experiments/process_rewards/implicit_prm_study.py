"""Implicit PRMs by objective: which step went wrong, and best of eight.

  python -m experiments.process_rewards.implicit_prm_study

A generator writes eight responses to each of 625 chains, or one to each of
5000; their answers are checked, and nothing else. From that, models are
trained by each objective. On 500 chains that nobody has seen, the generator
writes eight responses more, each model chooses one, and its step rewards are
compared with which step is the first that does not add up.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import math
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import chains
from experiments.arms import seeded
from experiments.process_rewards import implicit_prm as task
from rl_jax import data, sampling
from rl_jax.advantages.segments import check_segments, segment_index
from rl_jax.algorithms import PreferenceOptimisation, Scoring
from rl_jax.algorithms.responses import Responses
from rl_jax.data.labelled import LabelledResponse, labelled_pairs
from rl_jax.evaluation.best_of import (
  any_correct,
  best_of,
  majority_vote,
  processbench_f1,
  weighted_vote,
)
from rl_jax.experiment import Experiment
from rl_jax.launch.run import restored_params, train
from rl_jax.launch.workdir import default_workdir
from rl_jax.losses import (
  kto_loss,
  kto_reference_point,
  logistic_preference_loss,
  nca_loss,
)
from rl_jax.rewards.implicit import aggregate_steps, implicit_step_rewards
from rl_jax.sampling.generate import generate

ROOT = Path("runs")
# Least share of held-out responses without a wrong step, for a seed to count.
LEARNT = 0.1
OUT = Path(__file__).parent / "results" / "implicit_prm"
STEP_END = chains.ALPHABET.index(";")


class Written(NamedTuple):
  """What the generator wrote.

  Attributes:
    prompt: of each row.
    text: the response.
    token: its ids, the end included.
    group: which prompt it is.
    correct: whether its answer is right.
    error: its first wrong step, -1 if none; None without form.
  """

  prompt: list[str]
  text: list[str]
  token: list[tuple[int, ...]]
  group: np.ndarray
  correct: np.ndarray
  error: list[int | None]


def trained(experiment: Experiment) -> Any:
  """Parameters of an experiment, which is run if it has not been."""
  train(experiment, root=ROOT, observers=lambda *_: ())
  return restored_params(
    default_workdir(experiment, ROOT),
    experiment.model.init,
    jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    step=None,
  )


def rollouts(
  params: Any, span: tuple[int, int], *, samples: int, seed: int
) -> Written:
  """Responses of the generator to the chains of a span."""
  source = task.problems(span, rows=1).source()
  prompts = source[np.arange(span[1])]["prompt"].tolist()
  found = generate(
    task.MODEL,
    params,
    chains.VOCABULARY.load(),
    prompts,
    sampling.Autoregressive(length=task.RESPONSE, end=(chains.END,)),
    key=jax.random.key(seed),
    samples=samples,
    buckets=(task.PROMPT,),
    batch=2000 // samples,
  )
  rows = sorted(found, key=lambda one: (one.item, one.sample))
  group = np.array([one.item for one in rows])
  text = [one.text for one in rows]
  asked = [prompts[item] for item in group]
  return Written(
    prompt=asked,
    text=text,
    token=[one.token for one in rows],
    group=group,
    correct=np.array(list(map(task.right, asked, text))),
    error=list(map(task.first_error, text)),
  )


@functools.partial(jax.jit, static_argnames=("segments",))
def _rewards(params, reference, responses, index, *, segments):
  own, other = (
    Scoring()(task.MODEL, weights, responses, temperature=1.0).log_prob
    for weights in (params, reference)
  )
  return {
    mode: implicit_step_rewards(
      own, other, index, beta=task.BETA, mode=mode, num_segments=segments
    )
    for mode in ("single", "accumulative")
  }


def step_rewards(params: Any, reference: Any, written: Written) -> dict:
  """Step rewards of all responses; steps end with ";" and with the end."""
  rows = len(written.text)
  token = np.zeros((rows, task.RESPONSE), np.int32)
  mask = np.zeros(token.shape, bool)
  for row, own in enumerate(written.token):
    token[row, : len(own)], mask[row, : len(own)] = own, True
  index = np.asarray(
    segment_index(jnp.asarray(token == STEP_END), jnp.asarray(mask))
  )
  segments = int(index.max()) + 1
  check_segments(index, mask, num_segments=segments)
  encode = chains.VOCABULARY.load().encode
  prompt = np.array([encode(text) for text in written.prompt], np.int32)
  given = Responses(prompt, np.ones_like(prompt, bool), token, mask)
  given = jax.tree.map(jnp.asarray, given)
  return _rewards(
    params, reference, given, jnp.asarray(index), segments=segments
  )


def area(score: np.ndarray, positive: np.ndarray) -> float:
  """Probability that a positive scores above a negative, ties half."""
  rank = np.empty(len(score))
  _, place, count = np.unique(score, return_inverse=True, return_counts=True)
  rank = (np.cumsum(count) - (count - 1) / 2)[place]
  good = positive.sum()
  u = rank[positive].sum() - good * (good + 1) / 2
  return float(u / (good * (len(score) - good)))


def measured(params: Any, reference: Any, written: Written) -> dict[str, float]:
  """What a model's step rewards are good for."""
  rewards = step_rewards(params, reference, written)
  # By name: compiled functions order what they return.
  single, accumulative = rewards["single"], rewards["accumulative"]
  scores = {
    "best of 8, weakest step": aggregate_steps(*single, method="min"),
    "best of 8, lowest prefix": aggregate_steps(*accumulative, method="min"),
    "best of 8, whole": aggregate_steps(*accumulative, method="last"),
  }
  groups = int(written.group.max()) + 1
  found = {}
  for name, score in scores.items():
    chosen = best_of(np.asarray(score), written.group, num_groups=groups)
    found[name] = float(written.correct[chosen].mean())
  weakest = np.asarray(scores["best of 8, weakest step"], np.float64)
  votes = []
  for one in range(groups):
    rows = np.flatnonzero(written.group == one)
    said = [written.text[row].partition("#")[2] for row in rows]
    answer = weighted_vote(said, weakest[rows].tolist())
    votes.append(written.correct[rows[said.index(answer)]])
  found["weighted vote"] = float(np.mean(votes))
  value, whole = np.asarray(single.value), np.asarray(accumulative.value)
  steps, wrong, q, first = [], [], [], []
  for row, error in enumerate(written.error):
    if error is None:
      continue
    # The steps up to the first that is wrong: what comes after builds on it.
    last = task.STEPS if error < 0 else error + 1
    steps += value[row, :last].tolist()
    wrong += [number == error for number in range(last)]
    q.append(whole[row, : task.STEPS].tolist())
    first.append(error)
  found["AUC of the first wrong step"] = area(-np.array(steps), np.array(wrong))
  half = len(q) // 2
  known = processbench_f1(q[:half], first[:half], thresholds=2000)
  found["first error, F1"] = processbench_f1(
    q[half:], first[half:], thresholds=2000, threshold=known.threshold
  ).f1
  return found


def even_kto(chosen: Any, rejected: Any, valid: Any, *, beta: float) -> Any:
  """KTO of pairs: each side is measured against the other's mean."""
  kto = functools.partial(
    kto_loss, beta=beta, desirable_weight=1.0, undesirable_weight=1.0
  )
  every, none = jnp.ones_like(valid), jnp.zeros_like(valid)
  good = kto(chosen, every, kto_reference_point(rejected, valid), valid)
  bad = kto(rejected, none, kto_reference_point(chosen, valid), valid)
  return good + bad


def arms(file: Path, single: Path, pairs: Path) -> dict[str, Experiment]:
  """The experiments, on files of what the generator wrote."""
  base = task.experiment

  def labelled(path: Path, **changes: Any) -> Experiment:
    own = dataclasses.replace(base.data, responses=str(path), **changes)
    return task.variant(data=own)

  def paired(name: str, loss: Any) -> Experiment:
    return task.variant(
      name=f"implicit_prm_{name}",
      data=data.Preferences(
        rows=base.data.rows // 2,
        pairs=str(pairs),
        vocabulary=chains.VOCABULARY,
        length=task.LENGTH,
        identical="drop",
      ),
      algorithm=PreferenceOptimisation(
        loss=functools.partial(loss, beta=task.BETA),
        beta=task.BETA,
        optimiser=base.algorithm.optimiser,
      ),
    )

  return {
    "CE": labelled(file),
    "CE, one response to each": labelled(single),
    "CE, balanced": labelled(file, balance="dataset"),
    "CE, balanced by instruction": labelled(file, balance="instruction"),
    "DPO": paired("dpo", logistic_preference_loss),
    "NCA": paired("nca", nca_loss),
    "KTO": paired("kto", even_kto),
  }


def stored(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
  """Records as JSON Lines."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def one_seed(seed: int) -> dict[str, dict[str, float]] | None:
  """All numbers of a seed, by arm; None if its generator cannot add."""
  generator = seeded(task.generator, seed)
  reference = trained(generator)
  folder = default_workdir(generator, ROOT) / "rollouts"
  first, count = task.LABELLED
  many = rollouts(
    reference, (first, count // task.SAMPLES), samples=task.SAMPLES, seed=seed
  )
  once = rollouts(reference, task.LABELLED, samples=1, seed=seed + 100)
  files = [
    stored(
      folder / f"{name}.jsonl",
      [
        {"instruction": prompt, "response": text, "label": bool(label)}
        for prompt, text, label in zip(
          own.prompt, own.text, own.correct, strict=True
        )
      ],
    )
    for name, own in (("eight", many), ("one", once))
  ]
  responses = [
    LabelledResponse(prompt, text, float(label))
    for prompt, text, label in zip(
      many.prompt, many.text, many.correct, strict=True
    )
  ]
  pairs = labelled_pairs(responses, rng=np.random.default_rng(seed))
  held_out = rollouts(
    reference, task.HELD_OUT, samples=task.SAMPLES, seed=seed + 200
  )
  if np.mean([error == -1 for error in held_out.error]) < LEARNT:
    print(f"seed {seed}: left out, its generator cannot add", flush=True)
    return None
  groups, majority = task.HELD_OUT[1], []
  for one in range(groups):
    rows = np.flatnonzero(held_out.group == one)
    said = [held_out.text[row].partition("#")[2] for row in rows]
    winner = majority_vote(said)
    majority.append(held_out.correct[rows[said.index(winner)]])
  some = any_correct(held_out.correct, held_out.group, num_groups=groups)
  found = {
    "generator": {
      "mean of 8": float(held_out.correct.mean()),
      "majority of 8": float(np.mean(majority)),
      "any of 8": float(some.mean()),
      "without form": float(np.mean([x is None for x in held_out.error])),
      "tokens": float(np.mean([len(own) for own in held_out.token])),
      "labelled right": float(many.correct.mean()),
      "pairs": float(len(pairs)),
    }
  }
  for name, arm in arms(*files, stored(folder / "pairs.jsonl", pairs)).items():
    params = trained(seeded(arm, seed))
    found[name] = measured(params, reference, held_out)
    print(f"seed {seed}, {name}: {found[name]}", flush=True)
  return found


def table(seeds: Sequence[dict[str, dict[str, float]]]) -> str:
  """Means with standard errors, the generator above the models."""

  def cell(arm: str, metric: str) -> str:
    values = [one[arm][metric] for one in seeds]
    if len(values) < 2:
      return f"{values[0]:.3f}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.3f} ± {error:.3f}"

  lines, names = [], list(seeds[0])
  for rows in (names[:1], names[1:]):
    metrics = list(seeds[0][rows[0]])
    lines.append("| | " + " | ".join(metrics) + " |")
    lines.append("|" + "---|" * (len(metrics) + 1))
    for arm in rows:
      cells = [cell(arm, metric) for metric in metrics]
      lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines.append("")
  lines.append(
    f"{task.HELD_OUT[1]} held-out chains, eight responses each; mean ± standard"
    f" error over {len(seeds)} seeds. {platform.machine()}, jax"
    f" {jax.__version__} on {jax.default_backend()}."
  )
  return "\n".join(lines) + "\n"


def picture(seeds: Sequence[dict[str, dict[str, float]]]) -> Figure:
  """How often the chosen response is right, by arm, beside the generator's."""
  arms = [name for name in seeds[0] if name != "generator"]
  metrics = [name for name in seeds[0][arms[0]] if name.startswith("best")]
  figure = Figure(figsize=(9.2, 3.8), layout="constrained")
  axis = figure.subplots()
  for number, metric in enumerate(metrics):
    for place, arm in enumerate(arms):
      values = [one[arm][metric] for one in seeds]
      at = np.full(len(values), place + (number - 1) * 0.2)
      axis.plot(
        at, values, "o", color=f"C{number}", label="" if place else metric
      )
  for style, metric in zip(
    (":", "--", "-"), seeds[0]["generator"], strict=False
  ):
    level = statistics.mean(one["generator"][metric] for one in seeds)
    axis.axhline(level, color="black", linestyle=style, label=metric)
  axis.set_xticks(range(len(arms)), arms, rotation=15, fontsize=8)
  axis.set_ylabel("chosen response is right")
  axis.legend(fontsize=8)
  return figure


def main() -> None:
  """Runs the study and stores it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--out", type=Path, default=OUT)
  parsed = parser.parse_args()
  seeds, left_out = [], []
  for seed in itertools.count():
    if len(seeds) == parsed.seeds:
      break
    if len(left_out) > 3 * parsed.seeds:
      raise RuntimeError(
        f"the generators of seeds {left_out} have not learnt to add: train"
        " them for longer"
      )
    if (found := one_seed(seed)) is None:
      left_out.append(seed)
    else:
      seeds.append(found)
  parsed.out.mkdir(parents=True, exist_ok=True)
  text = table(seeds)
  if left_out:
    text += (
      f"\nLeft out, since not one in ten of their generator's responses has"
      f" all steps right: seeds {', '.join(map(str, left_out))}.\n"
    )
  (parsed.out / "table.md").write_text(text)
  (parsed.out / "results.json").write_text(json.dumps(seeds, indent=1) + "\n")
  picture(seeds).savefig(parsed.out / "curves.png", dpi=110)
  print(f"\n{text}\nstored in {parsed.out}")


if __name__ == "__main__":
  main()
