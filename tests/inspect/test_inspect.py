import dataclasses
import json
import weakref

import numpy as np
import pytest

from sorl.data import LoadedData, Logs, load_logs
from sorl.data.loaded import to_device
from sorl.data.mapped.writer import MappedWriter
from sorl.data.normalisation import Normalisation
from sorl.data.ogbench.source import Ogbench
from sorl.data.recorded import checks
from sorl.data.recorded.digest import digest
from sorl.data.recorded.episodes import LoggedEpisode, Recording
from sorl.inspect import __main__ as command, tables
from sorl.inspect.collect import collect
from sorl.inspect.repeats import Repeats
from sorl.inspect.report import inspected
from sorl.inspect.sample import Reservoir, Steps
from sorl.inspect.source import recording_of, recording_of_loaded
from sorl.inspect.tracker import Tracker

from .. import recorded_files


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").write_text("raw")
    return tmp_path / "source"


def _recording(source, episodes, **changes):
    first = episodes[0]
    names = {
        "observation_names": tuple(f"o{i}" for i in range(first.observations.shape[1])),
        "action_names": tuple(f"a{i}" for i in range(first.actions.shape[1])),
    }
    return Recording(path=source, form="test", read=lambda notes: iter(episodes), files=(source,), **names, **changes)


def _episode(number, observations, actions=None, rewards=None, terminated=False, last=True, times=None):
    steps = len(observations) - last
    if actions is None:
        actions = np.random.default_rng(number).normal(size=(steps, 1)).cumsum(axis=0)
    return LoggedEpisode(
        observations=observations,
        actions=actions,
        rewards=np.zeros(steps) if rewards is None else rewards,
        terminated=(np.arange(steps) == steps - 1) & terminated,
        truncated=not terminated,
        name=f"episode {number}",
        times=times,
    )


def _smooth(number, steps=30, size=2):
    return np.random.default_rng(number).normal(size=(steps + 1, size)).cumsum(axis=0)


def _warned(facts, *words):
    found = [sentence for sentence in facts["warnings"] if all(word in sentence for word in words)]
    assert len(found) == 1, facts["warnings"]
    return found[0]


def test_one_pass_gives_the_statistics_of_the_whole():
    parts = [_smooth(number, steps) * [1.0, 100.0] + [5.0, 1e6] for number, steps in enumerate((3, 40, 7))]
    tracker = Tracker(2)
    for number, part in enumerate(parts):
        tracker.add(part, f"episode {number}")
    whole, steps = np.concatenate(parts), np.concatenate([np.diff(part, axis=0) for part in parts])
    second = np.concatenate([np.diff(part, n=2, axis=0) for part in parts])
    found = tracker.columns()
    np.testing.assert_array_equal(found.low, whole.min(axis=0))
    np.testing.assert_array_equal(found.high, whole.max(axis=0))
    np.testing.assert_allclose(found.mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, whole.std(axis=0), rtol=1e-9)
    np.testing.assert_allclose(tracker.usual_step(), np.abs(steps).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(tracker.noise(), np.sqrt(np.mean(second**2, axis=0) / 6), rtol=1e-12)
    np.testing.assert_allclose(tracker.smoothness(), 1 - np.mean(steps**2, axis=0) / (2 * whole.var(axis=0)), rtol=1e-9)
    episode = int(np.argmax([np.abs(np.diff(part[:, 0])).max() for part in parts]))
    step = int(np.abs(np.diff(parts[episode][:, 0])).argmax())
    assert tracker.largest_step_at[0] == f"step {step} of episode {episode}"


def test_white_noise_and_slow_changes_are_told_apart():
    noise, slow = Tracker(1), Tracker(1)
    noise.add(np.random.default_rng(0).normal(scale=3.0, size=(20_000, 1)), "e")
    slow.add(np.sin(np.arange(20_000) / 200)[:, None], "e")
    assert abs(noise.smoothness()[0]) < 0.03 and abs(noise.noise()[0] - 3) < 0.1
    assert slow.smoothness()[0] > 0.999 and slow.noise()[0] < 1e-4


def test_shares_at_the_limits_follow_new_limits():
    tracker = Tracker(1)
    for values in ([0.0, 1.0, 1.0], [1.0, 2.0], [2.0, -1.0, 2.0]):
        tracker.add(np.array(values)[:, None], "e")
    low, high = tracker.at_limits()
    assert (low[0], high[0]) == (1 / 8, 3 / 8)


def test_episodes_that_were_read_leave_memory(source, monkeypatch):
    monkeypatch.setattr("sorl.inspect.collect.SAMPLED_STEPS", 8)
    made, alive = [], []

    def read(notes):
        for number in range(10):
            observations = _smooth(number)
            made.append(weakref.ref(observations))
            yield _episode(number, observations)
            del observations
            alive.append(sum(one() is not None for one in made))

    collect(dataclasses.replace(_recording(source, [_episode(0, _smooth(0))]), read=read))
    assert len(alive) == 10 and max(alive) <= 3  # the first one, for its dtypes, and those that are being read


def test_the_sample_gives_every_step_the_same_chance():
    counts = np.zeros(50)
    for seed in range(300):
        reservoir = Reservoir(10, seed)
        for number in range(5):
            rows = np.arange(10) + 10 * number
            reservoir.add(Steps(rows[:, None].astype(float), rows[:, None].astype(float), np.full(10, number)))
        steps = reservoir.steps()
        assert len(steps.actions) == 10 == len(np.unique(steps.actions))
        counts[steps.actions[:, 0].astype(int)] += 1
    assert 35 < counts.min() and counts.max() < 90  # of 60, at more than 3 deviations


def test_constant_and_huge_columns_are_named_and_do_not_blow_up(tmp_path):
    random, rows = np.random.default_rng(0), 200
    observations = random.normal(size=(rows, 4))
    observations[:, 1], observations[:, 2] = 7.25, 1e9 * random.normal(size=rows)
    observations[:, 3] = 1.7e9 + 1e-3 * random.normal(size=rows)
    np.savez(
        tmp_path / "logs.npz",
        observations=observations,
        actions=random.uniform(-1, 1, (rows, 1)),
        rewards=random.normal(size=rows),
        terminals=np.zeros(rows),
        timeouts=np.arange(rows) % 20 == 19,
    )
    facts = inspected(Logs(tmp_path / "logs.npz").recording())
    assert "drop the dimension" in _warned(facts, "observations[1] never varies (it is 7.25)")
    assert "check its unit" in _warned(facts, "observations[2] has the unusual scale")
    assert "drop the dimension" in _warned(facts, "observations[3] hardly varies")
    json.dumps(facts, allow_nan=False)
    network = np.asarray(load_logs(tmp_path / "logs.npz", validation_fraction=0.0).train.observations)
    assert np.isfinite(network).all() and np.abs(network).max() < 6
    # The deviation is 1 over all rows, of which the last of each trajectory is not trained on.
    assert network[:, 1].tolist() == [0] * len(network) and (abs(network.std(axis=0)[[0, 2, 3]] - 1) < 0.05).all()


def test_angles_jumps_and_gaps_are_found(source):
    angle = (np.arange(401) * 0.1 + np.pi) % (2 * np.pi) - np.pi
    state = np.sin(np.arange(401) / 30)
    state[200:] += 5.0
    times = np.arange(400) * 0.1
    times[300:] += 2.0
    episodes = [_episode(number, np.stack([angle, state], axis=1), times=times) for number in range(12)]
    facts = inspected(_recording(source, episodes, frame_rate=20.0))
    assert "give its sine and cosine" in _warned(facts, "o0 looks like an angle in radians that wraps")
    assert "step 199 of episode 0" in _warned(facts, "o1 jumps by")
    assert "cut episodes where steps are missing" in _warned(facts, "0.25% of the gaps between steps", "0.1 s")
    _warned(facts, "Steps are 0.1 s apart, but the frame rate says 0.05 s")


def test_values_to_expect_and_their_remedies(source):
    big = [_episode(n, _smooth(n), rewards=np.full(30, 1e4)) for n in range(12)]
    facts = inspected(_recording(source, big), discount=0.99)
    # 1e4 (1 - 0.99^30) / (1 - 0.99), and the limit 1e4 / (1 - 0.99).
    assert facts["rewards"]["value_observed"] == pytest.approx(1e6 * (1 - 0.99**30))
    assert facts["rewards"]["value_limit"] == pytest.approx(1e6)
    assert "--data.reward-scale" in _warned(facts, "Expect |Q| of")
    _warned(facts, "Every reward is 1e+04", "give others, such as --data.reward success-at-end.")
    own = dataclasses.replace(_recording(source, big), form="own logs")
    _warned(inspected(own), "Every reward is 1e+04", "log others.")
    rare = [_episode(n, _smooth(n, 500), rewards=np.eye(500)[-1], terminated=True) for n in range(12)]
    facts = inspected(_recording(source, rare), discount=0.99)
    assert facts["rewards"]["value_at_start_mean"] == pytest.approx(0.99**499)
    assert "--agent.discount 0.998" in _warned(facts, "Rewards are rare")
    cut = [_episode(n, _smooth(n)[:-1], rewards=np.eye(30)[-1], last=False) for n in range(12)]
    assert "12 rewarded last steps cannot be trained on" in _warned(inspected(_recording(source, cut)), "rewarded last")


def test_duplicates_saturation_and_noise(source):
    noise = np.random.default_rng(0).normal(size=(30, 1))
    episodes = [_episode(n, _smooth(n), np.clip(10 * noise, -1, 1)) for n in (0, 1, 2, 0)]
    facts = inspected(_recording(source, episodes))
    assert facts["counts"]["duplicate_steps"] == 30 and facts["counts"]["duplicate_episodes"] == 1
    _warned(facts, "1 episodes are copies of others")
    _warned(facts, "a0 is at a limit in")
    _warned(facts, "a0 looks like independent noise")
    _warned(facts, "There are only 4 episodes")


def test_repeated_steps_are_counted_exactly_or_from_a_share_of_them():
    random = np.random.default_rng(0)
    steps = random.integers(0, 800, (40, 50, 3)).astype(np.float32)
    steps[20:] = steps[random.permutation(20)]  # the second half repeats the first
    expected = 2000 - len(np.unique(steps.reshape(-1, 3), axis=0))
    assert expected >= 1000
    for most, error in ((2000, 0), (400, 250)):
        repeats = Repeats(3, most)
        for part in steps:
            repeats.add(part[:, :2], part[:, 2:])
        assert abs(repeats.count() - expected) <= error


def test_a_command_of_two_values_is_neither_saturated_nor_jumping(source):
    gripper = np.repeat([-1.0, 1.0], 15)[:, None]
    facts = inspected(_recording(source, [_episode(n, _smooth(n), gripper) for n in range(3)]))
    assert "a0 has two values only" in _warned(facts, "a0 ")


def test_actions_beyond_the_stated_limits_are_named(source):
    actions = np.array([[-2.0, 0.5], [0.0, 0.0], [1.0, -0.5]])
    episodes = [_episode(0, _smooth(0, steps=3), actions=actions)]
    stated = dataclasses.replace(_recording(source, episodes), action_limits=((-1.0, -1.0), (1.0, 1.0)))
    facts = inspected(stated)
    said = "a0 is -2 to 1, beyond the stated limits -1 to 1, and training refuses that"
    assert _warned(facts, "beyond the stated limits").startswith(said)
    assert facts["action_limits"] == [[-1.0, -1.0], [1.0, 1.0]]
    assert not [one for one in inspected(_recording(source, episodes))["warnings"] if "limits -1" in one]


def test_limits_are_those_that_training_takes(source):
    actions = np.array([[0.3], [0.0], [-0.3]], np.float16)
    episodes = [_episode(0, _smooth(0, steps=3), actions=actions)]
    stated = dataclasses.replace(_recording(source, episodes), action_limits=((-0.3,), (0.3,)))
    facts = inspected(stated)
    assert facts["actions"][0]["high"] > 0.3
    assert not [one for one in facts["warnings"] if "beyond the stated limits" in one]


def test_of_a_lone_episode_nothing_is_held_out(source):
    facts = inspected(_recording(source, [_episode(0, _smooth(0))]))
    assert "none of it is held out" in _warned(facts, "only one episode")


def test_the_number_of_warnings_is_that_of_the_list(source):
    facts = inspected(_recording(source, [_episode(0, _smooth(0))]))
    lines = tables.text(facts | {"notes": ["A note."]}).splitlines()
    listed = lines[lines.index(f"Warnings: {len(facts['warnings']) + 1}") + 1 :]
    assert listed == [f"  - {sentence}" for sentence in ["A note.", *facts["warnings"]]]


def test_coverage_is_the_distance_to_other_episodes(source):
    grid = np.arange(31.0)[:, None]
    episodes = [_episode(number, grid + 0.5 * number) for number in range(2)]
    facts = inspected(_recording(source, episodes))
    deviation = np.concatenate([one.observations for one in episodes]).std()
    assert facts["coverage"]["distance_median"] == pytest.approx(0.5 / deviation)
    assert facts["split"]["validation"]["episodes"] == 1 and facts["coverage"]["validation"] > 0


def test_held_out_copies_are_nothing_away_from_the_states_to_train_on(source):
    facts = inspected(_recording(source, [_episode(number, _smooth(0)) for number in range(4)]))
    shown = dict(tables.overview(facts))["validation"]
    assert shown == "1 episode, 30 steps, mean return 0; nearest training state 0 deviations away"


@pytest.mark.parametrize(("rows", "values"), [(50, 3), (200, 2), (201, 3), (400, 2)])
def test_equal_states_are_no_distance_apart(source, rows, values):
    episodes = [_episode(i, np.random.default_rng(i).integers(0, values, (rows, 2))) for i in range(2)]
    near = inspected(_recording(source, episodes))["coverage"]
    assert near["distance_median"] == near["distance_90"] == near["validation"] == 0


def test_normalised_returns_follow_reference_scores(source):
    episodes = [_episode(n, _smooth(n), rewards=np.full(30, float(n))) for n in range(3)]
    facts = inspected(_recording(source, episodes, reference_scores=(30.0, 90.0)))
    assert facts["rewards"]["normalised_return_mean"] == pytest.approx(0.0)
    assert facts["rewards"]["normalised_return_max"] == pytest.approx(0.5)


def test_the_command_prints_tables_json_and_a_page(tmp_path, capsys):
    path = recorded_files.write_table(tmp_path / "arm.csv", recorded_files.episodes(lengths=(8, 9, 7)))
    command.main(command.Config(str(path), quiet=True))
    said = capsys.readouterr().out
    assert "episodes    3: 2 terminated, 1 cut; 24 steps, 23 transitions" in said and "Warnings:" in said
    assert "10 a second; steps 0.1 s apart" in said
    facts = command.main(command.Config(str(path), json=True, html=tmp_path / "page.html", quiet=True))
    printed = json.loads(capsys.readouterr().out)
    assert printed["counts"] == facts["counts"] and [one["name"] for one in printed["observations"]] == ["x", "y", "z"]
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "http" not in page and "<script" not in page
    assert all(sentence.split(";")[0].replace("'", "&#x27;") in page for sentence in facts["warnings"])


def test_a_page_does_not_replace_the_data(tmp_path):
    path = recorded_files.write_table(tmp_path / "arm.csv", recorded_files.episodes(lengths=(8, 9)))
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="arm.csv is a file to read, and would be replaced; give another name"):
        command.main(command.Config(str(path), html=path, quiet=True))
    assert path.read_bytes() == before


def test_data_beside_the_logs_are_held_out_in_place_of_episodes(tmp_path):
    path = recorded_files.write_table(tmp_path / "arm.csv", recorded_files.episodes(lengths=(8, 9, 7)))
    np.savez(tmp_path / "arm-val.npz")
    facts = inspected(recording_of(str(path), {}), validation_fraction=0.5)
    assert (facts["split"]["train"]["episodes"], facts["split"]["validation"]["episodes"]) == (3, 0)
    assert facts["notes"][-1].startswith("Training holds out arm-val.npz in place of episodes of these data;")


def test_a_split_without_an_episode_to_train_on_is_told(source):
    names = frozenset(f"episode {n}" for n in range(12))
    facts = inspected(_recording(source, [_episode(n, _smooth(n)) for n in range(12)], held_out=names))
    _warned(facts, "The data's own split holds out every episode, which training refuses")


@pytest.mark.parametrize(("ended", "refused"), [(0, False), (2, True)])
def test_episodes_without_a_step_to_train_on_are_told(source, ended, refused):
    # Of three episodes of one step training holds out the last.
    lone = [_episode(number, np.ones((1, 1)), terminated=number == ended, last=False) for number in range(3)]
    facts = inspected(_recording(source, lone))
    assert {name: part["transitions"] for name, part in facts["split"].items()} == {
        "train": 1 - refused,
        "validation": refused,
    }
    assert any("which training refuses; log longer episodes" in one for one in facts["warnings"]) == refused


def test_rewards_are_not_scaled_up_because_values_have_no_limit(source):
    small = [_episode(n, _smooth(n), rewards=np.eye(30)[-1] / 2, terminated=True) for n in range(12)]
    facts = inspected(_recording(source, small), discount=1.0)
    assert facts["rewards"]["value_limit"] == np.inf and not [x for x in facts["warnings"] if "reward-scale" in x]


def test_wide_floats_are_inspected(source):
    wide = [_episode(n, _smooth(n).astype(np.longdouble)) for n in range(12)]
    assert inspected(_recording(source, wide))["counts"]["duplicate_steps"] == 0


def test_loaded_data_of_a_task_are_episodes(source):
    states = np.arange(14, dtype=np.float32).reshape(7, 2)
    part = {
        "observations": states,
        "actions": np.linspace(-0.5, 0.5, 7, dtype=np.float32)[:, None],
        "rewards": np.arange(7, dtype=np.float32),
        "masks": np.array([1, 0, 1, 1, 1, 1, 1], np.float32),
        "is_start": np.array([1, 1, 0, 1, 1, 1, 0], np.bool_),
    }
    held = {key: array[:3] for key, array in part.items()}
    provenance = {"path": str(source), "source": "official", "env_name": "cube"}
    loaded = LoadedData(to_device(**part), to_device(**held), Normalisation.identity(2, 1), provenance)
    recording = recording_of_loaded(loaded)
    first, second, third = checks.episodes(recording)
    assert first.observations.tolist() == states[:3].tolist() and first.terminated.tolist() == [False, True]
    assert second.rewards.tolist() == [3, 4, 5] and second.truncated and not first.truncated
    assert recording.held_out == {third.name} and recording.steps == 7
    assert inspected(recording)["split"]["validation"]["steps"] == 2


@pytest.mark.parametrize(("form", "warnings"), [("OGBench, generated", 0), ("own logs", 1)])
def test_goals_inside_episodes_are_counted_by_visits(source, form, warnings):
    episodes = [
        _episode(n, _smooth(n), terminated=29 in goals)._replace(terminated=np.isin(np.arange(30), goals))
        for n, goals in enumerate(([0, 1, 2, 9], [28, 29], [0, 29]))
    ]  # the last step of an episode is none inside it
    facts = inspected(dataclasses.replace(_recording(source, episodes), form=form))
    assert (facts["counts"]["terminated_inside"], facts["counts"]["places_inside"]) == (6, 4)
    found = "6 steps in 4 places terminate inside an episode"
    assert f"goals       {found}" in tables.text(facts)
    assert len([sentence for sentence in facts["warnings"] if found in sentence]) == warnings


def test_a_task_in_data_directories_is_read_on_the_device_and_identified(tmp_path, monkeypatch):
    with MappedWriter(tmp_path / "set") as writer:
        writer.append({"observations": np.zeros((3, 2)), "actions": np.zeros((3, 1))})
    part = {
        "observations": np.zeros((3, 2), np.float32),
        "actions": np.zeros((3, 1), np.float32),
        "rewards": np.zeros(3, np.float32),
        "masks": np.ones(3, np.float32),
        "is_start": np.array([1, 1, 0], np.bool_),
    }
    provenance = {"path": str(tmp_path / "set"), "source": "official", "env_name": "cube"}

    def load(source):
        assert source.residence == "device"  # whatever memory is free
        return LoadedData(to_device(**part), None, Normalisation.identity(2, 1), provenance)

    monkeypatch.setattr(Ogbench, "load", load)
    recording = recording_of("cube-single-play-singletask-task1-v0", {})
    assert digest(recording.files, recording.path)["size"] == (tmp_path / "set" / "data.json").stat().st_size


def test_a_name_that_is_neither_a_file_nor_a_task_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file nowhere.npz"):
        recording_of("nowhere.npz", {})
