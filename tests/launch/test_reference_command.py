"""`rl-jax reference`: a file from which `rl-jax train` then trains."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

pytest.importorskip("tokenizers", reason="needs the extra `language`")

from rl_jax.data.reference_scores import read_reference
from rl_jax.launch import main as command

FILE = '''"""Preferences between sums, after imitation of one of them."""
from __future__ import annotations
from functools import partial
from rl_jax import algorithms, data, environments, losses, models
from rl_jax.experiment import Experiment, Trained
from rl_jax.training.optimisers import AdamW

WORDS = models.Characters(alphabet="0123456789+= ")
MODEL = models.Decoder(
  vocabulary=WORDS.size, width=8, layers=1, mlp=8,
  attention=models.Attention(heads=2, features=4), context=16,
)
OPTIMISER = AdamW(learning_rate=1e-2)
base = Experiment(
  name="base", model=MODEL, steps=1,
  data=data.Demonstrations(
    task=environments.Sums(rows=2, digits=1, length=4),
    vocabulary=WORDS, length=12, pack=False,
  ),
  algorithm=algorithms.FineTuning(optimiser=OPTIMISER),
)
experiment = Experiment(
  name="sums_dpo", model=MODEL, steps=2, start=Trained(by=base),
  data=data.Preferences(
    rows=2, pairs=(("1+1=", "2", "3"), ("2+2=", "4", "22"), ("3+3=", "6", "9")),
    vocabulary=WORDS, length=8, identical="refuse",
  ),
  algorithm=algorithms.PreferenceOptimisation(
    loss=partial(losses.logistic_preference_loss, beta=0.5), beta=0.5,
    optimiser=OPTIMISER,
  ),
)
'''


@pytest.fixture
def toy(folder, monkeypatch) -> str:
  monkeypatch.chdir(folder)
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)
  (folder / "sums_dpo_toy.py").write_text(FILE)
  return "sums_dpo_toy.py"


@pytest.mark.slow
def test_what_is_stored_is_trained_from(toy, capsys) -> None:
  """What it starts from is run first; other pairs and starts are refused."""
  assert command.main(["reference", toy, "out/r.npz"]) == 0
  said = capsys.readouterr().out
  assert said.startswith("as the file has it\n")
  assert "sums_dpo, reference: 2 steps" in said
  assert "chosen_nats" in said
  assert said.endswith("out/r.npz: to use it, --data.reference out/r.npz\n")
  assert len(read_reference("out/r.npz").chosen) == 3
  assert list(Path("runs").glob("base-*/result.json"))
  train = ["train", toy, "--quiet", "--data.reference", "out/r.npz"]
  # The doctor checks that the first margin is zero.
  assert command.main(train) == 0
  assert list(Path("runs").glob("sums_dpo-*/result.json"))
  again = ["reference", toy, "out/r.npz"]
  assert command.main(again) == 1
  assert "is there already: remove it" in capsys.readouterr().err
  other = [*train, "--start.by.seed", "1", "--workdir", "other"]
  assert command.main(other) == 1
  assert "out/r.npz is of another policy" in capsys.readouterr().err
  source = Path(toy).read_text().replace('"22"', '"23"')
  Path("other_pairs_toy.py").write_text(source)
  train[1] = "other_pairs_toy.py"
  assert command.main([*train, "--workdir", "third"]) == 1
  assert "is of data of digest" in capsys.readouterr().err


def test_what_has_no_reference_is_one_line(toy, capsys) -> None:
  code = command.main(
    ["reference", toy, "x.npz", "--algorithm.reference", "False"]
  )
  assert code == 1
  found = capsys.readouterr()
  assert "algorithm.reference: True -> False" in found.out
  assert found.err == "rl-jax: sums_dpo has no reference: reference = False\n"
  assert not Path("x.npz").exists()


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["--help"], ["example:", "--data.reference reference.npz", "OUT"]),
    (["FILE", "x.npz", "--help"], ["--data.reference", "--model.width"]),
  ],
)
def test_help_helps(toy, capsys, arguments, said) -> None:
  arguments = [toy if x == "FILE" else x for x in arguments]
  with pytest.raises(SystemExit) as caught:
    command.main(["reference", *arguments])
  assert not caught.value.code
  out = capsys.readouterr().out
  assert all(part in out for part in said)


def test_bad_usage_is_2(toy, capsys) -> None:
  for given in (["reference"], ["reference", toy]):
    with pytest.raises(SystemExit) as caught:
      command.main(given)
    assert caught.value.code == 2
  with pytest.raises(SystemExit) as caught:
    command.main(["reference", toy, "x.npz", "--data.row", "3"])
  assert caught.value.code == 2
  assert "--data.rows" in capsys.readouterr().err
