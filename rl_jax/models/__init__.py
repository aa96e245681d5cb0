"""Networks as frozen values: `init` gives parameters, `apply` uses them."""

from rl_jax.models.classifier import Classifier
from rl_jax.models.flow_transformer import FlowTransformer
from rl_jax.models.guided import Guided
from rl_jax.models.protocol import VelocityModel
from rl_jax.models.velocity_mlp import VelocityMLP

__all__ = [
  "Classifier",
  "FlowTransformer",
  "Guided",
  "VelocityMLP",
  "VelocityModel",
]
