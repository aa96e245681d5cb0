"""Advantage estimators of papers, as components of a `PolicyRecipe`."""

from rl_jax.algorithms.estimators.adora import (
  ADORA_LLM_CODE,
  ADORA_LLM_PAPER,
  ADORA_VLM,
  Adora,
  GroupWeighted,
)
from rl_jax.algorithms.estimators.canon import (
  Canon,
  MuSchedule,
)
from rl_jax.algorithms.estimators.gream import (
  BonusCalibrated,
)
from rl_jax.algorithms.estimators.implicit_prm import (
  ImplicitPRM,
)
from rl_jax.algorithms.estimators.probe_contexts import (
  Contexts,
  build_probe_batch,
)
from rl_jax.algorithms.estimators.process_reward import (
  ProcessReward,
  reached_by,
)
from rl_jax.algorithms.estimators.relative_sign import (
  LinearWeight,
  OutcomeSign,
  RelativeSign,
)
from rl_jax.algorithms.estimators.salt import (
  Salt,
)
from rl_jax.algorithms.estimators.spae import (
  SPAE_WHITENING,
  Spae,
  boundary_ids,
  spae_recipe,
)
from rl_jax.algorithms.estimators.stable_reinforce import (
  FilteredWhitening,
  StableReinforce,
)
from rl_jax.algorithms.estimators.tp_grpo import (
  TpGrpo,
)
from rl_jax.algorithms.estimators.verl import (
  RankMemory,
  RankSignal,
  Verl,
  VerlReward,
)
from rl_jax.algorithms.estimators.verpo import (
  SuiteOutcome,
  Verpo,
)

__all__ = [
  "ADORA_LLM_CODE",
  "ADORA_LLM_PAPER",
  "ADORA_VLM",
  "SPAE_WHITENING",
  "Adora",
  "BonusCalibrated",
  "Canon",
  "Contexts",
  "FilteredWhitening",
  "GroupWeighted",
  "ImplicitPRM",
  "LinearWeight",
  "MuSchedule",
  "OutcomeSign",
  "ProcessReward",
  "RankMemory",
  "RankSignal",
  "RelativeSign",
  "Salt",
  "Spae",
  "StableReinforce",
  "SuiteOutcome",
  "TpGrpo",
  "Verl",
  "VerlReward",
  "Verpo",
  "boundary_ids",
  "build_probe_batch",
  "reached_by",
  "spae_recipe",
]
