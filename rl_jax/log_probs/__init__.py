"""Log-probabilities of what a policy did, and entropies.

Latents of a denoising step: `gaussian_log_prob_sum` and `_mean`.

Tokens: from logits with `token_log_prob` and `token_entropy`; from the
features before them with `chunked_log_prob`, which never holds the logits of
a batch. Either is the log-probability of the distribution that was sampled
from only at the sampler's temperature and soft cap, and over the sampler's
support: where tokens were drawn with top-k, top-p or min-p, use
`support_log_prob` and say how with a `Support`.

Rows: `next_token` says which column's logits score which token,
`at_own_position` moves scores to their tokens, and sums and means are taken
per row (`sequence_log_prob_sum`) or per segment of a packed row
(`segment_log_prob_sum`).
"""

from rl_jax.log_probs.chunked import TokenScores, chunked_log_prob
from rl_jax.log_probs.gaussian import (
  event_axes,
  gaussian_log_prob_mean,
  gaussian_log_prob_sum,
)
from rl_jax.log_probs.packing import (
  NextToken,
  at_own_position,
  next_token,
  segment_log_prob_mean,
  segment_log_prob_sum,
  sequence_log_prob_mean,
  sequence_log_prob_sum,
)
from rl_jax.log_probs.support import (
  Support,
  support_log_prob,
  support_mask,
  supported_logits,
)
from rl_jax.log_probs.tokens import token_entropy, token_log_prob

__all__ = [
  "NextToken",
  "Support",
  "TokenScores",
  "at_own_position",
  "chunked_log_prob",
  "event_axes",
  "gaussian_log_prob_mean",
  "gaussian_log_prob_sum",
  "next_token",
  "segment_log_prob_mean",
  "segment_log_prob_sum",
  "sequence_log_prob_mean",
  "sequence_log_prob_sum",
  "support_log_prob",
  "support_mask",
  "supported_logits",
  "token_entropy",
  "token_log_prob",
]
