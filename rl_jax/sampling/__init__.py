"""Samplers: from noise or prompts to samples, with a key per row."""

from rl_jax.sampling.autoregressive import Autoregressive, Completions
from rl_jax.sampling.beam import (
  Beams,
  constrained_beam_search,
)
from rl_jax.sampling.ddim import (
  Ddim,
  ddim_moments,
  ddim_replay,
  ddim_step,
)
from rl_jax.sampling.episodes import (
  Episodes,
)
from rl_jax.sampling.flow import (
  EulerOde,
  FlowSde,
  Trajectory,
  VelocityFn,
  flow_sde,
  guided,
  ode_euler,
)
from rl_jax.sampling.generate import Generated, generate, smallest_bucket
from rl_jax.sampling.levels import (
  flow_time,
  noise_and_clean,
  scaled_linear_alpha_bar,
)
from rl_jax.sampling.solvers import SaSolver, sa_solver, sa_times
from rl_jax.sampling.steps import (
  Step,
  euler_step,
  flow_sde_moments,
  flow_sde_replay,
  flow_sde_step,
  row_keys,
  row_normal,
)
from rl_jax.sampling.times import (
  DiscreteTimes,
  LogitNormalTimes,
  UniformTimes,
)
from rl_jax.sampling.tries import Trie
from rl_jax.sampling.worlds import (
  Observation,
  World,
  observe_all,
)

__all__ = [
  "Autoregressive",
  "Beams",
  "Completions",
  "Ddim",
  "DiscreteTimes",
  "Episodes",
  "EulerOde",
  "FlowSde",
  "Generated",
  "LogitNormalTimes",
  "Observation",
  "SaSolver",
  "Step",
  "Trajectory",
  "Trie",
  "UniformTimes",
  "VelocityFn",
  "World",
  "constrained_beam_search",
  "ddim_moments",
  "ddim_replay",
  "ddim_step",
  "euler_step",
  "flow_sde",
  "flow_sde_moments",
  "flow_sde_replay",
  "flow_sde_step",
  "flow_time",
  "generate",
  "guided",
  "noise_and_clean",
  "observe_all",
  "ode_euler",
  "row_keys",
  "row_normal",
  "sa_solver",
  "sa_times",
  "scaled_linear_alpha_bar",
  "smallest_bucket",
]
