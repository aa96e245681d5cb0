"""`rl-jax export`: a language policy as an ordinary Hugging Face folder."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl_jax.launch.files import FileError
from rl_jax.launch.generate import add_checkpoint

if TYPE_CHECKING:
  from rl_jax.launch.policies import Policy

__all__ = ["add_parser", "export"]

_EXAMPLES = """\
examples:
  rl-jax export runs/chain_sum_grpo-0123456789ab sums
  rl-jax export runs/smollm2_sums_grpo-0123456789ab tuned --dtype bfloat16
  rl-jax export smollm2 SmolLM2-135M-Instruct

A trained low-rank change is added to the weights. The folder is what
transformers and vLLM load; `rl-jax generate DIR` reads it too.
"""


def add_parser(commands: Any) -> None:
  """Adds the command to those of `rl-jax`.

  Args:
    commands: what `add_subparsers` returned.
  """
  command = commands.add_parser(
    "export",
    help="write a trained language model as a Hugging Face folder",
    description="Writes a language model as a Hugging Face folder.",
    epilog=_EXAMPLES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  command.set_defaults(run=_run)
  add_checkpoint(command)
  command.add_argument(
    "directory",
    metavar="DIR",
    help="where to; it must not exist, or be empty",
  )


def export(policy: Policy, directory: Path, *, dtype: str) -> None:
  """Writes weights, config and tokenizer; the whole folder or nothing.

  Args:
    policy: see `policies.load_policy`.
    directory: must not exist, or be empty.
    dtype: of the weights in the files.

  Raises:
    FileError: if there is something in the directory, or no public family
      has the features of this decoder.
  """
  from rl_jax.models import huggingface
  from rl_jax.models.huggingface_config import write_config

  _check_free(directory)
  tokenizer = policy.tokenizer
  tokenizer.check(policy.model)
  try:
    write_config(policy.model)
  except ValueError as error:
    raise FileError(f"this model cannot be exported: {error}") from error
  config = {
    f"{name}_token_id": tokenizer.id(token)
    for name in ("bos", "eos", "pad")
    if (token := getattr(tokenizer, name)) is not None
  }
  directory.parent.mkdir(parents=True, exist_ok=True)
  # Beside it, so that renaming is one step of one file system.
  place = tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent)
  try:
    draft = Path(place) / "draft"
    huggingface.save(
      draft, policy.model, policy.params, dtype=dtype, config=config
    )
    tokenizer.save(draft)
    draft.rename(directory)  # An empty directory is replaced.
  finally:
    shutil.rmtree(place, ignore_errors=True)


def _run(parsed: argparse.Namespace) -> int:
  directory = Path(parsed.directory)
  _check_free(directory)
  from rl_jax.launch.policies import load_policy

  policy = load_policy(parsed.checkpoint, step=parsed.step, dtype=parsed.dtype)
  export(policy, directory, dtype=parsed.dtype)
  print(f"{directory}:")
  for path in sorted(directory.iterdir()):
    print(f"  {path.name:32} {path.stat().st_size:>15,} bytes")
  return 0


def _check_free(directory: Path) -> None:
  if directory.is_dir():
    inside = sorted(path.name for path in directory.iterdir())
    if inside:
      raise FileError(
        f"{directory} is not empty, it has {', '.join(inside[:3])}: name a"
        " directory that is"
      )
  elif directory.exists():
    raise FileError(f"{directory} is a file: name a directory that is new")
