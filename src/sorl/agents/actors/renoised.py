"""Acts by plain or re-noised jumps of a shortcut field, usually with several candidates and a verifier of its own."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from sorl.agents.actors.choice import CandidateDraws, GeneratorAndCritic, SoftmaxDraws, choose, draw_candidates
from sorl.agents.actors.interface import AbstractActor, actor_of
from sorl.agents.actors.shortcut import ShortcutActor
from sorl.agents.budget import Budget, Budgets
from sorl.agents.shared.settings import MAX_STEPS
from sorl.functional import shortcut, verifiers
from sorl.system.ranges import refuse_outside


class RenoisedActor(AbstractActor):
    """Samples candidates by jumps of a shortcut field with fresh noise before each, and chooses one by its verifier.

    Without `renoise` the jumps are those of `ShortcutActor`. All of a decision's noise is in its draws, one row for
    each jump of each candidate, so that an action is a deterministic function of them.
    """

    hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of the field's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True)
    """Number of critic heads."""
    discretization_steps: int = eqx.field(static=True)
    """M^disc: steps of the finest grid that the field was trained on, a power of two."""
    backprop_steps: int = eqx.field(static=True)
    """M^BTT: the largest number of plain jumps in the training of the critic, a power of two."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True)
    """How the critic heads' values are aggregated, unless `verifier_pessimism` is set."""
    critic_sees_steps: bool = eqx.field(static=True, default=True)
    """Whether the number of jumps is an input of the critic."""
    chunk: int = eqx.field(static=True, default=1)
    """Number of actions per decision."""
    renoise: int = eqx.field(static=True, default=0)
    """K: the number of re-noised jumps in training; 0: plain jumps."""
    verifier_pessimism: float | None = eqx.field(static=True, default=None)
    """rho: candidates are chosen by the mean minus rho standard deviations of the heads; a budget can override it."""
    candidates: int = eqx.field(static=True, default=1)
    """N of the usual budget."""
    usual_steps: int | None = eqx.field(static=True, default=None)
    """Number of jumps of the usual budget; None: `renoise`, or that of `ShortcutActor`."""

    def __check_init__(self):
        _ = self._plain  # raises if the sizes are invalid
        refuse_outside(self, renoise=(0, MAX_STEPS), usual_steps=(1, MAX_STEPS))

    @property
    def budgets(self) -> Budgets:
        """As `ShortcutActor`, with a usual budget of its own, whose numbers are also evaluated by default."""
        plain = self._plain.budgets
        fixed = self.usual_steps or self.renoise
        if not fixed and self.candidates == 1:
            return plain
        steps = fixed or plain.usual.inference_steps
        budgets = plain._replace(
            usual=Budget(steps, self.candidates),
            inference_steps=tuple(sorted({*plain.inference_steps, steps})),
            candidates=tuple(sorted({1, self.candidates, 8})),
            candidates_because="",
        )
        return budgets._replace(trained_steps=(self.renoise,)) if self.renoise else budgets

    def template(self, observation_size: int, action_size: int) -> PyTree:
        """The field and the critic."""
        return self._plain.template(observation_size, action_size)

    def critic_steps(self, budget: Budget) -> int:
        """The number of jumps that the critic sees at a budget."""
        return (budget.critic_conditioning or self.renoise) if self.renoise else self._plain.critic_steps(budget)

    def draw_action(self, action_size: int, budget: Budget, *, key: Key[Array, ""]) -> CandidateDraws:
        """Noise for each candidate, and for each of its jumps if they are re-noised; Gumbel noise if the choice is
        random."""
        shape = (budget.inference_steps, action_size) if self.renoise else (action_size,)
        return draw_candidates(shape, budget, key=key)

    def act(
        self,
        networks: GeneratorAndCritic,
        observation: Float[Array, " observation"],
        draws: CandidateDraws,
        budget: Budget,
    ) -> Float[Array, " action"]:
        """Samples `budget.candidates` actions and returns one of them, chosen by the budget's verifier or its own."""
        budget = self._with_own_verifier(budget)
        if not self.renoise:
            return self._plain.act(networks, observation, draws, budget)
        dtype = (draws.noise if isinstance(draws, SoftmaxDraws) else draws).dtype
        critic_steps = jnp.asarray(float(self.critic_steps(budget)), dtype)

        def candidate(noise):
            return shortcut.renoised_sample(networks.generator, observation, noise, self.discretization_steps)

        def value(action):
            return networks.critic(observation, action, critic_steps)

        return choose(candidate, value, draws, budget, self.q_aggregation)

    @property
    def _plain(self) -> ShortcutActor:
        return actor_of(ShortcutActor, self)

    def _with_own_verifier(self, budget: Budget) -> Budget:
        """The budget with the verifier of `verifier_pessimism`, unless the budget names an aggregation of the heads."""
        if self.verifier_pessimism is None:
            return budget
        own, asked = verifiers.LowerBound(self.verifier_pessimism), budget.verifier
        if asked is None:
            return dataclasses.replace(budget, verifier=own)
        if isinstance(asked, verifiers.Softmax) and asked.heads is None:
            return dataclasses.replace(budget, verifier=verifiers.Softmax(asked.temperature, own))
        return budget
