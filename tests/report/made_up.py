"""Run directories as `sorl.train` writes them, for the tests of a report."""

import dataclasses
import json

from sorl.agents import Sorl
from sorl.config.options import EvaluationConfig, TrainConfig
from sorl.runs import run as runs
from sorl.runs.metrics import MetricLog
from sorl.runs.versions import record_versions


CUBE, SCENE = (f"{name}-play-singletask-task1-v0" for name in ("cube-single", "scene"))
EVALUATION = EvaluationConfig(interval=10, episodes=20, inference_steps=(4,))


def make_run(
    directory,
    *,
    env: str | None = CUBE,
    seeds=(1, 2),
    final=(0.5, 0.7),
    agent=None,
    budgets=(1, 4),
    sha256="-",
    **options,
):
    """A run directory as `sorl.train` writes it, whose last three evaluations had these success rates, one per seed."""
    agent = Sorl(discretization_steps=4, backprop_steps=4) if agent is None else agent
    evaluation = EVALUATION if isinstance(agent, Sorl) else dataclasses.replace(EVALUATION, inference_steps=None)
    options = {"updates": 40, "evaluation": evaluation} | options
    config = TrainConfig(env=env, agent=agent, seeds=seeds, **options)
    runs.create(directory, config)
    data = {"source": "generated", "episodes": 9, "path": "-", "sha256": sha256}
    record_versions(directory, config, data)
    name = config.budgets(final=False)[0].name
    with MetricLog(directory) as log:
        for step, success in ((10, 0.0), (20, -0.1), (30, 0.0), (40, 0.1)):
            for seed, rate in zip(seeds, final, strict=True):
                value = 0.0 if step == 10 else rate + success
                figures = {"success": value, "return": -1.0, "episode_length": 2.0}
                log.write(step, seed, {f"evaluation/{key}/{name}": figure for key, figure in figures.items()})
    rows = [
        {"training_seed": seed, "inference_steps": steps, "candidates": candidates, "successes": 5, "episodes": 10}
        for seed in seeds
        for steps in (budgets if isinstance(agent, Sorl) else (1,))
        for candidates in (1, 8)
    ]
    (directory / "evaluation.json").write_text(json.dumps({"rows": rows}))
    return directory
