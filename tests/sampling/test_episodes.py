"""Episodes of a real decoder and of a chain, in worlds worked by hand."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip(
  "tokenizers", reason="needs the extra `language` (tokenizers)"
)

from models.decoder.conftest import FULL, randomised
from rl_jax.log_probs import (
  at_own_position,
  next_token,
  support_log_prob,
  token_entropy,
)
from rl_jax.models import Characters
from rl_jax.sampling import row_keys
from rl_jax.sampling.episodes import Episodes, turn_index
from rl_jax.sampling.worlds import Observation
from sampling.chains import Chain

WORDS = Characters(alphabet="abcdefghijklmnopqrstuvwxyz.,?-0")
END = 31


@dataclasses.dataclass(frozen=True)
class Echo:
  """Says how many actions there were, and the last one; long ones end it."""

  workers: int = 1
  silent: bool = False
  broken: bool = False

  def observe(self, item, actions):
    if self.broken and item == 1 and len(actions) == 2:
      return Observation("", True, 0.0, "time limit")
    text = "" if self.silent else f"{'-' * len(actions)}{actions[-1][:2]}"
    return Observation(text, len(actions[-1]) > 4, float(len(actions)))


SAMPLER = Episodes(
  world=Echo(),
  vocabulary=WORDS,
  turns=4,
  action_length=5,
  observation_length=7,
  length=24,
  wording=".{observation}",
  temperature=1.5,
  end=(END, 3, 20, 7, 9, 22),
  entropy=True,
)
LENGTHS, SAMPLES = (5, 2, 4, 1), 4
KEY = jax.random.key(0)


def padded(items, columns):
  """Prompts by number, padded on the left with ids that are none."""
  token = np.full((len(items), columns), -7, np.int32)
  for row, item in enumerate(items):
    ids = np.random.RandomState(item).randint(32, size=LENGTHS[item])
    token[row, columns - len(ids) :] = ids
  return jnp.asarray(token), jnp.asarray(token >= 0)


def draw(params, items, columns, *, sampler=SAMPLER):
  ids = [item * 100 + n for item in items for n in range(SAMPLES)]
  found = sampler(
    FULL,
    params,
    *padded(items, columns),
    row_keys(KEY, jnp.asarray(ids)),
    samples=SAMPLES,
    item=np.array(items),
  )
  return jax.device_get(found)


@pytest.fixture(scope="module")
def params():
  return randomised(FULL)


@pytest.fixture(scope="module")
def found(params):
  return draw(params, (0, 1, 2, 3), 5)


def replayed(found, row, item, sampler=SAMPLER):
  """The columns that a row must have, from its actions and the world alone."""
  token, turn = found.token[row], turn_index(found.mask)[row]
  columns, actions, over = [], [], False
  for k in range(turn.max() + 1):
    ids = token[turn == k].tolist()
    columns += [(one, True) for one in ids]
    actions.append(sampler.said(ids))
    seen = sampler.world.observe(item, actions)
    over = seen.ended
    if k < turn.max():
      assert not over
      columns += [(one, False) for one in sampler.shown(seen.text)]
  more = len(sampler.shown(seen.text))
  room = len(columns) + more < sampler.length and len(actions) < sampler.turns
  return columns, over, room


@pytest.mark.slow
def test_an_episode_is_what_was_done_and_what_the_world_said(found):
  ended, turns = [], []
  for row in range(16):
    columns, over, room = replayed(found, row, row // SAMPLES)
    size = len(columns)
    assert found.present[row].tolist() == [t < size for t in range(24)]
    assert found.mask[row, :size].tolist() == [own for _, own in columns]
    assert found.token[row, :size].tolist() == [one for one, _ in columns]
    assert found.ended[row] == over
    assert over or not room, "it stops for a reason"
    for value in (found.token, found.log_prob, found.entropy):
      assert not np.any(value[row, size:])
    assert not np.any(found.log_prob[row][~found.mask[row]])
    ended.append(over)
    turns.append(turn_index(found.mask)[row].max() + 1)
  assert len(set(turns)) > 2
  assert len(set(ended)) == 2


@pytest.mark.slow
def test_numbers_are_those_of_one_pass_over_the_whole_row(params, found):
  prompt, prompt_mask = (
    jnp.repeat(x, SAMPLES, axis=0) for x in padded((0, 1, 2, 3), 5)
  )
  row = jnp.concatenate([prompt, found.token], axis=1)
  real = jnp.concatenate([prompt_mask, found.present], axis=1)
  counts = jnp.concatenate([jnp.zeros_like(prompt_mask), found.mask], axis=1)
  hidden = jax.jit(FULL.hidden)(params, row, real.astype(int))
  logits = FULL.logits(params, hidden)
  scored_by = next_token(row, counts, real.astype(int))
  log_prob = support_log_prob(logits, *scored_by, support=SAMPLER.support)
  entropy = token_entropy(
    logits, scored_by.mask, temperature=1.5, soft_cap=None
  )
  assert found.mask.sum() > 60
  for value, expected in (
    (log_prob, found.log_prob),
    (entropy, found.entropy),
  ):
    own = at_own_position(value, scored_by.mask)[:, 5:]
    np.testing.assert_allclose(own, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_row_depends_on_its_prompt_item_and_key_alone(params, found):
  again = draw(params, (0, 1, 2, 3), 5)
  jax.tree.map(np.testing.assert_array_equal, again, found)
  # Other neighbours, in other places.
  other = draw(params, (3, 2, 1, 0), 5)
  for row in range(16):
    here = (3 - row // SAMPLES) * SAMPLES + row % SAMPLES
    np.testing.assert_array_equal(other.token[here], found.token[row])
    np.testing.assert_allclose(
      other.log_prob[here], found.log_prob[row], atol=1e-6
    )


def chain(*, prompts=2, **options):
  """A policy that writes "cb" after a point, and the world ends with one."""
  settings = {
    "world": Echo(),
    "vocabulary": WORDS,
    "turns": 3,
    "action_length": 2,
    "observation_length": 5,
    "length": 14,
    "wording": "{observation}.",
    "end": (1,),
  }
  point, *said = WORDS.load().encode(".cb")
  table = jnp.full((32, 32), -1e9).at[point, said[0]].set(0.0)
  table = table.at[said[0], said[1]].set(0.0)
  prompt = jnp.full((prompts, 1), point)
  found = Episodes(**settings | options)(
    Chain(vocabulary=32),
    {"table": table},
    prompt,
    prompt >= 0,
    row_keys(KEY, jnp.arange(prompts)),
    samples=1,
    item=np.arange(prompts),
  )
  return jax.device_get(found)


def text(found, row):
  return WORDS.load().decode(found.token[row][found.present[row]].tolist())


@pytest.mark.slow
def test_a_world_without_an_answer_stops_its_row_alone():
  found = chain(world=Echo(broken=True))
  # 14 tokens are room for half of the third action.
  assert text(found, 0) == "cb-cb.cb--cb.c"
  assert text(found, 1) == "cb-cb.cb"
  assert found.ended.tolist() == [False, False]
  assert turn_index(found.mask)[1].tolist() == (
    [0, 0, -1, -1, -1, -1, 1, 1] + [-1] * 6
  )
  np.testing.assert_allclose(found.log_prob, 0.0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"observation_length": 4}, "has 5 tokens, more than observation_length"),
    (
      {"world": Echo(silent=True), "wording": "{observation}"},
      "an observation is empty",
    ),
  ],
)
def test_an_observation_that_cannot_be_read_is_an_error(options, message):
  with pytest.raises(Exception, match=message):
    chain(prompts=1, **options)


def test_longer_observations_are_cut_where_that_is_said():
  sampler = dataclasses.replace(SAMPLER, cut=True)
  assert WORDS.load().decode(sampler.shown("abcdefghij")) == ".abcdef"


def test_what_the_world_gets_lacks_the_end_of_the_text():
  assert SAMPLER.said([0, 1, END]) == "ab"
  assert SAMPLER.said([END]) == ""
  assert SAMPLER.said([0, 3]) == "ad", "an ordinary token that ended it stays"


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"turns": 0}, "turns, action_length"),
    ({"action_length": 0}, "turns, action_length"),
    ({"observation_length": 0}, "turns, action_length"),
    ({"length": 0}, "length must be at least 1"),
    ({"wording": "seen"}, "lacks {observation}"),
    ({"temperature": 0.0}, "temperature"),
  ],
)
def test_settings_are_checked(changed, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SAMPLER, **changed)


def test_calls_are_checked():
  def call(sampler=SAMPLER, **changed):
    settings = {"samples": 2, "item": np.arange(2)} | changed
    prompt = np.full((2, 3), 1)
    mask = np.ones((2, 3), bool)
    keys = row_keys(KEY, jnp.arange(4))
    return sampler(FULL, {}, prompt, mask, keys, **settings)

  with pytest.raises(ValueError, match="episodes need their items"):
    call(item=None)
  with pytest.raises(ValueError, match="need 6 keys"):
    call(samples=3)
  with pytest.raises(ValueError, match="a context of 2063"):
    call(dataclasses.replace(SAMPLER, length=2060))
