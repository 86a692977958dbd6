"""SORL's training in its simplest form, with plain losses and optax and without optimisations for speed.

The networks, the mathematics and the random numbers are those of `sorl.train.loop` with `sorl.Sorl`; the benchmark's
test compares their results.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from sorl import Dataset, Sorl
from sorl.agents.shared.shortcut_agent import consistency_levels
from sorl.functional import shortcut, td
from sorl.functional.optimisation import AdamState
from sorl.train import loop


def field_velocity(field, observation, action, time, log2_steps):
    """The velocity of the shortcut field, by calling its Equinox layers one by one."""
    x = jnp.concatenate([observation, action, time[None], log2_steps[None]])
    for layer in field.mlp.layers[:-1]:
        x = jax.nn.gelu(layer(x), approximate=True)
    return field.mlp.layers[-1](x)


def critic_values(critic, observation, action, steps):
    """One value for each head of the critic."""

    def value(head):
        x = jnp.concatenate([observation, action, steps[None]])
        for layer, norm in zip(head.layers[:-1], head.norms, strict=True):
            x = norm(jax.nn.gelu(layer(x), approximate=True))
        return head.layers[-1](x)[0]

    return eqx.filter_vmap(value)(critic.heads)


@partial(jax.jit, static_argnames="batch_size", donate_argnames="state")
def train(
    agent: Sorl, *, state: Any, dataset: Dataset, key: Any, first: Any, last: Any, batch_size: int
) -> tuple[Any, Any]:
    """Makes the updates from step `first` up to, but not including, `last`; also sums their metrics."""

    def step(number, carry):
        state, sums = carry
        batch, draws = loop.draw(agent, key, number, dataset, batch_size=batch_size)
        state, metrics = update(agent, state, batch, draws, loop.draw_shared(agent, number))
        return state, jax.tree.map(jnp.add, sums, metrics)

    names = "critic_loss", "critic_grad_norm", "policy_loss", "policy_grad_norm"
    return jax.lax.fori_loop(first, last, step, (state, {name: jnp.float32(0) for name in names}))


def update(agent: Sorl, state: Any, batch: Any, draws: Any, shared: Any) -> tuple[Any, dict[str, Any]]:
    """One update: a critic step, a policy step, and the moving averages."""
    optimiser = optax.chain(optax.clip_by_global_norm(agent.max_grad_norm), optax.adam(agent.learning_rate))
    levels = jnp.asarray(consistency_levels(len(batch.reward), agent.discretization_steps), batch.reward.dtype)
    field = partial(field_velocity, state.field)

    # Q of the actions that the policy draws from `noise` in `steps` jumps.
    def values(critic, field, observations, noise, steps):
        def value(observation, start):
            action = shortcut.sample(field, observation, start, steps)
            return critic_values(critic, observation, action, jnp.float32(steps))

        return jax.vmap(value)(observations, noise)

    # The TD loss: Q of the logged action against reward plus discounted target Q of the policy's next action.
    def critic_loss(critic, *, steps):
        next_q = values(state.target_critic, field, batch.next_observation, draws.target_noise, steps)
        target = td.td_target(batch.reward, batch.discount, next_q, aggregation=agent.q_aggregation)
        q = jax.vmap(lambda x, a: critic_values(critic, x, a, jnp.float32(steps)))(batch.observation, batch.action)
        return td.td_loss(q, target)

    # The policy's loss: flow matching and self-consistency clone the data, the Q loss improves on it.
    def policy_loss(network, *, critic, steps):
        field, teacher = partial(field_velocity, network), partial(field_velocity, state.target_field)
        logged = batch.observation, batch.action
        flow = shortcut.flow_matching_loss(
            jax.vmap(field), *logged, draws.flow_noise, draws.flow_time, agent.discretization_steps
        )
        consistency = shortcut.self_consistency_loss(
            jax.vmap(field), jax.vmap(teacher), *logged, draws.consistency_noise, draws.consistency_time, levels
        )
        q = values(critic, field, batch.observation, draws.policy_noise, steps)
        q_loss = td.policy_q_loss(q)
        cloning = agent.flow_matching_coefficient * flow + agent.self_consistency_coefficient * consistency
        return cloning + agent.q_coefficient * q_loss

    # One step of Adam. The loss has a branch for each jump count, because XLA needs a fixed number of jumps.
    def step(name, loss, network, optimiser_state, index):
        branches = [partial(jax.value_and_grad(loss), steps=steps) for steps in agent.step_counts]
        value, gradient = jax.lax.switch(index, branches, network)
        moments = optax.ScaleByAdamState(optimiser_state.count, optimiser_state.mean, optimiser_state.variance)
        before: Any = optax.EmptyState(), (moments, optax.EmptyState())
        after: Any
        updates, after = optimiser.update(gradient, before, network)
        adam: Any = after[1][0]
        optimiser_state = AdamState(adam.count, adam.mu, adam.nu)
        metrics = {f"{name}_loss": value, f"{name}_grad_norm": optax.tree.norm(gradient)}
        return optax.apply_updates(network, updates), optimiser_state, metrics

    # The critic is updated first, and the policy follows the new critic.
    critic, critic_optimiser, critic_metrics = step(
        "critic", critic_loss, state.critic, state.critic_optimiser, shared.target_steps
    )
    network, field_optimiser, policy_metrics = step(
        "policy", partial(policy_loss, critic=critic), state.field, state.field_optimiser, shared.policy_steps
    )
    averages = {
        "target_field": optax.incremental_update(network, state.target_field, agent.target_rate),
        "target_critic": optax.incremental_update(critic, state.target_critic, agent.target_rate),
    }
    optimisers = {"field_optimiser": field_optimiser, "critic_optimiser": critic_optimiser}
    state = type(state)(field=network, critic=critic, **averages, **optimisers)
    return state, critic_metrics | policy_metrics
