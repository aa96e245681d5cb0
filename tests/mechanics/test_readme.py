"""What the README shows is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rl_jax.launch.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"rl-jax (train \S+\.py[^\n`]*)", README)


def test_the_example_prints_what_it_must(capsys):
  # Advantages 1, -1, 0 (alone), 0 (invalid) on 3, 2, 3, 0 counted tokens: the
  # loss is -A, so (-3 + 2 + 0) / 8.
  exec(compile(SNIPPETS[0], "README.md", "exec"), {})
  assert float(capsys.readouterr().out) == pytest.approx(-0.125, abs=1e-6)


def test_the_python_snippets_are_short():
  assert len(SNIPPETS[0].splitlines()) <= 22


def test_the_commands_parse(monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  assert COMMANDS
  for command in COMMANDS:
    # `show` takes the same overrides and runs nothing.
    assert main(command.replace("train", "show", 1).split()) == 0
  assert "learning_rate: 0.002 -> 0.004" in capsys.readouterr().out


def test_links_lead_somewhere():
  for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
    assert (ROOT / target).exists(), target


def test_the_two_commands_are_there():
  for what in ("rl-jax train experiments/flow/digits_awm.py", "pytest"):
    assert f"python3 -m pip install uv && python3 -m uv run {what}" in README
