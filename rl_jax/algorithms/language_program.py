"""The program of online policy optimisation: sample, judge, update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from rl_jax.algorithms.language_batches import (
  Rows,
  dealt,
  measured,
  responses_of,
)
from rl_jax.algorithms.language_parts import (
  Trainable,
  critic_state,
  other_models,
  separately,
  text_metrics,
  trainable,
)
from rl_jax.algorithms.parts import evaluation_of, fresh_state, whole_axes
from rl_jax.algorithms.refill import Refill
from rl_jax.algorithms.responses import (
  Responses,
  by_parts,
  response_hidden,
  response_score,
)
from rl_jax.algorithms.rollouts import (
  PROMPT,
  found_by_judge,
  rollouts_of,
  shared_prompts,
)
from rl_jax.algorithms.view import View
from rl_jax.divergences import k3
from rl_jax.losses import explained_variance
from rl_jax.reduce import Total, over_tokens
from rl_jax.training.optimisers import Learner, optimise
from rl_jax.training.state import Program, State
from rl_jax.training.step import merged
from rl_jax.types import TextRollouts

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Float, Key, PyTree

__all__ = ["policy_program"]


def policy_program(
  settings: Any, experiment: Any, load: Callable[[Any], PyTree]
) -> Program:
  """The program of `PolicyOptimisation`.

  Args:
    settings: a `PolicyOptimisation`.
    experiment: has `model`, `data`, `reward`, `evaluation` and `start`.
    load: parameters of what an experiment starts from.

  Returns:
    The program.

  Raises:
    ValueError: if parts of the experiment do not fit each other.
  """
  return _Built(settings, experiment, load).program()


class _Built:
  """The functions of a program, with what they share."""

  def __init__(
    self,
    settings: Any,
    experiment: Any,
    load: Callable[[Any], PyTree],
  ) -> None:
    self.settings, self.experiment = settings, experiment
    self.data, self.reward = experiment.data, experiment.reward
    if self.reward is None:
      raise ValueError(f"{experiment.name}: online training needs a reward")
    self.rows = self.data.rows * settings.group_size
    parts = settings.minibatches * settings.micro_batches
    if self.rows % parts:
      raise ValueError(
        f"{self.data.rows} prompts x {settings.group_size} responses ="
        f" {self.rows} rows cannot be split into {settings.minibatches}"
        f" minibatches of {settings.micro_batches} micro-batches"
      )
    # The judge fills these while the models are asked: not theirs to see.
    self.found = found_by_judge(settings.sampler, self.reward)
    settings.sampler.check_model(experiment.model, self.data.length)
    settings.recipe.check_given(
      frozenset(self.data.layout).difference(PROMPT) | self.found.keys()
    )
    self.policy: Trainable = trainable(
      experiment.model,
      experiment.start,
      load,
      reference=settings.reference,
    )
    self.evaluation = evaluation_of(experiment, load)
    self.optimiser = settings.optimiser()
    self.shared = shared_prompts(
      settings, experiment.model, prompt=self.data.length
    )
    self.critic = settings.critic
    self.refill = Refill(self.data.rows, settings.group_size)
    self.judge = getattr(self.reward, "judge", None)
    others = {f"network/{k}": v for k, v in settings.recipe.networks.items()}
    if self.judge is not None:
      others["judge"] = self.judge
    more, axes = other_models(others, load)
    self.frozen = self.policy.frozen | more
    self.frozen_axes = self.policy.frozen_axes | axes
    self.critic_start = getattr(self.critic, "start", None)
    if self.critic_start is not None:
      self.critic_start = load(self.critic_start)

  @property
  def temperature(self) -> float:
    """Of log-probabilities."""
    own = self.settings.temperature
    return self.settings.sampler.temperature if own is None else own

  def program(self) -> Program:
    evaluation = self.evaluation
    frozen, axes = self.frozen, self.frozen_axes
    if evaluation is not None:
      frozen = frozen | {"evaluation": evaluation.frozen}
      axes = axes | {"evaluation": whole_axes(evaluation.frozen)}

    def evaluate(state: State, frozen: PyTree) -> tuple[Any, Any]:
      assert evaluation is not None
      params, adapter = self.policy.parts(state.params, frozen)
      return evaluation.function(
        state._replace(params=(params, adapter)), frozen["evaluation"]
      )

    first: dict[str, tuple[float, float]] = {}
    alike = self.temperature == self.settings.sampler.temperature
    # In half precision two compiled passes round differently.
    loose = 1.0 if self.experiment.model.dtype == "float32" else 100.0
    if alike:
      first["sampler_gap"] = (0.0, 1e-3 * loose)
    if alike or self.settings.behaviour != "sampler":
      first["first_ratio"] = (1.0, 1e-4 * loose)
    if self.settings.reference:
      first["first_kl"] = (0.0, 1e-6 * loose)
    return Program(
      init=self.init,
      collect=self.collect,
      signals=self.signals,
      score=self.reward.bind(self.data),
      update=self.update,
      params_axes=self.policy.axes,
      frozen=frozen,
      frozen_axes=axes,
      evaluate=evaluate if evaluation else None,
      evaluate_every=evaluation.every if evaluation else 1,
      inspect=evaluation.inspect if evaluation else None,
      first_step=first,
      start=self._begun if self.critic_start is not None else None,
    )

  def _begun(self, start: PyTree | None) -> tuple[PyTree | None, PyTree]:
    return start, self.critic_start

  def init(self, key: Key[Array, ""], start: Any) -> State:
    critic_start = None
    if self.critic_start is not None:
      start, critic_start = start
    params = self.policy.init(key, start)
    memory: dict[str, PyTree] = {}
    if recipe := self.settings.recipe.init(self.data.rows):
      memory["recipe"] = recipe
    if self.settings.reference and "reference" not in self.policy.frozen:
      memory["reference"] = params
    if self.settings.refresh > 1:
      memory["behaviour"] = params
    if self.critic is not None:
      memory["critic"] = critic_state(self.critic, key, params, critic_start)
    # Copies: nothing that is donated may be held twice.
    memory = jax.tree.map(jnp.copy, memory)
    state = fresh_state(key, params, self.optimiser, memory)
    if self.settings.refill:
      memory["waiting"] = self.refill.empty(self._example(state))
    return state

  def collect(self, state: State, frozen: PyTree, items: Any) -> TextRollouts:
    acting = self.policy.parts(self._acting(state), frozen)
    return rollouts_of(self.settings, self.experiment, acting, items, state)

  def signals(
    self, state: State, frozen: PyTree, rollouts: TextRollouts
  ) -> dict[str, Any]:
    """What only the models can say, while the responses are judged."""
    settings = self.settings
    acting, adapter = self.policy.parts(self._acting(state), frozen)

    def ask(rows: tuple[Responses, Any, Any]) -> dict[str, Any]:
      found: dict[str, Any] = {}
      responses, given, key = rows
      view = View(
        model=self.experiment.model,
        params=acting,
        adapter=adapter,
        temperature=self.temperature,
        scoring=settings.scoring,
        responses=responses,
        shared=self.shared,
        extra=given,
        key=jax.random.wrap_key_data(key),
        networks={
          name: (start.by.model, frozen[f"network/{name}"])
          for name, start in settings.recipe.networks.items()
        },
      )
      if settings.behaviour == "recomputed" or settings.reference:
        found["behaviour_log_prob"] = view.scores.log_prob
      if settings.recipe.asks:
        found["asked"] = settings.recipe.ask(view)
      if settings.reference:
        kept = frozen if "reference" in frozen else state.memory
        reference = self._scores(kept["reference"], frozen, responses)
        found["reference_log_prob"] = reference.log_prob
      if self.critic is not None:
        critic = state.memory["critic"]["params"]
        found["behaviour_value"] = self._value(critic, responses)
      if self.judge is not None:
        model, own = self.judge.by.model, frozen["judge"]
        found["score"] = response_score(model, own, responses)
      return found

    parts = settings.minibatches * settings.micro_batches
    given = {
      name: value
      for name, value in rollouts.extra.items()
      if name not in self.found
    }
    whole = responses_of(rollouts), given, rollouts.key
    return by_parts(ask, whole, parts)

  def update(
    self, state: State, frozen: PyTree, batch: tuple[TextRollouts, Any]
  ) -> tuple[State, dict[str, Total]]:
    def learn(state: State, rollouts: TextRollouts, signals: Any):
      return self._learn(state, frozen, rollouts, signals)

    rollouts, signals = batch
    if self.judge is not None:
      rollouts = self.reward.settled(rollouts, signals["score"])
    if self.settings.refill:
      whole = rollouts, signals
      state, metrics = self.refill.update(learn, state, whole)
    else:
      state, metrics = learn(state, rollouts, signals)
    metrics |= text_metrics(rollouts, num_groups=self.data.rows)
    state = state._replace(step=state.step + 1)
    if self.settings.refresh > 1:
      now = state.step % self.settings.refresh == 0
      memory = dict(state.memory)
      memory["behaviour"] = jax.tree.map(
        lambda new, old: jnp.where(now, new, old),
        state.params,
        memory["behaviour"],
      )
      state = state._replace(memory=memory)
    return state, metrics

  def _learn(
    self, state: State, frozen: PyTree, rollouts: TextRollouts, signals: Any
  ) -> tuple[State, dict[str, Total]]:
    """The updates of a full batch."""
    settings, memory = self.settings, dict(state.memory)
    groups = self.data.rows
    rows, whole = measured(
      settings,
      rollouts,
      signals,
      num_groups=groups,
      memory=memory.get("recipe", {}),
    )
    if whole.memory:
      memory["recipe"] = whole.memory
    batches = dealt(settings, state, rows, num_groups=groups)
    params: dict[str, PyTree] = {"policy": state.params}
    optimiser, own = {"policy": self.optimiser}, {"policy": state.optimiser}
    if self.critic is not None:
      critic = memory["critic"]
      params["critic"], own["critic"] = critic["params"], critic["optimiser"]
      optimiser["critic"] = self.critic.optimiser()
    learner, metrics = optimise(
      lambda params, part: self._loss(params, frozen, part),
      dict.fromkeys(self.settings.recipe.fills, 1.0),
      separately(optimiser),
      Learner(params, own),
      batches,
      micro_batches=settings.micro_batches,
    )
    first = jax.tree.map(lambda x: x[0], metrics)
    metrics = merged(metrics) | whole.metric
    metrics["first_ratio"] = first["ratio"]
    if settings.reference:
      pair = signals["behaviour_log_prob"], signals["reference_log_prob"]
      nats = k3(*pair, rollouts.mask)
      metrics["first_kl"] = over_tokens(nats, rollouts.mask)
    if settings.behaviour == "recomputed" or settings.reference:
      gap = jnp.abs(rollouts.log_prob - signals["behaviour_log_prob"])
      metrics["sampler_gap"] = over_tokens(gap, rollouts.mask)
    else:
      metrics["sampler_gap"] = first["sampler_gap"]
    policy = Learner(learner.params["policy"], learner.optimiser["policy"])
    if self.critic is not None:
      memory["critic"] = {
        "params": learner.params["critic"],
        "optimiser": learner.optimiser["critic"],
      }
      value, target = rows.batch.behaviour_value, rows.signals.target
      if value is not None and target is not None:
        said = explained_variance(value, target, rows.signals.mask)
        share = Total(said.fraction(), jnp.ones(()))
        metrics["explained_variance"] = share
      begun = state.step >= self.critic.warm_up
      before = Learner(state.params, state.optimiser)
      policy = jax.tree.map(
        lambda new, old: jnp.where(begun, new, old), policy, before
      )
    state = state._replace(
      params=policy.params, optimiser=policy.optimiser, memory=memory
    )
    return state, metrics

  def _loss(
    self, params: PyTree, frozen: PyTree, rows: Rows
  ) -> tuple[dict[str, Total], dict[str, Total]]:
    scores = self._scores(params["policy"], frozen, rows.responses)
    mask = rows.signals.mask
    batch = rows.batch._replace(log_prob=scores.log_prob)
    if self.settings.behaviour in ("same", "interleaved"):
      same = jax.lax.stop_gradient(scores.log_prob)
      batch = batch._replace(behaviour_log_prob=same)
    if self.critic is not None:
      value = self._value(params["critic"], rows.responses)
      batch = batch._replace(value=value)
    totals = self.settings.recipe.terms(batch, rows.signals)
    terms = {name: getattr(totals, name) for name in self.settings.recipe.fills}
    change = scores.log_prob - batch.behaviour_log_prob
    gap = jnp.abs(scores.log_prob - batch.sampler_log_prob)
    metrics = {
      "ratio": over_tokens(jnp.exp(jnp.where(mask, change, 0.0)), mask),
      "clipped": totals.clipped,
      "entropy": over_tokens(scores.entropy, mask),
      "sampler_gap": over_tokens(gap, mask),
      "absolute_advantage": over_tokens(jnp.abs(rows.signals.advantage), mask),
    }
    if batch.reference_log_prob is not None:
      nats = k3(scores.log_prob, batch.reference_log_prob, mask)
      metrics["kl_reference"] = over_tokens(nats, mask)
    return terms, jax.lax.stop_gradient(metrics)

  def _acting(self, state: State) -> PyTree:
    return state.memory.get("behaviour", state.params)

  def _scores(self, params: PyTree, frozen: PyTree, responses: Responses):
    whole, adapter = self.policy.parts(params, frozen)
    return self.settings.scoring(
      self.experiment.model,
      whole,
      responses,
      temperature=self.temperature,
      adapter=adapter,
      shared=self.shared,
    )

  def _value(
    self, params: PyTree, responses: Responses
  ) -> Float[Array, "row time"]:
    assert self.critic is not None
    model = self.critic.model
    return model.value(params, response_hidden(model, params, responses))

  def _example(self, state: State) -> tuple[TextRollouts, Any]:
    """Shapes of what is collected and signalled."""
    items = {
      name: jax.ShapeDtypeStruct(shape, dtype)
      for name, (shape, dtype) in self.data.layout.items()
    }
    rollouts = jax.eval_shape(self.collect, state, self.frozen, items)
    signals = jax.eval_shape(self.signals, state, self.frozen, rollouts)
    return rollouts, signals
