"""Keeps uv's constraints in pyproject.toml equal to requirements_lock.txt.

python third_party/constraints.py --check      exit 1 where they differ
python third_party/constraints.py --write      make them equal
python third_party/constraints.py --without    pyproject.toml without them
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main", "pins", "with_constraints"]

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^constraint-dependencies = \[\n(?:  .*\n)*\]\n", re.M)


def pins(lock: str) -> list[str]:
  r"""The requirements of a lock file, without hashes.

  Args:
    lock: the text of a requirements file.

  Returns:
    One requirement each, environment markers kept.

  >>> pins("a==1 ; os_name == 'nt' \\\n    --hash=sha256:0\nb==2 \\\n")
  ["a==1 ; os_name == 'nt'", 'b==2']
  """
  return [
    line.removesuffix("\\").strip()
    for line in lock.splitlines()
    if re.match(r"[a-z0-9]", line)
  ]


def with_constraints(pyproject: str, requirements: Sequence[str]) -> str:
  """A pyproject.toml with other constraints.

  Args:
    pyproject: its text; it must hold the list already, empty or not.
    requirements: the new list.

  Returns:
    The new text.

  Raises:
    ValueError: the list is not there, or not written one entry a line.
  """
  lines = "".join(f'  "{requirement}",\n' for requirement in requirements)
  block = f"constraint-dependencies = [\n{lines}]\n"
  text, count = _BLOCK.subn(lambda _: block, pyproject)
  if count != 1:
    raise ValueError(
      f"found {count} lists `constraint-dependencies` in pyproject.toml; "
      "write one, an entry a line, below [tool.uv]"
    )
  return text


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
  """Runs the command line.

  Args:
    arguments: what was written after the program's name.
    root: the repository.

  Returns:
    The exit status: 1 where `--check` found a difference.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  action = parser.add_mutually_exclusive_group(required=True)
  for name in ("--check", "--write", "--without"):
    action.add_argument(name, action="store_true")
  asked = parser.parse_args(arguments)
  file = root / "pyproject.toml"
  old = file.read_text()
  if asked.without:
    print(with_constraints(old, ()), end="")
    return 0
  lock = (root / "third_party" / "requirements_lock.txt").read_text()
  new = with_constraints(old, pins(lock))
  if asked.write:
    file.write_text(new)
  elif new != old:
    print("pyproject.toml and requirements_lock.txt pin different things")
    print("run: python third_party/constraints.py --write")
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
