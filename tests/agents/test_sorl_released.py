"""The released update against its numpy transcription, which shares no code with the package."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.agents import Budget, Sorl
from sorl.agents.actors import GeneratorAndCritic
from sorl.agents.shared.shortcut_agent import SorlDraws, SorlSharedDraws
from sorl.agents.sorl_released import SorlReleased, SorlReleasedState
from sorl.functional import optimisation
from sorl.system.accelerators import traced_for

from .. import released_numpy as released
from ..goldens import assert_close, named_arrays
from ..random_networks import ACTION_SIZE, OBSERVATION_SIZE, make_batch, make_critic, make_field


BATCH_SIZE = 7
HIDDEN_SIZES = (5, 5)
SETTINGS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "max_grad_norm": 0.7,
    "discount": 0.9,
    "target_rate": 0.1,
    "flow_matching_coefficient": 2.0,
    "self_consistency_coefficient": 3.0,
    "q_coefficient": 5.0,
}
NUMPY_SETTINGS = released.Settings(
    learning_rate=3e-3,
    clip_norm=0.7,
    discount=0.9,
    tau=0.1,
    aggregate="min",
    fm_weight=2.0,
    sc_weight=3.0,
    q_weight=5.0,
)
NETWORKS = {"actor": "field", "target_actor": "target_field", "critic": "critic", "target_critic": "target_critic"}


def _state(agent):
    networks = {
        "field": make_field(0, jnp.float64, HIDDEN_SIZES),
        "target_field": make_field(1, jnp.float64, HIDDEN_SIZES),
        "critic": make_critic(2, jnp.float64, HIDDEN_SIZES),
        "target_critic": make_critic(3, jnp.float64, HIDDEN_SIZES),
    }
    optimiser = optimisation.init((networks["field"], networks["critic"]))
    return SorlReleasedState(**networks, optimiser=optimiser)


def _numpy_draws(random, td_k, q_k):
    levels = np.array([2.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    noises = {
        name: random.standard_normal((BATCH_SIZE, ACTION_SIZE)) for name in ("td_noise", "fm_x0", "sc_x0", "q_noise")
    }
    return released.Draws(
        td_k=td_k,
        q_k=q_k,
        fm_t_int=random.integers(0, 8, BATCH_SIZE),
        sc_t_int=random.integers(0, 2 ** levels.astype(int)),
        sc_dt_base=levels,
        **noises,
    )


def _our_draws(draws):
    ours = SorlDraws(
        flow_noise=jnp.asarray(draws.fm_x0),
        flow_time=jnp.asarray(draws.fm_t_int / 8),
        consistency_noise=jnp.asarray(draws.sc_x0),
        consistency_time=jnp.asarray(draws.sc_t_int / 2**draws.sc_dt_base),
        policy_noise=jnp.asarray(draws.q_noise),
        target_noise=jnp.asarray(draws.td_noise),
    )
    index = {1: 0, 2: 1}
    return ours, SorlSharedDraws(jnp.array(index[draws.q_k]), jnp.array(index[draws.td_k]))


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_three_updates_equal_the_numpy_transcription(x64, platform):
    @jax.jit
    def update(agent, *inputs):
        with traced_for(platform, alone=True):
            return agent.update(*inputs)

    agent = SorlReleased(backprop_steps=2, q_aggregation="min", **SETTINGS)
    state, batch = _state(agent), make_batch(BATCH_SIZE, dtype=jnp.float64)
    networks = {
        name: {leaf: np.asarray(value) for leaf, value in named_arrays(getattr(state, ours)).items()}
        for name, ours in NETWORKS.items()
    }
    numpy_batch = {
        "obs": np.asarray(batch.observation),
        "act": np.asarray(batch.action),
        "rewards": np.asarray(batch.reward),
        "masks": np.asarray(batch.discount > 0, np.float64),
        "next_obs": np.asarray(batch.next_observation),
    }
    # The agent is an argument: its settings are arrays inside, as in training.
    adam, random = released.Adam(), np.random.default_rng(0)
    for td_k, q_k in ((2, 1), (1, 2), (2, 2)):
        draws = _numpy_draws(random, td_k, q_k)
        before = networks
        networks, losses = released.update(networks, adam, numpy_batch, draws, NUMPY_SETTINGS)
        state, metrics = update(agent, state, batch, *_our_draws(draws))
        for name, ours in NETWORKS.items():
            for leaf, value in named_arrays(getattr(state, ours)).items():
                assert_close(value, networks[name][leaf], 1e-9, f"{name}/{leaf}")
                assert not np.array_equal(networks[name][leaf], before[name][leaf])
        assert set(metrics) == set(losses)
        for name, value in losses.items():
            assert metrics[name] == pytest.approx(value, rel=1e-9), name
    assert adam.count == 6


def test_initialisation_draws_and_decisions_are_those_of_the_sound_method():
    sizes = {"hidden_sizes": (5,), "critic_hidden_sizes": (4,), "q_aggregation": "min", "backprop_steps": 4}
    agent, sound, key = SorlReleased(**sizes), Sorl(**sizes), jax.random.key(0)
    assert agent.step_counts == sound.step_counts == (1, 2, 4)

    budget, policy = Budget(inference_steps=8, candidates=3), GeneratorAndCritic(make_field(), make_critic())
    observation = jnp.ones(OBSERVATION_SIZE)

    def program(agent):
        def everything_shared(key):
            state = agent.init(OBSERVATION_SIZE, ACTION_SIZE, key=key)
            networks = state.field, state.target_field, state.critic, state.target_critic
            draws = agent.draw(6, ACTION_SIZE, key=key), agent.draw_shared(jnp.int32(0), key=key)
            noise = agent.actor.draw_action(ACTION_SIZE, budget, key=key)
            return networks, draws, noise, agent.actor.act(policy, observation, noise, budget)

        return jax.jit(everything_shared).lower(key).as_text()

    # The same program gives the same bits: nothing has to run.
    assert program(agent) == program(sound)


def test_the_policy_is_the_online_networks(x64):
    state = _state(SorlReleased())
    policy = SorlReleased().policy(state)
    assert policy.generator is state.field and policy.critic is state.critic
