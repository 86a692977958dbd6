"""Deployment: a policy that acts at any budget, its file, and the choice of a budget for a time limit.

Importing, loading and acting need only jax, equinox, jaxtyping and numpy, no simulator or optimiser. Names are imported
when first used, so that `python -m sorl.policy` can react to Ctrl-C while it imports jax.
"""

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from sorl.policy.acting import act as act, decide as decide
    from sorl.policy.deadline import LateObservation as LateObservation
    from sorl.policy.file import bad_seeds as bad_seeds, policy_path as policy_path
    from sorl.policy.planning import Plan as Plan
    from sorl.policy.policy import Policy as Policy, load_policy as load_policy
    from sorl.policy.runner import PolicyRunner as PolicyRunner
    from sorl.policy.smoothing import Exponential as Exponential, OverlapAveraging as OverlapAveraging

_HOMES = {
    "Exponential": "smoothing",
    "LateObservation": "deadline",
    "OverlapAveraging": "smoothing",
    "Plan": "planning",
    "Policy": "policy",
    "PolicyRunner": "runner",
    "act": "acting",
    "bad_seeds": "file",
    "decide": "acting",
    "load_policy": "policy",
    "policy_path": "file",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
