"""`rl-jax generate`: what a language policy says to prompts."""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from rl_jax.launch.files import FileError
from rl_jax.launch.texts import printable

if TYPE_CHECKING:
  from collections.abc import Iterable, Iterator, Sequence

  from rl_jax.launch.policies import Policy
  from rl_jax.models.tokenizer import Tokenizer
  from rl_jax.sampling.autoregressive import Autoregressive
  from rl_jax.sampling.generate import Generated

__all__ = ["add_parser"]

_LENGTH = 128
_SMALLEST = 16  # columns of the smallest program

_EXAMPLES = """\
examples:
  rl-jax generate runs/chain_sum_grpo-0123456789ab --prompt "12 + 30 ="
  rl-jax generate smollm2 --chat --prompt "Name three rivers." --greedy
  rl-jax generate ./SmolLM2-360M --file prompts.txt --samples 4 --json
  printf '2 + 2 =\\n3 + 3 =\\n' | rl-jax generate smollm2 --stop $'\\n'

A prompt is put to the model as the run puts it, to other models as it is. A
work directory answers as its evaluations do (length, temperature, ends) unless
an option says otherwise; other models end with their end token. Answers come
in the order in which they are done.
"""


class _Answer(NamedTuple):
  """What is shown of a response."""

  text: str
  tokens: int
  log_prob: float
  ended: bool


def add_parser(commands: Any) -> None:
  """Adds the command to those of `rl-jax`.

  Args:
    commands: what `add_subparsers` returned.
  """
  command = commands.add_parser(
    "generate",
    help="let a trained or public language model go on from prompts",
    description="Prints what a language model says to prompts.",
    epilog=_EXAMPLES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  command.set_defaults(run=_run)
  add_checkpoint(command)
  given = command.add_argument_group(
    "prompts", "Without any, one per line of standard input."
  )
  given.add_argument(
    "--prompt", action="append", metavar="TEXT", help="may be repeated"
  )
  given.add_argument(
    "--file",
    metavar="FILE",
    help="one per line; in FILE.jsonl, objects with a prompt: text or messages",
  )
  given.add_argument(
    "--jsonl",
    action="store_true",
    help="lines are JSON objects, of other files and standard input too",
  )
  how = given.add_mutually_exclusive_group()
  how.add_argument(
    "--chat",
    action="store_true",
    help="put prompts as messages, in the model's chat template",
  )
  how.add_argument(
    "--raw",
    action="store_true",
    help="put prompts as they are, whatever the run does",
  )
  drawn = command.add_argument_group("answers")
  for name, letter, kind, what in (
    ("length", "N", int, f"most tokens of an answer (default: {_LENGTH})"),
    ("temperature", "T", float, "divides the logits (default: 1)"),
    ("top-k", "K", int, "draw from the K likeliest tokens"),
    ("top-p", "P", float, "draw from the likeliest ones that add up to P"),
    ("min-p", "P", float, "draw from those of P times the likeliest one's"),
  ):
    drawn.add_argument(f"--{name}", type=kind, metavar=letter, help=what)
  drawn.add_argument(
    "--greedy", action="store_true", help="take the likeliest token"
  )
  drawn.add_argument(
    "--stop",
    action="append",
    default=[],
    metavar="TEXT",
    help="ends an answer and is left out of it; may be repeated",
  )
  drawn.add_argument(
    "--samples",
    type=int,
    default=1,
    metavar="N",
    help="answers to each prompt (default: 1)",
  )
  drawn.add_argument(
    "--seed", type=int, default=0, metavar="N", help="default: 0"
  )
  drawn.add_argument(
    "--batch",
    type=int,
    default=8,
    metavar="N",
    help="prompts answered at once (default: 8)",
  )
  drawn.add_argument(
    "--json",
    action="store_true",
    help="a JSON object per line: prompt, completion, ended, log_prob (nats,"
    " of the whole answer), tokens; without it, what would control a terminal"
    " is shown as an escape",
  )


def add_checkpoint(command: argparse.ArgumentParser) -> None:
  """Adds the arguments that name a policy, see `policies.load_policy`.

  Args:
    command: of `rl-jax`.
  """
  command.add_argument(
    "checkpoint",
    metavar="CHECKPOINT",
    help="work directory of a run, Hugging Face folder, GGUF file, or smollm2",
  )
  command.add_argument(
    "--step",
    type=int,
    metavar="N",
    help="checkpoint of the run (default: the newest)",
  )
  command.add_argument(
    "--dtype",
    choices=("float32", "bfloat16"),
    default="float32",
    help="precision of the weights (default: float32)",
  )


def _run(parsed: argparse.Namespace) -> int:
  import jax

  from rl_jax.launch.policies import find_policy, load_policy
  from rl_jax.sampling.generate import generate

  find_policy(parsed.checkpoint)  # Before anybody types a prompt.
  prompts = _prompts(parsed, sys.stdin)

  policy = load_policy(parsed.checkpoint, step=parsed.step, dtype=parsed.dtype)
  sampler = _sampler(parsed, policy)
  ids = _ids(parsed, policy, prompts)
  room = policy.model.context - sampler.length
  _check_room(ids, room, sampler.length, policy.model.context)
  answers = generate(
    policy.model,
    policy.params,
    dataclasses.replace(policy.tokenizer, backend=_Cut(policy.tokenizer, ids)),
    [f"{number}" for number in range(len(ids))],
    sampler,
    key=jax.random.key(parsed.seed),
    samples=parsed.samples,
    buckets=_buckets(room),
    batch=min(parsed.batch, len(prompts)),
  )
  several = len(prompts) * parsed.samples > 1
  for one in answers:
    answer = _until_stop(one, policy.tokenizer, parsed.stop)
    if parsed.json:
      said = _as_json(prompts[one.item], one, answer)
    else:
      head = _head(prompts, one, parsed.samples) if several else ""
      said = f"{head}{printable(answer.text)}\n{'\n' if several else ''}"
    sys.stdout.write(said)
    sys.stdout.flush()
  return 0


@dataclasses.dataclass(frozen=True)
class _Cut:
  """What cuts texts, for texts that are numbers of prompts cut before."""

  tokenizer: Tokenizer
  ids: Sequence[Sequence[int]]

  def __getattr__(self, name: str) -> Any:
    return getattr(self.tokenizer.backend, name)

  def encode(self, text: str, *, add_special_tokens: bool) -> Any:
    del add_special_tokens
    return types.SimpleNamespace(ids=self.ids[int(text)])


def _sampler(parsed: argparse.Namespace, policy: Policy) -> Autoregressive:
  """As the run samples, and as the options say."""
  from rl_jax.sampling.autoregressive import Autoregressive

  tokenizer, base = policy.tokenizer, policy.sampler
  if base is None:
    eos = tokenizer.eos
    end = () if eos is None else (tokenizer.id(eos),)
    base = Autoregressive(length=_LENGTH, end=end)
  names = ("length", "temperature", "top_k", "top_p", "min_p")
  changes = {
    name: value
    for name in names
    if (value := getattr(parsed, name)) is not None
  }
  # An answer ends where its text does; ids only save the tokens after that.
  stop = [tuple(tokenizer.encode(text)) for text in parsed.stop if text]
  if len(stop) < len(parsed.stop):
    raise FileError("--stop needs a text that is not empty")
  both = {"top_p", "min_p"} <= changes.keys()
  return dataclasses.replace(
    base,
    **changes,
    greedy=parsed.greedy or (base.greedy and parsed.temperature is None),
    stop=(*base.stop, *stop),
    entropy=False,
    min_p_first=False if both else base.min_p_first,
  )


def _ids(
  parsed: argparse.Namespace, policy: Policy, prompts: Sequence[Any]
) -> list[list[int]]:
  from rl_jax.data.text_wording import Chat, Plain

  wording = policy.wording
  if parsed.chat or parsed.raw:
    wording = Chat() if parsed.chat else Plain()
  found = []
  for number, prompt in enumerate(prompts, start=1):
    try:
      found.append(wording.ids(policy.tokenizer, prompt))
    except ValueError as error:
      raise FileError(f"prompt {number}: {error}") from error
  return found


def _check_room(
  ids: Sequence[Sequence[int]], room: int, length: int, context: int
) -> None:
  if room < 1:
    raise FileError(
      f"answers of {length} tokens leave no room for a prompt in the model's"
      f" context of {context}: lower --length"
    )
  for number, own in enumerate(ids, start=1):
    if not own:
      raise FileError(f"prompt {number} is empty")
    if len(own) > room:
      raise FileError(
        f"prompt {number} has {len(own)} tokens; the model's context of"
        f" {context} leaves {room} beside an answer of --length {length}"
      )


def _buckets(room: int) -> list[int]:
  """Numbers of columns that prompts are padded to, each a program."""
  found = [_SMALLEST]
  while found[-1] < room:
    found.append(2 * found[-1])
  return [*found[:-1], room]


def _until_stop(
  one: Generated, tokenizer: Tokenizer, stop: Sequence[str]
) -> _Answer:
  """A response up to where one of the texts stands in it."""
  found = [place for text in stop if (place := one.text.find(text)) >= 0]
  tokens, ended = len(one.token), one.ended
  text = one.text
  if found:
    text, ended = text[: min(found)], True

    def has_one(count: int) -> bool:
      begun = tokenizer.decode(one.token[:count])
      return any(own in begun for own in stop)

    tokens = bisect.bisect_left(range(tokens), True, key=has_one)
  log_prob = float(one.log_prob[:tokens].sum(dtype=float))
  return _Answer(text, tokens, log_prob, ended)


def _as_json(prompt: Any, one: Generated, answer: _Answer) -> str:
  said = {
    "item": one.item,
    "sample": one.sample,
    "prompt": prompt,
    "completion": answer.text,
    "ended": answer.ended,
    "log_prob": answer.log_prob,
    "tokens": answer.tokens,
  }
  return json.dumps(said) + "\n"


def _head(prompts: Sequence[Any], one: Generated, samples: int) -> str:
  prompt = prompts[one.item]
  if not isinstance(prompt, str):
    prompt = prompt[-1]["content"]
  which = f"prompt {one.item + 1} of {len(prompts)}"
  if samples > 1:
    which += f", answer {one.sample + 1} of {samples}"
  shown = printable(prompt if len(prompt) <= 60 else f"{prompt[:60]}…", keep="")
  return f"--- {which}: {shown}\n"


def _prompts(parsed: argparse.Namespace, stdin: TextIO) -> list[Any]:
  """Texts or messages, from wherever they are given."""
  found: list[Any] = list(parsed.prompt or ())
  if parsed.file is not None:
    path = Path(parsed.file)
    if not path.is_file():
      raise FileError(f"there is no file {path}")
    lines = _lines(path.read_bytes(), f"{path}")
    as_json = parsed.jsonl or path.suffix == ".jsonl"
    found += _from_lines(lines, f"{path}", as_json=as_json)
  if parsed.prompt is None and parsed.file is None:
    if stdin.isatty():
      print("prompts, one per line; end with Ctrl-D", file=sys.stderr)
    lines = _lines(stdin.buffer.read(), "standard input")
    found += _from_lines(lines, "standard input", as_json=parsed.jsonl)
  if not found:
    place = parsed.file or "standard input"
    raise FileError(f"there are no prompts in {place}")
  return found


def _lines(content: bytes, name: str) -> list[str]:
  try:
    return content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
  except UnicodeDecodeError as error:
    raise FileError(f"{name} is no UTF-8: {error}") from error


def _from_lines(
  lines: Iterable[str], name: str, *, as_json: bool
) -> Iterator[Any]:
  from rl_jax.data.text_wording import as_text

  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    if not as_json:
      yield line
      continue
    try:
      prompt = json.loads(line)["prompt"]
      yield as_text(prompt, "the prompt")
    except (ValueError, KeyError, TypeError) as error:
      raise FileError(
        f"{name}, line {number} is no JSON object with a prompt: {error}"
      ) from error
