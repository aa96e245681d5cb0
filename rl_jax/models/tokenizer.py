"""Text to token ids and back, with a model's chat template.

From a Hugging Face folder or from within a GGUF file; written as part of an
ordinary Hugging Face folder.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING, Any

from rl_jax.models import gguf

if TYPE_CHECKING:
  from collections.abc import Sequence

  from rl_jax.models.decoder import Decoder

__all__ = ["Tokenizer", "from_folder", "from_gguf"]

# Kinds of entries in a GGUF vocabulary.
_CONTROL, _USER_DEFINED = 3, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
  """A vocabulary with its rules, its special tokens and its chat template.

  Raises:
    ValueError: if `bos`, `eos` or `pad` is not in the vocabulary.
  """

  backend: Any
  """A `tokenizers.Tokenizer`."""
  bos: str | None = None
  """Token that begins a text; chat templates write it themselves."""
  eos: str | None = None
  """Token that ends a text."""
  pad: str | None = None
  """Token that stands in padded columns; masks do not need one."""
  template: str | None = None
  """Jinja template of a conversation."""

  def __post_init__(self):
    for name in ("bos", "eos", "pad"):
      token = getattr(self, name)
      if token is not None and self.backend.token_to_id(token) is None:
        raise ValueError(f"{name} = {token!r} is not in the vocabulary")

  @property
  def size(self) -> int:
    """One more than the greatest id."""
    return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

  def id(self, token: str) -> int:
    """The id of one token.

    Args:
      token: as it stands in the vocabulary.

    Returns:
      Its id.

    Raises:
      ValueError: if it is not there.
    """
    found = self.backend.token_to_id(token)
    if found is None:
      raise ValueError(f"the vocabulary has no token {token!r}")
    return found

  def encode(self, text: str) -> list[int]:
    """Ids of a text. Special tokens in it count; none is added.

    Args:
      text: anything; a prompt from `chat` included.

    Returns:
      Its ids.
    """
    return self.backend.encode(text, add_special_tokens=False).ids

  def decode(self, token: Sequence[int], *, special: bool = False) -> str:
    """The text of ids. Bytes that are no UTF-8 become U+FFFD.

    Args:
      token: ids.
      special: whether to write out special tokens.

    Returns:
      The text.
    """
    ids = [int(one) for one in token]
    return self.backend.decode(ids, skip_special_tokens=not special)

  def chat(
    self, messages: Sequence[dict[str, Any]], *, generation_prompt: bool
  ) -> str:
    """A conversation as the text that the model was trained on.

    Args:
      messages: each with a `role` and a `content`.
      generation_prompt: whether to end where the model's answer begins.

    Returns:
      The text; `encode` gives its ids.

    Raises:
      ValueError: if there is no template, or it refuses the conversation.
    """
    if self.template is None:
      raise ValueError("this tokenizer has no chat template")
    try:
      import jinja2
      from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
      raise ImportError(
        "chat templates need jinja2, which is not installed:"
        " pip install rl-jax[language]"
      ) from error

    def refuse(message: str) -> None:
      raise ValueError(f"the chat template refuses: {message}")

    # Templates come with weights from anywhere. Blocks are trimmed as in
    # transformers, for which they are written.
    environment = ImmutableSandboxedEnvironment(
      trim_blocks=True,
      lstrip_blocks=True,
      extensions=["jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
      value, ensure_ascii=False, indent=indent
    )
    try:
      template = environment.from_string(
        self.template, globals={"raise_exception": refuse}
      )
      return template.render(
        messages=list(messages),
        add_generation_prompt=generation_prompt,
        bos_token=self.bos or "",
        eos_token=self.eos or "",
      )
    except jinja2.TemplateError as error:
      raise ValueError(f"the chat template failed: {error}") from error

  def check(self, model: Decoder) -> None:
    """Refuse a model that lacks ids of this vocabulary.

    Args:
      model: its embedding may have more ids than there are tokens.

    Raises:
      ValueError: if it has fewer.
    """
    if self.size > model.vocabulary:
      raise ValueError(
        f"the tokenizer has ids up to {self.size - 1}, the model only"
        f" {model.vocabulary} of them: they do not belong together"
      )

  def save(self, folder: pathlib.Path | str) -> None:
    """Writes the tokenizer into a Hugging Face folder.

    Args:
      folder: exists, for example from `huggingface.save`.
    """
    folder = pathlib.Path(folder)
    self.backend.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
      "tokenizer_class": "PreTrainedTokenizerFast",
      "clean_up_tokenization_spaces": False,
    }
    for name in ("bos", "eos", "pad"):
      if getattr(self, name) is not None:
        config[f"{name}_token"] = getattr(self, name)
    if self.template is not None:
      config["chat_template"] = self.template
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n")


def from_folder(folder: pathlib.Path | str) -> Tokenizer:
  """The tokenizer of a Hugging Face folder.

  Args:
    folder: with `tokenizer.json` and `tokenizer_config.json`; a template in
      `chat_template.jinja` goes before one in the latter.

  Returns:
    The tokenizer.

  Raises:
    ValueError: if one of the two is missing.
  """
  backend = _tokenizers()
  folder = pathlib.Path(folder)
  rules, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
  for path in (rules, settings):
    if not path.is_file():
      raise ValueError(f"there is no {path.name} in {folder}")
  config = json.loads(settings.read_text())
  template = config.get("chat_template")
  if isinstance(template, list):
    # Several by name; the one of ordinary conversations is called default.
    template = {own["name"]: own["template"] for own in template}.get("default")
  if (folder / "chat_template.jinja").is_file():
    template = (folder / "chat_template.jinja").read_text()
  return Tokenizer(
    backend=backend.Tokenizer.from_file(str(rules)),
    template=template,
    **{name: _token(config, f"{name}_token") for name in ("bos", "eos", "pad")},
  )


def from_gguf(path: pathlib.Path | str) -> Tokenizer:
  """The tokenizer within a GGUF file, rebuilt from vocabulary and merges.

  Args:
    path: of the file.

  Returns:
    The tokenizer.

  Raises:
    ValueError: if it is not byte-level BPE cut as SmolLM 2 cuts it.
  """
  backend = _tokenizers()
  found = gguf.read_metadata(gguf.opened(path))
  kind = (found["tokenizer.ggml.model"], found.get("tokenizer.ggml.pre"))
  if kind != ("gpt2", "smollm"):
    raise ValueError(
      f"tokenizer {kind[0]!r} cut by {kind[1]!r} is not supported: 'gpt2' cut"
      " by 'smollm' is"
    )
  tokens = found["tokenizer.ggml.tokens"]
  merges = [tuple(m.split(" ")) for m in found["tokenizer.ggml.merges"]]
  vocabulary = {token: number for number, token in enumerate(tokens)}
  rules = backend.Tokenizer(backend.models.BPE(vocabulary, merges))
  cut = backend.pre_tokenizers
  rules.pre_tokenizer = cut.Sequence(
    [
      # Every digit is a token of its own; the rest as in GPT-2.
      cut.Digits(individual_digits=True),
      cut.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
  )
  rules.decoder = backend.decoders.ByteLevel()
  kinds = list(zip(tokens, found["tokenizer.ggml.token_type"], strict=True))
  added = [
    backend.AddedToken(token, special=kind == _CONTROL, normalized=False)
    for token, kind in kinds
    if kind in (_CONTROL, _USER_DEFINED)
  ]
  rules.add_tokens([token for token in added if not token.special])
  rules.add_special_tokens([token for token in added if token.special])
  keys = {"bos": "bos", "eos": "eos", "pad": "padding"}
  numbers = {
    name: found.get(f"tokenizer.ggml.{key}_token_id")
    for name, key in keys.items()
  }
  return Tokenizer(
    backend=rules,
    template=found.get("tokenizer.chat_template"),
    **{
      name: None if number is None else tokens[number]
      for name, number in numbers.items()
    },
  )


def _token(config: dict[str, Any], key: str) -> str | None:
  """A special token, written as text or as an object with its content."""
  found = config.get(key)
  return found["content"] if isinstance(found, dict) else found


def _tokenizers() -> Any:
  try:
    import tokenizers
  except ImportError as error:
    raise ImportError(
      "text is cut by tokenizers, which is not installed:"
      " pip install rl-jax[language]"
    ) from error
  return tokenizers
