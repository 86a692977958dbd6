"""The policy that a user deploys: its units, its budgets, its file, and what it refuses."""

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget, Normalisation, Policy, load_policy
from sorl.agents import Bc
from sorl.policy import decide, policy_path

from .. import synthetic
from ..random_networks import make_policy


@pytest.fixture(scope="module")
def policy():
    agent = synthetic.agent()
    networks = make_policy(agent, 3, 2, seed=0, scale=0.2)
    return Policy(agent.actor, networks, synthetic.units(), {"env": "made up", "step": 7})


def _act(policy, observations, **budget):
    return policy(observations, key=jax.random.key(1), **budget)


def test_acts_on_one_observation_and_on_batches(policy):
    assert _act(policy, np.zeros(3)).shape == (2,)
    assert _act(policy, np.zeros((5, 3))).shape == (5, 2)
    assert _act(policy, np.zeros((0, 3))).shape == (0, 2)
    assert _act(policy, jnp.zeros((2, 5, 3))).shape == (2, 5, 2)
    action = _act(policy, jnp.zeros(3))
    assert isinstance(action, np.ndarray) and action.flags.writeable


def test_it_decides_as_an_evaluation_does(policy):
    """The arrays are laid out in another way, so the last bits may differ."""
    observations, key = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), jax.random.key(1)
    budget = Budget(2, 4)
    expected = decide(
        policy.actor, policy.networks, policy.normalisation, observations, jax.random.split(key, 6), budget
    )
    np.testing.assert_allclose(policy(observations, key=key, budget=budget), expected, rtol=1e-5, atol=1e-5)


def test_normalisation_is_undone(policy):
    """The same networks without scales, asked in network units, give the same action in network units."""
    plain = Policy(policy.actor, policy.networks, Normalisation.identity(3, 2))
    raw = np.array([[3.0, -2.0, 3.5], [1.0, 2.0, 3.0]], np.float32)
    scaled = np.array([[1.0, -1.0, 1.0], [0.0, 0.0, 0.0]], np.float32)
    expected = _act(plain, scaled, candidates=4) * [5.0, 5.0] + [5.0, 0.0]
    np.testing.assert_allclose(_act(policy, raw, candidates=4), expected, rtol=1e-6)


def test_same_key_same_action_and_noise_scale_zero_ignores_the_key(policy):
    observation = np.ones(3)
    np.testing.assert_array_equal(_act(policy, observation), _act(policy, observation))
    assert not np.array_equal(_act(policy, observation), policy(observation, key=jax.random.key(2)))
    np.testing.assert_array_equal(
        _act(policy, observation, noise_scale=0.0), policy(observation, key=jax.random.key(2), noise_scale=0.0)
    )


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 16])
def test_any_number_of_steps_acts(policy, steps):
    actions = _act(policy, np.zeros((4, 3)), steps=steps, candidates=3)
    assert np.all(np.abs(actions - [5.0, 0.0]) <= 5.0)


def test_a_budget_comes_from_the_call_or_from_the_policy(policy):
    observation = np.ones(3)
    other = policy.with_budget(Budget(2, 8, noise_scale=0.5))
    expected = _act(policy, observation, steps=2, candidates=8, noise_scale=0.5)
    np.testing.assert_array_equal(_act(other, observation), expected)
    np.testing.assert_array_equal(_act(policy, observation, budget=other.budget), expected)
    # What is given by name goes over the budget.
    np.testing.assert_array_equal(_act(other, observation, steps=8), _act(other, observation, budget=Budget(8, 8, 0.5)))
    assert not np.array_equal(_act(other, observation, steps=8), expected)


def test_conditioning_is_part_of_the_budget(policy):
    shown = [_act(policy, np.ones(3), budget=Budget(2, policy_conditioning=steps)) for steps in (None, 2, 8)]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[1], shown[2])


def test_a_second_call_compiles_nothing_whoever_makes_it(policy, caplog):
    sibling = dataclasses.replace(policy, networks=jax.tree.map(jnp.negative, policy.networks))

    def compiled(who, budget):
        caplog.clear()
        with jax.log_compiles():
            who(np.ones((4, 3)), key=jax.random.key(3), budget=budget)
        return any("Compiling jit(run)" in record.getMessage() for record in caplog.records)

    assert compiled(policy, Budget(1, 2))
    assert not compiled(policy, Budget(1, 2))
    compiled(sibling, Budget(1, 3))
    assert not compiled(sibling, Budget(1, 2))
    assert not compiled(policy.with_budget(Budget(8)), Budget(1, 3))


def test_file_round_trip(policy, tmp_path):
    policy = policy.with_budget(Budget(8, 4, critic_conditioning=2)).with_scores([synthetic.score(8, 4)])
    policy.save(tmp_path / "policy.sorl")
    loaded = load_policy(tmp_path / "policy.sorl")
    assert loaded.provenance == {"env": "made up", "step": 7}
    assert loaded.actor == policy.actor
    assert loaded.scores == policy.scores
    assert loaded.budget == Budget(8, 4, critic_conditioning=2)
    for name in ("observation_mean", "observation_scale", "action_low", "action_high"):
        np.testing.assert_array_equal(getattr(loaded.normalisation, name), getattr(policy.normalisation, name))
    observations = np.random.default_rng(0).normal(size=(6, 3))
    np.testing.assert_array_equal(_act(loaded, observations), _act(policy, observations))
    assert [path.name for path in tmp_path.iterdir()] == ["policy.sorl"]


def test_paths_in_a_files_provenance_lose_their_directories(policy, tmp_path):
    provenance = {
        "env": "cube/single",
        "step": 7,
        "versions": {"data": {"path": "/home/ada/robot/logs.npz", "validation": {"path": r"C:\ada\val.npz"}, "n": [1]}},
    }
    dataclasses.replace(policy, provenance=provenance).save(tmp_path / "new" / "directory" / "policy.sorl")
    data = {"path": "logs.npz", "validation": {"path": "val.npz"}, "n": [1]}
    loaded = load_policy(tmp_path / "new" / "directory" / "policy.sorl")
    assert loaded.provenance == {"env": "cube/single", "step": 7, "versions": {"data": data}}


def test_names_of_columns_in_a_files_provenance_keep_their_slashes(policy, tmp_path):
    data = {
        "observation_names": ["/left/pos", "/right/pos"],
        "columns": {"observations": ["/left/pos", "/right/pos"], "rewards": "/reward"},
        "about": {"action_names": ["/left/cmd"]},
    }
    dataclasses.replace(policy, provenance={"versions": {"data": data}}).save(tmp_path / "policy.sorl")
    assert load_policy(tmp_path / "policy.sorl").provenance == {"versions": {"data": data}}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
def test_copies_act_alike_after_the_first_decision(policy, copied):
    policy = policy.with_scores([synthetic.score(1, 2)]).with_budget(Budget(1, 2))
    action = _act(policy, np.ones(3))
    other = copied(policy)
    assert (other.actor, other.budget, other.scores) == (policy.actor, policy.budget, policy.scores)
    np.testing.assert_array_equal(_act(other, np.ones(3)), action)


def test_it_shows_its_budget(policy):
    assert repr(policy.with_budget(Budget(2, 8))) == (
        "Policy(ShortcutActor, 3 observations -> 2 actions, acts at M2N8 (2 steps, best of 8) by default)"
    )


@pytest.mark.parametrize(
    "key, found",
    [
        ({}, "None"),
        ({"key": 0}, "0"),
        ({"key": jax.random.PRNGKey(0)}, r"an array of uint32 and shape \(2,\)"),
        ({"key": jax.random.split(jax.random.key(0))}, r"an array of key<fry> and shape \(2,\)"),
        ({"key": np.zeros((30, 2))}, r"an array of float64 and shape \(30, 2\)"),
        ({"key": [np.zeros((30, 2))]}, r"\[array\(\[\[0\., 0\.\], \[0\., 0\.\][^\n]*"),
    ],
)
def test_what_is_no_key_is_refused(policy, key, found):
    with pytest.raises(ValueError, match=rf"The key is {found}; give one .*, such as key=jax\.random\.key\(0\)\.$"):
        policy(np.zeros(3), **key)


def test_a_policy_of_two_trained_steps_acts_in_two():
    assert synthetic.agent(discretization_steps=2).actor.budgets.usual == Budget(2)
    assert synthetic.agent(discretization_steps=4).actor.budgets.usual == Budget(4)
    assert synthetic.agent(discretization_steps=8).actor.budgets.usual == Budget(4)


def test_the_digest_covers_what_decides_how_it_acts_and_nothing_else(policy):
    def changed(**fields):
        return dataclasses.replace(policy, actor=dataclasses.replace(policy.actor, **fields)).digest

    trained_otherwise = synthetic.agent(learning_rate=1.0, discount=0.5, q_coefficient=3.0)
    assert dataclasses.replace(policy, actor=trained_otherwise.actor).digest == policy.digest
    assert changed(q_aggregation="min") != policy.digest
    assert changed(backprop_steps=4) != policy.digest
    assert dataclasses.replace(policy, provenance={}, budget=Budget(1)).digest == policy.digest
    other = dataclasses.replace(policy, networks=jax.tree.map(jnp.negative, policy.networks))
    assert other.digest != policy.digest


def test_every_float32_of_the_normalisation_survives_the_file(tmp_path):
    agent = synthetic.agent()
    random = np.random.default_rng(0)
    arrays = [np.exp(random.uniform(-40, 40, size)).astype(np.float32) for size in (50, 50, 2, 2)]
    normalisation = Normalisation(*map(jnp.asarray, arrays))
    networks = make_policy(agent, 50, 2, seed=0, scale=0.2)
    Policy(agent.actor, networks, normalisation).save(tmp_path / "policy.sorl")
    loaded = load_policy(tmp_path / "policy.sorl").normalisation
    for stored, array in zip(jax.tree.leaves(loaded), arrays, strict=True):
        np.testing.assert_array_equal(stored, array)


def test_budgets_that_the_agent_cannot_act_at_are_refused():
    agent = synthetic.tiny(Bc)
    policy = Policy(agent.actor, make_policy(agent, 3, 2, seed=0), Normalisation.identity(3, 2))
    assert policy.budget == agent.actor.budgets.usual
    with pytest.raises(ValueError, match="cannot act with 4 inference steps"):
        _act(policy, np.zeros(3), steps=4)
    with pytest.raises(ValueError, match="cannot act with 8 candidates"):
        policy.with_budget(Budget(1, 8))


def test_the_kind_of_a_number_does_not_depend_on_earlier_calls(policy):
    observation, key = np.zeros(3), jax.random.key(0)
    policy(observation, key=key, steps=1)
    with pytest.raises(ValueError, match="inference_steps is True; give a whole number"):
        policy(observation, key=key, steps=True)
    # What types forbid, and Python does not; here the type checks refuse it first.
    for bad in (1.0, jnp.float32(1)):
        with pytest.raises((ValueError, TypeError), match=r"inference_steps(.|\n)*1\.0"):
            policy._program(policy.budget, bad, None, None)
    program = policy._program(policy.budget, 1, None, 0.5)
    assert policy._program(policy.budget, jnp.int32(1), None, jnp.float32(0.5)) is program
    with pytest.raises(ValueError, match=r"steps has shape \[2\]; give one number"):
        policy._program(policy.budget, np.array([1, 2]), None, None)


def test_numpys_numbers_make_a_budget(policy):
    found = _act(policy, np.ones(3), steps=np.int64(2), candidates=np.int32(3), noise_scale=np.float32(0.5))
    np.testing.assert_array_equal(found, _act(policy, np.ones(3), steps=2, candidates=3, noise_scale=0.5))


def test_a_run_directory_gives_the_lowest_seed_or_the_one_asked_for(policy, tmp_path):
    for seed in (10, 2):
        dataclasses.replace(policy, provenance={"seed": seed}).save(policy_path(tmp_path, seed))
    assert load_policy(tmp_path).provenance == {"seed": 2}
    assert load_policy(tmp_path, seed=10).provenance == {"seed": 10}
    with pytest.raises(ValueError, match="has no policy of seed 3; it has those of 2, 10"):
        load_policy(tmp_path, seed=3)
    with pytest.raises(ValueError, match=r"policy-seed-2\.sorl is one policy, of which seed 2 cannot be asked"):
        load_policy(policy_path(tmp_path, 2), seed=2)


@pytest.mark.parametrize(
    "observation, message",
    [
        (np.zeros(4), r"has shape \(4,\); this policy acts on shape \(3,\)"),
        (np.zeros((2, 5)), r"has shape \(2, 5\)"),
        (np.array([[0.0, 1.0, 2.0], [0.0, np.nan, 0.0]]), r"shape \(2, 3\) holds nan at index \[1, 1\]; .*\(3,\)"),
        (np.array([np.inf, 0.0, 0.0]), r"holds inf at index \[0\]"),
        (np.array([0.0, 1e300, 0.0]), r"holds inf at index \[1\]"),
        (np.zeros(3) + 1j, r"not an array of real numbers \(its type is complex128\)"),
        (np.array(["1", "2", "3"]), r"is not an array of real numbers \(its type is <U1\).*\(3,\)"),
        (np.zeros(3, "timedelta64[s]"), r"its type is timedelta64\[s\]"),
        (np.ma.array([1.0, 2.0, 3.0], mask=[False, False, True]), r"some of it is masked"),
        (np.array([None, 1.0, 2.0], object), r"is not an array of real numbers|holds nan"),
    ],
)
def test_bad_observations_are_refused(policy, observation, message):
    with pytest.raises(ValueError, match=message):
        _act(policy, observation)


def test_a_policy_that_is_traced_says_what_to_call(policy):
    for transformed in (jax.jit, jax.vmap):
        with pytest.raises(ValueError, match=r"cannot be traced by jax.jit, .*; give a batch .* sorl.policy.decide"):
            transformed(lambda one: _act(policy, one))(jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match="cannot be traced"):
        jax.vmap(lambda key: policy(np.zeros(3), key=key))(jax.random.split(jax.random.key(0), 3))


@pytest.mark.parametrize("budget", [{"steps": 0}, {"steps": -3}, {"candidates": 0}])
def test_a_budget_that_a_policy_lacks_is_refused_before_the_loop(policy, budget):
    with pytest.raises(ValueError, match="inference steps|candidates"):
        policy.runner(key=jax.random.key(0), **budget)


def test_an_action_that_is_not_finite_is_no_action(policy):
    broken = dataclasses.replace(policy, networks=jax.tree.map(lambda leaf: leaf * jnp.nan, policy.networks))
    with pytest.raises(FloatingPointError, match="not finite"):
        _act(broken, np.zeros(3))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"success": 1.5}, "a success from 0 to 1"),
        ({"difference": None}, "numbers for difference"),
        ({"success_low": float("nan")}, "not JSON"),
        ({"inference_steps": 1.0}, "whole numbers for inference_steps and candidates"),
        ({"candidates": 0}, "cannot act"),
        ({"note": object()}, "not JSON"),
        ({"inference_steps": 4, "candidates": 8}, "name a budget twice"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(policy, change, message):
    with pytest.raises(ValueError, match=message):
        policy.with_scores([synthetic.score(4, 8), synthetic.score(1, 1) | change])


def test_scores_are_copies_and_differ_by_any_field_of_the_budget(policy):
    rows = [synthetic.score(4, 8), synthetic.score(4, 8) | {"noise_scale": 0.5, "return": -3.0}]
    scored = policy.with_scores(rows)
    assert scored.scores == rows and policy.scores == []
    rows[0]["success"] = 0.0
    assert scored.scores[0]["success"] == 0.5
