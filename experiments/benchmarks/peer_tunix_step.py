"""Seconds of Tunix's steps of GRPO, in an environment that has it.

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
import pathlib
import sys
import time
from importlib import metadata
from typing import Any

__all__ = ["main", "measure"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
  """Train for some steps.

  Args:
    work: as `peer_trl_step.measure` takes it.

  Returns:
    `name`, with versions, and of each step `seconds`, elapsed and of the
    processor.
  """
  jax: Any = importlib.import_module("jax")
  numpy: Any = importlib.import_module("numpy")
  optax: Any = importlib.import_module("optax")
  transformers: Any = importlib.import_module("transformers")
  rl_cluster: Any = importlib.import_module("tunix.rl.rl_cluster")
  rollout: Any = importlib.import_module("tunix.rl.rollout.base_rollout")
  grpo: Any = importlib.import_module("tunix.rl.grpo.grpo_learner")
  mesh = jax.sharding.Mesh(
    numpy.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp")
  )
  role = rl_cluster.Role
  tokenizer = transformers.AutoTokenizer.from_pretrained(work["folder"])
  # One more than they have: it puts a token before the first.
  longest = 1 + max(len(tokenizer.encode(text)) for text in work["prompts"])
  cluster = rl_cluster.RLCluster(
    actor=_model(work["folder"], mesh),
    tokenizer=tokenizer,
    cluster_config=rl_cluster.ClusterConfig(
      role_to_mesh=dict.fromkeys(
        (role.ACTOR, role.REFERENCE, role.ROLLOUT), mesh
      ),
      training_config=rl_cluster.RLTrainingConfig(
        actor_optimizer=optax.chain(
          optax.clip_by_global_norm(1.0),
          optax.adamw(work["learning_rate"], weight_decay=0.0),
        ),
        eval_every_n_steps=work["steps"] + 1,
        max_steps=work["steps"],
        mini_batch_size=work["rows"],
        train_micro_batch_size=work["rows"],
      ),
      rollout_config=rollout.RolloutConfig(
        max_tokens_to_generate=work["length"],
        max_prompt_length=longest,
        kv_cache_size=longest + work["length"],
        temperature=1.0,
        # No id is negative: nothing may end a response.
        eos_tokens=[-1],
      ),
    ),
  )
  ends = []

  def different(completions: list[str], **_: Any) -> list[float]:
    return [float(len(set(text))) for text in completions]

  def batches() -> Any:
    # A batch is asked for when the update before it has been sent off; the
    # sampling after it waits for that, so differences are whole steps.
    for step in range(work["steps"]):
      ends.append((time.perf_counter(), time.process_time()))
      first = step * work["rows"]
      texts = work["prompts"][first : first + work["rows"]]
      yield {"prompts": numpy.array(texts)}

  learner = grpo.GRPOLearner(
    rl_cluster=cluster,
    reward_fns=different,
    algo_config=grpo.GRPOConfig(num_generations=work["group_size"], beta=0.0),
  )
  learner.train(batches())
  jax.block_until_ready(jax.tree.leaves(_state(cluster.actor_trainer.model)))
  ends.append((time.perf_counter(), time.process_time()))
  versions = [metadata.version(name) for name in ("google-tunix", "jax")]
  return {
    "name": "tunix {}, jax {}".format(*versions),
    "seconds": [
      (b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(ends)
    ],
  }


def _model(folder: str, mesh: Any) -> Any:
  """A Llama out of a Hugging Face folder."""
  jax: Any = importlib.import_module("jax")
  model: Any = importlib.import_module("tunix.models.llama3.model")
  params: Any = importlib.import_module("tunix.models.llama3.params")
  config = json.loads((pathlib.Path(folder) / "config.json").read_text())
  rope = config.get("rope_parameters") or config
  heads = config["num_attention_heads"]
  return params.create_model_from_safe_tensors(
    folder,
    model.ModelConfig(
      num_layers=config["num_hidden_layers"],
      vocab_size=config["vocab_size"],
      embed_dim=config["hidden_size"],
      hidden_dim=config["intermediate_size"],
      num_heads=heads,
      head_dim=config.get("head_dim") or config["hidden_size"] // heads,
      num_kv_heads=config["num_key_value_heads"],
      rope_theta=rope["rope_theta"],
      norm_eps=config["rms_norm_eps"],
      weight_tying=config["tie_word_embeddings"],
    ),
    mesh,
    dtype=jax.numpy.float32,
  )


def _state(model: Any) -> Any:
  nnx: Any = importlib.import_module("flax.nnx")
  return nnx.state(model)


def main() -> None:
  """Read the work, do it, write the seconds."""
  work = json.load(sys.stdin)
  with contextlib.redirect_stdout(sys.stderr):
    found = measure(work)
  json.dump(found, sys.stdout)


if __name__ == "__main__":
  main()
