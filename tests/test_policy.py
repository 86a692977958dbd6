"""The policy that a user deploys: its units, its file, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Normalisation, Policy, load_policy

from . import synthetic


@pytest.fixture(scope="module")
def policy():
    agent = synthetic.agent()
    networks = agent.policy(agent.init(3, 2, key=jax.random.key(0)))
    normalisation = Normalisation(
        observation_mean=jnp.array([1.0, 2.0, 3.0]),
        observation_scale=jnp.array([2.0, 4.0, 0.5]),
        action_low=jnp.array([0.0, -5.0]),
        action_high=jnp.array([10.0, 5.0]),
    )
    return Policy(agent, networks, normalisation, {"env": "made up", "step": 7})


def _act(policy, observations, **budget):
    return policy(observations, key=jax.random.key(1), **budget)


def test_acts_on_one_observation_and_on_batches(policy):
    assert _act(policy, np.zeros(3)).shape == (2,)
    assert _act(policy, np.zeros((5, 3))).shape == (5, 2)
    assert _act(policy, jnp.zeros((2, 5, 3))).shape == (2, 5, 2)
    assert isinstance(_act(policy, jnp.zeros(3)), np.ndarray)


def test_normalisation_is_undone(policy):
    """The same networks without scales, asked in network units, give the same action in network units."""
    plain = Policy(policy.agent, policy.networks, Normalisation.identity(3, 2))
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


def test_file_round_trip(policy, tmp_path):
    policy.save(tmp_path / "policy.sorl")
    loaded = load_policy(tmp_path / "policy.sorl")
    assert loaded.provenance == {"env": "made up", "step": 7}
    assert loaded.agent == policy.agent
    observations = np.random.default_rng(0).normal(size=(6, 3))
    np.testing.assert_array_equal(_act(loaded, observations, candidates=8), _act(policy, observations, candidates=8))
    assert [path.name for path in tmp_path.iterdir()] == ["policy.sorl"]


@pytest.mark.parametrize(
    "observation, message",
    [
        (np.zeros(4), r"has shape \(4,\); this policy acts on shape \(3,\)"),
        (np.zeros((2, 5)), r"has shape \(2, 5\)"),
        (np.array([[0.0, 1.0, 2.0], [0.0, np.nan, 0.0]]), r"holds nan at index \[1, 1\]"),
        (np.array([np.inf, 0.0, 0.0]), r"holds inf at index \[0\]"),
    ],
)
def test_bad_observations_are_refused(policy, observation, message):
    with pytest.raises(ValueError, match=message):
        _act(policy, observation)


def _flip(content: bytes, place: float) -> bytes:
    index = int(place * (len(content) - 1))
    return content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda content, place=place: _flip(content, place) for place in np.linspace(0, 1, 12)),
        *(lambda content, share=share: content[: int(share * len(content))] for share in (0, 0.001, 0.1, 0.5, 0.999)),
        lambda content: content + b"\0",
        lambda content: b"PK\x03\x04" + content,
        lambda content: content.replace(b"sorl-policy 1 ", b"sorl-policy 2 "),
    ],
)
def test_damaged_files_give_one_clear_error(policy, damage, tmp_path):
    path = tmp_path / "policy.sorl"
    policy.save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"policy\.sorl (is not a policy file|has format version|does not match)"):
        load_policy(path)
