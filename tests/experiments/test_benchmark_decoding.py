from __future__ import annotations

import dataclasses
import pathlib
import sys

import pytest

from experiments.benchmarks import decoding, peer_transformers
from rl_jax.models.huggingface_config import read_config

pytestmark = pytest.mark.slow

SIZE = decoding.Size(
  model="tiny", batches=(1, 2), prompt=2, length=3, repeats=1, unroll=False
)


@pytest.mark.parametrize("name", sorted(decoding.CONFIGS))
def test_each_model_has_the_heads_of_its_width(name):
  model = read_config(decoding.CONFIGS[name])
  attention = model.attention
  assert attention.heads * attention.features == model.width
  assert SIZE.prompt + SIZE.length <= model.context


def test_a_line_for_each_number_of_rows_beside_the_peer_s(monkeypatch):
  monkeypatch.setattr(decoding, "_peer", lambda size: [[1.0], [2.0]])
  lines = decoding.measure(SIZE)
  assert [line.split()[0] for line in lines[2:]] == ["1", "2"]
  for line, expected in zip(lines[2:], (3.0, 3.0), strict=True):
    _, ours, other, times = map(float, line.split())
    assert other == expected
    assert times == pytest.approx(ours / other, rel=1e-3)


def test_without_the_peer_s_interpreter_it_is_skipped_and_said(monkeypatch):
  monkeypatch.setattr(decoding, "_seconds", lambda size, rows: [0.5])
  lines = decoding.measure(SIZE)
  assert [line.split() for line in lines[2:4]] == [["1", "6.0"], ["2", "12.0"]]
  assert "--transformers-python" in lines[-1]


def test_a_peer_that_fails_is_an_error_with_its_words(tmp_path):
  peer = tmp_path / "python"
  peer.write_text("#!/bin/sh\necho no module named torch >&2\nexit 3\n")
  peer.chmod(0o755)
  size = dataclasses.replace(SIZE, transformers_python=peer)
  with pytest.raises(RuntimeError, match="no module named torch"):
    decoding._peer(size)


def test_the_peer_s_seconds_are_read(tmp_path):
  peer = tmp_path / "python"
  peer.write_text(f"#!{sys.executable}\nprint([[0.5], [0.25]])\n")
  peer.chmod(0o755)
  size = dataclasses.replace(SIZE, transformers_python=peer)
  assert decoding._peer(size) == [[0.5], [0.25]]


def test_the_peer_uses_nothing_of_this_project():
  assert "rl_jax" not in pathlib.Path(peer_transformers.__file__).read_text()
