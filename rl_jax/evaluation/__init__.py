"""What is measured besides training."""

from rl_jax.evaluation.accuracy import Accuracy
from rl_jax.evaluation.samples import Samples
from rl_jax.evaluation.texts import TextSamples

__all__ = ["Accuracy", "Samples", "TextSamples"]
