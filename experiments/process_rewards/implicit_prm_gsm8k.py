"""An implicit PRM from real outcome labels: GSM8K solutions, right or wrong.

  python -m experiments.process_rewards.implicit_prm_gsm8k --data DIR

DIR holds example_model_solutions.jsonl of the GSM8K release: 1319 questions,
each with a solution by four models of OpenAI and whether its answer is right.
A decoder of characters reads the solutions to 1000 questions, then learns
from their labels, and chooses one of four solutions to each question that is
left. It is far too small to follow the problems: what it can learn is how
right solutions look. The same code takes a real model.

Measured (1 seed, 319 held-out questions, results/implicit_prm/gsm8k.md): right
solutions score above wrong ones (area under the curve .62), but so do short
ones (.63), and the best of four is right in .33 to .35 of the cases where the
mean is .36: no gain, as expected of 0.1 million parameters. Half of the
solutions are too long and are left out of training.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.arms import seeded
from experiments.process_rewards.implicit_prm_study import area, trained
from rl_jax import data, models
from rl_jax.advantages.segments import segment_index
from rl_jax.algorithms import FineTuning, Scoring
from rl_jax.algorithms.implicit_reward import LabelOptimisation
from rl_jax.algorithms.responses import Responses
from rl_jax.data.labelled import LabelledResponses
from rl_jax.evaluation.best_of import any_correct, best_of
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.losses.outcome_reward import implicit_ce_loss
from rl_jax.rewards.implicit import aggregate_steps, implicit_step_rewards
from rl_jax.training.optimisers import AdamW

OUT = Path(__file__).parent / "results" / "implicit_prm"
WRITERS = (
  "6b_finetuning",
  "6b_verification",
  "175b_finetuning",
  "175b_verification",
)
# Printable ASCII; what else there is becomes "~".
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
VOCABULARY = models.Characters(alphabet=ALPHABET)
LENGTH, TAUGHT, BETA = 320, 1000, 0.1
MODEL = models.Decoder(
  vocabulary=VOCABULARY.size,
  width=64,
  layers=2,
  mlp=128,
  attention=models.Attention(heads=4, features=16),
  context=LENGTH,
)


def plain(text: str) -> str:
  """The text in the alphabet."""
  return "".join(one if one in ALPHABET else "~" for one in text)


def solutions(path: Path) -> list[list[tuple[str, str, bool]]]:
  """For each question: the end of it, a solution and its label, four times.

  Args:
    path: of the published file.

  Returns:
    Instruction, response and label. Only the last sentence of a question,
    which says what is asked, so that most solutions fit.
  """
  found = []
  for line in path.read_text().splitlines():
    record = json.loads(line)
    asked = plain(record["question"]).strip().split(". ")[-1] + "\n"
    found.append(
      [
        (asked, plain(record[who]["solution"]), record[who]["is_correct"])
        for who in WRITERS
      ]
    )
  return found


def experiments(path: Path) -> tuple[Experiment, Experiment]:
  """The reader, and the reward model that starts from it."""
  reader = Experiment(
    name="implicit_prm_gsm8k_reader",
    model=MODEL,
    data=data.Demonstrations(
      task=data.Texts(
        rows=16, origin=str(path), prompt="instruction", answer="response"
      ),
      vocabulary=VOCABULARY,
      length=LENGTH,
      pack=False,
      too_long="drop",
    ),
    algorithm=FineTuning(optimiser=AdamW(learning_rate=3e-3)),
    steps=150,
    checkpoints=Checkpoints(every=150),
  )
  return reader, dataclasses.replace(
    reader,
    name="implicit_prm_gsm8k",
    start=Trained(by=reader),
    data=LabelledResponses(
      rows=16,
      responses=str(path),
      vocabulary=VOCABULARY,
      length=LENGTH,
      balance="dataset",
      too_long="drop",
    ),
    algorithm=LabelOptimisation(
      loss=partial(implicit_ce_loss, beta=BETA),
      beta=BETA,
      optimiser=AdamW(learning_rate=1e-3),
    ),
  )


@jax.jit
def _scores(params: Any, reference: Any, responses: Responses) -> Any:
  own, other = (
    Scoring()(MODEL, weights, responses, temperature=1.0).log_prob
    for weights in (params, reference)
  )
  ends = responses.token == ALPHABET.index("\n")
  index = segment_index(ends, responses.mask)
  steps = implicit_step_rewards(
    own, other, index, beta=BETA, mode="single", num_segments=24
  )
  return {
    "weakest line": aggregate_steps(*steps, method="min"),
    "whole": BETA * jnp.sum(own - other, axis=-1),
  }


def measured(params: Any, reference: Any, held_out: list) -> dict[str, float]:
  """Best of four by each score, beside what there is to choose from."""
  encode = VOCABULARY.load().encode
  rows, correct, group, length = [], [], [], []
  for number, question in enumerate(held_out):
    for asked, text, label in question:
      # A solution that is too long is read as far as it fits.
      ids = encode(text)[: LENGTH - len(asked)]
      rows.append((encode(asked), ids))
      correct.append(label)
      group.append(number)
      length.append(len(text))
  prompt = np.zeros((len(rows), LENGTH), np.int32)
  token = np.zeros_like(prompt)
  for row, (asked, ids) in enumerate(rows):
    prompt[row, LENGTH - len(asked) :] = asked
    token[row, : len(ids)] = ids
  asked = np.array([len(one) for one, _ in rows])
  read = np.array([len(one) for _, one in rows])
  columns = int(asked.max())
  whole = Responses(
    jnp.asarray(prompt[:, -columns:]),
    jnp.asarray(np.arange(columns) >= columns - asked[:, None]),
    jnp.asarray(token),
    jnp.asarray(np.arange(LENGTH) < read[:, None]),
  )
  parts = [
    _scores(params, reference, Responses(*(x[at : at + 64] for x in whole[:4])))
    for at in range(0, len(rows), 64)
  ]
  scores = {
    name: np.concatenate([np.asarray(part[name]) for part in parts])
    for name in parts[0]
  }
  right, ids, count = np.array(correct), np.array(group), len(held_out)
  scores["shortest"] = -np.array(length, float)
  found = {
    "mean of 4": float(right.mean()),
    "any of 4": float(any_correct(right, ids, num_groups=count).mean()),
  }
  for name, score in scores.items():
    chosen = best_of(score, ids, num_groups=count)
    found[f"best of 4, {name}"] = float(right[chosen].mean())
    found[f"AUC, {name}"] = area(score, right)
  return found


def main() -> None:
  """Runs it and stores what came out."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", type=Path, required=True)
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--out", type=Path, default=OUT)
  parsed = parser.parse_args()
  every = solutions(parsed.data / "example_model_solutions.jsonl")
  file = Path("runs") / "implicit_prm_gsm8k.jsonl"
  file.parent.mkdir(exist_ok=True)
  keys = ("instruction", "response", "label")
  file.write_text(
    "".join(
      json.dumps(dict(zip(keys, one, strict=True))) + "\n"
      for question in every[:TAUGHT]
      for one in question
    )
  )
  seeds = []
  for seed in range(parsed.seeds):
    reader, model = (seeded(one, seed) for one in experiments(file))
    reference = trained(reader)
    seeds.append(measured(trained(model), reference, every[TAUGHT:]))
  lines = ["| | |", "|---|---|"]
  for name in seeds[0]:
    mean = statistics.mean(one[name] for one in seeds)
    lines.append(f"| {name} | {mean:.3f} |")
  lines += [
    "",
    f"{len(every) - TAUGHT} held-out questions, {parsed.seeds} seed(s)."
    f" {platform.machine()}, jax {jax.__version__} on"
    f" {jax.default_backend()}.",
  ]
  parsed.out.mkdir(parents=True, exist_ok=True)
  (parsed.out / "gsm8k.md").write_text("\n".join(lines) + "\n")
  print("\n".join(lines))


if __name__ == "__main__":
  main()
