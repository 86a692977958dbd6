"""How far a policy's actions are from the logged ones: prediction, neighbours, range and smoothness."""

import jax
import numpy as np
from jaxtyping import Float, Int

from sorl.assess.acting import in_blocks
from sorl.data.columns import columns
from sorl.functional.actions import energy_score, third_differences


NEIGHBOURS = 32
"""Logged states near a state, whose actions count as supported there."""
MOST_LOGGED = 20_000
"""Logged states among which the near ones are searched, evenly spaced over the training data."""
SLACK = 1e-4
"""Share of half the action range by which an action may leave the logged range, for rounding and clipping."""
_QUERIES = 256
"""Number of states whose distances to all logged states are in memory at a time."""


def mean_energy_score(actions: Float[np.ndarray, "rows samples size"], logged: Float[np.ndarray, "rows size"]) -> float:
    """The mean energy score of the policy's samples against the logged action of each state."""
    scores = in_blocks(_energy_scores, actions, logged)
    return float(scores.mean(dtype=np.float64))


_energy_scores = jax.jit(jax.vmap(energy_score))


def near_states(
    observations: Float[np.ndarray, "rows observation"], logged: Float[np.ndarray, "logged observation"]
) -> Int[np.ndarray, "rows neighbours"]:
    """The places of the `NEIGHBOURS` nearest logged states, each dimension in units of its standard deviation.

    A dimension that is constant in the logs keeps its own unit.
    """
    found, scales = [], columns(logged)
    scale = np.where(scales.constant, 1, scales.deviation)
    # Relative to the mean, so that an offset costs no digits of the squared lengths below.
    logged = ((logged - scales.mean) / scale).astype(np.float32)
    count = min(NEIGHBOURS, len(logged))
    lengths = (logged**2).sum(axis=1)
    for start in range(0, len(observations), _QUERIES):
        queries = ((observations[start : start + _QUERIES] - scales.mean) / scale).astype(np.float32)
        distances = lengths[None] - 2 * queries @ logged.T  # without the query's own length, which orders nothing
        found.append(np.argpartition(distances, count - 1, axis=1)[:, :count])
    return np.concatenate(found)


def neighbour_distance(
    actions: Float[np.ndarray, "rows samples size"], neighbours: Float[np.ndarray, "rows neighbours size"]
) -> Float[np.ndarray, " size"]:
    """Mean distance in each dimension to the nearest action (by Euclidean length) that was logged in a near state."""
    total = np.zeros(actions.shape[-1])
    for own, logged in zip(actions, neighbours, strict=True):
        difference = np.abs(own[:, None] - logged[None])
        nearest = np.argmin((difference**2).sum(axis=-1), axis=1)
        total += difference[np.arange(len(own)), nearest].mean(axis=0)
    return total / len(actions)


def share_outside(
    actions: Float[np.ndarray, "rows samples size"], logged: Float[np.ndarray, "logged size"]
) -> Float[np.ndarray, " size"]:
    """The share of actions outside the range of the logged ones, in each dimension."""
    low, high = logged.min(axis=0) - SLACK, logged.max(axis=0) + SLACK
    return ((actions < low) | (actions > high)).mean(axis=(0, 1))


def mean_jerk(sequences: list[Float[np.ndarray, "_ action"]]) -> float:
    """The mean Euclidean length of the third differences of sequences of actions; 0 if all are too short."""
    lengths = [np.linalg.norm(third_differences(sequence), axis=1) for sequence in sequences]
    found = np.concatenate(lengths)
    return float(found.mean()) if len(found) else 0.0


def per_action(of_decision: Float[np.ndarray, " size"], chunk: int) -> tuple[float, ...]:
    """The mean over the steps of a chunk, for each dimension of an action."""
    return tuple(float(value) for value in of_decision.reshape(chunk, -1).mean(axis=0))
