"""Spaces of Gymnasium as vectors: their parts by name, and which of them are vectors of numbers. Imports no jax."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float


WHOLE = "observation"
"""The name of a space that has no parts."""


def leaves(space: Any, prefix: str = "") -> dict[str, Any]:
    """The parts of a space that is a dictionary or a tuple, such as `goal` or `robot/position`, in its own order."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        parts = space.spaces.items()
    elif isinstance(space, spaces.Tuple):
        parts = ((str(index), part) for index, part in enumerate(space.spaces))
    else:
        return {prefix.removesuffix("/") or WHOLE: space}
    return {name: leaf for key, part in parts for name, leaf in leaves(part, f"{prefix}{key}/").items()}


def is_vector(space: Any) -> bool:
    """Whether a part is a box with at most one axis, and so no image."""
    from gymnasium import spaces

    return isinstance(space, spaces.Box) and len(space.shape) <= 1


def part(value: Any, name: str) -> Any:
    """The part of an observation that a leaf's name means; the observation itself if it has no parts."""
    if isinstance(value, tuple):
        first, _, rest = name.partition("/")
        return part(value[int(first)], rest)
    if isinstance(value, dict):
        # Keys may have a slash too, as those of ROS topics do; the longest one that fits is meant.
        fitting = (key for key in value if f"{name}/".startswith(f"{key}/"))
        key = max(fitting, key=lambda key: len(str(key)), default=name)
        return part(value[key], name.removeprefix(str(key)).removeprefix("/"))
    return value


def with_vector_observations(environment: Any, keys: Sequence[str], env_name: str, *, always: bool) -> Any:
    """The environment, whose observations are the concatenation of their parts named by `keys`.

    **Arguments:** `always`, whether without keys a dictionary becomes the concatenation of all vectors in it; otherwise
    the environment is returned as it is.

    Raises a `ValueError`, one sentence, for a key that is not one of its vectors.
    """
    import gymnasium

    known = leaves(environment.observation_space)
    vectors = [key for key, leaf in known.items() if is_vector(leaf)]
    chosen = list(keys) or (vectors if always else [])
    if not chosen or chosen == [WHOLE] == list(known):
        return environment
    unknown = [key for key in chosen if key not in vectors]
    if unknown:
        raise ValueError(
            f"{env_name} has no vector {unknown[0]!r} in its observations; it has {', '.join(vectors) or 'none'}."
        )
    size = sum(int(np.prod(known[key].shape, dtype=int)) for key in chosen)
    box = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)
    return gymnasium.wrappers.TransformObservation(environment, lambda found: _flat(found, chosen), box)


def _flat(observation: Any, keys: Sequence[str]) -> Float[np.ndarray, " observation"]:
    return np.concatenate([np.asarray(part(observation, key), np.float64).reshape(-1) for key in keys])
