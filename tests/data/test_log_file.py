"""What a log file may hold: names, shapes, successors; and what is refused, mended or warned of."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.data import load_logs
from sorl.data.normalisation import Normalisation


def _log(**changes):
    """Three episodes of three steps: the second terminated, the others were cut."""
    seen = np.array([0.0, 1.0, 2.0, 10.0, 11.0, 12.0, 20.0, 21.0, 22.0])
    arrays = {
        "observations": np.stack([seen, np.sin(seen)], axis=1),
        "actions": np.cos(seen)[:, None],
        "rewards": seen / 10,
        "terminals": np.array([0, 0, 0, 0, 0, 1, 0, 0, 0]),
        "timeouts": np.array([0, 0, 1, 0, 0, 0, 0, 0, 1]),
        **changes,
    }
    return {key: array for key, array in arrays.items() if array is not None}


def _save(path, **changes):
    np.savez(path, **_log(**changes))
    return path


def _true_successors():
    observations = _log()["observations"]
    nexts = np.concatenate([observations[1:], observations[-1:]])
    nexts[[2, 5, 8]] = [[3.0, 0.1], [13.0, 0.2], [23.0, 0.3]]
    return nexts


def test_gymnasiums_names_and_columns_of_one_are_accepted(tmp_path):
    ours = load_logs(_save(tmp_path / "a.npz"), validation_fraction=0.0)
    log = _log()
    names = {"terminals": None, "timeouts": None, "rewards": log["rewards"][:, None]}
    theirs = {"terminations": log["terminals"][:, None] > 0, "truncations": log["timeouts"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_logs(_save(tmp_path / "b.npz", **names, **theirs), validation_fraction=0.0)
    for name in ("rewards", "masks", "starts", "observations", "actions"):
        np.testing.assert_array_equal(getattr(data.train, name), getattr(ours.train, name))


def test_both_names_at_once_are_refused(tmp_path):
    path = _save(tmp_path / "log.npz", terminations=np.zeros(9))
    with pytest.raises(ValueError, match="holds both terminals and terminations, which mean the same; give one of"):
        load_logs(path)


def test_true_successors_are_all_kept(tmp_path):
    data = load_logs(_save(tmp_path / "log.npz", next_observations=_true_successors()), validation_fraction=0.0)
    assert len(data.train) == 9
    assert data.provenance["summary"]["notes"] == []


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("last", ["rolled", "repeated"])
def test_a_shifted_copy_is_no_successor(tmp_path, last, dtype):
    """As if there were no next_observations: the two cuts are dropped, the termination needs no successor."""
    observations = _log()["observations"]
    shifted = np.concatenate([observations[1:], observations[:1] if last == "rolled" else observations[-1:]])
    path = _save(tmp_path / "log.npz", next_observations=shifted.astype(dtype))
    with pytest.warns(UserWarning, match="reach into the next episode after 3 of 3 episodes .first in row 2."):
        data = load_logs(path, validation_fraction=0.0)
    plain = load_logs(_save(tmp_path / "plain.npz"), validation_fraction=0.0)
    np.testing.assert_array_equal(data.train.starts, plain.train.starts)
    np.testing.assert_array_equal(data.train.observations, plain.train.observations)
    assert "reach into the next episode" in data.provenance["summary"]["notes"][0]


@pytest.mark.parametrize("unit, offset", [(1.0, 0.0), (1e-9, 0.0), (1.0, 1.7e9)])
def test_successors_of_other_rows_are_refused_in_any_unit(tmp_path, unit, offset):
    observations = offset + unit * _log()["observations"].astype(np.float64)
    nexts = offset + unit * _true_successors()
    fits = _save(tmp_path / "fits.npz", observations=observations, next_observations=nexts)
    assert len(load_logs(fits, validation_fraction=0.0).train) == 9
    nexts[0] = nexts[1]
    path = _save(tmp_path / "log.npz", observations=observations, next_observations=nexts)
    with pytest.raises(ValueError, match="in row 0 is not the observation of row 1"):
        load_logs(path)


def test_one_coincidence_costs_one_step_and_no_more(tmp_path):
    nexts = _true_successors()
    nexts[2] = _log()["observations"][3]
    path = _save(tmp_path / "log.npz", next_observations=nexts)
    with pytest.warns(UserWarning, match="after 1 of 3 episodes"):
        data = load_logs(path, validation_fraction=0.0)
    assert len(data.train) == 8


def test_what_is_marked_as_known_is_taken_as_it_is(tmp_path):
    nexts, known = _true_successors(), np.ones(9)
    nexts[2] = _log()["observations"][3]
    known[8] = 0
    path = _save(tmp_path / "log.npz", next_observations=nexts, next_known=known)
    taken = load_logs(path, validation_fraction=0.0)
    assert len(taken.train) == 8  # without the last one
    nexts[8] = np.nan
    data = load_logs(_save(tmp_path / "nan.npz", next_observations=nexts, next_known=known), validation_fraction=0.0)
    np.testing.assert_array_equal(data.train.observations, taken.train.observations)
    with pytest.raises(ValueError, match="next_observations of .* is not finite in row 8: column 0 is nan"):
        load_logs(_save(tmp_path / "seen.npz", next_observations=nexts, next_known=np.ones(9)))
    with pytest.raises(ValueError, match="next_known of .* is 2.0 in row 8; give 0 or 1"):
        load_logs(_save(tmp_path / "two.npz", next_observations=nexts, next_known=known + (known == 0) * 2))
    with pytest.raises(ValueError, match="holds next_known without next_observations; give both or neither"):
        load_logs(_save(tmp_path / "alone.npz", next_known=known))


def test_an_observation_that_stands_still_tells_nothing(tmp_path):
    still = np.zeros((9, 2))
    path = _save(tmp_path / "log.npz", observations=still, next_observations=still)
    assert len(load_logs(path, validation_fraction=0.0).train) == 9


def test_unused_keys_are_named_with_what_they_resemble(tmp_path):
    unused = {key: np.zeros(9) for key in ("next_obs", "obs", "dones", "qpos", "time_outs")}
    with pytest.warns(UserWarning) as caught:
        data = load_logs(_save(tmp_path / "log.npz", **unused))
    (warning,) = caught
    sentence = str(warning.message)
    assert (
        "not used: next_obs (did you mean next_observations?), obs (did you mean observations?), dones (did" in sentence
    )
    assert "qpos, time_outs (did you mean timeouts?)" in sentence
    assert data.provenance["summary"]["unused_keys"] == list(unused)


def test_notes_do_not_tell_the_directory(tmp_path):
    """They are written into every policy file."""
    observations = _log()["observations"]
    shifted = np.concatenate([observations[1:], observations[:1]])
    path = _save(tmp_path / "log.npz", actions=np.arange(18).reshape(9, 2), next_observations=shifted, obs=np.zeros(9))
    with pytest.warns(UserWarning) as caught:
        summary = load_logs(path).provenance["summary"]
    assert [str(warning.message) for warning in caught] == summary["notes"]
    assert len(summary["notes"]) == 3
    for note in summary["notes"]:
        assert "log.npz" in note and str(tmp_path) not in note


def test_a_missing_key_is_refused_with_what_resembles_it(tmp_path):
    path = _save(tmp_path / "log.npz", rewards=None, reward=np.zeros(9))
    with pytest.raises(ValueError, match=r"lacks rewards: it holds .*, reward \(did you mean rewards\?\)"):
        load_logs(path)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"observations": np.zeros((9, 0))}, r"observations of .* have shape \[9, 0\]; give at least one column"),
        ({"actions": np.zeros((9, 0))}, r"actions of .* have shape \[9, 0\]; give at least one column"),
        ({"actions": np.zeros((9, 1), bool)}, "actions of .* are booleans"),
        ({"rewards": np.full(9, 1e30)}, r"rewards of .* in row 0: 1e\+30, beyond 1e\+12"),
        ({"actions": np.full((9, 1), -1e38)}, r"actions of .* in row 0: column 0 is -1e\+38, beyond 1e\+30"),
        ({"masks": np.ones(9), "timeouts": None, "terminations": np.zeros(9), "terminals": None}, "ations and masks"),
    ],
)
def test_bad_arrays_are_refused_in_one_sentence(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        load_logs(_save(tmp_path / "log.npz", **changes))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"observations": (3, 30, np.nan)}, "observations of .* is not finite in row 3: column 30 is nan"),
        ({"actions": (4, 16, 1e31)}, r"actions of .* in row 4: column 16 is 1e\+31, beyond 1e\+30"),
        ({"actions": (5, 2, 7.0)}, r"leave the stored range -1.0 to 1.0 in row 5: column 2 is 7.0; correct"),
    ],
)
def test_of_a_wide_row_only_the_bad_number_is_named(tmp_path, change, message):
    rows = 9
    arrays = {
        "observations": np.zeros((rows, 40)),
        "actions": np.zeros((rows, 17)),
        "rewards": np.zeros(rows),
        "terminals": np.arange(rows) == rows - 1,
        "timeouts": np.zeros(rows),
        "action_low": -np.ones(17),
        "action_high": np.ones(17),
    }
    for key, (row, column, value) in change.items():
        arrays[key][row, column] = value
    np.savez(tmp_path / "wide.npz", **arrays)
    with pytest.raises(ValueError, match=message) as refused:
        load_logs(tmp_path / "wide.npz")
    assert "\n" not in str(refused.value)


def test_whole_numbers_are_warned_of_as_actions(tmp_path):
    with pytest.warns(UserWarning, match="actions of .* are whole numbers, but the policy acts with real numbers"):
        load_logs(_save(tmp_path / "log.npz", actions=np.arange(9)[:, None]))


def test_everything_is_single_precision_where_jax_takes_double(tmp_path):
    with jax.enable_x64(True):
        data = load_logs(_save(tmp_path / "log.npz"))
        identity = Normalisation.identity(2, 1)
        found = data.normalisation.observation(jnp.zeros(2, jnp.float32))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((data.train, data.normalisation))} == {"float32", "int32"}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(identity)} == {"float32"} and found.dtype == jnp.float32
