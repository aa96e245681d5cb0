"""Credit in episodes of two programs compared: the outcome, and VeRPO.

  python -m experiments.process_rewards.verpo_turns_study

"outcome" is GRPO: the centred outcome on all tokens of an episode, whichever
turn they are in. The others have the outcome discounted by .9 a turn: alone,
with the share of tests that each turn passed, and with VeRPO's rewards of
turns. Compared are held-out functions of which all tests pass within two
turns, the share of groups that teach nothing, and the turns of an episode.
Writes results/verpo_turns/.
"""

from __future__ import annotations

from experiments.process_rewards import verpo_turns
from experiments.process_rewards.verpo_study import compared
from rl_jax.algorithms.estimators.verpo import Verpo

__all__ = ["ARMS"]

ARMS = {
  "outcome": Verpo(beta=0.0),
  "discounted": Verpo(beta=0.0, discount=0.9),
  "pass_rate": Verpo(
    alpha=0.0, density=False, normaliser="weight_sum", discount=0.9
  ),
  "verpo": Verpo(discount=0.9),
}


if __name__ == "__main__":
  compared(
    verpo_turns.experiment,
    ARMS,
    metrics=("evaluation/success", "evaluation/turns"),
  )
