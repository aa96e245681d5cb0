"""What is measured besides training."""

from rl_jax.evaluation.accuracy import Accuracy
from rl_jax.evaluation.samples import Samples

__all__ = ["Accuracy", "Samples"]
