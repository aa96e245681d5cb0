import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.sampling import Trie
from rl_jax.sampling.stops import NONE, stop_table, stopped

pytestmark = pytest.mark.slow

SEQUENCES = [(5, 1), (5, 2, 0), (7,), (5, 2, 3), (0, 5, 1)]


def test_the_nodes_of_a_worked_example():
  """Root; 0 5 7; 0-5 5-1 5-2; 0-5-1 5-2-0 5-2-3."""
  trie = Trie.of(SEQUENCES)
  assert trie.token.tolist() == [-1, 0, 5, 7, 5, 1, 2, 1, 0, 3]
  assert trie.children.tolist() == [3, 1, 2, 0, 1, 0, 2, 0, 0, 0]
  assert trie.first.tolist() == [1, 4, 5, 0, 7, 0, 8, 0, 0, 0]
  assert trie.lane.tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_walks_are_those_of_a_set_of_sequences(seed):
  """From every beginning exactly the ids that go on are allowed."""
  rng = np.random.RandomState(seed)
  whole = {tuple(rng.randint(6, size=4).tolist()) for _ in range(20)}
  trie = Trie.of(sorted(whole))
  for sequence in sorted(whole):
    node = jnp.zeros(1, jnp.int32)
    for n, token in enumerate(sequence):
      begun = sequence[:n]
      expected = {other[n] for other in whole if other[:n] == begun}
      allowed = np.flatnonzero(trie.allowed(node, 6)[0])
      assert set(allowed.tolist()) == expected
      assert not trie.is_leaf(node)[0]
      node = trie.child(node, jnp.asarray([token]))
    assert trie.is_leaf(node)[0]
    assert not np.any(trie.allowed(node, 6))


def test_each_row_stands_at_its_own_node():
  trie = Trie.of(SEQUENCES)
  node = jnp.asarray([0, 2, 6, 3])
  allowed = [np.flatnonzero(row).tolist() for row in trie.allowed(node, 8)]
  assert allowed == [[0, 5, 7], [1, 2], [0, 3], []]
  assert trie.child(node, jnp.asarray([7, 2, 3, 1])).tolist() == [3, 6, 9, 0]
  assert trie.is_leaf(node).tolist() == [False, False, False, True]


def test_order_and_repetition_of_sequences_do_not_matter():
  one, two = Trie.of(SEQUENCES), Trie.of([*SEQUENCES[::-1], (7,)])
  for x, y in zip(one, two, strict=True):
    np.testing.assert_array_equal(x, y)


def test_an_id_beyond_the_vocabulary_is_never_allowed():
  """And reaches no other row."""
  allowed = Trie.of([(9,), (1,)]).allowed(jnp.zeros(2, jnp.int32), 4)
  assert allowed.tolist() == [[False, True, False, False]] * 2


@pytest.mark.parametrize(
  ("sequences", "words"),
  [
    ([], "at least one sequence"),
    ([(1,), ()], r"got \(\)"),
    ([(1, -2)], r"got \(1, -2\)"),
    ([(1, 2, 3), (1, 2), (4,)], r"\(1, 2\) begins another of the 3"),
  ],
)
def test_what_is_no_trie_is_refused(sequences, words):
  with pytest.raises(ValueError, match=words):
    Trie.of(sequences)


def test_stop_sequences_end_a_row_as_soon_as_their_last_id_comes():
  table = stop_table([(1, 2, 1), (3,), (1, 1)])
  written = [2, 1, 2, 1, 2, 3, 1, 1]
  recent = [NONE] * table.shape[1]
  found = []
  for token in written:
    recent = [*recent[1:], token]
    found.append(stopped(jnp.asarray([recent]), table).item())
  assert found == [False, False, False, True, False, True, False, True]


def test_nothing_stops_a_row_without_stop_sequences():
  table = stop_table([])
  assert table.shape == (0, 0)
  assert stopped(jnp.zeros((3, 0), int), table).tolist() == [False] * 3


@pytest.mark.parametrize("wrong", [(), (1, -1)])
def test_what_is_no_stop_sequence_is_refused(wrong):
  with pytest.raises(ValueError, match="number 1 is"):
    stop_table([(1,), wrong])
