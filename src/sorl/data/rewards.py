"""Rewards in another form than the data's own."""

import numpy as np
from jaxtyping import Float, Shaped


def sparse(rewards: Shaped[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    """-1 where the reward is not 0, else 0.

    For OGBench's manipulation tasks, whose reward is minus the number of open subgoals, only the solved state keeps
    reward 0 (Li et al. 2025, "Reinforcement Learning with Action Chunking", for OGBench's scene and puzzles).
    """
    return np.where(rewards == 0, np.float32(0.0), np.float32(-1.0))
