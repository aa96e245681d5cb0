import subprocess
import sys

import numpy as np
import pytest

from rl_jax.data import Digits, digits, digits_builder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A folder in which the files exist."""
  folder = tmp_path_factory.mktemp("tfds")
  digits._prepared(str(folder))
  return folder


@pytest.fixture
def copied(prepared, tmp_path, monkeypatch):
  """A copy of that folder that a test may damage, as the one in use."""
  for file in (prepared / "optical_digits" / "1.0.0").iterdir():
    target = tmp_path / "optical_digits" / "1.0.0" / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.read_bytes())
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  return tmp_path


def everything(split):
  source = Digits(rows=1, split=split).source()
  return source[np.arange(len(source))]


def record(folder, split):
  (file,) = (folder / "optical_digits" / "1.0.0").glob(f"*-{split}.*")
  return file


@pytest.mark.slow
def test_splits_are_the_digits_of_scikit_learn_in_the_fixed_order(copied):
  # Here, because it takes seconds to import.
  from sklearn.datasets import load_digits

  pixels, label = load_digits(return_X_y=True)
  order = np.random.RandomState(0).permutation(1797)
  train, test = everything("train"), everything("test")
  assert len(train["sample"]) == 1400
  assert len(test["sample"]) == 397
  sample = np.concatenate([train["sample"], test["sample"]])
  condition = np.concatenate([train["condition"], test["condition"]])
  np.testing.assert_array_equal(sample, pixels[order] / 8 - 1)
  np.testing.assert_array_equal(condition, label[order])


@pytest.mark.slow
def test_shapes_types_and_spread(copied):
  items = everything("train")
  assert items["sample"].shape == (1400, 64)
  assert items["sample"].dtype == np.float32
  assert items["condition"].dtype == np.int32
  # The spread that the paper notes state for real digits.
  assert abs(items["sample"].std() - 0.752) < 5e-4


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 100, 98304, -1])
def test_truncated_file_is_named(copied, cut):
  file = record(copied, "test")
  file.write_bytes(file.read_bytes()[:cut])
  with pytest.raises(ValueError, match=rf"damaged data file {file}.*made ag"):
    everything("test")
  assert len(everything("train")["sample"]) == 1400


@pytest.mark.slow
def test_no_flipped_bit_changes_a_pixel_unseen(copied):
  """Each is named, or fell where no record is (files are padded to 64 KiB)."""
  good = everything("test")
  file = record(copied, "test")
  content = file.read_bytes()
  named, harmless = 0, 0
  for position in np.random.RandomState(0).randint(len(content), size=24):
    damaged = bytearray(content)
    damaged[position] ^= 1 << (position % 8)
    file.write_bytes(damaged)
    try:
      read = everything("test")
    except ValueError as error:
      named += str(file) in str(error)
    else:
      np.testing.assert_equal(read, good)
      harmless += 1
  assert named + harmless == 24
  assert named > 4


def test_a_hole_in_the_records_is_named(copied):
  file = record(copied, "test")
  content = bytearray(file.read_bytes())
  middle = len(content) // 4
  content[middle : middle + 64] = bytes(64)
  file.write_bytes(content)
  with pytest.raises(ValueError, match=str(file)):
    everything("test")


def test_missing_file_is_named(copied):
  file = record(copied, "test")
  file.unlink()
  with pytest.raises(ValueError, match=str(file)):
    everything("test")


@pytest.mark.parametrize(
  ("image", "label"), [(np.nan, 0), (1.5, 0), (0.0, 10), (0.0, -1)]
)
def test_values_out_of_range_are_refused(prepared, monkeypatch, image, label):
  """A NaN pixel is not inside [-1, 1] either."""
  builder = digits._prepared(str(prepared))
  item = {"image": np.full(64, image, np.float32), "label": label}
  monkeypatch.setattr(builder, "as_data_source", lambda **_: [item] * 397)
  with pytest.raises(ValueError, match="out of range"):
    digits._read(builder, "test")


def test_wrong_count_is_refused(prepared, monkeypatch):
  builder = digits._prepared(str(prepared))
  item = {"image": np.zeros(64, np.float32), "label": 0}
  monkeypatch.setattr(builder, "as_data_source", lambda **_: [item] * 3)
  with pytest.raises(ValueError, match=r"\(3, 64\), not \(397, 64\)"):
    digits._read(builder, "test")


@pytest.mark.slow
def test_second_preparation_at_the_same_time_uses_the_first(
  tmp_path, monkeypatch
):
  """The other process finishes while this one is still writing."""
  load, depth = digits_builder._load, []

  def interrupted():
    if not depth:
      depth.append(1)
      digits._prepared(str(tmp_path))
    return load()

  monkeypatch.setattr(digits_builder, "_load", interrupted)
  builder = digits._prepared(str(tmp_path))
  assert depth == [1]
  assert len(digits._read(builder, "test")) == 397
  left = [path.name for path in (tmp_path / "optical_digits").iterdir()]
  assert left == ["1.0.0"]


def test_preparation_that_fails_leaves_nothing(tmp_path, monkeypatch):
  def full():
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(digits_builder, "_load", full)
  with pytest.raises(OSError, match="No space left"):
    digits._prepared(str(tmp_path))
  assert not list(tmp_path.rglob("*.array_record*"))


def test_preparation_is_quiet(tmp_path, capfd):
  digits._prepared(str(tmp_path))
  assert capfd.readouterr() == ("", "")


def test_without_scikit_learn_the_message_says_what_to_install(
  tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
  with pytest.raises(ImportError, match=r"pip install rl-jax\[digits\]"):
    digits._prepared(str(tmp_path))


@pytest.mark.slow
def test_no_tensorflow_and_no_early_import_of_the_builder(copied):
  """The experiment file pays for tensorflow-datasets on first use only."""
  code = (
    "import sys, rl_jax.data as data\n"
    "assert 'tensorflow_datasets' not in sys.modules\n"
    "data.Digits(rows=2).source()\n"
    "assert 'tensorflow_datasets' in sys.modules\n"
    "assert 'tensorflow' not in sys.modules\n"
    "assert 'sklearn' not in sys.modules\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"rows": 0}, "rows must be at least 1, got 0"),
    ({"rows": 1, "split": "valid"}, "'train' or 'test', got 'valid'"),
  ],
)
def test_bad_fields_are_refused(fields, words):
  with pytest.raises(ValueError, match=words):
    Digits(**fields)
