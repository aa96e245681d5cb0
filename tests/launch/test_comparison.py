"""Answers compared and counted, and shown so that they cannot break out."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from html.parser import HTMLParser

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from rl_jax.launch.comparison import (
  Pair,
  before_and_after,
  chosen,
  marked,
  pairs,
)
from rl_jax.launch.distribution import bars, histogram
from rl_jax.launch.figures import DARK, LIGHT, series_of
from rl_jax.launch.monitors import monitors
from rl_jax.launch.texts import Written

# Surrogates, controls, formats and all.
anything = st.text(st.characters(exclude_categories=()), max_size=30)
verdict = st.none() | st.sampled_from([0.0, 0.5, 1.0])


def record(prompt="p", completion="c", reward=0.0):
  return {
    "prompt": prompt,
    "completion": completion,
    "reference": "r",
    "reward": reward,
  }


def test_nothing_written_is_no_section(tmp_path) -> None:
  assert before_and_after([], tmp_path) == ""
  assert before_and_after([Written(0, ())], tmp_path) == ""


class Inside(HTMLParser):
  """Tags and text of a piece of HTML."""

  def __init__(self, content: str) -> None:
    super().__init__()
    self.tags: list[str] = []
    self.text = ""
    self.feed(content)
    self.close()

  def handle_starttag(self, tag, attrs):
    assert not attrs
    self.tags.append(tag)

  def handle_data(self, data):
    self.text += data


@hypothesis.given(anything | st.text("<>&\"' \n\ta", max_size=20))
def test_marked_texts_show_everything_and_are_only_text(text: str) -> None:
  found = Inside(marked(text))
  assert set(found.tags) <= {"i"}
  assert len(found.text) >= len(text)
  for mark, meant in (("↵", "\n"), ("⇥", "\t")):
    expected = text.count(mark) + text.count(meant)
    assert found.text.count(mark) == expected
  shown = re.sub("<i>[^<]*</i>", "", marked(text))
  marks = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"}
  kept = [one for one in text if unicodedata.category(one) not in marks]
  assert [o for o in html.unescape(shown) if o not in " \n\t"] == kept


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    (" a b  c ", "·a b··c·"),
    ("a\n\n b", "a↵\n↵\n·b"),
    ("a\tb", "a⇥\tb"),
    ("\xa0", "\\u00a0"),
    ("\r\n", "\\x0d↵\n"),
  ],
)
def test_white_space_is_seen(text: str, shown: str) -> None:
  assert Inside(marked(text)).text == shown


def test_changes_are_counted_with_and_without_a_verdict() -> None:
  rewards = (None, 0.0, 0.25)
  words = [
    Pair(record(reward=a), record(reward=b)).word
    for a in rewards
    for b in rewards
  ]
  alike, better, worse = "alike", "better", "worse"
  assert words == [
    *(alike, better, better),
    *(worse, alike, better),
    *(worse, worse, alike),
  ]


def test_answers_are_paired_by_prompt_and_number() -> None:
  before = Written(0, (record("a", "1"), record("a", "2"), record("b", "3")))
  after = Written(9, (record("b", "4"), record("a", "5"), record("c", "6")))
  found = [
    (one.before["completion"], one.after["completion"])
    for one in pairs(before, after)
  ]
  assert found == [("3", "4"), ("1", "5")]


@hypothesis.given(
  st.lists(st.tuples(st.integers(0, 9), verdict, verdict), max_size=30),
  st.integers(1, 9),
)
def test_the_chosen_go_both_ways_and_have_different_prompts(found, count):
  given = [
    Pair(record(f"{n}", reward=a), record(f"{n}", reward=b))
    for n, a, b in found
  ]
  shown = chosen(given, count)
  prompts = [pair.after["prompt"] for pair in shown]
  assert len(set(prompts)) == len(prompts)
  assert len(shown) == min(count, len({n for n, *_ in found}))
  words = [pair.word for pair in shown]
  assert words == sorted(words, key=("better", "worse", "alike").index)
  if "alike" in words:  # Then every prompt whose verdict changed is there.
    changed = {p.after["prompt"] for p in given if p.word != "alike"}
    assert changed <= set(prompts)
  if count > 1 and {"better", "worse"} <= {pair.word for pair in given}:
    one_way = {p.after["prompt"] for p in given if p.word == "better"} ^ {
      p.after["prompt"] for p in given if p.word == "worse"
    }
    if len(one_way) == len({n for n, *_ in found}):
      assert {"better", "worse"} <= set(words)


@hypothesis.given(
  st.lists(st.none() | st.floats(-1e6, 1e6), max_size=40),
  st.lists(st.none() | st.floats(-1e6, 1e6), max_size=40),
)
def test_shares_of_a_distribution_add_up(before, after) -> None:
  found = bars({"before": before, "after": after})
  if found is None:
    assert not [x for x in (*before, *after) if x is not None]
    return
  for name, given in (("before", before), ("after", after)):
    assert len(found.share[name]) == len(found.label)
    total = 1.0 if given else 0.0
    assert math.isclose(found.share[name].sum(), total, abs_tol=1e-6)
    none = given.count(None) / max(1, len(given))
    if found.label[-1] == "no verdict":
      assert math.isclose(found.share[name][-1], none)
    else:
      assert none == 0


def test_few_values_have_bars_of_their_own() -> None:
  found = bars({"a": [0.0, 1.0, 1.0, None], "b": [0.5, 0.5]})
  assert found is not None
  assert found.label == ["0", "0.5", "1", "no verdict"]
  assert found.share["a"].tolist() == [0.25, 0, 0.5, 0.25]
  assert found.share["b"].tolist() == [0, 1, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
  "given", [[1.0, 0.0, None], [*np.arange(30.0)], [*np.arange(30.0), None]]
)
def test_distributions_are_drawn_for_both_themes(given) -> None:
  found = bars({"before": given, "after": given[:2]})
  assert found is not None
  drawn = {histogram(found, theme) for theme in (LIGHT, DARK)}
  assert len(drawn) == 2
  assert all(png.startswith(b"\x89PNG") for png in drawn)


def test_an_interval_belongs_to_its_metric(row) -> None:
  rows = [
    row(0, x=1.0, x_interval=0.5, y_interval=3.0),
    row(2, x=2.0),
    row(4, x=3.0, x_interval=0.25),
  ]
  series, spread = series_of(rows)
  assert sorted(series) == ["x", "y_interval"]
  np.testing.assert_array_equal(spread["x"], [0.5, np.nan, 0.25])


def test_monitors_put_what_belongs_together_in_one_chart(row) -> None:
  rows = [
    row(
      0,
      "evaluation",
      evaluation__reward=0.1,
      evaluation__reward_interval=0.05,
      evaluation__length=4.0,
      evaluation__correct=0.1,
      evaluation__no_verdict=0.0,
      evaluation__no_verdict_time=0.0,
    ),
    row(
      1,
      reward=0.2,
      length=5.0,
      correct=0.2,
      dead_groups=0.5,
      kl_reference=0.0,
      no_verdict=0.25,
      no_verdict_time=0.0,
      no_verdict_died=0.25,
      loss=1.0,
    ),
  ]
  found = monitors(rows)
  assert found is not None
  assert {panel.title: [*panel.series] for panel in found.panel} == {
    "Reward, trained on and evaluated": ["reward", "evaluation/reward"],
    "Length of responses, tokens": ["length", "evaluation/length"],
    "Share of groups without a signal": ["dead_groups"],
    "Share without a verdict": ["no_verdict", "no_verdict_died"],
    "KL to the reference, nats": ["kl_reference"],
    "correct": ["correct", "evaluation/correct"],
  }
  assert found.panel[0].spread["evaluation/reward"].tolist() == [0.05]
  assert found.quiet == ["evaluation/no_verdict", "no_verdict_time"]
  assert found.rest == ["loss"]


def test_runs_of_something_else_have_no_monitors(row) -> None:
  rows = [row(0, "evaluation", evaluation__reward=0.1), row(1, entropy=1.0)]
  assert monitors(rows) is None
