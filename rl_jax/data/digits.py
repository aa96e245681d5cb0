"""Real handwritten digits, small enough for a laptop."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rl_jax.data.source import Arrays

if TYPE_CHECKING:
  from collections.abc import Callable

  from rl_jax.data.source import Source

__all__ = ["Digits"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits:
  """The 1797 optical digits, 8x8 pixels in [-1, 1].

  Items are {"sample": float32 [row, 64], "condition": int32 [row]}. The first
  use writes array_record files below `TFDS_DATA_DIR` (or the default folder
  of tensorflow-datasets); later uses read them.

  Raises:
    ValueError: if `rows` is below 1 or `split` is unknown.
  """

  rows: int
  """Images of a batch; may exceed the size of the split."""
  split: Literal["train", "test"] = "train"
  """1400 images to learn from, or 397 held out."""
  shuffle: bool = True
  """Whether every pass over the images has an order of its own."""

  def __post_init__(self):
    if self.rows < 1:
      raise ValueError(f"rows must be at least 1, got {self.rows}")
    if self.split not in ("train", "test"):
      raise ValueError(f"split must be 'train' or 'test', got {self.split!r}")

  def source(self) -> Source:
    """The split, in memory.

    Raises:
      ImportError: if the files have to be made and scikit-learn is missing.
      ValueError: if a file is damaged, with its name.
    """
    return _read(_prepared(os.environ.get("TFDS_DATA_DIR")), self.split)


def _prepared(data_dir: str | None) -> Any:
  """A builder whose files exist."""
  from rl_jax.data.digits_builder import OpticalDigits

  def builder() -> OpticalDigits:
    return OpticalDigits(data_dir=data_dir, file_format="array_record")

  # tensorflow-datasets announces a download that never happens.
  with contextlib.ExitStack() as quiet:
    quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
    quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
    return _prepare(builder)


def _prepare(builder: Callable[[], Any]) -> Any:
  made = builder()
  try:
    made.download_and_prepare()
  except OSError:
    # Every process writes to a folder of its own and renames it at the end.
    # Whoever comes second finds the place taken by equal files: use those.
    if not made.data_path.exists():
      raise
    made = builder()
  return made


def _read(builder: Any, split: str) -> Arrays:
  from rl_jax.data.digits_builder import EXAMPLES, PIXELS

  files = [os.fspath(file) for file in builder.info.splits[split].filepaths]
  try:
    items = list(builder.as_data_source(split=split))
    image = np.stack([item["image"] for item in items]).astype(np.float32)
    label = np.array([item["label"] for item in items], np.int32)
  except Exception as error:  # the reader's own types are not public
    raise ValueError(_damaged(files, f"{error}")) from error
  if image.shape != (EXAMPLES[split], PIXELS):
    raise ValueError(
      _damaged(files, f"holds {image.shape}, not {(EXAMPLES[split], PIXELS)}")
    )
  # The hashes of array_record find flipped bits; this finds files that
  # another version wrote. "Not all inside", so that NaN is outside.
  if not (np.all(abs(image) <= 1) and np.all((label >= 0) & (label < 10))):
    raise ValueError(_damaged(files, "pixels or labels out of range"))
  return Arrays({"sample": image, "condition": label})


def _damaged(files: list[str], reason: str) -> str:
  return (
    f"damaged data file {', '.join(files)}: {reason}. Delete the folder"
    f" {os.path.dirname(files[0])} and it is made again."
  )
