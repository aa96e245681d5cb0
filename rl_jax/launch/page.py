"""How a report looks, and the pieces that its sections are made of."""

from __future__ import annotations

import base64
import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from collections.abc import Sequence
  from pathlib import Path

__all__ = ["STYLE", "figure", "section", "slug", "soft"]

# Colours are those of `figures.LIGHT` and `figures.DARK`, whose pictures lie
# on this page.
STYLE = """
:root {
  --paper: #ffffff; --ink: #1f2328; --quiet: #57606a; --line: #d5d9de;
  --good: #0a6b50; --good-back: #e3f5ee; --bad: #a33a00; --bad-back: #fdeee3;
  --right: #0b7fb8; --wrong: #e0661a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16191d; --ink: #e4e7eb; --quiet: #a2abb5; --line: #3a4048;
    --good: #6fdcb5; --good-back: #10332a; --bad: #ffb07f;
    --bad-back: #3d2413; --right: #45b4ea; --wrong: #ff8f47;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem clamp(0.75rem, 3vw, 2.5rem) 3rem;
  max-width: 96rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.6rem; margin: 0.5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
p { margin: 0.4rem 0 0.8rem; }
.verdict {
  padding: 0.6rem 0.9rem; border-left: 0.35rem solid var(--line);
  font-size: 1.1rem;
}
.verdict.good { border-color: var(--good); background: var(--good-back); }
.verdict.bad { border-color: var(--bad); background: var(--bad-back); }
table { border-collapse: collapse; }
th, td {
  padding: 0.3rem 1rem 0.3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line);
}
th { font-weight: 600; }
thead th { color: var(--quiet); font-weight: 400; }
td { font-variant-numeric: tabular-nums; }
.bands { overflow-wrap: normal; }
.good .mark { color: var(--good); }
.bad .mark { color: var(--bad); font-weight: 600; }
.quiet { color: var(--quiet); font-size: 0.85rem; }
figure { margin: 0; min-width: 0; }
img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--quiet); font-size: 0.85rem; }
.pair {
  display: grid; gap: 1.5rem; align-items: start; max-width: 72rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr));
}
.pair figure { max-width: 36rem; }
.pair + p { margin-top: 1rem; }
.curves {
  display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr));
}
.answers > li { margin: 0 0 1.2rem; }
.answers { list-style: none; margin: 0; padding: 0; max-width: 72rem; }
.answers h3 {
  margin: 0 0 0.3rem; font-size: 0.95rem; font-weight: 600;
  border-top: 1px solid var(--line); padding-top: 0.5rem;
}
.answers h3.better { color: var(--good); }
.answers h3.worse { color: var(--bad); }
.answers .pair { gap: 0.4rem 1.5rem; }
.answers .pair > div { min-width: 0; }
.answers p { margin: 0; color: var(--quiet); font-size: 0.85rem; }
.text {
  margin: 0.1rem 0 0.4rem; padding: 0.35rem 0.6rem; white-space: pre-wrap;
  border-left: 0.2rem solid var(--line);
  font: 0.9rem/1.45 ui-monospace, monospace; overflow-wrap: anywhere;
}
.text i { color: var(--quiet); font-style: normal; }
.text.better { border-color: var(--good); background: var(--good-back); }
.text.worse { border-color: var(--bad); background: var(--bad-back); }
.legend span {
  white-space: nowrap; padding: 0 0.3rem; border: 3px solid; border-radius: 2px;
}
.legend .right { border-color: var(--right); }
.legend .wrong { border-color: var(--wrong); }
dl {
  display: grid; gap: 0.3rem 1.2rem; margin: 0;
  grid-template-columns: minmax(6rem, max-content) 1fr;
}
dt { color: var(--quiet); }
dd { margin: 0; }
summary { cursor: pointer; font-size: 1.15rem; font-weight: 600; }
details { margin-top: 2rem; }
.values { font-size: 0.9rem; width: 100%; table-layout: fixed; }
@media (max-width: 30rem) {
  th, td { padding-right: 0.5rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 0.6rem; }
}
"""


def section(heading: str, content: str) -> str:
  """A part of the page.

  Args:
    heading: its title, HTML.
    content: what follows, HTML.

  Returns:
    HTML.
  """
  return f"<section><h2>{heading}</h2>{content}</section>"


def figure(path: Path, both: Sequence[bytes], *, alt: str, caption: str) -> str:
  """A figure that follows the page's theme; the light one is a file too.

  Args:
    path: where the light one is written.
    both: PNGs for a light and for a dark page.
    alt: what is to be seen, for those who do not see it; text.
    caption: what stands below; text.

  Returns:
    HTML.
  """
  path.write_bytes(both[0])
  light, dark = (
    "data:image/png;base64," + base64.b64encode(png).decode() for png in both
  )
  return (
    "<figure><picture>"
    f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    f'<img src="{light}" alt="{html.escape(alt)}"></picture>'
    f"<figcaption>{soft(caption)}</figcaption></figure>"
  )


def soft(text: str) -> str:
  """A text as HTML that may break after the separators of long names.

  Args:
    text: any.

  Returns:
    HTML.
  """
  # Not within a number.
  return re.sub(r"([/_,]|\.(?!\d))(?=\S)", r"\1<wbr>", html.escape(text))


def slug(text: str) -> str:
  """A title as a name of a file.

  Args:
    text: any.

  Returns:
    Lower-case letters, digits and underscores.
  """
  return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
