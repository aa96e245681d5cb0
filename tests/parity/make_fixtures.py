"""Makes tests/parity/fixtures anew; see README.md beside this file.

cd tests && PYTHON -m parity.make_fixtures PEER [--source FOLDER --commit ID]

PYTHON is the interpreter of the environment that holds the peer.
"""

from __future__ import annotations

import argparse
import pathlib

from parity.batch import make_batch, make_pairs
from parity.sources import module, save

PEERS = (
  "easydel",
  "marin",
  "nemo",
  "open_instruct",
  "openrlhf",
  "rlax",
  "trl",
  "tunix",
  "verl",
)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("peer", choices=("inputs", *PEERS))
  parser.add_argument(
    "--source",
    type=pathlib.Path,
    help="folder of the peer's repository, for those that are no package",
  )
  parser.add_argument("--commit", help="what that folder is a copy of")
  given = parser.parse_args()
  if given.peer == "inputs":
    save("inputs", {"made by": "batch.py"}, make_batch() | make_pairs())
    return
  module(f"parity.peer_{given.peer}").main(given.source, given.commit)


if __name__ == "__main__":
  main()
