"""Models served elsewhere, by a real server in this process."""

from __future__ import annotations

import http.server
import json
import threading

import numpy as np
import pytest

pytest.importorskip(
  "tokenizers", reason="needs the extra `language` (tokenizers)"
)

from experiments.process_rewards.clip_delta_full import ServedScores
from experiments.process_rewards.tpgrpo_server import ChatServer, post
from rewards import written
from rl_jax import data, models
from rl_jax.environments import Items

pytestmark = pytest.mark.slow

WORDS = models.Characters(alphabet="abq\n")


class Task:
  """Questions "q" and "qq"."""

  rows = 2
  shuffle = False

  def source(self):
    return Items(2, lambda item: ("q" * (item + 1), "b"))


DATA = data.Prompts(task=Task(), vocabulary=WORDS, length=2)


@pytest.fixture
def served():
  """An address, what it was asked, and what it says next: status and text."""
  asked, replies = [], []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      size = int(self.headers["Content-Length"])
      asked.append(json.loads(self.rfile.read(size)))
      status, text = replies.pop(0)
      self.send_response(status)
      self.end_headers()
      self.wfile.write(text.encode())

    def log_message(self, *given):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield f"http://127.0.0.1:{server.server_port}/", asked, replies
  server.shutdown()
  thread.join()
  server.server_close()


def rollouts():
  """Three lines, of which the last has no end; one line; a cut one; none."""
  return written.rollouts(
    *map(WORDS.load().encode, ("ab\na\nbb", "a", "a\nb", "")),
    item=[0, 1, 1, 0],
    ended=[True, True, False, True],
    time=8,
  )


def test_lines_are_scored_and_tokens_know_their_line(served):
  url, asked, replies = served
  replies.append((200, json.dumps({"scores": [[0.1, 0.2, 0.3], [1], [0], []]})))
  found = ServedScores(url=url, steps=4).bind(DATA)(rollouts())
  assert asked == [
    {
      "rows": [
        {"question": "q", "steps": ["ab\n", "a\n", "bb"]},
        {"question": "qq", "steps": ["a"]},
        {"question": "qq", "steps": ["a\n"]},
        {"question": "q", "steps": []},
      ]
    }
  ]
  assert found["step"].tolist() == [
    [0, 0, 0, 1, 1, 2, 2, -1],
    [0] + [-1] * 7,
    [0, 0] + [-1] * 6,
    [-1] * 8,
  ]
  expected = np.zeros((4, 4))
  expected[0, :3], expected[1, 0] = [0.1, 0.2, 0.3], 1
  np.testing.assert_allclose(found["step_score"], expected, rtol=1e-6)
  shapes = ServedScores(url=url, steps=4).shapes(8)
  for name, (shape, dtype) in shapes.items():
    assert found[name].shape[1:] == shape, name
    assert found[name].dtype == dtype, name


def test_a_server_that_fails_is_asked_again_and_then_stops_the_run(
  served, caplog
):
  url, asked, replies = served
  good = json.dumps({"scores": [[0.1, 0.2, 0.3], [1], [0], []]})
  replies += [(500, "no"), (200, "no JSON"), (200, good)]
  note = ServedScores(url=url, steps=4).bind(DATA)
  assert note(rollouts())["step_score"][0, 2] == np.float32(0.3)
  assert len(asked) == 3
  assert asked[0] == asked[2]
  assert len(caplog.records) == 2
  replies += [(500, "no")] * 3
  with pytest.raises(OSError, match="500"):
    note(rollouts())


@pytest.mark.parametrize(
  ("scores", "message"),
  [
    ([[0.1, 0.2], [1], [0], []], "row 0"),
    ([[0.1, 0.2, 7.5], [1], [0], []], "row 0"),
  ],
)
def test_scores_that_are_missing_or_logits_are_refused(served, scores, message):
  url, _, replies = served
  replies.append((200, json.dumps({"scores": scores})))
  with pytest.raises(ValueError, match=message):
    ServedScores(url=url, steps=4).bind(DATA)(rollouts())


def test_a_chat_server_gives_the_text_behind_the_thoughts(served):
  url, asked, replies = served
  ask = ChatServer(url=url, model="m", seconds=5.0, tokens=7)
  message = {"message": {"content": "<think>so</think>[1]"}}
  replies.append((200, json.dumps({"choices": [message]})))
  assert ask("which?") == "[1]"
  assert asked[0]["messages"] == [{"role": "user", "content": "which?"}]
  assert (asked[0]["model"], asked[0]["max_tokens"]) == ("m", 7)
  replies.append((200, json.dumps({"error": "busy"})))
  with pytest.raises(ValueError, match="no chat completion"):
    ask("which?")
  replies.append((503, ""))
  with pytest.raises(OSError, match="503"):
    ask("which?")


def test_nobody_there_is_an_error():
  with pytest.raises(OSError, match="refused"):
    post("http://127.0.0.1:9/", {}, seconds=1.0)
  with pytest.raises(ValueError, match="attempts"):
    post("http://127.0.0.1:9/", {}, seconds=1.0, attempts=0)
