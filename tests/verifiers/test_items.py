from __future__ import annotations

import types

import numpy as np
import pytest

from rl_jax.data.item_index import format_index_tokens
from rl_jax.rewards.verifiers import items

TRUTH = (4, 0, 16, 2)


def text(*codes):
  return format_index_tokens(codes)


def answer(*codes, think="<think>why</think>"):
  return f"{think} so <answer>{text(*codes)}</answer>."


ANSWER = f"<answer>{text(3)}</answer>"
REASONING = items.ItemAnswer(mode="reasoning")
DIRECT = items.ItemAnswer(mode="direct")


@pytest.mark.parametrize(
  ("codes", "reward"),
  [
    ((4, 0, 16, 2), 1.0),
    ((4, 0, 16, 3), 0.866),
    ((4, 0, 3, 2), 0.707),
    ((4, 0), 0.707),
    ((4, 1, 16, 2), 0.5),
    ((3, 0, 16, 2), 0.0),
    ((4, 0, 16, 2, 1), 0.95),
  ],
)
def test_worked_strings_of_the_sheet(codes, reward):
  """Matches of 4, 3, 2, 2, 1, 0, and all four with a code too many."""
  found = REASONING(answer(*codes), text(*TRUTH))
  assert found.reward == pytest.approx(reward, abs=1e-6)
  assert REASONING.exact(answer(*codes), text(*TRUTH)) == (reward == 1)
  if len(codes) >= 4:
    assert DIRECT(text(*codes), text(*TRUTH)).reward == found.reward


def test_doubles_that_only_the_last_code_tells_apart():
  truth = text(*TRUTH, 1)
  assert REASONING(answer(*TRUTH, 1), truth).reward == 1
  assert REASONING(answer(*TRUTH, 0), truth).reward == pytest.approx(0.95)
  assert REASONING(answer(*TRUTH), truth).reward == pytest.approx(0.95)


def test_without_thoughts_there_is_no_reward_but_a_match():
  bare = answer(*TRUTH, think="")
  assert REASONING(bare, text(*TRUTH)) == (0.0, "no item: the form is not kept")
  ungated = items.ItemAnswer(mode="reasoning", gated=False)
  assert ungated(bare, text(*TRUTH)).reward == 1
  assert ungated("nothing", text(*TRUTH)).reward == 0
  assert not REASONING.exact(bare, text(*TRUTH))


@pytest.mark.parametrize(
  ("completion", "codes"),
  [
    # Either order, other text around, end tokens anywhere.
    (f"<answer>{text(1, 2)}</answer> x <think></think>", (1, 2)),
    (f"<think><answer>{text(1)}</answer></think><|endoftext|>", (1,)),
    (f"<think></think><answer>{text(1)}<|im_end|>{text(2)}</answer>", None),
    # The first block of nothing but tokens; space makes it no such block.
    (f"<think></think><answer> {text(1)}</answer>", ()),
    (f"<think></think><answer>x</answer>{ANSWER}", (3,)),
    (f"<think></think>{2 * ANSWER}<answer>{text(2)}</answer>", (3,)),
    ("<think></think><answer></answer>", ()),
    (f"<think></think><answer>{text(1)}", ()),
    ("<think></think><answer><|a_0|></answer>", ()),
    ("<think></think><answer><|A_1|></answer>", ()),
  ],
)  # fmt: skip
def test_forms_of_reasoning(completion, codes):
  found = items.parse_answer(completion, mode="reasoning")
  expected = text(1) + text(2) if codes is None else text(*codes)
  assert "".join(found.tokens) == expected
  assert found.well_formed == bool(expected)


@pytest.mark.parametrize("thought", ["<think>", "</think><think>", "</think>"])
def test_thoughts_that_do_not_close_are_none(thought):
  found = items.parse_answer(thought + answer(1, think=""), mode="reasoning")
  assert found.tokens
  assert not found.well_formed


def test_direct_answers_are_the_first_run_that_is_long_enough():
  """A short run does not count, a long one is cut."""
  completion = f"{text(9, 9, 9)} and {text(*TRUTH, 7, 8)} {text(5, 5, 5, 5)}"
  found = items.parse_answer(completion, mode="direct")
  assert "".join(found.tokens) == text(*TRUTH, 7)
  short = items.parse_answer(text(1, 2, 3), mode="direct")
  assert short == ((), False)
  assert items.parse_answer(text(1, 2, 3), mode="direct", levels=2).well_formed


def test_hostile_texts_take_linear_time():
  for piece in ("<answer><|a_1|>", "<think>", "<|a_", "<answer>", "<|a_1|>"):
    items.parse_answer(piece * 50_000, mode="reasoning")
    items.parse_answer(piece * 50_000, mode="direct")


def test_reward_rises_with_the_match_and_is_one_only_if_exact():
  matched = np.arange(7)
  no, yes = np.zeros(7, bool), np.ones(7, bool)
  levels = (0.5, 0.707, 0.866, 0.95)
  graded = items.residual_sensitive_reward(matched, no, yes, levels=levels)
  assert graded.tolist() == sorted(graded.tolist())
  np.testing.assert_allclose(
    graded, [0, 0.5, 0.707, 0.866, 0.95, 0.95, 0.95], atol=1e-6
  )
  np.testing.assert_allclose(
    graded[1:4], np.sin(np.radians([30, 45, 60])), atol=2e-4
  )
  exact = items.residual_sensitive_reward(matched, yes, yes, levels=levels)
  assert exact.tolist() == [1.0] * 7
  assert not np.any(
    items.residual_sensitive_reward(matched, yes, no, levels=levels)
  )


def test_prefixes_against_a_loop():
  rng = np.random.default_rng(0)
  predicted, truth = rng.integers(0, 2, (2, 200, 5))
  mask = rng.uniform(size=(200, 5)) < 0.9
  found = items.prefix_match_length(predicted, truth, mask)
  for row in range(200):
    count = 0
    while count < 5 and mask[row, count]:
      if predicted[row, count] != truth[row, count]:
        break
      count += 1
    assert found[row] == count


def test_a_reference_that_is_no_item_has_no_verdict():
  for reference in ("", "x", text(1) + " "):
    assert REASONING(answer(1), reference).reward is None


def test_notes_say_which_rows_are_exact(unchecked):
  """Also with a token that ends the response and is not marked as special."""
  pieces = (text(1), text(9), "<|im_end|>")
  tokenizer = types.SimpleNamespace(
    decode=lambda ids: "".join(pieces[one] for one in ids)
  )
  columns = {"reference": [text(1) + text(9), text(1)]}
  source = types.SimpleNamespace(
    columns=lambda wanted: {
      name: [column[one] for one in wanted] for name, column in columns.items()
    }
  )
  data = types.SimpleNamespace(
    vocabulary=types.SimpleNamespace(load=lambda: tokenizer),
    source=lambda: source,
  )
  judge = items.ItemAnswer(mode="direct", levels=1, scores=(0.5,))
  notes = items.ItemNotes(answer=judge)
  rollouts = types.SimpleNamespace(
    item=np.array([0, 1, 1]),
    token=np.array([[0, 1, 2], [0, 1, 2], [0, 2, 1]]),
    mask=np.array([[True, True, True]] * 2 + [[True, True, False]]),
  )
  found = notes.bind(data)(rollouts)
  assert found["exact"].tolist() == [True, False, True]
  assert {
    name: (value.shape[1:], value.dtype) for name, value in found.items()
  } == notes.shapes(3)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"mode": "both"}, "got 'both'"),
    ({"levels": 0}, "levels must be at least 1"),
    ({"scores": ()}, "must not fall"),
    ({"scores": (0.5, 0.25)}, "must not fall"),
    ({"scores": (0.5, 1.5)}, "must be in"),
  ],
)
def test_nonsense_is_refused(change, words, unchecked):
  with pytest.raises(ValueError, match=words):
    items.ItemAnswer(**({"mode": "reasoning"} | change))
