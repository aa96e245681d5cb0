"""Every task: its items, its schema, and answers that its verifier knows."""

from __future__ import annotations

import ast
import gzip
import inspect
import json
import pickle
import re
import textwrap

import numpy as np
import pytest

from rl_jax.data import Data, start, take
from rl_jax.environments import (
  Gsm8k,
  GymScore,
  Instructions,
  MathProblems,
  Programs,
  ReasoningGym,
  Sums,
  TextTask,
  filled,
  listed,
)
from rl_jax.environments import gym as gym_module
from rl_jax.rewards.verifiers import Judgement, UnitTests
from rl_jax.rewards.verifiers import instructions as checks


def everything(task):
  source = task.source()
  items = source[np.arange(len(source))]
  return items["prompt"].tolist(), items["reference"].tolist()


def written(path, rows):
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return f"{path}"


def test_columns_keep_tuples_and_lists_whole():
  source = listed([("a", (1, 2)), ("b", [3, 4])])
  items = source[np.array([1, 0, 1])]
  assert items["prompt"].tolist() == ["b", "a", "b"]
  assert items["reference"][1] == (1, 2)
  assert items["reference"].shape == (3,)
  with pytest.raises(ValueError, match="at least one row"):
    listed([])


def test_a_template_keeps_other_braces():
  assert filled("{x} {y}", "x", "{y}") == "{y} {y}"
  with pytest.raises(ValueError, match=r"lacks \{x\}"):
    filled("{y}", "x", "")


@pytest.mark.slow
@pytest.mark.parametrize(
  "settings",
  [
    {"terms": 2, "digits": 1},
    {"terms": 3, "digits": 1, "minus": True},
    {"terms": 2, "digits": 2, "minus": True},
  ],
)
def test_sums_are_right_and_each_comes_once(settings):
  signs = 2 ** (settings["terms"] - 1) if settings.get("minus") else 1
  chains = 10 ** (settings["terms"] * settings["digits"]) * signs
  task = Sums(rows=1, length=chains, seed=3, **settings)
  prompts, references = everything(task)
  assert len(set(prompts)) == chains
  for prompt, reference in zip(prompts, references, strict=True):
    text = prompt.removesuffix(" =")
    assert re.fullmatch(r"\d+( [+-] \d+)+", text)
    total = sum(int(n) for n in re.findall(r"[+-]?\d+", text.replace(" ", "")))
    assert reference == f"{total}"


def test_sums_depend_on_the_seed_and_parts_do_not_overlap():
  settings = {"rows": 4, "terms": 4, "digits": 2, "minus": True}
  train = Sums(length=300, seed=1, **settings)
  test = Sums(length=300, first=300, seed=1, **settings)
  both = Sums(length=600, seed=1, **settings)
  assert everything(train)[0] + everything(test)[0] == everything(both)[0]
  assert len(set(everything(both)[0])) == 600
  other = Sums(length=300, seed=2, **settings)
  assert set(everything(other)[0]) != set(everything(train)[0])


def test_early_sums_are_like_all_of_them():
  """The mean of 400 numbers uniform in 0..99 is 49.5, error 1.44."""
  task = Sums(rows=1, terms=2, digits=2, length=200, seed=0)
  numbers = [int(n) for p in everything(task)[0] for n in re.findall(r"\d+", p)]
  assert abs(np.mean(numbers) - 49.5) < 4 * 1.44
  assert abs(np.std(numbers) - 28.87) < 4


def test_a_task_is_data():
  task = Sums(rows=3, length=10, seed=0)
  assert isinstance(task, TextTask)
  data: Data = task
  indices, _ = take(
    len(data.source()), start(), rows=data.rows, seed=0, shuffle=data.shuffle
  )
  assert data.source()[indices]["prompt"].shape == (3,)
  assert task.verifier(" 7", "7") == Judgement(1.0)


@pytest.mark.parametrize(
  "change", [{"length": 101}, {"terms": 1}, {"rows": 0}, {"template": "x"}]
)
def test_bad_sums_are_refused(change):
  settings = {"rows": 1, "terms": 2, "digits": 1, "length": 100} | change
  with pytest.raises(ValueError, match=r"range|no more|lacks"):
    Sums(**settings)


def test_gsm8k(tmp_path):
  answer = "6 x 200 = <<6*200=1200>>1200\n#### 1,200"
  path = written(tmp_path / "a", [{"question": "Wie viel?", "answer": answer}])
  task = Gsm8k(rows=1, path=path, template="Q: {question}\nA:")
  assert everything(task) == (["Q: Wie viel?\nA:"], ["1200"])
  assert task.verifier("so #### 1200", "1200").reward == 1.0


def test_gsm8k_through_the_builder(tmp_path, monkeypatch):
  """The published builder, with its download replaced by a small file."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.text.gsm8k import gsm8k

  rows = [{"question": f"q{i}", "answer": f"a\n#### {i}"} for i in range(3)]
  file = written(tmp_path / "rows", rows)
  monkeypatch.setenv("TFDS_DATA_DIR", f"{tmp_path}")
  monkeypatch.setattr(
    tfds.download.DownloadManager,
    "download_and_extract",
    lambda self, urls: dict.fromkeys(urls, file),
  )
  made = gsm8k.Gsm8k
  monkeypatch.setattr(
    gsm8k, "Gsm8k", lambda **given: made(data_dir=f"{tmp_path}", **given)
  )
  prompts, references = everything(Gsm8k(rows=1, split="test"))
  pairs = sorted(zip(prompts, references, strict=True))
  assert pairs == [("q0\n", "0"), ("q1\n", "1"), ("q2\n", "2")]


def test_math_from_a_file_and_from_a_folder(tmp_path):
  solution = r"So $x = \boxed{\frac{1}{2}}$."
  old = {"problem": "p", "level": "Level 5", "solution": solution}
  new = {"problem": "q", "level": 2, "solution": "", "answer": "7"}
  folder = tmp_path / "algebra"
  folder.mkdir()
  (folder / "1.json").write_text(json.dumps(old))
  (folder / "2.json").write_text(json.dumps(old | {"level": "Level ?"}))
  task = MathProblems(rows=1, path=f"{tmp_path}", levels=(5,))
  assert everything(task) == (["p\n"] * 2, [r"\frac{1}{2}"] * 2)
  path = written(tmp_path / "rows.jsonl", [old, new])
  task = MathProblems(rows=1, path=path, levels=(1, 2))
  assert everything(task) == (["q\n"], ["7"])


PROGRAM = {
  "prompt": 'def one():\n  """One."""\n',
  "test": "def check(candidate):\n  assert candidate() == 1",
  "entry_point": "one",
}


def test_programs(tmp_path):
  path = tmp_path / "rows.jsonl.gz"
  with gzip.open(path, "wt") as file:
    file.write(json.dumps(PROGRAM))
  prompts, (reference,) = everything(Programs(rows=1, path=f"{path}"))
  assert prompts == [PROGRAM["prompt"]]
  assert isinstance(reference, UnitTests)
  pytest.importorskip("pydantic_monty")
  verifier = Programs(rows=1, path="").verifier
  assert verifier("  return 1", reference).reward == 1.0
  assert verifier("  return 2", reference).reward == 0.0


def test_instructions(tmp_path):
  rows = [
    {
      "prompt": "Say it.",
      "instruction_id_list": ["punctuation:no_comma"],
      "kwargs": [{}],
    },
    {
      "prompt": "Dilo.",
      "instruction_id_list": ["language:response_language"],
      "kwargs": [{"language": "es"}],
    },
  ]
  path = written(tmp_path / "rows.jsonl", rows)
  found = everything(Instructions(rows=1, path=path, skip=True))
  assert found == (["Say it.\n"], [(checks.NoCommas(),)])
  with pytest.raises(ValueError, match=r"line 2: .*not supported"):
    Instructions(rows=1, path=path, skip=False).source()


@pytest.mark.parametrize(
  ("make", "row", "match"),
  [
    (Gsm8k, {"question": "q"}, "line 1: the row lacks 'answer'"),
    (Gsm8k, {"question": "q", "answer": "7"}, "lacks '####'"),
    (Gsm8k, ["q"], "line 1"),
    (MathProblems, {"problem": "p", "solution": "7"}, "neither an answer"),
    (Programs, PROGRAM | {"entry_point": "a b"}, "no name of a function"),
  ],
)
def test_rows_of_another_schema_are_refused(tmp_path, make, row, match):
  path = written(tmp_path / "rows.jsonl", [row])
  with pytest.raises(ValueError, match=match):
    make(rows=1, path=path).source()


def test_missing_files_and_bad_settings_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError):
    Gsm8k(rows=1, path=f"{tmp_path}/none").source()
  with pytest.raises(ValueError, match="rows"):
    Gsm8k(rows=0)
  with pytest.raises(ValueError, match="levels"):
    MathProblems(rows=1, path="", levels=(6,))


GYM = ("chain_sum", "letter_counting", "countdown", "polynomial_multiplication")


# The first to import reasoning-gym waits for seconds.
@pytest.mark.slow
@pytest.mark.parametrize("family", GYM)
def test_a_row_of_a_family_is_a_function_of_seed_and_index(family):
  pytest.importorskip("reasoning_gym")
  task = ReasoningGym(family=family, rows=2, length=5, seed=3)
  source = task.source()
  entry = source[np.array([4])]["reference"][0]
  gym_module._dataset.cache_clear()
  again = task.source()[np.array([1, 4])]["reference"][1]
  assert entry["question"] == again["question"]
  kept = pickle.loads(pickle.dumps(entry))
  verify = task.verifier
  assert verify(f"So: <answer>{entry['answer']}</answer>", kept).reward == 1.0
  assert verify(f"The answer is {entry['answer']}", kept).reward == 1.0
  assert verify("<answer>no idea</answer>", kept).reward < 0.1


ATTACKS = (
  "__import__('pathlib').Path('CANARY').touch()",
  "[open('CANARY', 'w')]",
  "exec(chr(112))",
  "(1).__class__",
  "x.func(1)",
  "lambda: 1",
  "E1(2)",
  "[x for x in (1,)]",
)


@pytest.mark.parametrize("family", sorted(gym_module._EVALUATED))
def test_answers_that_would_be_evaluated_are_refused(family, tmp_path):
  canary = tmp_path / "canary"
  for attack in ATTACKS:
    text = f"<answer>{attack.replace('CANARY', f'{canary}')}</answer>"
    found = GymScore(family=family)(text, {"answer": "1", "metadata": {}})
    assert found.reward == 0.0
    assert found.reason.startswith("refused")
  assert not canary.exists()


@pytest.mark.parametrize(
  "answer", ["3*x**2 - 5/2", "sin(x) + C", "(1 + 2)*3.5", "[[1, 0], ['_']]"]
)
def test_formulas_and_literals_are_not_refused(answer):
  assert gym_module._harmless(answer)


@pytest.mark.slow
def test_the_list_of_evaluating_scorers_is_complete():
  """A scorer that calls eval or sympy's parser must be on the list."""
  pytest.importorskip("reasoning_gym")
  from reasoning_gym.factory import DATASETS

  dangerous = {"eval", "exec", "parse_expr", "sympify"}
  for family, (scorer, _) in DATASETS.items():
    lines = inspect.getsource(scorer.score_answer)
    tree = ast.parse(textwrap.dedent(lines))
    named = {
      getattr(node.func, "id", getattr(node.func, "attr", ""))
      for node in ast.walk(tree)
      if isinstance(node, ast.Call)
    }
    # Those that evaluate the entry's own answer see nothing of the policy.
    if named & dangerous and family != "number_sorting":
      assert family in gym_module._EVALUATED, family


@pytest.mark.slow
def test_bad_families_and_settings_are_refused():
  pytest.importorskip("reasoning_gym")
  with pytest.raises(ValueError, match="no 'none'"):
    ReasoningGym(family="none", rows=1, length=1).source()
  with pytest.raises(ValueError, match="chain_sum"):
    ReasoningGym(
      family="chain_sum", rows=1, length=1, settings=(("none", 1),)
    ).source()
  with pytest.raises(ValueError, match="range"):
    ReasoningGym(family="chain_sum", rows=0, length=1)
