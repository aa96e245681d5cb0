"""Seconds of TRL's steps of GRPO, in an environment that has it.

`experiments.benchmarks.language_step` starts this file with another
interpreter: a description of the work comes as JSON on standard input, a name
and the seconds of every step go as JSON to standard output. It uses nothing of
this project.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import sys
import time
from typing import Any

__all__ = ["main", "measure"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
  """Train for some steps.

  Args:
    work: `folder` with weights and tokenizer; `prompts`, enough for all
      steps; `rows`, how many a step has; `group_size`, responses to each;
      `length`, their tokens; `steps`; `learning_rate`.

  Returns:
    `name`, with versions, and of each step `seconds`, elapsed and of the
    processor.
  """
  torch: Any = importlib.import_module("torch")
  transformers: Any = importlib.import_module("transformers")
  trl: Any = importlib.import_module("trl")
  datasets: Any = importlib.import_module("datasets")
  ends = []

  class Clock(transformers.TrainerCallback):
    def on_train_begin(self, *_: Any, **__: Any) -> None:
      ends.append((time.perf_counter(), time.process_time()))

    def on_step_end(self, *_: Any, **__: Any) -> None:
      ends.append((time.perf_counter(), time.process_time()))

  def different(completions: list[str], **_: Any) -> list[float]:
    return [float(len(set(text))) for text in completions]

  trainer = trl.GRPOTrainer(
    model=transformers.AutoModelForCausalLM.from_pretrained(
      work["folder"], dtype=torch.float32
    ),
    reward_funcs=different,
    args=trl.GRPOConfig(
      output_dir="trl_out",
      per_device_train_batch_size=work["rows"] * work["group_size"],
      gradient_accumulation_steps=1,
      steps_per_generation=1,
      num_generations=work["group_size"],
      max_completion_length=work["length"],
      # Nothing may end a response.
      generation_kwargs={"min_new_tokens": work["length"]},
      temperature=1.0,
      max_steps=work["steps"],
      learning_rate=work["learning_rate"],
      lr_scheduler_type="constant",
      beta=0.0,
      gradient_checkpointing=False,
      use_cpu=True,
      bf16=False,
      fp16=False,
      logging_strategy="no",
      save_strategy="no",
      report_to=[],
      disable_tqdm=True,
    ),
    train_dataset=datasets.Dataset.from_list(
      [{"prompt": text} for text in work["prompts"]]
    ),
    processing_class=transformers.AutoTokenizer.from_pretrained(work["folder"]),
    callbacks=[Clock()],
  )
  trainer.train()
  seconds = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(ends)]
  return {
    "name": f"trl {trl.__version__}, torch {torch.__version__}",
    "seconds": seconds,
  }


def main() -> None:
  """Read the work, do it, write the seconds."""
  work = json.load(sys.stdin)
  with contextlib.redirect_stdout(sys.stderr):
    found = measure(work)
  json.dump(found, sys.stdout)


if __name__ == "__main__":
  main()
