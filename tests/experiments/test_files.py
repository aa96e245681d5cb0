"""Every experiment file keeps its promises, shrunk to seconds."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import math
import pathlib
import re

import jax
import pytest

from experiments.process_rewards import clip_delta_task
from rl_jax import algorithms, data, environments, evaluation, models
from rl_jax.algorithms import estimators
from rl_jax.experiment import Experiment, Trained, stages
from rl_jax.launch.main import main
from rl_jax.launch.run import compile_abstractly, train
from rl_jax.training.doctor import Collapse
from rl_jax.training.sharding import make_mesh
from training import tiny

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]


def holds_experiment(path):
  return any(
    isinstance(node, ast.Assign)
    and any(getattr(t, "id", None) == "experiment" for t in node.targets)
    for node in ast.parse(path.read_text()).body
  )


FILES = sorted(
  path.relative_to(ROOT)
  for path in (ROOT / "experiments").rglob("*.py")
  if holds_experiment(path)
)


def module_of(path):
  return importlib.import_module(".".join(path.with_suffix("").parts))


def is_full_scale(path):
  """Whether it starts from a folder of weights that nobody has here."""
  start = module_of(path).experiment.start
  weights = getattr(start, "weights", None)
  return isinstance(weights, models.Folder)


FULL_SCALE = [path for path in FILES if is_full_scale(path)]
SMALL = [path for path in FILES if path not in FULL_SCALE]


def shrunk(value):
  """The same experiment with less of everything, and its stages too."""
  if isinstance(value, Trained):
    return Trained(by=shrunk(value.by))
  if isinstance(value, tuple):
    return tuple(map(shrunk, value))
  if not dataclasses.is_dataclass(value) or isinstance(value, type):
    return value
  fields = {
    field.name: shrunk(getattr(value, field.name))
    for field in dataclasses.fields(value)
  }
  if isinstance(value, Experiment):
    fields |= {"steps": 2, "expected": ()}
  if isinstance(value, data.Digits) and value.split == "train":
    fields["rows"] = 6400
  if isinstance(value, (algorithms.FlowMatching, algorithms.Classification)):
    fields["updates"] = 50
  if isinstance(value, evaluation.Samples):
    fields |= {"rows_per_class": 8, "every": 2}
  if isinstance(value, evaluation.Accuracy):
    fields["every"] = 2
  if isinstance(value, (evaluation.TextSamples, evaluation.BeamRanking)):
    fields |= {"prompts": 4, "every": 2}
  if isinstance(value, clip_delta_task.StepScores):
    fields["updates"] = 2
  if isinstance(value, estimators.BonusCalibrated):
    fields["k"] = min(value.k, 2)
  if isinstance(value, (environments.Sums, data.Preferences)):
    fields["rows"] = min(value.rows, 4)
  if isinstance(value, algorithms.PolicyOptimisation):
    fields["group_size"] = min(value.group_size, 2)
  return type(value)(**fields)


EIGHT = jax.devices


@pytest.fixture(scope="session")
def root(tmp_path_factory):
  """Results of shrunk stages, shared by all tests."""
  return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def _here(monkeypatch, root):
  monkeypatch.chdir(ROOT)
  monkeypatch.setenv("TFDS_DATA_DIR", str(root / "data"))
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)


def test_there_are_files():
  assert len(FILES) >= 5


@pytest.mark.parametrize("path", FILES, ids=str)
def test_docstring_says_command_time_result_and_variations(path):
  text = module_of(path).__doc__
  assert f"\n  rl-jax train {path}\n" in text
  for word in ("What it shows:", "Time:", "Expected:", "Variations:"):
    assert f"\n{word}" in text
  assert len(text.splitlines()[0]) <= 79
  assert text.splitlines()[0].endswith(".")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_variations_parse_and_change_something(path, capsys):
  text = module_of(path).__doc__
  _, variations = text.split("Variations:")
  flags = re.findall(r"--[\w.-]+\s+[^\s;,]+", variations)
  assert len(flags) >= 2
  for flag in flags:
    assert main(["show", str(path), *flag.split()]) == 0
    assert "changed from the file:" in capsys.readouterr().out


@pytest.mark.parametrize("path", SMALL, ids=str)
def test_two_steps_of_each(path, root):
  experiment = shrunk(module_of(path).experiment)
  outcome = train(experiment, root=root, observers=tiny.watched()[1])
  assert (outcome.status, outcome.step) == ("finished", 2)
  measured = set(outcome.evaluation)
  bands = module_of(path).experiment.expected
  assert {band.metric for band in bands} <= measured, "measured as promised"


@pytest.mark.parametrize("path", FULL_SCALE, ids=str)
def test_each_full_scale_step_compiles_from_shapes(path, monkeypatch):
  """Sharded over eight devices, with no weight and no row of data."""
  monkeypatch.setattr(jax, "devices", EIGHT)
  experiment = module_of(path).experiment
  mesh = make_mesh(data=1, fsdp=4, tensor=2)
  for each in (*(stage.by for stage in stages(experiment)), experiment):
    compiled = compile_abstractly(each, mesh)
    params = jax.tree.leaves(compiled.abstract_state.params)
    held = sum(math.prod(x.sharding.shard_shape(x.shape)) for x in params)
    whole = sum(x.size for x in params)
    assert whole > 1e9
    # All but the norms, and a scale or two, is split over all of them.
    assert whole / 8 <= held < 1.01 * whole / 8


def test_divergence_of_the_paper_is_stopped_by_the_guard(root):
  """Uniform weighting, advantages up to 5, no base: the spread explodes."""
  wild = shrunk(
    module_of(pathlib.Path("experiments/flow/digits_awm.py")).experiment
  )
  wild = dataclasses.replace(
    wild,
    algorithm=dataclasses.replace(
      wild.algorithm,
      weighting="uniform",
      advantage_maximum=5.0,
      base_weight=0.0,
    ),
    evaluation=None,
    steps=100,
  )
  recorder, observers = tiny.watched()
  with pytest.raises(Collapse, match=r"sample_std = .* left the band"):
    train(wild, root=root, observers=observers)
  spread = [row.metrics["sample_std"] for row in recorder.rows]
  assert max(spread) < 10
  saved = [step for kind, step, *_ in recorder.events if kind == "saved"]
  assert max(saved) < recorder.rows[-1].step
