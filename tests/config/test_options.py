"""Configurations: to JSON and back, refusals, presets."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import pytest

from sorl.agents import Bc, Fawac, Fbrac, Fql, Idql, Ifql, Sorl, SorlReleased, Srpo
from sorl.config import presets
from sorl.config.changes import changes
from sorl.config.json_form import from_json, to_json
from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig, read_config


def _round_trip(config, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(config)))
    return read_config(path)


@pytest.mark.parametrize(
    "config",
    [
        presets.quickstart(),
        presets.paper("antmaze-giant-navigate-singletask-task3-v0"),
        presets.paper("scene-play-singletask-v0", SorlReleased),
        TrainConfig(seeds=(3, 1), evaluation=EvaluationConfig(success_timing="post", workers=2)),
    ],
)
def test_json_round_trip(config, tmp_path):
    assert _round_trip(config, tmp_path) == config


def test_paths_round_trip(tmp_path):
    config = presets.own_logs(tmp_path / "logs.npz")
    assert _round_trip(config, tmp_path).data.path == tmp_path / "logs.npz"


def test_settings_for_own_logs_stay_near_the_data(tmp_path):
    config = presets.own_logs(tmp_path / "logs.npz")
    assert config.agent == Sorl(q_coefficient=1.0, act_with_average=True)
    assert (config.evaluation.interval, config.log_interval) == (0, 1_000)
    assert presets.own_logs(tmp_path / "logs.npz", SorlReleased).agent == SorlReleased(q_coefficient=1.0)
    assert presets.own_logs(tmp_path / "logs.npz", Bc).agent == Bc()


def test_runs_on_own_logs_are_as_long_as_published_ones(tmp_path):
    for kind in (Sorl, Idql, Srpo):
        assert presets.own_logs(tmp_path / "logs.npz", kind).updates == presets.paper("scene-play", kind).updates
    config = presets.own_logs(tmp_path / "logs.npz", Srpo)
    assert isinstance(config.agent, Srpo)
    assert config.updates == config.agent.pretraining_updates + config.agent.decay_updates  # its policy trains last


def test_fields_that_are_missing_take_their_defaults_with_one_warning(tmp_path):
    path = tmp_path / "config.json"
    values = to_json(TrainConfig())
    del values["batch_size"], values["evaluation"]["workers"], values["agent"]["discount"]
    path.write_text(json.dumps(values))
    with pytest.warns(UserWarning) as caught:
        assert read_config(path) == TrainConfig()
    assert [str(warning.message) for warning in caught] == [
        f"{path} does not have batch_size, agent.discount, evaluation.workers; the values of the version that wrote it "
        "are used."
    ]


def test_a_missing_field_without_a_default_is_refused():
    with pytest.raises(ValueError, match="the place lacks low; restore it from a copy"):
        from_json(_Range, {"high": 2.0}, "the place")
    with pytest.warns(UserWarning, match="the place does not have high; the values"):
        assert from_json(_Range, {"low": 1.0}, "the place") == _Range(1.0)


@dataclasses.dataclass(frozen=True)
class _Range:
    low: float
    high: float = 5.0


@pytest.mark.parametrize(
    "fields",
    [
        lambda: {"seeds": (1, 1)},
        lambda: {"seeds": (-1,)},
        lambda: {"updates": 0},
        lambda: {"log_interval": 0},
        lambda: {"env": None},
        lambda: {"env": "gymnasium:Pendulum-v1"},
        lambda: {
            "env": "gymnasium:Pendulum-v1",
            "data": DataConfig(path=Path("logs.npz")),
            "evaluation": EvaluationConfig(success_timing="post"),
        },
        lambda: {"evaluation": EvaluationConfig(episodes=0)},
        lambda: {"evaluation": EvaluationConfig(episodes=10**30)},
        lambda: {"evaluation": EvaluationConfig(final_episodes=-1)},
        lambda: {"evaluation": EvaluationConfig(step_timeout=0.0)},
        lambda: {"evaluation": EvaluationConfig(inference_steps=())},
        lambda: {"evaluation": EvaluationConfig(final_candidates=(0,))},
        lambda: {"evaluation": EvaluationConfig(workers=0)},
        lambda: {"seeds": (2**32,)},
        lambda: {"data": DataConfig(directory=Path("data"), episodes=3)},
    ],
)
def test_impossible_runs_are_refused(fields):
    with pytest.raises(ValueError, match="give|set it to 0|add"):
        TrainConfig(**fields())


@pytest.mark.parametrize(
    ("config", "episodes"),
    [
        (presets.quickstart(), 50),
        (presets.paper("scene-play-singletask-v0"), 50),
        (dataclasses.replace(presets.quickstart(), updates=400), 2),  # of the 10,000 between evaluations
        (TrainConfig(evaluation=EvaluationConfig(episodes=4)), 10),  # of the 20 of a run that is no trial
        (TrainConfig(evaluation=EvaluationConfig(episodes=1), updates=2), 1),
        (TrainConfig(evaluation=EvaluationConfig(final_episodes=30), updates=2), 30),
    ],
)
def test_the_final_table_is_in_proportion_to_the_run(config, episodes):
    assert config.final_episodes == episodes


@pytest.mark.parametrize(
    "env, timing", [("cube-single-play-singletask-task1-v0", "pre"), ("gymnasium:Pendulum-v1", None), (None, None)]
)
def test_only_ogbenchs_environments_have_a_timing_of_success(env, timing):
    data = DataConfig() if timing else DataConfig(path=Path("logs.npz"))
    config = TrainConfig(env=env, data=data, evaluation=EvaluationConfig(interval=1 if env else 0))
    assert config.success_timing == timing


def test_changes_are_named():
    before = presets.quickstart()
    after = dataclasses.replace(
        before, updates=7, agent=Sorl(), evaluation=dataclasses.replace(before.evaluation, workers=3)
    )
    assert changes(before, before) == set()
    assert {"updates", "evaluation.workers", "agent.hidden_sizes"} <= changes(before, after)
    assert changes(before, dataclasses.replace(before, agent=SorlReleased())) == {"agent"}


# Source: the settings of the released code.
@pytest.mark.parametrize(
    "name, q_coefficient, discount, aggregation",
    [
        ("antmaze-large-navigate", 500, 0.99, "min"),
        ("antmaze-giant-navigate", 500, 0.995, "min"),
        ("humanoidmaze-medium-navigate", 100, 0.995, "mean"),
        ("humanoidmaze-large-navigate", 500, 0.995, "mean"),
        ("antsoccer-arena-navigate", 500, 0.995, "mean"),
        ("cube-single-play", 10, 0.99, "mean"),
        ("cube-double-play", 50, 0.99, "mean"),
        ("scene-play", 100, 0.99, "mean"),
    ],
)
@pytest.mark.parametrize("task", ["singletask-task1", "singletask-task5", "singletask"])
def test_the_papers_settings(name, q_coefficient, discount, aggregation, task):
    config = presets.paper(f"{name}-{task}-v0")
    agent: Any = config.agent
    assert (agent.q_coefficient, agent.discount, agent.q_aggregation) == (q_coefficient, discount, aggregation)
    assert (agent.discretization_steps, agent.backprop_steps, agent.learning_rate) == (8, 8, 1e-4)
    assert (config.updates, config.batch_size) == (1_000_000, 256)
    assert (config.evaluation.interval, config.evaluation.episodes) == (100_000, 50)
    assert [budget.name for budget in config.budgets(final=False)] == ["M4N1", "M1N1", "M2N1", "M8N1"]
    assert [budget.name for budget in config.budgets(final=True)] == [f"M{m}N{n}" for n in (1, 8) for m in (1, 2, 4, 8)]
    assert config.data.episodes is None


def test_an_environment_outside_the_table_takes_the_agents_defaults():
    assert presets.paper("puzzle-3x3-play-singletask-v0").agent == Sorl()
    assert Sorl.published.of_task("cube-single-play-v0") is None


# Source: the tables of the FQL paper.
@pytest.mark.parametrize(
    "agent, env, fields, success",
    [
        (Fql, "antmaze-large-navigate", {"distillation_coefficient": 10, "discount": 0.99, "q_aggregation": "min"}, 79),
        (Fql, "humanoidmaze-large-navigate", {"distillation_coefficient": 30, "discount": 0.995}, 4),
        (Fql, "cube-double-play", {"distillation_coefficient": 300, "q_aggregation": "mean"}, 29),
        (Ifql, "antsoccer-arena-navigate", {"candidates": 64, "discount": 0.995, "expectile": 0.9}, 33),
        (Ifql, "scene-play", {"candidates": 32, "discount": 0.99}, 30),
        (Fbrac, "antmaze-large-navigate", {"flow_matching_coefficient": 3, "q_aggregation": "min"}, 60),
        (Fbrac, "cube-single-play", {"flow_matching_coefficient": 100, "q_aggregation": "mean"}, 79),
        (Fawac, "cube-single-play", {"temperature": 1}, 81),
        (Fawac, "antmaze-giant-navigate", {"temperature": 3, "discount": 0.995, "q_aggregation": "min"}, 0),
    ],
)
def test_published_settings_of_the_flow_baselines(agent, env, fields, success):
    task = f"{env}-singletask-task2-v0"
    made: Any = presets.paper(task, agent).agent
    assert {name: getattr(made, name) for name in fields} == fields
    assert (made.hidden_sizes, made.learning_rate, made.target_rate, made.flow_steps) == ((512,) * 4, 3e-4, 0.005, 10)
    settings = agent.published.of_task(task)
    assert settings is not None and settings.success == success


def test_a_quickstart_of_a_baseline_has_small_networks_and_published_settings():
    assert presets.quickstart(agent=Fql).agent == Fql((256, 256), (256, 256), distillation_coefficient=300.0)
    assert presets.quickstart().evaluation.inference_steps == (4,)
    assert [budget.name for budget in presets.quickstart(agent=Ifql).budgets(final=False)] == ["M10N32"]


def test_a_derived_agent_keeps_the_sizes_that_it_defines_anew_in_every_preset(tmp_path):
    class Mine(Sorl):
        """Sorl with a policy of one size."""

        hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(64, 64))
        """Widths of the policy's hidden layers, in units."""

    class Later(Mine):
        """As Mine."""

    logs = tmp_path / "logs.npz"
    for kind in (Mine, Later):
        small = presets.quickstart(agent=kind).agent, presets.own_logs(logs, kind, quickstart=True).agent
        for made in small:
            assert isinstance(made, Mine) and (made.hidden_sizes, made.critic_hidden_sizes) == ((64, 64), (256, 256))
        for made in (presets.paper(presets.QUICKSTART_ENV, kind).agent, presets.own_logs(logs, kind).agent):
            assert isinstance(made, Mine) and (made.hidden_sizes, made.critic_hidden_sizes) == ((64, 64), (512,) * 4)
    plain: Any = presets.quickstart().agent
    assert (plain.hidden_sizes, plain.critic_hidden_sizes) == ((256, 256), (256, 256))
