"""Own logs and an environment of Gymnasium through the command lines: trained, evaluated, measured and reported."""

import json
import shutil

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest
import tyro

from sorl import load_policy
from sorl.agents import Bc, Sorl
from sorl.evaluate import __main__ as evaluate, video
from sorl.plots import Config as PlotsConfig, main as plots
from sorl.report import __main__ as report
from sorl.runs.metrics import read_metrics
from sorl.scaling import __main__ as scaling
from sorl.train import __main__ as train
from sorl.train.checkpoints import Checkpoints

from . import synthetic
from .reaching import forget_environment


PENDULUM, REACH = "gymnasium:Pendulum-v1", "tests.environments.toys:Reach-v0"


def swing_up(observation):
    """Pumps energy into the pendulum, and holds it where it stands up."""
    cosine, sine, speed = observation
    angle = np.arctan2(sine, cosine)
    if cosine > 0.9:
        return -10 * angle - 2 * speed
    return 2.0 * np.sign(speed) * np.sign(10 * (1 - cosine) - speed**2 / 2)


def approach(observation):
    return 2.0 * (observation[1] - observation[0])


def record(path, env_id, controller, episodes):
    """Logs of a scripted controller with some noise, within the environment's bounds."""
    environment, random = gymnasium.make(env_id), np.random.default_rng(0)
    low, high = environment.action_space.low, environment.action_space.high  # type: ignore[attr-defined]
    rows = {name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")}
    for episode in range(episodes):
        observation, _ = environment.reset(seed=episode)
        done = False
        while not done:
            action = np.clip(controller(observation) + random.normal(size=1), low, high).astype(np.float32)
            following, reward, terminated, truncated, _ = environment.step(action)
            row = (observation, action, reward, terminated, truncated, following)
            for column, value in zip(rows.values(), row, strict=True):
                column.append(value)
            observation, done = following, terminated or truncated
    np.savez(path, **{name: np.array(column) for name, column in rows.items()})  # type: ignore[arg-type]
    return path


def train_on(logs, env, directory, agent, *words):
    words = ["--data", str(logs), "--env", env, *words, *synthetic.tiny_options(agent), "--run-dir", str(directory)]
    sizes = {"updates": 20, "batch-size": 16, "log-interval": 10, "checkpoint-interval": 10}
    played = {"interval": 10, "episodes": 3, "final-episodes": 3, "workers": 1}
    sizes |= {f"evaluation.{name}": number for name, number in played.items()}
    numbers = [part for name, number in sizes.items() for part in (f"--{name}", str(number))]
    return train.main([*words, *numbers, "--quiet", "--no-compilation-cache"])


def evaluated(directory, *words):
    """The rows of an evaluation."""
    few = ["--no-compilation-cache", "--episodes", "4", "--workers", "1"]
    config = tyro.cli(evaluate.Config, args=[str(directory), *few, *words])
    evaluate.main(config)
    return json.loads(((config.out or directory) / "evaluation.json").read_text())["rows"]


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    place = tmp_path_factory.mktemp("pendulum")
    logs = record(place / "logs.npz", "Pendulum-v1", swing_up, episodes=4)
    assert train_on(logs, PENDULUM, place / "run", Bc, "agent:bc") == 0
    return place / "run"


@pytest.fixture(scope="module")
def reach(tmp_path_factory):
    place = tmp_path_factory.mktemp("reach")
    import tests.environments.toys  # noqa: F401  (registers the environment)

    logs = record(place / "logs.npz", "Reach-v0", approach, episodes=20)
    one = [f"--evaluation.{name}" for name in ("inference-steps", "final-inference-steps", "final-candidates")]
    words = [word for name in one for word in (name, "1")]
    assert train_on(logs, REACH, place / "run", Sorl, "agent:sorl", *words) == 0
    return place / "run"


def test_without_success_the_return_is_the_score_everywhere(pendulum, tmp_path, capsys):
    rows = read_metrics(pendulum)
    names = {name.split("/")[1] for row in rows for name in row if name.startswith("evaluation/")}
    assert names == {"return", "return_low", "return_high", "episode_length"}
    for row in [row for row in rows if "evaluation/return/M1N1" in row]:
        low, mean, high = (row[f"evaluation/{name}/M1N1"] for name in ("return_low", "return", "return_high"))
        assert -2000 < low <= mean <= high < 0
    table = json.loads((pendulum / "evaluation.json").read_text())
    (row,), (found,) = table["rows"], table["summary"]
    assert row["returns"] and row["lengths"] == [200] * 3
    assert (row["success"], row["successes"], row["success_timing"], row["ogbench_version"]) == (None,) * 4
    assert found["return"] == pytest.approx(np.mean(row["returns"])) and found["success"] is None
    assert found["return_low"] <= found["return"] <= found["return_high"]
    with Checkpoints(pendulum / "checkpoints", read_only=True) as checkpoints:
        best = max((row["evaluation/return/M1N1"], row["step"]) for row in rows if "evaluation/return/M1N1" in row)
        assert checkpoints.best_step() == best[1]
    plots(PlotsConfig(pendulum, tmp_path / "run.png"))
    page = report.main(report.Config((pendulum,), tmp_path / "report")).read_text()
    assert f"{PENDULUM}: the environment reports no success, so the score is the return" in page
    assert "not reported" in page
    evaluated(pendulum, "--out", str(tmp_path))
    shown = capsys.readouterr().out
    assert "the environment reports no success" in shown and "bootstrap over episodes" in shown
    assert "0.000" not in shown


def test_results_do_not_depend_on_the_number_of_workers(pendulum, tmp_path):
    one, two = (evaluated(pendulum, "--out", str(tmp_path / n), "--workers", n) for n in ("1", "2"))
    assert one[0]["returns"] == two[0]["returns"] and len(set(one[0]["returns"])) == 4
    # The policy acts in the environment's units, within what was logged.
    policy = load_policy(pendulum)
    assert np.all(np.abs(policy.normalisation.action_low) <= 2) and np.all(policy.normalisation.action_high <= 2)


def test_a_run_on_logs_alone_is_evaluated_in_an_environment_that_is_named(pendulum, tmp_path):
    alone = shutil.copytree(pendulum, tmp_path / "alone")
    forget_environment(alone)
    with pytest.raises(ValueError, match="was trained on logs without an environment.*name one with --env"):
        evaluated(alone)
    expected = evaluated(pendulum, "--out", str(tmp_path / "out"))
    assert evaluated(alone, "--env", PENDULUM)[0]["returns"] == expected[0]["returns"]
    with pytest.raises(ValueError, match="The policy takes observations of size 3 and .* has 1 and 1"):
        evaluated(alone, "--env", "tests.environments.toys:Plain-v0")
    with pytest.raises(ValueError, match=f"was trained with the environment {PENDULUM}; leave --env out"):
        evaluated(pendulum, "--env", REACH)


def test_a_reported_success_is_the_score(reach, tmp_path, capsys):
    rows = evaluated(reach, "--out", str(tmp_path), "--inference-steps", "1", "2", "--candidates", "1")
    for row in rows:
        assert row["lengths"] == [8] * 4 and row["successes"] == sum(row["success"])
        assert 0 <= row["success_low"] <= row["successes"] / 4 <= row["success_high"] <= 1
    assert "success as the environment reports it" in capsys.readouterr().out
    words = ["--inference-steps", "1", "2", "--candidates", "1", "--episodes", "4", "--timing-seconds", "0", "--quiet"]
    config = tyro.cli(scaling.Config, args=[str(reach), *words, "--batch-size", "2", "--out", str(tmp_path)])
    pairs = scaling.main(config)
    assert [pair["success"] for pair in pairs] == [sum(row["success"]) / 4 for row in rows]
    assert "delete that directory" not in capsys.readouterr().out
    assert scaling.main(config) == pairs
    assert "toys:Reach-v0 has changed since, delete that directory" in capsys.readouterr().out
    assert len(load_policy(tmp_path / "policy-seed-0.sorl").scores) == 2


def test_films_are_of_the_environments_own_pictures(reach, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(video, "_suffix", lambda: ".gif")
    words = ["--inference-steps", "1", "--candidates", "1", "--out", str(tmp_path), "--video", str(tmp_path / "films")]
    evaluated(reach, *words, "--quiet")
    assert "filming" not in capsys.readouterr().err
    (film,) = (tmp_path / "films").iterdir()
    assert imageio.improps(film).shape == (8, 4, 6, 3)  # a picture of each step
    with pytest.raises(RuntimeError, match=r"toys:Plain-v0 cannot be rendered here \(.*\); install what it needs, or"):
        video.renderable("tests.environments.toys:Plain-v0", 1, "pre")


def test_success_after_a_step_is_refused_where_the_environment_judges(pendulum):
    with pytest.raises(ValueError, match="post is for OGBench's environments, and gymnasium:Pendulum-v1 judges"):
        evaluated(pendulum, "--success-timing", "post")
