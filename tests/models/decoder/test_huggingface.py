import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decoder.conftest import FAMILIES, FIXTURES, FULL, PLAIN, randomised
from rl_jax.models import huggingface
from rl_jax.models.decoder_rope import Rope
from rl_jax.models.huggingface_config import read_config, write_config
from rl_jax.training.sharding import make_mesh, shard_like

safetensors_numpy = pytest.importorskip(
  "safetensors.numpy", reason="needs the extra `language` (safetensors)"
)


def loaded(name):
  model = huggingface.read_model(FIXTURES / name)
  return model, huggingface.load(FIXTURES / name, model, dtype="float32")


def expected(name):
  found = json.loads((FIXTURES / name / "expected.json").read_text())
  return jnp.asarray(found["token"]), np.asarray(found["logits"], np.float32)


def logits(model, params, token):
  def forward(params):
    hidden = model.hidden(params, token, jnp.ones_like(token))
    return model.logits(params, hidden)

  return jax.jit(forward)(params)


@pytest.fixture
def folder(tmp_path):
  """A copy of one fixture, to be damaged."""
  shutil.copytree(FIXTURES / "qwen2", tmp_path / "copy")
  return tmp_path / "copy"


def rewrite(folder, change):
  path = folder / "model.safetensors"
  weights = dict(safetensors_numpy.load_file(path))
  change(weights)
  safetensors_numpy.save_file(weights, path)


def config(name, **changes):
  return json.loads((FIXTURES / name / "config.json").read_text()) | changes


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_transformers(name):
  model, params = loaded(name)
  token, exact = expected(name)
  np.testing.assert_allclose(
    logits(model, params, token), exact, rtol=1e-4, atol=1e-4
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "change"),
  [
    (
      "llama",
      lambda m: dataclasses.replace(m.attention, rope=Rope(theta=500.0)),
    ),
    (
      "qwen3",
      lambda m: dataclasses.replace(m.attention, rope=Rope(theta=100.0)),
    ),
    ("qwen2", lambda m: dataclasses.replace(m.attention, window=None)),
    ("gemma2", lambda m: dataclasses.replace(m.attention, cap=None)),
    (
      "gemma3",
      lambda m: dataclasses.replace(
        m.attention, window=dataclasses.replace(m.attention.window, rope=None)
      ),
    ),
  ],
)
def test_fixtures_see_each_feature(name, change):
  """Without it, the logits are not those of transformers."""
  model, params = loaded(name)
  token, exact = expected(name)
  other = dataclasses.replace(model, attention=change(model))
  assert np.max(np.abs(logits(other, params, token) - exact)) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shard_bytes", [1 << 30, 30_000])
def test_what_is_written_is_read_as_the_same(name, shard_bytes, tmp_path):
  model, params = loaded(name)
  to = tmp_path / "out"
  huggingface.save(to, model, params, dtype="bfloat16", shard_bytes=shard_bytes)
  assert huggingface.read_model(to) == model
  again = huggingface.load(to, model, dtype="float32")
  jax.tree.map(np.testing.assert_array_equal, params, again)
  sharded = (to / "model.safetensors.index.json").exists()
  assert sharded == (shard_bytes == 30_000)
  for file in to.glob("*.safetensors"):
    assert file.stat().st_size < shard_bytes + 10_000


@pytest.mark.slow
def test_files_hold_the_names_and_layouts_of_the_original(tmp_path):
  model, params = loaded("gemma3")
  huggingface.save(tmp_path / "out", model, params, dtype="bfloat16")
  theirs, ours = (
    safetensors_numpy.load_file(f / "model.safetensors")
    for f in (FIXTURES / "gemma3", tmp_path / "out")
  )
  assert set(theirs) == set(ours)
  for name, array in theirs.items():
    np.testing.assert_array_equal(array, ours[name])


def test_arrays_are_placed_as_asked():
  model = huggingface.read_model(FIXTURES / "qwen2")
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  sharding = shard_like(model.logical_axes(shapes), shapes, mesh)
  found = huggingface.load(
    FIXTURES / "qwen2", model, dtype="bfloat16", sharding=sharding
  )
  assert jax.tree.map(lambda array: array.sharding, found) == sharding
  assert found["embedding"].dtype == jnp.bfloat16


def test_missing_surplus_and_misshapen_weights_are_all_named(folder):
  def damage(weights):
    del weights["model.layers.1.self_attn.k_proj.bias"]
    weights["model.layers.3.mlp.up_proj.weight"] = np.zeros((2, 2), np.float32)
    weights["model.norm.weight"] = np.zeros(31, np.float32)

  rewrite(folder, damage)
  model = huggingface.read_model(folder)
  with pytest.raises(ValueError, match="not those of this model") as caught:
    huggingface.load(folder, model, dtype="float32")
  for words in (
    "missing ['model.layers.1.self_attn.k_proj.bias']",
    "left over ['model.layers.3.mlp.up_proj.weight']",
    "'model.norm.weight': {'expected': (32,), 'found': (31,)}",
  ):
    assert words in str(caught.value)


def test_another_vocabulary_is_refused(folder):
  settings = config("qwen2", vocab_size=65)
  (folder / "config.json").write_text(json.dumps(settings))
  model = huggingface.read_model(folder)
  with pytest.raises(ValueError, match=r"embed_tokens.*\(65, 32\).*\(64, 32\)"):
    huggingface.load(folder, model, dtype="float32")


def test_a_tied_head_may_be_in_the_file_if_it_is_the_embedding(tmp_path):
  shutil.copytree(FIXTURES / "llama_tied", tmp_path / "copy")
  folder, model = tmp_path / "copy", loaded("llama_tied")[0]

  def tie(weights):
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    weights[buffer] = np.ones(4, np.float32)

  rewrite(folder, tie)
  huggingface.load(folder, model, dtype="float32")
  rewrite(folder, lambda w: w["lm_head.weight"].__setitem__((0, 0), 9))
  with pytest.raises(ValueError, match=r"lm_head\.weight differs"):
    huggingface.load(folder, model, dtype="float32")


def test_missing_files_are_named(folder, tmp_path):
  model = huggingface.read_model(folder)
  (folder / "model.safetensors").unlink()
  with pytest.raises(ValueError, match=r"no model.safetensors in"):
    huggingface.load(folder, model, dtype="float32")
  with pytest.raises(ValueError, match=r"no config.json in"):
    huggingface.read_model(tmp_path)


@pytest.mark.parametrize(
  ("name", "changes", "words"),
  [
    ("llama", {"model_type": "mamba"}, "'mamba' is not understood; known"),
    ("llama", {"attention_bias": True}, "attention_bias = True"),
    ("llama", {"mlp_bias": True}, "mlp_bias = True"),
    ("llama", {"hidden_act": "relu"}, "'relu' is not supported, only 'silu'"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ("gemma2", {"hidden_activation": "gelu"}, "only 'gelu_pytorch_tanh'"),
    ("llama", {"hidden_size": None}, "lacks 'hidden_size'"),
    ("qwen2", {"layer_types": ["full_attention"]}, "layer_types must be 3"),
    ("gemma3", {"rope_parameters": {"full_attention": {}}}, "lack"),
    (
      "llama",
      {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
      "rotary type 'dynamic' is not understood",
    ),
    (
      "llama",
      {"rope_parameters": {"rope_type": "yarn", "mscale": 2.0}},
      r"missing \['factor'\], not understood \['mscale'\]",
    ),
  ],
)
def test_what_is_not_supported_is_refused_by_name(name, changes, words):
  with pytest.raises(ValueError, match=words):
    read_config(config(name, **changes))


def test_old_and_new_ways_of_writing_positions_are_the_same():
  new = config("gemma3")
  old = {k: v for k, v in new.items() if k not in ("rope_parameters",)}
  old |= {
    "rope_theta": 1000.0,
    "rope_local_base_freq": 100.0,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
  }
  del old["layer_types"]
  assert read_config(old) == read_config(new)
  new = config("qwen3")
  given = dict(new.pop("rope_parameters"))
  theta, kind = given.pop("rope_theta"), given.pop("rope_type")
  old = new | {"rope_theta": theta, "rope_scaling": given | {"type": kind}}
  assert read_config(old) == read_config(config("qwen3"))


def test_a_mixture_that_no_family_has_is_not_written(tmp_path):
  with pytest.raises(ValueError, match=r"differs in .*attention\.bias"):
    write_config(FULL)
  gelu = dataclasses.replace(PLAIN, activation="gelu")
  with pytest.raises(ValueError, match=r"differs in .*activation"):
    huggingface.save(tmp_path / "x", gelu, randomised(gelu), dtype="float32")
  assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
  model, params = loaded("qwen2")

  def full(*args, **more):
    raise OSError("no space left")

  monkeypatch.setattr(safetensors_numpy, "save_file", full)
  with pytest.raises(OSError, match="no space"):
    huggingface.save(tmp_path / "out", model, params, dtype="float32")
  assert list(tmp_path.iterdir()) == []


def test_saving_refuses_what_it_would_overwrite(tmp_path):
  model, params = loaded("qwen2")
  with pytest.raises(ValueError, match="exists already"):
    huggingface.save(tmp_path, model, params, dtype="float32")
  with pytest.raises(ValueError, match=r"config sets \['vocab_size'\]"):
    huggingface.save(
      tmp_path / "out",
      model,
      params,
      dtype="float32",
      config={"vocab_size": 3, "eos_token_id": 2},
    )


def test_more_keys_reach_the_config(tmp_path):
  model, params = loaded("qwen2")
  huggingface.save(
    tmp_path / "out",
    model,
    params,
    dtype="float32",
    config={"eos_token_id": 2},
  )
  found = json.loads((tmp_path / "out" / "config.json").read_text())
  assert found["eos_token_id"] == 2
  assert found["architectures"] == ["Qwen2ForCausalLM"]
