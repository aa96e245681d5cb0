"""Slow float64 loops, written from the formulas and sharing no code."""

from __future__ import annotations

import math

import numpy as np


def records(mask, last, terminated):
  """Counted columns of each record of one row, in order, and how it ends."""
  found, columns = [], []
  for t in range(len(mask)):
    if mask[t]:
      columns.append(t)
    if last[t] or terminated[t] or t == len(mask) - 1:
      if columns:
        found.append(columns)
      columns = []
  return found


def returns(reward, mask, last, discount):
  out = np.zeros(len(mask))
  for columns in records(mask, last, np.zeros(len(mask), bool)):
    for place, t in enumerate(columns):
      for later, u in enumerate(columns[place:]):
        out[t] += discount**later * reward[u]
  return out


def advantage(
  reward, value, next_value, mask, terminated, last, discount, trace
):
  """The double sum over k >= t of (discount trace)^(k - t) errors."""
  out = np.zeros(len(mask))
  for columns in records(mask, last, terminated):
    error = {}
    for t in columns:
      future = 0.0 if terminated[t] else next_value[t]
      error[t] = reward[t] + discount * future - value[t]
    for place, t in enumerate(columns):
      for later, u in enumerate(columns[place:]):
        out[t] += (discount * trace) ** later * error[u]
  return out


def n_step(reward, next_value, mask, terminated, last, discount, steps):
  out = np.zeros(len(mask))
  for columns in records(mask, last, terminated):
    for place, t in enumerate(columns):
      window = columns[place : place + steps]
      for later, u in enumerate(window):
        out[t] += discount**later * reward[u]
      if not terminated[window[-1]]:
        out[t] += discount ** len(window) * next_value[window[-1]]
  return out


def lambda_return(reward, next_value, mask, terminated, last, discount, trace):
  """The mixture itself: (1 - trace) sum_n trace^(n-1) G^n, the rest on G^N."""
  out = np.zeros(len(mask))
  for columns in records(mask, last, terminated):
    for place, t in enumerate(columns):
      longest = len(columns) - place
      for n in range(1, longest + 1):
        g = n_step(reward, next_value, mask, terminated, last, discount, n)[t]
        share = trace ** (n - 1)
        out[t] += share * g if n == longest else (1 - trace) * share * g
  return out


def vtrace(
  reward,
  value,
  next_value,
  ratio,
  mask,
  terminated,
  last,
  discount,
  trace,
  max_ratio,
  max_trace,
):
  """Target as the sum of products of traces (equation 1 of the paper)."""
  target, advantage = np.zeros(len(mask)), np.zeros(len(mask))
  for columns in records(mask, last, terminated):
    error = {}
    for t in columns:
      future = 0.0 if terminated[t] else next_value[t]
      plain = reward[t] + discount * future - value[t]
      error[t] = min(max_ratio, ratio[t]) * plain
    excess = {}
    for place, t in enumerate(columns):
      excess[t], product = 0.0, 1.0
      for u in columns[place:]:
        excess[t] += product * error[u]
        product *= discount * trace * min(max_trace, ratio[u])
    for place, t in enumerate(columns):
      target[t] = value[t] + excess[t]
      later = 0.0
      if place + 1 < len(columns):
        later = trace * excess[columns[place + 1]]
      future = 0.0 if terminated[t] else next_value[t]
      plain = reward[t] + discount * (future + later) - value[t]
      advantage[t] = min(max_ratio, ratio[t]) * plain
  return target, advantage


def rows_of_group(group, valid, i):
  return [j for j in range(len(group)) if valid[j] and group[j] == group[i]]


def mean(values):
  return math.fsum(values) / len(values)


def std(values, ddof):
  middle = mean(values)
  square = math.fsum((v - middle) ** 2 for v in values)
  return math.sqrt(square / max(len(values) - ddof, 1))


def spread_of(reward, group, valid, i, scale, ddof):
  if scale == "group":
    rows = rows_of_group(group, valid, i)
  else:
    rows = [j for j in range(len(group)) if valid[j]]
  return std([reward[j] for j in rows], ddof)


def relative(reward, group, valid, scale, ddof, epsilon):
  out = np.zeros(len(group))
  for i in np.flatnonzero(valid):
    values = [reward[j] for j in rows_of_group(group, valid, i)]
    if max(values) == min(values):
      continue
    out[i] = reward[i] - mean(values)
    if scale != "none":
      spread = spread_of(reward, group, valid, i, scale, ddof)
      out[i] /= spread + epsilon
  return out


def without_one(reward, group, valid):
  out = np.zeros(len(group))
  for i in np.flatnonzero(valid):
    others = [reward[j] for j in rows_of_group(group, valid, i) if j != i]
    out[i] = reward[i] - mean(others) if others else 0.0
  return out


def without_one_scaled(reward, group, valid, ddof, epsilon):
  out = without_one(reward, group, valid)
  for i in np.flatnonzero(valid):
    others = [reward[j] for j in rows_of_group(group, valid, i) if j != i]
    if len(set(others)) > 1:
      out[i] /= std(others, ddof) + epsilon
  return out


def length_weighted(reward, tokens, group, valid):
  out = np.zeros(len(group))
  for i in np.flatnonzero(valid):
    rows = rows_of_group(group, valid, i)
    total = math.fsum(tokens[j] for j in rows)
    weighted = math.fsum(tokens[j] * reward[j] for j in rows)
    out[i] = reward[i] - weighted / total if total else 0.0
  return out


def best(reward, group, valid, scale, ddof, epsilon):
  out = np.zeros(len(group))
  for i in np.flatnonzero(valid):
    rows = rows_of_group(group, valid, i)
    others = [reward[j] for j in rows if j != i]
    if others and reward[i] > max(others):
      out[i] = reward[i] - max(others)
      if scale != "none":
        out[i] /= spread_of(reward, group, valid, i, scale, ddof) + epsilon
  return out
