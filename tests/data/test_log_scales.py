"""The scales of own logs: small and large units, constants, limits of actions and observations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.data import load_logs
from sorl.data.columns import columns


ROWS = 400


def _save(path, **changes):
    """Four cut episodes of 100 steps; every column is drawn on its own."""
    random = np.random.default_rng(0)
    arrays = {
        "observations": random.normal(size=(ROWS, 3)),
        "actions": random.uniform(-1, 1, (ROWS, 2)),
        "rewards": random.normal(size=ROWS),
        "terminals": np.zeros(ROWS),
        "timeouts": np.arange(ROWS) % 100 == 99,
        **changes,
    }
    np.savez(path, **arrays)
    return path, arrays


def _load(tmp_path, options={}, **changes):  # noqa: B006
    path, arrays = _save(tmp_path / "log.npz", **changes)
    return load_logs(path, validation_fraction=0.0, **options), arrays


def _network_observations(data):
    """Those of the logged rows, without the row behind each trajectory."""
    return np.asarray(data.train.observations).reshape(4, 101, -1)[:, :100].reshape(ROWS, -1)


def _network_actions(data):
    return np.asarray(data.train.actions).reshape(4, 101, -1)[:, :100].reshape(ROWS, -1)


def _environment_actions(data):
    return np.asarray(data.normalisation.environment_action(jnp.asarray(_network_actions(data))))


def test_statistics_of_columns_are_numpys_in_any_number_of_blocks(monkeypatch):
    random = np.random.default_rng(0)
    array = random.normal([0, 1e9, 1e-20], [1, 1e-3, 1e-21], (1000, 3))
    chosen = random.random(1000) < 0.7
    for values in (3000, 30, 1):
        monkeypatch.setattr("sorl.data.columns.BLOCK_VALUES", values)
        found = columns(array, chosen)
        np.testing.assert_array_equal(found.low, array[chosen].min(axis=0))
        np.testing.assert_array_equal(found.high, array[chosen].max(axis=0))
        np.testing.assert_allclose(found.mean, array[chosen].mean(axis=0), rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(found.deviation, (array[chosen] - array[0]).std(axis=0), rtol=1e-9)
        assert not found.constant.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.3, -1.7e9, 0.0, 1e-7])
def test_what_varies_by_rounding_alone_is_constant(dtype, value):
    array = np.full((100, 1), value, dtype)
    array[::2] = np.nextafter(array[::2], dtype(np.inf))
    assert columns(array).constant.all()
    array[0] += 20 * np.spacing(np.abs(array[0])) + dtype(1e-29)
    assert not columns(array).constant.any()


def test_whole_numbers_that_vary_are_no_constants():
    assert columns(np.array([[10**9], [10**9 + 1]])).constant.tolist() == [False]


def test_actions_in_small_units_come_back(tmp_path):
    small = np.linspace(-7e-8, 7e-8, 2 * ROWS).reshape(ROWS, 2)
    data, _ = _load(tmp_path, actions=small)
    np.testing.assert_allclose(_network_actions(data)[:, 0], np.linspace(-1, 1, ROWS), atol=2e-5)
    np.testing.assert_allclose(_environment_actions(data), small, atol=2e-12)


def test_observations_in_small_units_are_scaled(tmp_path):
    random = np.random.default_rng(1)
    data, _ = _load(tmp_path, observations=random.normal(0, 2e-7, (ROWS, 3)))
    np.testing.assert_allclose(_network_observations(data).std(axis=0), 1, rtol=1e-5)


def test_a_clock_keeps_its_variation(tmp_path):
    clock = 1.7e9 + np.arange(ROWS) / 50
    observations = np.stack([clock, np.full(ROWS, 0.3), np.sin(clock)], axis=1)
    data, _ = _load(tmp_path, observations=observations)
    found = _network_observations(data)
    expected = (np.arange(ROWS) - (ROWS - 1) / 2) / np.std(np.arange(ROWS))
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-4)
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-12)
    assert found.dtype == np.float32
    assert data.provenance["summary"]["nearly_constant"] == ["observations[0]"]


def test_a_huge_and_a_constant_column_are_named(tmp_path):
    random = np.random.default_rng(1)
    observations = random.normal(size=(ROWS, 4)).astype(np.float32) * np.array([1, 0, 1e9, 1], np.float32)
    data, _ = _load(tmp_path, observations=observations + np.array([0, 3, 0, 0], np.float32))
    found = data.provenance["summary"]
    assert found["constant"] == ["observations[1]"]
    assert list(found["unusual_scale"]) == ["observations[2]"]
    assert np.isfinite(_network_observations(data)).all()
    np.testing.assert_allclose(_network_observations(data).std(axis=0), [1, 0, 1, 1], atol=1e-5)


def test_the_largest_single_precision_numbers_are_scaled(tmp_path):
    random = np.random.default_rng(1)
    data, _ = _load(tmp_path, observations=random.uniform(-3e38, 3e38, (ROWS, 3)))
    np.testing.assert_allclose(_network_observations(data).std(axis=0), 1, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:actions of .* are whole numbers")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_no_action_leaves_the_logged_range(tmp_path, dtype):
    actions = (np.random.default_rng(2).uniform(-3, 7, (ROWS, 2)) * 10).astype(dtype)
    data, _ = _load(tmp_path, actions=actions)
    for action in (-50.0, -1.0, 1.0, 50.0):
        found = np.asarray(data.normalisation.environment_action(jnp.full(2, action))).astype(np.float64)
        assert (actions.min(axis=0) <= found).all() and (found <= actions.max(axis=0)).all()
        np.testing.assert_allclose(found, actions.max(axis=0) if action > 0 else actions.min(axis=0), rtol=1e-6)


def test_stated_limits_go_over_the_files(tmp_path):
    stored = {"action_low": np.full(2, -9.0), "action_high": np.full(2, 9.0)}
    data, _ = _load(tmp_path, {"action_low": -2.0, "action_high": (3.0, 4.0)}, **stored)
    assert data.normalisation.action_low.tolist() == [-2.0, -2.0]
    assert data.normalisation.action_high.tolist() == [3.0, 4.0]


def test_actions_in_half_precision_may_be_rounded_beyond_the_stated_limits(tmp_path):
    actions = np.random.default_rng(0).normal(size=(ROWS, 2)).clip(-0.3, 0.3).astype(np.float16)
    assert float(actions.max()) > 0.3
    data, _ = _load(tmp_path, {"action_low": -0.3, "action_high": 0.3}, actions=actions)
    np.testing.assert_allclose(data.normalisation.action_high, 0.3)
    with pytest.raises(ValueError, match="leave the given range -0.299 to 0.299"):
        _load(tmp_path, {"action_low": -0.299, "action_high": 0.299}, actions=actions)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"action_low": -2.0}, "only low is given; give both"),
        ({"action_high": (2.0,)}, "only high is given; give both"),
        (
            {"action_low": (-2.0, -2.0, -2.0), "action_high": 2.0},
            "have 3 and 1 numbers, the actions of .* 2; give 1 or",
        ),
        ({"action_low": 2.0, "action_high": 2.0}, "span no range; give finite low < high"),
        ({"action_low": 3.0, "action_high": -3.0}, "span no range"),
        ({"action_low": float("nan"), "action_high": 2.0}, "span no range"),
        ({"action_low": -0.5, "action_high": 2.0}, r"leave the given range .* in row \d+: column"),
        ({"observation_margin": 0.5}, "margin is 0.5; give a finite number >= 1"),
        ({"observation_margin": float("nan")}, "margin is nan"),
        # Single precision has no number for the limits, or for the width of the range.
        ({"observation_margin": 1e300}, r"margin is 1e\+300; give a finite number >= 1, up to 1e\+12"),
        ({"action_low": -3e38, "action_high": 3e38}, r"span no range; give finite low < high, up to 1e\+30"),
    ],
)
def test_bad_limits_are_refused_in_one_sentence(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        _load(tmp_path, options)
    assert "\n" not in str(refusal.value)


def test_a_constant_action_may_be_stated(tmp_path):
    actions = np.random.default_rng(0).uniform(-1, 1, (ROWS, 2))
    actions[:, 1] = 0.3
    data, _ = _load(tmp_path, {"action_low": (-1.0, 0.3), "action_high": (1.0, 0.3)}, actions=actions)
    assert data.normalisation.action_low.tolist() == [-1.0, float(np.float32(0.3))]
    with pytest.raises(ValueError, match="leave the given range"):
        _load(tmp_path, {"action_low": (-1.0, 0.4), "action_high": (1.0, 0.4)}, actions=actions)


def test_observation_limits_are_so_many_half_ranges_from_the_centre(tmp_path):
    observations = np.zeros((ROWS, 3))
    observations[:, 0] = np.linspace(10, 14, ROWS)  # centre 12, half range 2
    observations[:, 1] = 5.0
    observations[:, 2] = np.sin(np.arange(ROWS))
    data, _ = _load(tmp_path, {"observation_margin": 2.0}, observations=observations)
    low, high = data.normalisation.standardisation().limits()
    np.testing.assert_allclose(low[:2], [8.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(high[:2], [16.0, 5.0], rtol=1e-6)
    for raw, clipped in ((100.0, 16.0), (-100.0, 8.0), (9.0, 9.0)):
        found = data.normalisation.observation(jnp.array([raw, 7.0, 0.0]))
        expected = (clipped - 12.0) / np.std(observations[:, 0])
        np.testing.assert_allclose(found[:2], np.array([expected, 0.0]), atol=1e-5)
    unlimited, _ = _load(tmp_path, {"observation_margin": None}, observations=observations)
    found = unlimited.normalisation.observation(jnp.array([100.0, 7.0, 0.0]))
    np.testing.assert_allclose(found[:2], np.array([88.0 / np.std(observations[:, 0]), 2.0]), rtol=1e-5)


def test_what_is_trained_on_is_never_clipped(tmp_path):
    with_limits, _ = _load(tmp_path, {"observation_margin": 1.0})
    without, _ = _load(tmp_path, {"observation_margin": None})
    np.testing.assert_allclose(with_limits.train.observations, without.train.observations, rtol=1e-6)


def test_the_logs_that_a_run_began_with_are_inside_its_range(tmp_path):
    """Without a warning, although the range and the constant are rounded to single precision."""
    actions = np.random.default_rng(0).uniform(-0.7, 2.1, (ROWS, 2))
    actions[:, 1] = 0.3
    data, _ = _load(tmp_path, actions=actions)
    again = load_logs(tmp_path / "log.npz", validation_fraction=0.0, normalisation=data.normalisation)
    np.testing.assert_array_equal(again.train.actions, data.train.actions)


def test_a_run_of_version_0_1_0_continues_on_the_same_bits(tmp_path):
    """The formulas of that version, in single precision."""
    data, arrays = _load(tmp_path, observations=np.random.default_rng(0).normal(50, 5, (ROWS, 3)))
    new = data.normalisation
    old = type(new)(new.observation_mean, new.observation_scale, new.action_low - 1, new.action_high + 1)
    again = load_logs(tmp_path / "log.npz", validation_fraction=0.0, normalisation=old)
    assert again.normalisation is old

    @jax.jit
    def in_network_units(units, observations, actions):
        return (
            (observations - units.observation_mean) / units.observation_scale,
            (actions - (units.action_high + units.action_low) / 2) / ((units.action_high - units.action_low) / 2),
        )

    with jax.numpy_rank_promotion("allow"):
        expected = in_network_units(old, *(arrays[key].astype(np.float32) for key in ("observations", "actions")))
    np.testing.assert_array_equal(_network_observations(again), expected[0])
    np.testing.assert_array_equal(_network_actions(again), np.clip(expected[1], -(1 - 1e-5), 1 - 1e-5))
