"""`rl-jax export`: what is written is what was trained, or nothing is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import data
from rl_jax.launch import main as command
from rl_jax.launch import policies
from rl_jax.launch.export import export
from rl_jax.launch.files import FileError
from rl_jax.launch.policies import Policy, load_policy
from rl_jax.models import Attention, Characters, Decoder, huggingface

pytest.importorskip("tokenizers", reason="needs the extra `language`")
pytest.importorskip("safetensors", reason="needs the extra `language`")

LETTERS = Characters(alphabet="abc ", bos="<start>", template="{{ messages }}")
MODEL = Decoder(
  vocabulary=LETTERS.size,
  width=8,
  layers=2,
  mlp=12,
  attention=Attention(heads=2, features=4, key_value_heads=1),
  context=32,
  tied=False,
)


@pytest.fixture(scope="module")
def policy() -> Policy:
  shapes = jax.eval_shape(MODEL.init, jax.random.key(0))
  draw = np.random.RandomState(0)
  params = jax.tree.map(
    lambda x: jnp.asarray(draw.normal(size=x.shape), x.dtype), shapes
  )
  return Policy(MODEL, params, LETTERS.load(), data.Plain(), None)


@pytest.fixture
def loaded(policy, monkeypatch) -> None:
  monkeypatch.setattr(policies, "load_policy", lambda name, **_: policy)


@pytest.mark.slow
def test_what_was_written_is_read_bit_for_bit(policy, tmp_path) -> None:
  export(policy, tmp_path / "a" / "out", dtype="float32")
  found = load_policy(f"{tmp_path / 'a' / 'out'}")
  jax.tree.map(np.testing.assert_array_equal, found.params, policy.params)
  assert dataclasses.replace(found.model, attention=MODEL.attention) == MODEL
  text = "<start>abc cab<end>"
  assert found.tokenizer.encode(text) == policy.tokenizer.encode(text)
  for name in ("bos", "eos", "pad", "template"):
    assert getattr(found.tokenizer, name) == getattr(policy.tokenizer, name)
  config = json.loads((tmp_path / "a" / "out" / "config.json").read_text())
  assert config["eos_token_id"] == policy.tokenizer.id("<end>")
  assert config["bos_token_id"] == policy.tokenizer.id("<start>")
  assert "pad_token_id" not in config
  assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


@pytest.mark.slow
def test_half_the_precision_is_half_the_file(policy, tmp_path) -> None:
  sizes = {}
  for dtype in ("float32", "bfloat16"):
    export(policy, tmp_path / dtype, dtype=dtype)
    found = load_policy(f"{tmp_path / dtype}")
    rounded = jax.tree.map(lambda x, d=dtype: x.astype(d), policy.params)
    jax.tree.map(
      lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.float32)),
      found.params,
      rounded,
    )
    config = json.loads((tmp_path / dtype / "config.json").read_text())
    assert config["torch_dtype"] == dtype
    sizes[dtype] = sum(x.nbytes for x in jax.tree.leaves(rounded))
  assert sizes["float32"] == 2 * sizes["bfloat16"]


def test_the_command_says_what_it_wrote(loaded, tmp_path, capsys) -> None:
  target = tmp_path / "out"
  target.mkdir()  # An empty one may be there.
  assert command.main(["export", "x", f"{target}"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == f"{target}:"
  assert [line.split()[0] for line in lines[1:]] == [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]
  for line in lines[1:]:
    name, size, _ = line.split()
    assert (target / name).stat().st_size == int(size.replace(",", ""))


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_nothing_is_overwritten(loaded, tmp_path, capsys, kind) -> None:
  target = tmp_path / "out"
  mine = target / "mine" if kind == "directory" else target
  mine.parent.mkdir(exist_ok=True)
  mine.write_text("mine")
  assert command.main(["export", "x", f"{target}"]) == 1
  assert f"rl-jax: {target} is" in capsys.readouterr().err
  assert mine.read_text() == "mine"


def test_a_decoder_of_no_family_is_refused(policy, tmp_path) -> None:
  odd = dataclasses.replace(MODEL, soft_cap=30.0)
  with pytest.raises(FileError, match=r"cannot be exported: no public family"):
    export(policy._replace(model=odd), tmp_path / "out", dtype="float32")
  assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing(policy, tmp_path, monkeypatch) -> None:
  def fail(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(huggingface, "_write", fail)
  with pytest.raises(OSError, match="No space"):
    export(policy, tmp_path / "out", dtype="float32")
  assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_of_another_model_is_refused(policy, tmp_path) -> None:
  larger = Characters(alphabet="abcdefghijk")
  wrong = policy._replace(tokenizer=larger.load())
  with pytest.raises(ValueError, match="do not belong together"):
    export(wrong, tmp_path / "out", dtype="float32")


@pytest.mark.slow
def test_a_run_is_trained_exported_and_asked(tmp_path, capsys) -> None:
  """The whole way, with the smallest of everything."""
  path = Path(__file__).parent / "sums_to_export.py"
  run, out = f"{tmp_path / 'run'}", f"{tmp_path / 'out'}"
  train = ["train", f"{path}", "--workdir", run, "--quiet"]
  assert command.main(train) == 0
  page = (tmp_path / "run" / "report.html").read_text()
  assert "Before and after" in page
  assert "Monitors" in page
  assert command.main(["export", run, out]) == 0
  capsys.readouterr()
  asked = ["--prompt", "1 + 2 =", "--samples", "4", "--length", "3", "--json"]
  answers = []
  for name in (run, out):
    assert command.main(["generate", name, *asked]) == 0
    answers.append(capsys.readouterr().out)
  assert answers[0] == answers[1]
  assert answers[0].count("\n") == 4
