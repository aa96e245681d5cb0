"""ToolRL's reward of generated, hostile and published texts."""

from __future__ import annotations

import collections
import itertools
import json
import os
import pathlib
import re
import time

import numpy as np
import pytest

from rl_jax.rewards.verifiers.tools import ToolReward, tool_rewards
from verifiers.tool_texts import DEFAULT, SEARCH, TRUTH, call, response, scored

# A folder with the records that ToolRL published (test.parquet and
# rlla_sft.json), which are not part of this project.
PUBLISHED = pathlib.Path(os.environ.get("TOOLRL_DATA", "toolrl-data"))


def mutations(rng, calls):
  """A list of calls with some of its parts changed."""
  calls = json.loads(json.dumps(calls))
  for _ in range(rng.integers(0, 4)):
    kind = rng.integers(6)
    if kind == 0 or not calls:
      calls.append(call(str(rng.choice(list("fg"))), a=int(rng.integers(2))))
      continue
    chosen = calls[rng.integers(len(calls))]
    if kind == 1 and len(calls) > 1:
      calls.remove(chosen)
    elif kind == 2:
      calls.reverse()
    elif kind == 3:
      chosen["name"] = str(rng.choice(list("fgh")))
    elif kind == 4:
      chosen["parameters"][str(rng.choice(list("abc")))] = 1
    elif chosen["parameters"]:
      chosen["parameters"].popitem()
  return calls


def oracle(wanted, given):
  """The fine score from the formula, the greedy search as a loop."""

  def similar(x, y):
    if x == y:
      return 1.0
    if not x or not y:
      return 0.0
    both = sum((collections.Counter(x) & collections.Counter(y)).values())
    return both / (len(x) + len(y) - both)

  if wanted == given:
    return 3.0
  names = [[c["name"] for c in calls] for calls in (wanted, given)]
  score, most, used = similar(*names), 1.0, set()
  for g in wanted:
    asked = g["parameters"]
    most += 1 + len(asked)
    best, at = 0.0, None
    for i, p in enumerate(given):
      if i in used or p["name"] != g["name"]:
        continue
      points = similar(list(asked), list(p["parameters"]))
      points += sum(p["parameters"].get(k) == v for k, v in asked.items())
      if points > best:
        best, at = points, i
    if at is not None:
      used.add(at)
      score += best
  return -3 + 6 * score / most


@pytest.mark.slow
def test_properties_of_many_responses():
  """The formula, bounds, coarse below fine, greedy below optimal."""
  rng = np.random.default_rng(0)
  for _ in range(400):
    wanted = [
      call(
        str(rng.choice(list("fg"))),
        **{k: int(rng.integers(2)) for k in "abc"[: rng.integers(3)]},
      )
      for _ in range(rng.integers(1, 4))
    ]
    given = mutations(rng, wanted)
    truth, text = response(*wanted), response(*given)
    if not given:
      continue
    fine = scored(text, truth)
    assert fine["correctness"] == pytest.approx(oracle(wanted, given))
    assert -3 <= fine["total"] <= 4
    optimal = scored(text, truth, matching="optimal")["correctness"]
    coarse = scored(text, truth, granularity="coarse")["correctness"]
    assert coarse <= fine["correctness"] <= optimal + 1e-9
    # Putting a parameter of the only call of its name right costs nothing.
    names = collections.Counter(g["name"] for g in wanted)
    for g, p in itertools.product(wanted, given):
      if g["name"] == p["name"] and names[g["name"]] == 1 and g["parameters"]:
        key = sorted(g["parameters"])[0]
        if key in p["parameters"]:
          p["parameters"][key] = g["parameters"][key]
          better = scored(response(*given), truth, matching="optimal")
          assert better["correctness"] >= optimal - 1e-9
        break


DEEP = 100_000
HOSTILE = {
  "deep": '{"name": "search", "parameters": ' + "[" * DEEP,
  "deep objects": '{"a":' * 20_000 + "1" + "}" * 20_000,
  "65 deep": '{"name": "search", "parameters": {"q": '
  + "[" * 65
  + "]" * 65
  + "}}",
  "large int": '{"name": "search", "parameters": {"k": ' + "9" * 5000 + "}}",
  "overflow": '{"name": "search", "parameters": {"k": 1e999}}',
  "nan": '{"name": "search", "parameters": {"k": NaN}}',
  "infinity": '{"name": "search", "parameters": {"k": -Infinity}}',
  "twice": '{"name": "search", "name": "search", "parameters": {}}',
  "twice inside": '{"name": "search", "parameters": {"k": 3, "k": 3}}',
  "surrogate": '{"name": "search", "parameters": {"q": "\ud800"}}',
  "escaped": '{"name": "search", "parameters": {"q": "\\ud800"}}',
  "many lines": "\n".join([json.dumps(SEARCH)] * 100_000),
  "short lines": "\n".join(["1"] * 100_000),
  "empty lines": "x" + "\n" * 100_000 + "x",
  "open string": '{"name": "' + "\\" * 100_001,
  "nul": '{"name": "sea\x00rch"}',
  "long": '{"name": "' + "a" * 200_000 + '", "parameters": {}}',
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("granularity", ["fine", "intermediate"])
def test_hostile_calls_earn_the_least(line, granularity):
  begin = time.perf_counter()
  found = scored(response(line), granularity=granularity)
  assert found["correctness"] == -3.0
  assert time.perf_counter() - begin < 2


TAGS = ("<think>", "</think>\n<tool_call>\n", "\n</tool_call>", "<response>")


@pytest.mark.parametrize("tag", [*TAGS, "".join(TAGS)])
def test_many_tags_take_no_time(tag):
  begin = time.perf_counter()
  text = "<think>" + tag * 20_000
  for truth in (TRUTH, response(SEARCH, answer="b")):
    found = scored(text, truth, length="fixed")
    assert found["format"] == 0.0
    assert found["correctness"] == -3.0
  assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
  "text", ["", "\ud800", "\x00", "<think>\ud800</think>"]
)
def test_any_text_has_a_reward(text):
  assert scored(text)["total"] == -3.0


BAD_TRUTHS = {
  "no object": "<think>a</think>\n<tool_call>\n5\n</tool_call>",
  "no json": "<think>a</think>\n<tool_call>\n{\n</tool_call>",
  "not closed": "<think>a</think>\n<tool_call>\n{}",
  "no name": response({"parameters": {}}),
  "name of a number": response({"name": 1, "parameters": {}}),
  "no parameters": response({"name": "f"}),
  "in the thought": TRUTH.replace("<think>", "<think>use <tool_call>"),
}


@pytest.mark.parametrize("truth", BAD_TRUTHS.values(), ids=BAD_TRUTHS)
def test_a_reference_that_does_not_parse_is_refused(truth):
  with pytest.raises(ValueError, match=r"row 1: the reference has no calls"):
    tool_rewards([TRUTH, TRUTH], [TRUTH, truth], [0, 0], DEFAULT)
  judgement = ToolReward()(TRUTH, truth)
  assert judgement.reward is None
  assert judgement.reason.startswith("bad reference")


def published():
  parquet = pytest.importorskip("pyarrow.parquet")
  if not PUBLISHED.is_dir():
    pytest.skip(f"no published records at {PUBLISHED}")
  table = parquet.read_table(PUBLISHED / "test.parquet").to_pylist()
  return [row["reward_model"]["ground_truth"] for row in table]


def test_published_references_earn_the_most():
  """All 80 held-out records parse; what one has decides the range."""
  found = 0
  for truth in published():
    most = 3.0 if "<tool_call>" in truth else 0.0
    parts = scored(truth, truth)
    assert (parts["format"], parts["correctness"]) == (1.0, most)
    found += most > 0
    for granularity in ("coarse", "intermediate", "strict"):
      assert scored(truth, truth, granularity=granularity)["total"] == 1 + most
    if not most:
      continue
    broken = truth.replace('"parameters"', '"arguments"')
    assert scored(broken, truth)["correctness"] == -3.0
    renamed = re.sub(r'"name": "', '"name": "_', truth)
    assert scored(renamed, truth)["correctness"] == -3.0
    one = truth.replace("</tool_call>", '{"name": "_"}\n</tool_call>')
    assert -3 < scored(one, truth)["correctness"] < 3
  assert found > 40


def test_published_demonstrations_that_name_a_tag_are_refused():
  if not PUBLISHED.is_dir():
    pytest.skip(f"no published records at {PUBLISHED}")
  rows = json.loads((PUBLISHED / "rlla_sft.json").read_text())
  refused = 0
  for row in rows:
    judgement = ToolReward()(row["output"], row["output"])
    refused += judgement.reward is None
    assert judgement.reward in (None, 0.0, 1.0, 3.0, 4.0)
  assert (len(rows), refused) == (400, 17)
