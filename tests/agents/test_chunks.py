"""Agents whose policy gives several actions at once, and n-step returns, in losses and through the command line."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Fql, Ifql, Sorl, SorlPlus, SorlReleased, Window, load_policy
from sorl.agents import AGENTS
from sorl.config.options import read_config
from sorl.data.transitions import Dataset
from sorl.runs.metrics import read_metrics
from sorl.train import __main__ as train, loop

from .. import synthetic


CHUNKED = [Sorl, SorlReleased, SorlPlus, Fql, Ifql]


def _losses(agent: Any, state: Any, batch: Any) -> dict[str, Any]:
    draws = agent.draw(len(batch.reward), batch.action.shape[-1], key=jax.random.key(1))
    return agent.losses(state, batch, draws, agent.draw_shared(jnp.int32(0), key=jax.random.key(2)))


@pytest.mark.parametrize("agent_class", CHUNKED)
def test_what_reaches_beyond_a_trajectorys_end_changes_no_loss(agent_class):
    agent = synthetic.tiny(agent_class, chunk=3)
    dataset = synthetic.dataset(trajectories=4, length=8)
    # Four windows at the beginning of a trajectory, and four that reach beyond its end.
    indices = jnp.array([0, 1, 7, 8, 5, 6, 12, 13], jnp.int32)
    batch = jax.jit(Dataset.take, static_argnums=2)(dataset, indices, agent.window, 0.9)
    assert batch.valid is not None and batch.valid.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    action, reward, after = (np.array(leaf) for leaf in (batch.action, batch.reward, batch.next_observation))
    # The last four are made up.
    action[4:], reward[4:], after[4:] = 1 - action[4:], 100.0, -after[4:]
    changes = {"action": action, "reward": reward, "next_observation": after}
    other = dataclasses.replace(batch, **{name: jnp.asarray(leaf) for name, leaf in changes.items()})
    state = jax.jit(lambda key: agent.init(4, 3 * 2, key=key))(jax.random.key(0))
    losses = jax.jit(_losses)
    found, expected = losses(agent, state, other), losses(agent, state, batch)
    assert found == expected
    changed = losses(agent, state, dataclasses.replace(other, valid=jnp.ones(8)))
    assert {name for name in found if found[name] != changed[name]} >= {"critic_loss", "flow_matching_loss"}


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_that_learns_values_takes_n_steps(name):
    agent: Any = synthetic.tiny(AGENTS[name])
    assert agent.window == Window()
    assert hasattr(agent, "n_step") == hasattr(agent, "discount")
    if hasattr(agent, "n_step"):
        with pytest.raises(ValueError, match="n_step is 0; give a whole number >= 1"):
            synthetic.tiny(AGENTS[name], n_step=0)
        assert synthetic.tiny(AGENTS[name], n_step=7).window.steps == 7
    assert hasattr(agent, "chunk") == (AGENTS[name] in CHUNKED)
    assert agent.actor.actions_at_once == 1
    if hasattr(agent, "chunk"):
        with pytest.raises(ValueError, match="chunk is 0; give a whole number >= 1"):
            synthetic.tiny(AGENTS[name], chunk=0)
        assert synthetic.tiny(AGENTS[name], chunk=5).actor.actions_at_once == 5


def test_n_step_returns_reach_the_td_target():
    """With a discount of 0.5 and rewards of 1, the targets of untrained values differ in what is bootstrapped."""
    dataset = dataclasses.replace(synthetic.dataset(2, 40), rewards=jnp.ones(80), masks=jnp.ones(80))

    def target(n_step):
        agent = synthetic.tiny(AGENTS["Iql"], n_step=n_step, discount=0.5)
        state = agent.init(4, 2, key=jax.random.key(0))
        batch = dataset.take(jnp.arange(30, dtype=jnp.int32), agent.window, 0.5)
        value = jnp.mean(jax.vmap(state.values.value)(batch.next_observation))
        losses = agent.losses(state, batch, (), ())
        return losses["target_q_mean"] - 0.5**n_step * value

    found = jax.jit(lambda: [target(1), target(3)])()
    np.testing.assert_allclose(found, [1.0, 1.75], rtol=1e-5)


def test_chunks_and_n_steps_are_learned_through_the_command_line(tmp_path):
    """Each action is the opposite of the one before, and each step is worth 1, so that every chunk is worth 2."""
    random = np.random.default_rng(0)
    sign = np.where(np.arange(600) % 2, 1.0, -1.0) * np.repeat(random.choice([-1.0, 1.0], 30), 20)
    np.savez(
        tmp_path / "logs.npz",
        observations=random.normal(size=(600, 2)),
        actions=0.8 * sign[:, None] + random.normal(0, 0.02, (600, 1)),
        rewards=np.ones(600),
        terminals=np.zeros(600),
        timeouts=np.arange(600) % 20 == 19,
    )
    run = tmp_path / "run"
    words = ["agent:ifql", "--data", str(tmp_path / "logs.npz"), "--run-dir", str(run), "--seeds", "0", "--quiet"]
    words += ["--agent.chunk", "2", "--agent.n-step", "3", "--agent.discount", "0.5", "--agent.expectile", "0.5"]
    words += ["--agent.hidden-sizes", "32", "--agent.critic-hidden-sizes", "16", "--agent.learning-rate", "3e-3"]
    words += ["--agent.target-rate", "0.05", "--batch-size", "64", "--updates", "1000", "--log-interval", "100"]
    assert train.main([*words, "--checkpoint-interval", "1000", "--no-compilation-cache"]) == 0
    assert read_metrics(run)[-1]["training/q_mean"] == pytest.approx(2.0, abs=0.1)
    agent: Any = read_config(run / "config.json").agent
    assert (agent.chunk, agent.n_step, agent.window.steps) == (2, 3, 3)
    policy = load_policy(run)
    assert policy.chunk == 2
    actions = policy(np.zeros((200, 2)), key=jax.random.key(0), candidates=1)[..., 0]
    assert actions.shape == (200, 2)
    # Both signs are in the data, and within a chunk each follows the other.
    assert 0.2 < np.mean(actions[:, 0] > 0) < 0.8
    assert np.corrcoef(actions.T)[0, 1] < -0.8


def test_a_state_of_chunks_has_networks_of_their_size():
    agent = synthetic.tiny(Sorl, chunk=5)
    state = loop.init(agent, synthetic.dataset(), (0,), batch_size=8)
    assert state.agent.field.mlp.layers[-1].bias.shape == (1, 5 * 2)
