"""Environments by name: OGBench's name of a single-task data set, or `MODULE:ID` of Gymnasium."""

from sorl.environments.gymnasium import GymnasiumEnvironment, search_directories, split_name
from sorl.environments.interface import Environment, SuccessTiming
from sorl.environments.names import Task
from sorl.environments.ogbench import OgbenchEnvironment
from sorl.environments.simulators import require_simulators


def is_ogbench(env_name: str) -> bool:
    """Whether a name has the form of OGBench's names, not `MODULE:ID`."""
    return ":" not in env_name


def named_environment(env_name: str, success_timing: SuccessTiming = "pre", *, pictures: bool = False) -> Environment:
    """Creates an environment in this process.

    **Arguments:** `env_name`; `success_timing`, for OGBench only; `pictures`, whether `render` will be called.
    """
    if is_ogbench(env_name):
        return OgbenchEnvironment(env_name, success_timing)
    return GymnasiumEnvironment(env_name, pictures=pictures)


def refuse_unplayable(env_name: str, environments: int, success_timing: SuccessTiming = "pre") -> None:
    """Raises a `ValueError`, one sentence, if environments cannot be created with these arguments.

    It refuses an unknown name, a number of environments below 1, and the success timing `post` for an environment that
    judges success itself.
    """
    if is_ogbench(env_name):
        Task.parse(env_name)
    else:
        split_name(env_name)
        if success_timing != "pre":
            raise ValueError(
                f"The success timing {success_timing} is for OGBench's environments, and {env_name} judges success "
                "itself; leave the timing out."
            )
    if environments < 1:
        raise ValueError(f"{environments} environments cannot play; give at least 1.")


def module_directories(env_name: str) -> list[str]:
    """The directories that a worker process must search, in addition to this process's, to create the environment.

    Raises an `ImportError`, one sentence that says what to install, if a module is missing.
    """
    if not is_ogbench(env_name):
        return search_directories(env_name)
    require_simulators()
    return []
