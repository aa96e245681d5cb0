"""Preference pairs in the published schemas, and records that are damaged."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the extra `language`")

from data.preferred import SUMS, WORDS, preferences
from rl_jax.data import Chat, Plain, start, take
from rl_jax.data.text_preferences import Pair, read_pair
from rl_jax.experiment import from_dict, to_dict

ASKED = [{"role": "user", "content": "hi"}]


def answered(*messages):
  """A conversation that begins with the same question."""
  return [*ASKED, *({"role": "assistant", "content": m} for m in messages)]


def everything(data):
  source = data.source()
  return source[np.arange(len(source))]


def read(rows, side):
  """Each row as (given text, learned text)."""
  tokenizer, found = WORDS.load(), []
  for token, segment, mask in zip(
    *(rows[f"{side}{end}"] for end in ("", "_segment", "_mask")), strict=True
  ):
    given, learned = (segment == 1) & ~mask, mask
    found.append(
      tuple(
        tokenizer.decode(token[own].tolist(), special=True)
        for own in (given, learned)
      )
    )
  return found


def test_both_sides_share_the_prompt_and_end():
  rows = everything(preferences())
  assert read(rows, "chosen") == [
    ("1+1=", "2<end>"),
    ("2+2=", "4<end>"),
    ("3+3=", "6<end>"),
  ]
  assert read(rows, "rejected")[1] == ("2+2=", "22<end>")
  kinds = {name: (x.shape, x.dtype.name) for name, x in rows.items()}
  expected = {"": "int32", "_segment": "int32", "_mask": "bool"}
  assert kinds == {
    f"{side}{end}": ((3, 12), kind)
    for side in ("chosen", "rejected")
    for end, kind in expected.items()
  }


def test_padding_is_on_the_right_and_changes_nothing_before_it():
  short, long = (everything(preferences(length=n)) for n in (12, 40))
  for name, array in short.items():
    np.testing.assert_array_equal(array, long[name][:, :12])
  for side in ("chosen", "rejected"):
    segment = long[f"{side}_segment"]
    assert set(np.unique(segment)) == {0, 1}
    assert (np.diff(segment, axis=1) <= 0).all()
    assert not long[f"{side}_mask"][segment == 0].any()
    assert (long[side][segment == 0] == WORDS.load().id("<pad>")).all()


def test_rows_by_index_resume_exactly():
  data, again = preferences(), preferences()
  index, cursor = take(3, start(), rows=2, seed=1, shuffle=data.shuffle)
  index, _ = take(3, cursor, rows=2, seed=1, shuffle=data.shuffle)
  one, other = data.source()[index], again.source()[index]
  for name in one:
    np.testing.assert_array_equal(one[name], other[name])
  assert data.source() is data.source()
  assert from_dict(json.loads(json.dumps(to_dict(data)))) == data


@pytest.mark.parametrize(
  ("record", "expected"),
  [
    (
      {"prompt": "hi", "chosen": "a", "rejected": "b", "other": 1},
      Pair("hi", "a", "b", None),
    ),
    (
      {"prompt": "hi", "chosen": answered("a"), "rejected": answered("b")},
      Pair(ASKED, "a", "b", None),
    ),
    (
      {"chosen": answered("x", "a"), "rejected": answered("x", "b")},
      Pair(answered("x"), "a", "b", None),
    ),
    (
      {"prompt": ASKED, "chosen": answered("a"), "rejected": answered("b")},
      Pair(ASKED, "a", "b", None),
    ),
    (
      {
        "prompt": ASKED,
        "chosen": answered("a")[1:],
        "rejected": answered("b")[1:],
      },
      Pair(ASKED, "a", "b", None),
    ),
    (
      {
        "prompt": "hi",
        "chosen": answered("a"),
        "rejected": answered("b"),
        "score_chosen": 8.5,
        "score_rejected": 7,
      },
      Pair(ASKED, "a", "b", 1.5),
    ),
    (
      {
        "prompt": "",
        "chosen": "a",
        "rejected": "b",
        "margin": 2,
        "score_chosen": 1,
        "score_rejected": 1,
      },
      Pair("", "a", "b", 2.0),
    ),
  ],
)
def test_published_schemas(record, expected):
  assert read_pair(record, chat=False) == expected
  assert read_pair(record, chat=True) == expected


def test_transcripts():
  talk = "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: 1+1\n\nAssistant:"
  record = {"chosen": f"{talk} 2", "rejected": f"{talk} 3"}
  assert read_pair(record, chat=False) == Pair(talk, " 2", " 3", None)
  messages = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yes?"},
    {"role": "user", "content": "1+1"},
  ]
  assert read_pair(record, chat=True) == Pair(messages, "2", "3", None)


def test_transcripts_whose_answer_goes_on_with_turns():
  """Five of the 2312 harmless test pairs of HH do."""
  talk = "\n\nHuman: hi\n\nAssistant:"
  record = {"chosen": f"{talk} a\n\nAssistant: b", "rejected": f"{talk} c"}
  expected = Pair(talk, " a\n\nAssistant: b", " c", None)
  assert read_pair(record, chat=False) == expected


def test_conversations_are_put_by_the_template_or_as_text():
  pairs = ({"chosen": answered("a"), "rejected": answered("b")},)
  plain = everything(preferences(pairs=pairs))
  assert read(plain, "chosen") == [("hi", "a<end>")]
  chat = preferences(pairs=pairs, wording=Chat(system="s"), length=60)
  assert read(everything(chat), "rejected") == [
    ("[system:s][user:hi][assistant:", "b<end>")
  ]
  prefilled = preferences(
    wording=Chat(ask="what is {prompt}?", prefill="{prompt}"),
    length=60,
    end="]",
  )
  assert read(everything(prefilled), "chosen")[0] == (
    "[user:what is 1+1=?][assistant:1+1=",
    "2]",
  )
  several = ({"chosen": answered("x", "a"), "rejected": answered("x", "b")},)
  with pytest.raises(ValueError, match=r"record 0: .* use wording=Chat"):
    preferences(pairs=several, wording=Plain()).source()


def test_margins():
  rows = everything(preferences(pairs=SUMS[1:], margin=True))
  assert rows["margin"].tolist() == [0.5, 2.0]
  assert rows["margin"].dtype == np.float32
  with pytest.raises(ValueError, match="record 0: neither a margin nor two"):
    preferences(margin=True).source()


@pytest.mark.parametrize("identical", ["refuse", "drop"])
def test_identical_answers(identical, caplog):
  same = ("1+1=", "2", "2")
  data = preferences(pairs=(SUMS[0], same, SUMS[1], same), identical=identical)
  if identical == "refuse":
    with pytest.raises(ValueError, match=r"2 of 4 pairs .* first at record 1"):
      data.source()
    return
  with caplog.at_level(logging.WARNING):
    rows = everything(data)
  assert [given for given, _ in read(rows, "chosen")] == ["1+1=", "2+2="]
  assert "2 of 4 pairs have two equal answers" in caplog.text
  with pytest.raises(ValueError, match="1 of 1 pairs"):
    preferences(pairs=(same,), identical=identical).source()


def test_too_long_pairs_are_refused_by_place_or_dropped(caplog):
  pairs = (SUMS[0], ("1", "2", "23456789012"), SUMS[1])
  with pytest.raises(ValueError, match="record 1 has 13 tokens, more than"):
    preferences(pairs=pairs).source()
  with caplog.at_level(logging.WARNING):
    rows = everything(preferences(pairs=pairs, too_long="drop"))
  assert [given for given, _ in read(rows, "chosen")] == ["1+1=", "2+2="]
  assert "1 of 3 pairs have more than length = 12" in caplog.text


@pytest.mark.parametrize(
  ("line", "words"),
  [
    ("{", "line"),
    ('"text"', "a record has the keys"),
    ('{"prompt": "a", "chosen": "b"}', "lacks 'rejected'; it has"),
    ('{"chosen": "b", "rejected": "c"}', "transcripts that are the same up"),
    (
      '{"chosen": "\\n\\nAssistant: a", "rejected": "\\n\\nAssistant: b"}',
      "turns that end with a Human's",
    ),
    ('{"prompt": "a", "chosen": null, "rejected": "c"}', "chosen must be text"),
    ('{"prompt": "a", "chosen": 1, "rejected": "c"}', "chosen must be text"),
    ('{"prompt": "a", "chosen": [], "rejected": []}', "chosen must be text"),
    (
      '{"prompt": "a", "chosen": "b", "rejected": "c", "margin": "d"}',
      "must be a finite number, got 'd'",
    ),
    (
      '{"prompt": "a", "chosen": "b", "rejected": "c", "margin": NaN}',
      "must be a finite number, got nan",
    ),
    ('{"prompt": "", "chosen": "b", "rejected": "c"}', "prompt is empty"),
    ('{"prompt": "a", "chosen": "b!", "rejected": "c"}', r"lacks \['!'\]"),
  ],
)
def test_damaged_lines_are_named(tmp_path, line, words):
  path = tmp_path / "pairs.jsonl"
  good = json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"})
  path.write_text(f"{good}\n{line}\n{good}\n")
  # What a transcript lacks shows when it has to become a conversation.
  chat = Chat() if "Human" in words else Plain()
  data = preferences(pairs=f"{path}", wording=chat, length=30)
  with pytest.raises(ValueError, match=rf"pairs\.jsonl:2: .*{words}"):
    data.source()


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"chosen": "a"}, "one of the answers is text"),
    ({"chosen": [*answered("a"), ASKED[0]]}, "differ before their last"),
    ({"chosen": ASKED, "rejected": ASKED, "prompt": "x"}, "the assistant's"),
    ({"prompt": "other"}, "no message of the conversations"),
    ({"prompt": answered("x")}, "not how the conversations begin"),
    (
      {"chosen": answered("a")[1:], "rejected": answered("b")[1:]},
      "answers but no prompt",
    ),
  ],
)
def test_conversations_that_make_no_pair(change, words):
  record = {"chosen": answered("a"), "rejected": answered("b")} | change
  with pytest.raises(ValueError, match=words):
    read_pair(record, chat=True)


def test_bad_settings_are_refused():
  for change in ({"rows": 0}, {"length": 0}):
    with pytest.raises(ValueError, match="must be at least 1"):
      preferences(**change)
  with pytest.raises(ValueError, match="there is no pair"):
    preferences(pairs=()).source()
  with pytest.raises(FileNotFoundError):
    preferences(pairs="/no/such/file.jsonl").source()
