"""The command: what it prints, what it passes on, how it exits."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import rl_jax
from rl_jax.launch import figures, run
from rl_jax.launch import main as command
from rl_jax.training.checkpoints import CheckpointError
from rl_jax.training.doctor import Collapse
from rl_jax.training.loop import Outcome, Row

FILE = '''"""A toy that nothing trains.

  rl-jax train toy.py

Nothing else.
"""
from __future__ import annotations
import dataclasses
from rl_jax.experiment import Band, Experiment, Trained

@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """A method."""
  group_size: int = 4
  """Rows of a group."""
  rate: float = 0.5
  """A rate."""
  centred: bool = True
  """A choice."""

  def __post_init__(self):
    if self.group_size < 2:
      raise ValueError(f"group_size must be at least 2, got {self.group_size}")

base = Experiment(name="base", model=1, data=2, algorithm=Method(), steps=3)
experiment = Experiment(
    name="toy", model=1, data=2, algorithm=Method(), steps=4,
    start=Trained(by=base), expected=(Band(metric="evaluation/x", low=0.5),),
)
'''
FINISHED = Outcome("finished", 4, None, 1.0, {"evaluation/x": 0.75})


@pytest.fixture
def toy(folder, monkeypatch) -> str:
  monkeypatch.chdir(folder)
  (folder / "launch_toy.py").write_text(FILE)
  return "launch_toy.py"


class Calls(list):
  """What `train` was asked for; it watches one stage and measures a row."""

  def __init__(self, ending: Outcome | BaseException = FINISHED) -> None:
    super().__init__()
    self.ending = ending

  def __call__(self, experiment, *, observers, **options) -> Outcome:
    self.append((experiment, options))
    watching = observers(experiment, Path("runs/toy-1"))
    for observer in watching:
      observer.started(step=0, steps=4)
      observer.measured(Row(4, "evaluation", {"evaluation/x": 0.75}, 1.0, {}))
    raised = isinstance(self.ending, BaseException)
    failed = Outcome("failed", 4, None, 1.0, {}, error=f"{self.ending}")
    for observer in watching:
      observer.ended(failed if raised else self.ending)
    if raised:
      raise self.ending
    return self.ending


@pytest.fixture
def calls(monkeypatch) -> Calls:
  found = Calls()
  # What a chart looks like is tested elsewhere, and drawing takes time.
  monkeypatch.setattr(figures, "curve", lambda *_: b"")
  monkeypatch.setattr(run, "train", found)
  return found


def usage_error(capsys, *arguments: str) -> str:
  with pytest.raises(SystemExit) as caught:
    command.main(arguments)
  assert caught.value.code == 2
  return " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_training_passes_on_what_was_asked_for(toy, calls, capsys) -> None:
  code = command.main(
    ["train", toy, "--steps", "9", "--workdir", "here", "--resume-from", "3"]
  )
  assert code == 0
  ((experiment, options),) = calls
  assert experiment.steps == 9
  assert options == {
    "workdir": "here",
    "resume_from": 3,
    "command": (
      "rl-jax",
      "train",
      toy,
      "--steps",
      "9",
      "--workdir",
      "here",
      "--resume-from",
      "3",
    ),
  }
  said = capsys.readouterr().out
  assert said.startswith("changed from the file:\n  steps: 4 -> 9\n")
  assert f"toy ({experiment.hash}) in runs/toy-1" in said
  assert "evaluation: x 0.75" in said
  assert "Finished, as expected: 1 of 1" in said
  assert said.endswith("report: runs/toy-1/report.html\n")


def test_an_unchanged_experiment_is_the_files_own(toy, calls, capsys) -> None:
  assert command.main(["train", toy]) == 0
  assert calls[0][0] == sys.modules["launch_toy"].experiment
  assert calls[0][1]["workdir"] is None
  assert capsys.readouterr().out.startswith("as the file has it\n")


def test_overrides_reach_every_depth(toy, calls) -> None:
  code = command.main(
    f"train {toy} --algorithm.rate 0.25 --algorithm.centred False"
    " --start.by.algorithm.group-size 8 --expected.0.low 0.125".split()
  )
  assert code == 0
  experiment = calls[0][0]
  assert experiment.algorithm.rate == 0.25
  assert experiment.algorithm.centred is False
  assert experiment.algorithm.group_size == 4
  assert experiment.start.by.algorithm.group_size == 8
  assert experiment.expected[0].low == 0.125
  assert experiment.hash != sys.modules["launch_toy"].experiment.hash


def test_quiet_says_only_how_it_came_out(toy, calls, capsys) -> None:
  assert command.main(["train", toy, "--quiet"]) == 0
  said = capsys.readouterr().out.splitlines()
  assert len(said) == 2
  assert said[1] == "report: runs/toy-1/report.html"


@pytest.mark.parametrize(("signal", "code"), [(15, 143), (2, 130)])
def test_a_signal_is_the_exit_code(toy, calls, capsys, signal, code) -> None:
  calls.ending = Outcome("stopped", 2, signal, 1.0, {})
  assert command.main(["train", toy, "--seed", "5"]) == code
  said = capsys.readouterr().out
  assert said.endswith(f"to go on: rl-jax train {toy} --seed 5\n")


@pytest.mark.parametrize(
  "error",
  [
    Collapse("step 3: reward = nan is not a finite number"),
    CheckpointError("checkpoint 4 is damaged"),
    OSError(28, "No space left on device"),
  ],
)
def test_what_has_a_message_is_one_line_and_exit_1(
  toy, calls, capsys, error
) -> None:
  calls.ending = error
  assert command.main(["train", toy]) == 1
  found = capsys.readouterr()
  assert found.err.startswith("rl-jax: ")
  assert found.err.count("\n") == 1
  assert "Traceback" not in found.out


def test_what_the_package_refuses_is_a_message(
  toy, monkeypatch, capsys
) -> None:
  def refuse(experiment: rl_jax.Experiment, **_: object) -> None:
    dataclasses.replace(experiment, steps=0)

  monkeypatch.setattr(run, "train", refuse)
  assert command.main(["train", toy]) == 1
  assert capsys.readouterr().err == (
    "rl-jax: steps must be at least 1, got 0\n"
  )


def test_bugs_keep_their_traceback(toy, calls) -> None:
  """Not raised by the package itself, so it is about no input of a person."""
  for bug in (ValueError("shapes"), KeyError("x"), OSError(2, "gone")):
    calls.ending = bug
    with pytest.raises(type(bug)):
      command.main(["train", toy])


def test_a_run_that_raises_leaves_its_records_whole(toy, calls) -> None:
  calls.ending = Collapse("gone")
  assert command.main(["train", toy]) == 1
  assert Path("runs/toy-1/metrics.csv").read_text().count("\n") == 2
  page = Path("runs/toy-1/report.html").read_text()
  assert "Failed: gone; until then as expected" in page


def test_an_interrupt_before_the_loop_is_130(toy, calls, capsys) -> None:
  calls.ending = KeyboardInterrupt()
  assert command.main(["train", toy]) == 130
  assert "interrupted" in capsys.readouterr().err


def test_a_misspelt_flag_gets_a_suggestion(toy, calls, capsys) -> None:
  said = usage_error(capsys, "train", toy, "--algorithm.grup-size", "8")
  assert "--algorithm.grup-size" in said
  assert "Perhaps you meant: --algorithm.group-size" in said
  assert "--workdir" in usage_error(capsys, "train", toy, "--workdri", "x")
  assert not calls


@pytest.mark.parametrize(
  ("flag", "value", "said"),
  [
    ("--steps", "many", "--steps: invalid literal for int()"),
    ("--algorithm.rate", "fast", "--algorithm.rate: could not convert"),
    ("--algorithm.centred", "maybe", "maybe"),
    ("--algorithm.group-size", "1", "group_size must be at least 2, got 1"),
    ("--steps", "0", "steps must be at least 1, got 0"),
  ],
)
def test_a_wrong_value_is_said(toy, calls, capsys, flag, value, said) -> None:
  assert said in usage_error(capsys, "train", toy, flag, value)
  assert not calls


@pytest.mark.parametrize(
  "arguments", [[], ["train"], ["show"], ["run"], ["list", "a", "b"]]
)
def test_bad_usage_is_2(capsys, arguments: list[str]) -> None:
  assert "usage: rl-jax" in usage_error(capsys, *arguments)


def test_show_takes_no_options_of_a_run(toy, capsys) -> None:
  assert "--workdir" in usage_error(capsys, "show", toy, "--workdir", "x")


@pytest.mark.parametrize("name", ["train", "show"])
def test_a_bad_file_is_one_line_and_exit_1(toy, calls, capsys, name) -> None:
  assert command.main([name, "launch_tay.py"]) == 1
  said = capsys.readouterr().err
  assert said == (
    "rl-jax: launch_tay.py does not exist; perhaps launch_toy.py\n"
  )


def test_show_prints_every_value_the_hash_and_the_changes(toy, capsys) -> None:
  assert command.main(["show", toy, "--algorithm.group-size", "8"]) == 0
  said = capsys.readouterr().out
  assert "algorithm: Method" in said
  assert "group_size = 8" in said
  assert "name = 'base'" in said
  assert said.endswith(
    "changed from the file:\n  algorithm.group_size: 4 -> 8\n"
  )
  written = sys.modules["launch_toy"].experiment
  assert written.hash not in said
  assert written.start.by.hash in said
  assert "\x1b" not in said


def test_list_names_files_and_their_first_lines(toy, capsys) -> None:
  assert command.main(["list", "."]) == 0
  said = capsys.readouterr().out
  assert said == "launch_toy.py  A toy that nothing trains.\n"
  assert command.main(["list", "nowhere"]) == 1
  Path("void").mkdir()
  assert command.main(["list", "void"]) == 0
  assert "no experiment files in void" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (
      ["--help"],
      [
        "examples:",
        "rl-jax show",
        "{train,show,list,generate,export,reference}",
      ],
    ),
    (["--version"], [f"rl-jax {rl_jax.__version__}"]),
    (["train", "--help"], ["FILE --help", "an experiment file"]),
  ],
)
def test_help_helps(capsys, arguments: list[str], said: list[str]) -> None:
  with pytest.raises(SystemExit) as caught:
    command.main(arguments)
  assert not caught.value.code
  out = capsys.readouterr().out
  assert all(part in out for part in said)


def test_help_of_a_file_shows_its_docstring_and_fields(toy, capsys) -> None:
  with pytest.raises(SystemExit) as caught:
    command.main(["train", toy, "--help"])
  assert not caught.value.code
  out = capsys.readouterr().out
  assert out.startswith("A toy that nothing trains.\n\n  rl-jax train toy.py\n")
  for part in ("--resume-from", "--algorithm.group-size", "Rows of a group."):
    assert part in out


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_crash(toy) -> None:
  """In a process of its own, whose output nobody reads."""
  script = f"from rl_jax.launch.main import main; exit(main(['show', '{toy}']))"
  process = subprocess.Popen(
    [sys.executable, "-W", "error", "-c", script],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  process.stdout.close()
  said = process.stderr.read()
  process.stderr.close()
  assert process.wait() == 1
  assert said == b""


@pytest.mark.slow
def test_listing_and_help_do_not_load_jax() -> None:
  script = (
    "import sys; from rl_jax.launch.main import main; main(['list', '.']);"
    "exit('jax' in sys.modules)"
  )
  folder = Path(__file__).parent
  done = subprocess.run([sys.executable, "-c", script], cwd=folder, check=False)
  assert done.returncode == 0
