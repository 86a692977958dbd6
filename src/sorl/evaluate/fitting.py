"""Checks that a policy, or the logs for its training, fit an environment."""

from typing import Literal

import numpy as np

from sorl.data.normalisation import Normalisation
from sorl.environments.pool import Environments


_WORDS = {
    "policy": (
        "The policy takes observations of size {} and gives actions of size {}",
        "The policy gives actions",
        "evaluate it where it was trained",
    ),
    "logs": (
        "The logs have observations of size {} and actions of size {}",
        "The logs have an action range",
        "give the environment that they were recorded in, or correct the logs",
    ),
}


def refuse_misfit(
    environments: Environments, normalisation: Normalisation, *, of: Literal["policy", "logs"] = "policy"
) -> None:
    """Raises a `ValueError`, one sentence, unless sizes agree and the environment accepts the whole action range.

    **Arguments:** `normalisation` of the policy or of the logs, which gives the sizes and the action range in the
    environment's units.
    """
    about_sizes, about_actions, remedy = _WORDS[of]
    sizes = len(normalisation.observation_mean), len(normalisation.action_low)
    found = environments.sizes()
    if found != sizes:
        raise ValueError(
            f"{about_sizes.format(*sizes)}, but {environments.env_name} has {found[0]} and {found[1]}; {remedy}."
        )
    low, high = np.asarray(normalisation.action_low), np.asarray(normalisation.action_high)
    least, most = environments.action_range()
    outside = (low < least) | (high > most)
    if outside.any():
        column = int(np.argmax(outside))
        raise ValueError(
            f"{about_actions} from {low[column]} to {high[column]} in column {column}, but {environments.env_name} "
            f"accepts only {least[column]} to {most[column]}; {remedy}."
        )
