"""Networks as frozen values: `init` gives parameters, `apply` uses them."""

from rl_jax.models.classifier import Classifier
from rl_jax.models.decoder import Decoder
from rl_jax.models.decoder_attention import Attention, Window
from rl_jax.models.decoder_lora import Lora
from rl_jax.models.decoder_rope import Rope
from rl_jax.models.flow_transformer import FlowTransformer
from rl_jax.models.guided import Guided
from rl_jax.models.pretrained import Pretrained
from rl_jax.models.protocol import VelocityModel
from rl_jax.models.scalar_head import ScalarHead
from rl_jax.models.velocity_mlp import VelocityMLP
from rl_jax.models.vocabularies import Characters, Folder, Gguf, SmolLm2

__all__ = [
  "Attention",
  "Characters",
  "Classifier",
  "Decoder",
  "FlowTransformer",
  "Folder",
  "Gguf",
  "Guided",
  "Lora",
  "Pretrained",
  "Rope",
  "ScalarHead",
  "SmolLm2",
  "VelocityMLP",
  "VelocityModel",
  "Window",
]
