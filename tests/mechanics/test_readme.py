"""What the README shows is true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from rl_jax import models
from rl_jax.launch.main import main
from rl_jax.models import huggingface

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"rl-jax (train \S+\.py[^\n`]*)", README)


def test_the_example_prints_what_it_must(capsys):
  # Advantages 1, -1, 0 (alone), 0 (invalid) on 3, 2, 3, 0 counted tokens: the
  # loss is -A, so (-3 + 2 + 0) / 8.
  exec(compile(SNIPPETS[0], "README.md", "exec"), {})
  assert float(capsys.readouterr().out) == pytest.approx(-0.125, abs=1e-6)


@pytest.mark.slow
def test_one_s_own_model_data_and_reward_train(tmp_path):
  """The three snippets are one file that runs, and its result can be used."""
  [first] = [i for i, text in enumerate(SNIPPETS) if "my-model" in text]
  mine = "\n".join(SNIPPETS[first : first + 3])
  (tmp_path / "mine.py").write_text(f'"""Mine."""\n{mine}')
  answers = [{"prompt": f"{n} + 1", "answer": f"{n + 1}"} for n in range(8)]
  answers.append({"prompt": "9 + 9", "answer": ""})
  lines = "".join(json.dumps(item) + "\n" for item in answers)
  (tmp_path / "my-prompts.jsonl").write_text(lines)
  _write_model(tmp_path / "my-model")
  path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
  environment = os.environ | {"PYTHONPATH": path}

  def run(*command: str) -> str:
    done = subprocess.run(
      [sys.executable, *command],
      cwd=tmp_path,
      env=environment,
      capture_output=True,
      text=True,
      timeout=300,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  run("mine.py")
  result = json.loads((tmp_path / "runs/mine/result.json").read_text())
  assert result["status"] == "finished"
  cli = ("-m", "rl_jax.launch.main")
  run(*cli, "export", "runs/mine", "exported")
  assert (tmp_path / "exported/model.safetensors").exists()
  asked = ("--prompt", "1 + 1 =", "--length", "3", "--json")
  said = json.loads(run(*cli, "generate", "exported", *asked))
  assert said["prompt"] == "1 + 1 ="


def _write_model(folder: Path) -> None:
  vocabulary = models.Characters(alphabet="0123456789+= ")
  model = models.Decoder(
    vocabulary=vocabulary.size,
    width=16,
    layers=1,
    mlp=32,
    attention=models.Attention(heads=2, features=8),
    context=64,
  )
  params = model.init(jax.random.key(0))
  huggingface.save(folder, model, params, dtype="float32")
  vocabulary.load().save(folder)


def test_the_python_snippets_are_short():
  assert len(SNIPPETS[0].splitlines()) <= 22


def test_the_commands_parse(monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  assert COMMANDS
  for command in COMMANDS:
    if "mine.py" in command:
      continue  # Of the reader's own, in the test after this one.
    # `show` takes the same overrides and runs nothing.
    assert main(command.replace("train", "show", 1).split()) == 0
  assert "learning_rate: 0.002 -> 0.004" in capsys.readouterr().out


def test_links_lead_somewhere():
  for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
    assert (ROOT / target).exists(), target


def test_the_two_commands_are_there():
  for what in ("rl-jax train experiments/flow/digits_awm.py", "pytest"):
    assert f"python3 -m pip install uv && python3 -m uv run {what}" in README
