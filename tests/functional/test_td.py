import functools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional import shortcut, td, verifiers

from ..random_networks import directional_derivatives, make_batch, make_critic, make_field


Q = jnp.array([[1.0, 3.0], [-2.0, 4.0], [0.0, -6.0]])
"""Three examples, two heads."""


def test_aggregate_is_the_mean_or_the_least_over_heads(maybe_jit):
    np.testing.assert_array_equal(maybe_jit(lambda q: verifiers.aggregate(q, "mean"))(Q), [2.0, 1.0, -3.0])
    np.testing.assert_array_equal(maybe_jit(lambda q: verifiers.aggregate(q, "min"))(Q), [1.0, -2.0, -6.0])


@pytest.mark.parametrize("aggregation, expected", [("mean", [0.0, -1.0, 0.5]), ("min", [-0.5, -1.0, -1.0])])
def test_td_target_bootstraps_where_the_episode_goes_on(maybe_jit, aggregation, expected):
    reward, mask = jnp.array([-1.0, -1.0, 2.0]), jnp.array([1.0, 0.0, 1.0])

    def target(next_q):
        return td.td_target(reward, 0.5 * mask, next_q, aggregation=aggregation)

    np.testing.assert_array_equal(maybe_jit(target)(Q), expected)


def test_td_loss_averages_over_heads_and_batch(maybe_jit):
    # Squares of (1, 3) - 2, (-2, 4) - 0, (0, -6) + 1.
    loss = maybe_jit(td.td_loss)(Q, jnp.array([2.0, 0.0, -1.0]))
    assert loss == pytest.approx((1 + 1 + 4 + 16 + 1 + 25) / 6)


def test_policy_q_loss_is_normalised_by_the_mean_magnitude(maybe_jit):
    # Means of heads 2, 1, -3: their mean is 0; shifted by 3 they are 5, 4, 0.
    assert maybe_jit(td.policy_q_loss)(Q) == 0.0
    assert maybe_jit(td.policy_q_loss)(Q + 3) == pytest.approx(-1.0)
    assert maybe_jit(td.policy_q_loss)(-Q[:2]) == pytest.approx(1.0)
    # Shifted by -1 they are 1, 0, -4: mean -1, mean magnitude 5/3, whatever the scale.
    assert maybe_jit(td.policy_q_loss)(100 * (Q - 1)) == pytest.approx(0.6)


def test_no_gradient_through_the_normaliser():
    # Means of heads 5, 4, 0: -1 / (6 values * mean magnitude 3) for each; through the normaliser it would be 0.
    np.testing.assert_allclose(jax.grad(td.policy_q_loss)(Q + 3), np.full((3, 2), -1 / 18), rtol=1e-6)


def test_gradient_through_the_td_target_only_where_asked_for():
    ones = jnp.ones(3)

    def loss(next_q, stop_gradient):
        target = td.td_target(ones, 0.5 * ones, next_q, aggregation="mean", stop_gradient=stop_gradient)
        return td.td_loss(Q, target)

    np.testing.assert_array_equal(jax.grad(loss)(Q, True), np.zeros((3, 2)))
    # d loss / d target = -mean over heads of 2 (Q - y) / 3, and each head has half of the discount in the target.
    error = Q - (1 + 0.5 * Q.mean(axis=1, keepdims=True))
    expected = jnp.broadcast_to(-2 / 3 * error.mean(axis=1, keepdims=True) * 0.25, (3, 2))
    np.testing.assert_allclose(jax.grad(loss)(Q, False), expected, rtol=1e-6)


@pytest.mark.parametrize("steps, aggregation", [(1, "min"), (4, "mean")])
def test_td_gradient_into_the_policy_equals_finite_differences(x64, steps, aggregation):
    batch, noise = make_batch(6, dtype=jnp.float64), jnp.linspace(-1.5, 1.5, 12).reshape(6, 2)
    critic, target_critic = make_critic(1, jnp.float64), make_critic(2, jnp.float64)
    k = jnp.asarray(float(steps))

    def td_loss(field, stop_gradient):
        actions = jax.vmap(lambda x, n: shortcut.sample(field, x, n, steps))(batch.next_observation, noise)
        next_q = jax.vmap(lambda x, a: target_critic(x, a, k))(batch.next_observation, actions)
        target = td.td_target(
            batch.reward, batch.discount, next_q, aggregation=aggregation, stop_gradient=stop_gradient
        )
        q = jax.vmap(lambda x, a: critic(x, a, k))(batch.observation, batch.action)
        return td.td_loss(q, target)

    field, loss = make_field(dtype=jnp.float64), jax.jit(td_loss, static_argnums=1)
    gradient = jax.jit(jax.grad(td_loss), static_argnums=1)
    analytic, numeric = directional_derivatives(lambda f: loss(f, False), field, gradient(field, False))
    assert analytic == pytest.approx(numeric, rel=1e-6)
    assert abs(analytic) > 1e-3
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient(field, True)))


@pytest.mark.parametrize("mask, expected", [([1.0, 1.0], [8 / 3, 10 / 3]), ([1.0, 0.0], [2.0, 2.0])])
@pytest.mark.parametrize("aggregation", ["mean", "min"])
def test_repeated_td_finds_the_values_of_a_two_state_chain(aggregation, mask, expected):
    # 0 -> 1 for a reward of 1, 1 -> 0 for 2, discount 1/2: Q0 = 1 + Q1 / 2, Q1 = 2 + Q0 / 2; or 1 ends the episode.
    reward, mask = jnp.array([1.0, 2.0]), jnp.array(mask)

    def loss(table):
        target = td.td_target(reward, 0.5 * mask, table[::-1], aggregation=aggregation)
        return td.td_loss(table, target)

    @jax.jit
    def learn(table):
        # A learning rate of 1 closes half of each error, as the loss is the mean over four entries.
        return jax.lax.fori_loop(0, 100, lambda _, t: t - jax.grad(loss)(t), table)

    table = learn(jnp.array([[5.0, -5.0], [0.0, 1.0]]))
    np.testing.assert_allclose(table, np.stack([expected, expected], axis=1), atol=1e-5)


@pytest.mark.parametrize("aggregation, index", [("mean", 1), ("min", 0)])
def test_best_of_n_takes_the_highest_aggregated_value(maybe_jit, aggregation, index):
    candidates, q = (
        jnp.array([[0.1], [0.2], [0.3], [0.4]]),
        jnp.array([[1.0, 1.0], [0.0, 4.0], [0.0, 4.0], [-1.0, 2.0]]),
    )
    action, picked = maybe_jit(lambda c, v: verifiers.best_of_n(c, v, aggregation))(candidates, q)
    # The first of the equals.
    assert picked == index
    np.testing.assert_array_equal(action, candidates[index])


def test_a_perturbation_is_added_to_the_aggregated_values(maybe_jit):
    candidates, q = jnp.array([[0.1], [0.2]]), jnp.array([[1.0, 3.0], [2.0, 4.0]])
    picked = [
        maybe_jit(lambda p: verifiers.best_of_n(candidates, q, "mean", p)[1])(jnp.array(p))
        for p in ([0.0, 0.0], [1.5, 0.0], [1.5, 1.0])
    ]
    assert picked == [1, 0, 1]


@functools.partial(jax.jit, static_argnums=1)
def _best_of_each_row(q, aggregation):
    candidates = jnp.broadcast_to(jnp.arange(4.0)[:, None], (*q.shape[:2], 1))
    return jax.vmap(lambda c, v: verifiers.best_of_n(c, v, aggregation))(candidates, q)


batches_of_values = hnp.arrays(np.float32, (3, 4, 2), elements=st.floats(-9, 9, width=32))


@hypothesis.given(batches_of_values, st.sampled_from(["mean", "min"]))
@hypothesis.settings(deadline=None, max_examples=50)
def test_best_of_n_never_takes_less_and_batched_equals_one_by_one(q, aggregation):
    actions, indices = _best_of_each_row(q, aggregation)
    np.testing.assert_array_equal(actions[:, 0], indices)
    value = q.mean(-1) if aggregation == "mean" else q.min(-1)
    picked = value[np.arange(3), indices]
    assert np.all(picked[:, None] >= value - 1e-6)
    for row in range(3):
        _, alone = _best_of_each_row(q[row : row + 1], aggregation)
        assert abs(value[row, alone[0]] - picked[row]) <= 1e-6


def test_the_policys_q_loss_in_the_units_of_the_rewards():
    # Means of the heads: 2, 1, -3; their mean is 0, shifted by one to 1.
    assert td.policy_q_loss(Q + 1, normalised=False) == pytest.approx(-1.0)
    assert td.policy_q_loss(Q + 1) == pytest.approx(-1.0 / ((3 + 2 + 2) / 3))


@pytest.mark.parametrize("aggregation, expected", [("mean", 1.0), ("min", 0.25)])
def test_choosing_asks_the_critic_about_every_candidate(maybe_jit, aggregation, expected):
    draws = jnp.array([[1.0], [-0.5], [0.25]])
    chosen = maybe_jit(
        lambda draws: verifiers.choose(
            lambda draw: 1.0 * draw, lambda action: jnp.array([3.0, -1.0]) * action[0], draws, aggregation
        )
    )(draws)
    # Mean of the heads a; the lesser head of a: -1, -1.5, -0.25 for the three; the last is the greatest.
    np.testing.assert_array_equal(chosen, [expected])


def test_one_candidate_needs_no_critic():
    def never(action):
        raise AssertionError("the critic was asked")

    np.testing.assert_array_equal(verifiers.choose(lambda draw: 2 * draw, never, jnp.array([[0.5]]), "mean"), [1.0])


def test_expected_max_target_by_hand(maybe_jit):
    reward, discount = jnp.array([1.0, -1.0, 0.5]), jnp.array([0.9, 0.9, 0.0])
    next_q = jnp.stack([Q, Q[::-1]])  # candidate means: 2, 1, -3 and -3, 1, 2; minima: 1, -2, -6 and -6, -2, 1
    make = maybe_jit(functools.partial(td.expected_max_target, aggregation="mean"))
    np.testing.assert_allclose(make(reward, discount, next_q), [1 + 1.8, -1 + 0.9, 0.5], rtol=1e-6)
    make = maybe_jit(functools.partial(td.expected_max_target, aggregation="min"))
    np.testing.assert_allclose(make(reward, discount, next_q), [1 + 0.9, -1 - 1.8, 0.5], rtol=1e-6)
    plain = td.td_target(reward, discount, Q, aggregation="mean")
    np.testing.assert_array_equal(td.expected_max_target(reward, discount, Q[None], aggregation="mean"), plain)


def test_the_maximums_bias_on_a_chain_of_known_values():
    """Both actions of a state lead to the same value 0, which a critic gives with errors uniform on [-1, 1].

    The best of N has the error (N - 1) / (N + 1) in the mean; n steps before it, the target has g^n of it.
    """
    errors = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, 100_000, 1)), jnp.float32)
    for candidates in (1, 2, 4):
        target = td.expected_max_target(
            jnp.zeros(100_000), jnp.full(100_000, 0.9**3), errors[:candidates], aggregation="mean"
        )
        expected = 0.9**3 * (candidates - 1) / (candidates + 1)
        assert float(jnp.mean(target)) == pytest.approx(expected, abs=5 * 0.9**3 * 0.58 / np.sqrt(100_000))


def test_targets_of_the_best_candidate_have_no_gradient_unless_asked():
    def total(next_q, stop_gradient):
        reward, discount = jnp.zeros(3), jnp.full(3, 0.5)
        make = td.expected_max_target
        return jnp.sum(make(reward, discount, next_q, aggregation="mean", stop_gradient=stop_gradient))

    next_q = jnp.stack([Q, Q - 1])
    np.testing.assert_array_equal(jax.grad(total)(next_q, True), jnp.zeros_like(next_q))
    # Half of the discount for each of the best candidate's two heads.
    expected = jnp.stack([jnp.full((3, 2), 0.25), jnp.zeros((3, 2))])
    np.testing.assert_allclose(jax.grad(total)(next_q, False), expected)


def test_the_q_loss_can_be_pessimistic(maybe_jit):
    """Mean less half a deviation: 2 - 0.5, 1 - 1.5, -3 - 1.5; the sum is -3.5, the sum of magnitudes 6.5."""
    loss = maybe_jit(lambda q: td.policy_q_loss(q, aggregation=functools.partial(verifiers.lower_bound, k=0.5)))
    assert float(loss(Q)) == pytest.approx(3.5 / 6.5, rel=1e-6)
    assert float(td.policy_q_loss(Q, aggregation="min")) == pytest.approx(7 / 9, rel=1e-6)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (
            td.td_target,
            (Q[:, 0], Q[:, 0], Q[:, 0]),
            r"reward \[3\], discount \[3\], next_q \[\]; give one value for each",
        ),
        (td.td_target, (Q[:, :1], Q[:, :1], Q), r"reward \[3, 1\], discount \[3, 1\], next_q \[3\]"),
        (td.expected_max_target, (Q[:, 0], Q[:, 0], Q), r"discount \[3\], next_q \[\]; give one"),
        (td.td_loss, (Q, Q), r"q \[3\], target \[3, 2\]; give one value for each row"),
        (td.td_loss, (Q, Q[:, :1]), r"q \[3\], target \[3, 1\]"),
    ],
)
def test_shapes_that_would_broadcast_are_refused_without_jaxtyping_too(function, arguments, message):
    unchecked = functools.partial(function.__wrapped__, **({} if function is td.td_loss else {"aggregation": "mean"}))
    with pytest.raises(ValueError, match=message):
        unchecked(*arguments)
