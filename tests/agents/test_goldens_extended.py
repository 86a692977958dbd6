"""Parity beyond our own reference file: Q and policy loss, TD gradients, whole updates, best-of-N for batches.

A file that holds them comes in through `SORL_GOLDENS`; its names are known in outline only, so each test compares what
it finds under any plausible name, fails where it finds names but knows none of them, and the last test lists what none
found. The same tests always run on a file written by the numpy transcription of the released update, where every
family must be present and every name known.
"""

import itertools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.agents.shared.shortcut_agent import consistency_levels
from sorl.agents.sorl_released import SorlReleased, SorlReleasedState
from sorl.functional import optimisation, shortcut, td, verifiers

from ..goldens import (
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
from ..released_goldens import write


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
        _absent(goldens, f"outputs under {scope}/k..")
    return sorted(counts)


def _is_ours(goldens):
    return goldens.path.name == "transcription.npz"


def _absent(goldens, family):
    """Ends a test whose family a held-out file lacks; the file that we wrote lacks none."""
    assert not _is_ours(goldens), f"the transcription holds no {family}"
    pytest.skip(f"{goldens.path} holds no {family}")


def _check(goldens, scope, computed):
    """Compares what can be named; in the file that we wrote, everything can."""
    unknown = compare(goldens, scope, computed)
    assert not unknown or not _is_ours(goldens), unknown
    return unknown


def test_td_gradients(goldens):
    batch, networks = goldens.batch(), (goldens.field(), goldens.critic(), goldens.critic("target_critic"))

    def loss(networks, steps, aggregation):
        field, critic, target_critic = networks
        k = jnp.asarray(float(steps), batch.reward.dtype)
        actions = jax.vmap(lambda x, n: shortcut.sample(field, x, n, steps))(
            batch.next_observation, goldens.input("td/noise")
        )
        next_q = jax.vmap(lambda x, a: target_critic(x, a, k))(batch.next_observation, actions)
        target = td.td_target(batch.reward, batch.discount, next_q, aggregation=aggregation, stop_gradient=False)
        q = jax.vmap(lambda x, a: critic(x, a, k))(batch.observation, batch.action)
        return td.td_loss(q, target), {"target_q": target, "next_q": verifiers.aggregate(next_q, aggregation)}

    gradient_of = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=(1, 2))
    compared = False
    for steps in _step_counts(goldens, "td"):
        scope, computed = f"td/k{steps}", {}
        gradients = [name for name in goldens.outputs(scope) if "grad" in name]
        for aggregation in {"min" if name.startswith("min/") else "mean" for name in gradients}:
            level = "min/" if aggregation == "min" else "(mean/)?"  # a name without this level means the mean
            (value, values), (field, critic, _) = gradient_of(networks, steps, aggregation)
            computed |= {level + name: array for name, array in (values | {"(critic_)?loss": value}).items()}
            for name, network in (("actor", field), ("critic", critic)):
                computed |= with_prefix(f"{level}grads?/{name}", network)
                computed |= with_prefix(f"{level}grads?/target_{name}", jax.tree.map(jnp.zeros_like, network))
        if gradients:
            unknown = _check(goldens, scope, computed)
            assert not [name for name in unknown if "grad" in name]
            compared = True
    if not compared:
        _absent(goldens, "TD gradients")


def _policy_losses(networks, steps, levels, draws, batch):
    """The Q loss alone, and the policy loss 10 FM + 10 SC + 100 Q, each with the field's gradient."""
    field, teacher, critic = networks

    def q_loss(field):
        actions = jax.vmap(lambda x, n: shortcut.sample(field, x, n, steps))(batch.observation, draws.policy_noise)
        k = jnp.asarray(float(steps), batch.reward.dtype)
        q = jax.vmap(lambda x, a: critic(x, a, k))(batch.observation, actions)
        return td.policy_q_loss(q), (actions, q)

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
            _absent(goldens, f"draws that the losses under {scope} need")
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
        _absent(goldens, "outputs under update/..")
    counts = {group: _jump_counts(goldens, group) for group in groups}
    most = max(steps for pairs in counts.values() for pair in pairs for steps in pair)
    agent = SorlReleased(backprop_steps=most, discount=DISCOUNT)
    state, update = _released_state(goldens, agent), jax.jit(agent.update)
    td_step = jax.jit(lambda *arguments: _optimiser_after_the_td_step(agent, *arguments))
    for group in groups:
        draws, batch = find_draws(goldens, group), find_batch(goldens, group)
        if draws is None or find_input(goldens, group, "target", "noise") is None:
            _absent(goldens, f"draws that the outputs under {group} need")
        levels = find_input(goldens, group, "consistency", "levels")
        np.testing.assert_array_equal(levels, consistency_levels(len(batch.reward), 8))
        # Where several jump counts are possible, only the right ones reproduce the parameters.
        results = [(pair, *update(state, batch, draws, shared_draws(*pair))) for pair in counts[group]]
        pair, after, metrics = min(results, key=lambda result: _distance(goldens, group, result[1]))
        half = td_step(state, batch, draws, shared_draws(*pair))
        computed = {r"(\w+/)*critic_loss": metrics["critic_loss"], r"(\w+/)*actor_loss": metrics["policy_loss"]}
        for name, ours in NETWORKS.items():
            computed |= with_prefix(f"((params|after|out|new)/)*{name}", getattr(after, ours))
        _check(goldens, group, computed | _norms(metrics) | _moments(after.optimiser, half))
        state = after


def _optimiser_after_the_td_step(agent, state, batch, draws, shared):
    """Adam's state between the two steps of an update."""
    gradient, _ = agent._td_gradient(state, batch, draws, shared.target_steps)
    rates = {"learning_rate": agent.learning_rate, "max_grad_norm": agent.max_grad_norm}
    return optimisation.step(gradient, state.optimiser, (state.field, state.critic), **rates)[1]


def _norms(metrics):
    """The norm of each step's gradient, whole or of one network, before or after the clip to 1; one has to agree."""
    parts = [metrics[f"{name}_grad_norm"] for name in ("critic", "td_policy", "policy")]
    norms = [*parts, jnp.hypot(parts[0], parts[1])]
    return {r"(\w+/)*\w*norm\w*(/\w+)*": [*norms, *(jnp.minimum(norm, 1.0) for norm in norms)]}


def _moments(*optimisers):
    """Adam's moments and count, at the end of an update or between its steps; those of the targets stay 0."""
    computed: dict[str, list] = {r"(\w+/)*count": [optimiser.count for optimiser in optimisers]}
    for pattern, attribute in (("(mu|m|mean|exp_avg)", "mean"), ("(nu|v|variance|exp_avg_sq)", "variance")):
        for number, name in enumerate(("actor", "critic")):
            arrays = [named_arrays(getattr(optimiser, attribute)[number]) for optimiser in optimisers]
            for leaf in arrays[0]:
                values = [array[leaf] for array in arrays]
                computed[rf"(\w+/)*{pattern}/(\w+/)*{name}/{leaf}"] = values
                computed[rf"(\w+/)*{pattern}/(\w+/)*target_{name}/{leaf}"] = [0 * value for value in values]
    return computed


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
        picked = {aggregation: verifiers.best_of_n(candidates, q, aggregation) for aggregation in ("mean", "min")}
        return candidates, q, picked

    return jax.vmap(best, in_axes=(0, 1))(observation, noise)


def test_best_of_n_for_a_batch(goldens):
    names = goldens.outputs("bon_batch")
    if not names:
        _absent(goldens, "outputs under bon_batch")
    observation = goldens.input("bon_batch/obs" if "bon_batch/obs" in goldens else "in/obs")
    noise = goldens.input("bon_batch/noise")  # candidates first, as the released code draws it, or last
    if noise.ndim == 3 and noise.shape[1] != len(observation):
        noise = jnp.swapaxes(noise, 0, 1)
    noise = noise.reshape(-1, len(observation), 3)
    usual = int(goldens.input("bon_batch/k")) if "bon_batch/k" in goldens else 2
    counts = {int(match[1]) if (match := re.match(r"k(\d+)/", name)) else usual for name in names}
    pick, computed = jax.jit(_best_of_n, static_argnums=1), {}
    for steps in sorted(counts):
        level = f"(k{steps}/)?" if steps == usual else f"k{steps}/"  # a name without this level means the usual count
        found = _names_of_best_of_n(*pick((goldens.field(), goldens.critic()), steps, observation, noise))
        computed |= {level + name: value for name, value in found.items()}
    _check(goldens, "bon_batch", computed)


def _names_of_best_of_n(candidates, q, picked):
    """What a file may hold of the choice, by pattern; where a name leaves out the aggregation, the heads' mean."""
    computed = {"candidates": [candidates, jnp.swapaxes(candidates, 0, 1)]}
    per_head = [jnp.transpose(q, axes) for axes in itertools.permutations(range(3))]
    for aggregation, (action, index) in picked.items():
        level, value = "(mean/)?" if aggregation == "mean" else "min/", verifiers.aggregate(q, aggregation)
        computed[f"{level}(qs?|q_values?)(_correct_pairing|_correct)?"] = [*per_head, value, value.T]
        computed[f"{level}(best_)?actions?(_correct)?"] = action
        computed[f"{level}best_(idx|index)(_correct)?"] = index
    return computed


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


def test_every_value_of_the_transcription_was_compared(request, transcription):
    """Runs after those above: the file that we wrote holds nothing that they left out."""
    if request.config.getoption("keyword"):
        pytest.skip("only some of the tests on reference values were selected")
    assert not Goldens("f64", transcription).unused(besides=Goldens("f64", OURS))


def test_a_scope_of_unknown_names_is_an_error(tmp_path):
    path = tmp_path / "unknown.npz"
    np.savez(path, allow_pickle=False, **{"f64/td/k2/gradient_of/actor": np.zeros(3)})
    with pytest.raises(AssertionError, match="nothing under td/k2 was compared; .* has .'gradient_of/actor'"):
        compare(Goldens("f64", path), "td/k2", {"grads?/actor": np.zeros(3)})


def test_what_no_test_compared_is_named(request):
    """Runs last: names what a file holds beyond our own reference values and no test above looked for."""
    if request.config.getoption("keyword"):
        pytest.skip("only some of the tests on reference values were selected")
    if unused := Goldens("f64").unused(besides=Goldens("f64", OURS)):
        pytest.skip(f"{len(unused)} groups of reference values were compared with nothing: {', '.join(unused)}.")
