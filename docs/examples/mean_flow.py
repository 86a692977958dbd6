"""MeanFlow with a Q loss: an agent in a file of its own, which `--agent-module` makes known to every command."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

import sorl
from sorl.agents.actors import CandidateDraws, GeneratorAndCritic, actor_of, choose, draw_candidates, structure
from sorl.agents.shared.flow_agent import td_loss
from sorl.functional import optimisation, td
from sorl.networks import MLP, CriticEnsemble


def u(field: MLP, x: Array, z: Array, r: Array, t: Array) -> Float[Array, " action"]:
    """The average velocity of the flow over the times [r, t] that ends in z; time 0 is data, time 1 is noise."""
    return field(jnp.concatenate([x, z, r[None], t[None]]))


def sample(field: MLP, x: Array, z: Array, steps: int) -> Float[Array, " action"]:
    """An action in `steps` jumps from noise z: z_r = z_t - (t - r) u(z_t, r, t)."""
    for step in range(steps, 0, -1):
        r, t = jnp.asarray((step - 1) / steps, z.dtype), jnp.asarray(step / steps, z.dtype)
        z = z - (t - r) * u(field, x, z, r, t)
    return jnp.clip(z, -1.0, 1.0)


class MeanFlowActor(sorl.AbstractActor):
    """Samples candidates in any number of jumps, and chooses the one that the critic values most."""

    hidden_sizes: tuple[int, ...] = eqx.field(static=True)

    @property
    def budgets(self) -> sorl.Budgets:
        return sorl.Budgets(sorl.Budget(1), (1, 2, 4), (1, 8), (1,), True, True, other_verifiers=True)

    def networks(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> GeneratorAndCritic:
        field_key, critic_key = jax.random.split(key)
        inputs, sizes = observation_size + action_size + 2, self.hidden_sizes
        field = MLP(inputs, action_size, sizes, layer_norm=False, key=field_key)
        critic = CriticEnsemble(observation_size, action_size, sizes, sees_steps=False, key=critic_key)
        return GeneratorAndCritic(field, critic)

    def template(self, observation_size: int, action_size: int) -> PyTree:
        return structure(lambda key: self.networks(observation_size, action_size, key=key))

    def draw_action(self, action_size: int, budget: sorl.Budget, *, key: Key[Array, ""]) -> CandidateDraws:
        return draw_candidates((action_size,), budget, key=key)

    def act(self, networks: GeneratorAndCritic, observation: Array, draws: CandidateDraws, budget: sorl.Budget):
        field, critic = networks.generator, networks.critic
        candidate = partial(sample, field, observation, steps=budget.inference_steps)
        return choose(candidate, partial(critic, observation), draws, budget, "mean")


class MeanFlowState(eqx.Module):
    """Everything that training changes for one seed."""

    networks: GeneratorAndCritic
    target_critic: CriticEnsemble
    field_optimiser: PyTree
    critic_optimiser: PyTree


class MeanFlowDraws(eqx.Module):
    """The random draws of one update: noise of the flow, the Q loss and the TD target; times r <= t."""

    noise: Float[Array, "*seeds 3 batch action"]
    times: Float[Array, "*seeds 2 batch"]


@sorl.register_agent
class MeanFlow(sorl.AbstractAgent):
    """A MeanFlow policy (Geng et al. 2025, "Mean Flows for One-step Generative Modeling") that also climbs Q.

    - critic: (Q(x, a) - reward - discount * mean Qbar(x', F(x', z)))^2, F(x, z) = z - u(z, 0, 1 | x), clipped
    - field: |u(z_t, r, t | x) - sg(v - (t - r) (v du/dz + du/dt))|^2, with z_t = (1 - t) a + t z and v = z - a
    - Q loss: -mean Q(x, F(x, z)) / mean |Q|
    """

    metric_descriptions = {"mean_flow_loss": "squared error of the average velocity against the MeanFlow identity"}

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the hidden layers of the field and of each critic head, in units."""
    learning_rate: float = 3e-4
    """Adam's learning rate."""
    discount: float = 0.99
    """Discount of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share of the critic that enters its moving average at each update."""
    q_coefficient: float = 1.0
    """Weight of the Q loss."""

    @property
    def actor(self) -> MeanFlowActor:
        return actor_of(MeanFlowActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> MeanFlowState:
        new = self.actor.networks(observation_size, action_size, key=key)
        optimisers = optimisation.init(new.generator), optimisation.init(new.critic)
        return MeanFlowState(new, jax.tree.map(jnp.copy, new.critic), *optimisers)

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> MeanFlowDraws:
        noise_key, time_key = jax.random.split(key)
        times = jnp.sort(jax.random.uniform(time_key, (2, batch_size), jnp.float32), axis=0)
        # Half of the rows have r = t, where the target is the velocity itself.
        times = times.at[0, : batch_size // 2].set(times[1, : batch_size // 2])
        return MeanFlowDraws(jax.random.normal(noise_key, (3, batch_size, action_size), jnp.float32), times)

    def draw_shared(self, step: Array, *, key: Key[Array, ""]) -> tuple[()]:
        return ()

    def update(self, state: MeanFlowState, batch: sorl.Transition, draws: MeanFlowDraws, shared: tuple[()]):
        old, step = state.networks, partial(optimisation.step, learning_rate=self.learning_rate)
        gradient, metrics = jax.grad(self._critic_loss, has_aux=True)(old.critic, state, batch, draws)
        critic, critic_optimiser, metrics["critic_grad_norm"] = step(gradient, state.critic_optimiser, old.critic)
        gradient, more = jax.grad(self._policy_loss, has_aux=True)(old.generator, critic, batch, draws)
        field, field_optimiser, more["policy_grad_norm"] = step(gradient, state.field_optimiser, old.generator)
        average = optimisation.moving_average(critic, state.target_critic, self.target_rate)
        networks = GeneratorAndCritic(field, critic)
        return MeanFlowState(networks, average, field_optimiser, critic_optimiser), metrics | more

    def losses(self, state: MeanFlowState, batch: sorl.Transition, draws: MeanFlowDraws, shared: tuple[()]):
        field, critic = state.networks.generator, state.networks.critic
        return self._critic_loss(critic, state, batch, draws)[1] | self._policy_loss(field, critic, batch, draws)[1]

    def policy(self, state: MeanFlowState) -> GeneratorAndCritic:
        return state.networks

    def _critic_loss(self, critic, state: MeanFlowState, batch: sorl.Transition, draws: MeanFlowDraws):
        field = state.networks.generator
        next_action = jax.vmap(lambda x, z: sample(field, x, z, 1))(batch.next_observation, draws.noise[2])
        return td_loss(critic, state.target_critic, batch, next_action, aggregation="mean")

    def _policy_loss(self, field, critic, batch: sorl.Transition, draws: MeanFlowDraws):
        def error(x, a, noise, r, t):
            v, z = noise - a, (1 - t) * a + t * noise
            # The total derivative along the path: z moves by v, r stays, t moves by 1.
            tangents = v, jnp.zeros_like(r), jnp.ones_like(t)
            average, change = jax.jvp(lambda z, r, t: u(field, x, z, r, t), (z, r, t), tangents)
            return jnp.mean((average - jax.lax.stop_gradient(v - (t - r) * change)) ** 2)

        mean_flow = jnp.mean(jax.vmap(error)(batch.observation, batch.action, draws.noise[0], *draws.times))
        q = jax.vmap(lambda x, z: critic(x, sample(field, x, z, 1)))(batch.observation, draws.noise[1])
        q_loss = td.policy_q_loss(q)
        loss = mean_flow + self.q_coefficient * q_loss
        return loss, {"mean_flow_loss": mean_flow, "q_loss": q_loss, "policy_loss": loss, "policy_q_mean": jnp.mean(q)}
