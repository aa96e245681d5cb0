"""Prompts as ids, padded on the left; how they are put; texts from files."""

from __future__ import annotations

import gzip
import json
import logging
import types

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the extra `language`")

from rl_jax.data import Chat, Data, Plain, Prompts, Texts, start, take
from rl_jax.data.text_wording import as_text
from rl_jax.environments import Sums
from rl_jax.environments.texts import Items
from rl_jax.experiment import from_dict, to_dict
from rl_jax.models import Characters

TEMPLATE = (
  "{{ bos_token }}{% for m in messages %}"
  "[{{ m.role }}:{{ m.content }}]{% endfor %}"
  "{% if add_generation_prompt %}[assistant:{% endif %}"
)
LETTERS = "abcdefghijklmnopqrstuvwxyzHA"
PLAIN = Characters(
  alphabet=f"0123456789+-=?: \n[]{LETTERS}", bos="<start>", pad="<pad>"
)
TALK = Characters(
  alphabet=PLAIN.alphabet, bos="<start>", pad="<pad>", template=TEMPLATE
)
SUMS = Sums(rows=3, digits=1, length=50, seed=2)


def prompts(**change):
  settings = {"task": SUMS, "vocabulary": PLAIN, "length": 8}
  return Prompts(**(settings | change))


def texts(*pairs, rows=2):
  return Texts(rows=rows, origin=pairs, answer="answer")


def test_prompts_end_in_the_last_column():
  data = prompts(length=9)
  indices = np.array([4, 0, 4])
  found = data.source()[indices]
  assert found["prompt"].shape == found["prompt_mask"].shape == (3, 9)
  assert [x.dtype.name for x in found.values()] == ["int32", "bool", "int32"]
  wanted = SUMS.source()[indices]["prompt"]
  tokenizer, pad = PLAIN.load(), PLAIN.load().id("<pad>")
  for row, text in enumerate(wanted):
    mask = found["prompt_mask"][row]
    assert mask.tolist() == sorted(mask.tolist())  # padding comes first
    assert tokenizer.decode(found["prompt"][row][mask].tolist()) == text
    assert mask.sum() == len(text)
    assert (found["prompt"][row][~mask] == pad).all()
  assert found["item"].tolist() == [4, 0, 4]


def test_padding_changes_nothing_but_the_columns_before():
  short, long = (prompts(length=n).source() for n in (7, 40))
  indices = np.arange(50)
  a, b = short[indices], long[indices]
  np.testing.assert_array_equal(a["prompt"], b["prompt"][:, -7:])
  np.testing.assert_array_equal(a["prompt_mask"], b["prompt_mask"][:, -7:])
  assert not b["prompt_mask"][:, :-7].any()


def test_without_a_pad_token_padding_is_some_id_of_the_vocabulary():
  found = prompts(vocabulary=Characters(alphabet="0123456789+= ")).source()
  rows = found[np.arange(5)]
  assert (rows["prompt"][~rows["prompt_mask"]] == 0).all()


def test_rows_by_index_are_the_same_in_any_batch_and_after_a_resume():
  data: Data = prompts(task=Sums(rows=4, digits=1, length=30, seed=0))

  def batches(source, cursor, count):
    for _ in range(count):
      index, cursor = take(
        len(source), cursor, rows=data.rows, seed=5, shuffle=data.shuffle
      )
      yield source[index], cursor

  whole = list(batches(data.source(), start(), 12))
  again = prompts(task=data.task).source()
  resumed = list(batches(again, whole[4][1], 7))
  for (one, _), (other, _) in zip(whole[5:], resumed, strict=True):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
  alone = again[whole[0][0]["item"][2:3]]
  np.testing.assert_array_equal(alone["prompt"][0], whole[0][0]["prompt"][2])


def test_texts_are_those_of_the_task():
  data = prompts()
  items = SUMS.source()[np.arange(5)]
  for item in range(5):
    pair = items["prompt"][item], items["reference"][item]
    assert data.texts(item) == pair
  assert data.source() is data.source()
  assert (data.rows, data.shuffle) == (3, True)


def test_a_task_of_any_size_is_cut_as_it_is_asked_for():
  made = []

  def item(index):
    made.append(index)
    return f"{index} =", None

  task = types.SimpleNamespace(
    rows=1, shuffle=True, source=lambda: Items(10**9, item)
  )
  source = prompts(task=task, length=12).source()
  assert len(source) == 10**9
  assert source[np.array([123_456_789])]["item"].tolist() == [123_456_789]
  assert made == [123_456_789]


def test_too_long_prompts_are_refused_by_name_and_number():
  data = prompts(task=texts(("1+1=", "2"), ("1+1+1=", "3")), length=4)
  data.source()[np.array([0])]
  with pytest.raises(
    ValueError, match="item 1 has 6 tokens, more than length = 4"
  ):
    data.source()[np.array([0, 1])]


def test_too_long_prompts_are_dropped_and_counted(caplog):
  task = texts(("1+1=", "2"), ("1+1+1=", "3"), ("2+2=", "4"), ("9999999", "0"))
  data = prompts(task=task, length=4, too_long="drop")
  with caplog.at_level(logging.WARNING):
    found = data.source()[np.array([1, 0])]
  assert len(data.source()) == 2
  # Items keep the number that they have in the task.
  assert found["item"].tolist() == [2, 0]
  assert data.texts(int(found["item"][0])) == ("2+2=", "4")
  (record,) = caplog.records
  assert record.getMessage().startswith(
    "2 of 4 prompts have more than length = 4 tokens (the longest 7)"
  )


def test_nothing_is_said_where_nothing_is_dropped(caplog):
  assert len(prompts(too_long="drop").source()) == 50
  assert not caplog.records


def test_prompts_of_which_none_fits_are_an_error():
  data = prompts(task=texts(("1+1=", "2")), length=3, too_long="drop")
  with pytest.raises(ValueError, match=r"all 1 prompts .* the shortest 4"):
    data.source()


@pytest.mark.parametrize("too_long", ["refuse", "drop"])
def test_empty_prompts_are_an_error(too_long):
  data = prompts(task=texts(("", "2")), too_long=too_long)
  with pytest.raises(ValueError, match="item 0 is empty"):
    data.source()[np.array([0])]


def test_bytes_are_text():
  pairs = ((b"1+1=", b"2"), ("caf\xe9".encode("latin-1"), b""))
  task = types.SimpleNamespace(
    rows=1, shuffle=False, source=lambda: Items(2, lambda i: pairs[i])
  )
  data = prompts(task=task)
  assert data.texts(0) == ("1+1=", "2")
  assert data.source()[np.array([0])]["prompt_mask"].sum() == 4
  with pytest.raises(ValueError, match="prompt of item 1 is no UTF-8"):
    data.source()[np.array([1])]


def test_what_the_vocabulary_lacks_is_an_error_with_the_item():
  data = prompts(task=texts(("1", ""), ("1!", "")))
  with pytest.raises(ValueError, match=r"prompt of item 1: .* lacks \['!'\]"):
    data.source()[np.array([1])]


@pytest.mark.parametrize(
  ("wording", "vocabulary", "expected"),
  [
    (Plain(), PLAIN, "3+4"),
    (Plain(prefill="="), PLAIN, "3+4="),
    (Plain(prefill="? {prompt}="), PLAIN, "3+4? 3+4="),
    (Plain(begin=True), PLAIN, "<start>3+4"),
    (Chat(), TALK, "<start>[user:3+4][assistant:"),
    (
      Chat(system="be brief", ask="what is {prompt}?", prefill="{prompt} ="),
      TALK,
      "<start>[system:be brief][user:what is 3+4?][assistant:3+4 =",
    ),
  ],
)
def test_how_a_prompt_is_put(wording, vocabulary, expected):
  data = prompts(
    task=texts(("3+4", "7")), vocabulary=vocabulary, length=99, wording=wording
  )
  found = data.source()[np.array([0])]
  ids = found["prompt"][0][found["prompt_mask"][0]]
  assert vocabulary.load().decode(ids.tolist(), special=True) == expected
  # The task's own text is what is judged, however it is put.
  assert data.texts(0) == ("3+4", "7")
  assert from_dict(json.loads(json.dumps(to_dict(data)))) == data


def test_conversations_of_several_messages():
  talk = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
  ]
  found = Chat(system="s", prefill="d").ids(TALK.load(), talk)
  assert TALK.load().decode(found, special=True) == (
    "<start>[system:s][user:a][assistant:b][user:c][assistant:d"
  )
  assert len(talk) == 3  # it was not changed
  only = [{"role": "user", "content": "a"}]
  assert Plain().ids(PLAIN.load(), only) == PLAIN.load().encode("a")
  for wording, words in (
    (Plain(), "use wording=Chat"),
    (Chat(ask="{prompt}?"), "several messages"),
    (Chat(prefill="{prompt}"), "several messages"),
  ):
    with pytest.raises(ValueError, match=words):
      wording.ids(TALK.load(), talk)
  system = [{"role": "system", "content": "s"}, *only]
  with pytest.raises(ValueError, match="and so has Chat"):
    Chat(system="s").ids(TALK.load(), system)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"wording": Chat()}, "item 0: this tokenizer has no chat template"),
    (
      {
        "wording": Plain(begin=True),
        "vocabulary": Characters(alphabet="0123456789+= "),
      },
      "names no bos",
    ),
  ],
)
def test_wordings_that_the_vocabulary_does_not_allow(change, words):
  with pytest.raises(ValueError, match=words):
    prompts(**change).source()[np.array([0])]


def test_bad_settings_are_refused():
  with pytest.raises(ValueError, match="length must be at least 1"):
    prompts(length=0)
  with pytest.raises(ValueError, match=r"lacks \{prompt\}"):
    Chat(ask="what")
  with pytest.raises(ValueError, match="rows must be at least 1"):
    texts(("a", "b"), rows=0)


def written(path, rows):
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return f"{path}"


def everything(task):
  items = task.source()[np.arange(len(task.source()))]
  pairs = zip(items["prompt"], items["reference"], strict=True)
  return [tuple(pair) for pair in pairs]


def pairs_of_a_function():
  yield "a", "b"
  yield {"prompt": "c", "answer": "d"}


def test_texts_come_from_files_memory_or_a_function(tmp_path):
  rows = [{"prompt": "a", "answer": "b"}, {"prompt": "c", "answer": "d"}]
  path = written(tmp_path / "rows.jsonl", rows)
  zipped = tmp_path / "rows.jsonl.gz"
  zipped.write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
  origins = (path, f"{zipped}", tuple(rows), pairs_of_a_function)
  for origin in origins:
    task = Texts(rows=1, origin=origin, answer="answer")
    assert everything(task) == [("a", "b"), ("c", "d")]
    assert from_dict(json.loads(json.dumps(to_dict(task)))) == task
  assert everything(Texts(rows=1, origin=path)) == [("a", None), ("c", None)]
  assert everything(Texts(rows=1, origin=(("a",),))) == [("a", None)]
  turned = Texts(rows=1, origin=path, prompt="answer", answer="prompt")
  assert everything(turned) == [("b", "a"), ("d", "c")]


def test_messages_are_split_before_the_last_answer():
  talk = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
  ]
  task = Texts(
    rows=1,
    origin=({"messages": talk}, {"messages": talk[:1]}),
    prompt="messages",
  )
  assert everything(task) == [(talk[:1], "b"), (talk[:1], None)]
  alone = Texts(rows=1, origin=({"messages": talk[1:]},), prompt="messages")
  with pytest.raises(ValueError, match=r"record 0: .* no prompt"):
    alone.source()


@pytest.mark.parametrize(
  ("line", "words"),
  [
    (b"{", "rows.jsonl:3: "),
    (b'"text"', "rows.jsonl:3: a record has the keys"),
    (b'{"answer": "b"}', "rows.jsonl:3: the record lacks 'prompt'"),
    (b'{"prompt": 3, "answer": "b"}', "rows.jsonl:3: prompt must be text"),
    (b'{"prompt": [], "answer": "b"}', "rows.jsonl:3: prompt must be text"),
    (b'{"prompt": "a", "answer": null}', "rows.jsonl:3: answer must be text"),
    (b'{"prompt": "\xff", "answer": "b"}', "rows.jsonl:3: .*utf-8"),
  ],
)
def test_damaged_lines_are_named(tmp_path, line, words):
  path = tmp_path / "rows.jsonl"
  path.write_bytes(b'{"prompt": "a", "answer": "b"}\n\n' + line + b"\n")
  with pytest.raises(ValueError, match=words):
    Texts(rows=1, origin=f"{path}", answer="answer").source()


def test_damaged_records_are_named():
  with pytest.raises(ValueError, match="record 1: a record has the keys"):
    texts(("a", "b"), ("a", "b", "c")).source()
  with pytest.raises(ValueError, match="at least one row"):
    texts().source()
  with pytest.raises(FileNotFoundError):
    Texts(rows=1, origin="/no/such/file.jsonl").source()


@pytest.mark.parametrize(
  "value", [None, 3, [], ["a"], [{"role": "user"}], {"role": "a"}]
)
def test_what_is_neither_text_nor_messages(value):
  with pytest.raises(ValueError, match="x must be text"):
    as_text(value, "x")


def test_answers_go_with_their_prompts():
  """Ids of the reference, padded on the right; `layout` says so before."""
  data = prompts(answer=3)
  items = data.source()[np.arange(4)]
  tokenizer = PLAIN.load()
  for row, own in enumerate(items["answer_mask"]):
    answer = tokenizer.decode(items["answer"][row][own].tolist())
    assert answer == data.texts(row)[1]
    assert own.tolist() == sorted(own.tolist(), reverse=True)
  for name, (shape, dtype) in data.layout.items():
    assert items[name].shape[1:] == shape[1:], name
    assert items[name].dtype == dtype, name
  assert set(prompts().layout) == {"prompt", "prompt_mask", "item"}


@pytest.mark.parametrize(
  ("reference", "message"),
  [
    ("123", r"item 1 has 3 tokens, which is not in \[1, answer = 2\]"),
    ("", "item 1 has 0 tokens"),
    (7, "the reference of item 1 is no text but int"),
  ],
)
def test_answers_that_do_not_fit_are_named(reference, message):
  task = types.SimpleNamespace(
    rows=2, shuffle=False, source=lambda: Items(4, lambda _: ("1+1", reference))
  )
  with pytest.raises(ValueError, match=message):
    prompts(task=task, answer=2).source()[np.array([1])]


def test_answers_are_not_negative():
  with pytest.raises(ValueError, match="answer at least 0"):
    prompts(answer=-1)
