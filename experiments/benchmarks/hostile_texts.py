"""Completions that want to hang, crash or escape; a function of the seed.

PORT and CANARY in a text stand for a trap; see `hostile_completions`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = [
  "DOCUMENTS",
  "FORKS",
  "FORMULAS",
  "PROGRAMS",
  "TEXTS",
  "Make",
  "generated",
]

Make = str | Callable[[random.Random], str]


def _nested(rng: random.Random, opening: str, core: str, closing: str) -> str:
  depth = int(10 ** rng.uniform(1, 4.5))
  closed = depth if rng.random() < 0.7 else rng.randrange(depth)
  return opening * depth + core + closing * closed


def _noise(rng: random.Random) -> str:
  """Any code points, lone surrogates and controls included."""
  top = rng.choice((0x80, 0x3000, 0x110000))
  return "".join(chr(rng.randrange(top)) for _ in range(rng.randrange(400)))


def _tower(rng: random.Random) -> str:
  base, height = rng.randrange(2, 99), rng.randrange(3, 9)
  if rng.random() < 0.5:
    return "**".join([f"{base}"] * height)
  return f"{base}^{{" * height + f"{base}" + "}" * height


TEXTS: tuple[Make, ...] = (
  _noise,
  "",
  lambda rng: "9" * int(10 ** rng.uniform(1, 5.5)),
  lambda rng: f"answer is 1e{rng.randrange(10**9)}",
  lambda rng: f"\\boxed{{{'7' * rng.randrange(5000, 60000)}}}",
  lambda rng: "a" * rng.randrange(10000, 60000) + "!",
  lambda rng: "\\boxed{" * rng.randrange(1000, 20000),
  lambda rng: "$" * rng.randrange(1000, 3000),
  lambda rng: "answer " * rng.randrange(100, 2000),
  lambda rng: "\\(" * rng.randrange(100, 3000) + "\\)" * rng.randrange(9),
  lambda rng: " \t" * rng.randrange(1000, 40000) + "x",
  lambda rng: "```\n" * rng.randrange(1000, 20000),
  lambda rng: "*" * rng.randrange(1000, 40000) + "a",
  lambda rng: "[" * rng.randrange(1000, 40000) + "a",
  lambda rng: "<<" * rng.randrange(1000, 20000) + "a",
  lambda rng: "a.b!? " * rng.randrange(1000, 9000),
  lambda rng: "<think>" * rng.randrange(1000, 9000) + "</think>",
)

FORMULAS: tuple[Make, ...] = (
  lambda rng: f"\\boxed{{{_tower(rng)}}}",
  lambda rng: f"The answer is {_tower(rng)}",
  lambda rng: f"\\boxed{{{rng.randrange(10**6, 10**9)}!}}",
  lambda rng: f"\\boxed{{\\binom{{{rng.randrange(10**9)}}}{{1234567}}}}",
  lambda rng: f"\\boxed{{{_nested(rng, chr(92) + 'frac{', '1', '}{2}')}}}",
  lambda rng: f"\\boxed{{{_nested(rng, chr(92) + 'sqrt{', 'x', '}')}}}",
  lambda rng: f"\\boxed{{{_nested(rng, '(', 'x', ')')}}}",
  f"\\boxed{{{'+'.join(f'x_{i}^2' for i in range(300))}}}",
  lambda rng: f"\\boxed{{(x+1)^{{{rng.randrange(10**4, 10**7)}}}}}",
  lambda rng: f"\\boxed{{\\sum_{{n=1}}^{{{rng.randrange(10**9)}}} n^n}}",
  "\\boxed{\\int e^{x^x} \\sin(x^x) dx}",
  lambda rng: f"\\boxed{{{_noise(rng)[:200]}}}",
  "\\boxed{\\input{/etc/passwd}}",
  "answer: __import__('os').system('touch CANARY')",
  "answer: open(chr(47)+chr(120),'w')",
)

DOCUMENTS: tuple[Make, ...] = (
  lambda rng: _nested(rng, "[", "1", "]"),
  lambda rng: _nested(rng, '{"a":', "1", "}"),
  lambda rng: '"' + '\\"' * rng.randrange(1000, 30000),
  lambda rng: '"' * rng.randrange(1000, 30000),
  "[1e999]",
  "NaN",
  lambda rng: "9" * rng.randrange(4000, 9000),
  lambda rng: "-" * rng.randrange(1, 9000),
  '{"a":1,"a":2}',
  '["\\ud800"]',
  lambda rng: "<tool_call>" * rng.randrange(1, 5000),
  lambda rng: "<tool_call>" + _nested(rng, "[", "1", "]") + "</tool_call>",
  lambda rng: "&lol9;".join(
    f'<!ENTITY lol{i} "{"&lol;" * 10}">' for i in range(rng.randrange(2, 30))
  ),
)

# Each would set `stolen` if it came through; nothing else passes the test.
PROGRAMS: tuple[Make, ...] = (
  "while True: pass",
  lambda rng: f"x = [0] * {10 ** rng.randrange(9, 15)}",
  "x = []\nwhile True: x.append('a' * 100000)",
  lambda rng: f"x = {_tower(rng)[:100] or 1}",
  lambda rng: f"x = 1 << (1 << {rng.randrange(30, 60)})",
  "def f(): return f()\nf()",
  lambda rng: _nested(rng, "(", "1", ")"),
  lambda rng: _nested(rng, "-", "1", ""),
  _noise,
  "import os\nos._exit(0)",
  "import sys\nsys.exit(0)",
  "raise SystemExit(0)",
  "exit()",
  "stolen = open('CANARY').read()",
  "open('CANARY', 'w').write('x')\nstolen = 1",
  "stolen = open('/etc/shadow').read()",
  "import os\nstolen = os.environ['HOME']",
  ("import socket\nstolen = socket.create_connection(('127.0.0.1', PORT), 1)"),
  (
    "import urllib.request\n"
    "stolen = urllib.request.urlopen('http://127.0.0.1:PORT', timeout=1)"
  ),
  ("import subprocess\nstolen = subprocess.check_output(['cat', 'CANARY'])"),
  "import ctypes\nctypes.string_at(0)",
  "import signal, os\nos.kill(os.getppid(), signal.SIGKILL)",
  "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
  "while True: print('x' * 10000)",
  "a = 'x' * 10\nfor i in range(60): a = a + a",
  "sum(range(10 ** 14))",
)

# At most 64 processes, and only where a limit of 8 holds for a user who is
# not root.
FORKS: tuple[Make, ...] = (
  (
    "import os, time\n"
    "for i in range(64):\n"
    "  if os.fork() == 0: time.sleep(1); os._exit(0)\n"
    "stolen = 1"
  ),
  (
    "import threading, time\n"
    "for i in range(64):\n"
    "  threading.Thread(target=time.sleep, args=(1,)).start()\n"
    "stolen = 1"
  ),
)


def generated(kinds: tuple[Make, ...], count: int, seed: int) -> list[str]:
  """As many completions as asked for, every kind in turn.

  Args:
    kinds: what makes them, or what they are.
    count: how many.
    seed: what they are a function of.

  Returns:
    The completions.
  """
  rng = random.Random(seed)
  found = []
  for index in range(count):
    make = kinds[index % len(kinds)]
    found.append(make if isinstance(make, str) else make(rng))
  return found
