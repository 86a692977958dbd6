"""The losses and gradients of `SorlPlus` against a transcription of its formulas in numpy and double precision."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.agents import SorlPlus
from sorl.agents.shared.shortcut_agent import SorlDraws, SorlSharedDraws, SorlState, consistency_levels
from sorl.data.transitions import Transition
from sorl.functional import optimisation

from .. import plus_numpy, released_numpy
from ..goldens import assert_close, named_arrays
from ..random_networks import ACTION_SIZE, make_batch, make_critic, make_field


ROWS, CANDIDATES = 7, 3
ETA, RHO, COEFFICIENTS = 0.2, 0.7, (2.0, 3.0, 5.0)
SETTINGS: dict[str, Any] = {
    "backprop_steps": 2,
    "backup_candidates": CANDIDATES,
    "cloning_weight": ETA,
    "target_pessimism": RHO,
    "learning_rate": 1e-30,  # so that the critic stays, and the optimiser's mean is a tenth of the gradient
    "max_grad_norm": 1e9,
    **dict(
        zip(("flow_matching_coefficient", "self_consistency_coefficient", "q_coefficient"), COEFFICIENTS, strict=True)
    ),
}


class Formulas(NamedTuple):
    """What the formulas give."""

    metrics: dict[str, Any]
    critic_gradient: dict[str, np.ndarray]
    policy_gradient: dict[str, np.ndarray]


@pytest.mark.parametrize("renoise, k", [(0, 2), (3, 3)])
def test_losses_and_gradients_equal_the_numpy_transcription(renoise, k):
    with jax.enable_x64(True):
        state, batch, drawn = _state(), make_batch(ROWS, dtype=jnp.float64), _drawn(renoise, k)
        expected = _by_the_formulas(state, batch, drawn, renoise, k)
        agent, index = SorlPlus(renoise=renoise, **SETTINGS), jnp.int32(0 if renoise else 1)
        after, metrics = jax.jit(SorlPlus.update)(agent, state, batch, _draws(drawn), SorlSharedDraws(index, index))
        for name, value in expected.metrics.items():
            assert metrics[name] == pytest.approx(value, rel=1e-9), name
        for optimiser, gradient in (
            (after.critic_optimiser, expected.critic_gradient),
            (after.field_optimiser, expected.policy_gradient),
        ):
            for leaf, value in named_arrays(optimiser.mean).items():
                assert_close(10 * value, gradient[leaf], 1e-7, leaf)


def _state() -> SorlState:
    makers = {"field": make_field, "target_field": make_field, "critic": make_critic, "target_critic": make_critic}
    networks: dict[str, Any] = {n: make(i, jnp.float64, (5, 5)) for i, (n, make) in enumerate(makers.items())}
    optimisers = optimisation.init(networks["field"]), optimisation.init(networks["critic"])
    return SorlState(**networks, field_optimiser=optimisers[0], critic_optimiser=optimisers[1])


def _drawn(renoise: int, k: int) -> released_numpy.Draws:
    """Noise and times; re-noised jumps have an axis of jumps before the others."""
    random, shape = np.random.default_rng(0), (ROWS, ACTION_SIZE)
    leading = (renoise,) if renoise else ()
    levels = consistency_levels(ROWS, 8).astype(np.float64)
    return released_numpy.Draws(
        td_noise=random.standard_normal((*leading, CANDIDATES, *shape)),
        td_k=k,
        fm_x0=random.standard_normal(shape),
        fm_t_int=random.integers(0, 8, ROWS),
        sc_x0=random.standard_normal(shape),
        sc_t_int=random.integers(0, 2 ** levels.astype(int)),
        sc_dt_base=levels,
        q_noise=random.standard_normal((*leading, *shape)),
        q_k=k,
    )


def _draws(drawn: released_numpy.Draws) -> SorlDraws:
    """The same draws as the agent takes them."""
    return SorlDraws(
        flow_noise=jnp.asarray(drawn.fm_x0),
        flow_time=jnp.asarray(drawn.fm_t_int / 8),
        consistency_noise=jnp.asarray(drawn.sc_x0),
        consistency_time=jnp.asarray(drawn.sc_t_int / 2**drawn.sc_dt_base),
        policy_noise=jnp.asarray(drawn.q_noise),
        target_noise=jnp.asarray(drawn.td_noise),
    )


def _by_the_formulas(
    state: SorlState, batch: Transition, drawn: released_numpy.Draws, renoise: int, k: int
) -> Formulas:
    networks = (state.field, state.target_field, state.critic, state.target_critic)
    actor, teacher, critic, target_critic = (
        {leaf: np.asarray(x) for leaf, x in named_arrays(network).items()} for network in networks
    )
    rows = {
        "obs": np.asarray(batch.observation),
        "act": np.asarray(batch.action),
        "rewards": np.asarray(batch.reward),
        "masks": np.asarray(batch.discount > 0, np.float64),
        "next_obs": np.asarray(batch.next_observation),
    }
    options: dict[str, Any] = {"rho": RHO, "renoise": bool(renoise)}
    noises = list(np.moveaxis(drawn.td_noise, -3, 0))
    loss, target, critic_gradient = plus_numpy.expected_max_td(
        actor, critic, target_critic, rows, noises, k, discount=0.9, **options
    )
    metrics, policy_gradient = plus_numpy.weighted_policy_loss(
        actor, teacher, critic, target_critic, rows, drawn, eta=ETA, coefficients=COEFFICIENTS, **options
    )
    return Formulas(metrics | {"critic_loss": loss, "target_q_mean": target.mean()}, critic_gradient, policy_gradient)
