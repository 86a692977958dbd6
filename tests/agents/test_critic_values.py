"""Every policy's own critic can be asked, at any budget, for the values of actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.agents import AGENTS, Sorl
from sorl.agents.actors import GeneratorAndCritic, critic_values

from .. import synthetic
from ..random_networks import make_policy


OBSERVATIONS = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
ACTIONS = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (5, 2)), jnp.float32)


@pytest.mark.parametrize("name", list(AGENTS))
def test_values_have_a_column_for_each_head_if_the_policy_holds_a_critic(name):
    agent = synthetic.tiny(AGENTS[name])
    networks = make_policy(agent, 3, 2, seed=0)
    values = jax.jit(critic_values)(agent.actor, networks, OBSERVATIONS, ACTIONS, agent.actor.budgets.usual)
    if isinstance(networks, GeneratorAndCritic):
        assert values is not None and values.shape == (5, agent.actor.critic_heads)
    else:
        assert values is None


def test_a_critic_that_sees_steps_is_asked_about_those_of_the_budget():
    agent = synthetic.tiny(Sorl)  # trained for up to two jumps
    networks = make_policy(agent, 3, 2, seed=0)
    budgets = agent.actor.budgets.grid((1, 2, 8), (1,), final=False)
    for budget, steps in zip(budgets, (1.0, 2.0, 2.0), strict=True):
        expected = networks.critic(OBSERVATIONS, ACTIONS, jnp.full(5, steps))
        np.testing.assert_array_equal(critic_values(agent.actor, networks, OBSERVATIONS, ACTIONS, budget), expected)
