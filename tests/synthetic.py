"""Small random data and agents, for tests of other things."""

import dataclasses
from typing import Any

import numpy as np

from sorl.agents import AbstractAgent, Sorl
from sorl.data.normalisation import Normalisation
from sorl.data.transitions import Dataset

from .random_networks import array


def dataset(trajectories: int = 6, length: int = 20, observation_size: int = 4, action_size: int = 2) -> Dataset:
    """Random trajectories of `length` rows; every last row has no successor, every second trajectory terminates."""
    generator = np.random.default_rng(0)
    rows = trajectories * length
    masks = np.ones((trajectories, length), np.float32)
    masks[::2, -2] = 0.0
    starts = np.arange(rows).reshape(trajectories, length)[:, :-1].reshape(-1)
    return Dataset(
        observations=array(generator.normal(size=(rows, observation_size)), np.float32),
        actions=array(generator.uniform(-1, 1, (rows, action_size)), np.float32),
        rewards=array(generator.normal(size=rows), np.float32),
        masks=array(masks.reshape(-1), np.float32),
        starts=array(starts, np.int32),
    )


def units(**fields: Any) -> Normalisation:
    """The units of three observations and two actions, which are not those of networks."""
    return Normalisation(
        observation_mean=array([1.0, 2.0, 3.0], np.float32),
        observation_scale=array([2.0, 4.0, 0.5], np.float32),
        action_low=array([0.0, -5.0], np.float32),
        action_high=array([10.0, 5.0], np.float32),
        **fields,
    )


def agent(**fields) -> Sorl:
    """SORL with networks small enough to compile in a second."""
    return Sorl(**({"hidden_sizes": (8,), "critic_hidden_sizes": (8,), "backprop_steps": 2} | fields))


TINY: dict[str, Any] = {
    "hidden_sizes": (8,),
    "critic_hidden_sizes": (8,),
    "backprop_steps": 2,
    "flow_steps": 2,
    "width": 8,
    "blocks": 1,
    "denoising_steps": 2,
    "backup_candidates": 2,
    "pretraining_updates": 2,
    "candidates": 3,
}
"""Sizes of any agent's networks and loops, where it has such fields, that compile in a second."""


def tiny_fields(agent_class: type[AbstractAgent]) -> dict[str, Any]:
    """Those of `TINY` that the agent has."""
    known = {field.name for field in dataclasses.fields(agent_class)}
    return {name: value for name, value in TINY.items() if name in known}


def tiny(agent_class: Any, **fields: Any) -> Any:
    """An agent of any class, with the smallest sizes."""
    return agent_class(**(tiny_fields(agent_class) | fields))


def tiny_options(agent_class: type[AbstractAgent]) -> list[str]:
    """The same on the command line."""
    options = []
    for name, value in tiny_fields(agent_class).items():
        options += [f"--agent.{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return options


def write_logs(path, trajectories: int = 8, length: int = 25, seed: int = 1, scale: float = 1.0) -> None:
    """A user's log in units of its own: observations far from 0, actions 5 +- 5 * scale, time-outs and terminations."""
    generator = np.random.default_rng(seed)
    rows = trajectories * length
    ends = np.arange(rows) % length == length - 1
    terminated = ends & (np.arange(rows) // length % 2 == 0)
    np.savez(
        path,
        observations=generator.normal(50.0, 5.0, (rows, 3)).astype(np.float32),
        actions=(5 + scale * (generator.uniform(0.0, 10.0, (rows, 2)) - 5)).astype(np.float32),
        rewards=generator.normal(size=rows).astype(np.float32),
        terminals=terminated,
        timeouts=ends & ~terminated,
    )


def score(inference_steps: int, candidates: int, success: float = 0.5, difference: float = 0.1) -> dict[str, Any]:
    """A grid's row of one budget, with intervals of +-0.1."""
    return {
        "inference_steps": inference_steps,
        "candidates": candidates,
        "success": success,
        "success_low": success - 0.1,
        "success_high": success + 0.1,
        "difference": difference,
        "difference_low": difference - 0.1,
        "difference_high": difference + 0.1,
    }
