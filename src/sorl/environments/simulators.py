"""Creates OGBench's environments so that they can be seeded, without warnings that are irrelevant to users."""

import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sorl.system.worker_process import SAFE_PATH


HARMLESS = (
    r"(?s).*precision lowered by casting to float32",  # by gymnasium, about OGBench's action bounds +-1
    r"(?s).*DISPLAY environment variable is missing",  # by glfw, although nothing is drawn
)


def require_simulators() -> None:
    """Raises an `ImportError`, one sentence that says what to install, if OGBench or a requirement is missing."""
    missing = [name for name in ("ogbench", "gymnasium", "mujoco") if importlib.util.find_spec(name) is None]
    if missing:
        # A dependency of OGBench has no wheel for Python 3.13; its environments do not import it.
        rest = "" if sys.version_info < (3, 13) else " && pip install --no-deps ogbench dm_control"
        raise ImportError(
            f"OGBench's environments need {', '.join(missing)}, not installed here; run pip install "
            f"'sorl[ogbench]'{rest}."
        )


def make_environment(gymnasium_id: str, **settings: Any) -> Any:
    """Creates an environment of OGBench by its gymnasium id, without gymnasium's checks of the interface.

    Its action space is kept as one object: some of OGBench's environments create a new one at every access, seeded by
    the clock, and draw from it at reset, so that episodes would not depend on the seed alone. Raises an `ImportError`
    if OGBench is missing.
    """
    require_simulators()
    with quiet(), _safe_path():
        import gymnasium
        import ogbench  # noqa: F401  (registers the environments)

        environment = gymnasium.make(gymnasium_id, disable_env_checker=True, **settings)
        unwrapped: Any = environment.unwrapped
        original = type(unwrapped)
        unwrapped.__class__ = type(original.__name__, (original,), {"action_space": unwrapped.action_space})
        return environment


@contextmanager
def _safe_path() -> Iterator[None]:
    """Prevents the programs that glfw starts on import from executing files of the current directory."""
    before = {name: os.environ.get(name) for name in SAFE_PATH}
    os.environ.update(SAFE_PATH)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def quiet() -> Iterator[None]:
    """Silences only the simulators' harmless warnings."""
    with warnings.catch_warnings():
        for message in HARMLESS:
            warnings.filterwarnings("ignore", message=message)
        yield
