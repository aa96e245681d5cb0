"""Seconds that transformers takes to sample, in an environment that has it.

`experiments.benchmarks.decoding` starts this file with another interpreter:
a description of the work comes as JSON on standard input, seconds of every
run go as JSON to standard output. It uses nothing of this project.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

__all__ = ["main", "measure"]


def measure(work: dict[str, Any]) -> list[list[float]]:
  """Time `generate` of a Llama with random weights.

  Args:
    work: `config`, as in the model's config.json; `batches`, the numbers of
      rows; `prompt` and `length`, tokens; `repeats`, timed runs of each.

  Returns:
    For each number of rows, seconds of each run.
  """
  torch: Any = importlib.import_module("torch")
  peer: Any = importlib.import_module("transformers")
  torch.manual_seed(0)
  model = peer.LlamaForCausalLM(peer.LlamaConfig(**work["config"])).eval()
  found = []
  for rows in work["batches"]:
    shape = (rows, work["prompt"])
    prompt = torch.randint(work["config"]["vocab_size"], shape)
    seconds = []
    # One more than asked for: the first one warms up.
    for _ in range(work["repeats"] + 1):
      start = time.perf_counter()
      with torch.inference_mode():
        model.generate(
          prompt,
          attention_mask=torch.ones_like(prompt),
          do_sample=True,
          temperature=1.0,
          top_k=0,
          top_p=1.0,
          min_new_tokens=work["length"],
          max_new_tokens=work["length"],
          pad_token_id=0,
        )
      seconds.append(time.perf_counter() - start)
    found.append(seconds[1:])
  return found


def main() -> None:
  """Read the work, do it, write the seconds."""
  json.dump(measure(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
  main()
