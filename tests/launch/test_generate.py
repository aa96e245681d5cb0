"""`rl-jax generate`: prompts in, answers out, every refusal one line."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import data
from rl_jax.launch import main as command
from rl_jax.launch import policies
from rl_jax.launch.policies import Policy
from rl_jax.models import Characters
from rl_jax.sampling import Autoregressive
from sampling.chains import Chain, fixed

pytestmark = pytest.mark.slow

pytest.importorskip("tokenizers", reason="needs the extra `language`")

LETTERS = Characters(alphabet="abcdefgh", eos="<end>")


@pytest.fixture
def alphabet(monkeypatch) -> dict:
  """A model that says the alphabet; `generate x` loads it.

  The end is id 8. After the last letter of a prompt it goes on for certain.
  """
  asked = {}
  policy = Policy(
    model=Chain(vocabulary=9, context=20),
    params=fixed(0, 1, 2, 3, 4, 5, 6, 7, 8),
    tokenizer=LETTERS.load(),
    wording=data.Plain(),
    sampler=None,
  )

  def load(name, *, step, dtype):
    asked.update(name=name, step=step, dtype=dtype)
    return asked.get("policy", policy)

  monkeypatch.setattr(policies, "find_policy", lambda name: name)
  monkeypatch.setattr(policies, "load_policy", load)
  return asked | {"asked": asked, "policy": policy}


def said(capsys, *arguments: str) -> str:
  code = command.main(["generate", "x", *arguments])
  found = capsys.readouterr()
  assert code == 0, found.err
  return found.out


def refused(capsys, *arguments: str) -> str:
  assert command.main(["generate", *arguments]) == 1
  found = capsys.readouterr()
  assert not found.out
  assert found.err.startswith("rl-jax: ")
  assert found.err.count("\n") == 1
  return found.err


def lines(text: str) -> list[dict]:
  return [json.loads(line) for line in text.splitlines()]


def pipe(monkeypatch, content: bytes) -> None:
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_one_answer_is_printed_alone(alphabet, capsys) -> None:
  assert said(capsys, "--prompt", "abc", "--length", "8") == "defgh\n"
  assert alphabet["asked"] == {"name": "x", "step": None, "dtype": "float32"}
  assert said(capsys, "--prompt", "h", "--length", "8", "--step", "3") == "\n"
  assert alphabet["asked"]["step"] == 3


def test_several_answers_say_whose_they_are(alphabet, capsys) -> None:
  found = said(
    capsys,
    *[
      "--prompt",
      "a",
      "--prompt",
      "g",
      "--length",
      "4",
      "--samples",
      "2",
      "--batch",
      "1",
    ],
  )
  assert found == (
    "--- prompt 1 of 2, answer 1 of 2: a\nbcde\n\n"
    "--- prompt 1 of 2, answer 2 of 2: a\nbcde\n\n"
    "--- prompt 2 of 2, answer 1 of 2: g\nh\n\n"
    "--- prompt 2 of 2, answer 2 of 2: g\nh\n\n"
  )


def test_json_lines_have_what_a_program_wants(alphabet, capsys) -> None:
  found = lines(
    said(
      capsys, *["--prompt", "a", "--prompt", "fg", "--length", "3", "--json"]
    )
  )
  assert found == [
    {
      "item": item,
      "sample": 0,
      "prompt": prompt,
      "completion": completion,
      "ended": ended,
      "log_prob": 0.0,
      "tokens": tokens,
    }
    for item, prompt, completion, ended, tokens in (
      (0, "a", "bcd", False, 3),
      (1, "fg", "h", True, 2),
    )
  ]


def test_a_stop_text_ends_an_answer_and_is_left_out(alphabet, capsys) -> None:
  options = [
    "--prompt",
    "a",
    "--length",
    "8",
    "--json",
    "--stop",
    "ef",
    "--stop",
    "gh",
  ]
  (found,) = lines(said(capsys, *options))
  assert (found["completion"], found["ended"]) == ("bcd", True)
  assert found["tokens"] == 5  # The stop itself was said too.


def test_what_stands_behind_a_stop_text_in_a_token_goes(alphabet) -> None:
  """Ids of a stop text need not be those in which a model writes it."""
  from rl_jax.launch.generate import _until_stop
  from rl_jax.sampling import Generated

  pieces = ["one", " two\nth", "ree"]
  tokenizer = types.SimpleNamespace(
    decode=lambda ids: "".join(pieces[n] for n in ids)
  )
  one = Generated(
    item=0,
    sample=0,
    text="".join(pieces),
    token=(0, 1, 2),
    log_prob=np.array([-1.0, -2.0, -4.0], np.float32),
    ended=False,
  )
  answer = _until_stop(one, tokenizer, ["\n", "ree"])
  assert answer == ("one two", 2, -3.0, True)
  assert _until_stop(one, tokenizer, ["x"]) == ("".join(pieces), 3, -7.0, False)


def test_what_controls_a_terminal_is_shown(alphabet, capsys) -> None:
  strange = Characters(alphabet="ab\x1b\u202e\nfgh")
  policy = alphabet["policy"]._replace(tokenizer=strange.load())
  alphabet["asked"]["policy"] = policy
  found = said(capsys, *["--prompt", "a", "--length", "5"])
  assert found == "b\\x1b\\u202e\nf\n"
  (line,) = lines(said(capsys, *["--prompt", "a", "--length", "5", "--json"]))
  assert line["completion"] == "b\x1b\u202e\nf"


def test_prompts_come_from_files_and_standard_input(
  alphabet, capsys, monkeypatch, tmp_path
) -> None:
  (tmp_path / "p.txt").write_bytes(
    b"\xef\xbb\xbfa\r\n\n bc\n".replace(b" ", b"")
  )
  talk = [{"role": "user", "content": "g"}]
  rows = [{"prompt": "d", "more": 1}, {"prompt": talk}]
  (tmp_path / "p.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))

  def prompts(*arguments):
    options = ("--length", "1", "--batch", "1", "--json")
    found = lines(said(capsys, *arguments, *options))
    return [line["prompt"] for line in found]

  pipe(monkeypatch, b"e\nf\n")
  assert prompts() == ["e", "f"]
  pipe(monkeypatch, b'{"prompt": "h"}')
  assert prompts("--jsonl") == ["h"]
  assert prompts("--file", f"{tmp_path / 'p.txt'}") == ["a", "bc"]
  assert prompts("--prompt", "h", "--file", f"{tmp_path / 'p.jsonl'}") == [
    "h",
    "d",
    talk,
  ]


def test_draws_depend_on_the_seed_and_not_on_company(alphabet, capsys) -> None:
  params = {"table": jnp.zeros((9, 9))}
  alphabet["asked"]["policy"] = alphabet["policy"]._replace(params=params)

  def answers(*arguments):
    options = ("--length", "6", "--json", "--samples", "2", *arguments)
    return {
      (line["item"], line["sample"]): line["completion"]
      for line in lines(said(capsys, *options))
    }

  alone = answers("--prompt", "a")
  both = answers("--prompt", "a", "--prompt", "b", "--batch", "1")
  assert alone.items() <= both.items()
  assert answers("--prompt", "a", "--seed", "1") != alone
  greedy = answers("--prompt", "a", "--greedy")
  assert set(greedy.values()) == {"aaaaaa"}


def test_a_run_says_how_its_policy_is_asked(alphabet, capsys) -> None:
  """Its wording and its sampler, unless an option says otherwise."""
  chat = dataclasses.replace(
    LETTERS, template="{% for m in messages %}{{ m.content }}e{% endfor %}"
  )
  alphabet["asked"]["policy"] = alphabet["policy"]._replace(
    wording=data.Plain(prefill="b"),
    tokenizer=chat.load(),
    sampler=Autoregressive(length=2, stop=((3,),), greedy=True, top_p=0.5),
  )
  assert said(capsys, "--prompt", "a") == "cd\n"
  assert said(capsys, "--prompt", "a", "--raw") == "bc\n"
  assert said(capsys, "--prompt", "a", "--chat") == "fg\n"
  drawn = "--temperature 0.5 --top-k 2 --min-p 0.5 --top-p 0.25 --length 3"
  options = ("--prompt", "d", "--raw", *drawn.split())
  assert said(capsys, *options) == "efg\n"


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--prompt", "xa"], "prompt 1: the alphabet lacks ['x']"),
    (["--prompt", "a", "--prompt", "", "--length", "2"], "prompt 2 is empty"),
    (["--prompt", "a" * 14, "--length", "7"], "prompt 1 has 14 tokens; the"),
    (["--prompt", "a", "--length", "20"], "leave no room for a prompt"),
    (["--prompt", "a", "--length", "0"], "length must be at least 1, got 0"),
    (["--prompt", "a", "--length", "2", "--temperature", "0"], "temperature"),
    (["--prompt", "a", "--length", "2", "--samples", "0"], "samples must be"),
    (["--prompt", "a", "--length", "2", "--batch", "0"], "batch and samples"),
    (["--prompt", "a", "--length", "2", "--stop", ""], "--stop needs a text"),
    (["--prompt", "a", "--length", "2", "--chat"], "no chat template"),
    (["--file", "nowhere"], "there is no file nowhere"),
    ([], "there are no prompts in standard input"),
  ],
)
def test_what_cannot_be_asked_is_said(
  alphabet, capsys, monkeypatch, arguments, message
) -> None:
  pipe(monkeypatch, b" \n\n")
  assert message in refused(capsys, "x", *arguments)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"\xff", "is no UTF-8"),
    (b'{"prompt": "a"}\n{', "line 2 is no JSON object with a prompt"),
    (b'{"text": "a"}', "line 1 is no JSON object with a prompt"),
    (b'["a"]', "line 1 is no JSON object with a prompt"),
    (b'{"prompt": 3}', "the prompt must be text, or messages"),
    (b"", "there are no prompts in"),
  ],
)
def test_what_is_no_prompt_is_named(
  alphabet, capsys, tmp_path, content, message
) -> None:
  (tmp_path / "p.jsonl").write_bytes(content)
  assert message in refused(capsys, "x", "--file", f"{tmp_path / 'p.jsonl'}")


def test_a_missing_extra_is_one_line(alphabet, capsys, monkeypatch) -> None:
  def load(name, **_):
    raise ImportError("needs jinja2: pip install rl-jax[language]")

  monkeypatch.setattr(policies, "load_policy", load)
  assert "[language]" in refused(capsys, "x", "--prompt", "a")


def test_help_has_examples(capsys) -> None:
  for name in ("export", "generate"):
    with pytest.raises(SystemExit) as caught:
      command.main([name, "--help"])
    assert not caught.value.code
    found = capsys.readouterr().out
    assert f"rl-jax {name} smollm2" in found
    assert "CHECKPOINT" in found
