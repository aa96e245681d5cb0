"""Questions to models that are served elsewhere."""

from __future__ import annotations

import dataclasses
import json
import logging
import urllib.request
from typing import Any

__all__ = ["ChatServer", "post"]


_log = logging.getLogger(__name__)


def post(
  url: str, body: dict[str, Any], *, seconds: float, attempts: int = 1
) -> Any:
  """The JSON that a server replies.

  Args:
    url: where it is.
    body: what is sent, as JSON.
    seconds: longest that it may take.
    attempts: how often to ask before its failure is an error; the others are
      logged.

  Returns:
    The reply.

  Raises:
    OSError: if there is no reply in time, or one of an error.
    ValueError: if the reply is no JSON.
  """
  request = urllib.request.Request(
    url, json.dumps(body).encode(), {"Content-Type": "application/json"}
  )
  for left in reversed(range(attempts)):
    try:
      with urllib.request.urlopen(request, timeout=seconds) as reply:
        return json.load(reply)
    except (OSError, ValueError) as error:
      if not left:
        raise
      _log.warning("%s: %s; %d attempts left", url, error, left)
  raise ValueError(f"attempts must be at least 1, got {attempts}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatServer:
  """A callable from a prompt to a reply, of a server of chat completions.

  vLLM, SGLang and llama.cpp serve models in this way.
  """

  url: str
  """Such as http://localhost:8000/v1/chat/completions."""
  model: str
  """What the server calls it."""
  seconds: float = 120.0
  """Longest for one reply."""
  tokens: int = 4096
  """Longest reply, the model's own thoughts included."""

  def __call__(self, prompt: str) -> str:
    """The text of the reply, without what stands before </think>.

    Raises:
      OSError: if there is none in time.
      ValueError: if it has another form.
    """
    body = {
      "model": self.model,
      "messages": [{"role": "user", "content": prompt}],
      "temperature": 0.0,
      "max_tokens": self.tokens,
    }
    reply = post(self.url, body, seconds=self.seconds)
    try:
      text = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
      raise ValueError(f"no chat completion: {str(reply)[:200]}") from error
    return str(text).rpartition("</think>")[2]
