"""sorl: scalable offline reinforcement learning with shortcut models as policies.

Names are imported when first used, so that importing the package costs nothing: worker processes that only simulate
must not import jax.
"""

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from sorl.agents import (
        AbstractActor as AbstractActor,
        AbstractAgent as AbstractAgent,
        Bc as Bc,
        Budget as Budget,
        Budgets as Budgets,
        Cac as Cac,
        Fawac as Fawac,
        Fbrac as Fbrac,
        Fql as Fql,
        Idql as Idql,
        Ifql as Ifql,
        Iql as Iql,
        Rebrac as Rebrac,
        Sorl as Sorl,
        SorlPlus as SorlPlus,
        SorlReleased as SorlReleased,
        Srpo as Srpo,
    )
    from sorl.agents.registry import register as register_agent, register_actor as register_actor  # noqa: F401
    from sorl.config.options import TrainConfig as TrainConfig
    from sorl.data import LoadedData as LoadedData, load_logs as load_logs, load_ogbench as load_ogbench
    from sorl.data.normalisation import Normalisation as Normalisation
    from sorl.data.transitions import Dataset as Dataset, Transition as Transition, Window as Window
    from sorl.evaluate.evaluation import EvaluationResult as EvaluationResult, evaluate_policy as evaluate_policy
    from sorl.networks import MLP as MLP, CriticEnsemble as CriticEnsemble, ShortcutField as ShortcutField
    from sorl.policy import Plan as Plan, Policy as Policy, load_policy as load_policy
    from sorl.policy.exported import ExportedPolicy as ExportedPolicy, load_exported as load_exported
    from sorl.runs.run import Run as Run, load_run as load_run
    from sorl.train.loop import TrainState as TrainState, run_chunk as run_chunk, train_steps as train_steps

__version__ = "0.1.0"

_HOMES = {
    "AbstractActor": "agents",
    "AbstractAgent": "agents",
    "Bc": "agents",
    "Budget": "agents",
    "Budgets": "agents",
    "Cac": "agents",
    "CriticEnsemble": "networks",
    "Dataset": "data.transitions",
    "EvaluationResult": "evaluate.evaluation",
    "Fawac": "agents",
    "Fbrac": "agents",
    "Fql": "agents",
    "Idql": "agents",
    "Ifql": "agents",
    "Iql": "agents",
    "ExportedPolicy": "policy.exported",
    "LoadedData": "data",
    "MLP": "networks",
    "Normalisation": "data.normalisation",
    "Plan": "policy",
    "Policy": "policy",
    "Rebrac": "agents",
    "Run": "runs.run",
    "ShortcutField": "networks",
    "Sorl": "agents",
    "SorlPlus": "agents",
    "SorlReleased": "agents",
    "Srpo": "agents",
    "TrainConfig": "config.options",
    "TrainState": "train.loop",
    "Transition": "data.transitions",
    "Window": "data.transitions",
    "evaluate_policy": "evaluate.evaluation",
    "load_exported": "policy.exported",
    "load_logs": "data",
    "load_ogbench": "data",
    "load_policy": "policy",
    "load_run": "runs.run",
    "register_actor": "agents",
    "register_agent": "agents:register",
    "run_chunk": "train.loop",
    "train_steps": "train.loop",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, other_name = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"sorl.{module}"), other_name or name)


def __dir__() -> list[str]:
    return sorted(__all__)
