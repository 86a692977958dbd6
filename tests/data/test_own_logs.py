import gc
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.data import load_logs
from sorl.data.columns import BLOCK_VALUES
from sorl.data.transitions import Window


LIMIT = 1 - 1e-5


def _log(**changes):
    """Two trajectories: three steps and a termination, then two steps and a time-out."""
    arrays = {
        "observations": np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [10.0, 5.0], [12.0, 5.0]]),
        "actions": np.array([[0.0], [4.0], [2.0], [0.0], [1.0]]),
        "rewards": np.array([0.0, 0.0, 1.0, 0.5, 0.25]),
        "terminals": np.array([0, 0, 1, 0, 0]),
        "timeouts": np.array([0, 0, 0, 0, 1]),
        **changes,
    }
    return {key: array for key, array in arrays.items() if array is not None}


def _save(path, **changes):
    np.savez(path, **_log(**changes))
    return path


def _transitions(data, dataset):
    """The data set's transitions in the user's units."""
    return jax.tree.map(np.asarray, _in_units(data.normalisation, dataset))


@jax.jit
def _in_units(units, dataset):
    batch = dataset.take(jnp.arange(len(dataset)), Window(), 1.0)
    return {
        "observation": batch.observation * units.observation_scale[None] + units.observation_mean[None],
        "action": units.environment_action(batch.action),
        "reward": batch.reward,
        "mask": batch.discount,
        "next_action": units.environment_action(batch.next_action),
        "next": batch.next_observation * units.observation_scale[None] + units.observation_mean[None],
    }


def test_rewards_can_be_made_sparse(tmp_path):
    path = _save(tmp_path / "log.npz")
    _save(tmp_path / "log-val.npz", rewards=np.array([2, 0, -3, 0, 1]))
    data = load_logs(path, sparse_rewards=True)
    assert _transitions(data, data.train)["reward"].tolist() == [0.0, 0.0, -1.0, -1.0]
    assert _transitions(data, data.train)["mask"].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert _transitions(data, data.validation)["reward"].tolist() == [-1.0, 0.0, -1.0, 0.0]
    assert data.provenance["sparse_rewards"] and data.provenance["summary"]["reward_min"] == -1.0
    assert "sparse_rewards" not in load_logs(path).provenance


def test_a_termination_is_kept_and_a_time_out_without_successor_dropped(tmp_path):
    data = load_logs(_save(tmp_path / "log.npz"), validation_fraction=0.0)
    found = _transitions(data, data.train)
    assert data.validation is None
    np.testing.assert_allclose(found["observation"][:, 0], [0, 1, 2, 10], atol=1e-5)
    np.testing.assert_allclose(found["action"][:, 0], [0, 4, 2, 0], atol=1e-4)
    assert found["reward"].tolist() == [0.0, 0.0, 1.0, 0.5]
    assert found["mask"].tolist() == [1.0, 1.0, 0.0, 1.0]
    np.testing.assert_allclose(found["next"][[0, 1, 3], 0], [1, 2, 12], atol=1e-5)
    # At the termination, where none is known, the last action again.
    np.testing.assert_allclose(found["next_action"][:, 0], [4, 2, 2, 1], atol=1e-4)
    assert (data.provenance["source"], data.provenance["episodes"], data.provenance["transitions"]) == (
        "own logs",
        2,
        4,
    )


def test_scaled_rewards_do_not_overflow(tmp_path):
    path = _save(tmp_path / "half.npz", rewards=np.full(5, 6000, np.float16))
    data = load_logs(path, validation_fraction=0.0, reward_scale=100.0)
    assert (np.asarray(data.train.rewards)[np.asarray(data.train.starts)] == 6e5).all()
    with pytest.raises(ValueError, match=r"times the reward scale 1e\+10, of .*half.npz in row 0: .* beyond 1e"):
        load_logs(path, reward_scale=1e10)


def test_next_observations_keep_the_time_out(tmp_path):
    nexts = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [12.0, 5.0], [14.0, 5.0]])
    data = load_logs(_save(tmp_path / "log.npz", next_observations=nexts), validation_fraction=0.0)
    found = _transitions(data, data.train)
    np.testing.assert_allclose(found["next"][:, 0], [1, 2, 3, 12, 14], atol=1e-5)
    assert found["mask"].tolist() == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert found["reward"].tolist() == [0.0, 0.0, 1.0, 0.5, 0.25]


def test_masks_say_what_timeouts_say(tmp_path):
    by_timeouts = load_logs(_save(tmp_path / "a.npz"), validation_fraction=0.0)
    masks = {"terminals": np.array([0, 0, 1, 0, 1]), "masks": np.array([1.0, 1.0, 0.0, 1.0, 1.0]), "timeouts": None}
    by_masks = load_logs(_save(tmp_path / "b.npz", **masks), validation_fraction=0.0)
    for one, other in zip(jax.tree.leaves(by_timeouts.train), jax.tree.leaves(by_masks.train), strict=True):
        np.testing.assert_array_equal(one, other)


def test_scales_are_computed(tmp_path):
    units = load_logs(_save(tmp_path / "log.npz"), validation_fraction=0.0).normalisation
    np.testing.assert_allclose(units.observation_mean, [5.0, 5.0])
    np.testing.assert_allclose(units.observation_scale, [float(np.std([0, 1, 2, 10, 12])), 1.0], rtol=1e-6)
    assert (units.action_low.tolist(), units.action_high.tolist()) == ([0.0], [4.0])


def test_actions_are_clipped_just_inside_the_unit_interval(tmp_path):
    train = load_logs(_save(tmp_path / "log.npz"), validation_fraction=0.0).train
    np.testing.assert_allclose(train.actions[train.starts, 0], [-LIMIT, LIMIT, 0.0, -LIMIT], atol=1e-7)


def test_a_stored_action_range_is_taken(tmp_path):
    path = _save(tmp_path / "log.npz", action_low=np.array([-4.0]), action_high=np.array([6.0]))
    data = load_logs(path, validation_fraction=0.0)
    np.testing.assert_allclose(data.train.actions[data.train.starts, 0], [-0.2, 0.6, 0.2, -0.2], rtol=1e-6)
    assert (data.normalisation.action_low.tolist(), data.normalisation.action_high.tolist()) == ([-4.0], [6.0])


@pytest.mark.parametrize("stated", [{}, {"action_low": np.array([-4.0]), "action_high": np.array([6.0])}])
def test_a_constant_action_is_its_constant(tmp_path, stated):
    data = load_logs(_save(tmp_path / "log.npz", actions=np.full((5, 1), 0.3), **stated), validation_fraction=0.0)
    assert data.train.actions[data.train.starts, 0].tolist() == [0.0] * 4
    for action in (-1.3, -0.5, 0.0, 1.0):
        found = np.asarray(data.normalisation.environment_action(jnp.array([action])))
        assert found.dtype == np.float32 and found[0] == np.float32(0.3)
    assert data.provenance["summary"]["constant"] == ["observations[1]", "actions[0]"]


def _many(path, episodes=10):
    """Episodes of three steps, whose observation is the episode's number."""
    number = np.repeat(np.arange(episodes, dtype=np.float32), 3)
    timeouts = np.tile([0, 0, 1], episodes)
    zeros = np.zeros(3 * episodes)
    np.savez(
        path,
        observations=number[:, None],
        actions=np.sin(number)[:, None],
        rewards=zeros,
        terminals=zeros,
        timeouts=timeouts,
    )
    return path


def test_whole_episodes_are_held_out(tmp_path):
    data = load_logs(_many(tmp_path / "log.npz"), validation_fraction=0.3, seed=1)
    assert data.validation is not None
    train = set(np.round(_transitions(data, data.train)["observation"][:, 0]).tolist())
    held_out = set(np.round(_transitions(data, data.validation)["observation"][:, 0]).tolist())
    assert (len(train), len(held_out)) == (7, 3)
    assert train | held_out == set(range(10))
    assert (len(data.train), len(data.validation)) == (14, 6)
    assert data.provenance["validation"] == {"fraction": 0.3, "seed": 1, "episodes": 3, "transitions": 6}


def test_the_seed_decides_what_is_held_out(tmp_path):
    path = _many(tmp_path / "log.npz")
    picks = [np.asarray(load_logs(path, seed=seed).train.observations) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(picks[0], picks[1])
    assert not np.array_equal(picks[0], picks[2])


def test_a_single_trajectory_is_all_trained_on(tmp_path):
    assert load_logs(_many(tmp_path / "log.npz", 1)).validation is None
    two = load_logs(_many(tmp_path / "two.npz", 2), validation_fraction=0.99)
    assert two.validation is not None
    assert len(two.train) == len(two.validation) == 2


def test_a_validation_file_beside_is_used(tmp_path):
    path = _save(tmp_path / "log.npz")
    _save(tmp_path / "log-val.npz", actions=np.array([[0.0], [8.0], [2.0], [0.0], [1.0]]))
    data = load_logs(path)
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (4, 4)
    assert data.normalisation.action_high.tolist() == [8.0]
    assert data.provenance["validation"]["path"] == str(tmp_path / "log-val.npz")


def test_a_validation_file_of_other_sizes_is_refused(tmp_path):
    path = _save(tmp_path / "log.npz")
    _save(tmp_path / "log-val.npz", observations=np.zeros((5, 3)))
    with pytest.raises(ValueError, match="observations of .*log-val.npz have size 3, those to train on 2"):
        load_logs(path)


@hypothesis.given(
    lengths=st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=6), with_next=st.booleans()
)
@hypothesis.settings(deadline=None, max_examples=15)
def test_every_successor_is_the_one_that_was_logged(tmp_path_factory, lengths, with_next):
    """Row t of a trajectory is seen as 10 * trajectory + t, so a successor is always one more."""
    hypothesis.assume(with_next or any(length > 1 or terminated for length, terminated in lengths))
    seen = np.concatenate([10 * i + np.arange(length) for i, (length, _) in enumerate(lengths)]).astype(float)[:, None]
    last = np.cumsum([length for length, _ in lengths]) - 1
    terminals, timeouts = np.zeros(len(seen)), np.zeros(len(seen))
    terminals[last] = [terminated for _, terminated in lengths]
    timeouts[last] = 1 - terminals[last]
    path = tmp_path_factory.mktemp("logs") / "log.npz"
    nexts = seen + 1 if with_next else None
    changes = {"observations": seen, "actions": np.sin(seen), "rewards": seen[:, 0], "next_observations": nexts}
    _save(path, **changes, terminals=terminals, timeouts=timeouts)
    data = load_logs(path, validation_fraction=0.0)
    found = _transitions(data, data.train)

    kept = np.ones(len(seen), bool) if with_next else timeouts == 0
    np.testing.assert_allclose(found["observation"][:, 0], seen[kept, 0], atol=1e-3)
    np.testing.assert_array_equal(found["mask"], 1 - terminals[kept])
    known = np.ones(len(found["mask"]), bool) if with_next else found["mask"] == 1
    np.testing.assert_allclose(found["next"][known, 0], seen[kept][known, 0] + 1, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rewards": None}, "lacks rewards: it holds observations, actions, terminals, timeouts"),
        ({"timeouts": None}, "holds neither masks nor timeouts"),
        ({"masks": np.ones(5)}, "holds both masks and timeouts"),
        ({"observations": np.zeros(5)}, r"observations of .* has shape \[5\]; give \[rows, size\]"),
        ({"rewards": np.zeros((5, 2))}, r"rewards of .* has shape \[5, 2\]; give \[rows\]"),
        ({"rewards": np.float32(0)}, r"rewards of .* has shape \[\]; give \[rows\]"),
        ({"rewards": np.zeros(4)}, "rows: observations 5, actions 5, rewards 4"),
        ({"actions": np.array([["left"]] * 5)}, r"actions of .* cannot be read \(it has dtype <U4, not real numbers"),
        ({"actions": np.array([[None]] * 5)}, "actions of .* cannot be read"),
        ({"rewards": np.array([0, 0, np.nan, 0, 0])}, "rewards of .* is not finite in row 2: nan"),
        ({"observations": np.array([[0, 0]] * 4 + [[0, np.inf]])}, "observations of .* is not finite in row 4"),
        ({"rewards": np.array([0, 1e300, 0, 0, 0])}, "rewards of .* is not finite in row 1"),
        ({"terminals": np.array([0, 2, 1, 0, 0])}, "terminals of .* is 2 in row 1; give 0 or 1"),
        ({"timeouts": np.zeros(5)}, "row 4 is the last and not marked as an end"),
        ({"next_observations": np.zeros((5, 2))}, "next_observations of .* in row 0 is not the observation of row 1"),
        ({"next_observations": np.zeros((5, 3))}, r"have shape \[5, 3\], observations \[5, 2\]"),
        ({"action_low": np.array([0.0])}, r"holds action_low of shape \[1\]; give action_low and action_high"),
        ({"action_low": np.zeros(2), "action_high": np.ones(2)}, r"each \[1\]"),
        ({"action_low": np.array([1.0]), "action_high": np.array([1.0])}, "span no range; give finite low < high"),
        ({"action_low": np.array([0.0]), "action_high": np.array([3.0])}, "leave the stored range .* in row 1"),
        ({"terminals": np.zeros(5), "timeouts": np.ones(5)}, "no step with a known outcome in the episodes to"),
    ],
)
def test_bad_logs_are_refused(tmp_path, changes, sentence):
    path = _save(tmp_path / "log.npz", **changes)
    with pytest.raises(ValueError, match=sentence) as refusal:
        load_logs(path, validation_fraction=0.0)
    assert str(path) in str(refusal.value)


def test_what_is_no_npz_is_refused(tmp_path):
    path = tmp_path / "log.npz"
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_logs(path)
    path.write_text("observations: many")
    with pytest.raises(ValueError, match="is not an npz file"):
        load_logs(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="is not an npz file"):
        load_logs(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is not an npz file"):
        load_logs(path)
    whole = _save(tmp_path / "whole.npz").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not an npz file"):
        load_logs(path)


def test_a_bad_fraction_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"fraction is 1\.0; give a number in \[0, 1\)"):
        load_logs(_save(tmp_path / "log.npz"), validation_fraction=1.0)


@pytest.mark.parametrize("with_next", [False, True])
def test_loading_takes_at_most_twice_the_files_size(tmp_path, with_next):
    rows, size = 50_000, 30
    random = np.random.default_rng(0)
    observations = random.normal(size=(rows, size)).astype(np.float32)
    nexts = np.concatenate([observations[1:], observations[:1]])
    ends = np.arange(rows) % 200 == 199
    nexts[ends] += 1
    path = _save(
        tmp_path / "log.npz",
        observations=observations,
        actions=random.normal(size=(rows, 4)).astype(np.float32),
        rewards=np.zeros(rows, np.float32),
        terminals=np.zeros(rows, bool),
        timeouts=ends,
        next_observations=nexts if with_next else None,
    )
    del observations, nexts
    gc.collect()
    tracemalloc.start()
    data = load_logs(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data.train) > 40_000
    # The blocks' temporaries do not grow with the file.
    assert peak < 2 * path.stat().st_size + 12 * 8 * BLOCK_VALUES
