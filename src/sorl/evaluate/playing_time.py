"""Estimates the duration of an evaluation before it starts."""

from pathlib import Path

from sorl.config.options import TrainConfig
from sorl.runs.metrics import read_timings


def amount(budgets: int, seeds: int, episodes: int, seconds_per_episode: float | None) -> str:
    """A text such as `8 budgets x 1 seed x 50 episodes: 400 episodes, about 3 minutes`; without a speed, no time."""
    total = budgets * seeds * episodes
    counts = " x ".join(map(_counted, (budgets, seeds, episodes), ("budget", "seed", "episode")))
    time = "" if seconds_per_episode is None else f", about {duration(total * seconds_per_episode)}"
    return f"{counts}: {_counted(total, 'episode')}{time}"


def duration(seconds: float) -> str:
    """A text such as `20 seconds`, `3 minutes` or `2.5 hours`."""
    if seconds < 90:
        return _counted(max(1, round(seconds)), "second")
    return _counted(round(seconds / 60), "minute") if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def measured_speed(directory: Path, config: TrainConfig) -> float | None:
    """Seconds per episode in the run's last evaluation during training; None if none was timed."""
    try:
        timings = read_timings(directory)
    except (OSError, ValueError):  # an estimate is optional, so this is no error
        return None
    seconds = [row["evaluation_seconds"] for row in timings if row.get("evaluation_seconds", 0.0) > 0]
    played = len(config.budgets(final=False)) * len(config.members) * config.evaluation.episodes
    return seconds[-1] / played if seconds else None


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
