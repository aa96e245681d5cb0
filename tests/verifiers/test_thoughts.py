"""Evaluators of thoughts, and the arrays that are made of what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip(
  "tokenizers", reason="needs the extra `language` (tokenizers)"
)

from rewards.written import WORDS, Bytes, answers, rollouts
from rl_jax.advantages.segments import check_segments
from rl_jax.rewards.verifiers import thought_prompts
from rl_jax.rewards.verifiers.thought_prompts import Prompted, indices
from rl_jax.rewards.verifiers.thought_rules import Markers
from rl_jax.rewards.verifiers.thoughts import (
  Evaluated,
  Evaluation,
  Response,
  Thoughts,
  check_evaluation,
  split_response,
  step_spans,
  token_steps,
)

STEPS = ("two and three is six\n", "wait it is five\n", "so five\n")
TEXT = "<think>" + "".join(STEPS) + "</think>five"


def response(text=TEXT, *, correct=True, ended=True):
  return split_response(
    text,
    begin="<think>",
    end="</think>",
    ended=ended,
    correct=correct,
    name="response 7",
  )


def texts(evaluation, read):
  return [read.of(span) for span in evaluation.span]


def test_a_response_is_split_at_its_delimiters():
  read = response()
  assert read.of(read.think) == "".join(STEPS)
  assert read.of(read.answer) == "five"
  assert read.correct


@pytest.mark.parametrize(
  "text",
  ["no marks", "<think>a", "a</think>b", "</think><think>", TEXT + "</think>"],
)
def test_missing_delimiters_are_refused_with_the_name(text):
  with pytest.raises(ValueError, match="response 7: needs"):
    response(text)


def test_a_response_that_was_cut_is_wrong_and_has_no_answer():
  read = response("<think>one\ntwo", ended=False)
  assert not read.correct
  assert read.of(read.think) == "one\ntwo"
  assert read.of(read.answer) == ""
  # Cut within the answer: it has one.
  assert response(TEXT, ended=False).of(response().answer) == "five"


def test_steps_are_contiguous_cover_and_are_not_blank():
  rng = np.random.default_rng(0)
  for _ in range(200):
    text = "".join(rng.choice(list("ab \n;"), 12))
    spans = step_spans(text, (2, 12), ends=("\n", ";"))
    if not spans:
      assert text[2:].strip() == ""
      continue
    assert "".join(text[slice(*span)] for span in spans) == text[2:]
    if len(spans) > 1:
      assert all(set(text[a:b]) & {"a", "b"} for a, b in spans)
    # All but the last end with an end.
    assert all(text[end - 1] in "\n; " for _, end in spans[:-1])


def test_a_reflection_takes_back_the_step_before():
  read = response()
  found, _ = Markers()("two and three", read)
  assert found.label == (0, 1, 1)
  assert found.reflections == ((1, 0, 0),)
  assert texts(found, read) == list(STEPS)
  check_evaluation(found, read)


def test_a_reflection_takes_back_what_depends_on_the_wrong_step():
  steps = (
    "x is 4 then\ny is 9 as x is 4\nz: a dog\nmistake: x is 4 then\nx: 3\n"
  )
  read = response(f"<think>{steps}</think>3")
  rules = Markers(reach=3, word=r"[a-z\d]+", overlap=0.7)
  found, _ = rules("", read)
  assert found.reflections == ((3, 0, 2),)
  # "y is 9 as x is 4" shares "x is 4"; the third step does not.
  assert found.label == (0, 0, 1, 1, 1)


@pytest.mark.parametrize(
  ("thoughts", "label", "reflections"),
  [
    ("a\nb\n", (1, 1), ()),  # nobody reflects
    ("wait\nb\n", (1, 1), ()),  # on nothing
    ("a\nwait\nwait\n", (0, 1, 1), ((1, 0, 0),)),  # not on a reflection
    ("await\nb\n", (1, 1), ()),  # another word
    ("a\nWAIT: b\nc\n", (0, 1, 1), ((1, 0, 0),)),
  ],
)
def test_reflections(thoughts, label, reflections):
  found, _ = Markers()("", response(f"<think>{thoughts}</think>b"))
  assert (found.label, found.reflections) == (label, reflections)


def test_a_wrong_answer_adopts_the_steps_whose_words_it_shares():
  thoughts = "it may be six\nthe sky is blue\nwait\nso six\n"
  read = response(f"<think>{thoughts}</think>six", correct=False)
  found, _ = Markers()("", read)
  assert found.label == (1, 0, 0, 1)
  assert found.reflections == ()


@pytest.mark.parametrize(
  "changes",
  [
    {"ends": ()},
    {"ends": ("",)},
    {"markers": ()},
    {"reach": 0},
    {"overlap": 0.0},
  ],
)
def test_rules_that_cannot_be_are_refused(changes):
  with pytest.raises(ValueError, match=r"must not be|needs|must be in"):
    Markers(**changes)


SPANS = ((7, 10), (10, 14))
READ = Response("<think>one two</think>2", (7, 14), (22, 23), True, "r3")


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"span": ((7, 9), (10, 14))}, "without gap"),
    ({"span": ((7, 11), (10, 14))}, "without gap"),
    ({"span": ((10, 14), (7, 10))}, "without gap"),
    ({"span": ((7, 10), (10, 13))}, "without gap"),
    ({"span": ((7, 7), (7, 14))}, "without gap"),
    ({"span": (), "label": ()}, "has thoughts and no steps"),
    ({"label": (1,)}, "as many labels"),
    ({"label": (1, 2)}, "labels of 0 or 1"),
    ({"label": (1, -1)}, "labels of 0 or 1"),
    ({"correct": False}, "would mean something else"),
    ({"reflections": ((1, 1, 1),)}, "must look back"),
    ({"reflections": ((1, -1, 0),)}, "must look back"),
    ({"reflections": ((2, 0, 0),)}, "must look back"),
  ],
)
def test_evaluations_that_do_not_fit_are_refused_with_the_name(changes, said):
  good = Evaluation(SPANS, (1, 0), True, ((1, 0, 0),), "judge")
  check_evaluation(good, READ)
  with pytest.raises(ValueError, match=rf"r3: .*{said}"):
    check_evaluation(good._replace(**changes), READ)


def test_tokens_are_in_the_step_where_they_begin():
  evaluation = Evaluation(SPANS, (1, 0), True, (), "judge")
  start = np.array([0, 8, 9, 10, 13, 14, 22, 23])
  step, label = token_steps(start, evaluation, READ)
  assert step.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
  assert label.tolist() == [1, 0, 1]
  # The second step begins in no token: it is left out, without a gap.
  step, label = token_steps(np.array([0, 9, 15]), evaluation, READ)
  assert (step.tolist(), label.tolist()) == ([0, 0, 1], [1, 1])
  # A response that was cut: its last step is the answer.
  cut = READ._replace(answer=(23, 23))
  step, label = token_steps(start, evaluation, cut)
  assert step.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
  assert label.tolist() == [1, 1]


class Judge:
  """Replies from a list, and remembers what it was asked."""

  def __init__(self, *replies):
    self.replies, self.asked = list(replies), []

  def __call__(self, prompt):
    self.asked.append(prompt)
    reply = self.replies.pop(0)
    if isinstance(reply, Exception):
      raise reply
    return reply if isinstance(reply, str) else json.dumps(reply)


def asked(*replies, read=None, attempts=3):
  judge = Judge(*replies)
  found = Prompted(ask=judge, name="judge", attempts=attempts)(
    "two and three", read or response()
  )
  assert not judge.replies
  return found, judge.asked


def test_a_model_is_asked_four_questions():
  found, prompts = asked(
    {"starts": [0, 1, 2]},
    {"reflections": [2]},
    {"interval": [0, 1]},
    {"wrong": [0]},
    {"wrong": []},
  )
  evaluation, reason = found
  assert reason == ""
  assert evaluation.label == (0, 1, 1)
  assert evaluation.reflections == ((2, 0, 1),)
  assert evaluation.evaluator == "judge"
  assert texts(evaluation, response()) == list(STEPS)
  for prompt in prompts:
    assert "JSON" in prompt
    assert "Do not solve" in prompt
    assert "[1] wait it is five" in prompt
  assert "these steps are known to be wrong: [0]" in prompts[-1]


def test_of_a_wrong_response_it_is_asked_what_the_answer_adopts():
  read = response(correct=False)
  found, prompts = asked(
    "```json\n" + json.dumps({"starts": [0, 2]}) + "\n```",
    {"matched": [1]},
    read=read,
  )
  assert found.evaluation.label == (0, 1)
  assert texts(found.evaluation, read) == [STEPS[0] + STEPS[1], STEPS[2]]
  assert prompts[-1].endswith("Answer:\nfive\n")


def test_a_reply_that_breaks_a_rule_is_asked_for_again():
  found, prompts = asked(
    "The steps are 0 and 1.",
    ConnectionError("away"),
    {"starts": [0, 1]},
    {"reflections": [5]},
    {"reflections": []},
  )
  assert found.evaluation.label == (1, 1)
  assert prompts[0] == prompts[1] == prompts[2]


def test_after_all_attempts_there_is_no_verdict_and_no_label():
  found, _ = asked({"starts": [1]}, {"starts": []}, attempts=2)
  assert found.evaluation is None
  assert found.reason.startswith("judge: response 7: starts after 2 attempts")


def test_an_error_of_the_judge_itself_stops_the_run():
  with pytest.raises(KeyError):
    asked(KeyError("a mistake of ours"))


def test_without_thoughts_nobody_is_asked():
  found, prompts = asked(read=response("<think>\n</think>5"))
  assert (found.evaluation.span, prompts) == ((), [])


@pytest.mark.parametrize(
  "reply",
  [
    "",
    "[0, 1]",
    '{"starts": 0}',
    '{"starts": [0, 1], "why": "so"}',
    '{"steps": [0, 1]}',
    '{"starts": [0, 0]}',
    '{"starts": [1, 0]}',
    '{"starts": [0, 3]}',
    '{"starts": [-1]}',
    '{"starts": [0, 1.0]}',
    '{"starts": [false, true]}',
    '{"starts": ["0"]}',
    '{"starts": [NaN]}',
    'Sure: {"starts": [0, 1]}',
    "[" * 5000,
  ],
)
def test_replies_are_read_strictly(reply):
  with pytest.raises(ValueError, match=r"no JSON|needs one field|must"):
    indices(reply, "starts", low=0, high=3)


def test_a_judge_without_name_or_attempts_is_refused():
  for changes in ({"attempts": 0}, {"name": ""}):
    with pytest.raises(ValueError, match="needs a name"):
      Prompted(**({"ask": str, "name": "judge"} | changes))


@pytest.mark.parametrize("name", ["SEGMENT", "LOCATE", "TRACE", "VERIFY"])
def test_texts_with_braces_are_shown_as_they_are(name):
  shown = getattr(thought_prompts, name).format(
    problem="{x}", listed="[0] {y}", reflection=1, step=0, wrong=[]
  )
  assert "{x}" in shown
  assert "[0] {y}" in shown


CHAINS = Markers(ends=(".",), markers=("-",), word=r"(\d+)\.?$")
NOTE = Thoughts(evaluator=CHAINS, steps=4, begin="", end="=")


def found_in(*written, reward, note=NOTE, vocabulary=WORDS, ended=None, **more):
  data = answers(*"abc", vocabulary=vocabulary)
  batch = rollouts(*written, vocabulary=vocabulary, item=[0] * len(written))
  changed = {
    "reward": np.array(reward, np.float32),
    "valid": np.ones(len(written), bool),
    **more,
  }
  if ended is not None:
    changed["ended"] = np.array(ended)
  batch = batch._replace(**changed)
  bound = note.bind(data)
  return bound(batch), batch, bound


def test_arrays_of_a_batch():
  found, batch, bound = found_in(
    "1+2 4.-1+2 3.=3", "1+2 4.so 5.=4", "1.2.3", reward=[1, 0, 0]
  )
  assert found["correct"].tolist() == [True, False, False]
  # The reflection takes back the first; of the wrong one the answer adopts it.
  assert found["label"][0].tolist() == [0, 1, 1, -1]
  assert found["label"][1].tolist() == [1, 0, 1, -1]
  # No "=" and an end: rejected, counted, and no label at all.
  assert found["label"][2].tolist() == [-1] * 4
  assert dict(bound.reasons) == {"no answer": 1}
  for name, (shape, dtype) in NOTE.shapes(batch.token.shape[1]).items():
    assert found[name].shape == (3, *shape)
    assert found[name].dtype == dtype
  check_segments(found["step"], np.asarray(batch.mask), num_segments=4)
  letters = "1+2 4.-1+2 3.=3"
  expected = [0] * 6 + [1] * 7 + [2] * (len(letters) - 13)
  assert found["step"][0][: len(letters)].tolist() == expected


def test_a_cut_response_is_wrong_and_its_last_step_is_the_answer():
  found, _, _ = found_in("1.2.3", reward=[1], ended=[False])
  assert found["correct"].tolist() == [False]
  assert found["label"][0].tolist() == [0, 0, 1, -1]


def test_rows_without_a_verdict_have_no_labels_and_are_counted():
  class Silent:
    def __call__(self, problem, response):
      assert problem == "p0"
      return Evaluated(None, "timeout: after 3 s")

  note = Thoughts(evaluator=Silent(), steps=4, begin="", end="=", threads=2)
  found, _, bound = found_in(
    "1.=1", "2.=2", reward=[1, 1], note=note, valid=np.array([True, False])
  )
  assert (found["label"] == -1).all()
  assert (found["step"] == -1).all()
  assert dict(bound.reasons) == {"timeout": 1, "no outcome": 1}
  found, _, bound = found_in("1.2.3.4.=4", reward=[1])
  assert (found["label"] == -1).all()
  assert dict(bound.reasons) == {"too many steps": 1}


def test_an_evaluator_that_breaks_its_promise_stops_the_run():
  class Wrong:
    def __call__(self, problem, response):
      del problem
      return Evaluated(Evaluation((), (1,), response.correct, (), "wrong"))

  note = Thoughts(evaluator=Wrong(), steps=4, begin="", end="=")
  with pytest.raises(ValueError, match="response 0: has thoughts"):
    found_in("1.=1", reward=[1], note=note)


def test_characters_of_several_tokens_keep_their_place():
  found, batch, _ = found_in(
    "é 3.ü 4.=3",
    reward=[0],
    vocabulary=Bytes(),
  )
  check_segments(found["step"], np.asarray(batch.mask), num_segments=4)
  # Bytes: 2 of é, 3 more, 2 of ü, 3 more, and the answer.
  own = found["step"][0][np.asarray(batch.mask)[0]].tolist()
  assert own[:10] == [0] * 5 + [1] * 5
  assert set(own[10:]) == {2}
  assert found["label"][0].tolist() == [1, 0, 1, -1]


@pytest.mark.parametrize("changes", [{"steps": 0}, {"threads": 0}, {"end": ""}])
def test_notes_that_cannot_be_are_refused(changes):
  with pytest.raises(ValueError, match="needs steps"):
    Thoughts(**({"evaluator": CHAINS, "steps": 4} | changes))
