"""A few frames of one episode, with one row for each compute budget."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from sorl.agents import Budget
from sorl.evaluate.episodes import play
from sorl.evaluate.video import renderable
from sorl.runs.run import Run, load_run
from sorl.system.pictures import pyplot_without_screen, write_picture


FRAMES = 8
"""Frames in a row, evenly spaced from the first state to the last."""

EPISODES = 50
"""Episodes of the evaluation that the filmed episode belongs to: the default of `sorl.evaluate`."""


class Strip(NamedTuple):
    """Frames of an episode at one budget."""

    budget: Budget
    frames: list[np.ndarray]
    """Pictures [height, width, 3]."""
    steps: list[int]
    """The number of environment steps before each frame."""
    success: bool | None
    """The success that the environment reported last; None if it reported none."""


def film_strip(
    directory: Path, inference_steps: Sequence[int], episode: int, out: Path, env: str | None = None
) -> Path:
    """Draws an episode of a run's first seed, one row for each number of inference steps, and **returns** `out`.

    `env` is the environment of a run that was trained on logs alone.

    Raises a `RuntimeError` if the environment cannot be rendered, a `ValueError` for an episode number outside an
    evaluation of 50 episodes, and an `ImportError` if matplotlib is missing.
    """
    if not 0 <= episode < EPISODES:
        raise ValueError(f"The film's episode is {episode}; give one from 0 to {EPISODES - 1}.")
    run = load_run(directory).in_environment(env)
    usual = run.config.budgets(final=False)[0]
    strips = [play_strip(run, dataclasses.replace(usual, inference_steps=steps), episode) for steps in inference_steps]
    draw_strips(strips, out)
    return out


def play_strip(run: Run, budget: Budget, episode: int) -> Strip:
    """Plays the episode exactly as an evaluation does, and keeps evenly spaced frames."""
    timing = run.config.evaluation.success_timing
    environments = renderable(run.env, 1, timing)
    policy = next(iter(run.chosen(None).values()))
    moments = play(policy, environments, budget=budget, episodes=EPISODES, seed=0, first=episode + 1)
    frames: list[np.ndarray] = []
    success = None
    for moment in tqdm(moments, desc=f"filming {budget.name}", unit="step", leave=False):
        if episode in moment.episodes:
            (place,) = np.flatnonzero(moment.episodes == episode)
            frames.append(environments[moment.slots[place]].render())
            if moment.outcome.has_success[place]:
                success = bool(moment.outcome.success[place])
    chosen = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
    return Strip(budget, [frames[i] for i in chosen], [int(i) + 1 for i in chosen], success)


def draw_strips(strips: Sequence[Strip], out: Path) -> None:
    """Writes the picture of the frames to `out`."""
    pyplot = pyplot_without_screen()
    figure, axes = pyplot.subplots(
        len(strips), FRAMES, figsize=(1.6 * FRAMES, 1.95 * len(strips)), layout="constrained", squeeze=False
    )
    for row, strip in zip(axes, strips, strict=True):
        for place in row:
            place.set_axis_off()
        for place, frame, step in zip(row, strip.frames, strip.steps, strict=False):
            place.imshow(frame)
            place.set_title(f"step {step}", fontsize=8)
        ending = {True: "succeeds", False: "fails", None: f"ends at step {strip.steps[-1]}"}[strip.success]
        row[0].set_title(f"$M^{{inf}}$ {strip.budget.inference_steps}, {ending}; step {strip.steps[0]}", fontsize=8)
    write_picture(figure, out, dpi=110)
