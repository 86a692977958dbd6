"""Gymnasium's environments, named `MODULE:ID`, such as `gymnasium:Pendulum-v1` or `my_envs:Reach-v0`.

Importing MODULE must register ID. `minari:ID` is the environment of a Minari data set. `MODULE:ID[KEY,KEY]`
concatenates the parts of an observation that is a dictionary.

Worker processes import this file, so it must not import jax.
"""

import importlib
import importlib.util
import math
import os
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from sorl.environments.generator import EpisodeGenerator
from sorl.environments.interface import Step
from sorl.environments.minari_sets import recorded_packages, recovered_environment
from sorl.environments.simulators import quiet
from sorl.environments.spaces import with_vector_observations
from sorl.system.error_places import users_line


class GymnasiumEnvironment:
    """An environment of Gymnasium whose observations and actions are flat boxes of real numbers.

    Success is `info["success"]`, or else `info["is_success"]`, at the steps that report one. An episode ends at the
    latest after the `max_episode_steps` of the environment's registration.

    `reset` seeds the environment with the episode's seed, and its action space and numpy's global generator with words
    derived from it. Environments with other randomness, such as Python's `random`, are not reproducible.
    """

    def __init__(self, env_name: str, *, pictures: bool = False):
        """**Arguments:** `env_name`, `MODULE:ID`; `pictures`, to call `render`.

        Raises a `ValueError`, one sentence, for an unknown id, an environment without a limit of steps, and spaces that
        are not flat boxes, and an `ImportError` if the module or a requirement of the environment is missing.
        """
        self._name = env_name
        self._generator = EpisodeGenerator()
        with self._generator.in_place(), quiet():
            self._environment = _make(env_name, "rgb_array" if pictures else None)
        self._actions = _flat_box(self._environment.action_space, "actions", env_name)
        self._observations = _flat_box(self._environment.observation_space, "observations", env_name)

    def sizes(self) -> tuple[int, int]:
        """As `Environment.sizes`."""
        return self._observations.shape[0], self._actions.shape[0]

    def action_range(self) -> tuple[Float[np.ndarray, " action"], Float[np.ndarray, " action"]]:
        """As `Environment.action_range`."""
        return self._actions.low, self._actions.high

    def reset(self, seed: int) -> Float[np.ndarray, " observation"]:
        """As `Environment.reset`; `gymnasium.make(id).reset(seed=seed)` starts the same episode."""
        words = np.random.SeedSequence(seed).generate_state(2)
        self._generator.seed(int(words[0]))
        self._environment.action_space.seed(int(words[1]))
        with self._generator.in_place():
            observation, _ = self._environment.reset(seed=seed)
        return self._checked(observation)

    def step(self, action: Float[np.ndarray, " action"]) -> Step:
        """As `Environment.step`; raises a `ValueError` for a number that is not finite, or a success that is none."""
        with self._generator.in_place():
            observation, reward, terminated, truncated, info = self._environment.step(
                np.asarray(action, self._actions.dtype)
            )
        success = info.get("success")
        if success is None:
            success = info.get("is_success")
        return (
            self._checked(observation),
            self._reward(reward),
            None if success is None else self._success(success),
            bool(terminated or truncated),
        )

    def _reward(self, found: Any) -> float:
        try:
            value = float(found)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{self._name} gave the reward {found!r}; give a finite number.")
        return value

    def _success(self, found: Any) -> bool:
        value = np.asarray(found)  # some environments report 0.0 and 1.0
        if value.size != 1 or value.dtype.kind not in "biuf" or value.item() not in (0, 1):
            raise ValueError(f"{self._name} gave the success {found!r}; give True or False, or leave it out.")
        return bool(value.item())

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """An image of the current state; needs `pictures`, and an environment with the render mode rgb_array.

        Raises a `RuntimeError`, one sentence, if the environment fails, and a `ValueError` for no whole numbers.
        """
        try:
            image = np.asarray(self._environment.render())
        except Exception as error:  # the user's code may raise anything
            where = users_line(error)
            place = "" if where is None else f" ({where})"
            raise RuntimeError(
                f"{self._name} failed to render: {type(error).__name__}: {_text(error)}{place}."
            ) from error
        if image.dtype.kind not in "iu":  # shares of 1 would all become black
            raise ValueError(f"{self._name} gave an image of type {image.dtype}; give whole numbers from 0 to 255.")
        return image.astype(np.uint8, copy=False)

    def _checked(self, observation: Any) -> Float[np.ndarray, " observation"]:
        try:
            values = np.asarray(observation, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self._name} gave the observation {repr(observation)[:100]}, which is no array of numbers as its "
                "space says; repair the environment."
            ) from error
        if values.shape != self._observations.shape:
            found, expected = list(values.shape), list(self._observations.shape)
            raise ValueError(
                f"{self._name} gave an observation of shape {found}, but its space says {expected}; repair the "
                "environment."
            )
        if not np.isfinite(values).all():
            column = int(np.argmin(np.isfinite(values)))
            raise ValueError(
                f"{self._name} gave an observation that is not finite: column {column} is {values[column]}; repair the "
                "environment."
            )
        return values


def split_name(env_name: str) -> tuple[str, str]:
    """Splits a name into module and id; raises a `ValueError` for a name of another form."""
    module, _, identifier = env_name.partition(":")
    if not all(part.isidentifier() for part in module.split(".")) or not identifier or ":" in identifier:
        raise ValueError(f"The environment is {env_name!r}; give MODULE:ID, such as gymnasium:Pendulum-v1.")
    return module, identifier


def search_directories(env_name: str) -> list[str]:
    """The directories in which a worker process finds the module of an environment, which is not imported here.

    Raises an `ImportError`, one sentence, if gymnasium or the module is missing.
    """
    if importlib.util.find_spec("gymnasium") is None:
        raise ImportError(f"{env_name} needs gymnasium, which is not installed here; run pip install gymnasium.")
    module, identifier = split_name(split_keys(env_name)[0])
    found = _directories(module)
    if found is None:
        raise ImportError(_no_module(module, env_name))
    # The environment of a Minari data set is in a package that its description names.
    for other in recorded_packages(identifier) if module == "minari" else []:
        found += _directories(other) or []
    return found


def _directories(module: str) -> list[str] | None:
    """The directories in which Python finds a module; None if there is no such module."""
    found = importlib.util.find_spec(module.partition(".")[0])
    if found is None:
        return None
    if found.submodule_search_locations is not None:
        return [os.path.dirname(os.path.abspath(place)) for place in found.submodule_search_locations]
    return [os.path.dirname(os.path.abspath(found.origin))] if found.has_location and found.origin else []


def split_keys(env_name: str) -> tuple[str, list[str]]:
    """Splits `MODULE:ID[KEY,KEY]` into the name and the keys of the observations; without brackets, there are none."""
    name, bracket, rest = env_name.partition("[")
    keys = [key.strip() for key in rest.removesuffix("]").split(",")] if bracket else []
    if bracket and (not rest.endswith("]") or not all(keys)):
        raise ValueError(
            f"The environment is {env_name!r}; give MODULE:ID[KEY,KEY] to choose observations by their keys."
        )
    return name, keys


def _make(env_name: str, render_mode: str | None) -> Any:
    name, keys = split_keys(env_name)
    module, identifier = split_name(name)
    search_directories(name)
    _import(module, name)
    if module == "minari":
        environment = recovered_environment(identifier, render_mode)
        limit = environment.spec.max_episode_steps
    else:
        environment, limit = _registered(module, identifier, env_name, render_mode)
    if limit is None:
        raise ValueError(
            f"{env_name} has no limit of steps, so that an episode may never end; register it with max_episode_steps."
        )
    return with_vector_observations(environment, keys, env_name, always=module == "minari")


def _registered(module: str, identifier: str, env_name: str, render_mode: str | None) -> tuple[Any, int | None]:
    """An environment by its registration, and its limit of steps."""
    import gymnasium

    try:
        spec = gymnasium.spec(identifier)
    except gymnasium.error.Error as error:
        raise ValueError(
            f"There is no environment {identifier!r} after importing {module} ({_text(error)}); give the id that the "
            "module registers."
        ) from error
    if spec.max_episode_steps is None:
        return None, None
    try:
        made = gymnasium.make(identifier, disable_env_checker=True, render_mode=render_mode)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ImportError(f"{env_name} needs what is not installed here: {_text(error)}.") from error
    except gymnasium.error.Error as error:
        raise ValueError(f"{env_name} cannot be made: {_text(error)}; repair its registration.") from error
    return made, spec.max_episode_steps


def _import(module: str, env_name: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ImportError(_no_module(module, env_name)) from error
        raise ImportError(
            f"The module {module} of {env_name} needs {error.name}, which is missing; install it."
        ) from error


def _no_module(module: str, env_name: str) -> str:
    return (
        f"There is no module {module!r} for the environment {env_name!r}; give a module in a directory that Python "
        "searches, such as the current one or one in PYTHONPATH."
    )


def _flat_box(space: Any, what: str, env_name: str) -> Any:
    """Returns the space; raises a `ValueError` unless it is a one-dimensional box of real numbers."""
    import gymnasium

    if isinstance(space, gymnasium.spaces.Box):
        if len(space.shape) == 1 and space.shape[0] and np.issubdtype(space.dtype, np.floating):
            return space
        found = f"a box of shape {list(space.shape)} and type {space.dtype}"
    elif isinstance(space, gymnasium.spaces.Dict):
        found = f"a dictionary of {', '.join(map(str, space))}"
    else:
        found = f"a space of the kind {type(space).__name__}"
    wrapper, remedy = _flattening_wrapper(space, what), "choose an environment with continuous actions"
    if wrapper is not None:
        remedy = f"register it with a wrapper such as gymnasium.wrappers.{wrapper}"
    raise ValueError(f"The {what} of {env_name} are {found}, but sorl needs a flat box of real numbers; {remedy}.")


def _flattening_wrapper(space: Any, what: str) -> str | None:
    """The wrapper that makes a flat box of real numbers of a space; None for actions that are no real numbers."""
    import gymnasium

    is_box = isinstance(space, gymnasium.spaces.Box)
    is_real = is_box and np.issubdtype(space.dtype, np.floating)
    if what == "actions":
        return "TransformAction" if is_real else None
    # `FlattenObservation` would leave the whole numbers of a flat box as they are.
    return "DtypeObservation" if is_box and not is_real and len(space.shape) == 1 else "FlattenObservation"


def _text(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
