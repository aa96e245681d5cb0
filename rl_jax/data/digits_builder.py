"""The 1797 optical digits as a tensorflow-datasets builder, no TensorFlow.

Kept apart from `rl_jax.data.digits` because importing tensorflow-datasets
takes a second that an experiment file should not pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow_datasets as tfds

if TYPE_CHECKING:
  from collections.abc import Iterator

__all__ = ["EXAMPLES", "PIXELS", "OpticalDigits"]

EXAMPLES = {"train": 1400, "test": 397}
PIXELS = 64


class OpticalDigits(tfds.core.GeneratorBasedBuilder):
  """8x8 grey digits of 13 writers, as scikit-learn ships them.

  `image` is pixels / 8 - 1, in [-1, 1]. The split is one fixed permutation
  (`RandomState(0)`, whose stream NumPy has frozen): the first 1400 train, the
  last 397 test.
  """

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012, read by tfds

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="UCI optical recognition of handwritten digits, test part.",
      homepage="https://archive.ics.uci.edu/dataset/80",
      license="CC BY 4.0",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Tensor(shape=(PIXELS,), dtype=np.float32),
          "label": tfds.features.ClassLabel(num_classes=10),
        }
      ),
      # Rows keep the order of the permutation, whatever tfds hashes.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
    del dl_manager  # nothing is downloaded
    image, label = _load()
    cut = EXAMPLES["train"]
    return {
      "train": self._generate_examples(image[:cut], label[:cut]),
      "test": self._generate_examples(image[cut:], label[cut:]),
    }

  def _generate_examples(
    self, image: np.ndarray, label: np.ndarray
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for index in range(len(image)):
      yield index, {"image": image[index], "label": int(label[index])}


def _load() -> tuple[np.ndarray, np.ndarray]:
  try:
    from sklearn.datasets import load_digits
  except ImportError as error:
    raise ImportError(
      "the digits ship inside scikit-learn, which is not installed:"
      " pip install rl-jax[digits]"
    ) from error
  pixels, label = load_digits(return_X_y=True)
  order = np.random.RandomState(0).permutation(len(pixels))
  return (pixels[order] / 8 - 1).astype(np.float32), label[order]
