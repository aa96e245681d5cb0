"""ToolRL's reward: its published values and its variants."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from rl_jax.rewards.verifiers import RewardFunction
from rl_jax.rewards.verifiers.tool_calls import (
  multiset_jaccard,
  parse_tool_response,
)
from rl_jax.rewards.verifiers.tool_config import ToolRewardConfig
from rl_jax.rewards.verifiers.tools import (
  ToolPart,
  ToolReward,
  format_reward,
  length_reward,
  tool_correctness,
  tool_reward,
  tool_rewards,
)
from verifiers.tool_texts import (
  CALC,
  DEFAULT,
  SEARCH,
  TRUTH,
  block,
  call,
  response,
  scored,
)


# The table of the specification: correctness and form.
@pytest.mark.parametrize(
  ("text", "correctness", "form"),
  [
    (TRUTH, 3.0, 1.0),
    (response(CALC, SEARCH), 3.0, 1.0),
    (response(SEARCH), 0.5, 1.0),
    (response(call("search", q="x", k=4), CALC), 2.0, 1.0),
    (response(call("search", q="x", k=3, z=1), CALC), 8 / 3, 1.0),
    (response(call("find", q="x", k=3), CALC), -2 / 3, 1.0),
    (response(SEARCH, CALC, call("calc", expr="2")), 8 / 3, 1.0),
    (response("{broken", CALC), -3.0, 1.0),
    ("plain text", -3.0, 0.0),
    (block(SEARCH, CALC), 3.0, 0.0),
  ],
)
def test_published_values(text, correctness, form):
  found = scored(text)
  assert found["correctness"] == pytest.approx(correctness, abs=1e-9)
  assert found["format"] == form


@pytest.mark.parametrize(
  ("truth", "given", "expected"),
  [
    ([call("f", a=1)], [call("f", a="1")], 1.0),
    ([call("now")], [call("now", tz="u")], 0.0),
    ([call("now")], [call("now")], 3.0),
    (
      [call("f", a=1, b=1), call("f", a=1, b=2)],
      [call("f", a=1, b=2), call("f", a=1)],
      0.857142857,
    ),
  ],
)
def test_more_published_values(truth, given, expected):
  found = scored(response(*given), response(*truth))["correctness"]
  assert found == pytest.approx(expected, abs=1e-8)


def test_the_best_matching_earns_more_than_the_greedy_one():
  truth = response(call("f", a=1, b=1), call("f", a=1, b=2))
  text = response(call("f", a=1, b=2), call("f", a=1))
  best = scored(text, truth, matching="optimal")["correctness"]
  # Names 1, {a, b} and both values 3, {a} of {a, b} and one value 1.5, of 7.
  assert best == pytest.approx(-3 + 6 * 5.5 / 7)
  assert best > scored(text, truth)["correctness"]


@pytest.mark.parametrize(
  ("truth", "text", "form"),
  [
    ("<think>a</think>\n<response>b</response>", None, 1.0),
    (response(answer="b"), response(SEARCH), 0.0),
    (response(answer="b"), response(SEARCH, answer="b"), 0.0),
    (response(SEARCH), response(SEARCH, answer="b"), 0.0),
    (response(SEARCH, answer="b"), None, 1.0),
    (response(SEARCH, answer="b"), response(SEARCH), 0.0),
    ("<think>a</think>", None, 1.0),
    ("<think>a</think>", "<think>a</think> b", 0.0),
    # A second thought inside of the match passes, a second block does not.
    (TRUTH, "<think>a</think>\n" + TRUTH, 1.0),
    (TRUTH, TRUTH + "\n" + block(CALC), 0.0),
    (TRUTH, TRUTH.replace("</think>", "<tool_call></think>"), 0.0),
    (TRUTH, TRUTH.replace("</think>\n", "</think>"), 0.0),
    (TRUTH, TRUTH.replace("</think>\n", "</think>\n\n"), 0.0),
    (TRUTH, TRUTH.replace("\n", "\r\n"), 0.0),
    (TRUTH, "<think>a</think>\n<tool_call>\n</tool_call>", 0.0),
    (TRUTH, f"  {TRUTH}\n<|im_end|>\n", 1.0),
    ("<think>a</think>", "<think></think>", 1.0),
    ("<think>a</think>", "<think>", 0.0),
  ],
)
def test_form(truth, text, form):
  text = truth if text is None else text
  assert format_reward(text, truth, DEFAULT) == form


def test_form_is_that_of_the_published_expressions():
  """Against regular expressions, on all short sequences of tags."""
  tags = "<think>", "</think>", "<tool_call>", "</tool_call>", "\n", "a"
  think, calls = r"^<think>.*?</think>", r"<tool_call>\n.*?\n</tool_call>$"
  truths = {
    TRUTH: re.compile(f"{think}\\n{calls}", re.S),
    "<think>a</think>": re.compile(f"{think}$", re.S),
  }
  compared = matches = 0
  start = "<think></think>\n<tool_call>\n"
  for length in (2, 3, 4):
    for parts in itertools.product(tags, repeat=length):
      for text in ("".join(parts), f"{start}{''.join(parts)}"):
        text = text.strip()
        for truth, pattern in truths.items():
          once = truth != TRUTH or all(
            text.count(tag) == 1 for tag in tags[2:4]
          )
          expected = float(bool(pattern.search(text)) and once)
          assert format_reward(text, truth, DEFAULT) == expected, text
          compared, matches = compared + 1, matches + int(expected)
  assert compared > 6000
  assert matches > 50


@pytest.mark.parametrize(
  ("text", "truth"),
  [(TRUTH, response(answer="b")), ("", "<think>a</think>")],
)
def test_without_calls_in_the_reference_calls_earn_nothing(text, truth):
  assert scored(text, truth)["correctness"] == 0.0


@pytest.mark.parametrize(
  ("given", "expected"),
  [
    # Parameters that are missing or no object: fatal in a call of that name.
    ([{"name": "search"}, CALC], -3.0),
    ([{"name": "search", "parameters": [1]}, CALC], -3.0),
    # In a call of another name they only fail to match: names 2 / 3, S 5.67.
    ([SEARCH, CALC, {"name": "x"}], -3 + (2 / 3 + 5)),
    ([SEARCH, CALC, {"name": "x", "parameters": "p"}], -3 + (2 / 3 + 5)),
    ([SEARCH, CALC, {"name": None, "parameters": {}}], -3 + (2 / 3 + 5)),
    ([SEARCH, {"parameters": {}}], -3.0),
    ([SEARCH, 5], -3.0),
    ([SEARCH, "null"], -3.0),
    ([SEARCH, '["name"]'], -3.0),
    ([SEARCH, {"name": ["x"], "parameters": {}}], -3.0),
    ([SEARCH, "", CALC], -3.0),
    # Another key makes the objects unequal, and costs nothing else.
    ([SEARCH | {"id": 1}, CALC], 3.0),
  ],
  ids=str,
)
def test_calls_that_are_not_well_formed(given, expected):
  assert scored(response(*given))["correctness"] == pytest.approx(expected)


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    (f"<think>{block(SEARCH, CALC)}</think>\n{block('{')}", 3.0),
    (f"<think>a</think>\n{block(SEARCH, CALC)}\n{block('{')}", 3.0),
    (f"<think>a</think>\n{block('{')}\n{block(SEARCH, CALC)}", -3.0),
    (TRUTH.removesuffix("</tool_call>"), -3.0),
    # An opening tag in the thought begins the first block and ends it.
    (TRUTH.replace("<think>", "<think>use <tool_call> "), -3.0),
  ],
)
def test_only_the_first_block_is_read(text, expected):
  assert scored(text)["correctness"] == expected


def test_coarse_and_intermediate():
  wrong = response(call("search", q="x", k=4), CALC)
  assert scored(wrong, granularity="coarse")["correctness"] == -3.0
  assert scored(TRUTH, granularity="coarse")["correctness"] == 3.0
  # The order of the list counts in equality, so a swap is not the same.
  swapped = response(CALC, SEARCH)
  assert scored(swapped, granularity="coarse")["correctness"] == -3.0
  # Names 1 and one whole call, of 3; names 1 and both.
  found = scored(wrong, granularity="intermediate")["correctness"]
  assert found == pytest.approx(-3 + 6 * 2 / 3)
  assert scored(swapped, granularity="intermediate")["correctness"] == 3.0
  bad = response({"name": "search"}, CALC)
  found = scored(bad, granularity="intermediate")["correctness"]
  assert found == pytest.approx(-3 + 6 * 2 / 3)


def test_strict_wants_names_and_keys_in_order():
  swapped = response(CALC, SEARCH)
  found = scored(swapped, granularity="strict")["correctness"]
  assert found == pytest.approx(-3 + 6 * 5 / 6)
  turned = response(call("search", k=3, q="x"), CALC)
  assert scored(turned, granularity="strict")["correctness"] == 3.0
  turned = response(call("search", k=3, q="x"), call("calc", expr="2"))
  # Names 1; keys in another order 0 and two values; keys 1 and no value.
  found = scored(turned, granularity="strict")["correctness"]
  assert found == pytest.approx(-3 + 6 * 4 / 6)


def test_equal_maxima():
  wrong = response(call("search", q="x", k=4), CALC)
  found = scored(wrong, correct_range=(-1.0, 1.0))["correctness"]
  assert found == pytest.approx(2 / 3)


def test_true_is_one_unless_types_are_strict():
  truth, text = response(call("f", a=1)), response(call("f", a=True))
  assert scored(text, truth)["correctness"] == 3.0
  found = scored(text, truth, strict_types=True)["correctness"]
  assert found == pytest.approx(1.0)
  number = response(call("f", a=1.0))
  assert scored(number, truth, strict_types=True)["correctness"] == 3.0


def test_smooth_schedule():
  """The specification's table; the least of the form ends at -1."""
  config = ToolRewardConfig(schedule="smooth")
  expected = {
    0: ((-2.0, 2.0), (-2.0, 2.0)),
    75: ((-1.0, 1.5), (-2.5, 2.5)),
    150: ((-1.0, 1.0), (-3.0, 3.0)),
    900: ((-1.0, 1.0), (-3.0, 3.0)),
  }
  for step, ranges in expected.items():
    assert config.ranges(step) == ranges
  assert scored("", step=75, schedule="smooth")["total"] == -3.5


def test_two_stages():
  config = ToolRewardConfig(schedule="two_stage")
  assert config.ranges(29) == ((0.0, 1.0), (-1.0, 1.0))
  assert config.ranges(30) == ((0.0, 0.5), (-3.0, 3.0))


def test_length():
  fixed = ToolRewardConfig(length="fixed")
  dynamic = ToolRewardConfig(length="dynamic")
  words = {n: response(SEARCH, think="w " * n) for n in (0, 128, 600)}
  assert length_reward(words[0], fixed) == 0.0
  assert length_reward(words[128], fixed) == 0.25
  assert length_reward(words[600], fixed) == 1.0
  assert length_reward(words[128], dynamic) == 0.33
  assert length_reward(words[128], dynamic, 105) == 0.2
  assert length_reward(words[128], DEFAULT) == 0.0
  assert length_reward("w " * 99, fixed) == 0.0
  assert length_reward("<think>w w", fixed) == 0.0
  # The last thought counts, whatever closed before.
  assert length_reward("</think><think>" + "w " * 128, fixed) == 0.25


def test_jaccard():
  assert multiset_jaccard([], []) == 1.0
  assert multiset_jaccard([], ["a"]) == 0.0
  assert multiset_jaccard(["a", "b"], ["b", "a"]) == 1.0
  assert multiset_jaccard(["a", "a"], ["a"]) == 0.5


def test_what_is_parsed():
  found = parse_tool_response(response(SEARCH, think=" a ", answer="b"))
  assert (found.think, found.response, found.errors) == ("a", "b", ())
  assert found.calls[0].name == "search"
  assert found.calls[0].parameters == {"q": "x", "k": 3}
  found = parse_tool_response("nothing")
  assert found[:3] == (None, (), None)
  assert found.errors


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({"format_range": (1.0, 0.0)}, "format_range"),
    ({"correct_range": (-3.0, float("inf"))}, "correct_range"),
    ({"most": 0}, "most"),
    ({"granularity": "coarse", "matching": "optimal"}, "matches nothing"),
    # Both at once shrink the scale, and turn it round after some hundred steps.
    ({"schedule": "smooth", "correct_range": (-1.0, 1.0)}, "smooth"),
    ({"schedule": "smooth", "correct_range": (-4.0, 4.0)}, "smooth"),
    ({"schedule": "smooth", "format_range": (0.0, 3.0)}, "smooth"),
  ],
)
def test_contradictory_configurations_are_refused(changes, match):
  with pytest.raises(ValueError, match=match):
    ToolRewardConfig(**changes)


def test_a_negative_step_is_refused():
  for config in (DEFAULT, ToolRewardConfig(length="dynamic")):
    with pytest.raises(ValueError, match="step"):
      tool_reward(TRUTH, TRUTH, -1, config)
    with pytest.raises(ValueError, match="step"):
      length_reward(TRUTH, config, -1)


def test_a_batch_has_the_parts_of_each_row():
  texts = [TRUTH, response(SEARCH), "plain"]
  config = ToolRewardConfig(schedule="two_stage", length="fixed")
  found = tool_rewards(texts, [TRUTH] * 3, [0, 30, 0], config)
  assert all(part.dtype == np.float32 for part in found)
  np.testing.assert_allclose(found.correctness, [1.0, 0.5, -1.0])
  np.testing.assert_allclose(found.format, [1.0, 0.5, 0.0])
  np.testing.assert_allclose(
    found.total, found.format + found.correctness + found.length
  )
  assert tool_rewards([], [], [], config).total.shape == (0,)
  with pytest.raises(ValueError, match="2 responses"):
    tool_rewards(["a", "b"], [TRUTH], [0], DEFAULT)


def test_terms_of_a_sum_see_the_step():
  columns = {"reference": [TRUTH] * 2, "step": [0, 30]}
  config = ToolRewardConfig(schedule="two_stage")
  found = {
    part: RewardFunction(
      function=ToolPart(config=config, part=part), name=part
    )(["p", "p"], [TRUTH, TRUTH], columns)
    for part in ("total", "format", "correctness", "length")
  }
  assert [x.reward for x in found["total"]] == [2.0, 3.5]
  assert [x.reward for x in found["format"]] == [1.0, 0.5]
  assert [x.reward for x in found["length"]] == [0.0, 0.0]


def test_a_verifier_has_no_step_to_depend_on():
  assert ToolReward()(response(SEARCH), TRUTH).reward == 1.5
  for changes in ({"schedule": "smooth"}, {"length": "dynamic"}):
    with pytest.raises(ValueError, match="ToolPart"):
      ToolReward(config=ToolRewardConfig(**changes))


def test_a_truth_of_other_calls_than_it_was_parsed_with_is_checked():
  with pytest.raises(ValueError, match="the reference"):
    tool_correctness(
      parse_tool_response(TRUTH), parse_tool_response("none"), DEFAULT
    )
