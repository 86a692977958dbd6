"""Descriptions of the metrics that several algorithms log."""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp


SHARED: Mapping[str, str] = {
    "critic_loss": "squared error of the critic against its target, mean over batch and heads (reward squared)",
    "q_mean": "mean Q over batch and heads, for logged actions (discounted sum of rewards)",
    "target_q_mean": "mean target of the critic over the batch (discounted sum of rewards)",
    "value_loss": "expectile loss of V against the target critic's Q of logged actions (reward squared)",
    "v_mean": "mean V over the batch (discounted sum of rewards)",
    "policy_loss": "the whole loss that the policy's update minimises, each part times its coefficient",
    "flow_matching_loss": "squared error of the flow's velocity (of the smallest step) against action minus noise",
    "self_consistency_loss": "squared error of one jump against two of half its size",
    "noise_prediction_loss": "squared error of the diffusion model's noise, summed over action dimensions",
    "advantage_weight_mean": "mean weight of logged actions in cloning, the exponential of their scaled advantage",
    "q_loss": "minus the mean Q of the policy's actions, over their mean absolute Q where the agent normalises it",
    "policy_q_mean": "mean Q over batch and heads, for the policy's own actions",
    "critic_grad_norm": "global Euclidean norm of the critic's gradient",
    "value_grad_norm": "global Euclidean norm of V's gradient",
    "policy_grad_norm": "global Euclidean norm of the policy's gradient",
    "behaviour_grad_norm": "global Euclidean norm of the gradient of a model of the logged actions",
    "td_policy_grad_norm": "global Euclidean norm of the TD loss's gradient into the policy, where the agent takes it",
}
"""Descriptions by metric name; an agent's own `metric_descriptions` take precedence."""

NAME = re.compile(r"\w+", re.ASCII)
RESERVED = ("value_excess",)
"""Metrics that training adds to those of every agent."""

UNDESCRIBED = "logged by the agent, without a description"


def described(own: Mapping[str, str], metric: str) -> str:
    """The description of a metric: the agent's own, else the one in `SHARED`, else `UNDESCRIBED`."""
    return own.get(metric) or SHARED.get(metric, UNDESCRIBED)


def refuse_unusable(agent: str, metrics: Any, method: str = "update") -> None:
    """Raises a `ValueError`, one sentence, unless metrics are scalar floats whose names can be logged, at least one.

    **Arguments:** `agent`, the name of its class; `metrics`, the result of its `method`, with arrays or only their
    shapes and types.
    """
    if not isinstance(metrics, Mapping):
        kind = type(metrics).__name__
        raise ValueError(f"{agent}.{method} returns a {kind}; let it return a dictionary of scalar floats by name.")
    if not metrics:
        raise ValueError(f"{agent}.{method} returns no metric; let it return at least one scalar float by name.")
    for name, metric in metrics.items():
        if not isinstance(name, str) or not NAME.fullmatch(name) or name in RESERVED:
            raise ValueError(
                f"{agent} has a metric named {name!r}; name it by letters, digits and underscores, and not "
                f"{' or '.join(RESERVED)}, which training logs itself."
            )
        if not hasattr(metric, "dtype"):
            raise ValueError(f"The metric {name} of {agent} is {metric!r}; let {method} return scalar floats.")
        if metric.shape or not jnp.issubdtype(metric.dtype, jnp.floating):
            raise ValueError(
                f"The metric {name} of {agent} is an array of shape {list(metric.shape)} and type {metric.dtype}; "
                f"let {method} return scalar floats."
            )
