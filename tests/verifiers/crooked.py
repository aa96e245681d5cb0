"""Verifiers that misbehave, in a module because the pool loads them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import sys
import time

from rl_jax.rewards.verifiers import Judgement


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crooked:
  """Does what the completion says; the reference is a reward or a path."""

  def __call__(self, completion, reference):
    match completion:
      case "sleep":
        time.sleep(60)
      case "spin":
        while True:
          pass
      case "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
      case "die":
        os._exit(3)
      case "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
      case "raise":
        raise KeyError("what it says")
      case "exit":
        raise SystemExit(0)
      case "memory":
        bytearray(1 << 40)
      case "grow":
        held = []
        while True:
          held.append(bytearray(1 << 20))
      case "children":
        if (child := os.fork()) == 0:
          time.sleep(60)
          os._exit(0)
        if isinstance(reference, str):
          pathlib.Path(reference).write_text(f"{os.getpid()} {child}")
        time.sleep(60)
      case "touch":
        pathlib.Path(reference).touch()
        return Judgement(1.0)
      case "light":
        return Judgement(float("jax" not in sys.modules))
      case "pid":
        return Judgement(float(os.getpid()))
      case "talk":
        print("x" * 10000)
      case "nap":
        time.sleep(0.1)
    return Judgement(float(reference))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unprepared:
  """Lacks a package."""

  def prepare(self):
    raise ImportError("pip install something")

  def __call__(self, completion, reference):
    return Judgement(0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heavy:
  """Asks for what is not loaded with verifiers."""

  def prepare(self):
    from rl_jax.rewards import Sum

    assert Sum(terms=("a",), weights=(1.0,)).weights == (1.0,)

  def __call__(self, completion, reference):
    return Judgement(float("jax" in sys.modules))
