"""Parity beyond our own reference file: Q and policy loss, TD gradients, whole updates, best-of-N for batches.

A file that holds them comes in through `SORL_GOLDENS`; its names are known in outline only, so each test compares what
it finds under any plausible name, and the last test lists what none found. Without such a file the same tests run on
one written by the numpy transcription of the released update.
"""

import itertools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import critics, optimisation, shortcut
from sorl.agents._shortcut_agent import consistency_levels
from sorl.agents.sorl_released import SorlReleased, SorlReleasedState

from .goldens import (
    DISCOUNT,
    OURS,
    Goldens,
    compare,
    find_batch,
    find_draws,
    find_input,
    find_steps,
    named_arrays,
    shared_draws,
    with_prefix,
)
from .released_goldens import write


pytestmark = pytest.mark.compiled_as_shipped

STEP_COUNTS = (1, 2, 4, 8)
HELD_OUT = [("held-out", "f32"), ("held-out", "f64")] if "SORL_GOLDENS" in os.environ else []
NETWORKS = {"actor": "field", "target_actor": "target_field", "critic": "critic", "target_critic": "target_critic"}


@pytest.fixture(scope="module")
def transcription(tmp_path_factory):
    path = tmp_path_factory.mktemp("goldens") / "transcription.npz"
    write(path, OURS)
    return path


@pytest.fixture(params=[*HELD_OUT, ("transcription", "f64")], ids="-".join)
def goldens(request):
    source, precision = request.param
    with jax.enable_x64(precision == "f64"):
        if source == "transcription":
            yield Goldens(precision, request.getfixturevalue("transcription"))
        else:
            yield Goldens(precision)


def _step_counts(goldens, scope):
    """The jump counts that the file has outputs for."""
    counts = {int(match[1]) for name in goldens.outputs(scope) if (match := re.match(r"k(\d+)/", name))}
    if not counts:
        pytest.skip(f"this file holds no outputs under {scope}/k..")
    return sorted(counts)


def _check(goldens, scope, computed):
    """Compares what can be named; in the file that we wrote, everything can."""
    unknown = compare(goldens, scope, computed)
    assert not unknown or goldens.path.name != "transcription.npz", unknown


def test_td_gradients(goldens):
    batch, networks = goldens.batch(), (goldens.field(), goldens.critic(), goldens.critic("target_critic"))

    def loss(networks, steps, aggregation):
        field, critic, target_critic = networks
        k = jnp.asarray(float(steps), batch.reward.dtype)
        actions = jax.vmap(lambda x, n: shortcut.sample(field, x, n, steps))(
            batch.next_observation, goldens.input("td/noise")
        )
        next_q = jax.vmap(lambda x, a: target_critic(x, a, k))(batch.next_observation, actions)
        target = critics.td_target(
            batch.reward, batch.mask, next_q, discount=DISCOUNT, aggregation=aggregation, stop_gradient=False
        )
        q = jax.vmap(lambda x, a: critic(x, a, k))(batch.observation, batch.action)
        return critics.td_loss(q, target), {"target_q": target, "next_q": critics.aggregate(next_q, aggregation)}

    gradient_of = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=(1, 2))
    for steps, aggregation in itertools.product(_step_counts(goldens, "td"), ("mean", "min")):
        scope = f"td/k{steps}/{aggregation}"
        if any("grad" in name for name in goldens.outputs(scope)):
            (value, computed), (field, critic, _) = gradient_of(networks, steps, aggregation)
            gradients = with_prefix("grads?/actor", field) | with_prefix("grads?/critic", critic)
            _check(goldens, scope, computed | {"(critic_)?loss": value} | gradients)


def _policy_losses(networks, steps, levels, draws, batch):
    """The Q loss alone, and the policy loss 10 FM + 10 SC + 100 Q, each with the field's gradient."""
    field, teacher, critic = networks

    def q_loss(field):
        actions = jax.vmap(lambda x, n: shortcut.sample(field, x, n, steps))(batch.observation, draws.policy_noise)
        k = jnp.asarray(float(steps), batch.reward.dtype)
        q = jax.vmap(lambda x, a: critic(x, a, k))(batch.observation, actions)
        return critics.policy_q_loss(q), (actions, q)

    def cloning_loss(field):
        example = batch.observation, batch.action
        flow = shortcut.flow_matching_loss(field, *example, draws.flow_noise, draws.flow_time, 8)
        consistency = shortcut.self_consistency_loss(
            field, teacher, *example, draws.consistency_noise, draws.consistency_time, levels
        )
        return 10 * flow + 10 * consistency, (flow, consistency)

    (q_value, (actions, q)), q_gradient = jax.value_and_grad(q_loss, has_aux=True)(field)
    (cloning, (flow, consistency)), gradient = jax.value_and_grad(cloning_loss, has_aux=True)(field)
    gradient = jax.tree.map(lambda c, q: c + 100 * q, gradient, q_gradient)
    common = {"(actor_)?actions": actions, "qs": q.T, "q(_mean)?": [jnp.mean(q, axis=1), jnp.mean(q)]}
    normaliser = 1 / jnp.mean(jnp.abs(jnp.mean(q, axis=1)))
    only_q = {"(q_)?loss": q_value, "lam": normaliser} | with_prefix("grads?/actor", q_gradient)
    policy = {"(actor_|policy_)?loss": cloning + 100 * q_value, "q_loss": q_value, "scaled_q_loss": 100 * q_value}
    policy |= {"(bc_flow|fm|flow_matching)_loss": flow, "(sc|consistency|self_consistency)_loss": consistency}
    return common | only_q, common | policy | with_prefix("grads?/actor", gradient)


def test_policy_losses(goldens):
    losses = jax.jit(_policy_losses, static_argnums=1)
    for scope, index in (("q", 0), ("actor", 1)):
        draws, levels = find_draws(goldens, scope), find_input(goldens, scope, "consistency", "levels")
        if draws is None:
            pytest.skip(f"this file lacks draws that the losses under {scope} need")
        networks = goldens.field(), goldens.field("target_actor"), goldens.critic()
        for steps in _step_counts(goldens, scope):
            computed = losses(networks, steps, levels, draws, goldens.batch())
            _check(goldens, f"{scope}/k{steps}", computed[index])


def _released_state(goldens, agent):
    networks = {
        ours: goldens.field(name) if ours.endswith("field") else goldens.critic(name) for name, ours in NETWORKS.items()
    }
    optimiser = optimisation.init((networks["field"], networks["critic"]))  # pyright: ignore[reportArgumentType]
    return SorlReleasedState(**networks, optimiser=optimiser)


def _jump_counts(goldens, group):
    """All (target, policy) jump counts that may have been drawn: where the file does not name them, every one."""
    found = [find_steps(goldens, group, purpose) for purpose in ("target", "policy")]
    return list(itertools.product(*((steps,) if steps else STEP_COUNTS for steps in found)))


def test_three_released_updates(goldens):
    groups = [f"update/{i}" for i in range(3) if goldens.outputs(f"update/{i}")]
    if not groups:
        pytest.skip("this file holds no outputs under update/..")
    counts = {group: _jump_counts(goldens, group) for group in groups}
    most = max(steps for pairs in counts.values() for pair in pairs for steps in pair)
    agent = SorlReleased(backprop_steps=most, discount=DISCOUNT)
    state, update = _released_state(goldens, agent), jax.jit(agent.update)
    for group in groups:
        draws, batch = find_draws(goldens, group), find_batch(goldens, group)
        if draws is None or find_input(goldens, group, "target", "noise") is None:
            pytest.skip(f"this file holds outputs under {group}, but not every draw that they need")
        levels = find_input(goldens, group, "consistency", "levels")
        np.testing.assert_array_equal(levels, consistency_levels(len(batch.reward), 8))
        # Where several jump counts are possible, only the right ones reproduce the parameters.
        results = [update(state, batch, draws, shared_draws(*pair)) for pair in counts[group]]
        state, metrics = min(results, key=lambda result: _distance(goldens, group, result[0]))
        computed = {r"(\w+/)*critic_loss": metrics["critic_loss"], r"(\w+/)*actor_loss": metrics["policy_loss"]}
        for name, ours in NETWORKS.items():
            computed |= with_prefix(f"((params|after|out|new)/)*{name}", getattr(state, ours))
        _check(goldens, group, computed)


def _distance(goldens, group, state):
    """How far the policy is from the file's, where the file names its output layer as we expect."""
    expected = goldens.values.get(f"{goldens.precision}/{group}/actor/layer4/w")
    return 0.0 if expected is None else float(np.abs(named_arrays(state.field)["layer4/w"] - expected).max())


def _best_of_n(networks, steps, observation, noise):
    """Candidates `[batch, candidates, action]`, values per head, and the pick for each way to aggregate them."""
    field, critic = networks
    k = jnp.asarray(float(steps), noise.dtype)

    def best(observation, noise):
        candidates = jax.vmap(lambda n: shortcut.sample(field, observation, n, steps))(noise)
        q = jax.vmap(lambda action: critic(observation, action, k))(candidates)
        picked = {aggregation: critics.best_of_n(candidates, q, aggregation) for aggregation in ("mean", "min")}
        return candidates, q, picked

    return jax.vmap(best, in_axes=(0, 1))(observation, noise)


def test_best_of_n_for_a_batch(goldens):
    step_counts = _step_counts(goldens, "bon_batch")
    observation = goldens.input("bon_batch/obs" if "bon_batch/obs" in goldens else "in/obs")
    noise = goldens.input("bon_batch/noise")  # candidates first, as the released code draws it, or last
    if noise.ndim == 3 and noise.shape[1] != len(observation):
        noise = jnp.swapaxes(noise, 0, 1)
    noise = noise.reshape(-1, len(observation), 3)
    pick = jax.jit(_best_of_n, static_argnums=1)
    for steps in step_counts:
        candidates, q, picked = pick((goldens.field(), goldens.critic()), steps, observation, noise)
        computed = {"candidates": [candidates, jnp.swapaxes(candidates, 0, 1)]}
        per_head = [jnp.transpose(q, axes) for axes in itertools.permutations(range(3))]
        both = [critics.aggregate(q, "mean"), critics.aggregate(q, "min")]
        computed["q_correct_pairing"] = [*per_head, *both, *(value.T for value in both)]
        for aggregation, (action, index) in picked.items():
            value = critics.aggregate(q, aggregation)
            computed[f"{aggregation}/q_correct_pairing"] = [*per_head, value, value.T]
            computed[f"{aggregation}/(best_)?action_correct"] = action
            computed[f"{aggregation}/best_idx_correct"] = index
        _check(goldens, f"bon_batch/k{steps}", computed)


SPELLINGS = [
    {"update/1/td/noise": 7.0, "update/1/td/k": 4, "update/1/q/noise": 8.0, "update/1/q/k": 2},
    {"update/1/td_noise": 7.0, "update/1/k_td": 4, "update/1/q_noise": 8.0, "update/1/k_q": 2},
    {"update/1/critic/noise": 7.0, "update/1/critic/k_idx": 2, "update/1/actor/x0": 8.0, "update/1/actor/idx": 1},
    {"update/draws/1/td_x0": 7.0, "update/draws/1/td_k": 4, "update/draws/1/q_x0": 8.0, "update/draws/1/q_k": 2},
    {"update/td_noise": [0.0, 7.0], "update/td_k": [1, 4], "update/q_noise": [0.0, 8.0], "update/q_k": [1, 2]},
    {"td/noise": 7.0, "update/1/td_k": 4, "q/noise": 8.0, "update/1/q_k": 2},
]


@pytest.mark.parametrize("arrays", SPELLINGS)
def test_draws_are_found_under_any_plausible_name(tmp_path, arrays):
    path = tmp_path / "spelled.npz"
    others = {"update/1/fm_x0": 1.0, "update/1/sc_x0": 2.0, "raw/k": 8.0, "f64/update/1/td_noise": 3.0}
    np.savez(path, allow_pickle=False, **{name: np.array(value) for name, value in (arrays | others).items()})
    goldens = Goldens("f32", path)
    assert find_input(goldens, "update/1", "target", "noise") == 7.0
    assert find_input(goldens, "update/1", "policy", "noise") == 8.0
    assert find_input(goldens, "update/1", "flow", "noise") == 1.0
    assert find_input(goldens, "update/1", "consistency", "noise") == 2.0
    assert find_input(goldens, "update/1", "flow", "time") is None
    assert find_steps(goldens, "update/1", "target") == 4
    assert find_steps(goldens, "update/1", "policy") == 2


def test_what_no_test_compared_is_named(request):
    """Runs last: names what a file holds beyond our own reference values and no test above looked for."""
    if request.config.getoption("keyword"):
        pytest.skip("only some of the tests on reference values were selected")
    if unused := Goldens("f64").unused(besides=Goldens("f64", OURS)):
        pytest.skip(f"{len(unused)} groups of reference values were compared with nothing: {', '.join(unused)}.")
