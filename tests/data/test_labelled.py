"""Labelled responses: records, balance, pairs, ids."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from rl_jax.data import Preferences
from rl_jax.data.labelled import (
  LabelledResponse,
  LabelledResponses,
  balance_indices,
  labelled_pairs,
  read_labelled,
)
from rl_jax.models import Characters

VOCABULARY = Characters(alphabet="0123456789+= ")
END = VOCABULARY.size - 1
RECORDS = (
  ("1+1=", "2", True),
  ("1+1=", "3", False),
  ("2+2=", "4", 1),
  ("2+2=", " 4", 1.0),
  ("2+2=", "5", 0),
  ("3+3=", "6", 1),
)


def component(**changes):
  return LabelledResponses(
    **{
      "rows": 2,
      "responses": RECORDS,
      "vocabulary": VOCABULARY,
      "length": 8,
    }
    | changes
  )


def test_items_are_laid_out_like_demonstrations(tmp_path):
  path = tmp_path / "responses.jsonl"
  keys = ("instruction", "response", "label")
  path.write_text(
    "".join(
      json.dumps(dict(zip(keys, record, strict=True))) + "\n"
      for record in RECORDS
    )
  )
  for origin in (RECORDS, str(path), lambda: iter(RECORDS)):
    data = component(responses=origin)
    source = data.source()
    items = source[np.array([1, 3])]
    assert {name: (x.shape, x.dtype) for name, x in items.items()} == {
      name: (shape, np.dtype(kind))
      for name, (shape, kind) in data.layout.items()
    }
    assert items["label"].tolist() == [0.0, 1.0]
    assert items["mask"].sum(axis=1).tolist() == [2, 3]
    assert items["token"][0][items["mask"][0]].tolist() == [3, END]
    assert items["segment"].sum(axis=1).tolist() == [6, 7]
    assert len(source) == 6
    assert data.source() is source


def test_balance_over_all_and_within_instructions():
  rng = np.random.default_rng(0)
  label = rng.uniform(size=300) < 0.7
  instruction = rng.integers(0, 60, 300)
  over_all = balance_indices(label, instruction, mode="dataset", rng=rng)
  assert label[over_all].sum() == (~label[over_all]).sum() == (~label).sum()
  within = balance_indices(label, instruction, mode="instruction", rng=rng)
  for one in range(60):
    own = label[instruction == one]
    kept = label[within][instruction[within] == one]
    assert kept.sum() == (~kept).sum() == min(own.sum(), (~own).sum())
  for rows in (over_all, within):
    assert (np.diff(rows) > 0).all(), "in order, none twice"


def test_balanced_data():
  source = component(balance="instruction").source()
  labels = [(one.instruction, one.label) for one in source.responses]
  assert sorted(labels) == [
    ("1+1=", 0.0),
    ("1+1=", 1.0),
    ("2+2=", 0.0),
    ("2+2=", 1.0),
  ]
  assert len(component(balance="dataset").source()) == 4
  # The same draw for the same seed, whoever asks.
  again = component(balance="dataset").source()
  assert again.responses == component(balance="dataset").source().responses


def test_pairs_of_the_same_instruction_only(caplog):
  responses = [
    LabelledResponse(instruction, response, float(label))
    for instruction, response, label in RECORDS
  ]
  with caplog.at_level(logging.WARNING):
    pairs = labelled_pairs(responses, rng=np.random.default_rng(0))
  assert "1 of 3 instructions have no pair" in caplog.text
  assert [pair["prompt"] for pair in pairs] == ["1+1=", "2+2="]
  right = {(r.instruction, r.response) for r in responses if r.label}
  for pair in pairs:
    assert (pair["prompt"], pair["chosen"]) in right
    assert (pair["prompt"], pair["rejected"]) not in right
  data = Preferences(
    rows=1,
    pairs=pairs,
    vocabulary=VOCABULARY,
    length=8,
    identical="refuse",
  )
  assert len(data.source()) == 2
  with pytest.raises(ValueError, match="none of 1 instructions"):
    labelled_pairs(responses[-1:], rng=np.random.default_rng(0))
  with pytest.raises(ValueError, match=r"0 and 1, got 0\.5"):
    labelled_pairs(
      [LabelledResponse("1=", "1", 0.5)], rng=np.random.default_rng(0)
    )


@pytest.mark.parametrize(
  ("record", "message"),
  [
    ({"instruction": "1="}, "lacks 'response'"),
    ({"instruction": "1=", "response": "1", "label": 2}, r"\[0, 1\], got 2"),
    ({"instruction": "1=", "response": "1", "label": "1"}, "got '1'"),
    ({"instruction": "1=", "response": "1", "label": float("nan")}, "nan"),
    (
      {
        "instruction": "1=",
        "response": [{"role": "assistant", "content": "1"}],
        "label": 1,
      },
      "must be text",
    ),
  ],
)
def test_bad_records(record, message):
  with pytest.raises(ValueError, match=message):
    read_labelled(record)
  with pytest.raises(ValueError, match="record 0"):
    component(responses=[record]).source()


def test_bad_data():
  with pytest.raises(ValueError, match="rows and length"):
    component(rows=0)
  with pytest.raises(ValueError, match="there is no response"):
    component(responses=()).source()
  with pytest.raises(ValueError, match="the instruction is empty"):
    component(responses=(("", "1", 1),)).source()
  with pytest.raises(ValueError, match="labels of 0 and 1, got"):
    component(responses=(("1=", "1", 0.5),), balance="dataset").source()
  with pytest.raises(ValueError, match="none is left"):
    component(responses=(("1=", "1", 1),), balance="dataset").source()
  with pytest.raises(ValueError, match="record 1"):
    component(responses=(("1=", "1", 1), ("1=", "1" * 9, 1))).source()
  dropped = component(
    responses=(("1=", "1", 1), ("1=", "1" * 9, 1)), too_long="drop"
  )
  assert len(dropped.source()) == 1


def test_unknown_balance(unchecked):
  with pytest.raises(ValueError, match="mode must be"):
    balance_indices(
      np.ones(2, bool),
      np.zeros(2, int),
      mode="rows",
      rng=np.random.default_rng(0),
    )
