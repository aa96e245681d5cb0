"""The notebooks run from their first cell to the last, shortened."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

pytest.importorskip("sklearn", reason="needs the extra `digits`")

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "colab"

# What each notebook says at its top, made smaller.
SHORT = {
  "quickstart": {"JUDGE_STEPS": 1, "BASE_STEPS": 1, "STEPS": 2},
  "estimators": {"SAMPLES": 4, "TIME": 12, "GROUP": 3, "POINTS": 11},
}
# Curves and samples; estimators, moments, clip regions and one's own.
PICTURES = {"quickstart": 2, "estimators": 4}

# Saves what is left open, as a notebook would show it.
SHOWN = """
import matplotlib.pyplot as plt
for number in plt.get_fignums():
  plt.figure(number).savefig(f"shown_{number}.png", dpi=40)
"""


def notebook(name):
  return json.loads((FOLDER / f"{name}.ipynb").read_text())


def cells(name):
  """Sources of the code that is run, without the installation."""
  return [
    "".join(cell["source"])
    for cell in notebook(name)["cells"]
    if cell["cell_type"] == "code"
    and "install" not in cell["metadata"].get("tags", ())
  ]


def shortened(name):
  source = "\n".join(cells(name))
  for variable, value in SHORT[name].items():
    pattern = rf"^{variable} = \d+"
    source, count = re.subn(
      pattern, f"{variable} = {value}", source, flags=re.MULTILINE
    )
    assert count == 1, f"{variable} is set {count} times"
  return source


def test_each_notebook_is_tested():
  assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_a_notebook_is_valid_and_has_no_outputs(name):
  value = notebook(name)
  assert (value["nbformat"], value["nbformat_minor"]) == (4, 5)
  assert value["metadata"]["kernelspec"]["name"] == "python3"
  names = [cell["id"] for cell in value["cells"]]
  assert len(set(names)) == len(names)
  for cell in value["cells"]:
    assert all(line.endswith("\n") for line in cell["source"][:-1])
    if cell["cell_type"] == "code":
      assert cell["outputs"] == []
      assert cell["execution_count"] is None
    else:
      assert cell["cell_type"] == "markdown"
  installs = [
    cell["source"]
    for cell in value["cells"]
    if "install" in cell["metadata"].get("tags", ())
  ]
  assert len(installs) == 1
  assert installs[0][0].startswith("%pip install")


@pytest.mark.parametrize("name", SHORT)
def test_a_notebook_runs_and_draws(name, tmp_path):
  for part in ("rl_jax", "experiments"):
    (tmp_path / part).symlink_to(ROOT / part)
  script = tmp_path / "notebook.py"
  script.write_text(shortened(name) + SHOWN)
  environment = os.environ | {
    "MPLBACKEND": "Agg",
    "TFDS_DATA_DIR": str(tmp_path / "data"),
    # One device, as on a free runtime.
    "XLA_FLAGS": "",
  }
  run = subprocess.run(
    [sys.executable, "-W", "error", str(script)],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert run.returncode == 0, run.stderr[-3000:]
  drawn = sorted(tmp_path.glob("shown_*.png"))
  assert len(drawn) == PICTURES[name]
  # A page without a drawing takes about 1 kB.
  assert min(path.stat().st_size for path in drawn) > 3000
