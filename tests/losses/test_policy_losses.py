"""The family of policy losses: one limit on policy, one oracle off it."""

from __future__ import annotations

import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses, reduce

# The worked example of the reference sheet (section 7): lengths 3, 2, 4 in
# one group of rewards 1, 0, 0.5.
MASK = np.arange(4) < np.array([[3], [2], [4]])
D = np.array(
  [[0.3, -0.1, 0.05, 0], [-0.4, 0.25, 0, 0], [0.1, -0.3, 0.2, -0.05]]
)
OLD = np.array(
  [[-1, -0.5, -2, 0], [-0.7, -1.2, 0, 0], [-0.2, -0.9, -1.5, -0.4]]
)
ADVANTAGE = np.array([0.5, -0.5, 0]) / (0.5 + 1e-6)

OPTIONS = {
  "bound": 3.0,
  "clamp": None,
  "clip_high": 0.28,
  "clip_low": 0.2,
  "high": 1.28,
  "level": ("geometric", "sequence"),
  "low": 0.8,
  "maximum": 2.0,
  "negative_sharpness": 1.05,
  "sharpness": 1.0,
  "weight": 0.5,
}


def _family():
  """Every exported policy loss with every choice of its options."""
  for name in losses.__all__:
    function = getattr(losses, name)
    if not inspect.isfunction(function):
      continue
    signature = inspect.signature(inspect.unwrap(function))
    own = function.__module__.startswith("rl_jax.losses.policy")
    if not own or signature.return_annotation != "PolicyLoss":
      continue
    keywords = [
      p.name for p in signature.parameters.values() if p.kind == p.KEYWORD_ONLY
    ]
    choices = [np.atleast_1d(np.array(OPTIONS[k], object)) for k in keywords]
    for values in itertools.product(*choices):
      options = dict(zip(keywords, values, strict=True))
      level = options.get("level")
      label = name + (f"[{level}]" if level else "")
      yield pytest.param(function, options, id=label)


FAMILY = list(_family())


def _call(function, options, log_prob, behaviour, advantage, mask, **more):
  arrays = {
    "log_prob": log_prob,
    "behaviour_log_prob": behaviour,
    "proximal_log_prob": behaviour,
    "advantage": advantage,
    "spared": jnp.zeros_like(mask),
    "mask": mask,
  } | more
  names = inspect.signature(inspect.unwrap(function)).parameters
  return function(*(arrays[n] for n in names if n in arrays), **options)


def _case(seed=0, rows=4, time=5):
  rng = np.random.default_rng(seed)
  log_prob = -rng.exponential(1.0, (rows, time))
  behaviour = log_prob - rng.normal(0.0, 0.4, (rows, time))
  advantage = np.repeat(rng.normal(size=(rows, 1)), time, axis=1)
  mask = np.arange(time) < rng.integers(1, time + 1, (rows, 1))
  floats = (log_prob, behaviour, advantage)
  return *(jnp.asarray(x, jnp.float32) for x in floats), jnp.asarray(mask)


def _sheet():
  advantage = np.repeat(ADVANTAGE[:, None], 4, axis=1)
  nan = np.where(MASK, 0.0, np.nan)
  arrays = (x + nan for x in (OLD + D, OLD, advantage))
  return *(jnp.asarray(x, jnp.float32) for x in arrays), jnp.asarray(MASK)


def test_the_family_is_complete():
  assert len({param.values[0] for param in FAMILY}) == 11


@pytest.mark.slow
@pytest.mark.parametrize(("function", "options"), FAMILY)
def test_on_policy_the_gradient_is_minus_the_advantage(function, options):
  log_prob, _, advantage, mask = _case()

  def total(x):
    terms = _call(function, options, x, log_prob, advantage, mask)
    return terms.loss.sum(), terms

  gradient, terms = jax.grad(total, has_aux=True)(log_prob)
  # A row's whole ratio moves with each of its tokens, and the loss stands at
  # each of them: reduced over sequences that is -A per token again.
  times = 1
  if function is losses.sequence_clipped_loss and (
    options["level"] == "sequence"
  ):
    times = mask.sum(axis=-1, keepdims=True)
  expected = jnp.where(mask, -advantage * times, 0.0)
  np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(terms.ratio, 1.0, rtol=1e-6)
  assert not terms.clipped.any()


@pytest.mark.slow
@pytest.mark.parametrize(("function", "options"), FAMILY)
def test_nothing_flows_anywhere_but_into_log_prob(function, options):
  log_prob, behaviour, advantage, mask = _case()

  def total(behaviour, advantage):
    terms = _call(function, options, log_prob, behaviour, advantage, mask)
    return terms.loss.sum() + terms.ratio.sum()

  for gradient in jax.grad(total, argnums=(0, 1))(behaviour, advantage):
    assert not gradient.any()


@pytest.mark.slow
@pytest.mark.parametrize(("function", "options"), FAMILY)
def test_masked_slots_report_nothing(function, options):
  terms = _call(function, options, *_sheet())
  hidden = ~MASK
  assert (np.asarray(terms.loss)[hidden] == 0).all()
  assert (np.asarray(terms.ratio)[hidden] == 1).all()
  assert not np.asarray(terms.clipped)[hidden].any()


def _sigmoid(x):
  return 1 / (1 + math.exp(-x))


def _clip(x, low, high):
  return min(max(x, low), high)


def _ppo(a, r):
  return max(-a * r, -a * _clip(r, 0.8, 1.28))


# One row at a time, in Python floats: d, log-prob and advantage of the counted
# tokens in, their losses out. Written from the sheet's section 4.
ORACLE = {
  "clipped_policy_terms": lambda d, p, a: [
    _ppo(x, math.exp(y)) for x, y in zip(a, d, strict=True)
  ],
  "decoupled_clipped_loss": lambda d, p, a: [
    _ppo(x, math.exp(y)) for x, y in zip(a, d, strict=True)
  ],
  "dual_clipped_loss": lambda d, p, a: [
    min(_ppo(x, math.exp(y)), -3.0 * x) if x < 0 else _ppo(x, math.exp(y))
    for x, y in zip(a, d, strict=True)
  ],
  "policy_gradient_loss": lambda d, p, a: [
    -x * y for x, y in zip(a, p, strict=True)
  ],
  "clipped_weight_loss": lambda d, p, a: [
    -_clip(math.exp(y), 0.8, 1.28) * x * z
    for x, y, z in zip(a, d, p, strict=True)
  ],
  "soft_gate_loss": lambda d, p, a: [
    -x
    * _sigmoid((1.0 if x > 0 else 1.05) * (math.exp(y) - 1))
    * 4
    / (1.0 if x > 0 else 1.05)
    for x, y in zip(a, d, strict=True)
  ],
  "sequence_clipped_loss[geometric]": lambda d, p, a: [
    _ppo(x, math.exp(sum(d) / len(d))) for x in a
  ],
  "sequence_clipped_loss[sequence]": lambda d, p, a: [
    _ppo(x, math.exp(sum(d))) for x in a
  ],
  "covariance_clip_loss": lambda d, p, a: [
    _ppo(x, math.exp(y)) for x, y in zip(a, d, strict=True)
  ],
  "covariance_penalty_loss": lambda d, p, a: [
    -x * math.exp(y) for x, y in zip(a, d, strict=True)
  ],
}
ORACLE |= {
  f"sequence_token_loss[{level}]": ORACLE[f"sequence_clipped_loss[{level}]"]
  for level in ("geometric", "sequence")
}


def _geometric_mean(d, p, a):
  c = [
    math.copysign(1, x)
    * min(math.copysign(1, x) * y, math.copysign(1, x) * _clip(y, -0.2, 0.28))
    for x, y in zip(a, d, strict=True)
  ]
  row = -sum(a) / len(a) * math.exp(sum(c) / len(c))
  return [row] * len(a)


ORACLE["geometric_mean_loss"] = _geometric_mean


@pytest.mark.slow
@pytest.mark.parametrize(("function", "options"), FAMILY)
@pytest.mark.parametrize("seed", [1, 2])
def test_against_a_loop_over_rows(function, options, seed, request):
  log_prob, behaviour, advantage, mask = _case(seed)
  found = _call(function, options, log_prob, behaviour, advantage, mask).loss
  oracle = ORACLE[request.node.callspec.id.removeprefix(f"{seed}-")]
  for row in range(mask.shape[0]):
    kept = np.asarray(mask[row])
    p, old, a = (
      np.asarray(x[row], np.float64)[kept].tolist()
      for x in (log_prob, behaviour, advantage)
    )
    d = [x - y for x, y in zip(p, old, strict=True)]
    np.testing.assert_allclose(
      np.asarray(found[row])[kept], oracle(d, p, a), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
  ("loss", "aggregation", "expected"),
  [
    (
      lambda *x: losses.clipped_policy_terms(*x, clip_low=0.2, clip_high=0.28),
      reduce.over_tokens,
      -0.128009,
    ),
    (
      lambda *x: losses.sequence_token_loss(
        *x, level="geometric", clip_low=0.03, clip_high=0.04, clamp=None
      ),
      reduce.over_sequences,
      -0.023333,
    ),
    (
      lambda *x: losses.sequence_clipped_loss(
        *x, level="geometric", clip_low=0.03, clip_high=0.04, clamp=None
      ),
      reduce.over_sequences,
      -0.023333,
    ),
    (
      lambda *x: losses.clipped_weight_loss(*x, low=0.8, high=1.28),
      reduce.over_tokens,
      0.154764,
    ),
    (
      lambda *x: losses.geometric_mean_loss(*x, clip_low=0.4, clip_high=0.4),
      reduce.over_sequences,
      -0.053053,
    ),
    (
      lambda *x: losses.soft_gate_loss(
        *x, sharpness=1.0, negative_sharpness=1.05
      ),
      reduce.over_sequences,
      -0.072772,
    ),
    (
      lambda log_prob, _, *x: losses.policy_gradient_loss(log_prob, *x),
      reduce.over_tokens,
      0.133333,
    ),
  ],
)
def test_worked_numbers_of_the_reference_sheet(loss, aggregation, expected):
  found = aggregation(loss(*_sheet()).loss, jnp.asarray(MASK)).mean()
  assert found.item() == pytest.approx(expected, abs=1e-6)


def test_sequence_ratios_of_the_reference_sheet():
  terms = losses.sequence_token_loss(
    *_sheet(), level="geometric", clip_low=0.03, clip_high=0.04, clamp=None
  )
  np.testing.assert_allclose(
    terms.ratio[:, 0], [1.086904, 0.927743, 0.987578], atol=1e-6
  )
  np.testing.assert_array_equal(terms.clipped[:, 0], [True, True, False])


def _slope(loss, ratio, advantage):
  """Gradient by log-prob and loss of one token off policy."""
  one, kept = jnp.ones((1, 1)), jnp.ones((1, 1), bool)

  def total(log_prob):
    return loss(log_prob, 0 * one, advantage * one, kept).loss.sum()

  value, slope = jax.value_and_grad(total)(jnp.log(ratio * one))
  return value.item(), slope.item()


def _dual(*x, bound=3.0):
  return losses.dual_clipped_loss(*x, clip_low=0.2, clip_high=0.2, bound=bound)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("ratio", "advantage", "expected"),
  [
    (5.0, -1.0, (3.0, 0.0)),  # the sheet's; 5 without
    (2.0, -1.0, (2.0, 2.0)),  # told to come back, below the bound
    (5.0, 1.0, (-1.2, 0.0)),  # the clip's
    (0.5, -1.0, (0.8, 0.0)),
  ],
)
def test_dual_clip(ratio, advantage, expected):
  assert _slope(_dual, ratio, advantage) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_dual_clip_is_the_bounded_ratio():
  """TRL's `delta`: the ratio is cut before it is compared, not the loss."""
  ratio = np.exp(np.linspace(-3, 3, 61, dtype=np.float32))[None]
  for sign in (1.0, -1.0):
    advantage = np.full_like(ratio, sign)
    cut = -advantage * np.minimum(ratio, 3.0)
    clipped = -advantage * np.clip(ratio, 0.8, 1.2)
    found = _dual(
      jnp.log(ratio),
      jnp.zeros((1, 61)),
      jnp.asarray(advantage),
      jnp.ones((1, 61), bool),
    ).loss
    np.testing.assert_allclose(found, np.maximum(cut, clipped), rtol=1e-5)


@pytest.mark.parametrize("bound", [1.0, 0.5, 1.1, float("nan")])
def test_dual_clip_needs_a_bound_beyond_the_clip(bound):
  with pytest.raises(ValueError, match=f"got {bound}"):
    _dual(*_case(), bound=bound)


@pytest.mark.parametrize(
  ("ratio", "slope"), [(5.0, -1.28), (1.1, -1.1), (0.1, -0.8)]
)
def test_clipped_weight_keeps_every_gradient(ratio, slope):
  found = _slope(
    lambda *x: losses.clipped_weight_loss(*x, low=0.8, high=1.28), ratio, 1.0
  )
  assert found[1] == pytest.approx(slope, abs=1e-6)


def test_clipped_weight_without_a_lower_bound():
  def upper(*x):
    return losses.clipped_weight_loss(*x, low=0.0, high=5.0)

  assert _slope(upper, 0.25, 1.0)[1] == pytest.approx(-0.25, abs=1e-6)
  assert _slope(upper, 9.0, 1.0)[1] == pytest.approx(-5.0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("advantage", "k"), [(2.0, 1.5), (-2.0, 4.0)])
def test_soft_gate_fades_by_the_derivative_of_a_sigmoid(ratio, advantage, k):
  _, slope = _slope(
    lambda *x: losses.soft_gate_loss(*x, sharpness=1.5, negative_sharpness=4.0),
    ratio,
    advantage,
  )
  gate = _sigmoid(k * (ratio - 1))
  expected = -advantage * ratio * 4 * gate * (1 - gate)
  assert slope == pytest.approx(expected, rel=1e-5)


def test_token_form_weighs_own_advantages_by_the_rows_ratio():
  log_prob, behaviour, _, mask = _case(3)
  advantage = jnp.asarray(np.random.default_rng(0).normal(size=mask.shape))
  advantage = advantage.astype(jnp.float32)

  def total(log_prob):
    return losses.sequence_token_loss(
      log_prob,
      behaviour,
      advantage,
      mask,
      level="geometric",
      clip_low=9.0,
      clip_high=9.0,
      clamp=None,
    ).loss.sum()

  d = np.where(mask, log_prob - behaviour, 0.0).sum(-1) / mask.sum(-1)
  expected = np.where(mask, -advantage * np.exp(d)[:, None], 0.0)
  np.testing.assert_allclose(jax.grad(total)(log_prob), expected, rtol=1e-5)


def test_both_geometric_forms_have_one_gradient_over_sequences():
  log_prob, behaviour, advantage, mask = _case(4)

  def mean(log_prob, loss):
    terms = loss(
      log_prob,
      behaviour,
      advantage,
      mask,
      level="geometric",
      clip_low=0.1,
      clip_high=0.1,
      clamp=None,
    )
    return reduce.over_sequences(terms.loss, mask).mean()

  ours = [
    jax.grad(mean)(log_prob, loss)
    for loss in (losses.sequence_clipped_loss, losses.sequence_token_loss)
  ]
  np.testing.assert_allclose(*ours, rtol=1e-5, atol=1e-6)
  assert ours[0].any()


@pytest.mark.slow
def test_clamp_bounds_the_ratio_of_a_row():
  log_prob, mask = jnp.full((1, 50), 3.0), jnp.ones((1, 50), bool)
  terms = losses.sequence_clipped_loss(
    log_prob,
    jnp.zeros((1, 50)),
    -jnp.ones((1, 50)),
    mask,
    level="sequence",
    clip_low=0.2,
    clip_high=0.2,
    clamp=2.0,
  )
  np.testing.assert_allclose(terms.loss, np.exp(2.0), rtol=1e-6)


@pytest.mark.slow
def test_geometric_mean_clips_one_token_and_not_its_neighbour():
  d, mask = jnp.array([[2.0, 0.1]]), jnp.ones((1, 2), bool)

  def total(d, sign):
    terms = losses.geometric_mean_loss(
      d, jnp.zeros((1, 2)), sign + 0 * d, mask, clip_low=0.4, clip_high=0.4
    )
    return terms.loss.sum(), terms

  gradient, terms = jax.grad(total, has_aux=True)(d, 1.0)
  ratio = np.exp((0.4 + 0.1) / 2)
  np.testing.assert_allclose(terms.ratio, ratio, rtol=1e-6)
  np.testing.assert_allclose(gradient, [[0.0, -ratio]], rtol=1e-6)
  assert terms.clipped.tolist() == [[True, False]]
  # A bad token may rise: it is told to come back, and not clipped.
  gradient, _ = jax.grad(total, has_aux=True)(d, -1.0)
  np.testing.assert_allclose(gradient, np.exp(1.05), rtol=1e-6)


def test_decoupled_clips_by_one_policy_and_weighs_by_another():
  log_prob, proximal, advantage, mask = _case(5)
  behaviour = proximal - jnp.array([0.5, -0.5, 0.1, 2.0, 0.0])[None]
  found = losses.decoupled_clipped_loss(
    log_prob,
    proximal,
    behaviour,
    advantage,
    mask,
    clip_low=0.2,
    clip_high=0.3,
    maximum=3.0,
  )
  near = losses.clipped_policy_terms(
    log_prob, proximal, advantage, mask, clip_low=0.2, clip_high=0.3
  )
  weight = np.exp([[0.5, -0.5, 0.1, np.log(3.0), 0.0]])
  np.testing.assert_allclose(found.loss, near.loss * weight, rtol=1e-5)
  np.testing.assert_array_equal(found.ratio, near.ratio)
  np.testing.assert_array_equal(found.clipped, near.clipped)


@pytest.mark.slow
def test_decoupled_is_unbiased_by_enumeration():
  """Near the proximal policy, its expected gradient is the true one."""
  behaviour = jnp.array([0.2, 0.2, 0.6])
  advantage, mask = jnp.array([1.0, -2.0, 0.5]), jnp.ones(3, bool)
  logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))

  def surrogate(logits):
    log_prob = jax.nn.log_softmax(logits)
    terms = losses.decoupled_clipped_loss(
      log_prob,
      log_prob,
      jnp.log(behaviour),
      advantage,
      mask,
      clip_low=0.2,
      clip_high=0.2,
      maximum=float("inf"),
    )
    return jnp.sum(behaviour * terms.loss)

  def objective(logits):
    return -jnp.sum(jax.nn.softmax(logits) * advantage)

  np.testing.assert_allclose(
    jax.grad(surrogate)(logits), jax.grad(objective)(logits), atol=1e-6
  )


BAD = [
  (losses.clipped_weight_loss, {"low": 2.0, "high": 1.0}, "low=2.0, high=1.0"),
  (losses.clipped_weight_loss, {"low": -1.0, "high": 1.0}, "low=-1.0"),
  (
    losses.soft_gate_loss,
    {"sharpness": 0.0, "negative_sharpness": 1.0},
    "sharpness must be positive, got 0.0",
  ),
  (
    losses.soft_gate_loss,
    {"sharpness": 1.0, "negative_sharpness": -1.0},
    "negative_sharpness must be positive, got -1.0",
  ),
  (losses.geometric_mean_loss, {"clip_low": -0.4, "clip_high": 0.4}, "-0.4"),
  (
    losses.sequence_token_loss,
    {"level": "geometric", "clip_low": 0.1, "clip_high": -0.1, "clamp": None},
    "clip_high must not be negative, got -0.1",
  ),
  (
    losses.sequence_clipped_loss,
    {"level": "sequence", "clip_low": 0.1, "clip_high": 0.1, "clamp": 0.0},
    "clamp must be positive",
  ),
]


@pytest.mark.parametrize(("function", "options", "message"), BAD)
def test_impossible_options_are_refused(function, options, message):
  with pytest.raises(ValueError, match=message):
    function(*_case(), **options)


def test_an_unknown_level_is_refused(unchecked):
  with pytest.raises(ValueError, match="'row'"):
    losses.sequence_token_loss(
      *_case(), level="row", clip_low=0.1, clip_high=0.1, clamp=None
    )
