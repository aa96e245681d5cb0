"""The loop: order, one compilation, signals, what observers are told."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rl_jax.data.source import Arrays
from rl_jax.experiment import Band, Checkpoints, Mesh
from rl_jax.launch.run import train
from rl_jax.training.checkpoints import Store
from rl_jax.training.doctor import Collapse, Unhealthy
from rl_jax.training.state import State
from training import tiny

pytestmark = pytest.mark.slow

ONE = Mesh(data=1)
HOOKS = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched:
  """Prompts that call `HOOKS[step]` when that step asks for its items."""

  rows: int = 4
  shuffle: bool = True

  def source(self):
    return _Hooked({"condition": np.arange(6, dtype=np.int32) % 2})


class _Hooked(Arrays):
  def __getitem__(self, indices):
    # The first look is for shapes.
    if len(indices) > 1:
      HOOKS["asked"] = HOOKS.get("asked", 0) + 1
      HOOKS.get(HOOKS["asked"], int)()
    return super().__getitem__(indices)


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
  HOOKS.clear()
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)


def run(workdir, **changes):
  recorder, observers = tiny.watched()
  fields = {"data": Watched(), "evaluation": tiny.SAMPLES, "steps": 6}
  outcome = train(
    tiny.experiment(**(fields | changes)),
    workdir=workdir,
    observers=observers,
  )
  return outcome, recorder


def saved_arrays(workdir, step):
  with ocp.StandardCheckpointer() as reader:
    return [
      np.asarray(leaf)
      for part in ("params", "rest")
      for leaf in jax.tree.leaves(
        reader.restore(workdir / "checkpoints" / str(step) / part)
      )
    ]


def same(one, other):
  return all(map(np.array_equal, one, other)) and len(one) == len(other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A run of six steps that nobody disturbed."""
  workdir = tmp_path_factory.mktemp("whole") / "run"
  before = jax.devices
  jax.devices = lambda *_: before()[:1]
  try:
    HOOKS.clear()
    return workdir, *run(workdir)
  finally:
    jax.devices = before


def test_order_of_everything(whole):
  """Saves every 2 steps; evaluations at the start, every 4, at the end."""
  _, outcome, recorder = whole
  assert recorder.events == [
    ("started", 0, 6),
    ("saved", 0),
    ("evaluation", 0),
    ("train", 1),
    ("train", 2),
    ("saved", 2),
    ("train", 3),
    ("train", 4),
    ("evaluation", 4),
    ("saved", 4),
    ("train", 5),
    ("train", 6),
    ("evaluation", 6),
    ("saved", 6),
    ("ended", 6),
  ]
  assert outcome == recorder.outcome
  assert (outcome.status, outcome.step, outcome.signal) == ("finished", 6, None)
  assert outcome.evaluation == recorder.rows[-1].metrics


def test_rows_are_plain_numbers(whole):
  _, _, recorder = whole
  for row in recorder.rows:
    assert all(type(value) is float for value in row.metrics.values())
    evaluated = [name.startswith("evaluation/") for name in row.metrics]
    assert all(evaluated) == any(evaluated) == (row.kind == "evaluation")
  seconds = [row.seconds for row in recorder.rows]
  assert seconds == sorted(seconds)


def compilations(workdir, steps):
  count = []

  def listen(event, duration, **_):
    if event == "/jax/core/compile/backend_compile_duration":
      count.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    run(workdir, steps=steps)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  return len(count)


def test_more_steps_compile_nothing_more(whole, tmp_path):
  """Both runs evaluate, save and wrap around their data at least once."""
  few = compilations(tmp_path / "few", 4)
  many = compilations(tmp_path / "many", 12)
  assert 0 < many <= few


def test_nothing_moves_between_host_and_device_unasked(tmp_path):
  def move():
    jnp.add(np.ones(3, np.float32), np.float32(1.0))

  HOOKS[2] = move
  with pytest.raises(Exception, match=r"[Dd]isallowed host-to-device"):
    run(tmp_path / "run")


@pytest.mark.parametrize("moment", [1, 3])
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_resumes_exactly(
  whole, tmp_path, kind, moment
):
  """Neither step 1 nor step 3 would have been saved."""
  before = signal.getsignal(kind)
  HOOKS[moment] = lambda: os.kill(os.getpid(), kind)
  workdir = tmp_path / "run"
  outcome, recorder = run(workdir)
  assert (outcome.status, outcome.step) == ("stopped", moment)
  assert outcome.signal == kind
  assert recorder.events[-2:] == [("saved", moment), ("ended", moment)]
  assert not (workdir / "result.json").exists()
  assert signal.getsignal(kind) is before

  HOOKS.clear()
  outcome, rest = run(workdir)
  assert outcome.status == "finished"
  assert rest.events[0] == ("started", moment, 6)
  assert same(saved_arrays(workdir, 6), saved_arrays(whole[0], 6))
  rows = [(r.step, r.kind, r.metrics) for r in recorder.rows + rest.rows]
  assert rows == [(r.step, r.kind, r.metrics) for r in whole[2].rows]


@pytest.mark.parametrize("step", [0, 2])
def test_a_signal_during_a_save(whole, tmp_path, step):
  class Kills(tiny.Recorder):
    def saved(self, at):
      super().saved(at)
      if at == step:
        os.kill(os.getpid(), signal.SIGTERM)

  killer = Kills()
  experiment = tiny.experiment(data=Watched(), evaluation=tiny.SAMPLES, steps=6)
  workdir = tmp_path / "run"
  outcome = train(experiment, workdir=workdir, observers=lambda *_: (killer,))
  assert (outcome.status, outcome.step) == ("stopped", step)
  assert [e for e in killer.events if e[0] == "saved"][-1] == ("saved", step)
  run(workdir)
  assert same(saved_arrays(workdir, 6), saved_arrays(whole[0], 6))


def test_in_a_thread_that_may_not_have_signals(tmp_path):
  found = []
  thread = threading.Thread(
    target=lambda: found.append(run(tmp_path / "run", steps=2)[0].status)
  )
  thread.start()
  thread.join()
  assert found == ["finished"]


def test_nan_reward_stops_the_run_and_nothing_bad_is_saved(tmp_path):
  workdir = tmp_path / "run"
  with pytest.raises(Collapse) as caught:
    run(
      workdir,
      reward=tiny.Near(broken_from=15),
      evaluation=None,
      checkpoints=Checkpoints(every=1),
    )
  message = str(caught.value)
  assert message.startswith("step 1: reward = nan")
  good = workdir / "checkpoints" / "0"
  assert message.endswith(f"last good checkpoint: {good}")
  assert [p.name for p in (workdir / "checkpoints").iterdir()] == ["0"]
  assert not (workdir / "result.json").exists()


def test_leaving_a_guard_band_stops_the_run_at_once(whole, tmp_path):
  """The band ends between two losses that the undisturbed run measured."""
  values = [
    r.metrics["absolute_advantage"] for r in whole[2].rows if r.kind == "train"
  ]
  limit = sorted(values)[-1] - 1e-6
  bad = 1 + next(i for i, v in enumerate(values) if v > limit)
  with pytest.raises(
    Collapse,
    match=f"step {bad}: absolute_advantage = .*"
    r"left the band \[-inf, ",
  ):
    run(
      tmp_path / "run",
      guard=(Band(metric="absolute_advantage", high=limit),),
    )
  steps = [int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()]
  assert max(steps) < bad


def test_a_first_step_off_policy_is_refused(tmp_path, monkeypatch):
  """A sampler whose stored log-probs are not those of the trainer."""
  genuine = type(tiny.SDE).replay

  def wrong(self, velocity, x, x_next, step):
    taken = genuine(self, velocity, x, x_next, step)
    return taken._replace(log_prob=taken.log_prob + 0.01)

  monkeypatch.setattr(type(tiny.SDE), "replay", wrong)
  workdir = tmp_path / "run"
  with pytest.raises(
    Unhealthy, match=r"first_ratio is 1\.01.*must be 1 within 0\.0001"
  ):
    run(
      workdir,
      algorithm=tiny.GRPO,
      evaluation=None,
      checkpoints=Checkpoints(every=1),
    )
  assert [p.name for p in (workdir / "checkpoints").iterdir()] == ["0"]


def test_observers_are_told_of_an_error(tmp_path):
  recorder, observers = tiny.watched()
  broken = tiny.experiment(reward=tiny.Near(broken_from=8))
  with pytest.raises(Collapse) as caught:
    train(broken, root=tmp_path, observers=observers)
  assert recorder.outcome.status == "failed"
  assert recorder.outcome.error == str(caught.value)
  assert recorder.events[-1][0] == "ended"


def test_an_observer_that_cannot_end_does_not_hide_the_error(tmp_path):
  class Stuck(tiny.Recorder):
    def ended(self, outcome):
      raise OSError("no space")

  broken = tiny.experiment(reward=tiny.Near(broken_from=8))
  with pytest.raises(Collapse) as caught:
    train(broken, root=tmp_path, observers=lambda *_: (Stuck(),))
  assert caught.value.__notes__ == ["Stuck could not end: no space"]


def test_what_a_kill_left_over_is_removed_at_the_end(tmp_path):
  """A kill between the last save and the removal of what is too old."""
  store = Store(tmp_path / "checkpoints", keep=10)
  one = jnp.ones(2)
  state = State(one, one, one, {"weight": one}, {"mean": one}, {"old": one})
  for step in (8, 9, 10, 11):
    store.save(step, state, {})
    store.wait()
  store.close()
  later = Store(tmp_path / "checkpoints", keep=2, keep_every=4)
  later.prune()
  assert later.steps() == [8, 10, 11]
  later.close()
