"""Videos of the episodes of an evaluation."""

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sorl.agents import Budget
from sorl.environments.interface import SuccessTiming
from sorl.environments.named import is_ogbench
from sorl.environments.serial import SerialEnvironments
from sorl.evaluate.episodes import play
from sorl.policy import Policy


FRAMES_PER_SECOND = 20
"""One frame per step; this is real time for OGBench's robot arm."""


def record(
    policy: Policy,
    env_name: str,
    directory: Path,
    *,
    budget: Budget | None = None,
    episodes: int,
    first: int = 1,
    seed: int = 0,
    success_timing: SuccessTiming = "pre",
    label: str = "",
    quiet: bool = False,
) -> list[Path]:
    """Records videos of an evaluation's first episodes, exactly as `evaluate_policy` plays them with these arguments.

    A progress bar on standard error counts the steps.

    **Arguments:** as for `evaluate_policy`; `directory`, created if missing; `first`, the number of episodes to record;
    `label`, the prefix of the file names; `quiet`, whether to hide the bar.

    **Returns:** the files, `{label}episode{i}.mp4` if imageio finds ffmpeg (`pip install "imageio[ffmpeg]"`), else
    `.gif`.

    Raises a `RuntimeError` if imageio or an off-screen renderer is missing.
    """
    # Check the requirements before anything is played.
    suffix = _suffix()
    environments = renderable(env_name, first, success_timing)
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{label}episode{episode}{suffix}" for episode in range(first)]
    moments = play(policy, environments, budget=budget, episodes=episodes, seed=seed, first=first)
    # One writer per episode; the episodes are played in parallel, so their frames arrive interleaved.
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(_film(path)) for path in paths]
        bar = tqdm(moments, desc=f"filming {label}".rstrip("- "), unit="step", leave=False, disable=quiet)
        for moment in bar:
            for episode, slot in zip(moment.episodes, moment.slots, strict=True):
                writers[episode].append_data(environments[slot].render())
    return paths


def renderable(env_name: str, environments: int, success_timing: SuccessTiming) -> SerialEnvironments:
    """Creates environments that render off screen; raises a `RuntimeError` if there is no off-screen renderer."""
    # This must precede the first import of mujoco, which chooses its renderer then.
    os.environ.setdefault("MUJOCO_GL", "egl")
    made = SerialEnvironments(env_name, environments=environments, success_timing=success_timing, pictures=True)
    try:
        made.reset(np.array([0]), np.array([0]))
        made[0].render()
    except Exception as error:  # the backends raise different errors, some at import
        if not is_ogbench(env_name):
            reason = f"{type(error).__name__}: {error}".removesuffix(".")
            raise RuntimeError(
                f"{env_name} cannot be rendered here ({reason}); install what it needs, or leave films out."
            ) from error
        raise RuntimeError(
            f"MuJoCo cannot render off screen here (MUJOCO_GL={os.environ['MUJOCO_GL']}: {type(error).__name__}: "
            f"{error}); install EGL (on Debian: apt install libegl1) or set MUJOCO_GL to a renderer that works."
        ) from error
    return made


def refuse_unrenderable(env_name: str, success_timing: SuccessTiming) -> None:
    """Raises a `RuntimeError`, one sentence, if a requirement of `record` is missing; call it before long work."""
    _suffix()
    renderable(env_name, 1, success_timing).close()


def _suffix() -> str:
    if importlib.util.find_spec("imageio") is None:
        raise RuntimeError('Videos need imageio, which is not installed; run `pip install "imageio[ffmpeg]"`.')
    return ".gif" if importlib.util.find_spec("imageio_ffmpeg") is None else ".mp4"


@contextlib.contextmanager
def _film(path: Path) -> Iterator[Any]:
    """A writer of frames; the file `path` appears when it is complete."""
    import imageio.v2 as imageio

    options: dict[str, Any] = {"fps": FRAMES_PER_SECOND}
    if path.suffix == ".gif":
        options = {"duration": 1000 / FRAMES_PER_SECOND, "loop": 0}
    temporary = path.with_name(f".{os.getpid()}-{path.name}")  # imageio chooses the format by the suffix
    try:
        with warnings.catch_warnings(), imageio.get_writer(temporary, **options) as writer:
            # The warning does not matter, because the child process runs ffmpeg and nothing of jax.
            warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
            yield writer
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
