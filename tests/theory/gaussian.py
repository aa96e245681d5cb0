"""Data N(M, S^2) in one dimension, for which everything is known.

x_t ~ N((1 - t) M, V(t)) with V(t) = (1 - t)^2 S^2 + t^2, and the velocity
E[noise - x_0 | x_t] is linear in x_t.
"""

from __future__ import annotations

M, S = 0.5, 0.3


def variance(t):
  return ((1 - t) * S) ** 2 + t**2


def slope(t):
  return (t - (1 - t) * S**2) / variance(t)


def velocity(x, t):
  """Exact velocity at one time for all, on numpy or jax arrays."""
  return -M + slope(t) * (x - (1 - t) * M)


def velocity_fn(x, t):
  return velocity(x, t[:, None])


def irreducible(t):
  """Var(noise - x_0 | x_t): what no network can predict."""
  return 1 + S**2 - (t - (1 - t) * S**2) ** 2 / variance(t)


def ode_solution(x, t, t_end):
  """Where the flow carries x from time t to t_end."""
  ratio = (variance(t_end) / variance(t)) ** 0.5
  return (1 - t_end) * M + ratio * (x - (1 - t) * M)


def clean(x, t):
  """E[x_0 | x_t]."""
  return x - t * velocity(x, t)
