"""What each verifier calls right, wrong, or neither."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.rewards import Sum
from rl_jax.rewards.verifiers import (
  Bubblewrap,
  Code,
  Exact,
  FirstNumber,
  Json,
  Judgement,
  Math,
  Monty,
  RewardFunction,
  ToolCall,
  boxed,
  final_answer,
  judged,
  no_verdict,
)
from rl_jax.rewards.verifiers import instructions as checks


def test_judged_is_what_a_sum_of_rewards_takes():
  batch = judged([Judgement(0.5), no_verdict("died: x"), Judgement(0.0, "a")])
  np.testing.assert_array_equal(batch.valid, [True, False, True])
  assert batch.reward.dtype == np.float32
  assert batch.reason == {"died": 1, "a": 1}
  total = Sum(terms=("match",), weights=(2.0,))(
    {"match": jnp.asarray(batch.reward)}
  )
  assert total.reward.tolist() == [1.0, 0.0, 0.0]
  assert total.valid.tolist() == [True, False, True]


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_refused(reward):
  with pytest.raises(ValueError, match="row 1"):
    judged([Judgement(1.0), Judgement(reward)])


@pytest.mark.parametrize(
  ("text", "inside"),
  [
    (r"\boxed{1}", "1"),
    (r"\boxed{1} then \boxed {2}", "2"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{1} and \boxed{2", "1"),
    (r"\boxed{a \boxed{b} c}", r"a \boxed{b} c"),
    (r"} \boxed{1}", "1"),
    (r"\boxed{}", ""),
    (r"\boxed{1", None),
    ("boxed{1}", None),
    ("", None),
  ],
)
def test_boxed(text, inside):
  assert boxed(text) == inside


@pytest.mark.parametrize(
  ("text", "answer"),
  [
    ("so\n#### 42", "42"),
    ("The answer is 42.", "42"),
    ("Answer: 1\nno, answer: 2", "2"),
    ("The final answer is: $7$", "$7$"),
    ("the answer is x\nbut why", "x"),
    (r"The answer is \boxed{3} apples", "3"),
    ("İ" * 9 + " answer: 5", "5"),
    ("42", None),
    ("The answer is", None),
  ],
)
def test_final_answer(text, answer):
  assert final_answer(text) == answer


@pytest.mark.parametrize(
  ("completion", "reference", "reward"),
  [
    ("Paris", "paris", 1),
    ("The answer is  New   York.", "new york", 1),
    ("ﬁne", "fine", 1),
    ("Paris, France", "paris", 0),
    ("", "paris", 0),
    ("\ud800", "paris", 0),
  ],
)
def test_exact(completion, reference, reward):
  assert Exact()(completion, reference).reward == reward


@pytest.mark.parametrize(
  ("completion", "reference", "reward"),
  [
    ('{"a": [1, 2]}', '{"a": [1, 2]}', 1),
    ('Here:\n```json\n{"b": 1, "a": 2}\n```\n', '{"a": 2, "b": 1}', 1),
    ("[1.0]", "[1]", 1),
    ("[true]", "[1]", 0),
    ("[1, 2]", "[2, 1]", 0),
    ('{"a": 1, "a": 1}', '{"a": 1}', 0),
    ("[NaN]", None, 0),
    ("[1e999]", None, 0),
    ("[1]", None, 1),
    ("", None, 0),
    ("{", None, 0),
    ("[" * 65 + "]" * 65, None, 0),
    ("[" * 64 + "]" * 64, None, 1),
    ('"' + "[" * 500 + '"', None, 1),
    ("9" * 5000, None, 0),
    ("[1]", "{", None),
  ],
)
def test_json(completion, reference, reward):
  assert Json()(completion, reference).reward == reward


def calls(*names: str) -> str:
  return "".join(
    f'<tool_call>{{"name": "{n}", "arguments": {{}}}}</tool_call>'
    for n in names
  )


def wanted(*names: str) -> list[dict]:
  return [{"name": name, "arguments": {}} for name in names]


@pytest.mark.parametrize(
  ("completion", "reference", "reward"),
  [
    (" 42", "42", 1),
    (" 42\n7 + 8 = 15", "42", 1),
    ("-007.", "-7", 1),
    ("1,234", "1234", 1),
    ("is 4", "42", 0),
    ("42.5", "42", 0),
    ("420", "42", 0),
    ("forty-two", "42", 0),
    ("", "42", 0),
    ("9" * 100_000, "42", 0),
    ("42", "x", None),
  ],
)
def test_first_number(completion, reference, reward):
  assert FirstNumber()(completion, reference).reward == reward


@pytest.mark.parametrize(
  ("completion", "reference", "ordered", "reward"),
  [
    (calls("f"), wanted("f"), True, 1),
    ("I call " + calls("f", "g") + " now", wanted("f", "g"), True, 1),
    (calls("g", "f"), wanted("f", "g"), True, 0),
    (calls("g", "f"), wanted("f", "g"), False, 1),
    (calls("f", "f"), wanted("f", "g"), False, 0),
    (calls("f"), wanted("f", "g"), False, 0),
    (calls("f", "f"), wanted("f"), True, 0),
    ("nothing", wanted(), True, 1),
    (calls("f"), wanted(), True, 0),
    (calls("f").removesuffix("</tool_call>"), wanted("f"), True, 0),
    ('<tool_call>{"name": "f"}</tool_call>', wanted("f"), True, 0),
    (calls(*"f" * 17), wanted(*"f" * 17), True, 0),
    (calls("f"), [{"name": 1}], True, None),
  ],
)
def test_tool_calls(completion, reference, ordered, reward):
  assert ToolCall(ordered=ordered)(completion, reference).reward == reward


def test_mathematics_without_an_announced_answer():
  found = Math(anywhere=False)("it is 42", "42")
  assert found == Judgement(0.0, "no answer")
  found = Math(longest=5)(r"\boxed{1234567}", "1234567")
  assert found.reward == 0.0


def function(completions, prompts, length):
  return [float(len(c) == n) for c, n in zip(completions, length, strict=True)]


def test_a_reward_function_sees_the_columns():
  term = RewardFunction(function=function, name="length")
  found = term(["p", "p"], ["a", "ab"], {"length": [1, 1]})
  assert found == [Judgement(1.0), Judgement(0.0)]


@pytest.mark.parametrize(
  ("returned", "reward"),
  [
    ([None], None),
    ([float("nan")], None),
    ([np.float32(0.5)], 0.5),
    (np.array([2]), 2.0),
    ([True], 1.0),
  ],
)
def test_what_a_reward_function_may_return(returned, reward):
  term = RewardFunction(function=lambda **_: returned, name="term")
  assert term(["p"], ["c"], {})[0].reward == reward


@pytest.mark.parametrize(
  ("returned", "match"),
  [
    ([], "'term' must return one reward per row, 1, and returned 0"),
    ([1.0, 1.0], "returned 2"),
    (None, "returned None"),
    (["1"], "returned '1' for row 0"),
  ],
)
def test_what_a_reward_function_may_not_return(returned, match):
  term = RewardFunction(function=lambda **_: returned, name="term")
  with pytest.raises(ValueError, match=match):
    term(["p"], ["c"], {})


def test_a_reward_function_that_raises_is_named():
  term = RewardFunction(function=lambda **_: {}["x"], name="term")
  with pytest.raises(RuntimeError, match="'term' raised KeyError on 1 rows"):
    term(["p"], ["c"], {})
  with pytest.raises(ValueError, match="different lengths"):
    term(["p", "q"], ["c"], {})


@pytest.mark.parametrize(
  "make",
  [
    lambda: Json(longest=0),
    lambda: ToolCall(opening=""),
    lambda: Math(longest=0),
    lambda: Code(longest=0),
    lambda: Monty(seconds=0.0),
    lambda: Bubblewrap(processes=0),
    lambda: Bubblewrap(interpreter="/opt/python"),
    lambda: checks.Words(at_least=2, at_most=1),
  ],
)
def test_bad_settings_are_refused(make):
  with pytest.raises(ValueError, match=r"got|at least"):
    make()
