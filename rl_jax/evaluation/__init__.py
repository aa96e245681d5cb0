"""What is measured besides training."""

from rl_jax.evaluation.accuracy import Accuracy
from rl_jax.evaluation.best_of import (
  FirstError,
  any_correct,
  best_of,
  majority_vote,
  processbench_f1,
  vote,
  weighted_vote,
)
from rl_jax.evaluation.mass import (
  Mass,
  PassAtKSamples,
  SolvedSetChange,
  inside_boundary,
  probability_mass_tracker,
  solved_set_change,
)
from rl_jax.evaluation.ranking import (
  BeamRanking,
  hit_at_k,
  ndcg_at_k,
  ranked_chains,
  target_rank,
)
from rl_jax.evaluation.samples import Samples
from rl_jax.evaluation.texts import TextSamples

__all__ = [
  "Accuracy",
  "BeamRanking",
  "FirstError",
  "Mass",
  "PassAtKSamples",
  "Samples",
  "SolvedSetChange",
  "TextSamples",
  "any_correct",
  "best_of",
  "hit_at_k",
  "inside_boundary",
  "majority_vote",
  "ndcg_at_k",
  "probability_mass_tracker",
  "processbench_f1",
  "ranked_chains",
  "solved_set_change",
  "target_rank",
  "vote",
  "weighted_vote",
]
