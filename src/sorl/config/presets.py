"""Complete configurations: the papers' settings for each environment, the quickstart, and settings for own logs."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sorl.agents import AbstractAgent, Sorl
from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig


QUICKSTART_ENV = "cube-single-play-singletask-task1-v0"

QUICKSTART_NETWORKS: dict[str, Any] = {"hidden_sizes": (256, 256), "critic_hidden_sizes": (256, 256)}
"""The quickstart's networks, for every agent that has these fields; a derived agent keeps the fields that it defines
again."""


def paper(env: str, agent: type[AbstractAgent] = Sorl) -> TrainConfig:
    """The published settings for a task; for an environment outside the tables, the agent's defaults.

    Success is judged by the state after a step, as in OGBench 1.1, with which the papers' numbers were measured.
    """
    protocol = agent.published
    return TrainConfig(
        env=env,
        agent=_make(agent, _published_fields(env, agent)),
        evaluation=EvaluationConfig(interval=protocol.evaluation_interval, success_timing="post"),
        updates=protocol.updates,
    )


def quickstart(env: str = QUICKSTART_ENV, agent: type[AbstractAgent] = Sorl) -> TrainConfig:
    """Settings for a run of some minutes on two CPU cores: generated data, small networks, few updates.

    Fields that the agent's `quickstart` does not set are as published for the environment. Evaluations during training
    use one number of steps, the agent's usual one with these settings; later changes of the agent do not change it.
    """
    made = _make(agent, _published_fields(env, agent) | _small(agent))
    return TrainConfig(
        env=env,
        agent=made,
        data=DataConfig(episodes=100),
        evaluation=_short_evaluation(made),
        updates=40_000,
        batch_size=128,
        log_interval=1_000,
        checkpoint_interval=10_000,
    )


def own_logs(
    path: Path, agent: type[AbstractAgent] = Sorl, *, env: str | None = None, quickstart: bool = False
) -> TrainConfig:
    """Settings for a user's own logs: the agent's `own_logs`, whatever environment they are evaluated in.

    Published settings were tuned on OGBench's data, and say nothing about other logs of the same environment; only the
    number of updates is as published. Without `env` there are no evaluations. Metrics are logged every 1,000 updates,
    to warn early of diverging values. With `quickstart`, networks and number of updates are those of the quickstart,
    but the weights of the losses remain those for own logs.
    """
    fields = _preset(agent, "own_logs", agent.own_logs)
    # Some agents need longer runs than others: SRPO trains its policy only after its model and its values.
    sizes: Any = {"updates": agent.published.updates}
    evaluation = EvaluationConfig(interval=agent.published.evaluation_interval)
    if quickstart:
        fields = _small(agent) | fields
        sizes = {"updates": 40_000, "batch_size": 128, "checkpoint_interval": 10_000}
        evaluation = _short_evaluation(_make(agent, fields))
    return TrainConfig(
        env=env,
        agent=_make(agent, fields),
        data=DataConfig(path=path),
        evaluation=EvaluationConfig(interval=0) if env is None else evaluation,
        log_interval=1_000,
        **sizes,
    )


def _published_fields(env: str, agent: type[AbstractAgent]) -> dict[str, Any]:
    settings = agent.published.of_task(env)
    return {} if settings is None else _preset(agent, "published", settings.fields)


def _small(agent: type[AbstractAgent]) -> dict[str, Any]:
    definitions = [field for kind in agent.__mro__ for field in inspect.get_annotations(kind)]
    # Defined twice: the agent is derived from one that has the field, and defines it again.
    networks = {name: sizes for name, sizes in QUICKSTART_NETWORKS.items() if definitions.count(name) == 1}
    return networks | _preset(agent, "quickstart", agent.quickstart)


def _preset(agent: type[AbstractAgent], name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's hyper-parameters, without the fields that an agent derived from the preset's owner defines again."""
    kinds = list(agent.__mro__)
    later = kinds[: next(place for place, kind in enumerate(kinds) if name in vars(kind))]
    anew = {field for kind in later for field in inspect.get_annotations(kind)}
    return {field: value for field, value in fields.items() if field not in anew}


def _short_evaluation(agent: AbstractAgent) -> EvaluationConfig:
    """The evaluations of a run of 40,000 updates: few episodes, only at the usual number of steps of `agent`."""
    own = agent.actor.budgets
    steps = (own.usual.inference_steps,) if len(own.inference_steps) > 1 else None
    return EvaluationConfig(interval=10_000, episodes=20, inference_steps=steps)


def _make(agent: Any, fields: dict[str, Any]) -> AbstractAgent:
    # `Any`, because the fields depend on the agent.
    return agent(**fields)
