"""Reward modelling, advantage estimation and RL post-training in JAX.

The pure floors (`losses`, `advantages`, `rewards.transforms` and what they
stand on) need jax and numpy only; import them alone with
`import rl_jax.losses`. The engine is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from rl_jax.experiment import Experiment
  from rl_jax.launch.run import train

__version__ = "0.1.0"
__all__ = ["Experiment", "__version__", "train"]


def __getattr__(name: str) -> Any:
  # Lazy, so that importing one pure function does not import the engine.
  if name == "train":
    from rl_jax.launch.run import train

    return train
  if name == "Experiment":
    from rl_jax.experiment import Experiment

    return Experiment
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
