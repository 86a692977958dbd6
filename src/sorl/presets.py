"""Settings as data: the paper's for each of its environments, and a quickstart for two CPU cores."""

import dataclasses
from pathlib import Path
from typing import Any

from sorl.agents import AbstractAgent, Sorl
from sorl.config import DataConfig, EvaluationConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class PaperSettings:
    """What the paper sets for an environment, the same for its five tasks (released code of SORL)."""

    q_coefficient: float
    discount: float
    q_aggregation: str
    published_success: float
    """Success in percent, mean over five tasks and eight seeds (NeurIPS 2025)."""


PAPER: dict[str, PaperSettings] = {
    "antmaze-large-navigate": PaperSettings(500.0, 0.99, "min", 89.0),
    "antmaze-giant-navigate": PaperSettings(500.0, 0.995, "min", 9.0),
    "humanoidmaze-medium-navigate": PaperSettings(100.0, 0.995, "mean", 64.0),
    "humanoidmaze-large-navigate": PaperSettings(500.0, 0.995, "mean", 5.0),
    "antsoccer-arena-navigate": PaperSettings(500.0, 0.995, "mean", 69.0),
    "cube-single-play": PaperSettings(10.0, 0.99, "mean", 97.0),
    "cube-double-play": PaperSettings(50.0, 0.99, "mean", 25.0),
    "scene-play": PaperSettings(100.0, 0.99, "mean", 57.0),
}
"""By environment and kind of data; a task's name begins with it."""

QUICKSTART_ENV = "cube-single-play-singletask-task1-v0"

QUICKSTART_AGENT: dict[str, Any] = {
    "hidden_sizes": (256, 256),
    "critic_hidden_sizes": (256, 256),
    "backprop_steps": 4,
    "learning_rate": 1e-3,
    "target_rate": 0.02,
    "q_coefficient": 5.0,
    "act_with_average": True,
}
"""Chosen by measurement: see the README's notes."""


def paper_environment(env: str) -> str | None:
    """The environment of the paper's table that `env` is a task of, or None."""
    name, separator, _ = env.partition("-singletask")
    return name if separator and name in PAPER else None


def paper(env: str, agent: type[AbstractAgent] = Sorl) -> TrainConfig:
    """The paper's settings for a task; for an environment outside its table, the agent's defaults."""
    name = paper_environment(env)
    fields: dict[str, Any] = {}
    if name is not None:
        settings = PAPER[name]
        fields = {
            "q_coefficient": settings.q_coefficient,
            "discount": settings.discount,
            "q_aggregation": settings.q_aggregation,
        }
    return TrainConfig(env=env, agent=agent(**fields))  # pyright: ignore[reportArgumentType]


def quickstart(env: str = QUICKSTART_ENV, agent: type[AbstractAgent] = Sorl) -> TrainConfig:
    """A run that ends within minutes on two CPU cores: generated data, small networks, few updates."""
    known = {field.name for field in dataclasses.fields(agent)}
    fields = {name: value for name, value in QUICKSTART_AGENT.items() if name in known}
    return TrainConfig(
        env=env,
        agent=agent(**fields),  # pyright: ignore[reportArgumentType]
        data=DataConfig(episodes=100),
        evaluation=EvaluationConfig(interval=10_000, episodes=20, inference_steps=(4,)),
        updates=70_000,
        batch_size=128,
        log_interval=1_000,
        checkpoint_interval=10_000,
    )


def own_logs(path: Path, agent: type[AbstractAgent] = Sorl) -> TrainConfig:
    """The agent's defaults on a user's own logs; no environment, so nothing to evaluate in."""
    return TrainConfig(
        env=None,
        agent=agent(),  # pyright: ignore[reportArgumentType]
        data=DataConfig(path=path),
        evaluation=EvaluationConfig(interval=0),
    )
