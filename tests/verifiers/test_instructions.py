"""Checks of form: what each is for, and the published schema of IFEval."""

from __future__ import annotations

import pytest

from rl_jax.rewards.verifiers import Format, Judgement, ifeval
from rl_jax.rewards.verifiers import instructions as checks


@pytest.mark.parametrize(
  ("check", "does", "does_not"),
  [
    (checks.Words(at_least=2, at_most=3), "it's well-known", "one"),
    (checks.Sentences(at_least=2, at_most=2), "A 1.5 b. C!", "A. B. C"),
    (checks.CapitalWords(at_least=1), "an IDEA", "an Idea"),
    (checks.Bullets(at_least=2, at_most=2), "* a\n - b", "*a\n-b"),
    (checks.Highlights(at_least=2), "*a* and **b c**", "**a** * *"),
    (checks.Placeholders(at_least=1), "Dear [name]", "Dear []"),
    (checks.Letters(letter="A", at_most=1), "a b", "a A"),
    (checks.Mentions(phrase="cat", at_least=2), "Cat cat", "cat catalogue"),
    (checks.Keywords(phrases=("a", "b")), "B a", "a ab"),
    (checks.Forbidden(phrases=("a+b",)), "a + b", "is a+b ok"),
    (checks.Paragraphs(count=2), "a\n\nb", "a\n\n\n\nb"),
    (checks.Paragraphs(count=2, separator="***"), "a *** b", "a ***"),
    (
      checks.Sections(word="PART", at_least=2),
      "PART 1\nx\n# PART 2",
      "PART 1 PART 2",
    ),
    (checks.StartsWith(phrase="So"), " so it is", "And so"),
    (checks.EndsWith(phrase="The end."), 'It is the END."', "the end. No"),
    (checks.Postscript(), "Hi\nP.S. one more", "P.S. one more"),
    (checks.OneOf(options=("yes", "no")), "oh yes", "maybe"),
    (
      checks.Tagged(tags=("a", "b")),
      "<a>1</a>\n<b>2</b>\n",
      "<a>1</a> so <b>2</b>",
    ),
    (checks.NoCommas(), "a b", "a, b"),
    (checks.Lowercase(), "é a 1", "A"),
    (checks.Uppercase(), "A 1", "1"),
    (checks.Quoted(), ' "a" ', '"'),
    (checks.Title(), "<<A tale>>", "<< >>"),
    (checks.TwoAnswers(), "a\n******\nb", "a ****** a"),
    (checks.IsJson(), "```json\n{}\n```", "{]"),
  ],
  ids=lambda value: type(value).__name__,
)
def test_checks(check, does, does_not):
  assert check(does)
  assert not check(does_not)


def test_format_counts_all_checks_and_may_count_in_part():
  reference = (checks.NoCommas(), checks.Uppercase())
  fixed = (checks.Words(at_least=1),)
  whole = Format(checks=fixed, partial=False)
  part = Format(checks=fixed, partial=True)
  assert whole("A B", reference) == Judgement(1.0)
  assert whole("a b", reference) == Judgement(0.0, "failed: Uppercase")
  assert part("a, b", reference).reward == pytest.approx(1 / 3, abs=1e-12)
  assert Format(partial=True)("a", ()).reward is None


def test_ifeval_schema():
  """A row as it is published, with null for what does not apply."""
  row = {
    "instruction_id_list": [
      "punctuation:no_comma",
      "length_constraints:number_words",
      "detectable_format:number_highlighted_sections",
      "keywords:letter_frequency",
    ],
    "kwargs": [
      {"num_highlights": None, "relation": None},
      {"relation": "less than", "num_words": 5},
      {"num_highlights": 1},
      {"letter": "q", "let_relation": "at least", "let_frequency": 2},
    ],
  }
  assert ifeval(row["instruction_id_list"], row["kwargs"]) == (
    checks.NoCommas(),
    checks.Words(at_most=4),
    checks.Highlights(at_least=1),
    checks.Letters(letter="q", at_least=2),
  )


@pytest.mark.parametrize(
  ("names", "parameters", "match"),
  [
    (["language:response_language"], [{}], "not supported"),
    (["keywords:existence"], [{}], "lacks the parameter 'keywords'"),
    (["punctuation:no_comma"], [], "1 names but 0"),
    (
      ["length_constraints:number_words"],
      [{"relation": "about", "num_words": 5}],
      "unknown relation 'about'",
    ),
  ],
)
def test_ifeval_refuses_what_it_cannot_check(names, parameters, match):
  with pytest.raises(ValueError, match=match):
    ifeval(names, parameters)
