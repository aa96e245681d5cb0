"""How a prompt is put to a model: as plain text or as a conversation."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

from rl_jax.environments.texts import filled

if TYPE_CHECKING:
  from rl_jax.models.tokenizer import Tokenizer

__all__ = ["Chat", "Conversation", "Plain", "Wording", "as_text"]

type Conversation = list[dict[str, Any]]


class Wording(Protocol):
  """From a prompt of a task to the ids that a model goes on from."""

  def ids(self, tokenizer: Tokenizer, prompt: str | Conversation) -> list[int]:
    """The ids, without padding."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain:
  """The prompt itself, for models that continue a text.

  A conversation of one message by the user counts as its text; any other is
  an error, see `Chat`.
  """

  prefill: str = ""
  """Text behind the prompt, where the answer begins; {prompt} in it stands
  for the prompt."""
  begin: bool = False
  """Whether the first id is `bos`, as in the training of Llama and Gemma."""

  def ids(self, tokenizer: Tokenizer, prompt: str | Conversation) -> list[int]:
    """The ids, without padding.

    Raises:
      ValueError: if the prompt is a conversation, or `begin` asks for a token
        that the vocabulary does not have.
    """
    text = _only_message(prompt)
    if text is None:
      raise ValueError(
        "the prompt is a conversation, and wording=Plain() puts plain text:"
        " use wording=Chat()"
      )
    found = tokenizer.encode(text + self.prefill.replace("{prompt}", text))
    if not self.begin:
      return found
    if tokenizer.bos is None:
      raise ValueError("begin=True, but the vocabulary names no bos token")
    return [tokenizer.id(tokenizer.bos), *found]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chat:
  """The prompt as a message, in the model's own chat template.

  Raises:
    ValueError: if `ask` lacks its place.
  """

  system: str | None = None
  """Message of the system before all others; None: what the template does."""
  ask: str = "{prompt}"
  """Message of the user; {prompt} stands for the prompt."""
  prefill: str = ""
  """Text with which the answer begins; {prompt} in it stands for the prompt.
  The model goes on from there, and it is no part of the completion."""

  def __post_init__(self):
    filled(self.ask, "prompt", "")

  def ids(self, tokenizer: Tokenizer, prompt: str | Conversation) -> list[int]:
    """The ids, without padding.

    Raises:
      ValueError: if there is no template or it refuses the conversation, or
        the prompt is a conversation that does not go with these settings.
    """
    text = _only_message(prompt)
    messages = [] if isinstance(prompt, str) else prompt
    if text is not None:
      asked = filled(self.ask, "prompt", text)
      messages = [{"role": "user", "content": asked}]
    elif self.ask != "{prompt}" or "{prompt}" in self.prefill:
      raise ValueError(
        "the prompt is a conversation of several messages, which cannot stand"
        f" for {{prompt}} in ask={self.ask!r} or prefill={self.prefill!r}"
      )
    if self.system is not None:
      if messages[0]["role"] == "system":
        raise ValueError("the prompt has a system message, and so has Chat")
      messages = [{"role": "system", "content": self.system}, *messages]
    prefill = self.prefill.replace("{prompt}", text or "")
    asked = tokenizer.chat(messages, generation_prompt=True)
    return tokenizer.encode(asked + prefill)


def as_text(value: Any, name: str) -> str | Conversation:
  """A text or a conversation, as data sets hold them.

  Args:
    value: text, its UTF-8 bytes, or messages.
    name: what it is called in errors.

  Returns:
    The text or the messages.

  Raises:
    ValueError: if it is neither, or the bytes are no UTF-8.
  """
  match value:
    case str():
      return str(value)
    case bytes():
      try:
        return value.decode()
      except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no UTF-8: {error}") from error
    case [*messages] if messages and all(map(_is_message, messages)):
      return list(messages)
  raise ValueError(
    f"{name} must be text, or messages with a role and a content, got"
    f" {value!r:.200}"
  )


def _is_message(value: Any) -> bool:
  return (
    isinstance(value, dict)
    and isinstance(value.get("role"), str)
    and isinstance(value.get("content"), str)
  )


def _only_message(prompt: str | Conversation) -> str | None:
  """The text, if that is all there is."""
  if isinstance(prompt, str):
    return prompt
  if len(prompt) == 1 and prompt[0]["role"] == "user":
    return prompt[0]["content"]
  return None
