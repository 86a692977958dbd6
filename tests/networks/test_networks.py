import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.networks import (
    MLP,
    CriticEnsemble,
    GaussianNetwork,
    OneStepField,
    ShortcutField,
    Value,
    VelocityField,
    layers,
)

from ..random_networks import make


PAPER_SIZES = (512, 512, 512, 512)


def _parameters(network):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(network))


def _with_weights(mlp, *weights):
    """The same network with these kernels, `[out, in]`."""
    return eqx.tree_at(lambda m: [layer.weight for layer in m.layers], mlp, [jnp.asarray(w) for w in weights])


def _normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def test_parameter_counts_at_the_papers_sizes():
    field = eqx.filter_eval_shape(ShortcutField, 28, 5, PAPER_SIZES, key=jax.random.key(0))
    critic = eqx.filter_eval_shape(CriticEnsemble, 28, 5, PAPER_SIZES, key=jax.random.key(0))
    assert _parameters(field) == 808_965
    assert _parameters(critic) == 1_620_994


def test_gelu_is_the_tanh_approximation(maybe_jit):
    mlp = _with_weights(MLP(1, 1, (1,), layer_norm=False, key=jax.random.key(0)), [[1.0]], [[1.0]])
    # x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2; the exact GELU would give 0.841345 and -0.045500.
    assert maybe_jit(mlp)(jnp.array([1.0])) == pytest.approx(0.841192, abs=1e-6)
    assert maybe_jit(mlp)(jnp.array([-2.0])) == pytest.approx(-0.045402, abs=1e-6)


def test_layer_norm_follows_the_activation_with_epsilon_1e_6(maybe_jit):
    mlp = MLP(2, 2, (2,), layer_norm=True, key=jax.random.key(0))
    mlp = _with_weights(mlp, np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    x = np.array([4e-3, -4e-3])
    gelu = _gelu(x)
    # The variance, 4e-6, is near the epsilon: 1e-5 instead would give 0.53 in place of 0.89.
    expected = (gelu - gelu.mean()) / np.sqrt(gelu.var() + 1e-6)
    assert abs(expected[0]) == pytest.approx(0.894, abs=1e-3)
    np.testing.assert_allclose(maybe_jit(mlp)(jnp.asarray(x, jnp.float32)), expected, rtol=1e-4)


def test_the_derivatives_of_gelu_are_those_of_its_formula(maybe_jit):
    x = jnp.concatenate([jnp.linspace(-6, 6, 241), jnp.array([-100.0, 100.0])])
    tangent = jnp.cos(jnp.arange(len(x), dtype=jnp.float32))

    exact, half = np.asarray(x, np.float64), 1e-6
    slope = (_gelu(exact + half) - _gelu(exact - half)) / (2 * half)
    values, forward = maybe_jit(lambda x: jax.jvp(layers.gelu, (x,), (tangent,)))(x)
    backward = maybe_jit(jax.grad(lambda x: jnp.sum(tangent * layers.gelu(x))))(x)
    np.testing.assert_allclose(values, _gelu(exact), rtol=1e-6, atol=1e-6)
    # Near -5, 1 + tanh has lost its last digits in float32.
    np.testing.assert_allclose(forward, tangent * slope, rtol=1e-6, atol=5e-6)
    np.testing.assert_allclose(backward, tangent * slope, rtol=1e-6, atol=5e-6)


def test_gelu_has_a_second_derivative(maybe_jit):
    second = maybe_jit(jax.grad(jax.grad(layers.gelu)))
    # Near 0, x (1 + tanh(c x)) / 2 is x / 2 + c x^2 / 2, with c = sqrt(2 / pi).
    assert second(jnp.float32(0)) == pytest.approx(math.sqrt(2 / math.pi), rel=1e-6)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (1, 5)])
def test_the_gradient_of_layer_norm_is_that_of_its_formula(shape, maybe_jit):
    norm = eqx.nn.LayerNorm(5, eps=1e-6)
    arrays = 3 * _normal(0, *shape) + 1, *_normal(1, 2, 5)
    weights = _normal(2, *shape)

    def ours(x, weight, bias):
        tuned = eqx.tree_at(lambda n: (n.weight, n.bias), norm, (weight, bias))
        return jnp.sum(weights * layers.layer_norm(tuned, x))

    def formula(x, weight, bias):
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        unit = centred / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-6)
        return jnp.sum(weights * (unit * jnp.broadcast_to(weight, shape) + jnp.broadcast_to(bias, shape)))

    with jax.default_matmul_precision("highest"):
        found = maybe_jit(jax.grad(ours, argnums=(0, 1, 2)))(*arrays)
        expected = jax.jit(jax.grad(formula, argnums=(0, 1, 2)))(*arrays)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("shape", [(5,), (4, 5)])
def test_forward_and_reverse_derivatives_of_a_critic_agree(shape):
    critic = make(CriticEnsemble, 5, 2, (4, 3), heads=2, sees_steps=False)
    observation, action, tangent = _normal(0, *shape), _normal(1, *shape[:-1], 2), _normal(2, *shape[:-1], 2)
    with jax.default_matmul_precision("highest"):
        forward = jax.jit(lambda a: jax.jvp(lambda a: jnp.sum(critic(observation, a)), (a,), (tangent,))[1])(action)
        backward = jax.jit(lambda a: jax.vjp(lambda a: jnp.sum(critic(observation, a)), a)[1](1.0)[0])(action)
    np.testing.assert_allclose(forward, jnp.sum(tangent * backward), rtol=1e-4, atol=1e-5)


def test_a_constant_input_of_layer_norm_has_a_finite_gradient(maybe_jit):
    norm = eqx.nn.LayerNorm(3, eps=1e-6)
    gradient = maybe_jit(jax.grad(lambda x: layers.layer_norm(norm, x)[0]))(jnp.full(3, 0.1))
    # The scale is 1 / sqrt(1e-6): a thousandth more at one place moves its output by 2 / 3, the others' by 1 / 3.
    np.testing.assert_allclose(gradient, [2000 / 3, -1000 / 3, -1000 / 3], rtol=1e-3)


def test_kernels_have_variance_2_over_fan_in_plus_fan_out_and_biases_are_zero():
    mlp = eqx.filter_jit(lambda key: MLP(300, 100, (200,), layer_norm=False, key=key))(jax.random.key(1))
    for layer in mlp.layers:
        fan_out, fan_in = layer.weight.shape
        variance = 2 / (fan_in + fan_out)
        assert float(jnp.var(layer.weight)) == pytest.approx(variance, rel=0.03)
        # Uniform: the bound is sqrt(3) standard deviations, and is all but reached.
        assert 0.999 < float(jnp.max(jnp.abs(layer.weight))) / math.sqrt(3 * variance) <= 1
        np.testing.assert_array_equal(layer.bias, np.zeros(fan_out))


def test_field_input_is_observation_action_time_and_log2_steps():
    field = ShortcutField(2, 1, (), key=jax.random.key(0))
    field = eqx.tree_at(lambda f: f.mlp.layers[0].weight, field, jnp.array([[10000.0, 1000.0, 100.0, 10.0, 1.0]]))
    velocity = field(jnp.array([1.0, 2.0]), jnp.array([3.0]), jnp.array(4.0), jnp.array(5.0))
    np.testing.assert_array_equal(velocity, [12345.0])


def test_critic_input_is_observation_action_and_the_raw_step_count():
    critic = make(CriticEnsemble, 1, 1, (), heads=2)
    weights = jnp.array([[[100.0, 10.0, 1.0]], [[200.0, 20.0, 2.0]]])
    critic = eqx.tree_at(lambda c: tuple(jax.tree.leaves(c.heads.layers[0])), critic, (weights, jnp.zeros((2, 1))))
    q = critic(jnp.array([1.0]), jnp.array([2.0]), jnp.array(8.0))
    np.testing.assert_array_equal(q, [128.0, 256.0])


def test_critic_that_does_not_see_steps_gives_one_value_for_every_budget():
    seeing = make(CriticEnsemble, 3, 2, (8,))
    blind = make(CriticEnsemble, 3, 2, (8,), sees_steps=False)

    @eqx.filter_jit
    def values(critic, steps):
        return critic(jnp.ones(3), jnp.ones(2), steps)

    one, eight = jnp.array(1.0), jnp.array(8.0)
    np.testing.assert_array_equal(values(blind, one), values(blind, eight))
    assert not np.any(values(seeing, one) == values(seeing, eight))
    # One input less, for 8 hidden units in each of 2 heads.
    assert _parameters(seeing) - _parameters(blind) == 16


def test_a_batch_has_the_values_and_gradients_of_its_examples():
    critic = make(CriticEnsemble, 3, 2, (8, 8), heads=3)
    observations, actions, weights = _normal(0, 6, 3), _normal(1, 6, 2), _normal(2, 6, 3)
    steps = jnp.float32(4)

    def together(critic, actions):
        return jnp.sum(weights * critic(observations, actions, steps))

    def one_by_one(critic, actions):
        return jnp.sum(weights * jax.vmap(lambda x, a: critic(x, a, steps))(observations, actions))

    found = jax.jit(jax.value_and_grad(together, argnums=(0, 1)))(critic, actions)
    expected = jax.jit(jax.value_and_grad(one_by_one, argnums=(0, 1)))(critic, actions)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_each_critic_head_is_its_own_network():
    critic = make(CriticEnsemble, 3, 2, (8, 8), heads=3)
    x = jnp.arange(6.0)
    alone = [jax.tree.map(lambda leaf, h=head: leaf[h], critic.heads)(x)[0] for head in range(3)]
    np.testing.assert_allclose(eqx.filter_jit(critic)(x[:3], x[3:5], x[5]), alone, atol=1e-5)
    assert len(set(map(float, alone))) == 3


def test_baseline_heads_read_their_inputs_in_order():
    sizes = 2, 1, (3,)
    observation, action, time = jnp.array([1.0, 2.0]), jnp.array([3.0]), jnp.array(0.5)
    for network, inputs in (
        (VelocityField, (observation, action, time)),
        (OneStepField, (observation, action)),
        (GaussianNetwork, (observation,)),
    ):
        head = make(network, *sizes)
        seen = jnp.concatenate([jnp.atleast_1d(x) for x in inputs])
        answer = head.mean(*inputs) if network is GaussianNetwork else head(*inputs)
        np.testing.assert_array_equal(answer, head.mlp(seen))
    value = make(Value, 2, (3,))
    assert value(observation).shape == ()
    np.testing.assert_array_equal(value(observation), value.mlp(observation)[0])
    assert len(value.mlp.norms) == 1


def test_a_critic_that_sees_no_steps_needs_none():
    blind = make(CriticEnsemble, 2, 1, (3,), sees_steps=False)
    observation, action = jnp.array([1.0, 2.0]), jnp.array([3.0])
    np.testing.assert_array_equal(blind(observation, action), blind(observation, action, jnp.array(4.0)))
    with pytest.raises(ValueError, match="sees the number of jumps but got none"):
        make(CriticEnsemble, 2, 1, (3,))(observation, action)


def test_gaussian_actors():
    observation, noise = jnp.array([1.0, 2.0]), jnp.array([0.5, -2.0])
    unit = make(GaussianNetwork, 2, 2, (3,))
    np.testing.assert_allclose(unit(observation, noise), unit.mlp(observation) + noise, rtol=1e-6)
    # The density of N(mean, I) at a distance of `noise`: -|noise|^2 / 2 - log(2 pi).
    density = unit.log_probability(observation, unit(observation, noise))
    assert density == pytest.approx(-0.5 * (0.25 + 4) - math.log(2 * math.pi), rel=1e-5)
    learned = make(GaussianNetwork, 2, 2, (3,), learned_std=True, tanh_mean=True)
    learned = eqx.tree_at(lambda a: a.log_std, learned, jnp.log(jnp.array([0.5, 2.0])))
    np.testing.assert_allclose(learned.mean(observation), np.tanh(learned.mlp(observation)), rtol=1e-6)
    scaled = np.asarray(learned.mean(observation)) + [0.25, -4.0]
    np.testing.assert_allclose(learned(observation, noise), scaled, rtol=1e-6)
    # Another scale, the same distance in deviations; log 0.5 and log 2 cancel.
    assert learned.log_probability(observation, learned(observation, noise)) == pytest.approx(float(density), rel=1e-5)


def test_the_last_kernel_of_an_actor_starts_small():
    actor = eqx.filter_jit(lambda key: GaussianNetwork(10, 100, (300,), key=key))(jax.random.key(0))
    assert actor.mlp.layers[-1].weight.var() == pytest.approx(0.01 * 2 / 400, rel=0.05)
    assert actor.mlp.layers[0].weight.var() == pytest.approx(2 / 310, rel=0.1)
    assert actor.log_std is None
