"""A judge that thinks: its form, its answer, and whether they agree."""

from __future__ import annotations

import collections
import pickle

import numpy as np
import pytest

from rl_jax.rewards.verifiers.pairwise_judge import (
  CONSISTENCY_TEMPLATE,
  AskedConsistency,
  Consistency,
  MentionConsistency,
  PairwiseJudge,
  PairwiseJudgeExample,
  difficulty_filter,
  judge_prompt,
  judge_reward,
  parse_think_answer,
  shuffled_pairs,
)

GOOD = "<think>Response 1 rambles,\nresponse 2 is right</think>"


@pytest.mark.parametrize(
  ("correct", "consistency", "formed", "reward"),
  [  # The table of the sheet.
    (1, 1, 1, 2.0),
    (1, 0, 1, 1.5),
    (1, -1, 1, 1.0),
    (1, 1, 0, 1.5),
    (0, 1, 1, 0.5),
    (0, 0, 0, 0.0),
  ],
)
def test_worked_rewards(correct, consistency, formed, reward):
  found = judge_reward(
    bool(correct),
    consistency,
    bool(formed),
    consistency_weight=0.5,
    format_weight=0.5,
  )
  assert found == reward


@pytest.mark.parametrize(
  ("text", "answer", "formed"),
  [
    (f"{GOOD}<answer>2</answer>", "2", True),
    (f"\n {GOOD}<answer> 2 </answer>\n", "2", True),
    (f"{GOOD}\n<answer>2</answer>", "2", False),
    (f"{GOOD}<answer>2</answer>.", "2", False),
    (f"So: {GOOD}<answer>2</answer>", "2", False),
    (f"{GOOD}<answer>both</answer>", None, True),
    (f"{GOOD}<answer></answer>", None, True),
    (f"{GOOD}<answer>2", None, False),
    (GOOD, None, False),
    ("<answer>1</answer>", "1", False),
    (f"<think>{GOOD}<answer>2</answer>", "2", False),
    (f"{GOOD}<answer>2</answer><answer>1</answer>", "2", False),
    # As coded, closing marks are not counted.
    ("<think>a</think>b</think><answer>1</answer>", "1", True),
    ("", None, False),
  ],
)
def test_forms(text, answer, formed):
  found = parse_think_answer(text)
  assert (found.answer, found.formed) == (answer, formed)


def test_a_hostile_text_costs_little():
  """Every opening is tried once: no quadratic search."""
  text = "<think>" + "</think><answer" * 20_000
  assert not parse_think_answer(text).formed


def test_reasons_are_without_their_marks():
  text = f"{GOOD}<answer>2</answer>"
  assert (
    parse_think_answer(text).reasoning
    == "Response 1 rambles,\nresponse 2 is right"
  )


@pytest.mark.parametrize(
  ("reasoning", "answer", "value"),
  [
    ("response 1, no: RESPONSE 2", "2", 1),
    ("response 2 is bad, so response 1", "2", -1),
    ("both are fine", "1", -1),
    ("response 12 does not exist", "1", -1),
    ("", "1", -1),
  ],
)
def test_the_rule(reasoning, answer, value):
  assert MentionConsistency()(reasoning, answer) == Consistency(value)


class Service:
  """Replies one after the other; an exception is raised."""

  def __init__(self, *replies):
    self.replies, self.prompts = list(replies), []

  def __call__(self, prompt):
    self.prompts.append(prompt)
    reply = self.replies.pop(0)
    if isinstance(reply, Exception):
      raise reply
    return reply


def test_a_model_is_asked_for_one_digit():
  service = Service(" 1\n", "0")
  asked = AskedConsistency(ask=service)
  assert asked("one\n\ntwo\nthree {answer}\nfour", "2") == Consistency(1)
  assert "two;three {answer};four\n" in service.prompts[0]
  assert "Response 2 is better" in service.prompts[0]
  assert asked("x", "1").value == -1


def test_three_useless_replies_are_reported_and_worth_nothing():
  service = Service("maybe", ConnectionError("down"), "10", "1")
  found = AskedConsistency(ask=service)("x", "1")
  assert found == Consistency(0, "reply '10'")
  assert len(service.prompts) == 3
  late = AskedConsistency(ask=Service(OSError("x"), "", "1"))
  assert late("x", "1") == Consistency(1)
  judge = PairwiseJudge(
    consistency=AskedConsistency(ask=Service(*[OSError("down")] * 3))
  )
  found = judge(f"{GOOD}<answer>2</answer>", "2")
  assert found.reward == 1.5
  assert found.reason == "no consistency: OSError: down"


def test_the_template_says_what_it_must():
  for word in ("strictly", "ambiguous", "both", "digit", "Write 1", "Write 0"):
    assert word in CONSISTENCY_TEMPLATE


def test_what_a_judge_is_asked():
  example = PairwiseJudgeExample("Q {second}?", "A", "B", 1)
  text = judge_prompt(example)
  assert "Question: Q {second}?" in text
  assert "Response 1: A\n" in text
  assert "Response 2: B\n" in text
  with pytest.raises(ValueError, match="empty first"):
    judge_prompt(example._replace(first=" "))


def test_judgements():
  judge = PairwiseJudge()
  assert judge(f"{GOOD}<answer>2</answer>", "2").reward == 2.0
  assert judge(f"{GOOD}<answer>2</answer>", 2).reward == 2.0
  assert judge(f"{GOOD}<answer>1</answer>", "1").reward == 1.0
  assert judge(f"{GOOD}<answer>1</answer>", "2") == (0.5, "")
  assert judge(f"{GOOD}<answer>x</answer>", "2") == (0.5, "no answer")
  assert judge("", "2") == (0.0, "no answer")
  assert judge(f"{GOOD}<answer>1</answer>", "A").reward is None
  off = PairwiseJudge(consistency_weight=0.0, consistency=Service())
  assert off(f"{GOOD}<answer>1</answer>", "1").reward == 1.5
  assert pickle.loads(pickle.dumps(judge)) == judge


def test_difficulty():
  assert difficulty_filter([1, 3, None, 2], min_attempts=3) == [1, 2]
  with pytest.raises(ValueError, match=r"example 1 .*0 attempts"):
    difficulty_filter([1, 0], min_attempts=2)
  with pytest.raises(ValueError, match="min_attempts"):
    difficulty_filter([1], min_attempts=0)


def test_labels_come_equally_often():
  examples = [PairwiseJudgeExample(str(n), "good", "bad", 1) for n in range(20)]
  found = shuffled_pairs(examples, rng=np.random.default_rng(0))
  assert collections.Counter(one.label for one in found) == {1: 10, 2: 10}
  for number, one in enumerate(found):
    assert one.question == str(number)
    assert (one.first if one.label == 1 else one.second) == "good"
  with pytest.raises(ValueError, match="labels must be 1 or 2"):
    shuffled_pairs(
      [PairwiseJudgeExample("", "", "", 0)], rng=np.random.default_rng(0)
    )


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: MentionConsistency(mention="[12]"), "one group"),
    (lambda: AskedConsistency(ask=str, tries=0), "at least 1"),
    (lambda: AskedConsistency(ask=str, template="{answer}"), "reasoning"),
    (lambda: PairwiseJudge(consistency_weight=2.0), r"2\.0 must be in"),
    (lambda: PairwiseJudge(format_weight=-1.0), "not negative"),
    (
      lambda: judge_reward(
        True, 2, True, consistency_weight=0.5, format_weight=0.5
      ),
      "got 2",
    ),
  ],
)
def test_bad_settings(make, message):
  with pytest.raises(ValueError, match=message):
    make()
