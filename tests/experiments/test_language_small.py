"""The small language experiments: worked examples, their parts, their data."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import language_recipes
from experiments.language import (
  functions,
  unpacking_results,
  unpacking_stages,
  unpacking_task,
)
from experiments.language.unpacking_results import Curve, Difference
from rl_jax import environments, models
from rl_jax.algorithms.components import Generalized
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.algorithms.responses import answer_score
from rl_jax.experiment import diff, from_dict, to_dict
from rl_jax.losses import bradley_terry_loss, logistic_preference_loss
from rl_jax.rewards.shaping import (
  at_last_token,
  kl_shaped,
  replaced_if_unfinished,
)
from rl_jax.rewards.verifiers import Code, Monty, SandboxError, UnitTests

# The worked example of arXiv:2406.09279's recipe: two tokens with a log-ratio
# to the reference of .2 and -.1, kl .05, a score of 1.5, values 1 and 1.2.
LOG_RATIO = jnp.array([[0.2, -0.1], [0.2, -0.1]])
MASK = jnp.ones((2, 2), bool)
ENDED = jnp.array([True, False])


def token_reward(score, log_ratio, mask, ended):
  """`compute_ppo_rewards` of the recipe, composed."""
  whole = replaced_if_unfinished(
    score, ended, replacement=language_recipes.UNFINISHED
  )
  return kl_shaped(at_last_token(whole, mask), log_ratio, mask, weight=0.05)


def test_rewards_of_the_worked_example():
  found = token_reward(jnp.array([1.5, 1.5]), LOG_RATIO, MASK, ENDED)
  np.testing.assert_allclose(
    found, [[-0.01, 1.505], [-0.01, -9.995]], rtol=1e-6
  )
  np.testing.assert_allclose(found[0].sum(), 1.495, rtol=1e-6)


def test_only_rows_without_an_end_are_replaced_and_rewards_add_up():
  random = np.random.default_rng(0)
  score, log_ratio = random.normal(size=6), random.normal(size=(6, 5))
  length = np.array([1, 2, 3, 4, 5, 5])
  mask, ended = np.arange(5) < length[:, None], np.arange(6) % 2 == 0
  found = token_reward(*map(jnp.asarray, (score, log_ratio, mask, ended)))
  whole = np.where(ended, score, -10.0)
  wanted = whole - 0.05 * np.where(mask, log_ratio, 0.0).sum(1)
  np.testing.assert_allclose(found.sum(1), wanted, rtol=1e-5)
  assert (np.asarray(found)[~mask] == 0).all()


def batch(reward, *, log_prob=None):
  return PolicyBatch(
    log_prob=LOG_RATIO if log_prob is None else log_prob,
    behaviour_log_prob=LOG_RATIO,
    mask=MASK,
    reward=reward,
    group=jnp.arange(2),
    valid=jnp.ones(2, bool),
    reference_log_prob=jnp.zeros((2, 2)),
    value=jnp.array([[1.0, 1.2]] * 2),
    behaviour_value=jnp.array([[1.0, 1.2]] * 2),
  )


def test_advantages_and_returns_of_the_worked_example():
  credit = language_recipes.easylm_ppo.credit
  advantage, target = credit(
    batch(jnp.array([1.5, -10.0])), jnp.array([1.5, -10.0])
  )
  np.testing.assert_allclose(advantage[0], [0.47975, 0.305], rtol=1e-5)
  np.testing.assert_allclose(target[0], [1.47975, 1.505], rtol=1e-5)
  # delta = (.19, -9.995 - 1.2) of the row that did not end.
  np.testing.assert_allclose(
    advantage[1], [0.19 - 0.95 * 11.195, -11.195], rtol=1e-5
  )


@pytest.mark.slow
def test_first_update_is_the_whitened_policy_gradient():
  """At a ratio of one the slope is -A / tokens, A of mean 0 and variance 1."""
  recipe = language_recipes.easylm_ppo
  given = batch(jnp.array([1.5, 0.5]))
  signals = recipe.signals(given, num_groups=2)

  def objective(log_prob):
    part = given._replace(
      log_prob=log_prob, behaviour_log_prob=jax.lax.stop_gradient(log_prob)
    )
    return recipe.terms(part, signals).objective()

  slope = jax.grad(objective)(LOG_RATIO)
  np.testing.assert_allclose(slope, -signals.advantage / 4, rtol=1e-5)
  assert abs(float(signals.advantage.mean())) < 1e-6
  np.testing.assert_allclose(signals.advantage.var(ddof=1), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_value_loss_has_the_weight_and_clip_of_the_recipe():
  recipe = language_recipes.easylm_ppo
  given = batch(jnp.array([1.5, 0.5]))
  before = jnp.array([[1.0, 1.2]] * 2)
  value = before + 1.0
  given = given._replace(value=value, behaviour_value=before)
  signals = recipe.signals(given, num_groups=2)
  assert signals.target is not None
  free = jnp.square(value - signals.target)
  near = jnp.square(before + 0.2 - signals.target)
  wanted = 0.1 * 0.5 * jnp.maximum(free, near).mean()
  found = recipe.terms(given, signals).value.mean()
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.slow
def test_losses_of_preferences_at_the_start():
  zero, kept = jnp.zeros(3), jnp.ones(3, bool)
  equal = bradley_terry_loss(zero, zero, kept, margin=0.0, centring=0.0)
  np.testing.assert_allclose(equal, np.log(2), rtol=1e-6)

  def loss(pair):
    chosen, rejected = pair
    return logistic_preference_loss(chosen, rejected, kept, beta=0.1).sum()

  chosen, rejected = jax.grad(loss)((jnp.arange(3.0), zero))
  np.testing.assert_array_equal(chosen, -rejected)


@pytest.mark.slow
def test_a_critic_that_starts_as_the_judge_says_its_score_at_the_end():
  model = models.ScalarHead(
    body=dataclasses.replace(unpacking_stages.MODEL, layers=1, mlp=8)
  )
  params = model.init(jax.random.key(0))
  params["head"]["weight"] = jnp.linspace(-1.0, 1.0, model.body.width)
  token = jnp.arange(10).reshape(2, 5)
  segment = jnp.array([[1] * 5, [1] * 3 + [0] * 2])
  value = model.value(params, model.hidden(params, token, segment))
  score = answer_score(model, params, token, segment)
  np.testing.assert_allclose(score, [value[0, 4], value[1, 2]], rtol=1e-6)


def test_recipes_are_the_papers_and_survive_storage():
  recipe = language_recipes.easylm_ppo
  assert isinstance(recipe.credit, Generalized)
  assert recipe.credit.kl_weight == 0.05
  large = language_recipes.easylm_ppo_large_judge.credit
  assert large == dataclasses.replace(recipe.credit, kl_weight=0.0325)
  reward_model = unpacking_stages.reward_model(seed=0, flips=0.1, pairs=2560)
  ppo = language_recipes.unpacking_ppo(
    critic=unpacking_stages.SCORER,
    judge=unpacking_stages.Trained(by=reward_model),
    end=(2,),
    updates=952,
  )
  assert diff(from_dict(json.loads(json.dumps(to_dict(ppo)))), ppo) == []
  dpo = language_recipes.easylm_dpo(pairs=60_000)
  rate = dpo.optimiser.schedule()
  np.testing.assert_allclose(
    np.array([rate(562), rate(5625)]), [5e-7, 0], atol=1e-12
  )
  judge = language_recipes.easylm_reward_model(
    pairs=60_000, body=unpacking_stages.Trained(by=reward_model)
  )
  rate = judge.optimiser.schedule()
  np.testing.assert_allclose(
    np.array([rate(3), rate(117)]), [1e-5, 1e-6], rtol=0.03
  )


def test_what_cannot_be_is_refused():
  with pytest.raises(ValueError, match=r"weight must not be negative"):
    kl_shaped(LOG_RATIO, LOG_RATIO, MASK, weight=-0.05)
  wrong = unpacking_stages.ppo(seed=0, flips=0.1, pairs=2560, high=5)
  odd = dataclasses.replace(wrong.algorithm, minibatches=3)
  with pytest.raises(ValueError, match=r"256 rows cannot be split into 3"):
    odd.build(dataclasses.replace(wrong, algorithm=odd), lambda _: None)
  short = dataclasses.replace(wrong.data, length=7)
  with pytest.raises(ValueError, match=r"item 0 has 8 tokens.*length = 7"):
    short.source()[np.arange(1)]


# The digits.


@pytest.mark.slow
def test_gold_reward_of_texts_is_that_of_arrays():
  prompts = ["0123401=", "5678956=", "0000000=", "0000000="]
  completions = ["3456734", "4321043", "33333333", "333=3"]
  found = unpacking_task.gold_of_texts(prompts=prompts, completions=completions)
  np.testing.assert_allclose(found, [1.0, 1.0, 7 / 8, 4 / 7])
  encode = unpacking_task.VOCABULARY.load().encode
  token = np.full((4, unpacking_task.LENGTH), unpacking_task.END)
  for row, text in enumerate(completions):
    token[row, : len(text)] = encode(text)
  mask = np.arange(unpacking_task.LENGTH) <= [[len(t)] for t in completions]
  digits = jnp.array([[int(d) for d in text[:-1]] for text in prompts])
  on_device = unpacking_task.gold(digits, jnp.array(token), jnp.array(mask))
  np.testing.assert_allclose(on_device, found, rtol=1e-6)
  assert unpacking_task.gold_of_texts(
    prompts=["0123401="], completions=[""]
  ) == [0]


def test_strings_of_ranges_are_different_and_have_their_category():
  parts = [
    unpacking_task.Strings(rows=1, first=first, length=50, high=high)
    for first, high in ((0, 3), (50, 3), (100, 10))
  ]
  items = [part.item(index) for part in parts for index in range(50)]
  prompts = [prompt for prompt, _ in items]
  assert len(set(prompts)) == 150
  high = [all(digit in "56789" for digit in p[:-1]) for p in prompts]
  low = [all(digit in "01234" for digit in p[:-1]) for p in prompts]
  assert all(a != b for a, b in zip(high, low, strict=True))
  assert sum(high[:50]) == sum(high[50:100]) == 15
  assert all(high[100:])
  right = unpacking_task.gold_of_texts(
    prompts=prompts, completions=[answer for _, answer in items]
  )
  assert right == [1.0] * 150


def test_demonstrations_have_their_skill():
  rows = list(unpacking_task.demonstrations(count=500, skill=0.5, seed=1))
  prompts, answers = zip(*rows, strict=True)
  reward = unpacking_task.gold_of_texts(prompts=prompts, completions=answers)
  # Right by knowing or by luck: .5 + .5 / 10, 3500 digits.
  assert abs(np.mean(reward) - 0.55) < 3 * 0.5 / 3500**0.5
  again = unpacking_task.demonstrations(count=500, skill=0.5, seed=1)
  assert rows == list(again)


@pytest.fixture(scope="module")
def compared():
  """Comparisons of a writer that knows nothing, by their settings."""
  made = unpacking_stages.dpo(seed=0, flips=0.0, pairs=64)
  attention = models.Attention(heads=1, features=8)
  model = dataclasses.replace(
    unpacking_stages.MODEL, width=8, layers=1, mlp=8, attention=attention
  )
  writer = unpacking_stages.Trained(by=dataclasses.replace(made, model=model))
  params = model.init(jax.random.key(0))
  items = made.data.source()[np.arange(64)]

  def pairs(rows=slice(None), **fields):
    own = made.algorithm.comparisons
    own = dataclasses.replace(own, writer=writer, **fields)
    some = {name: jnp.asarray(x[rows]) for name, x in items.items()}
    return own.pairs(params, some)

  return pairs


@pytest.mark.slow
def test_labels_follow_the_gold_reward_and_are_turned_round(compared):
  _, sure = compared(sharpness=1e6)
  assert (sure >= 0).all()
  assert (sure > 0).any()
  _, turned = compared(sharpness=1e6, flips=0.5)
  assert (turned > 0).any()
  assert (turned < 0).any()
  np.testing.assert_array_equal(abs(turned), sure)
  with pytest.raises(ValueError, match=r"flips must be in"):
    compared(flips=0.6)


@pytest.mark.slow
def test_pairs_are_a_fixed_data_set(compared):
  whole, gap = compared()
  part, own = compared(rows=slice(10, 14))
  np.testing.assert_array_equal(own, gap[10:14])
  for name, column in part.items():
    np.testing.assert_array_equal(column, whole[name][10:14])
  other, _ = compared(seed=1)
  assert (other["chosen"] != whole["chosen"]).any()


@pytest.mark.slow
def test_pairs_have_the_layout_of_preferences(compared):
  found, _ = compared()
  length = unpacking_task.PROMPT
  for side in ("chosen", "rejected"):
    token, segment = found[side], found[f"{side}_segment"]
    mask = found[f"{side}_mask"]
    assert not mask[:, :length].any()
    np.testing.assert_array_equal(mask[:, length:], segment[:, length:] == 1)
    assert (segment[:, : length + 1] == 1).all()
    assert (jnp.diff(segment, axis=1) <= 0).all(), "no gaps"
    np.testing.assert_array_equal(
      token[:, :length], found["chosen"][:, :length]
    )


# Its table.


def test_verdicts():
  assert unpacking_results.verdict(Difference(0.05, 0.02)) == "reproduced"
  assert "other way" in unpacking_results.verdict(Difference(-0.05, 0.02))
  for noise in (Difference(0.03, 0.02), Difference(0.5, np.inf)):
    assert "not reproduced" in unpacking_results.verdict(noise)
  found = unpacking_results.difference([0.1, 0.2, 0.3])
  np.testing.assert_allclose(found, [0.2, 0.1 / 3**0.5])


def test_reward_at_equal_distance():
  curve = Curve(
    [0, 1, 2, 3],
    {
      "evaluation/kl": [0.0, 1.0, 0.5, 2.0],
      "evaluation/reward": [0.5, 0.7, 0.75, 0.9],
    },
  )
  at = [unpacking_results.reward_at(curve, nats) for nats in (0.0, 0.5, 2.0)]
  np.testing.assert_allclose(at, [0.5, 0.6, 0.9])


# The functions.


def test_functions_are_in_the_schema_of_humaneval(tmp_path):
  task = functions.Functions(rows=1, first=10, length=20)
  path = tmp_path / "functions.jsonl"
  path.write_text(
    "".join(json.dumps(task.record(index)) + "\n" for index in range(20))
  )
  published = environments.Programs(rows=1, path=str(path)).source()
  own = task.source()
  for name, column in published[np.arange(20)].items():
    assert column.tolist() == own[np.arange(20)][name].tolist()


def test_functions_are_all_different_and_fit_the_vocabulary():
  from experiments.language import code_sft

  task = functions.Functions(rows=1, length=5544)
  prompts = {task.record(index)["prompt"] for index in range(0, 5544, 7)}
  assert len(prompts) == len(range(0, 5544, 7))
  ids = code_sft.VOCABULARY.load()
  for index in range(0, 5544, 97):
    record = task.record(index)
    assert len(ids.encode(record["prompt"])) <= code_sft.PROMPT
    assert len(ids.encode(task.answer(index))) < code_sft.LENGTH
  with pytest.raises(ValueError, match=r"functions 5540 to 5550 of 5544"):
    functions.Functions(rows=1, first=5540, length=10)


def test_hidden_tests_tell_operations_apart():
  task, judge = functions.Functions(rows=1, length=8), Code()
  judge.prepare()
  for index in range(8):
    _, reference = task.source().item(index)
    verdicts = [
      judge(task.answer(index, operation), reference).reward
      for operation in range(len(functions.OPERATIONS))
    ]
    right = task.answer(index)
    assert judge(right, reference).reward == 1.0
    assert verdicts.count(1.0) == 1


@pytest.mark.parametrize(
  "completion",
  [" f(a, b)", " a +", "", "\n  while True:\n    pass", " 9 ** 9 ** 9 ** 9"],
)
def test_bad_programs_fail_within_their_time(completion):
  prefix = 'def f(a, b):\n  """sum of a and b"""\n  return'
  reference = UnitTests(prefix, "assert f(1, 2) == 3")
  found = Code(sandbox=Monty(seconds=0.2))(completion, reference)
  assert found.reward == 0.0
  assert found.reason


@dataclasses.dataclass(frozen=True)
class Broken:
  """A sandbox that does not start."""

  def prepare(self):
    """Nothing to see to."""

  def run(self, program):
    raise SandboxError(f"no room for {len(program)} characters")


def test_a_broken_sandbox_is_no_verdict():
  found = Code(sandbox=Broken())(" a", UnitTests("def f(a):\n  return", ""))
  assert found.reward is None
  assert found.reason.startswith("sandbox:")
