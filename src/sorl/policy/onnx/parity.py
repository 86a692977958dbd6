"""Compares an ONNX model's decisions in onnxruntime with those of the live policy."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from sorl.policy.acting import decide
from sorl.policy.policy import Policy


BATCHES = (1, 7, 256)
"""Batch sizes of the comparison."""
LIMIT = 1e-4
"""The largest difference allowed, as a share of half the action's range; for actions in [-1, 1], the difference."""
TIE_CHANGE = 1e-5
"""Relative change of an observation that must not change a decision by more than the limit; else it is a tie."""
MOST_TIES = 0.02
"""The largest share of decisions that may be ties."""

Act = Callable[[Float[np.ndarray, "batch observation"], np.ndarray], np.ndarray]
"""A function from observations and noise to actions."""


class Comparison(NamedTuple):
    """The result for one batch size."""

    batch: int
    difference: float
    """The largest absolute difference, as a share of half the action's range."""
    ties: int
    """Decisions left out: best-of-N choices that the live policy itself changes when an observation is rounded."""


class Decisions(NamedTuple):
    """Observations with their noise and the live policy's actions."""

    observations: Float[np.ndarray, "batch observation"]
    noise: Float[np.ndarray, "batch ..."]
    actions: Float[np.ndarray, "batch *chunk action"]


def live_decisions(policy: Policy, batch: int, noise_shape: tuple[int, ...]) -> Decisions:
    """Decisions of the live policy; observations are spread around those of training, some beyond their limits."""
    standardisation, key = policy.normalisation.standardisation(), jax.random.key(batch)
    spread = np.random.default_rng(batch).normal(size=(batch, policy.observation_size))
    observations = (standardisation.mean + 1.5 * standardisation.scale * spread).astype(np.float32)
    keys, size = jax.random.split(key, batch), policy.chunk * policy.action_size
    draws = jax.vmap(lambda own: policy.actor.draw_action(size, policy.budget, key=own))(keys)
    (noise,) = jax.tree.leaves(draws) or [np.zeros((batch, *noise_shape), np.float32)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of observations beyond the limits, which are here on purpose
        return Decisions(observations, np.asarray(noise), policy(observations, key=key))


def compare(policy: Policy, act: Act, noise_shape: tuple[int, ...], batch: int) -> Comparison:
    """Compares `act` with the live policy on one batch; raises a `ValueError` if they differ by more than the limit."""
    decisions = live_decisions(policy, batch, noise_shape)
    found = act(decisions.observations, decisions.noise)
    if found.shape != decisions.actions.shape:
        raise ValueError(f"The file returns actions of shape {found.shape}, the policy {decisions.actions.shape}.")
    differences = _differences(policy, found, decisions.actions)
    wrong = ~(differences <= LIMIT)  # also NaN
    ties = wrong & _ties(policy, batch, decisions) if wrong.any() else wrong
    if (wrong & ~ties).any() or ties.sum() > max(1, MOST_TIES * batch):
        raise ValueError(
            f"The file's actions differ from the policy's by {differences.max():.3g} in a batch of {batch}, and "
            f"{LIMIT:g} of half the action's range is allowed, so nothing was written; please report it."
        )
    kept = differences[~ties]
    return Comparison(batch, float(kept.max(initial=0.0)), int(ties.sum()))


def _differences(policy: Policy, found: np.ndarray, expected: np.ndarray) -> Float[np.ndarray, " batch"]:
    """The largest difference of each decision, as a share of half the action's range."""
    low, high = (np.asarray(x) for x in (policy.normalisation.action_low, policy.normalisation.action_high))
    share = np.abs(found - expected) / np.where(high > low, (high - low) / 2, 1)
    return share.reshape(len(share), -1).max(axis=1)


def _ties(policy: Policy, batch: int, decisions: Decisions) -> np.ndarray:
    """Which decisions change by more than the limit when an observation changes by about its rounding error."""
    keys, generator = jax.random.split(jax.random.key(batch), batch), np.random.default_rng(0)
    scale = np.abs(decisions.observations) + policy.normalisation.standardisation().scale
    ties = np.zeros(batch, np.bool_)
    for _ in range(8):
        change = TIE_CHANGE * scale * generator.choice([-1, 1], size=scale.shape)
        observations: Any = (decisions.observations + change).astype(np.float32)
        other = decide(policy.actor, policy.networks, policy.normalisation, observations, keys, policy.budget)
        ties |= _differences(policy, np.asarray(other), decisions.actions) > LIMIT
    return ties
