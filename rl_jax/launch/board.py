"""TensorBoard events, written at once and one to a row of numbers.

The summary writers of tensorboardX send every scalar through a queue between
processes, which costs more host time than a small step; events of numbers are
a few hundred bytes and go straight to their file.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from rl_jax.training.loop import Row

__all__ = ["Board"]

# The classes of these modules are made when they are imported.
_EVENT: Any = event_pb2
_SUMMARY: Any = summary_pb2


class Board:
  """One file of events.

  Args:
    directory: where TensorBoard looks; made if absent.
    step: TensorBoard hides older events later than this step.
    flush_seconds: what was written is visible after so long at most.
  """

  def __init__(
    self, directory: Path, *, step: int, flush_seconds: float = 10.0
  ) -> None:
    again = directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    # File names count in seconds; a quick restart must not reuse one.
    self._events = EventsWriter(f"{directory / 'events'}", f".{time.time_ns()}")
    self._flush_seconds, self._flushed = flush_seconds, 0.0
    if again:
      log = _EVENT.SessionLog(status=_EVENT.SessionLog.START)
      self._write(_EVENT.Event(step=step + 1 if step else 0, session_log=log))

  def add(self, row: Row) -> None:
    """Writes the numbers of a row."""
    values = [
      _SUMMARY.Summary.Value(tag=name, simple_value=value)
      for name, value in row.metrics.items()
    ]
    if values:
      summary = _SUMMARY.Summary(value=values)
      self._write(_EVENT.Event(step=row.step, summary=summary))

  def close(self) -> None:
    """Everything is on disk afterwards."""
    self._events.close()

  def _write(self, event: Any) -> None:
    event.wall_time = time.time()
    self._events.write_event(event)
    if event.wall_time - self._flushed > self._flush_seconds:
      self._events.flush()
      self._flushed = event.wall_time
