"""Between `config.json` of a Hugging Face folder and a `Decoder`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from rl_jax.models.decoder import Decoder
from rl_jax.models.decoder_attention import Attention, Window
from rl_jax.models.decoder_rope import Linear, Llama3, Rope, Yarn

if TYPE_CHECKING:
  from collections.abc import Callable

__all__ = ["FAMILIES", "read_config", "write_config"]

FAMILIES = {
  "llama": "LlamaForCausalLM",
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
  "gemma2": "Gemma2ForCausalLM",
  "gemma3_text": "Gemma3ForCausalLM",
}
"""The architecture of each `model_type` that is understood."""

_NEAR, _FAR = "sliding_attention", "full_attention"

# What the decoder does not have, and the values with which it is not needed.
_REFUSED = {
  "attention_bias": (False, None),
  "mlp_bias": (False, None),
  "use_bidirectional_attention": (False, None),
  "partial_rotary_factor": (1.0, None),
  "quantization_config": (None,),
}

# Keys of each rotary scaling: those it needs, and those it may have.
_SCALINGS: dict[str, tuple[set[str], set[str]]] = {
  "default": (set(), set()),
  "linear": ({"factor"}, set()),
  "llama3": ({"factor", "low_freq_factor", "high_freq_factor"}, set()),
  "yarn": ({"factor"}, {"beta_fast", "beta_slow"}),
}


def read_config(config: dict[str, Any]) -> Decoder:
  """The decoder that a `config.json` describes.

  Both ways of writing rotary positions are read: `rope_theta` with
  `rope_scaling`, and `rope_parameters` of transformers 5.

  Args:
    config: the parsed file.

  Returns:
    The decoder, with float32 products.

  Raises:
    ValueError: for another architecture, an unknown rotary type, a key that
      is missing, or one whose value asks for what the decoder does not have.
  """
  family = config.get("model_type")
  if family not in FAMILIES:
    raise ValueError(
      f"model_type {family!r} is not understood; known: {sorted(FAMILIES)}"
    )
  for key, allowed in _REFUSED.items():
    if config.get(key) not in allowed:
      raise ValueError(f"{family} with {key} = {config[key]} is not supported")
  gemma = family.startswith("gemma")
  _check_activation(config, gemma)
  width, heads = (
    _need(config, "hidden_size"),
    _need(config, "num_attention_heads"),
  )
  rope, near_rope = _ropes(config)
  return Decoder(
    vocabulary=_need(config, "vocab_size"),
    width=width,
    layers=_need(config, "num_hidden_layers"),
    mlp=_need(config, "intermediate_size"),
    context=_need(config, "max_position_embeddings"),
    attention=Attention(
      heads=heads,
      features=config.get("head_dim") or width // heads,
      key_value_heads=config.get("num_key_value_heads") or heads,
      rope=rope,
      window=_window(config, near_rope),
      bias=family == "qwen2",
      query_key_norm=family in ("qwen3", "gemma3_text"),
      cap=_number(config, "attn_logit_softcapping") if gemma else None,
      query_scalar=(
        float(_need(config, "query_pre_attn_scalar")) if gemma else None
      ),
    ),
    activation="gelu" if gemma else "silu",
    tied=config.get("tie_word_embeddings", gemma),
    norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
    norm_offset=1.0 if gemma else 0.0,
    post_norms=gemma,
    scale_embedding=gemma,
    soft_cap=_number(config, "final_logit_softcapping") if gemma else None,
  )


def write_config(model: Decoder) -> dict[str, Any]:
  """The `config.json` that describes a decoder to others.

  Args:
    model: the decoder.

  Returns:
    What `read_config` reads as the same model.

  Raises:
    ValueError: if no family of `FAMILIES` has this mixture of features.
  """
  attention = model.attention
  if model.post_norms:
    family = "gemma3_text" if attention.query_key_norm else "gemma2"
  elif attention.query_key_norm:
    family = "qwen3"
  else:
    family = "qwen2" if attention.bias else "llama"
  config: dict[str, Any] = {
    "architectures": [FAMILIES[family]],
    "model_type": family,
    "vocab_size": model.vocabulary,
    "hidden_size": model.width,
    "num_hidden_layers": model.layers,
    "intermediate_size": model.mlp,
    "max_position_embeddings": model.context,
    "num_attention_heads": attention.heads,
    "num_key_value_heads": attention.groups,
    "head_dim": attention.features,
    "rms_norm_eps": model.norm_epsilon,
    "tie_word_embeddings": model.tied,
    "rope_theta": attention.rope.theta,
  }
  scaling = _written_scaling(attention.rope)
  if scaling is not None:
    config["rope_scaling"] = scaling
  if family.startswith("gemma"):
    scalar = attention.query_scalar or attention.features
    config |= {
      "hidden_activation": "gelu_pytorch_tanh",
      # Readers expect an integer, which it is in all public checkpoints.
      "query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar,
      "attn_logit_softcapping": attention.cap,
      "final_logit_softcapping": model.soft_cap,
    }
  else:
    config["hidden_act"] = "silu"
  window = attention.window
  if family != "llama":
    near = window.layers(model.layers) if window else (False,) * model.layers
    config["layer_types"] = [_NEAR if own else _FAR for own in near]
    config["sliding_window"] = window.size if window else None
  if family.startswith("qwen"):
    config["use_sliding_window"] = window is not None
  if window is not None and window.rope is not None:
    config["rope_local_base_freq"] = window.rope.theta
  _check_same(model, family, config)
  return config


def _check_same(model: Decoder, family: str, config: dict[str, Any]) -> None:
  """Refuse a decoder that a reader of this config would not rebuild."""
  try:
    read = read_config(config)
  except ValueError as error:
    raise ValueError(f"no {family} is like {model}: {error}") from error
  found, wanted = _comparable(read), _comparable(model)
  other = {
    name: (wanted[name], found[name])
    for name in wanted
    if wanted[name] != found[name]
  }
  if other:
    raise ValueError(
      f"no public family has all features of this decoder; nearest is"
      f" {family}, which differs in (wanted, found): {other}"
    )


def _comparable(model: Decoder) -> dict[str, Any]:
  """Fields that change numbers, each in one form only."""
  attention = model.attention
  window = attention.window
  fields = {
    f.name: getattr(model, f.name)
    for f in dataclasses.fields(model)
    if f.name not in ("attention", "lora", "scan", "remat", "dtype")
  }
  fields |= {
    f"attention.{f.name}": getattr(attention, f.name)
    for f in dataclasses.fields(attention)
  }
  scalar = attention.query_scalar
  return fields | {
    "attention.key_value_heads": attention.groups,
    "attention.query_scalar": scalar or attention.features,
    "attention.window": window
    and (window.size, window.layers(model.layers), window.rope),
  }


def _need(config: dict[str, Any], key: str) -> Any:
  if config.get(key) is None:
    raise ValueError(f"config.json of a {config['model_type']} lacks {key!r}")
  return config[key]


def _number(given: dict[str, Any], key: str) -> float | None:
  found = given.get(key)
  return None if found is None else float(found)


def _check_activation(config: dict[str, Any], gemma: bool) -> None:
  found = config.get("hidden_act", "silu")
  wanted = "silu"
  if gemma:
    wanted = "gelu_pytorch_tanh"
    # An old hidden_act of "gelu" beside it is what transformers ignores.
    found = config.get("hidden_activation") or wanted
  if found != wanted:
    raise ValueError(
      f"{config['model_type']} with the activation {found!r} is not supported,"
      f" only {wanted!r}"
    )


def _window(config: dict[str, Any], rope: Rope | None) -> Window | None:
  family, layers = config["model_type"], _need(config, "num_hidden_layers")
  rules: dict[str, Callable[[int], bool]] = {
    "gemma2": lambda n: n % 2 == 0,
    "gemma3_text": lambda n: (
      (n + 1) % config.get("sliding_window_pattern", 6) != 0
    ),
    "qwen2": lambda n: n >= config.get("max_window_layers", layers),
    "qwen3": lambda n: n >= config.get("max_window_layers", layers),
  }
  qwen = family.startswith("qwen")
  if family not in rules or (qwen and not config.get("use_sliding_window")):
    return None
  near = [rules[family](n) for n in range(layers)]
  kinds = config.get("layer_types")
  if kinds is not None:
    if len(kinds) != layers or not set(kinds) <= {_NEAR, _FAR}:
      raise ValueError(
        f"layer_types must be {layers} of {_NEAR!r} and {_FAR!r}, got {kinds}"
      )
    near = [kind == _NEAR for kind in kinds]
  if not any(near):
    return None
  size = _need(config, "sliding_window")
  return Window(size=size, pattern=_period(near), rope=rope)


def _period(near: list[bool]) -> tuple[bool, ...]:
  """The shortest pattern that repeats to this."""
  for length in range(1, len(near)):
    if all(near[n] == near[n % length] for n in range(len(near))):
      return tuple(near[:length])
  return tuple(near)


def _ropes(config: dict[str, Any]) -> tuple[Rope, Rope | None]:
  """Rotary positions of layers without a window, and with one if others."""
  given = config.get("rope_parameters")
  context = _need(config, "max_position_embeddings")
  if config["model_type"] != "gemma3_text":
    if given is None:
      theta = config.get("rope_theta", 10_000.0)
      given = {"rope_theta": theta, **(config.get("rope_scaling") or {})}
    return _rope(given, context), None
  if given is None:
    far = {
      "rope_theta": config.get("rope_theta", 1e6),
      **(config.get("rope_scaling") or {}),
    }
    near = {"rope_theta": config.get("rope_local_base_freq", 1e4)}
    given = {_FAR: far, _NEAR: near}
  missing = sorted({_FAR, _NEAR} - set(given))
  if missing:
    raise ValueError(f"rope_parameters lack {missing}, have {sorted(given)}")
  return _rope(given[_FAR], context), _rope(given[_NEAR], context)


def _rope(given: dict[str, Any], context: int) -> Rope:
  kind = given.get("rope_type", given.get("type", "default"))
  if kind not in _SCALINGS:
    raise ValueError(
      f"rotary type {kind!r} is not understood; known: {sorted(_SCALINGS)}"
    )
  # Keys of other types stand beside the default one in some checkpoints.
  common = {"rope_theta", "rope_type", "type"}
  common |= {"original_max_position_embeddings"}
  needed, allowed = _SCALINGS[kind]
  present = {
    key
    for key, value in given.items()
    if value is not None
    and not (key == "partial_rotary_factor" and value == 1.0)
  }
  missing, surplus = needed - present, present - needed - allowed - common
  if missing or surplus:
    raise ValueError(
      f"rotary type {kind!r}: missing {sorted(missing)}, not understood"
      f" {sorted(surplus)}"
    )
  original = given.get("original_max_position_embeddings") or context
  match kind:
    case "linear":
      scaling = Linear(factor=float(given["factor"]))
    case "llama3":
      scaling = Llama3(
        factor=float(given["factor"]),
        low=float(given["low_freq_factor"]),
        high=float(given["high_freq_factor"]),
        context=original,
      )
    case "yarn":
      scaling = Yarn(
        factor=float(given["factor"]),
        context=original,
        fast=_number(given, "beta_fast") or 32.0,
        slow=_number(given, "beta_slow") or 1.0,
      )
    case _:
      scaling = None
  theta = _number(given, "rope_theta") or 10_000.0
  return Rope(theta=theta, scaling=scaling)


def _written_scaling(rope: Rope) -> dict[str, Any] | None:
  match rope.scaling:
    case None:
      return None
    case Linear(factor=factor):
      return {"rope_type": "linear", "factor": factor}
    case Llama3() as scaling:
      return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low,
        "high_freq_factor": scaling.high,
        "original_max_position_embeddings": scaling.context,
      }
    case Yarn() as scaling:
      return {
        "rope_type": "yarn",
        "factor": scaling.factor,
        "beta_fast": scaling.fast,
        "beta_slow": scaling.slow,
        "original_max_position_embeddings": scaling.context,
      }
