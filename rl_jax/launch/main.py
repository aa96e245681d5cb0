"""The `rl-jax` command: experiments run, shown, listed; models used."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import rich.console
import rich.tree
import tyro

import rl_jax
from rl_jax.launch import export, files, generate
from rl_jax.launch.text import value_text

if TYPE_CHECKING:
  from rl_jax.experiment import Experiment
  from rl_jax.training.loop import Observer, Outcome

__all__ = ["main"]

_EXAMPLES = """\
examples:
  rl-jax list                                       what there is to run
  rl-jax show experiments/flow/digits_awm.py        what it would run
  rl-jax train experiments/flow/digits_awm.py       run it, or go on with it
  rl-jax train experiments/flow/digits_awm.py --steps 50 --seed 1
  rl-jax train experiments/flow/digits_awm.py --help
                                                    what can be changed
  rl-jax generate runs/chain_sum_grpo-0123456789ab --prompt "12 + 30 ="
                                                    what a trained model says
  rl-jax export runs/chain_sum_grpo-0123456789ab DIR
                                                    as a Hugging Face folder
  rl-jax reference experiments/language/smollm2_sums_dpo.py reference.npz
                                                    scored once, not each step
"""
_REFERENCE = """\
example:
  rl-jax reference experiments/language/smollm2_sums_dpo.py reference.npz
  rl-jax train experiments/language/smollm2_sums_dpo.py \\
    --data.reference reference.npz

Training then holds no second copy of the weights and does not ask it. The file
is of these pairs in this order and of these weights; others refuse it.
`rl-jax reference FILE OUT --help` shows what can be changed.
"""
# Disk full, no permission, read-only: the machine's state, not a bug.
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
  """How to run; what to run is the experiment."""

  workdir: str | None = None
  """Where everything of the run is; default runs/NAME-HASH."""
  resume_from: int | None = None
  """Go on from this older checkpoint; later ones are set aside."""
  quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  """Say only how it came out, and errors."""


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line.

  Args:
    arguments: without the program's name; those of the process when None.

  Returns:
    0 finished; 1 what the person asked for cannot be done, or a run went
    wrong in a way that has a message; 128 + n stopped by signal n. Usage
    errors leave through SystemExit with 2.
  """
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  parsed = _parser().parse_args(arguments)
  screen = rich.console.Console()
  try:
    if "run" in parsed:
      return parsed.run(parsed)
    if parsed.command == "list":
      return _list(screen, Path(parsed.directory))
    experiment, docstring = files.load(Path(parsed.file))
    prog = f"rl-jax {parsed.command} {parsed.file}"
    if parsed.command == "show":
      _, wanted = _parsed(experiment, docstring, parsed.overrides, prog, None)
      return _show(screen, experiment, wanted)
    options, wanted = _parsed(
      experiment, docstring, parsed.overrides, prog, _Options()
    )
    return _train(
      screen, experiment, wanted, options or _Options(), ("rl-jax", *arguments)
    )
  except BrokenPipeError:
    # Whoever read our output has gone; nothing may be flushed there at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
  except KeyboardInterrupt:
    begun = "" if "run" in parsed else " before the run began"
    return _fail(f"interrupted{begun}", code=130)
  except Exception as error:
    if not _is_message(error):
      raise
    return _fail(str(error), code=1)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="rl-jax",
    description="Runs experiments, Python files that hold `experiment`,\n"
    "and uses the language models that they train.",
    epilog=_EXAMPLES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    "--version", action="version", version=f"rl-jax {rl_jax.__version__}"
  )
  commands = parser.add_subparsers(
    dest="command",
    required=True,
    metavar="{train,show,list,generate,export,reference}",
  )
  for name, what in (
    ("train", "run an experiment, or go on where it stopped"),
    ("show", "print an experiment with all its values, without running it"),
  ):
    command = commands.add_parser(
      name,
      help=what,
      description=what[0].upper() + what[1:] + ".",
      epilog=f"`rl-jax {name} FILE --help` shows what can be changed.",
    )
    command.add_argument("file", metavar="FILE", help="an experiment file")
    command.add_argument(
      "overrides",
      nargs=argparse.REMAINDER,
      metavar="...",
      help="changes of the experiment, as --steps 50",
    )
  command = commands.add_parser(
    "list",
    help="experiments and what each shows",
    description="Lists experiment files, without running them.",
  )
  command.add_argument(
    "directory",
    nargs="?",
    default="experiments",
    metavar="DIR",
    help="where to look (default: experiments)",
  )
  generate.add_parser(commands)
  export.add_parser(commands)
  command = commands.add_parser(
    "reference",
    help="store what the reference of preference pairs says of them",
    description="Scores all pairs of an experiment once, under the policy that"
    " it starts from.",
    epilog=_REFERENCE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  command.set_defaults(run=_reference)
  command.add_argument("file", metavar="FILE", help="an experiment file")
  command.add_argument(
    "out", metavar="OUT", help="the .npz to write; it must not exist"
  )
  command.add_argument(
    "overrides",
    nargs=argparse.REMAINDER,
    metavar="...",
    help="changes of the experiment, as --data.rows 8",
  )
  return parser


def _parsed(
  experiment: Experiment,
  docstring: str,
  overrides: Sequence[str],
  prog: str,
  options: _Options | None,
) -> tuple[_Options | None, Experiment]:
  """The experiment with the overrides applied; leaves on a usage error."""
  # Without a name of its own, the experiment's fields stand at the top level.
  kind = Annotated[
    # pyrefly: ignore[invalid-annotation] -- read by tyro, at run time.
    type(experiment),
    tyro.conf.arg(name=""),
    tyro.conf.AvoidSubcommands,
    tyro.conf.FlagConversionOff,
  ]
  fields: list[Any] = [
    ("experiment", kind, dataclasses.field(default=experiment))
  ]
  if options is not None:
    fields.insert(
      0,
      (
        "options",
        Annotated[_Options, tyro.conf.arg(name="")],
        dataclasses.field(default=options),
      ),
    )
  both = dataclasses.make_dataclass("Command", fields, frozen=True)
  if {"-h", "--help"} & set(overrides):
    # Not as tyro's description, which would run its lines together.
    print(f"{docstring}\n")
  # Its own docstring would be the signature that dataclasses write.
  about = "Fields of the experiment, as the file has them, and how to run it."
  try:
    result = tyro.cli(both, prog=prog, description=about, args=overrides)
  except ValueError as error:  # The experiment refuses the values together.
    raise SystemExit(_fail(str(error), code=2)) from None
  return getattr(result, "options", None), result.experiment


def _train(
  screen: rich.console.Console,
  written: Experiment,
  experiment: Experiment,
  options: _Options,
  command: tuple[str, ...],
) -> int:
  from rl_jax.launch.console import Console
  from rl_jax.launch.records import Records
  from rl_jax.launch.report import Report
  from rl_jax.launch.run import train

  if not options.quiet:
    _say_changes(screen, written, experiment)
  reports: list[Report] = []

  def watch(stage: Experiment, workdir: Path) -> Sequence[Observer]:
    reports.append(Report(workdir, stage))
    if options.quiet:
      return Records(workdir), reports[-1]
    _say(screen, f"{stage.name} ({stage.hash}) in {workdir}")
    return Records(workdir), Console(stage.name, screen=screen), reports[-1]

  try:
    outcome = train(
      experiment,
      workdir=options.workdir,
      observers=watch,
      resume_from=options.resume_from,
      command=command,
    )
    if reports and reports[-1].verdict:
      _say(screen, reports[-1].verdict)
  finally:
    if reports and reports[-1].path:
      _say(screen, f"report: {reports[-1].path}")
  return _ending(screen, outcome, command)


def _reference(parsed: argparse.Namespace) -> int:
  screen = rich.console.Console()
  written, docstring = files.load(Path(parsed.file))
  words = ("rl-jax", "reference", parsed.file, parsed.out)
  prog = shlex.join(words)
  _, experiment = _parsed(written, docstring, parsed.overrides, prog, None)
  from rl_jax.launch.reference import store_reference

  _say_changes(screen, written, experiment)
  command = (*words, *parsed.overrides)
  stopped = store_reference(experiment, parsed.out, command=command)
  if stopped is not None:
    return _ending(screen, stopped, command)
  _say(screen, f"{parsed.out}: to use it, --data.reference {parsed.out}")
  return 0


def _ending(
  screen: rich.console.Console, outcome: Outcome, command: tuple[str, ...]
) -> int:
  if outcome.signal is None:
    return 0
  _say(screen, f"to go on: {shlex.join(command)}")
  return 128 + outcome.signal


def _show(
  screen: rich.console.Console, written: Experiment, experiment: Experiment
) -> int:
  tree = rich.tree.Tree(_plain(f"{experiment.name}  {experiment.hash}"))
  _grow(tree, experiment)
  screen.print(tree, soft_wrap=True)
  _say_changes(screen, written, experiment)
  return 0


def _grow(tree: rich.tree.Tree, value: Any) -> None:
  if dataclasses.is_dataclass(value):
    items: Iterator[tuple[str, Any]] = (
      (f.name, getattr(value, f.name)) for f in dataclasses.fields(value)
    )
  else:
    items = ((str(i), item) for i, item in enumerate(value))
  for name, item in items:
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
      kind = f"{name}: {type(item).__qualname__}"
      hashed = getattr(item, "hash", None)
      label = f"{kind}  {hashed}" if isinstance(hashed, str) else kind
      _grow(tree.add(_plain(label)), item)
    elif isinstance(item, tuple) and any(map(dataclasses.is_dataclass, item)):
      _grow(tree.add(_plain(f"{name}:")), item)
    else:
      tree.add(_plain(f"{name} = {value_text(item)}"))


def _list(screen: rich.console.Console, directory: Path) -> int:
  found = files.find(directory)
  width = max((len(str(item.path)) for item in found), default=0)
  for item in found:
    _say(screen, f"{item.path!s:{width}}  {item.line}")
  if not found:
    _say(screen, f"no experiment files in {directory}")
  return 0


def _say_changes(
  screen: rich.console.Console, written: Experiment, experiment: Experiment
) -> None:
  from rl_jax.experiment import diff

  changes = diff(written, experiment)
  if not changes:
    _say(screen, "as the file has it")
    return
  _say(screen, "changed from the file:")
  for path, before, after in changes:
    _say(screen, f"  {path}: {value_text(before)} -> {value_text(after)}")


def _is_message(error: Exception) -> bool:
  """Whether the text alone tells a person what to do.

  A ValueError that this package raises itself is about what it was given; one
  that comes out of another library's code is a bug of ours.
  """
  if isinstance(error, files.FileError):
    return True
  if isinstance(error, OSError):
    return error.errno in _MACHINE
  if type(error) is ImportError and error.name is None:
    return True  # Raised by this package: it says what to install.
  from rl_jax.training.checkpoints import CheckpointError
  from rl_jax.training.doctor import Collapse

  if isinstance(error, (CheckpointError, Collapse)):
    return True
  if not isinstance(error, ValueError):
    return False
  last = traceback.extract_tb(error.__traceback__)[-1].filename
  return Path(last).is_relative_to(Path(rl_jax.__file__).parent)


def _fail(message: str, *, code: int) -> int:
  screen = rich.console.Console(stderr=True)
  _say(screen, f"rl-jax: {message}")
  return code


def _say(screen: rich.console.Console, line: str) -> None:
  screen.print(line, markup=False, highlight=False, soft_wrap=True, emoji=False)


def _plain(text: str) -> Any:
  import rich.text

  return rich.text.Text(text)


if __name__ == "__main__":
  sys.exit(main())
