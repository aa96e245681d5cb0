"""BUILD files say what the sources import: every file once, no circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import build_files
import build_graph

ROOT = Path(__file__).resolve().parents[2]
INIT = '"""A package."""\n'


def tracked(suffix):
  listed = subprocess.run(
    ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"),
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  found = [path for path in listed.split("\0") if path.endswith(suffix)]
  return [path for path in found if (ROOT / path).exists()]


def rules(path):
  """The calls of a BUILD file, read as what they are: Python's syntax."""
  for node in ast.parse((ROOT / path).read_text()).body:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
      call = node.value
      values = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
      if "name" in values:
        yield call.func.id, values


def absolute(label, package):
  if label.startswith(":"):
    return f"//{package}{label}"
  if label.startswith("//") and ":" not in label:
    return f"{label}:{label.rpartition('/')[2]}"
  return label


@pytest.fixture(scope="module")
def written():
  """Rules by label, read from the files and not from their generator."""
  found = {}
  for path in tracked("BUILD"):
    package = path.rpartition("/")[0]
    for kind, values in rules(path):
      values = {"kind": kind, "package": package, **values}
      values["deps"] = [absolute(d, package) for d in values.get("deps", ())]
      found[f"//{package}:{values['name']}"] = values
  return found


def reached(labels, written):
  seen, waiting = set(), list(labels)
  while waiting:
    label = waiting.pop()
    if label not in seen:
      seen.add(label)
      waiting += written.get(label, {"deps": ()})["deps"]
  return seen


@pytest.mark.slow
def test_build_files_are_what_the_imports_say():
  assert build_files.differences() == {}, (
    "run: python third_party/build_files.py --write"
  )


def test_sources_exist(written):
  for label, rule in written.items():
    for source in (*rule.get("srcs", ()), *rule.get("data", ())):
      package, _, name = source.rpartition(":")
      folder = package.lstrip("/") if package else rule["package"]
      assert (ROOT / folder / name).is_file(), f"{label} names {source}"


def test_every_python_file_belongs_to_one_target(written):
  owners = {}
  for label, rule in written.items():
    for source in rule.get("srcs", ()):
      if not source.startswith("//"):
        owners.setdefault(f"{rule['package']}/{source}", []).append(label)
  # The main program that every test shares is in all of them.
  owners["third_party/bazel_main.py"] = ["every test"]
  assert set(owners) == set(tracked(".py"))
  assert all(len(labels) == 1 for labels in owners.values())


def test_dependencies_exist_and_run_in_no_circle(written):
  for label, rule in written.items():
    for dependency in rule["deps"]:
      known = dependency.startswith("@pypi//") or dependency in written
      assert known, f"{label} depends on {dependency}"
      assert label not in reached([dependency], written), label


def test_distributions_are_pinned(written):
  lock = (ROOT / "third_party" / "requirements_lock.txt").read_text()
  pinned = {
    line.split("==")[0].replace("-", "_")
    for line in lock.splitlines()
    if "==" in line
  }
  used = {d for rule in written.values() for d in rule["deps"] if d[0] == "@"}
  assert {label.removeprefix("@pypi//") for label in used} <= pinned


@pytest.mark.parametrize("package", ["losses", "advantages"])
def test_pure_floors_stand_on_jax_and_numpy(package, written):
  below = reached([f"//rl_jax/{package}:{package}"], written)
  outside = {label for label in below if label.startswith("@")}
  assert outside <= {"@pypi//jax", "@pypi//numpy"}
  assert "//rl_jax:rl_jax" not in below


@pytest.mark.slow
def test_an_import_loads_no_more_than_its_target_reaches(written):
  program = (
    "import sys, rl_jax.losses\n"
    "print(*(m for m in sys.modules if m.split('.')[0] == 'rl_jax'))\n"
  )
  done = subprocess.run(
    (sys.executable, "-c", program),
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  sources = {
    f"{written[label]['package']}/{source}"
    for label in reached(["//rl_jax/losses:losses"], written)
    if label in written
    for source in written[label].get("srcs", ())
  }
  for module in done.stdout.split():
    stem = module.replace(".", "/")
    assert {f"{stem}.py", f"{stem}/__init__.py"} & sources, module


def make(root, files):
  for path, text in files.items():
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
  for tree in build_graph.TREES:
    (root / tree).mkdir(exist_ok=True)


@pytest.fixture
def small(tmp_path):
  """A library of two floors, one test, and every way to import."""
  make(
    tmp_path,
    {
      "rl_jax/__init__.py": (
        "__version__ = '0'\n"
        "def __getattr__(name):\n"
        "  from rl_jax.engine.run import train\n"
        "  return train\n"
      ),
      "rl_jax/low.py": "import jax\nimport os.path\n",
      "rl_jax/kinds.py": "import numpy\n",
      "rl_jax/engine/__init__.py": INIT,
      "rl_jax/engine/run.py": (
        "from typing import TYPE_CHECKING\n"
        "import orbax.checkpoint\n"
        "from rl_jax import low\n"
        "if TYPE_CHECKING:\n"
        "  from jaxtyping import Array\n"
        "  from rl_jax.kinds import Kind\n"
        "def train():\n"
        "  import tensorflow_datasets\n"
      ),
      "rl_jax/engine/page.css": "",
      "rl_jax/engine/parts/__init__.py": INIT,
      "rl_jax/engine/parts/one.py": "import numpy\n",
      "tests/conftest.py": "import pytest\n",
      "tests/engine/test_run.py": "from rl_jax.engine import run\n",
      "tests/test_top.py": "import rl_jax\nrl_jax.train()\n",
    },
  )
  return tmp_path


def test_targets_of_a_small_tree(small):
  # Worked by hand from the files above.
  table = build_graph.targets(small)
  assert table["//rl_jax:low"].deps == {"//rl_jax:init", "@pypi//jax"}
  assert table["//rl_jax:init"].deps == set()
  engine = table["//rl_jax/engine:engine"]
  inner = ("parts/__init__.py", "parts/one.py")
  assert engine.srcs == ("__init__.py", *inner, "run.py")
  assert engine.data == ("page.css",)
  assert not [label for label in table if "parts" in label]
  assert engine.deps == {
    "//rl_jax:init",
    "//rl_jax:low",
    "@pypi//array_record",
    "@pypi//importlib_resources",
    "@pypi//numpy",
    "@pypi//orbax_checkpoint",
    "@pypi//tensorflow_datasets",
  }
  assert table["//rl_jax:rl_jax"].deps == {
    "//rl_jax:init",
    "//rl_jax/engine:engine",
  }


def test_a_test_has_what_annotations_need(small):
  test = build_graph.targets(small)["//tests/engine:test_run"]
  assert test.kind == "py_test"
  assert test.deps == {
    "//rl_jax/engine:engine",
    "//rl_jax:kinds",
    "//tests:conftest",
    "@pypi//jaxtyping",
  }


def test_what_the_library_hands_out_on_demand_is_a_dependency(small):
  test = build_graph.targets(small)["//tests:test_top"]
  assert "//rl_jax:rl_jax" in test.deps


@pytest.mark.parametrize("gone", ["@pypi//jax", ":init"])
def test_a_missing_dependency_is_reported(small, gone, capsys):
  assert build_files.main(["--write"], small) == 0
  assert build_files.main(["--check"], small) == 0
  path = small / "rl_jax" / "BUILD"
  whole = path.read_text()
  path.write_text(whole.replace(f'        "{gone}",\n', ""))
  capsys.readouterr()
  assert build_files.main(["--check"], small) == 1
  assert f'+        "{gone}",' in capsys.readouterr().out
  assert build_files.main(["--write"], small) == 0
  assert path.read_text() == whole


def test_a_file_that_nothing_needs_is_removed(small):
  build_files.main(["--write"], small)
  make(small, {"rl_jax/empty/BUILD": "# left behind\n"})
  assert list(build_files.differences(small)) == ["rl_jax/empty/BUILD"]
  build_files.main(["--write"], small)
  assert not (small / "rl_jax" / "empty" / "BUILD").exists()


def test_a_circle_is_named(small):
  make(small, {"rl_jax/low.py": "from rl_jax.engine import run\n"})
  with pytest.raises(ValueError, match=r"circle.*rl_jax:low.*engine"):
    build_graph.targets(small)


def test_a_relative_import_is_refused(small):
  make(small, {"rl_jax/low.py": "from . import kinds\n"})
  with pytest.raises(ValueError, match=r"rl_jax/low\.py: line 1: a relative"):
    build_graph.targets(small)


def test_unreadable_source_is_named(small):
  make(small, {"rl_jax/low.py": "def ("})
  with pytest.raises(ValueError, match=r"rl_jax/low\.py: "):
    build_graph.targets(small)
