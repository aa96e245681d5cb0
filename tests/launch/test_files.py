"""Experiment files: found without running them, loaded with clear errors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rl_jax.experiment import Trained
from rl_jax.launch.files import FileError, find, load

GOOD = '''"""A toy.

  rl-jax train toy.py

Nothing else.
"""
from rl_jax.experiment import Experiment
experiment = Experiment(name="toy", model=1, data=2, algorithm=3, steps=4)
'''


def write(path: Path, content: str = GOOD) -> Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(content)
  return path


def refusal(path: Path) -> str:
  with pytest.raises(FileError) as caught:
    load(path)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_a_file_alone_is_loaded_with_its_docstring(folder) -> None:
  experiment, said = load(write(folder / "launch_alone.py"))
  assert experiment.steps == 4
  assert said == "A toy.\n\n  rl-jax train toy.py\n\nNothing else."


def test_a_file_without_docstring_says_nothing(folder) -> None:
  path = write(folder / "launch_mute.py", GOOD[GOOD.index("from") :])
  assert load(path)[1] == ""


def test_files_of_a_package_import_each_other(folder) -> None:
  """The root goes on the path: the directory above the outermost package."""
  package = folder / "launch_pkg" / "inner"
  write(package.parent / "__init__.py", "")
  write(package / "__init__.py", "")
  write(package / "base.py")
  after = write(
    package / "after.py",
    "import dataclasses\n"
    "from rl_jax.experiment import Trained\n"
    "from launch_pkg.inner import base\n"
    "experiment = dataclasses.replace("
    "base.experiment, start=Trained(by=base.experiment))\n",
  )
  experiment, _ = load(after)
  assert isinstance(experiment.start, Trained)
  assert sys.path[0] == str(folder)
  assert "launch_pkg.inner.after" in sys.modules


def test_a_relative_path_is_loaded(folder, monkeypatch) -> None:
  write(folder / "launch_relative.py")
  monkeypatch.chdir(folder)
  assert load(Path("launch_relative.py"))[0].name == "toy"


def test_a_missing_file_suggests_a_near_one(folder) -> None:
  write(folder / "digits_awm.py")
  said = refusal(folder / "digits_amw.py")
  assert "does not exist; perhaps" in said
  assert said.endswith("digits_awm.py")
  assert refusal(folder / "no" / "x.py").endswith("x.py does not exist")


def test_a_directory_points_to_list(folder) -> None:
  assert f"`rl-jax list {folder}`" in refusal(folder)


def test_other_files_are_refused(folder) -> None:
  assert "is not a Python file" in refusal(write(folder / "notes.md", "# x"))


@pytest.mark.parametrize(
  ("content", "said"),
  [
    ("", "it has no value of that name"),
    ("experiment = 3", "it has a int of that name"),
    ("experiment = 'x'", "it has a str of that name"),
  ],
)
def test_a_file_without_an_experiment_says_what_it_needs(
  folder, content: str, said: str
) -> None:
  path = write(folder / "launch_empty.py", content)
  assert "experiment = rl_jax.Experiment(...)" in refusal(path)
  assert said in refusal(path)


@pytest.mark.parametrize(
  ("content", "line", "said"),
  [
    ("x = 1\ny = 1 / 0", 2, "ZeroDivisionError: division by zero"),
    ("x = 1\n\nif:", 3, "invalid syntax"),
    ("import launch_no_such", 1, "No module named 'launch_no_such'"),
    (GOOD.replace("steps=4", "steps=0"), 8, "steps must be at least 1, got 0"),
    (GOOD.replace("steps=4", "stops=4"), 8, "argument 'stops'"),
    ("def f():\n  raise KeyError('k')\nf()", 2, "KeyError: 'k'"),
  ],
)
def test_a_file_that_raises_is_named_with_the_line(
  folder, content: str, line: int, said: str
) -> None:
  path = write(folder / "launch_broken.py", content)
  message = refusal(path)
  assert message.startswith(f"{path}:{line}: ")
  assert said in message


def test_a_name_that_is_taken_is_said(folder) -> None:
  assert "rename the file" in refusal(write(folder / "json.py"))


def test_a_broken_file_can_be_mended_and_loaded_again(folder) -> None:
  path = write(folder / "launch_mended.py", "1 / 0")
  refusal(path)
  write(path, GOOD + "# Another size, so that no cached code is used.\n")
  assert load(path)[0].name == "toy"


def test_listing_runs_nothing(folder) -> None:
  write(folder / "a.py", GOOD + "raise SystemExit\n")
  write(folder / "b" / "typed.py", "experiment: object = None")
  write(folder / "b" / "declared.py", "experiment: object")
  write(folder / "b" / "inside.py", "def f():\n  experiment = 1")
  write(folder / "b" / "helper.py", "other = 1")
  write(folder / "c.py", "if:")
  found = find(folder)
  assert [f.path.relative_to(folder).as_posix() for f in found] == [
    "a.py",
    "b/typed.py",
    "c.py",
  ]
  assert found[0].line == "A toy."
  assert found[1].line == "(no docstring)"
  assert found[2].line.startswith("(cannot be parsed: invalid syntax")
  assert "a" not in sys.modules


def test_listing_what_is_not_a_directory(folder) -> None:
  with pytest.raises(FileError, match=r"nowhere is not a directory"):
    find(folder / "nowhere")
