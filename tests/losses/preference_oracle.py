"""Preference losses in plain floats, one pair at a time: slow and separate."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


def sig(x):
  return 1 / (1 + math.exp(-x))


def ls(x):
  return math.log(sig(x))


def exo(z, e):
  s = sig(z)
  return s * (math.log(s) - math.log(1 - e)) + (1 - s) * (
    math.log(1 - s) - math.log(e)
  )


def disco(z, tau):
  m = sig(z / tau)
  return (1 - m) * -ls(z) + m * math.exp(-z)


def odd(a):
  return math.log(math.exp(a) / (1 - math.exp(a)))


class Pair(NamedTuple):
  """One pair in float64, and the batch means of KTO's even-sampling form."""

  w: float
  l: float  # noqa: E741
  ref_w: float
  ref_l: float
  len_w: int
  len_l: int
  z_w: float
  z_l: float

  @property
  def h_w(self):
    return self.w - self.ref_w

  @property
  def h_l(self):
    return self.l - self.ref_l

  @property
  def h(self):
    return self.h_w - self.h_l


def one_by_one(batch, oracle):
  """Slow: each counted pair by itself."""
  columns = [np.asarray(x).tolist() for x in batch]
  counted = [row[:-1] for row in zip(*columns, strict=True) if row[-1]]
  total_w = sum(w - ref_w for w, _, ref_w, *_ in counted)
  total_l = sum(l - ref_l for _, l, _, ref_l, *_ in counted)  # noqa: E741
  z = [max(0.0, total / len(counted)) for total in (total_w, total_l)]
  return [oracle(Pair(*row, *z)) for row in counted]
