"""Parity with the authors' released implementation, in float32 and float64, jitted and not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional import shortcut, td, verifiers

from ..goldens import (
    FORWARD_TOLERANCE,
    GRADIENT_TOLERANCE,
    OURS,
    Goldens,
    assert_close,
    compare,
    named_arrays,
)


# Eager evaluation compiles operation by operation, which is slow: at one precision, and not for whole chains of jumps.
PRECISION_AND_MODE = [("f32", "jitted"), ("f64", "jitted"), ("f64", "eager")]
WITH_STEPS = [(precision, steps) for precision in ("f32", "f64") for steps in (1, 2, 4, 8)]


@pytest.fixture
def goldens(precision):
    with jax.enable_x64(precision == "f64"):
        yield Goldens(precision)


@pytest.fixture
def maybe_jit(mode):
    return jax.jit if mode == "jitted" else lambda function: function


at_each_precision = pytest.mark.parametrize("precision, mode", PRECISION_AND_MODE)
at_each_step_count = pytest.mark.parametrize("precision, steps", WITH_STEPS)


def _flow_matching(goldens):
    batch, time = goldens.batch(), goldens.input("fm/t_int") / 8
    return batch, goldens.input("fm/x0"), time.astype(batch.action.dtype)


def _self_consistency(goldens):
    batch, levels = goldens.batch(), goldens.input("sc/dt_base")
    return batch, goldens.input("sc/x0"), goldens.input("sc/t_int") / 2.0**levels, levels


@at_each_precision
def test_networks(goldens, maybe_jit):
    batch, tolerance = goldens.batch(), FORWARD_TOLERANCE[goldens.precision]
    for name in ("actor", "target_actor"):
        velocity = maybe_jit(jax.vmap(goldens.field(name)))(
            batch.observation, goldens.input("raw/a_t"), goldens.input("raw/t")[:, 0], goldens.input("raw/log2k")[:, 0]
        )
        assert_close(velocity, goldens.output(f"raw/{name}_v"), tolerance)
    for name in ("critic", "target_critic"):
        q = maybe_jit(jax.vmap(goldens.critic(name)))(batch.observation, batch.action, goldens.input("raw/k")[:, 0])
        assert_close(q.T, goldens.output(f"raw/{name}_q"), tolerance)


@at_each_step_count
def test_sample(goldens, steps):
    field = goldens.field()

    @jax.jit
    @jax.vmap
    def sample(observation, noise):
        return tuple(shortcut.sample(field, observation, noise, steps, clip=clip) for clip in (False, True))

    preclip, clipped = sample(goldens.input("in/obs"), goldens.input("ksteps/noise"))
    tolerance = FORWARD_TOLERANCE[goldens.precision]
    assert_close(preclip, goldens.output(f"ksteps/k{steps}/preclip"), tolerance)
    assert_close(clipped, goldens.output(f"ksteps/k{steps}/clipped"), tolerance)


@at_each_precision
def test_flow_matching_query(goldens, maybe_jit):
    batch, noise, time = _flow_matching(goldens)
    query = maybe_jit(jax.vmap(lambda x, a, n, t: shortcut.flow_matching_query(x, a, n, t, 8)))(
        batch.observation, batch.action, noise, time
    )
    tolerance = FORWARD_TOLERANCE[goldens.precision]
    assert_close(query.action, goldens.output("fm/x_t"), tolerance)
    assert_close(query.velocity, goldens.output("fm/v_target"), tolerance)
    prediction = jax.vmap(goldens.field())(query.observation, query.action, query.time, query.log2_steps)
    assert_close(prediction, goldens.output("fm/pred"), tolerance)


@at_each_precision
def test_flow_matching_loss_and_gradient(goldens, maybe_jit):
    batch, noise, time = _flow_matching(goldens)
    loss, gradient = maybe_jit(
        jax.value_and_grad(
            lambda field: shortcut.flow_matching_loss(field, batch.observation, batch.action, noise, time, 8)
        )
    )(goldens.field())
    assert_close(loss, goldens.output("fm/loss"), FORWARD_TOLERANCE[goldens.precision])
    for leaf, value in named_arrays(gradient).items():
        assert_close(value, goldens.output(f"fm/grad/actor/{leaf}"), GRADIENT_TOLERANCE[goldens.precision])


@at_each_precision
def test_self_consistency_query(goldens, maybe_jit):
    batch, noise, time, levels = _self_consistency(goldens)
    field, teacher, tolerance = goldens.field(), goldens.field("target_actor"), FORWARD_TOLERANCE[goldens.precision]
    query = maybe_jit(jax.vmap(lambda x, a, n, t, level: shortcut.self_consistency_query(teacher, x, a, n, t, level)))(
        batch.observation, batch.action, noise, time, levels
    )
    assert_close(query.time, goldens.output("sc/t"), tolerance)
    assert_close(query.action, goldens.output("sc/x_t"), tolerance)
    assert_close(query.velocity, goldens.output("sc/v_target"), tolerance)
    prediction = jax.vmap(field)(query.observation, query.action, query.time, query.log2_steps)
    assert_close(prediction, goldens.output("sc/pred"), tolerance)


@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_self_consistency_half_steps(goldens):
    batch, noise, time, levels = _self_consistency(goldens)
    teacher, tolerance = goldens.field("target_actor"), FORWARD_TOLERANCE[goldens.precision]
    point, _ = jax.vmap(shortcut.interpolate)(noise, batch.action, time)
    half = 0.5 / 2.0**levels
    first = jax.vmap(teacher)(batch.observation, point, time, levels + 1)
    midpoint = jax.vmap(lambda x, a, t, level, h: shortcut.jump(teacher, x, a, t, level, h))(
        batch.observation, point, time, levels + 1, half
    )
    second = jax.vmap(teacher)(batch.observation, midpoint, time + half, levels + 1)
    assert_close(first, goldens.output("sc/v_b1"), tolerance)
    assert_close(midpoint, goldens.output("sc/x_t2"), tolerance)
    assert_close(second, goldens.output("sc/v_b2"), tolerance)


@at_each_precision
def test_self_consistency_loss_and_gradient(goldens, maybe_jit):
    batch, noise, time, levels = _self_consistency(goldens)
    teacher = goldens.field("target_actor")
    loss, gradient = maybe_jit(
        jax.value_and_grad(
            lambda field: shortcut.self_consistency_loss(
                field, teacher, batch.observation, batch.action, noise, time, levels
            )
        )
    )(goldens.field())
    assert_close(loss, goldens.output("sc/loss"), FORWARD_TOLERANCE[goldens.precision])
    for leaf, value in named_arrays(gradient).items():
        assert_close(value, goldens.output(f"sc/grad/actor/{leaf}"), GRADIENT_TOLERANCE[goldens.precision])


@at_each_step_count
def test_td(goldens, steps):
    batch, field = goldens.batch(), goldens.field()
    critic, target_critic = goldens.critic(), goldens.critic("target_critic")
    k = jnp.asarray(float(steps), batch.reward.dtype)

    @jax.jit
    def computed_td(noise):
        actions = jax.vmap(lambda x, n: shortcut.sample(field, x, n, steps))(batch.next_observation, noise)
        next_q = jax.vmap(lambda x, a: target_critic(x, a, k))(batch.next_observation, actions)
        q = jax.vmap(lambda x, a: critic(x, a, k))(batch.observation, batch.action)
        computed = {"next_actions": actions, "next_qs": next_q.T, "qs": q.T}
        for aggregation in ("mean", "min"):
            target = td.td_target(batch.reward, batch.discount, next_q, aggregation=aggregation)
            computed[f"{aggregation}/target_q"] = target
            computed[f"{aggregation}/critic_loss"] = td.td_loss(q, target)
        return computed

    unknown = compare(goldens, f"td/k{steps}", computed_td(goldens.input("td/noise")))
    assert not [name for name in unknown if "grad" not in name]


@at_each_step_count
def test_best_of_n(goldens, steps):
    field, critic, observation = goldens.field(), goldens.critic(), goldens.input("bon/obs")
    k = jnp.asarray(float(steps), observation.dtype)

    @jax.jit
    def best(noise):
        candidates = jax.vmap(lambda n: shortcut.sample(field, observation, n, steps))(noise)
        q = jax.vmap(lambda action: critic(observation, action, k))(candidates)
        computed = {"candidates": candidates, "qs": q.T}
        for aggregation in ("mean", "min"):
            action, index = verifiers.best_of_n(candidates, q, aggregation)
            computed |= {f"{aggregation}/action": action, f"{aggregation}/best_idx": index}
        return computed

    assert compare(goldens, f"bon/k{steps}", best(goldens.input("bon/noise"))) == []
    for aggregation in ("mean", "min"):
        assert np.issubdtype(goldens.output(f"bon/k{steps}/{aggregation}/best_idx").dtype, np.integer)


def test_every_reference_value_was_compared(request):
    """Runs last: our own reference file holds nothing that the tests above left out."""
    if request.config.getoption("keyword"):
        pytest.skip("only some of the tests on reference values were selected")
    assert not Goldens("f64").unused(among=Goldens("f64", OURS))
