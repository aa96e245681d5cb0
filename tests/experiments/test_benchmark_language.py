from __future__ import annotations

import ast
import dataclasses
import json
import pathlib
import sys

import jax
import numpy as np
import pytest

from experiments.benchmarks import (
  language_step,
  peer_trl_step,
  peer_tunix_step,
  policy_step,
)
from rl_jax.algorithms import Scoring
from rl_jax.models import Folder

PEERS = (peer_trl_step, peer_tunix_step)
STEP = policy_step.Size(
  model="tiny",
  rows=4,
  prompt=2,
  length=3,
  group_size=2,
  scoring=Scoring(chunk_tokens=8, chunk_vocabulary=64),
)
SIZE = language_step.Size(
  model="tiny",
  prompts=1,
  group_size=2,
  length=2,
  steps=2,
  warm_up=1,
  unroll=False,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  place = tmp_path_factory.mktemp("exported") / "model"
  language_step.export("tiny", place)
  return place


@pytest.mark.slow
def test_the_prompts_are_of_one_length_and_enough_for_all_steps(folder):
  tokenizer = Folder(path=f"{folder}").load()
  size = dataclasses.replace(SIZE, prompts=3, steps=4)
  texts = language_step.prompts(size)
  assert len(texts) == 12
  assert len({len(tokenizer.encode(text)) for text in texts}) == 1


@pytest.mark.slow
def test_the_work_of_ours_is_the_work_that_peers_are_given(folder):
  own = language_step.experiment(SIZE, folder)
  work = language_step._work(SIZE, folder)
  assert own.data.rows == work["rows"]
  assert [origin for (origin,) in own.data.task.origin] == work["prompts"]
  algorithm = own.algorithm
  assert algorithm.group_size == work["group_size"]
  assert algorithm.sampler.length == work["length"]
  assert algorithm.sampler.stops.size == 0
  assert algorithm.optimiser.learning_rate == work["learning_rate"]
  assert (own.model.lora, own.model.remat) == (None, "none")
  json.dumps(work)


def test_what_is_counted_must_be_something():
  with pytest.raises(ValueError, match="warm_up = 2 and steps = 2"):
    dataclasses.replace(SIZE, warm_up=2)
  with pytest.raises(ValueError, match="warm_up = 0"):
    dataclasses.replace(SIZE, warm_up=0)


def _fake(place, text):
  peer = place / "python"
  peer.write_text(text)
  peer.chmod(0o755)
  return peer


@pytest.mark.slow
def test_a_peer_is_given_the_work_and_its_answer_is_read(tmp_path):
  (tmp_path / "model").mkdir()
  peer = _fake(
    tmp_path,
    f"#!{sys.executable}\n"
    "import json, os, sys\n"
    "work = json.load(sys.stdin)\n"
    "assert os.environ['HF_HUB_OFFLINE'] == '1'\n"
    "name = sys.argv[1] + sys.argv[2].rpartition('/')[2]\n"
    "print(json.dumps({'name': name, 'seconds': [[work['steps'], 0]]}))\n",
  )
  work = language_step._work(SIZE, tmp_path / "model")
  found = language_step._asked(peer, "trl", work)
  assert found == ("-Ipeer_trl_step.py", [[2, 0]])


@pytest.mark.slow
def test_a_peer_that_fails_is_an_error_with_its_words(tmp_path):
  peer = _fake(tmp_path, "#!/bin/sh\necho no module named trl >&2\nexit 3\n")
  work = language_step._work(SIZE, tmp_path / "model")
  with pytest.raises(RuntimeError, match="no module named trl"):
    language_step._asked(peer, "trl", work)


@pytest.mark.parametrize(("slower", "holds"), [(2.0, True), (1.5, False)])
def test_the_claim_is_about_medians_after_the_first_steps(slower, holds):
  size = dataclasses.replace(SIZE, steps=4)
  found = [
    language_step.Seen("ours", [(x, 3.0) for x in (9, 7, 1, 1)], 0.5),
    language_step.Seen("trl", [(x, 9.0) for x in (0, 0, slower, slower)], 0.5),
  ]
  lines, seen = language_step._table(size, found, ["tunix"])
  assert seen is holds
  assert [word for word in lines[3].split() if word.endswith("x")] == [
    f"{slower:.2f}x",
    "3.00x",
  ]
  assert "--tunix-python" in lines[4]
  assert lines[-1].endswith("holds here" if holds else "does not hold here")


@pytest.mark.parametrize("peer", PEERS, ids=lambda x: x.__name__)
def test_peers_use_nothing_of_this_project(peer):
  # Another environment's interpreter may be older, too.
  text = pathlib.Path(peer.__file__).read_text()
  assert "rl_jax" not in text
  ast.parse(text, feature_version=(3, 11))


def test_the_forms_are_named_by_what_the_claim_compares():
  first, *_, last = policy_step.FORMS
  assert (first, last) == (policy_step.PLAIN, policy_step.OURS)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_all_forms_of_a_step_compute_the_same(lora):
  arguments = policy_step.inputs(STEP, lora=lora)
  plain, ours = (
    jax.jit(policy_step.step(STEP, policy_step.FORMS[name], lora=lora))(
      *arguments
    )
    for name in (policy_step.PLAIN, policy_step.OURS)
  )
  gradient, other = map(jax.tree.leaves, (plain[1], ours[1]))
  np.testing.assert_allclose(ours[0], plain[0], rtol=1e-5, atol=1e-6)
  assert max(np.abs(leaf).max() for leaf in gradient) > 1e-4
  for mine, theirs in zip(other, gradient, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_memory_is_told_for_every_form_twice_and_no_time(monkeypatch):
  monkeypatch.setattr(
    policy_step,
    "FORMS",
    {
      name: policy_step.FORMS[name]
      for name in (policy_step.PLAIN, policy_step.OURS)
    },
  )
  lines, holds = policy_step.measure(STEP)
  named = [line for line in lines if line.startswith(tuple(policy_step.FORMS))]
  assert len(named) == 4
  assert not any(line.endswith(" s") for line in lines)
  shares = [float(line.split()[-1]) for line in named]
  assert shares[0] == shares[2] == 1.0
  assert holds == (max(shares[1], shares[3]) <= 0.1)


@pytest.mark.slow
def test_our_steps_run_and_peers_that_are_missing_are_said():
  lines, holds = language_step.measure(SIZE)
  assert holds
  assert lines[2].startswith("rl_jax")
  assert [line.split(":")[0] for line in lines[3:]] == ["trl", "tunix"]
